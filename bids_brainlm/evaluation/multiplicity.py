"""Many tests at once: false discovery rate, and the maximum over tests.

Among twenty tests of nothing one is significant at .05. Two corrections are used for what is not the primary test:

- *q*, Benjamini & Hochberg (1995, doi:10.1111/j.2517-6161.1995.tb02031.x): among all tests with q <= .05 at most a share of .05
  is expected to be false. It takes p values alone; tests may be positively dependent, as metrics of one text are.
- The *maximum statistic* (Westfall & Young 1993; Nichols & Holmes 2002, doi:10.1002/hbm.1058): how often does the best of all
  tests, under a permutation, do as well as this one? It keeps the chance of any false finding at .05, whatever the dependence,
  and needs every test's value under the same permutations: metrics of one participant's texts, parcels of a brain, or signs of
  the same participants.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def false_discovery_q(p_values: ArrayLike) -> Array:
    """Smallest false discovery rate at which each test is found.

    Parameters
    ----------
    p_values : (m,) float
        nan where no test was made; such a one counts nothing.

    Returns
    -------
    (m,) float64
        nan where p is.

    Raises
    ------
    ValueError
        For values outside 0 to 1.

    Examples
    --------
    >>> false_discovery_q([0.01, np.nan, 0.03, 0.2]).tolist()
    [0.03, nan, 0.045, 0.2]
    """
    p = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(p))
    if p.ndim != 1 or ((p[known] < 0) | (p[known] > 1)).any():
        raise ValueError(f"p values of shape {p.shape}; expected (m,), all from 0 to 1")
    out = np.full(p.size, np.nan)
    order = known[np.argsort(p[known])]
    scaled = p[order] * (order.size / np.arange(1, order.size + 1))
    out[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return out


def maximum_p(observed: ArrayLike, null: ArrayLike) -> Array:
    """P value of each test against the largest of all tests under permutation; never zero.

    Parameters
    ----------
    observed : (t,) float
        Large values speak against the null.
    null : (K, t) float
        Every test under K permutations, the same ones for all tests.

    Returns
    -------
    (t,) float64

    Raises
    ------
    ValueError
        When shapes disagree, nothing was permuted, or values are not finite.

    Notes
    -----
    Each test is divided by its standard deviation over observed and permuted values, after their mean is taken off, so that tests
    on different scales weigh alike. The observed values are treated as one permutation more, so that the level is exact.
    """
    values, draws = np.asarray(observed, dtype=np.float64), np.asarray(null, dtype=np.float64)
    if values.ndim != 1 or not values.size or draws.ndim != 2 or draws.shape[1] != values.size or not len(draws):
        raise ValueError(f"values {values.shape} and null {draws.shape}; expected (t,) and (K, t)")
    together = np.concatenate([values[None], draws])
    if not np.isfinite(together).all():
        raise ValueError("values that are not finite")
    spread = together.std(axis=0)
    # A test that never changes cannot be extreme.
    scaled = np.divide(together - together.mean(axis=0), spread, out=np.zeros_like(together), where=spread > 0)
    largest = scaled.max(axis=1)
    p: Array = (largest[:, None] >= scaled[0] - 1e-12).mean(axis=0)
    return p
