"""Single-trial estimators: one response (*beta*) a trial and vertex from the BOLD series of a run.

Every estimator is linear, so each is a matrix of *weights* (n, T) that one product applies to the series (T, V):

- ``lsa``, *least squares all*: one model that holds every trial.
- ``lss``, *least squares separate* (Turner 2010; Mumford et al. 2012, NeuroImage 59:2636): for each trial a model of its
  own, in which the other trials share a single regressor.

The *nuisance* (constant, drifts, confounds) is projected out of the trials, which gives the same betas as keeping it in the
model (Frisch-Waugh-Lovell theorem); the data need not be touched. For LSS that leaves two columns a model, hence a closed
2 x 2 solution and no loop over trials.

>>> bold = np.array([[0.0], [2.0], [0.0], [3.0]], dtype=np.float32)
>>> trials = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
>>> lsa(bold, trials, np.ones((4, 1))).ravel().tolist()
[2.0, 3.0]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.design import refuse
from bids_brainlm.core.types import Bools, Floats
from bids_brainlm.registry import estimators

Doubles = NDArray[np.float64]

CHUNK_BYTES = 2**23
"""Size of the float64 copy of some vertices that is worked on at a time: about a core's share of the cache."""

TOLERANCE = 1e-10
"""Share of its sum of squares that a regressor must not have in common with the others."""

MEAN_TOLERANCE = 1e-3
"""Smallest mean, in standard deviations, of which a percentage makes sense: below it the series had its mean removed."""


@estimators.register("lsa")
def lsa(bold: Any, trials: Doubles, nuisance: Doubles) -> Floats:
    """Betas of all trials in one model.

    Parameters
    ----------
    bold : (T, V) float32
        Series of one run, in any unit.
    trials : (T, n) float64
        Regressor of each trial.
    nuisance : (T, q) float64
        Constant, drifts and confounds; q may be 0.

    Returns
    -------
    (n, V) float32
        In the unit of ``bold``.

    Raises
    ------
    ValueError
        Naming (by index) trials without a response of their own, or when there are more regressors than volumes.
    """
    return _apply(lsa_weights(trials, nuisance), bold)


@estimators.register("lss")
def lss(bold: Any, trials: Doubles, nuisance: Doubles) -> Floats:
    """Betas of each trial in a model of its own, the other trials in one regressor; see `lsa` for shapes and errors."""
    return _apply(lss_weights(trials, nuisance), bold)


def lsa_weights(trials: Doubles, nuisance: Doubles) -> Doubles:
    """(n, T) weights of `lsa`, from one factorisation of the (n, n) matrix of normal equations."""
    own = _without_nuisance(trials, nuisance, trials.shape[-1])
    lengths = np.linalg.norm(own, axis=0)
    unit = own / lengths
    values, vectors = np.linalg.eigh(unit.T @ unit)
    null = vectors[:, values < TOLERANCE]
    refuse((null**2).sum(axis=1) > 1e-3, "the regressors are collinear with each other")
    return np.asarray((vectors / values) @ (unit @ vectors).T / lengths[:, None])


def lss_weights(trials: Doubles, nuisance: Doubles) -> Doubles:
    """(n, T) weights of `lss`, from the closed solution of the n systems of two equations."""
    own = _without_nuisance(trials, nuisance, min(2, trials.shape[-1]))
    rest = own.sum(axis=1, keepdims=True) - own
    a, b, c = ((left * right).sum(axis=0) for left, right in ((own, own), (own, rest), (rest, rest)))
    # No other trial, or others that cancel out: the model has a single column.
    alone = c <= TOLERANCE * a.max(initial=0.0)
    b, c = np.where(alone, 0.0, b), np.where(alone, 1.0, c)
    determinant = a * c - b**2
    refuse(determinant <= TOLERANCE * a * c, "the regressor is collinear with the sum of the others")
    return np.asarray(((c * own - b * rest) / determinant).T)


