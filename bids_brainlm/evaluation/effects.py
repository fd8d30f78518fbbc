"""How large an effect is, and how large it could be.

- The *standardised mean difference* is the mean difference over units, by their standard deviation (Cohen's d of paired values),
  with the correction for few units of Hedges (1981). Its interval is exact for normal differences (noncentral t).
- The *probability of superiority* is that of a text being better than its control, ties counting half: .5 is chance, and no
  assumption is made.
- A *noise ceiling* says how much of what differs between the scores of stimuli comes again when they are shown again. The repeats
  of each stimulus are halved at random, the mean scores of both halves correlated over stimuli, and the correlation is stepped up
  to the whole number of repeats (Spearman 1910, Brown 1910); with odd numbers it is a little low. Its square root bounds the
  correlation of these scores with anything else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from bids_brainlm.core.reliability import split_half
from bids_brainlm.evaluation.resampling import MIN_UNITS, bootstrap_interval, unit_means

Array = NDArray[np.float64]


EFFECTS_COLUMNS = {
    "metric": "What was measured of each text; nll is that of the right text.",
    "d": "Standardised mean difference between the text from the true brain and that from a permuted one, over groups; above 0 "
    "where the true brain is better.",
    "d_low": "Lower end of its 95 % interval; n/a below 6 groups.",
    "d_high": "Upper end of that interval.",
    "superiority": "Probability that a text from the true brain is better than that from a permuted one, ties counting half; .5 "
    "by chance.",
    "superiority_low": "Lower end of its 95 % interval over groups (bootstrap).",
    "superiority_high": "Upper end of that interval.",
    "n_units": "Number of groups.",
    "ceiling": "Noise ceiling: reliability of the mean score of a stimulus over its repeats, 0 to 1; n/a where fewer than three "
    "stimuli repeat.",
}
"""Columns of the table of effects, in order."""


@dataclass(frozen=True)
class Effect:
    """A size of effect with its 95 % interval, None below `MIN_UNITS` units, and number of units."""

    value: float
    interval: tuple[float, float] | None
    n_units: int


FARTHEST = 1e4
"""Largest t of which an interval is computed: beyond it units hardly differ, and the distribution is not computed any more."""


def standardised_difference(differences: ArrayLike, units: ArrayLike, level: float = 0.95) -> Effect:
    """Mean difference over units in standard deviations of units.

    Parameters
    ----------
    differences : (n,) float
        E.g. a metric of the text from the true brain minus that from a permuted one; nan is left out.
    units : (n,)
        What was sampled; texts of a unit are averaged first.
    level : float
        Coverage.

    Returns
    -------
    Effect
        Value nan for one unit, and where units do not differ.
    """
    means = unit_means(differences, units)
    n, spread = means.size, float(means.std(ddof=1)) if means.size > 1 else 0.0
    if spread == 0:
        return Effect(np.nan, None, n)
    t, correction = float(means.mean()) / spread * np.sqrt(n), 1 - 3 / (4 * (n - 1) - 1)
    value = correction * t / np.sqrt(n)
    if n < MIN_UNITS:
        return Effect(value, None, n)
    if abs(t) > FARTHEST:
        return Effect(value, None, n)
    ends = (_noncentrality(t, n - 1, tail) for tail in ((1 + level) / 2, (1 - level) / 2))
    low, high = (correction * end / np.sqrt(n) for end in ends)
    return Effect(value, (low, high), n)


def _noncentrality(t: float, df: int, probability: float) -> float:
    """The parameter of the noncentral t distribution under which t has that cumulative probability.

    The distribution function falls with the parameter. Ends are looked for in steps from t outwards, since far out it is not
    computed but nan.
    """

    def excess(delta: float) -> float:
        return float(stats.nct.cdf(t, df, delta)) - probability

    low, high, step = t, t, max(1.0, abs(t) / 10)
    while excess(low) < 0:
        low -= step
    while excess(high) > 0:
        high += step
    return float(optimize.brentq(excess, low, high))


def superiority(values: ArrayLike, controls: ArrayLike, units: ArrayLike, n_samples: int = 2000, seed: int = 0) -> Effect:
    """Probability that a value is larger than its control.

    Parameters
    ----------
    values : (n,) float
    controls : (n,) or (K, n) float
        Of the same texts, e.g. under K permuted brains.
    units : (n,)
    n_samples, seed : int
        Bootstrap samples of whole units.

    Raises
    ------
    ValueError
        When shapes disagree.
    """
    own, others = np.asarray(values, dtype=np.float64), np.atleast_2d(np.asarray(controls, dtype=np.float64))
    if own.ndim != 1 or others.shape[1:] != own.shape:
        raise ValueError(f"values {own.shape} and controls {others.shape}; expected (n,) and (n,) or (K, n)")
    wins = ((own > others) + 0.5 * (own == others)).mean(axis=0)
    return Effect(float(wins.mean()), bootstrap_interval(wins, units, n_samples, seed), unit_means(wins, units).size)


def stepped_up(correlation: ArrayLike, times: float = 2.0) -> Array:
    """Reliability of a mean over ``times`` as many repeats, from that of a part (Spearman-Brown).

    >>> stepped_up([0.5, 0.0, -0.2]).round(3).tolist()
    [0.667, 0.0, 0.0]
    """
    r = np.maximum(np.asarray(correlation, dtype=np.float64), 0.0)
    return np.asarray(times * r / (1 + (times - 1) * r))


def ceiling(scores: ArrayLike, stimuli: ArrayLike, seed: int = 0, n_splits: int = 100) -> Effect:
    """Reliability of the mean score of a stimulus: the noise ceiling of a metric, or of identification, where stimuli repeat.

    Parameters
    ----------
    scores : (n,) float
        One a decoded text; nan is left out.
    stimuli : (n,) of str
    n_splits : int
        Random halvings that are averaged.

    Returns
    -------
    Effect
        0 to 1 without an interval; nan with fewer than three stimuli that repeat, or where scores do not differ.
    """
    values, names = np.asarray(scores, dtype=np.float64), np.asarray(stimuli, dtype=np.str_)
    known = np.isfinite(values)
    half = split_half(values[known, None], names[known], seed, n_splits)[0]
    _, counts = np.unique(names[known], return_counts=True)
    return Effect(float(stepped_up(half)), None, int((counts > 1).sum()))


def effects_table(
    scores: Mapping[str, Mapping[str, ArrayLike]],
    lower: Collection[str],
    units: ArrayLike,
    stimuli: ArrayLike,
    n_samples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """How large the difference between true and permuted brain is, in every metric that texts have.

    Parameters
    ----------
    scores : mapping of metric to mapping of condition to (n,) float
        Those without the conditions ``true`` and ``permuted``, of the same texts, are left out; so are texts whose score is nan
        in either.
    lower : collection of str
        Metrics that are better when smaller.
    units, stimuli : (n,)
    n_samples, seed : int
        Bootstrap samples.

    Returns
    -------
    DataFrame
        Columns `EFFECTS_COLUMNS`.
    """
    rows = []
    groups, names = np.asarray(units), np.asarray(stimuli, dtype=np.str_)
    for metric, found in scores.items():
        true, permuted = (np.asarray(found.get(name, ()), dtype=np.float64) for name in ("true", "permuted"))
        if true.shape != permuted.shape or true.shape != groups.shape:
            continue
        known, sign = np.isfinite(true) & np.isfinite(permuted), -1.0 if metric in lower else 1.0
        if not known.any():
            continue
        d = standardised_difference(sign * (true - permuted)[known], groups[known])
        better = superiority(sign * true[known], sign * permuted[known], groups[known], n_samples, seed)
        ends = [end for effect in (d, better) for end in (effect.value, *(effect.interval or (np.nan, np.nan)))]
        rows.append((metric, *ends, d.n_units, ceiling(true, names, seed).value))
    return pd.DataFrame(rows, columns=list(EFFECTS_COLUMNS))
