"""BOLD series with a known single-trial truth.

A run of vertex v is ``baseline_v * (1 + (signal + noise) / 100)``, both in percent:

- *signal*: the regressor of every trial times its true amplitude. A regressor is a boxcar convolved with Glover's HRF
  (Glover 1999, the parameters of nilearn), integrated in closed form and stretched in time by a factor per vertex.
- *noise*: white and spatially smooth parts, both autocorrelated (AR(1), a coefficient per vertex), slow drift, components
  shared by the whole brain, and a part that follows the head's motion.

`noise_scene` draws what belongs to a participant (baselines, coefficients, loadings); `simulate_run` draws one run of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial import cKDTree
from scipy.special import gammainc

from bids_brainlm.core.types import Floats

AMPLITUDE = 2.5
"""Percent signal change of a sustained response at the centre of a word's bump, at an SNR of 1."""

N_STRETCHES = 15
"""HRFs in use at most: stretches are rounded to a bank of this size."""

MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")


@dataclass(frozen=True)
class Noise:
    """Standard deviations of the parts of the noise, in percent of the baseline.

    Parameters
    ----------
    white, smooth, shared, drift, motion : float
    fwhm : float, mm
        Full width at half maximum of the spatially smooth part.
    rho : (float, float)
        Range of the AR(1) coefficients over vertices.
    n_shared : int
        Components that the whole brain shares.
    """

    white: float = 0.4
    smooth: float = 0.6
    shared: float = 0.3
    drift: float = 0.3
    motion: float = 0.2
    fwhm: float = 25.0
    rho: tuple[float, float] = (0.1, 0.5)
    n_shared: int = 5


@dataclass(frozen=True, eq=False)
class Scene:
    """What stays the same over the runs of a participant.

    Parameters
    ----------
    baseline : (V,) float32
    rho : (V,) float32
        AR(1) coefficients.
    spread : (V, C) sparse float32
        Carries C independent noise sources to the vertices; every row has unit norm.
    shared : (n_shared, V), drift : (3, V), motion : (6, V) float32
        Loadings, each with unit mean square in total.
    stretch : (V,) float32
        Factor by which the HRF is stretched in time.
    """

    baseline: Floats
    rho: Floats
    spread: csr_array
    shared: Floats
    drift: Floats
    motion: Floats
    stretch: Floats


def noise_scene(
    coordinates: Floats, hemisphere: NDArray[np.int64], noise: Noise, hrf_variability: float, rng: np.random.Generator
) -> Scene:
    """Draw a participant.

    Parameters
    ----------
    coordinates : (V, 3) float32, mm
    hemisphere : (V,) int
        Smooth noise does not cross from one to the other.
    noise : Noise
    hrf_variability : float
        Standard deviation over cortex of the factor by which the HRF is stretched; it varies smoothly.
    rng : numpy.random.Generator
    """
    n = len(coordinates)
    spread = _spread(coordinates, hemisphere, noise.fwhm / 2.355, rng)
    loadings = [rng.standard_normal((k, n), dtype=np.float32) for k in (noise.n_shared, 3, 6)]
    weights = np.linspace(1.5, 0.5, noise.n_shared, dtype=np.float32)[:, None]
    smooth = (spread @ rng.standard_normal((spread.shape[1], noise.n_shared), dtype=np.float32)).T
    loadings[0] = weights * (0.5 + smooth) / np.sqrt(1.25 * (weights**2).sum())
    stretch = 1 + hrf_variability * (spread @ rng.standard_normal(spread.shape[1], dtype=np.float32))
    return Scene(
        baseline=rng.normal(10000, 1000, n).clip(5000).astype(np.float32),
        rho=rng.uniform(*noise.rho, n).astype(np.float32),
        spread=spread,
        shared=loadings[0].astype(np.float32),
        drift=loadings[1] / np.float32(np.sqrt(3)),
        motion=loadings[2] / np.float32(np.sqrt(6)),
        stretch=stretch.clip(0.6, 1.6).astype(np.float32),
    )


def regressors(
    onsets: NDArray[np.float64], durations: NDArray[np.float64], times: NDArray[np.float64], stretch: float = 1.0
) -> NDArray[np.float64]:
    """Response to each trial alone.

    Parameters
    ----------
    onsets, durations : (n,) float64, s
    times : (T,) float64, s
        When the volumes were taken.
    stretch : float
        The HRF at t is Glover's at ``t / stretch``, over ``stretch``, so that its integral stays 1.

    Returns
    -------
    (T, n) float64
        The boxcar's convolution with the HRF: the HRF integrated from the end of the trial to its start.
    """
    since = times[:, None] - onsets
    return _glover_integral(since / stretch) - _glover_integral((since - durations) / stretch)