def percent_signal_change(bold: Any) -> Floats:
    """Deviation from each vertex's own mean, in percent of the size of that mean.

    Parameters
    ----------
    bold : (T, V)
        Series in any unit, with its mean.

    Returns
    -------
    (T, V) float32
        Finite everywhere; 0 where the vertex is not `usable`.
    """
    out = np.zeros(bold.shape, dtype=np.float32)
    for part in _chunks(*bold.shape):
        block = np.asarray(bold[:, part], dtype=np.float64)
        good, mean = _usable_mean(block)
        # Vertices that are not usable may hold anything, so they are not even computed with.
        out[:, part][:, good] = 100.0 * (block[:, good] - mean[good]) / np.abs(mean[good])
    return out


def usable(bold: Any) -> Bools:
    """(V,) bool: vertices of ``bold`` (T, V) that are finite, not constant, and have a mean to be a percentage of."""
    good = np.zeros(bold.shape[1], dtype=np.bool_)
    for part in _chunks(*bold.shape):
        good[part], _ = _usable_mean(np.asarray(bold[:, part], dtype=np.float64))
    return good


def _usable_mean(block: Doubles) -> tuple[Bools, Doubles]:
    """(c,) whether each column of (T, c) is usable, and its mean."""
    finite = np.isfinite(block).all(axis=0)
    block = block if finite.all() else np.where(finite, block, 0.0)
    mean, varies = block.mean(axis=0), block.max(axis=0) > block.min(axis=0)
    return finite & varies & (np.abs(mean) > MEAN_TOLERANCE * block.std(axis=0)), mean


def _chunks(n_volumes: int, n_vertices: int) -> Iterator[slice]:
    width = max(1, CHUNK_BYTES // (8 * max(1, n_volumes)))
    return (slice(start, start + width) for start in range(0, n_vertices, width))


def _apply(weights: Doubles, bold: Any) -> Floats:
    """(n, V) float32 product of weights (n, T) and series (T, V), in float64 but without a float64 copy of the whole."""
    if bold.shape[0] != weights.shape[1]:
        raise ValueError(f"{bold.shape[0]} volumes of data, but {weights.shape[1]} in the design")
    betas = np.empty((weights.shape[0], bold.shape[1]), dtype=np.float32)
    for part in _chunks(*bold.shape):
        betas[:, part] = weights @ np.asarray(bold[:, part], dtype=np.float64)
    return betas


def _without_nuisance(trials: Doubles, nuisance: Doubles, n_fitted: int) -> Doubles:
    """(T, n) trial regressors with the span of the nuisance (T, q) projected out, for models of ``n_fitted`` columns more."""
    if trials.ndim != 2 or nuisance.ndim != 2 or trials.shape[0] != nuisance.shape[0]:
        raise ValueError(f"trials {trials.shape} and nuisance {nuisance.shape}; expected (T, n) and (T, q)")
    if n_fitted + nuisance.shape[1] > len(trials):
        raise ValueError(
            f"{n_fitted} trial and {nuisance.shape[1]} nuisance regressors in one model, but only {len(trials)} volumes; "
            "take fewer confounds, or the estimator 'lss', which fits two trial regressors at a time"
        )
    if not np.isfinite(nuisance).all():
        raise ValueError("nuisance regressors hold values that are not finite")
    refuse(~np.isfinite(trials).all(axis=0), "the regressor is not finite")
    before = (trials**2).sum(axis=0)
    refuse(before == 0, "the regressor is zero throughout")
    basis = _orthonormal(nuisance)
    own = trials - basis @ (basis.T @ trials)
    # Twice: after the first pass a regressor that is mostly nuisance is left with rounding error of the same size.
    own -= basis @ (basis.T @ own)
    refuse((own**2).sum(axis=0) <= TOLERANCE * before, "the nuisance regressors explain the whole regressor")
    return own


def _orthonormal(columns: Doubles) -> Doubles:
    """(T, r) orthonormal basis of the span of (T, q)."""
    lengths = np.linalg.norm(columns, axis=0)
    left, size, _ = np.linalg.svd(columns[:, lengths > 0] / lengths[lengths > 0], full_matrices=False)
    return np.asarray(left[:, size > 1e-10 * size.max(initial=0.0)])
