"""Circular shifts: the null of responses that were recorded one after the other.

Neighbouring volumes are alike, and so are neighbouring words. Were windows paired at random, both likenesses would be lost, and a
slow drift of brain and story would pass for decoding. A *circular shift* keeps them: within the *sequence* of test windows of a
run, in the order of their volumes, every text gets the response that comes s windows later, the last ones that of the first.

The *least lag* is the time that the volumes of a window take, and as much more as the longest context reaches back: nearer
responses would tell of the text, or of what stands in its prompt. A shift is *allowed* when it moves every response by at least
that, either way, and pairs no two windows with a volume, or a window in prompt or answer, in common.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from bids_brainlm.core.types import Bools, Examples, Ints
from bids_brainlm.core.windows import TOLERANCE


@dataclass(frozen=True, eq=False)
class Sequence:
    """Test windows of one run.

    Parameters
    ----------
    members : (k,) int64
        Examples of the run; a window behind several contexts has several.
    position : (k,) int64
        Place of the window of each, from 0 to m - 1.
    windows : (m,) int64
        An example of each window, whose response stands for it.
    shifts : (s,) int64
        Allowed shifts, in windows.
    barred : (m, m) bool
        Pairs of windows that no allowed shift may bring together.
    """

    members: Ints
    position: Ints
    windows: Ints
    shifts: Ints
    barred: Bools


def sequences(examples: Examples) -> tuple[Sequence, ...]:
    """The sequences of test windows, one a run; averages of several runs belong to the first of them."""
    runs, lag = examples.recording.run[examples.rows[:, 0, 0]], least_lag(examples)
    return tuple(_sequence(examples, np.flatnonzero(runs == run), lag) for run in np.unique(runs))


def least_lag(examples: Examples) -> float:
    """Seconds: the volumes of a window, and the longest context of one whose earliest window is an example too."""
    recording, first = examples.recording, examples.rows[:, 0, 0]
    steps = np.diff(recording.onset)[np.diff(recording.run) == 0]
    volumes = recording.onset[examples.rows[:, -1, 0]] - recording.onset[first] + (np.median(steps) if steps.size else 0.0)
    times: dict[tuple[int, str], list[float]] = {}
    for row, name in zip(first, examples.stimulus, strict=True):
        times.setdefault((int(recording.run[row]), str(name)), []).append(float(recording.onset[row]))
    longest = 0.0
    for row, names in zip(first, examples.heard, strict=True):
        for name in names:
            back = [recording.onset[row] - time for time in times.get((int(recording.run[row]), name), ())]
            # A story may be heard twice: its last time before this window is meant.
            longest = max(longest, min((time for time in back if time > 0), default=0.0))
    return float(volumes.max(initial=0.0) + longest)


def refuse_few(examples: Examples) -> None:
    """Raise ValueError where a run has no allowed shift."""
    for found in sequences(examples):
        if not found.shifts.size:
            where = f"{found.windows.size} test window(s) in the run of {examples.id[found.windows[0]]!s}"
            need = f"a circular shift has to move each by {least_lag(examples):g} s, which volumes and contexts span"
            raise ValueError(f"{where} are too few: {need}")


def shifted(examples: Examples, n_permutations: int, seed: int) -> Ints:
    """Whose response every text is paired with, in shifts that are drawn for each run.

    Parameters
    ----------
    examples : Examples
        The test set, of volumes.
    n_permutations : int
        K. Fewer are drawn where there are fewer different ones, because a shift that counts twice would make p too small.
    seed : int

    Returns
    -------
    (K or fewer, n) int64
        Index into ``examples``; the first ones do not depend on how many are drawn.

    Raises
    ------
    ValueError
        When a run has too few windows.
    """
    refuse_few(examples)
    found = sequences(examples)
    wanted = min(n_permutations, math.prod(item.shifts.size for item in found))
    rng = np.random.default_rng(seed)
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < wanted:
        drawn.setdefault(tuple(int(rng.choice(item.shifts)) for item in found))
    out = np.empty((wanted, len(examples)), dtype=np.int64)
    for k, shifts in enumerate(drawn):
        for item, shift in zip(found, shifts, strict=True):
            out[k, item.members] = item.windows[(item.position + shift) % item.windows.size]
    return out


def exchanged(examples: Examples, n_permutations: int, seed: int) -> Ints:
    """The same for a test: every run is shifted by 0 to all but one of its windows, with equal probability.

    Shifts that are not allowed are among them. Left out, they would take from the null what is most like the true pairing, and a
    test would find too much. Where the brain tells the text, the true pairing is better than its neighbours.

    Parameters
    ----------
    examples : Examples
        The test set, of volumes.
    n_permutations : int
        K; draws may repeat.
    seed : int

    Returns
    -------
    (K, n) int64
        Index into ``examples``; one with the same rows where nothing is shifted.

    Raises
    ------
    ValueError
        When a run has too few windows.
    """
    refuse_few(examples)
    rng = np.random.default_rng(seed)
    out = np.empty((n_permutations, len(examples)), dtype=np.int64)
    for item in sequences(examples):
        shifts = rng.integers(item.windows.size, size=(n_permutations, 1))
        out[:, item.members] = item.windows[(item.position + shifts) % item.windows.size]
    return out


def _sequence(examples: Examples, members: Ints, lag: float) -> Sequence:
    first = examples.rows[members, 0, 0]
    keys = [(int(row), str(examples.stimulus[i])) for row, i in zip(first, members, strict=True)]
    place = {key: position for position, key in enumerate(sorted(set(keys)))}
    position = np.array([place[key] for key in keys], dtype=np.int64)
    _, some = np.unique(position, return_index=True)
    onset = examples.recording.onset[first[some]]
    near = np.abs(onset[:, None] - onset) < lag - TOLERANCE
    barred = near | _together(examples, members, position)
    early, late = np.nonzero(barred)
    allowed = np.setdiff1d(np.arange(some.size), (late - early) % some.size)
    return Sequence(members, position, members[some], allowed, barred)


def _together(examples: Examples, members: Ints, position: Ints) -> Bools:
    """(m, m) bool: which windows have a volume, or a window in prompt or answer, in common."""
    marks: list[set[Any]] = [
        {int(row) for row in examples.rows[i].ravel() if row >= 0} | {str(examples.stimulus[i]), *examples.heard[i]}
        for i in members
    ]
    columns = {mark: column for column, mark in enumerate(set().union(*marks))}
    where = np.array([(place, columns[mark]) for place, own in zip(position, marks, strict=True) for mark in own], dtype=np.int64)
    shape = (int(position.max()) + 1, len(columns))
    table = sparse.csr_array((np.ones(len(where), dtype=np.int32), tuple(where.T)), shape=shape)
    return np.asarray((table @ table.T).toarray() > 0)
