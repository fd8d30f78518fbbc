"""Stories as they were heard, and which of their windows may be learned from or are to be reconstructed.

A window with examples belongs to the part of the split that they are in, and to none where a purge or `split.amount` took them
out. A window without examples (nobody speaks, too early for its context, volumes beyond the run) goes with its neighbours where
those on both sides agree. So a silence within a test story is reconstructed like the rest, and one at a border belongs to nobody.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.types import Examples, Floats, Ints, Recording, Split

NOBODY = ""
"""Part of a window that is neither learned from nor held out."""

FEW, N_PARTS = 3, 5
"""With fewer stories than the first to learn from, a penalty is chosen by parts of them, of which each has the second number."""


@dataclass(frozen=True, eq=False)
class Telling:
    """A story in a run.

    Parameters
    ----------
    story, run : str
    texts : tuple of str, length w
        Words of each window; empty where nobody speaks.
    rows : (w, T) int64
        Rows of the recording that each window is decoded from; -1 in all of a row where they do not all lie in the run.
    volumes : (m,) int64
        Rows of the recording of the whole run.
    window : (m,) int64
        Window in which each volume was taken; below 0 before the story, w and more after it.
    part : (w,) str
        ``train``, ``validation``, ``test`` or `NOBODY`.

    Raises
    ------
    ValueError
        When lengths differ.
    """

    story: str
    run: str
    texts: tuple[str, ...]
    rows: Ints
    volumes: Ints
    window: Ints
    part: NDArray[np.str_]

    def __post_init__(self) -> None:
        if not len(self.texts) == len(self.rows) == len(self.part) or self.volumes.shape != self.window.shape:
            lengths = f"{len(self.texts)} texts, rows {self.rows.shape}, parts {self.part.shape}"
            raise ValueError(f"{lengths}, {self.volumes.size} volumes in {self.window.size} windows; expected w, w, w, m, m")

    @property
    def decodable(self) -> NDArray[np.bool_]:
        """(w,) whether all volumes of each window lie in the run."""
        return np.asarray(self.rows[:, 0] >= 0)

    def learnable(self, held: Ints) -> NDArray[np.bool_]:
        """(w,) training windows with volumes, none of which is among the rows ``held``."""
        return np.asarray((self.part == "train") & self.decodable & ~np.isin(self.rows, held).any(axis=1))


@dataclass(frozen=True, eq=False)
class Stretch:
    """Successive windows ``first``, ..., ``last - 1`` of a telling."""

    telling: Telling
    first: int
    last: int

    @property
    def windows(self) -> range:
        return range(self.first, self.last)

    @property
    def rows(self) -> Ints:
        return self.telling.rows[self.first : self.last]

    @property
    def texts(self) -> tuple[str, ...]:
        return self.telling.texts[self.first : self.last]


def divided(telling: Telling, split: Split, stimuli: Sequence[str], run: int) -> Telling:
    """The telling with the part of every window in a fold.

    Parameters
    ----------
    stimuli : sequence of str, length w
        Stimulus that each window is.
    run : int
        Number of the run in the recording.
    """
    everything = _windows(split.examples, np.arange(len(split.examples)), stimuli, run)
    part = np.full(len(stimuli), "?", dtype="<U10")
    part[sorted(everything)] = NOBODY
    for name in ("train", "validation", "test"):
        part[sorted(_windows(split.examples, getattr(split, name), stimuli, run))] = name
    return dataclasses.replace(telling, part=_settled(part))


def _windows(examples: Examples, index: Ints, stimuli: Sequence[str], run: int) -> set[int]:
    """Windows of a story that are the answer of some examples in a run."""
    number = {stimulus: k for k, stimulus in enumerate(stimuli)}
    rows = examples.rows[index, 0]
    here = ((rows >= 0) & (examples.recording.run[rows] == run)).any(axis=1)
    return {number[name] for name in map(str, examples.stimulus[index[here]]) if name in number}


def _settled(part: NDArray[np.str_]) -> NDArray[np.str_]:
    """Windows without examples (``?``) take the part of both neighbours, or of the only one.

    >>> _settled(np.array(["?", "test", "?", "test", "?", "train", "?"])).tolist()
    ['test', 'test', 'test', 'test', '', 'train', 'train']
    """
    known = np.flatnonzero(part != "?")
    out = part.copy()
    for k in np.flatnonzero(part == "?"):
        around = {str(part[i]) for i in (*known[known < k][-1:], *known[known > k][:1])}
        out[k] = around.pop() if len(around) == 1 else NOBODY
    return out


def stretches(telling: Telling) -> Iterator[Stretch]:
    """Longest sequences of test windows that can be decoded, in order."""
    wanted = np.concatenate([[False], (telling.part == "test") & telling.decodable, [False]])
    edges = np.flatnonzero(wanted[1:] != wanted[:-1])
    for first, last in edges.reshape(-1, 2):
        yield Stretch(telling, int(first), int(last))


def responses(recording: Recording, rows: Ints, vertices: slice = slice(None)) -> Floats:
    """(w, T, v) float32 responses of rows (w, T); each row of the recording is read once."""
    unique, inverse = np.unique(rows, return_inverse=True)
    data: Any = np.asarray(recording.data[unique, vertices], dtype=np.float32)
    return np.asarray(data[inverse.reshape(rows.shape)])


def held_rows(split: Split) -> Ints:
    """Rows of the recording that validation and test examples are decoded from."""
    rows = split.examples.rows[np.concatenate([split.validation, split.test])]
    return np.unique(rows[rows >= 0])


def by_story(tellings: Sequence[Telling], windows: Mapping[int, Ints]) -> NDArray[np.str_]:
    """Label of what must stay together when a penalty is chosen: the story; a fifth of it where there are fewer than `FEW`.

    Parameters
    ----------
    windows : mapping of int to (n_i,) int64
        Windows of each telling (by its number) whose labels are wanted, in this order.
    """
    stories = {tellings[i].story for i, of in windows.items() if len(of)}
    labels = [
        tellings[i].story + (f"/{N_PARTS * k // len(tellings[i].texts)}" if len(stories) < FEW else "")
        for i, of in windows.items()
        for k in of
    ]
    return np.array(labels, dtype=str)
