"""Single-trial estimators: one response (*beta*) a trial and unit (vertex or voxel) from the BOLD series of a run.

Every estimator is linear, so each is a matrix of *weights* (n, T) that one product applies to the series (T, V):

- ``lsa``, *least squares all*: one model that holds every trial.
- ``lss``, *least squares separate* (Turner 2010; Mumford et al. 2012, NeuroImage 59:2636): for each trial a model of its
  own, in which the other trials share a single regressor.

The *nuisance* (constant, drifts, confounds) is projected out of the trials, which gives the same betas as keeping it in the
model (Frisch-Waugh-Lovell theorem); the data need not be touched. For LSS that leaves two columns a model, hence a closed
2 x 2 solution and no loop over trials.

The *noise model* ``ols`` takes noise as white, ``ar1`` as autoregressive (`bids_brainlm.core.autoregression`): one matrix of
weights for all units of the same rho. Rho comes from what the model of *all* trials leaves of a unit's series, for LSS too: its
own models take what differs between the other trials for noise.

>>> bold = np.array([[0.0], [2.0], [0.0], [3.0]], dtype=np.float32)
>>> trials = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
>>> lsa(bold, trials, np.ones((4, 1))).ravel().tolist()
[2.0, 3.0]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.autoregression import autocorrelation, binned, for_series, whitened
from bids_brainlm.core.chunks import centred, for_centred, in_chunks, in_threads
from bids_brainlm.core.design import refuse
from bids_brainlm.core.types import Bools, Floats
from bids_brainlm.registry import estimators

Doubles = NDArray[np.float64]

NOISE_MODELS = ("ols", "ar1")
"""What noise is taken for: white, or autoregressive of order 1."""

TOLERANCE = 1e-10
"""Share of its sum of squares that a regressor must not have in common with the others."""

CONSTANT = 1e-6
"""Share of its mean that a unit must vary by: float32 rounds at a sixteenth of that."""

MEAN_TOLERANCE = 1e-3
"""Smallest mean, in standard deviations, of which a percentage makes sense: below it the series had its mean removed."""


@estimators.register("lsa")
def lsa(bold: Any, trials: Doubles, nuisance: Doubles, noise_model: str = "ols", threads: int = 1) -> Floats:
    """Betas of all trials in one model.

    Parameters
    ----------
    bold : (T, V) float32
        Series of one run, in any unit.
    trials : (T, n) float64
        Regressor of each trial.
    nuisance : (T, q) float64
        Constant, drifts and confounds; q may be 0.
    noise_model : str
        One of `NOISE_MODELS`.
    threads : int
        Threads over chunks of units.

    Returns
    -------
    (n, V) float32
        In the unit of ``bold``.

    Raises
    ------
    ValueError
        Naming (by index) trials without a response of their own; when there are more regressors than volumes, or too few
        volumes to estimate autocorrelation from.
    """
    return _estimated(lsa_weights, bold, trials, nuisance, noise_model, threads)


@estimators.register("lss")
def lss(bold: Any, trials: Doubles, nuisance: Doubles, noise_model: str = "ols", threads: int = 1) -> Floats:
    """Betas of each trial in a model of its own, the other trials in one regressor; see `lsa` for shapes and errors."""
    return _estimated(lss_weights, bold, trials, nuisance, noise_model, threads)


def lsa_weights(trials: Doubles, nuisance: Doubles) -> Doubles:
    """(n, T) weights of `lsa`, from the inverse of the (n, n) matrix of normal equations."""
    own = _without_nuisance(trials, nuisance, trials.shape[-1])
    lengths = np.linalg.norm(own, axis=0)
    unit = own / lengths
    return np.asarray(_inverse(unit.T @ unit) @ unit.T / lengths[:, None])


def lss_weights(trials: Doubles, nuisance: Doubles) -> Doubles:
    """(n, T) weights of `lss`, from the closed solution of the n systems of two equations."""
    own = _without_nuisance(trials, nuisance, min(2, trials.shape[-1]))
    _refuse_twins(own)
    rest = own.sum(axis=1, keepdims=True) - own
    a, b, c = ((left * right).sum(axis=0) for left, right in ((own, own), (own, rest), (rest, rest)))
    # No other trial, or others that cancel out: the model has a single column.
    alone = c <= TOLERANCE * a.max(initial=0.0)
    b, c = np.where(alone, 0.0, b), np.where(alone, 1.0, c)
    determinant = a * c - b**2
    refuse(determinant <= TOLERANCE * a * c, "the regressor is collinear with the sum of the others")
    return np.asarray(((c * own - b * rest) / determinant).T)


def percent_scale(bold: Any, threads: int = 1) -> Doubles:
    """What turns betas in the unit of the series into percent signal change: 100 / the size of each unit's mean.

    Estimators are linear and a constant leaves no trace in their betas, so the series itself need not be scaled.

    Parameters
    ----------
    bold : (T, V) float32
        Series in any unit, with its mean.
    threads : int
        Threads over chunks of units.

    Returns
    -------
    (V,) float64
        NaN where the unit is not `usable`.
    """
    scale = np.full(bold.shape[1], np.nan)

    def work(part: slice) -> None:
        good, mean = _usable_mean(bold[:, part])
        scale[part] = np.where(good, 100.0 / np.abs(np.where(good, mean, 1.0)), np.nan)

    in_chunks(work, len(bold), bold.shape[1], threads)
    return scale


def percent_signal_change(bold: Any) -> Floats:
    """Deviation from each unit's own mean, in percent of the size of that mean.

    Parameters
    ----------
    bold : (T, V)
        Series in any unit, with its mean.

    Returns
    -------
    (T, V) float32
        Finite everywhere; 0 where the unit is not `usable`.
    """
    out = np.zeros(bold.shape, dtype=np.float32)

    def work(part: slice) -> None:
        block = np.asarray(bold[:, part], dtype=np.float64)
        good, mean = _usable_mean(block)
        # Units that are not usable may hold anything, so they are not even computed with.
        out[:, part][:, good] = 100.0 * (block[:, good] - mean[good]) / np.abs(mean[good])

    in_chunks(work, len(bold), bold.shape[1])
    return out


def usable(bold: Any, threads: int = 1) -> Bools:
    """(V,) bool: units of ``bold`` (T, V) that are finite, not constant, and have a mean to be a percentage of."""
    return np.isfinite(percent_scale(bold, threads))


def refuse_non_finite(bold: Any) -> None:
    """Raise where values are missing within a series; a unit without any value (NaN throughout) is left to `usable`.

    Parameters
    ----------
    bold : (T, V) float32

    Raises
    ------
    ValueError
        Naming the first such value by volume and unit, and how many units are concerned.
    """
    suspects = np.zeros(bold.shape[1], dtype=np.bool_)

    def work(part: slice) -> None:
        suspects[part] = ~np.isfinite(bold[:, part].sum(axis=0, dtype=np.float64))

    in_chunks(work, len(bold), bold.shape[1])
    units = np.flatnonzero(suspects)
    series = bold[:, units]
    faulty = ~np.isfinite(series) & ~np.isnan(series).all(axis=0)
    if faulty.any():
        volume, place = np.argwhere(faulty)[0]
        n_units = int(faulty.any(axis=0).sum())
        raise ValueError(
            f"volume {volume} of unit {units[place]} is {series[volume, place]}; {n_units} unit(s) have values that are not "
            "finite beside others that are"
        )


def _usable_mean(series: Any) -> tuple[Bools, Doubles]:
    """(c,) whether each column of (T, c) is usable, and its mean."""
    series = np.asarray(series, dtype=np.result_type(series, np.float32))
    mean = series.mean(axis=0, dtype=np.float64)
    # One value that is not finite makes the mean such a value.
    finite = np.isfinite(mean)
    if not finite.all():
        series, mean = np.where(finite, series, 0.0), np.where(finite, mean, 0.0)
    around = series - mean.astype(series.dtype)
    spread = np.sqrt(np.einsum("tv,tv->v", around, around) / max(1, len(around)))
    return finite & varies_around_a_mean(mean, spread), mean


def varies_around_a_mean(mean: Any, spread: Any) -> Bools:
    """(c,) units whose spread (c,) is more than rounding and whose mean (c,) is one to be a percentage of."""
    size = np.abs(mean)
    return np.asarray((spread > CONSTANT * size) & (size > MEAN_TOLERANCE * spread))


def _estimated(
    weights: Callable[[Doubles, Doubles], Doubles], bold: Any, trials: Doubles, nuisance: Doubles, noise_model: str, threads: int
) -> Floats:
    """(n, V) betas of an estimator that is given by its weights, under a noise model."""
    if noise_model not in NOISE_MODELS:
        raise ValueError(f"noise model {noise_model!r}; expected one of {', '.join(NOISE_MODELS)}")
    plain = weights(trials, nuisance)
    if len(bold) != len(trials):
        raise ValueError(f"{len(bold)} volumes of data, but {len(trials)} in the design")
    if noise_model == "ols":
        return _applied(for_centred(plain)[None], np.zeros(bold.shape[1], dtype=np.intp), bold, threads)
    rho, which = binned(autocorrelation(bold, orthonormal(np.column_stack([trials, nuisance])), threads))

    def one(value: float) -> Floats:
        return for_centred(for_series(weights(whitened(trials, value), whitened(nuisance, value)), value))

    each = np.array(in_threads(one, rho.tolist(), threads), dtype=np.float32)
    return _applied(each.reshape(-1, plain.shape[0], plain.shape[1] + 1), which, bold, threads)


def _applied(weights: Floats, which: NDArray[np.intp], bold: Any, threads: int) -> Floats:
    """(n, V) products of the series with the one of several weights (b, n, T + 1) that each unit has (V,); NaN for -1."""
    betas = np.full((weights.shape[1], bold.shape[1]), np.nan, dtype=np.float32)

    def work(part: slice) -> None:
        block, own = centred(bold, part), which[part]
        for index in np.unique(own[own >= 0]):
            units = np.flatnonzero(own == index)
            if units.size == own.size:
                np.matmul(weights[index], block, out=betas[:, part])
            else:
                betas[:, part.start + units] = weights[index] @ block.take(units, axis=1)

    in_chunks(work, len(bold), bold.shape[1], threads)
    return betas


def _refuse_twins(own: Doubles) -> None:
    """Raise where two regressors are the same but for their scale: least squares would give both what belongs to the pair."""
    unit = own / np.linalg.norm(own, axis=0)
    common = (unit.T @ unit) ** 2
    np.fill_diagonal(common, 0.0)
    refuse(common.max(axis=0, initial=0.0) >= 1 - TOLERANCE, "the regressors are collinear with each other")


def _inverse(normal: Doubles) -> Doubles:
    """(n, n) inverse of the products of regressors of unit length."""
    try:
        inverse = np.linalg.inv(normal)
    except np.linalg.LinAlgError:
        inverse = np.full_like(normal, np.nan)
    # The trace is the sum of 1 / eigenvalue: as long as it is small, no eigenvalue is.
    if not 0 <= np.trace(inverse) < 0.01 / TOLERANCE:
        values, vectors = np.linalg.eigh(normal)
        null = vectors[:, values < TOLERANCE]
        refuse((null**2).sum(axis=1) > 1e-3, "the regressors are collinear with each other")
    return np.asarray(inverse)


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
    basis = orthonormal(nuisance)
    own = trials - basis @ (basis.T @ trials)
    # Twice: after the first pass a regressor that is mostly nuisance is left with rounding error of the same size.
    own -= basis @ (basis.T @ own)
    refuse((own**2).sum(axis=0) <= TOLERANCE * before, "the nuisance regressors explain the whole regressor")
    return own


def orthonormal(columns: Doubles) -> Doubles:
    """(T, r) orthonormal basis of the span of (T, q)."""
    lengths = np.linalg.norm(columns, axis=0)
    left, size, _ = np.linalg.svd(columns[:, lengths > 0] / lengths[lengths > 0], full_matrices=False)
    return np.asarray(left[:, size > 1e-10 * size.max(initial=0.0)])
