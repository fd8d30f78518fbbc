"""How much of a vertex's response is the stimulus: agreement of responses to repeats of the same stimuli.

*Split-half reliability* divides the repeats of every stimulus at random into two halves, averages each, and correlates the
two averages across stimuli. It is the reliability of a half, without the Spearman-Brown correction to the whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Doubles = NDArray[np.float64]

BLOCK_BYTES = 2**26
"""Size of one block of vertices in float64."""

FEWEST_STIMULI = 3
"""A correlation across two stimuli is always 1 or -1."""


def split_half(data: Any, stimulus: Any, seed: int = 0, n_splits: int = 20) -> Doubles:
    """Split-half reliability of every vertex.

    Parameters
    ----------
    data : (R, V)
        Array or memory map, in any unit.
    stimulus : (R,) of str
        What was shown or heard in each row; stimuli without a repeat are left out.
    seed : int
    n_splits : int
        Random divisions whose correlations are averaged.

    Returns
    -------
    (V,) float64
        -1 to 1; NaN everywhere with fewer than three repeated stimuli, and for vertices that are constant or not finite.

    Raises
    ------
    ValueError
        When lengths differ.
    """
    stimulus = np.asarray(stimulus, dtype=np.str_)
    if stimulus.shape != tuple(data.shape[:1]):
        raise ValueError(f"{data.shape[0]} rows, but {stimulus.size} stimuli")
    _, code, counts = np.unique(stimulus, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(counts[code] > 1)
    out = np.full(data.shape[1], np.nan)
    if (counts > 1).sum() < FEWEST_STIMULI:
        return out
    code = np.unique(code[rows], return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    halves = [_halves(code, rng) for _ in range(n_splits)]
    width = max(1, BLOCK_BYTES // (8 * rows.size))
    for start in range(0, out.size, width):
        out[start : start + width] = _agreement(np.asarray(data[rows, start : start + width], dtype=np.float64), halves)
    return out


def _halves(code: NDArray[np.int64], rng: np.random.Generator) -> tuple[Any, Any]:
    """Two sparse (S, R) matrices that average a random half of the rows of each stimulus, the first the larger."""
    shuffled = rng.permutation(code.size)
    order = shuffled[np.argsort(code[shuffled], kind="stable")]
    counts = np.bincount(code)
    place = np.empty(code.size, dtype=np.int64)
    place[order] = np.arange(code.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return _averaging(code, place % 2 == 0), _averaging(code, place % 2 == 1)


def _averaging(code: NDArray[np.int64], chosen: NDArray[np.bool_]) -> Any:
    rows = np.flatnonzero(chosen)
    weights = 1.0 / np.bincount(code[rows], minlength=code.max() + 1)[code[rows]]
    return sparse.csr_array((weights, (code[rows], rows)), shape=(code.max() + 1, code.size))


def _agreement(block: Doubles, halves: list[tuple[Any, Any]]) -> Doubles:
    """(c,) correlation across stimuli between the two averages, itself averaged over divisions."""
    varies: NDArray[np.bool_] = np.asarray(np.isfinite(block).all(axis=0))
    varies[varies] = block[:, varies].max(axis=0) > block[:, varies].min(axis=0)
    block = np.ascontiguousarray(block[:, varies])
    out = np.full(varies.size, np.nan)
    out[varies] = np.mean([_correlation(first @ block, second @ block) for first, second in halves], axis=0)
    return out


def _correlation(left: Doubles, right: Doubles) -> Doubles:
    """(c,) correlation of the columns of two (S, c); NaN for a constant one."""
    left, right = left - left.mean(axis=0), right - right.mean(axis=0)
    size = np.sqrt((left**2).sum(axis=0) * (right**2).sum(axis=0))
    return np.asarray(np.divide((left * right).sum(axis=0), size, out=np.full(size.shape, np.nan), where=size > 0))
