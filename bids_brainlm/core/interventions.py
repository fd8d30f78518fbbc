"""Responses of others in the place of a brain: functions (examples, seed) -> examples that act in vertex space.

- ``permuted``: the response of another test example, its *partner*; texts stay, brains move.
- ``permuted_across``: that of a test example of another run, wherever another run has one that may be a partner.

Responses that nobody had are made in `bids_brainlm.core.surrogates`.

A partner must tell nothing about the text it is paired with. Example j is *allowed* for i when they differ in stimulus, share
no reference text (whatever its case or spacing), no row of the recording, and no stimulus in prompt or answer; and j is taken
from i's own run whenever that run has an allowed example, so that run-wide differences cannot give the pairing away. Where rows
are volumes, partners are those of circular shifts (`bids_brainlm.core.shifts`), which keep what neighbours have in common.

A permutation test needs *exchanges* instead: pairings of which the true one is one like the others, so that a response may also
stay where it is. Partners never stay. Pairings of partners differ from the true one in every pair, but share pairs among each
other; their means vary less than that of the true one does, and a test against them finds too much.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from bids_brainlm.core.design import name_some
from bids_brainlm.core.shifts import exchanged, sequences, shifted
from bids_brainlm.core.types import Bools, Examples, Ints
from bids_brainlm.registry import interventions

EXACT = 256
"""Largest block that is assigned as a whole; a larger one is cut at random into blocks of about this size."""

_EXCHANGES = 1
"""Stream of the seed that exchanges are drawn from."""

FAILED_REPAIRS = 20
"""Repairs that may fail in a row before the remaining examples draw with replacement."""


@interventions.register("permuted")
def permuted(examples: Examples, seed: int) -> Examples:
    """Every example with the rows of its partner (`partners`); prompts and references stay."""
    return dataclasses.replace(examples, rows=examples.rows[partners(examples, 1, seed)[0]])


@interventions.register("permuted_across")
def permuted_across(examples: Examples, seed: int) -> Examples:
    """Every example with the rows of an example that tells nothing of it, drawn from other runs wherever they have one.

    Raises
    ------
    ValueError
        Naming examples for which no other is allowed.
    """
    bold, marks, everyone = examples.recording.kind == "bold", _marks(examples), np.arange(len(examples))
    rng, partner = np.random.default_rng(seed), np.empty(len(examples), dtype=np.int64)
    for part, may in _may_shift(examples) if bold else _may_move(examples):
        outside = ~_barred(marks, part, everyone) & (examples.run[part][:, None] != examples.run)
        may = np.where(outside.any(axis=1, keepdims=True), outside, may)
        _refuse_lonely(examples.id[part[~may.any(axis=1)]])
        partner[part] = np.where(may, rng.random(may.shape), -1.0).argmax(axis=1)
    return dataclasses.replace(examples, rows=examples.rows[partner])


def partners(examples: Examples, n_permutations: int, seed: int) -> Ints:
    """Draw whose response every example is paired with in each permutation.

    Each permutation of trials is an assignment of least cost under random costs, among the examples of a run and among those that
    have nobody in their run, and therefore moves every response to exactly one text. Where no such assignment exists (one
    stimulus makes up most of a run) the examples left over draw any allowed partner, some of which then serve twice. Windows of
    volumes are shifted.

    Parameters
    ----------
    examples : Examples
        The test set.
    n_permutations : int
        K.
    seed : int
        Permutation k depends on the seed and k alone.

    Returns
    -------
    (K, n) int64
        Index into ``examples`` of each example's partner; never itself. Fewer than K where there are fewer circular shifts.

    Raises
    ------
    ValueError
        Naming examples for which no other is allowed.

    Notes
    -----
    Time is O(K n b^2) for blocks of b = min(run, 256) examples; memory never exceeds 256 n. Blocks above 256 are cut at random
    (anew in each permutation) and what is left over is repaired by exchanges, which may miss the rare assignment that needs a
    chain of exchanges.
    """
    if examples.recording.kind == "bold":
        return shifted(examples, n_permutations, seed)
    n = len(examples)
    marks = _marks(examples)
    out = np.empty((n_permutations, n), dtype=np.int64)
    blocks = _blocks(examples, marks)
    for k in range(n_permutations):
        rng = np.random.default_rng((seed, k))
        for members, pool in blocks:
            out[k, members] = _assigned(marks, members, pool, rng)
    return out


def exchanges(examples: Examples, n_permutations: int, seed: int) -> Ints:
    """Draw whose response every example is paired with in each permutation of a test.

    Responses change places as wholes, in all orders with equal probability, among the examples between which partners are drawn
    (those of a run); windows of volumes by any circular shift of each run. Texts that have one response keep one.

    Parameters
    ----------
    examples : Examples
        The test set.
    n_permutations : int
        K.
    seed : int

    Returns
    -------
    (K, n) int64
        An example that has the response; the example itself, or one with the same rows, where it stays.

    Raises
    ------
    ValueError
        Where there are no partners.
    """
    if examples.recording.kind == "bold":
        return exchanged(examples, n_permutations, seed)
    rng = np.random.default_rng((seed, _EXCHANGES))
    out = np.empty((n_permutations, len(examples)), dtype=np.int64)
    for members, _ in _blocks(examples, _marks(examples)):
        rows = examples.rows[members].reshape(members.size, -1)
        _, first, response = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        order = rng.permuted(np.tile(members[first], (n_permutations, 1)), axis=1)
        out[:, members] = order[:, response.ravel()]
    return out


def brains_of(examples: Examples) -> tuple[Ints, Ints]:
    """Distinct responses: several texts may have one *brain* (contexts of a window, chunks of a sentence, questions of a trial).

    Returns
    -------
    first : (m,) int64
        First example with each brain, in the order of the examples.
    own : (n,) int64
        Brain of each example.
    """
    flat = examples.rows.reshape(len(examples), -1)
    _, found, inverse = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(found)
    return found[order].astype(np.int64), np.argsort(order)[inverse.reshape(-1)].astype(np.int64)


def allowed(examples: Examples, own: Ints) -> Bools:
    """Which brains each text may be compared with: those that `partners` may pair it with.

    Parameters
    ----------
    examples : Examples
        n texts.
    own : (n,) int64
        Brain of each, 0 to m - 1 (`brains_of`). A brain is allowed when an example that has it is.

    Returns
    -------
    (n, m) bool
        Its own brain is allowed for no text.
    """
    n, m = len(examples), int(own.max()) + 1
    member = sparse.csr_array((np.ones(n, dtype=np.int32), (np.arange(n), own)), shape=(n, m))
    out = np.zeros((n, m), dtype=np.bool_)
    for part, may in _may_shift(examples) if examples.recording.kind == "bold" else _may_move(examples):
        out[part] = (member.T @ may.T.astype(np.int32)).T > 0
    return out


def exchangeable(examples: Examples, own: Ints) -> Bools:
    """Which brains come to stand beside each text in `exchanges`: its own, and all that change places with those allowed for it.

    Parameters
    ----------
    examples, own
        As in `allowed`.

    Returns
    -------
    (n, m) bool
    """
    out = np.zeros((len(examples), int(own.max()) + 1), dtype=np.bool_)
    if examples.recording.kind == "bold":
        for found in sequences(examples):
            out[np.ix_(found.members, np.unique(own[found.members]))] = True
        return out
    for members, pool in _blocks(examples, _marks(examples)):
        out[np.ix_(members, np.unique(own[pool]))] = True
    return out


def _may_move(examples: Examples) -> Iterator[tuple[Ints, Bools]]:
    """Some examples, and (b, n) which of all they may be paired with: of their run where it has any."""
    marks, everyone = _marks(examples), np.arange(len(examples))
    for start in range(0, len(examples), EXACT):
        part = everyone[start : start + EXACT]
        may = ~_barred(marks, part, everyone)
        inside = may & (examples.run[part][:, None] == examples.run)
        yield part, np.where(inside.any(axis=1, keepdims=True), inside, may)


def _may_shift(examples: Examples) -> Iterator[tuple[Ints, Bools]]:
    """The examples of each run, and (b, n) which of all have a window that is far enough and tells nothing of theirs."""
    for found in sequences(examples):
        may = np.zeros((found.members.size, len(examples)), dtype=np.bool_)
        may[:, found.windows] = ~found.barred[found.position]
        yield found.members, may


def _marks(examples: Examples) -> Any:
    """(n, m) sparse: which stimuli, texts and recording rows each example has; two that share a column are not allowed."""
    columns: dict[Hashable, int] = {}
    where: list[tuple[int, int]] = []
    for i in range(len(examples)):
        own: set[Hashable] = {("stimulus", name) for name in (str(examples.stimulus[i]), *examples.heard[i])}
        own |= {("text", " ".join(text.casefold().split())) for text in examples.references[i]}
        own |= {("row", int(row)) for row in examples.rows[i].ravel() if row >= 0}
        where += [(i, columns.setdefault(mark, len(columns))) for mark in sorted(own, key=str)]
    first, second = np.array(where, dtype=np.int64).reshape(-1, 2).T
    return sparse.csr_array((np.ones(len(where), dtype=np.int32), (first, second)), shape=(len(examples), len(columns)))


def _barred(marks: Any, left: Ints, right: Ints) -> Bools:
    """(len(left), len(right)) bool: pairs that are not allowed."""
    return np.asarray((marks[left] @ marks[right].T).toarray() > 0)


def _has_choice(marks: Any, left: Ints, right: Ints) -> Bools:
    """(len(left),) bool: whether any of ``right`` is allowed."""
    parts = [_barred(marks, left[i : i + EXACT], right) for i in range(0, left.size, EXACT)]
    return np.concatenate([~part.all(axis=1) for part in parts]) if parts else np.zeros(0, dtype=np.bool_)


def _blocks(examples: Examples, marks: Any) -> list[tuple[Ints, Ints]]:
    """Examples that are permuted among each other, and whom those left over may draw from.

    Being allowed is mutual, so an example without a choice in its run is nobody's choice there either: the two kinds can be
    assigned apart without losing any solution.
    """
    everyone, run = np.arange(len(examples)), examples.run
    own_run = np.zeros(len(examples), dtype=np.bool_)
    for value in np.unique(run):
        members = np.flatnonzero(run == value)
        own_run[members] = _has_choice(marks, members, members)
    others = np.flatnonzero(~own_run)
    lonely = others[~_has_choice(marks, others, everyone)]
    _refuse_lonely(examples.id[lonely])
    inside = [np.flatnonzero(own_run & (run == value)) for value in np.unique(run[own_run])]
    return [(members, members) for members in inside] + ([(others, everyone)] if others.size else [])


def _refuse_lonely(ids: NDArray[np.str_]) -> None:
    if ids.size:
        raise ValueError(
            f"every other test example has the stimulus, a text or a volume of {name_some(ids)}; "
            "a permuted brain needs an example that differs"
        )


def _assigned(marks: Any, members: Ints, pool: Ints, rng: np.random.Generator) -> Ints:
    """(m,) partners of the members of a block, as indices of examples."""
    partner = np.full(members.size, -1, dtype=np.int64)
    for part in _cut(members.size, rng):
        chosen = _least_cost(_barred(marks, members[part], members[part]), rng)
        partner[part[chosen >= 0]] = part[chosen[chosen >= 0]]
    if members.size > EXACT:
        _repair(marks, members, partner, rng)
    found = partner >= 0
    partner[found] = members[partner[found]]
    partner[~found] = _drawn(marks, members[~found], pool, rng)
    return partner


def _cut(size: int, rng: np.random.Generator) -> Iterator[Ints]:
    return iter(np.array_split(rng.permutation(size), -(-size // EXACT)) if size > EXACT else [np.arange(size)])


def _least_cost(barred: Bools, rng: np.random.Generator) -> Ints:
    """(m,) assignment of as many as can be; -1 for the others."""
    size = len(barred)
    # One barred pair costs more than all allowed ones together, so their number is the least there can be.
    costs = np.where(barred, size + 1.0, rng.random((size, size)))
    rows, chosen = linear_sum_assignment(costs)
    return np.where(barred[rows, chosen], -1, chosen).astype(np.int64)


def _repair(marks: Any, members: Ints, partner: Ints, rng: np.random.Generator) -> None:
    """Pair, in place, examples left over in different cuts, directly or by one exchange with a pair that exists."""
    spare = list(rng.permutation(np.setdiff1d(np.arange(members.size), partner)))
    failures = 0
    for i in rng.permutation(np.flatnonzero(partner < 0)):
        if failures >= FAILED_REPAIRS:
            return
        j = spare[0]
        barred = _barred(marks, members[[i, j]], members)
        paired = np.flatnonzero(partner >= 0)
        able = paired[~barred[0, partner[paired]] & ~barred[1, paired]]
        if not barred[0, j]:
            partner[i] = spare.pop(0)
        elif able.size:
            other = rng.choice(able)
            partner[i], partner[other] = partner[other], spare.pop(0)
        else:
            failures += 1


def _drawn(marks: Any, left: Ints, pool: Ints, rng: np.random.Generator) -> Ints:
    """(len(left),) any allowed partner of the pool for each, with replacement."""
    out = np.empty(left.size, dtype=np.int64)
    for start in range(0, left.size, EXACT):
        part = left[start : start + EXACT]
        lots = np.where(_barred(marks, part, pool), -1.0, rng.random((part.size, pool.size)))
        out[start : start + EXACT] = pool[lots.argmax(axis=1)]
    return out
