"""Circular shifts: the null of responses that were recorded one after the other.

Neighbouring volumes are alike, and so are neighbouring words. Were windows paired at random, both likenesses would be lost, and a
slow drift of brain and story would pass for decoding. A *circular shift* keeps them: within the *sequence* of test windows of a
run, in the order of their volumes, every text gets the response that comes s windows later, the last ones that of the first.

The *least lag* of a run is the number of windows that one volume serves, and as many more as the longest context holds: nearer
responses would tell of the text, or of what stands in its prompt. A shift is *allowed* when it is that far from 0 both ways round
the circle and pairs no two windows with a volume, or a window in prompt or answer, in common.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from bids_brainlm.core.types import Examples, Ints


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
    least : int
        Least lag, in windows.
    shifts : (s,) int64
        Allowed shifts, in windows.
    """

    members: Ints
    position: Ints
    windows: Ints
    least: int
    shifts: Ints


def sequences(examples: Examples) -> tuple[Sequence, ...]:
    """The sequences of test windows, one a run; averages of several runs belong to the first of them."""
    first = examples.rows[:, 0, 0]
    runs = examples.recording.run[first]
    return tuple(_sequence(examples, np.flatnonzero(runs == run), first) for run in np.unique(runs))


def refuse_few(examples: Examples) -> None:
    """Raise ValueError where a run has no allowed shift."""
    for found in sequences(examples):
        if not found.shifts.size:
            where = f"{found.windows.size} test window(s) in the run of {examples.id[found.windows[0]]!s}"
            raise ValueError(f"{where}; circular shifts need {2 * found.least}, twice what volumes and contexts span")


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


def _sequence(examples: Examples, members: Ints, first: Ints) -> Sequence:
    keys = [(int(first[i]), str(examples.stimulus[i])) for i in members]
    place = {key: position for position, key in enumerate(sorted(set(keys)))}
    position = np.array([place[key] for key in keys], dtype=np.int64)
    _, some = np.unique(position, return_index=True)
    rows = _together([{int(row) for row in examples.rows[i].ravel() if row >= 0} for i in members], position)
    texts = _together([{str(examples.stimulus[i]), *examples.heard[i]} for i in members], position)
    reach = int(np.abs(rows[:, 0] - rows[:, 1]).max())
    least = reach + 1 + max(len(examples.heard[i]) for i in members)
    barred = (np.concatenate([rows, texts]) @ [-1, 1]) % some.size
    allowed = np.setdiff1d(np.arange(least, some.size - least + 1), barred)
    return Sequence(members, position, members[some], least, allowed)


def _together(marks: list[set[Any]], position: Ints) -> Ints:
    """(., 2) pairs of positions, each with itself too, whose examples have a mark in common."""
    columns = {mark: column for column, mark in enumerate(set().union(*marks))}
    where = np.array([(place, columns[mark]) for place, own in zip(position, marks, strict=True) for mark in own], dtype=np.int64)
    shape = (int(position.max()) + 1, len(columns))
    table = sparse.csr_array((np.ones(len(where), dtype=np.int32), tuple(where.T)), shape=shape)
    return np.argwhere((table @ table.T).toarray() > 0)
