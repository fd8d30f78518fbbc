"""Fractional ridge: how much to shrink is said as |b| / |b of ordinary least squares|, the same for units of any scale.

A design that was diagonalised (G = X'X = U diag(l) U') turns ridge into a division: with u = U'X'y, the coefficients are
u / (l + a) for the *penalty* a. Their length falls with a, from that of least squares to 0, so that a *fraction* between 0 and
1 names one penalty (Rokem & Kay 2020, GigaScience 9:giaa133).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.types import Floats

FRACTIONS = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05])
"""Fractions that are compared; agreement changes little from one to the next."""

GRID = 48
"""Number of penalties between which the law of a unit is interpolated; `refine` then corrects the one that was chosen."""

STEPS = 3
"""Newton steps; the start is right to a thousandth."""


def penalties(rotated: Floats, values: NDArray[np.float64], fractions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Penalties with given fractions, to within the grid.

    Parameters
    ----------
    rotated : (N, v) float32
        u of every trial (row) and unit.
    values : (N,) float64
        l of every trial, positive.
    fractions : (F,) float64
        In (0, 1].

    Returns
    -------
    (F, v) float64
        0 for fraction 1.
    """
    grid = np.concatenate([[0.0], _grid(values)])
    weights = (1.0 / (values[:, None] + grid)) ** 2
    squares = np.asarray(rotated, dtype=np.float32) ** 2
    lengths = np.sqrt(np.maximum((weights.T.astype(np.float32) @ squares).astype(np.float64), 0.0))
    ratio = lengths / np.where(lengths[0] > 0, lengths[0], 1.0)
    log = np.log(grid[1:])
    out = np.zeros((fractions.size, rotated.shape[1]))
    columns = np.arange(rotated.shape[1])
    for i, fraction in enumerate(fractions):
        if fraction < 1.0:
            # The ratio falls along the grid, so the first value below the fraction is counted, not searched for.
            after = np.clip((ratio[1:] >= fraction).sum(axis=0), 1, log.size - 1)
            left, right = ratio[after, columns], ratio[after + 1, columns]
            step = np.divide(left - fraction, left - right, out=np.zeros_like(left), where=left > right)
            out[i] = np.exp(log[after - 1] + np.clip(step, 0.0, 1.0) * (log[after] - log[after - 1]))
    return out


def refine(
    rotated: Floats, values: NDArray[np.float64], fraction: NDArray[np.float64], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Penalties (v,) with exactly the fraction (v,), by Newton steps in their logarithm from those of `penalties`."""
    squares = np.asarray(rotated, dtype=np.float64) ** 2
    full = np.sqrt((squares / values[:, None] ** 2).sum(axis=0))
    moving = (start > 0) & (full > 0)
    squares, log = squares[:, moving], np.log(start[moving])
    for _ in range(STEPS):
        size = values[:, None] + np.exp(log)
        terms = squares / size**2
        total = terms.sum(axis=0)
        # The logarithm of the length is close to linear in that of the penalty.
        slope = -(terms / size).sum(axis=0) * np.exp(log) / total
        log = log - (0.5 * np.log(total) - np.log(fraction[moving] * full[moving])) / slope
    out = np.zeros(fraction.size)
    out[moving] = np.exp(log)
    return out


def _grid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Penalties from where nothing is shrunk to where a twentieth is left of anything."""
    return np.asarray(np.geomspace(values.min() * 1e-3, values.max() * 40.0, GRID))
