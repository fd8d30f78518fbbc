"""Which pairs of a text and a brain are scored, which of them are compared, and how they are permuted.

A *brain* is a distinct response; several texts may have one. A text is compared with all brains that are *allowed* for it
(`bids_brainlm.core.interventions.allowed`), and in permutations gets brains that are *exchanged* with its own
(`bids_brainlm.core.interventions.exchanges`), among which there may be some that are not allowed. Both are scored.

*Sampling design.* Where these are more than a limit, the columns of the likelihood matrix are not brains but pairings: column 0
has the own brain of each text, column 1 that of its partner, the others those of K exchanges, as many as the limit allows and at
least `LEAST`. Under a permutation the texts of a run change their own brain for that of one of these exchanges, each run by
itself, so that every brain serves as often as in truth and shifts stay shifts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bids_brainlm.core.interventions import allowed, brains_of, exchangeable, exchanges, partners
from bids_brainlm.core.types import Bools, Examples, Ints

LEAST = 19
"""Fewest exchanges that are sampled: with one run, fewer could not reach p = .05."""


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Which texts are scored and compared under which brains.

    Parameters
    ----------
    first : (m,) int64
        First example with each brain.
    brain : (n, c) int64
        Brain in each column of the matrix; -1 where it is not computed.
    own : (n,) int64
        Column of the own brain of each text.
    allowed : (n, c) bool
        Columns that each text is compared with.
    partner : (n,) int64
        Column of the brain from which permuted text is generated.
    drawn : (K, n) int64
        Column that is the own one in each permutation.
    n_sampled : int
        Exchanges that the columns were sampled by; 0 where columns are brains.
    """

    first: Ints
    brain: Ints
    own: Ints
    allowed: Bools
    partner: Ints
    drawn: Ints
    n_sampled: int

    def of(self, column: Ints) -> Ints:
        """(n,) example that has the brain in a column of each text."""
        return np.asarray(self.first[self.brain[np.arange(self.own.size), column]])

    def names(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Names of the columns: a brain is called by its first example."""
        if not self.n_sampled:
            return tuple(str(ids[i]) for i in self.first)
        return ("own_brain", "partner", *(f"exchange_{k + 1:04d}" for k in range(self.n_sampled)))


def comparisons(examples: Examples, n_permutations: int, limit: int, seed: int) -> Comparisons:
    """Draw exchanges and, where there are too many pairs, the brains that are computed.

    Parameters
    ----------
    examples : Examples
        The test set of a fold.
    n_permutations : int
        K.
    limit : int
        Most pairs to compute.
    seed : int

    Raises
    ------
    ValueError
        When an example has no brain to be compared with.
    """
    first, own = brains_of(examples)
    most, partner = max(n_permutations, 1), own[partners(examples, 1, seed)[0]]
    may, wanted = allowed(examples, own), exchangeable(examples, own)
    if int(wanted.sum()) <= limit:
        brain = np.where(wanted, np.arange(first.size), -1)
        return Comparisons(first, brain, own, may, partner, own[exchanges(examples, most, seed)], 0)
    others = own[exchanges(examples, max(limit // len(examples) - 2, LEAST), seed)]
    brain = np.stack([own, partner, *others], axis=1)
    compared = np.take_along_axis(may, brain, axis=1)
    # A partner always differs, which exchanges do not: it counts only where there is nobody else.
    compared[:, 1] = ~compared[:, 2:].any(axis=1)
    zero = np.zeros(len(examples), dtype=np.int64)
    drawn = _sampled(len(others), _blocks(examples.run, examples.run[first[brain]]), most, seed)
    return Comparisons(first, brain, zero, compared, zero + 1, drawn, len(others))


def _blocks(run: Ints, runs: Ints) -> Ints:
    """(n,) number of what is exchanged together: texts of a run, and those with brains (n, c) of other runs."""
    inside = (runs == run[:, None]).all(axis=1)
    return np.asarray(np.unique(np.where(inside, run, run.min() - 1), return_inverse=True)[1])


def _sampled(n_sampled: int, block: Ints, n_permutations: int, seed: int) -> Ints:
    """(K, n) column that is the own one: for each block that of one exchange, or column 0."""
    columns = np.append(np.arange(n_sampled) + 2, 0)
    if block.max() == 0:
        return np.repeat(columns[: min(n_permutations, n_sampled), None], block.size, axis=1)
    drawn = np.random.default_rng(seed).choice(columns, size=(n_permutations, int(block.max()) + 1))
    return np.asarray(drawn[:, block])
