"""Passages said aloud: a time for every word, and stories that are as long as they should be.

A word lasts the longer the more letters it has; between sentences there is a pause, between passages a longer one. On the
whole about 2.5 words are said a second. Times count from the start of the story.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.simulation.passages import Passage, Word, tell

SENTENCES = (5, 8)
"""Fewest and most sentences of a passage within a story."""


class Speed(NamedTuple):
    """How words are said; times in s.

    ``word`` and ``letter`` make up the length of a word, give or take ``spread`` (a share); ``sentence`` and ``passage`` are the
    shortest and longest pauses.
    """

    word: float = 0.14
    letter: float = 0.045
    spread: float = 0.15
    sentence: tuple[float, float] = (0.2, 0.7)
    passage: tuple[float, float] = (0.8, 1.6)


@dataclass(frozen=True, eq=False)
class Spoken:
    """A story.

    Parameters
    ----------
    name : str
    passages : tuple of Passage
    words : tuple of Word, length n
    onset, duration : (n,) float64, s
    """

    name: str
    passages: tuple[Passage, ...]
    words: tuple[Word, ...]
    onset: NDArray[np.float64]
    duration: NDArray[np.float64]

    @property
    def seconds(self) -> float:
        """When the last word ends."""
        return float(self.onset[-1] + self.duration[-1])


def story(
    name: str,
    seconds: float,
    rng: np.random.Generator,
    *,
    surprise: float = 0.2,
    barred: Collection[tuple[str, ...]] = (),
    speed: Speed | None = None,
) -> Spoken:
    """Tell passages until the time is over; the last one is cut between two sentences.

    Parameters
    ----------
    name : str
    seconds : float
        Longest duration; the story ends within a passage's pause of it.
    rng : numpy.random.Generator
    surprise : float
    barred : collection of openings
        See `bids_brainlm.simulation.passages.tell`.
    speed : Speed, optional

    Raises
    ------
    ValueError
        When no sentence can be said in that time.
    """
    speed = speed or Speed()
    now, told = 0.0, list[Passage]()
    words: list[Word] = []
    times: list[tuple[float, float]] = []
    while True:
        passage = tell(int(rng.integers(SENTENCES[0], SENTENCES[1] + 1)), rng, surprise, barred)
        kept = 0
        for sentence in passage.sentences:
            said = _say(sentence, now, speed, rng)
            if sum(said[-1]) > seconds:
                break
            words += sentence
            times += said
            now, kept = round(sum(said[-1]) + rng.uniform(*speed.sentence), 3), kept + 1
        if kept:
            told.append(Passage(passage.opening, passage.sentences[:kept]))
        if kept < len(passage.sentences):
            break
        now = round(now + rng.uniform(*speed.passage), 3)
    if not words:
        raise ValueError(f"no sentence can be said in {seconds:g} s")
    onset, duration = np.array(times).T
    return Spoken(name, tuple(told), tuple(words), onset, duration)


def _say(sentence: tuple[Word, ...], start: float, speed: Speed, rng: np.random.Generator) -> list[tuple[float, float]]:
    """(onset, duration) of each word, in ms."""
    out = []
    for word in sentence:
        lasts = (speed.word + speed.letter * len(word.text)) * (1 + speed.spread * rng.uniform(-1, 1))
        out.append((round(start, 3), round(lasts, 3)))
        start += round(lasts, 3)
    return out
