"""What driving a site does to words: slopes over doses, tested against patches that are no site.

The *slope* of a word is that of its log-probability over doses, by least squares, in nats per unit of dose; one a trial, then the
mean over trials. What is compared between a site and null patches is the slope divided by the norm of the pattern. Null patches
of a site serve every site that is *alike* (norm to within `ALIKE`, as many parcels to within `nulls.LIKE`) and that they do not
overlap.

All of these are effects on the model: they say what it has learned to read from a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from bids_brainlm.core.types import Bools, Floats
from bids_brainlm.evaluation.multiplicity import false_discovery_q
from bids_brainlm.evaluation.resampling import bootstrap_interval
from bids_brainlm.insilico.nulls import LIKE, OVERLAP, Places, overlap
from bids_brainlm.insilico.words import Word

Doubles = NDArray[np.float64]

ALIKE = 1.25
"""By what factor the norms of two patterns may differ whose null patches serve both."""

EFFECT_COLUMNS = {
    "site": "Site that was driven.",
    "factor": "What the word is a value of.",
    "word": "Word whose probability is read.",
    "slope": "Effect on the model: by how many nats the log-probability of the word rises per unit of dose, mean over trials.",
    "ci_low": "Lower end of its 95 % interval, over groups of trials; n/a below 6 groups.",
    "ci_high": "Upper end.",
    "slope_mean_trial": "The same where the mean of those trials is driven.",
    "slope_zero": "The same where a response of zeros is driven.",
    "slope_flipped": "The same with the sign of the pattern changed.",
    "slope_elsewhere": "The same with the pattern in a wrong region: a matched patch outside of every site.",
    "rivals_slope": "Slope of the log-probability that any other word of the factor comes in its place.",
    "null_mean": "Mean slope of null patches, as strong as the site.",
    "null_sd": "Standard deviation of those slopes.",
    "n_null": "Number of null patches.",
    "p_raised": "Share of null patches, the site counted among them, whose slope is as large.",
    "q_raised": "False discovery rate of p_raised over all sites and words.",
    "p_lowered": "Share of null patches, the site counted among them, whose slope is as small.",
    "q_lowered": "False discovery rate of p_lowered over all sites and words.",
    "p_rivals": "Share of null patches, the site counted among them, that lower the rivals as much.",
    "q_rivals": "False discovery rate of p_rivals over all sites and words.",
}
"""Columns of the table of effects; one row a site and word."""

DOSE_COLUMNS = {
    "site": "Site that was driven.",
    "dose": "What the pattern was multiplied by; 0 is the response as it is.",
    "base": "What was driven: trials, their mean, or a response of zeros.",
    "factor": "What the word is a value of.",
    "word": "Word whose probability is read.",
    "log_probability": "Of the word in its frames, in nats, mean over frames.",
    "standard_error": "Of that mean over trials.",
    "rivals": "Log-probability that any other word of the factor comes in its place, mean over frames.",
    "beyond_vertices": "Share of driven vertices, over trials, beyond the largest absolute value that training had there.",
    "beyond_norm": "Share of trials whose whole response is longer than the longest of training.",
}
"""Columns of the table of doses; one row a site, dose, base and word."""

CAPTION_COLUMNS = {
    "site": "Site that was driven.",
    "dose": "What the pattern was multiplied by.",
    "trial_id": "Held-out trial that was driven.",
    "text": "What the model says of it.",
    "words": "Words of the factors that the text names, whole words.",
}
"""Columns of the table of captions; one row a site, dose and trial."""


def dose_slope(values: ArrayLike, doses: ArrayLike) -> Doubles:
    """Least-squares slopes over the second axis.

    Parameters
    ----------
    values : (S, A, ...) float
    doses : (A,) float

    Returns
    -------
    (S, ...) float64

    Raises
    ------
    ValueError
        When all doses are one.

    Examples
    --------
    >>> dose_slope([[[1.0], [2.0], [5.0]]], [0, 1, 3]).round(3).tolist()
    [[1.357]]
    """
    array, x = np.asarray(values, dtype=np.float64), np.asarray(doses, dtype=np.float64)
    centred = x - x.mean()
    if not (centred**2).sum():
        raise ValueError(f"no slope over doses {x.tolist()}")
    return np.asarray(np.tensordot(np.moveaxis(array, 1, -1), centred / (centred**2).sum(), axes=1))


def rivals_of(log_p: Doubles, words: Sequence[Word]) -> Doubles:
    """(..., W) log-probability that any other word of the same factor comes; nan for a word without rivals."""
    factor = np.array([word.factor for word in words])
    out = np.full(log_p.shape, np.nan)
    for i, own in enumerate(factor):
        others = np.flatnonzero((factor == own) & (np.arange(factor.size) != i))
        if others.size:
            out[..., i] = logsumexp(log_p[..., others], axis=-1)
    return out


@dataclass(frozen=True, eq=False)
class Compared:
    """Slopes against those of null patches.

    Parameters
    ----------
    null_mean, null_sd : (S, W) float64
        Of slopes of null patches, as strong as the site; nan where there is none.
    n : (S,) int64
        Null patches of each site.
    p_raised, p_lowered : (S, W) float64
    """

    null_mean: Doubles
    null_sd: Doubles
    n: NDArray[np.int64]
    p_raised: Doubles
    p_lowered: Doubles


def against_nulls(slopes: Doubles, norms: Doubles, null: Doubles, null_norms: Doubles, usable: Bools) -> Compared:
    """Compare slopes per norm.

    Parameters
    ----------
    slopes : (S, W) float
    norms : (S,) float
    null : (N, W) float
        Slopes of null patches.
    null_norms : (N,) float
    usable : (S, N) bool
        Which null patches a site is compared with.

    Returns
    -------
    Compared
        p is (1 + as extreme) / (1 + null patches); nan without any.
    """
    mean, spread, raised, lowered = (np.full(slopes.shape, np.nan) for _ in range(4))
    per_norm = null / null_norms[:, None] if len(null) else null
    for site, may in enumerate(usable):
        own = per_norm[may] * norms[site]
        if len(own):
            mean[site], spread[site] = own.mean(axis=0), own.std(axis=0)
            # Rounding must not decide between a site and a patch that do exactly nothing.
            near = 1e-6 * (1 + np.abs(slopes[site]))
            raised[site] = (1 + (own >= slopes[site] - near).sum(axis=0)) / (1 + len(own))
            lowered[site] = (1 + (own <= slopes[site] + near).sum(axis=0)) / (1 + len(own))
    unknown = np.isnan(slopes)
    raised[unknown] = lowered[unknown] = np.nan
    return Compared(mean, spread, usable.sum(axis=1), raised, lowered)


def alike(sites: Floats, places: Places) -> Bools:
    """(S, S) bool: sites whose null patches serve each other."""
    norms = np.array([places.norm(pattern) for pattern in sites])
    touched = np.array([max(places.touched(pattern), 1) for pattern in sites])
    return np.asarray((_ratio(norms) <= ALIKE) & (_ratio(touched) <= LIKE))


def _ratio(values: NDArray[np.floating] | NDArray[np.integer]) -> Doubles:
    positive = np.maximum(np.asarray(values, dtype=np.float64), np.finfo(float).tiny)
    return np.asarray(np.exp(np.abs(np.log(positive)[:, None] - np.log(positive))))


def usable_nulls(sites: Floats, patches: Floats, owner: NDArray[np.int64], places: Places) -> Bools:
    """(S, N) bool: patches of an alike site that do not overlap the site; ``owner`` (N,) is the site each was made of."""
    apart = [[overlap(patch, site != 0) <= OVERLAP for patch in patches] for site in sites]
    return np.asarray(alike(sites, places)[:, owner] & np.array(apart))


@dataclass(frozen=True, eq=False)
class Slopes:
    """Slopes of S sites for W words; those of trials one a trial.

    Parameters
    ----------
    trials, rivals : (S, n, W) float64
    mean, zero, flipped, elsewhere : (S, W) float64
        nan where there is none.
    """

    trials: Doubles
    rivals: Doubles
    mean: Doubles
    zero: Doubles
    flipped: Doubles
    elsewhere: Doubles


def effects_table(
    names: Sequence[str], words: Sequence[Word], slopes: Slopes, own: Compared, rivals: Compared, groups: ArrayLike, seed: int = 0
) -> pd.DataFrame:
    """Columns `EFFECT_COLUMNS`; one row a site and word.

    Parameters
    ----------
    names : sequence (S) of str
        Sites.
    groups : (n,)
        What intervals resample: groups of the trials.
    """
    rows = []
    for s, name in enumerate(names):
        for w, word in enumerate(words):
            low, high = bootstrap_interval(slopes.trials[s, :, w], groups, seed=seed) or (np.nan, np.nan)
            rows.append(
                {
                    "site": name,
                    "factor": word.factor,
                    "word": word.label,
                    "slope": slopes.trials[s, :, w].mean(),
                    "ci_low": low,
                    "ci_high": high,
                    "slope_mean_trial": slopes.mean[s, w],
                    "slope_zero": slopes.zero[s, w],
                    "slope_flipped": slopes.flipped[s, w],
                    "slope_elsewhere": slopes.elsewhere[s, w],
                    "rivals_slope": slopes.rivals[s, :, w].mean(),
                    "null_mean": own.null_mean[s, w],
                    "null_sd": own.null_sd[s, w],
                    "n_null": int(own.n[s]),
                    "p_raised": own.p_raised[s, w],
                    "p_lowered": own.p_lowered[s, w],
                    "p_rivals": rivals.p_lowered[s, w],
                }
            )
    table = pd.DataFrame(rows)
    for test in ("raised", "lowered", "rivals"):
        table[f"q_{test}"] = false_discovery_q(table[f"p_{test}"].to_numpy(float))
    return table[list(EFFECT_COLUMNS)]
