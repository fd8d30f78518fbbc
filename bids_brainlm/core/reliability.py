"""How much of a vertex's response is the stimulus: agreement of responses to repeats of the same stimuli.

*Split-half reliability* divides the repeats of every stimulus at random into two halves, averages each, and correlates the
two averages across stimuli. It is the reliability of a half, without the Spearman-Brown correction to the whole.

The *noise ceiling signal-to-noise ratio* (ncsnr) follows the convention of the Natural Scenes Dataset (Allen et al. 2022, Nat.
Neurosci. 25:116): responses are z-scored within each session, so that their variance is 1; the noise variance is that among
repeats of a stimulus, what is left of the 1 is signal. The *noise ceiling* is the share of variance, in percent, that the
signal makes of the mean of m repeats: no model can explain more.

Rows may be many times larger than memory. They are read stimulus by stimulus, whole rows at a time, since the columns of a
matrix on disk lie far apart; all repeats of one stimulus are in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bids_brainlm.core.features import moments
from bids_brainlm.core.types import Floats, Ints

Doubles = NDArray[np.float64]

BLOCK_BYTES = 2**27
"""Rows in memory at a time."""

TILE_BYTES = 2**22
"""Half means at a time: what fits a cache."""

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
    rows, code = _repeated(data, stimulus)
    out = np.full(data.shape[1], np.nan)
    if not rows.size or code[-1] + 1 < FEWEST_STIMULI:
        return out
    halves = _halves(code, np.random.default_rng(seed), n_splits)
    sums, shift = np.zeros((5, n_splits, out.size)), np.zeros(out.size, np.float32)
    usable = np.ones(out.size, dtype=np.bool_)
    low, high = np.full(out.size, np.inf, np.float32), np.full(out.size, -np.inf, np.float32)
    for part in _stimuli(code, out.size):
        block = np.array(data[rows[part]], dtype=np.float32)
        usable &= np.isfinite(block).all(axis=0)
        block[:, ~usable] = 0.0
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
        if part.start == 0:
            # Sums of squares around 0 would cancel where the mean is large.
            shift = block.mean(axis=0)
        block -= shift
        _add(sums, block, *_averaging(code[part], halves[:, part]))
    each = [_correlation(sums[:, k], int(code[-1]) + 1) for k in range(n_splits)]
    return np.asarray(np.where(usable & (low < high), np.mean(each, axis=0), np.nan))


def ncsnr(data: Any, stimulus: Any, session: Any) -> Doubles:
    """Standard deviation of the signal over that of the noise in single responses, of every vertex.

    Parameters
    ----------
    data : (R, V)
        Array or memory map, in any unit.
    stimulus, session : (R,) of str
        Of each row. Rows alone in their session cannot be z-scored and are left out.

    Returns
    -------
    (V,) float64
        0 where repeats differ as much as different stimuli do; NaN everywhere without repeats, and for vertices that are
        constant or not finite in a session.

    Raises
    ------
    ValueError
        When lengths differ.
    """
    session = np.unique(np.asarray(session, dtype=np.str_), return_inverse=True)[1]
    if session.shape != tuple(data.shape[:1]):
        raise ValueError(f"{data.shape[0]} rows, but {session.size} sessions")
    kept = np.flatnonzero(np.bincount(session)[session] > 1)
    rows, code = _repeated(data, stimulus, kept)
    if not rows.size:
        return np.full(data.shape[1], np.nan)
    mean, gain = _scaling(data, session, kept)
    noise = np.zeros(data.shape[1])
    for part in _stimuli(code, noise.size):
        z = np.array(data[rows[part]], dtype=np.float32)
        for row, of in zip(z, session[rows[part]], strict=True):
            row -= mean[of]
            row *= gain[of]
        first = np.flatnonzero(np.diff(code[part], prepend=-1))
        counts = np.diff(np.append(first, len(z)))
        z -= np.repeat(np.add.reduceat(z, first) / counts[:, None].astype(np.float32), counts, axis=0)
        noise += np.einsum("rv,rv->v", z, z, dtype=np.float64)
    noise /= rows.size - (code[-1] + 1)
    noise[~np.isfinite(gain).all(axis=0)] = np.nan
    with np.errstate(divide="ignore"):
        return np.asarray(np.sqrt(np.maximum(1 - noise, 0) / noise))


def noise_ceiling(ratio: Any, n_repeats: int = 1) -> Doubles:
    """Share of variance (percent) that the signal makes of the mean of some repeats.

    Parameters
    ----------
    ratio : (V,) float
        See `ncsnr`.
    n_repeats : int
        m; 1 is the ceiling of single trials.

    Returns
    -------
    (V,) float64
        ``100 ncsnr^2 / (ncsnr^2 + 1 / m)``, 0 to 100; NaN where the ratio is.

    Examples
    --------
    >>> noise_ceiling([0.0, 1.0, np.inf]).tolist(), noise_ceiling([1.0], 3).tolist()
    ([0.0, 50.0, 100.0], [75.0])
    """
    with np.errstate(divide="ignore"):
        return np.asarray(100 / (1 + 1 / (n_repeats * np.asarray(ratio, dtype=np.float64) ** 2)))


def _repeated(data: Any, stimulus: Any, kept: Ints | None = None) -> tuple[Ints, Ints]:
    """Rows whose stimulus has another one, stimulus after stimulus, and the number of the stimulus of each: 0, 1, ..."""
    stimulus = np.asarray(stimulus, dtype=np.str_)
    if stimulus.shape != tuple(data.shape[:1]):
        raise ValueError(f"{data.shape[0]} rows, but {stimulus.size} stimuli")
    kept = np.arange(stimulus.size) if kept is None else kept
    code, counts = np.unique(stimulus[kept], return_inverse=True, return_counts=True)[1:]
    more = np.flatnonzero(counts[code] > 1)
    order = more[np.argsort(code[more], kind="stable")]
    return kept[order], np.unique(code[order], return_inverse=True)[1]


def _stimuli(code: Ints, n_vertices: int) -> Iterator[slice]:
    """Slices of sorted rows that hold whole stimuli, as many as may be in memory."""
    ends = np.append(np.flatnonzero(np.diff(code)) + 1, code.size)
    most, start = max(1, BLOCK_BYTES // (4 * n_vertices)), 0
    while start < code.size:
        fitting = ends[(ends > start) & (ends <= start + most)]
        stop = int(fitting[-1] if fitting.size else ends[ends > start][0])
        yield slice(start, stop)
        start = stop


def _scaling(data: Any, session: Ints, kept: Ints) -> tuple[Floats, Floats]:
    """(sessions, V) mean and reciprocal standard deviation; the latter NaN where a vertex cannot be scaled."""
    mean = np.zeros((session.max() + 1, data.shape[1]), dtype=np.float32)
    gain = np.ones_like(mean)
    for label in np.unique(session[kept]):
        rows = np.flatnonzero(session == label)
        mean[label], scale = moments(data, rows)
        scale *= np.sqrt(rows.size / (rows.size - 1))
        gain[label] = np.divide(1.0, scale, out=np.full(scale.shape, np.nan), where=scale > 0)
    return mean, gain


def _halves(code: Ints, rng: np.random.Generator, n_splits: int) -> NDArray[np.bool_]:
    """(n_splits, R) whether a row is in the first half of the repeats of its stimulus, which is the larger one."""
    starts = np.flatnonzero(np.diff(code, prepend=-1))
    out = np.empty((n_splits, code.size), dtype=np.bool_)
    for own in out:
        shuffled = rng.permutation(code.size)
        order = shuffled[np.argsort(code[shuffled], kind="stable")]
        own[order] = (np.arange(code.size) - starts[code]) % 2 == 0
    return out


def _averaging(code: Ints, first: NDArray[np.bool_]) -> tuple[Any, Any]:
    """What averages the rows of each of k stimuli in each half of each division, and the sum of that over stimuli.

    Returns
    -------
    sparse (2 * splits * k, r) float32, sparse (2 * splits, r) float32
    """
    k, (n_splits, r) = int(code[-1] - code[0]) + 1, first.shape
    half = np.where(first, 0, 1)
    target = ((half * n_splits + np.arange(n_splits)[:, None]) * k + (code - code[0])).ravel()
    weights = (1.0 / np.bincount(target, minlength=2 * n_splits * k)[target]).astype(np.float32)
    rows = np.tile(np.arange(r), n_splits)
    each = sparse.csr_array((weights, (target, rows)), shape=(2 * n_splits * k, r))
    return each, sparse.csr_array((weights, (target // k, rows)), shape=(2 * n_splits, r))


def _add(sums: Doubles, block: Floats, each: Any, summed: Any) -> None:
    """Add, in place, the sums over the stimuli of a block: of both half means, their squares and their product."""
    n_splits, n_vertices = sums.shape[1:]
    step = max(1, TILE_BYTES // (4 * each.shape[0]))
    for tile in (slice(start, start + step) for start in range(0, n_vertices, step)):
        part = np.ascontiguousarray(block[:, tile])
        sums[:2, :, tile] += (summed @ part).reshape(2, n_splits, -1)
        means = (each @ part).reshape(2, n_splits, each.shape[0] // (2 * n_splits), -1)
        for i, (left, right) in enumerate(((0, 0), (1, 1), (0, 1))):
            sums[2 + i, :, tile] += np.einsum("skv,skv->sv", means[left], means[right])


def _correlation(sums: Doubles, n: int) -> Doubles:
    """(V,) correlation over n stimuli between the means of both halves; NaN where one of them is constant."""
    left, right = sums[2] - sums[0] ** 2 / n, sums[3] - sums[1] ** 2 / n
    size = np.sqrt(np.maximum(left, 0) * np.maximum(right, 0))
    varies = size > 1e-12 * np.sqrt(sums[2] * sums[3])
    return np.asarray(np.divide(sums[4] - sums[0] * sums[1] / n, size, out=np.full(size.shape, np.nan), where=varies))
