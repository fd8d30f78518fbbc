"""Language over time: words with times -> windows of words, and the volumes that each is decoded from.

- A *transcript* is the words of one *story* with their times in s from its start. Windows belong to the story, so they are the
  same for everybody who hears it, wherever it begins in a run.
- A *window* k holds the words that begin within [k s, (k + 1) s) of the story, for windows of s seconds. It may be empty.
- Its *rows* are T volumes one after the other, the first being the first one that was taken ``lag`` seconds or more after the
  start of the window: the response to words comes seconds later. A window whose rows would leave the run has none.
- A text without times is cut into *chunks* of words instead, which are as long as each other to one word.

>>> story = Transcript("hare", ("the", "hare", "ran"), np.array([0.0, 0.4, 2.1]), np.array([0.3, 1.0, 2.9]))
>>> texts_of(story, 2.0)
['the hare', 'ran']
>>> rows_of(np.arange(0.0, 12.0, 2.0), 1.0, 2, 2.0, 2.0, 3)
array([[2, 3, 4],
       [3, 4, 5]])
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_brainlm.core.types import Ints

Doubles = NDArray[np.float64]

TOLERANCE = 1e-6
"""Seconds by which sums of times may be wrong."""


@dataclass(frozen=True, eq=False)
class Transcript:
    """Words of a story.

    Parameters
    ----------
    name : str
        Of the story.
    words : tuple of str, length n
    onset, offset : (n,) float64
        Seconds from the start of the story.
    n_marks, n_untimed : int
        Marks of what is no speech, and words without a time, that the file has besides.

    Raises
    ------
    ValueError
        When lengths differ, a time is not finite or is negative, onsets fall, or a word ends before it begins.
    """

    name: str
    words: tuple[str, ...]
    onset: Doubles
    offset: Doubles
    n_marks: int = 0
    n_untimed: int = 0

    def __post_init__(self) -> None:
        for field in ("onset", "offset"):
            values = np.array(getattr(self, field), dtype=np.float64)
            values.flags.writeable = False
            object.__setattr__(self, field, values)
        if not self.onset.shape == self.offset.shape == (len(self.words),):
            raise ValueError(f"{len(self.words)} words, {self.onset.size} onsets and {self.offset.size} offsets")
        times = np.stack([self.onset, self.offset])
        wrong = [
            (~np.isfinite(times).all(axis=0), "has no time"),
            (self.onset < 0, "begins before the story"),
            (np.append(np.diff(self.onset) < 0, False), "begins after the one that follows"),
            (self.offset < self.onset, "ends before it begins"),
        ]
        for mask, what in wrong:
            if mask.any():
                place = int(np.argmax(mask))
                raise ValueError(f"word {place + 1} of {self.name}, {self.words[place]!r}, {what}")


@dataclass(frozen=True, eq=False)
class Heard:
    """A story in a run.

    Parameters
    ----------
    transcript : Transcript
    start : float
        Seconds at which the story begins, in the time of the run's events; may be negative.
    """

    transcript: Transcript
    start: float


def texts_of(transcript: Transcript, seconds: float) -> list[str]:
    """(w,) words of each window, with blanks between; empty where nobody speaks, never at the end."""
    index = window_of(transcript.onset, seconds)
    texts: list[list[str]] = [[] for _ in range(int(index[-1]) + 1 if index.size else 0)]
    for place, word in zip(index, transcript.words, strict=True):
        texts[place].append(word)
    return [" ".join(words) for words in texts]


def window_of(onset: ArrayLike, seconds: float) -> Ints:
    """Window that begins at or before a time (s from the start of the story)."""
    return np.floor((np.asarray(onset, dtype=np.float64) + TOLERANCE) / seconds).astype(np.int64)


def rows_of(times: Doubles, start: float, n_windows: int, seconds: float, lag: float, n_rows: int) -> Ints:
    """Volumes that each window is decoded from.

    Parameters
    ----------
    times : (R,) float64
        Seconds at which the volumes of a run were taken, in the time of its events; increasing.
    start : float
        Seconds at which the story begins, in the same time.
    n_windows : int
    seconds, lag : float
        Length of a window; from its start to the earliest volume.
    n_rows : int
        T.

    Returns
    -------
    (w, T) int64
        Index into ``times``; -1 in a whole row where not all T volumes lie in the run, or the scan began later than the first.
    """
    wanted = start + seconds * np.arange(n_windows) + lag
    first = np.searchsorted(times, wanted - TOLERANCE)
    rows = first[:, None] + np.arange(n_rows)
    # Before the first volume of a run there may have been volumes that were not kept: it stands for no earlier time.
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    outside = (rows[:, -1] >= len(times)) | (wanted < times[0] - step - TOLERANCE)
    return np.where(outside[:, None], -1, rows).astype(np.int64)


def chunks(text: str, n: int) -> list[str]:
    """A text cut into n chunks of words, the first ones longer by a word where it does not come out even; fewer for fewer words.

    >>> chunks("the hare ran far away", 3)
    ['the hare', 'ran far', 'away']
    """
    words = text.split()
    return [" ".join(part) for part in np.array_split(np.array(words, dtype=object), min(n, len(words)))] if words else []
