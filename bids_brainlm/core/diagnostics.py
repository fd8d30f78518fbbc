"""How far the response of a trial can be trusted, before any response is known: from the design, and from motion.

*Leverage* is how strongly volumes pull their own fit: the diagonal of the hat matrix, which turns a series into its fit. It is 0
where the model is free of a volume and 1 where it follows it whatever its value. The *variance inflation factor* (VIF) is how
many times larger the variance of a trial's beta is than with regressors that do not overlap. Both are those of the model with
all trials (``lsa``).

>>> rest = np.ones((6, 1))
>>> trials = np.array([[1.0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0]]).T
>>> trial_diagnostics(trials, rest).leverage.round(3).tolist()  # one volume of its own, two volumes of its own
[1.0, 0.5]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.glm import TOLERANCE, orthonormal

Doubles = NDArray[np.float64]

RESPONSE = (2.0, 10.0)
"""Seconds after onset and after offset between which a canonical response is above a tenth of its peak."""


@dataclass(frozen=True, eq=False)
class TrialDiagnostics:
    """What the design says of each trial.

    Parameters
    ----------
    leverage : (n,) float64
        Mean of the hat matrix's diagonal over volumes, weighted by the square of the trial's regressor; 0 to 1. Near 1, the
        model follows the volumes of the trial, noise included, and nothing in the residuals shows it.
    vif : (n,) float64
        1 / (1 - R2), R2 being the share of the regressor's variance that all other regressors explain; at least 1, infinite
        where they explain all of it.
    """

    leverage: Doubles
    vif: Doubles


def trial_diagnostics(trials: Doubles, nuisance: Doubles) -> TrialDiagnostics:
    """Leverage and VIF of every trial.

    Parameters
    ----------
    trials : (T, n) float64
        Regressor of each trial.
    nuisance : (T, q) float64
        Constant, drifts, confounds; variance is about the mean when they explain a constant, else about 0.

    Returns
    -------
    TrialDiagnostics
        NaN for a trial whose regressor is zero throughout.
    """
    squares = trials**2
    fit = orthonormal(np.column_stack([trials, nuisance]))
    total = squares.sum(axis=0)
    leverage = np.divide((fit**2).sum(axis=1) @ squares, total, out=np.full(total.shape, np.nan), where=total > 0)
    others = orthonormal(nuisance)
    own = trials - others @ (others.T @ trials)
    mean = np.ones(len(trials)) / len(trials)
    constant = np.linalg.norm(mean - others @ (others.T @ mean)) < 1e-6 * np.linalg.norm(mean)
    around = trials - mean @ trials if constant else trials
    return TrialDiagnostics(leverage, _inflation((around**2).sum(axis=0), own))


def motion_in_window(onsets: Any, durations: Any, frame_times: Any, displacement: Any, outlier: Any) -> tuple[Doubles, Doubles]:
    """Motion while a trial's response is under way, which is from 2 s after its onset to 10 s after its offset.

    Parameters
    ----------
    onsets, durations : (n,)
        Seconds.
    frame_times : (T,)
        Seconds, increasing.
    displacement : (T,)
        Framewise displacement of each volume in mm; NaN where unknown (the first volume).
    outlier : (T,)
        Whether a volume is an outlier; NaN where unknown.

    Returns
    -------
    (n,) float64
        Mean displacement in mm.
    (n,) float64
        Share of outlier volumes.

    Both over the volumes for which they are known, NaN where there is none in the window.
    """
    onsets, frames = np.asarray(onsets, dtype=np.float64), np.asarray(frame_times, dtype=np.float64)
    first = np.searchsorted(frames, onsets + RESPONSE[0])
    last = np.searchsorted(frames, onsets + np.asarray(durations, dtype=np.float64) + RESPONSE[1], side="right")

    def mean(values: Any) -> Doubles:
        values = np.asarray(values, dtype=np.float64)
        known = np.isfinite(values)
        sums, counts = (np.concatenate([[0.0], np.cumsum(each)]) for each in (np.where(known, values, 0.0), known))
        number = counts[last] - counts[first]
        return np.asarray(np.where(number > 0, sums[last] - sums[first], np.nan) / np.maximum(number, 1))

    return mean(displacement), mean(outlier)


def _inflation(variation: Doubles, own: Doubles) -> Doubles:
    """(n,) VIF from each regressor's sum of squares (n,) and what the nuisance leaves of it (T, n)."""
    left = (own**2).sum(axis=0)
    seen = left > TOLERANCE * variation
    vif = np.where(variation > 0, np.inf, np.nan)
    unit = own[:, seen] / np.sqrt(left[seen])
    values, vectors = np.linalg.eigh(unit.T @ unit)
    kept = values > TOLERANCE
    inverse = (vectors[:, kept] ** 2 / values[kept]).sum(axis=1)
    alone = (vectors[:, ~kept] ** 2).sum(axis=1) < 1e-3
    vif[seen] = np.where(alone, inverse * variation[seen] / left[seen], np.inf)
    return vif
