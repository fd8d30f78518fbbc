"""Resampling of whole units: intervals, and tests that flip signs.

A *unit* is what was sampled: for a participant's figures, what training and test never share (a stimulus, passage, block of
a story ...); for those of a group, a participant. Texts of a unit are not independent, so intervals draw whole units (cluster
bootstrap) and paired tests flip whole units. Below `MIN_UNITS` units points are given and no interval: neither can be had.

*Folds* that are pooled are not independent. What examples i and j of two folds happen to have in common in responses and texts
comes in twice: i is decoded by what was trained on j, and j by what was trained on i. A permutation of test sets, with decoders
as they are, breaks both apart and makes the pooled mean vary too little: its variance without an effect is up to twice as large,
and exactly that for linear decoders (tests at .05 then find something in .12 of empty data sets). So where folds are pooled the
values of permutations are taken `FOLDS` times as far from their mean (`of_folds`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]

MIN_UNITS = 6
"""Fewest units an interval is given for; below, points are shown."""


FOLDS = 2**0.5
"""By how much the standard deviation of a permuted mean falls short where folds are pooled, at most."""


def of_folds(null: ArrayLike, n_folds: int) -> Array:
    """(K, ...) permuted values of test sets that were pooled over some folds, as far from their mean as they should be."""
    values = np.asarray(null, dtype=np.float64)
    centre = values.mean(axis=0)
    return np.asarray(centre + FOLDS * (values - centre)) if n_folds > 1 else values


def bootstrap_interval(
    values: ArrayLike, units: ArrayLike, n_samples: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float] | None:
    """Interval of the mean by resampling whole units (expanded percentile bootstrap).

    Parameters
    ----------
    values : (n,) float
        One a text; nan is left out.
    units : (n,)
        What was sampled, e.g. the group of each text.
    n_samples : int
        Bootstrap samples.
    level : float
        Coverage.

    Returns
    -------
    tuple of float or None
        None below `MIN_UNITS` units, and where all units have one value (resampling such data says nothing).

    Notes
    -----
    With few units the plain percentile interval is too narrow; its tails are taken further out so that it agrees with the t
    interval for a mean (Hesterberg 2015, doi:10.1080/00031305.2015.1089789, section 5.3).
    """
    sums, counts = _per_unit(values, units)
    n = sums.size
    if n < MIN_UNITS or np.ptp(sums / counts) == 0:
        return None
    weights = _weights(n, n_samples, seed)
    return _between_tails((weights @ sums) / (weights @ counts), n, level)


def interval_of(
    statistic: Callable[[Array], Array],
    sums: ArrayLike,
    units: ArrayLike,
    n_samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float] | None:
    """The same interval of any figure that is computed from sums over values.

    Parameters
    ----------
    statistic : callable
        (k, c) sums -> (k,) figures.
    sums : (n, c) float
        What every value adds to each sum.
    units : (n,)

    Returns
    -------
    tuple of float or None
        None below `MIN_UNITS` units.
    """
    parts, index = np.asarray(sums, dtype=np.float64), np.unique(np.asarray(units), return_inverse=True)[1]
    n = int(index.max()) + 1 if index.size else 0
    if n < MIN_UNITS:
        return None
    of_units = np.stack([np.bincount(index, column) for column in parts.T], axis=1)
    return _between_tails(statistic(np.asarray(_weights(n, n_samples, seed) @ of_units, dtype=np.float64)), n, level)


def _weights(n_units: int, n_samples: int, seed: int) -> NDArray[np.int64]:
    """(n_samples, n_units) how often each unit is drawn in each sample."""
    return np.random.default_rng(seed).multinomial(n_units, np.full(n_units, 1 / n_units), size=n_samples)


def _between_tails(estimates: Array, n_units: int, level: float) -> tuple[float, float]:
    """Expanded percentile interval from the estimates of bootstrap samples."""
    tail = stats.norm.cdf(np.sqrt(n_units / (n_units - 1)) * stats.t.ppf((1 - level) / 2, n_units - 1))
    low, high = np.quantile(estimates, [tail, 1 - tail])
    return float(low), float(high)


def unit_means(values: ArrayLike, units: ArrayLike) -> Array:
    """(u,) mean of each unit, in the order of their names; nan is left out."""
    sums, counts = _per_unit(values, units)
    return sums / counts


def _per_unit(values: ArrayLike, units: ArrayLike) -> tuple[Array, Array]:
    numbers, labels = np.asarray(values, dtype=np.float64), np.asarray(units)
    if numbers.shape != labels.shape or numbers.ndim != 1:
        raise ValueError(f"values {numbers.shape} and units {labels.shape}; expected (n,) both")
    known = np.isfinite(numbers)
    _, index = np.unique(labels[known], return_inverse=True)
    sums: Array = np.bincount(index, weights=numbers[known]).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def permutation_p(observed: float, null: ArrayLike, alternative: str = "greater") -> float:
    """P value of a permutation test, never zero: (1 + as extreme) / (K + 1) (Phipson & Smyth 2010, doi:10.2202/1544-6115.1585).

    Parameters
    ----------
    observed : float
    null : (K,) float
        The statistic under K permutations.
    alternative : {"greater", "less", "two-sided"}
        Which observed values speak against the null; two-sided doubles the smaller tail.

    Raises
    ------
    ValueError
        For an unknown alternative, no permutation, or values that are not finite.

    Examples
    --------
    >>> permutation_p(3.0, [0.0, 1.0, 2.0])
    0.25
    """
    draws = np.asarray(null, dtype=np.float64)
    if draws.ndim != 1 or not draws.size or not np.isfinite(draws).all() or not np.isfinite(observed):
        raise ValueError(
            f"permutation test of {observed} against values of shape {draws.shape}; expected finite numbers, at least one"
        )
    greater = (1 + int((draws >= observed).sum())) / (draws.size + 1)
    less = (1 + int((draws <= observed).sum())) / (draws.size + 1)
    tails = {"greater": greater, "less": less, "two-sided": min(1.0, 2 * min(greater, less))}
    if alternative not in tails:
        raise ValueError(f"alternative {alternative!r}; expected one of {', '.join(tails)}")
    return tails[alternative]


def sign_flip_p(
    differences: ArrayLike, units: ArrayLike, n: int = 10000, seed: int = 0, alternative: str = "greater", n_folds: int = 1
) -> float | None:
    """P value of a mean paired difference, by flipping the sign of whole units.

    Parameters
    ----------
    differences : (n,) float
        E.g. a metric of the text from the true brain minus from a permuted one; nan is left out.
    units : (n,)
        What was sampled.
    n : int
        Random flips.
    n_folds : int
        Folds that the values were pooled over.

    Returns
    -------
    float or None
        None below `MIN_UNITS` units, where no flip could reach significance.
    """
    sums, _ = _per_unit(differences, units)
    if sums.size < MIN_UNITS:
        return None
    rng = np.random.default_rng(seed)
    null, observed = of_folds(rng.choice([-1.0, 1.0], size=(n, sums.size)) @ sums, n_folds), float(sums.sum())
    # Equal sums in another order differ in the last bits; they must count as equally extreme.
    null = np.where(np.isclose(null, observed, rtol=0, atol=1e-12 * np.abs(sums).sum()), observed, null)
    return permutation_p(observed, null, alternative)


@dataclass(frozen=True)
class Line:
    """Slope of y on x over n texts, with a 95 % interval over units and a one-sided p value (that it is above 0)."""

    slope: float
    n: int
    interval: tuple[float, float] | None = None
    p_value: float | None = None


def line(
    x: ArrayLike, y: ArrayLike, units: ArrayLike, n_samples: int = 2000, n_flips: int = 10000, seed: int = 0, n_folds: int = 1
) -> Line:
    """Straight line through values that come in units.

    Parameters
    ----------
    x, y : (n,) float
    units : (n,)
        What was sampled.
    n_samples, n_flips : int
        Bootstrap samples of whole units, and random signs of what they add to the slope.
    n_folds : int
        Folds that the values were pooled over.

    Returns
    -------
    Line
        Slope nan where x does not vary; no interval and no p below `MIN_UNITS` units.

    Notes
    -----
    A unit adds the sum of (x - mean x)(y - mean y) over its values to the numerator of the slope. Where y does not depend on x
    these sums are as often negative as positive, whatever the values of a unit have in common (wild bootstrap of the score).
    """
    across, up = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    _, index = np.unique(np.asarray(units), return_inverse=True)
    if not across.shape == up.shape == index.shape or across.ndim != 1:
        raise ValueError(f"x {across.shape}, y {up.shape} and units {index.shape}; expected (n,) all")
    centred, rest = across - across.mean(), up - up.mean()
    if not (centred**2).any():
        return Line(np.nan, across.size)
    slope = float(centred @ rest / (centred @ centred))
    sums = np.stack([np.bincount(index, values) for values in (np.ones(index.size), centred, rest, centred**2, centred * rest)])
    if sums.shape[1] < MIN_UNITS:
        return Line(slope, across.size)
    n, sx, sy, sxx, sxy = sums @ _weights(sums.shape[1], n_samples, seed).T
    spread = n * sxx - sx**2
    slopes = (n * sxy - sx * sy)[spread > 0] / spread[spread > 0]
    interval, p = _between_tails(slopes, sums.shape[1], 0.95), sign_flip_p(centred * rest, index, n_flips, seed, n_folds=n_folds)
    return Line(slope, across.size, interval, p)
