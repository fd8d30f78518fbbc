"""Many units on one design: a ridge regression with a penalty for each, which units to use, their noise, and how far to trust it.

Everything is chosen by groups of rows (stories) that are held out within the rows that are given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from sklearn.covariance import ledoit_wolf
from sklearn.model_selection import GroupKFold

from bids_brainlm.core.types import Bools, Ints, Recording

Array = NDArray[np.float64]

UNITS = 1000
"""Most units that are used: those that are predicted best. The noise of more cannot be told from a few hours."""

PANEL = 2048
"""Units that are fitted at a time."""

ALPHAS = np.logspace(-3, 5, 17)
"""Penalties tried, in units of the mean squared singular value of the design."""

N_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Regression:
    """Whitened responses of units as a linear function of a design.

    Parameters
    ----------
    units : (U,) int64
        Columns of the recording, those predicted best first.
    weights : (p, U) float64
    rest : (U,) float64
        Intercept.
    white : (U, U) float64
        Takes responses to where what is left is independent and of variance 1.
    """

    units: Ints
    weights: Array
    rest: Array
    white: Array


def regress(design: Array, groups: Ints, recording: Recording, rows: Ints) -> Regression:
    """Fit all units of a recording, and keep those that held-out groups show to be predicted.

    Parameters
    ----------
    design : (n, p) float64
    groups : (n,) int64
    recording : Recording
    rows : (n,) int64
        Of the recording.
    """
    spread = design.std(axis=0)
    spread = np.where(spread > 0, spread, np.inf)
    ridge = Ridge(design / spread, groups)
    units, alphas = _chosen(ridge, recording, rows)
    responses = signals(recording, rows, units)
    weights, rest = ridge.fitted(responses, alphas)
    white = _whitening(ridge.left(responses, alphas))
    return Regression(units, weights / spread[:, None] @ white.T, white @ rest, white)


def trust(design: Array, groups: Ints, recording: Recording, rows: Ints, part: Bools) -> float:
    """Slope, between 0 and 1, of responses of groups that nothing was chosen or fitted on, on what is predicted for them.

    Parameters
    ----------
    design, groups, recording, rows
        As in `regress`, which is called on all groups but about a fifth of them.
    part : (p,) bool
        Columns of the design of whose share in the prediction the slope is.
    """
    n_folds = min(N_FOLDS, np.unique(groups).size)
    if n_folds < 2:
        return 0.0
    fit, held = next(iter(GroupKFold(n_folds, shuffle=True, random_state=0).split(design, groups=groups)))
    found = regress(design[fit], groups[fit], recording, rows[fit])
    known = found.rest + design[held][:, ~part] @ found.weights[~part]
    left = signals(recording, rows[held], found.units) @ found.white.T - known
    predicted = design[held][:, part] @ found.weights[part]
    size = float((predicted**2).sum())
    return float(np.clip((predicted * left).sum() / size, 0.0, 1.0)) if size else 0.0


def signals(recording: Recording, rows: Ints, units: Ints | slice) -> Array:
    """(n, U) responses at rows (n,) of the recording; 0 (the mean of a run) where a unit cannot be used."""
    some: Any = (rows, units) if isinstance(units, slice) else np.ix_(rows, units)
    data: Array = np.asarray(recording.data[some], dtype=np.float64)
    return np.asarray(np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0))


class Ridge:
    """Ridge regression on one design with an own penalty for every unit, and what held-out groups say of it.

    Parameters
    ----------
    design : (n, p) float64
    groups : (n,) int64
        Held out as a whole.
    """

    def __init__(self, design: Array, groups: Ints) -> None:
        self.design = design
        self.own = _decomposed(design)
        n_folds = min(N_FOLDS, np.unique(groups).size)
        cut = GroupKFold(n_folds, shuffle=True, random_state=0).split(design, groups=groups) if n_folds > 1 else []
        self.folds = [(fit, out, _decomposed(design[fit])) for fit, out in cut]

    def errors(self, responses: Array) -> Array:
        """(a, U) squared error of held-out responses (n, U) for each penalty."""
        out = np.zeros((len(ALPHAS), responses.shape[1]))
        for fit, held, (mean, left, values, right) in self.folds:
            offset = responses[fit].mean(axis=0)
            rotated = left.T @ (responses[fit] - offset)
            projected = (self.design[held] - mean) @ right.T
            for i, alpha in enumerate(ALPHAS):
                predicted = (projected * _gains(values, alpha)) @ rotated + offset
                out[i] += ((predicted - responses[held]) ** 2).sum(axis=0)
        return out

    def chance(self, responses: Array) -> Array:
        """(U,) squared error of the mean of the other groups."""
        return np.asarray(
            sum((((responses[held] - responses[fit].mean(axis=0)) ** 2).sum(axis=0) for fit, held, _ in self.folds), np.zeros(1))
        )

    def fitted(self, responses: Array, alphas: Array) -> tuple[Array, Array]:
        """Weights (p, U) and intercept (U,) from all rows."""
        return _solved(self.own, responses, alphas)

    def left(self, responses: Array, alphas: Array) -> Array:
        """(n, U) what is left of responses that were held out."""
        out = np.zeros_like(responses)
        for fit, held, parts in self.folds:
            weights, rest = _solved(parts, responses[fit], alphas)
            out[held] = responses[held] - self.design[held] @ weights - rest
        return out


def _decomposed(design: Array) -> tuple[Array, Array, Array, Array]:
    mean = design.mean(axis=0)
    left, values, right = linalg.svd(design - mean, full_matrices=False)
    return mean, left, values, right


def _solved(parts: tuple[Array, Array, Array, Array], responses: Array, alphas: Array) -> tuple[Array, Array]:
    mean, left, values, right = parts
    offset = responses.mean(axis=0)
    weights = right.T @ (_gains(values[:, None], alphas) * (left.T @ (responses - offset)))
    return weights, offset - mean @ weights


def _gains(values: Array, alphas: Any) -> Any:
    """What ridge makes of singular values, with penalties in units of their mean square."""
    unit = max(float((values**2).mean()), float(np.finfo(float).tiny))
    return values / (values**2 + alphas * unit)


def _chosen(ridge: Ridge, recording: Recording, rows: Ints) -> tuple[Ints, Array]:
    """Units (U,) that held-out groups show to be predicted, best first, and the penalty (U,) of each."""
    n_units = recording.data.shape[1]
    gain, alphas = np.zeros(n_units), np.zeros(n_units)
    for start in range(0, n_units, PANEL):
        part = slice(start, start + PANEL)
        responses = signals(recording, rows, part)
        errors, chance = ridge.errors(responses), ridge.chance(responses)
        alphas[part] = ALPHAS[errors.argmin(axis=0)]
        gain[part] = 1 - np.divide(errors.min(axis=0), chance, out=np.ones(chance.size), where=chance > 0)
    order = np.argsort(-gain, kind="stable")[:UNITS]
    chosen = order[gain[order] > 0] if ridge.folds else order[:0]
    return chosen, alphas[chosen]


def _whitening(noise: Array) -> Array:
    """(U, U) matrix that makes noise (n, U) independent, of variance 1."""
    if not noise.shape[1]:
        return np.zeros((0, 0))
    covariance, _ = ledoit_wolf(noise)
    root = linalg.cholesky(covariance, lower=True)
    return np.asarray(linalg.solve_triangular(root, np.eye(len(root)), lower=True))