def _glover_integral(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integral of Glover's HRF from 0 to t, 1 at the end: gamma(6 / .9, .9) minus .48 times gamma(12 / .9, .9)."""
    scaled = np.maximum(t, 0) / 0.9
    return np.asarray((gammainc(6 / 0.9, scaled) - 0.48 * gammainc(12 / 0.9, scaled)) / 0.52)


def simulate_run(
    amplitudes: Floats,
    onsets: NDArray[np.float64],
    durations: NDArray[np.float64],
    n_volumes: int,
    tr: float,
    scene: Scene,
    noise: Noise,
    rng: np.random.Generator,
    *,
    start_time: float = 0.0,
) -> tuple[Floats, NDArray[np.float64]]:
    """One run.

    Parameters
    ----------
    amplitudes : (n, V) float32
        True response of each trial, in percent of the baseline.
    onsets, durations : (n,) float64, s
    n_volumes : int
    tr, start_time : float, s
        Volume k is taken at ``start_time + k * tr``.
    scene : Scene
    noise : Noise
    rng : numpy.random.Generator

    Returns
    -------
    bold : (T, V) float32
    motion : (T, 6) float64
        Translations (mm) and rotations (rad), in the order of `MOTION`.
    """
    times = start_time + tr * np.arange(n_volumes, dtype=np.float64)
    percent = _signal(amplitudes, onsets, durations, times, scene.stretch)
    motion = head_motion(n_volumes, rng)
    percent += _noise(n_volumes, scene, noise, _standardise(motion), rng)
    percent *= np.float32(0.01)
    percent += np.float32(1.0)
    percent *= scene.baseline
    return percent, motion


def head_motion(n_volumes: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(T, 6) a slow wander of the head with a few sudden shifts; mm and rad."""
    steps = rng.normal(0, 0.015, (n_volumes, 6))
    jumps = rng.random(n_volumes) < 0.01
    steps[jumps] += rng.normal(0, 0.25, (int(jumps.sum()), 6))
    path = np.cumsum(steps, axis=0)
    path -= path[0]
    return np.asarray(path * np.array([1, 1, 1, 0.02, 0.02, 0.02]))


def _signal(
    amplitudes: Floats, onsets: NDArray[np.float64], durations: NDArray[np.float64], times: NDArray[np.float64], stretch: Floats
) -> Floats:
    levels = np.linspace(stretch.min(), stretch.max(), N_STRETCHES) if np.ptp(stretch) else stretch[:1]
    nearest = np.abs(stretch[:, None] - levels).argmin(axis=1)
    out = np.zeros((len(times), len(stretch)), dtype=np.float32)
    driven = np.asarray(amplitudes).any(axis=0)
    for level, value in enumerate(levels):
        members = np.flatnonzero((nearest == level) & driven)
        out[:, members] = regressors(onsets, durations, times, float(value)).astype(np.float32) @ amplitudes[:, members]
    return out


def _noise(n: int, scene: Scene, noise: Noise, motion: NDArray[np.float64], rng: np.random.Generator) -> Floats:
    v, c = scene.spread.shape
    out = rng.standard_normal((n, v), dtype=np.float32)
    out *= np.float32(noise.white)
    sources = rng.standard_normal((c, n), dtype=np.float32) * np.float32(noise.smooth)
    out += (scene.spread @ sources).T
    _autocorrelate(out, scene.rho)
    courses = rng.standard_normal((n, len(scene.shared)), dtype=np.float32)
    _autocorrelate(courses, np.full(len(scene.shared), 0.7, dtype=np.float32))
    slow = np.linspace(-1, 1, n)
    phase = rng.uniform(0, 2 * np.pi)
    drifts = _standardise(np.stack([slow, slow**2, np.sin(3 * np.pi * slow + phase)], axis=1))
    times = np.hstack([noise.shared * courses, noise.drift * drifts, noise.motion * motion]).astype(np.float32)
    out += times @ np.vstack([scene.shared, scene.drift, scene.motion])
    return out


def _autocorrelate(white: Floats, rho: Floats) -> None:
    """White noise (T, V) -> AR(1) of the same variance, in place."""
    gain = np.sqrt(1 - rho**2)
    for t in range(1, len(white)):
        white[t] *= gain
        white[t] += rho * white[t - 1]


def _standardise(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = columns - columns.mean(axis=0)
    return np.asarray(centred / np.maximum(centred.std(axis=0), 1e-12))


def _spread(coordinates: Floats, hemisphere: NDArray[np.int64], sigma: float, rng: np.random.Generator) -> csr_array:
    """Gaussian weights from scattered sources to every vertex, about eight sources within one sigma of each."""
    blocks = []
    sources = np.sort(rng.choice(len(coordinates), size=len(coordinates) // 8, replace=False))
    for side in np.unique(hemisphere):
        here, there = np.flatnonzero(hemisphere == side), sources[hemisphere[sources] == side]
        trees = cKDTree(coordinates[here]), cKDTree(coordinates[there])
        pairs = trees[0].sparse_distance_matrix(trees[1], 2.2 * sigma, output_type="coo_matrix")
        weights = np.exp(-0.5 * (pairs.data / sigma) ** 2)
        blocks.append((here[pairs.row], np.searchsorted(sources, there[pairs.col]), weights))
    rows, columns, weights = (np.concatenate([block[i] for block in blocks]) for i in range(3))
    norm = np.sqrt(np.bincount(rows, weights**2, minlength=len(coordinates)))
    weights = (weights / norm[rows]).astype(np.float32)
    return csr_array((weights, (rows, columns)), shape=(len(coordinates), len(sources)))
