"""Noise whose value depends on that of the volume before it: AR(1), e[t] = rho e[t-1] + white noise, with a rho for every unit.

Subtracting rho times the volume before from every volume but the first *whitens* series and design alike, after which least
squares is right again (generalised least squares). Units with nearly the same rho are whitened together: rho is cut to steps of
1 / `BINS`, as nilearn's ``run_glm`` does it, so that a run has some fifty designs and not one a unit.

>>> whitened(np.array([[1.0], [2.0], [4.0]]), 0.5).ravel().tolist()
[1.0, 1.5, 3.0]
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.chunks import centred, in_chunks

Doubles = NDArray[np.float64]

BINS = 100
"""Steps of rho in one."""

LEAST_FREEDOM = 10
"""Fewest volumes beyond the rank of the model that rho is estimated from: below, its standard error is more than .3."""


def autocorrelation(bold: Any, model: Doubles, threads: int = 1) -> Doubles:
    """Each unit's rho, from what a model leaves of its series.

    Parameters
    ----------
    bold : (T, V) float32
    model : (T, r) float64
        Orthonormal basis of all regressors.
    threads : int
        Threads over chunks of units.

    Returns
    -------
    (V,) float64
        Products of neighbouring residuals by squares of residuals, each a mean; 0 where the model leaves nothing, NaN where the
        series is not finite. Noise is underestimated the more regressors there are, as it is in nilearn.

    Raises
    ------
    ValueError
        When the model leaves too few volumes.
    """
    n, rank = model.shape
    if n - rank < LEAST_FREEDOM:
        raise ValueError(
            f"{n} volumes and {rank} regressors in the model of all trials leave too little to estimate autocorrelation from "
            f"(at least {LEAST_FREEDOM} more volumes than regressors); take fewer confounds, or the noise model 'ols'"
        )
    rho = np.zeros(bold.shape[1])
    # What the model does not explain of a constant, for the means that the blocks keep in a row of their own.
    unexplained = 1.0 - model @ model.sum(axis=0)
    fit = np.block([[model.T, np.zeros((rank, 1))], [np.zeros((1, n)), np.ones((1, 1))]]).astype(np.float32)
    back = np.column_stack([model, -unexplained]).astype(np.float32)

    def work(part: slice) -> None:
        block = centred(bold, part)
        residuals = block[:-1] - back @ (fit @ block)
        power = np.einsum("tv,tv->v", residuals, residuals)
        products = np.einsum("tv,tv->v", residuals[1:], residuals[:-1])
        rho[part] = n / (n - 1) * products / np.where(power == 0, 1, power)

    in_chunks(work, len(bold), bold.shape[1], threads)
    return rho


def binned(rho: Doubles) -> tuple[Doubles, NDArray[np.intp]]:
    """(b,) distinct values of rho, cut towards 0 to steps of 1 / `BINS`, and which of them each unit has (V,); -1 for NaN."""
    known = np.isfinite(rho)
    values, which = np.unique(np.trunc(BINS * rho[known]) / BINS + 0.0, return_inverse=True)
    found = np.full(rho.shape, -1, dtype=np.intp)
    found[known] = which
    return values, found


def whitened(columns: Doubles, rho: float) -> Doubles:
    """(T, n) columns less rho times the volume before; the first volume stays as it is."""
    return np.concatenate([columns[:1], columns[1:] - rho * columns[:-1]])


def for_series(weights: Doubles, rho: float) -> Doubles:
    """(n, T) weights of a series, from weights (n, T) of the whitened series."""
    return np.concatenate([weights[:, :-1] - rho * weights[:, 1:], weights[:, -1:]], axis=1)
