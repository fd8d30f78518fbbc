"""Series of many units (vertices or voxels), worked on a chunk at a time and in threads.

A *chunk* is a range of units whose series fit a core's share of the cache. Threads share out chunks; BLAS is held to one thread
meanwhile, since on matrices of this size its own threads cost more than they give.

Products are taken in float32. Its seven digits are enough for what varies in time but not for what varies on top of a large
mean, so a chunk is *centred*: each unit's mean is subtracted and kept in a row below the last volume. For weights w (T,) the
product with the series y is then that of (w, sum of w) with (y - m, m), whether or not w removes the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from bids_brainlm.core.types import Floats

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK_BYTES = 2**21
"""Size of the float32 copy of some units' series that is worked on at a time."""


def in_threads(work: Callable[[Item], Result], items: Iterable[Item], threads: int = 1) -> list[Result]:
    """Results of ``work`` for every item, in order, with BLAS held to one thread; the first error ends it."""
    with _blas().limit(limits=1, user_api="blas"):
        if threads < 2:
            return [work(item) for item in items]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, items))


def in_chunks(work: Callable[[slice], object], n_volumes: int, n_units: int, threads: int = 1) -> None:
    """Call ``work`` with the range of units of each chunk.

    Parameters
    ----------
    work : callable
        Writes its results to a place of its own; ranges do not overlap.
    n_volumes, n_units : int
        Shape of the series.
    threads : int
        Threads that share out the chunks.
    """
    width = max(1, CHUNK_BYTES // (4 * max(1, n_volumes)))
    in_threads(work, [slice(start, min(start + width, n_units)) for start in range(0, n_units, width)], threads)


def centred(bold: Any, part: slice) -> Floats:
    """(T + 1, c) float32: the series (T, V) of some units without their means, and the means in the last row."""
    series = bold[:, part]
    block = np.empty((series.shape[0] + 1, series.shape[1]), dtype=np.float32)
    block[-1] = series.mean(axis=0, dtype=np.float64)
    np.subtract(series, block[-1], out=block[:-1])
    return block


def for_centred(weights: NDArray[np.float64]) -> Floats:
    """(n, T + 1) float32 weights for `centred` blocks, from weights (n, T) of the series."""
    return np.concatenate([weights, weights.sum(axis=1, keepdims=True)], axis=1).astype(np.float32)


@cache
def _blas() -> ThreadpoolController:
    """The libraries that are loaded, looked up once."""
    return ThreadpoolController()
