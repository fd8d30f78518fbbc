"""Examples from language over time: windows of a story that is heard, chunks of a sentence that is read.

A window is an example where somebody speaks in it, all of its volumes lie in the run, and as many windows come before it in the
story as its context takes, with a word in them. What is left out is counted and said (`LeftOut`). A chunk is an example where
another comes before it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.config import Config, Window
from bids_brainlm.core.splits import blocks_of
from bids_brainlm.core.types import Examples, Ints, Prompt, Recording
from bids_brainlm.core.windows import Transcript, chunks, rows_of, texts_of, window_of
from bids_brainlm.errors import InputError
from bids_brainlm.stages.responses import Trials

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeftOut:
    """Windows that are no example, by reason, and those that are.

    Parameters
    ----------
    used : int
        Windows that at least one example has as its text.
    silent : int
        In which nobody speaks.
    outside : int
        Whose volumes do not all lie in the run.
    early : int
        Before which no context of the asked for length stands, or one without a word.
    """

    used: int = 0
    silent: int = 0
    outside: int = 0
    early: int = 0

    def __add__(self, other: LeftOut) -> LeftOut:
        return LeftOut(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def __str__(self) -> str:
        why = f"{self.silent} without words, {self.outside} outside the series, {self.early} without context"
        return f"{self.used} windows with text; left out: {why}"


@dataclass(frozen=True, eq=False)
class Sample:
    """One example of a story: the number of its window, the rows (T,) of its run, and the windows of its context."""

    story: str
    window: int
    context: range
    rows: NDArray[np.int64]
    prompt: Prompt

    @property
    def stimulus(self) -> str:
        return stimulus_of(self.story, self.window)

    @property
    def heard(self) -> tuple[str, ...]:
        return tuple(stimulus_of(self.story, window) for window in self.context)


def stimulus_of(story: str, window: int) -> str:
    """``hare/0007``: a window is the same stimulus whenever its story is heard."""
    return f"{story}/{window:04d}"


def transcripts_of(heard: pd.DataFrame) -> Iterator[tuple[float, Transcript]]:
    """Start (s, in the time of the events) and words of each story of a run.

    Parameters
    ----------
    heard : DataFrame
        Columns story, start, onset, offset (s from the start of the story), word; a row a word.
    """
    for (story, start), words in heard.groupby(["story", "start"], sort=False):
        words = words.sort_values("onset", kind="stable")
        yield (
            float(start),
            Transcript(
                str(story), tuple(words["word"].astype(str)), words["onset"].to_numpy(float), words["offset"].to_numpy(float)
            ),
        )


def stories_of(
    trials: Trials, settings: Window
) -> Iterator[tuple[str, Ints, NDArray[np.float64], list[tuple[float, Transcript]]]]:
    """Of every run with words: its name, the rows of its volumes, their times in s, and its stories (`transcripts_of`)."""
    if trials.heard is None:
        raise ValueError("these trials have no words with times")
    runs, times = trials.table["run"].astype(str).to_numpy(str), trials.table["onset"].to_numpy(float)
    for run, heard in trials.heard.groupby("run", sort=False):
        own = np.flatnonzero(runs == str(run))
        written = heard.assign(word=heard["word"].astype(str).str.lower()) if settings.lower else heard
        yield str(run), own, times[own], list(transcripts_of(written))


def samples_of(
    start: float, transcript: Transcript, times: NDArray[np.float64], settings: Window
) -> tuple[list[Sample], LeftOut]:
    """Examples of a story in a run, and what is left out.

    Parameters
    ----------
    start : float
        Seconds, in the time of ``times``.
    transcript : Transcript
    times : (R,) float64
        Of the volumes of the run.
    settings : Window
    """
    texts = texts_of(transcript, settings.seconds)
    rows = rows_of(times, start, len(texts), settings.seconds, settings.lag, settings.rows)
    samples, counts = [], {"used": 0, "silent": 0, "outside": 0, "early": 0}
    for k, text in enumerate(texts):
        own = [sample for n in dict.fromkeys(settings.context) if (sample := _sample(transcript.name, texts, rows, k, n))]
        samples += own if text and rows[k, 0] >= 0 else []
        counts["silent" if not text else "outside" if rows[k, 0] < 0 else "used" if own else "early"] += 1
    return samples, LeftOut(**counts)


def _sample(story: str, texts: Sequence[str], rows: NDArray[np.int64], k: int, n_before: int) -> Sample | None:
    context = range(k - n_before, k)
    told = " ".join(texts[i] for i in context if texts[i]) if k >= n_before else ""
    return Sample(story, k, context, rows[k], Prompt(told, texts[k])) if told or not n_before else None


def window_examples(trials: Trials, config: Config) -> Examples:
    """One example a window and length of context, of all stories of a participant.

    Raises
    ------
    InputError
        When no window can be decoded, or there is no such column to group by.
    """
    found, by_run = _found(trials, config.window)
    left_out = sum(by_run.values(), LeftOut())
    LOGGER.debug("%s: %s", trials.path.name, left_out)
    if not found:
        remedy = "check --words, window.lag, window.context and the times of the transcript"
        raise InputError(f"no window of words can be decoded ({left_out})", trials.path, remedy=remedy)
    samples = [sample for _, _, sample in found]
    stimuli = np.array([sample.stimulus for sample in samples])
    rows = np.array([first + sample.rows for _, first, sample in found])
    return Examples(
        volumes_of(trials),
        rows,
        tuple(sample.prompt for sample in samples),
        tuple((sample.prompt.answer,) for sample in samples),
        _groups(trials, samples, stimuli, rows, config),
        stimuli,
        np.array([f"{name}_win-{s.window:04d}_context-{len(s.context)}" for name, _, s in found]),
        tuple(sample.heard for sample in samples),
    )


def left_out_of(trials: Trials, settings: Window) -> LeftOut:
    """Windows that are examples, and those that are not, by reason."""
    return sum(left_out_by_run(trials, settings).values(), LeftOut())


def left_out_by_run(trials: Trials, settings: Window) -> dict[str, LeftOut]:
    """As `left_out_of`, for each run with words."""
    return _found(trials, settings)[1]


def _found(trials: Trials, settings: Window) -> tuple[list[tuple[str, int, Sample]], dict[str, LeftOut]]:
    """(name of the part of the run, first row of the run, sample) of all runs, and what is left out of each."""
    found: list[tuple[str, int, Sample]] = []
    left_out: dict[str, LeftOut] = {}
    for run, own, times, stories in stories_of(trials, settings):
        for part, (start, transcript) in enumerate(stories):
            samples, counts = samples_of(start, transcript, times, settings)
            left_out[run] = left_out.get(run, LeftOut()) + counts
            name = run + (f"_part-{part + 1}" if part else "")
            found += [(name, int(own[0]), sample) for sample in samples]
    return found, left_out


def volumes_of(trials: Trials) -> Recording:
    """The series of all runs, as they were cleaned."""
    runs = pd.factorize(trials.table["run"].astype(str))[0]
    return Recording(trials.data, "standard deviations", "bold", trials.table["onset"].to_numpy(float), runs, trials.sources)


def _groups(
    trials: Trials, samples: Sequence[Sample], stimuli: NDArray[np.str_], rows: NDArray[np.int64], config: Config
) -> NDArray[np.str_]:
    group, settings = config.split.group, config.window
    if config.split.scheme == "blocks":
        return blocks_of([s.story for s in samples], [s.window for s in samples], settings.seconds, config.split.block)
    if group in ("story", "stimulus"):
        return np.array([sample.story for sample in samples]) if group == "story" else stimuli
    return column_of(trials, stimuli, rows[:, 0], group, settings.seconds)


def column_of(trials: Trials, stimuli: Any, rows: Any, column: str, seconds: float) -> NDArray[np.str_]:
    """Value of a column for each window: of its first volume (run, session), or of the events, where its first word is.

    Parameters
    ----------
    trials : Trials
    stimuli : (n,) str
    rows : (n,) int
        First volume of each window.
    column : str
    seconds : float
        Length of a window.

    Raises
    ------
    InputError
        When there is no such column.
    """
    if column in trials.table:
        return np.asarray(trials.table[column].astype(str).to_numpy(str)[np.asarray(rows)], dtype=np.str_)
    heard = trials.heard
    if heard is None or column not in heard:
        names = dict.fromkeys((*trials.table, *(() if heard is None else heard)))
        expected = f"one of {', '.join(map(str, names))}"
        raise InputError(f"no column {column!r}", trials.path, expected=expected, remedy="set --group, or split.source")
    windows = window_of(heard["onset"], seconds)
    held: dict[str, str] = {}
    for story, window, value in zip(heard["story"], windows, heard[column], strict=True):
        held.setdefault(stimulus_of(str(story), int(window)), str(value))
    return np.array([held[name] for name in np.asarray(stimuli).tolist()], dtype=np.str_)


def overlap(window: Window) -> float:
    """Seconds within which the responses or the contexts of two windows may overlap."""
    return window.lag + window.seconds * (window.rows + max(window.context, default=0))


@dataclass(frozen=True)
class Chunk:
    """A chunk of a text that is decoded: its number, the prompt, and the chunks that stand in it."""

    number: int
    context: tuple[int, ...]
    prompt: Prompt


def chunks_of(text: str, settings: Window) -> list[Chunk]:
    """Chunks of a text but the first, each after all that come before it, and (context 0) without any.

    >>> for chunk in chunks_of("the hare ran far away", Window(chunks=3, context=(1, 2))):
    ...     print(chunk.prompt.context, "|", chunk.prompt.answer)
    the hare | ran far
    the hare ran far | away
    """
    parts = chunks(text.lower() if settings.lower else text, settings.chunks)
    return [
        Chunk(k, tuple(range(k - n, k)), Prompt(" ".join(parts[k - n : k]), parts[k]))
        for k in range(1, len(parts))
        for n in dict.fromkeys(settings.context)
        if n in (0, k)
    ]
