"""The series hold what was put in: signal by independent convolution, noise by its declared moments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nilearn.glm.first_level import compute_regressor

from bids_brainlm.simulation.bold import Noise, Scene, noise_scene, regressors, simulate_run
from bids_brainlm.simulation.patches import volume

SILENT = Noise(white=0, smooth=0, shared=0, drift=0, motion=0)
ONSETS, DURATIONS = np.array([6.0, 11.3, 15.0, 21.7]), np.full(4, 2.0)
SHEET = volume((16, 18, 16), 8.0)


def scene(noise: Noise, variability: float = 0.0) -> Scene:
    return noise_scene(SHEET.coordinates, SHEET.hemisphere, noise, variability, np.random.default_rng(1))


def test_regressors_are_nilearns() -> None:
    times = 1.0 + 2.0 * np.arange(30)
    ours = regressors(ONSETS, DURATIONS, times)
    for i, (onset, duration) in enumerate(zip(ONSETS, DURATIONS, strict=True)):
        theirs = compute_regressor(np.array([[onset], [duration], [1.0]]), "glover", times)[0][:, 0]
        np.testing.assert_allclose(ours[:, i], theirs, atol=0.03 * theirs.max())


def test_integral_is_one_whatever_the_stretch() -> None:
    times = np.arange(0, 120, 0.05)
    for stretch in (0.7, 1.0, 1.4):
        course = regressors(np.array([5.0]), np.array([2.0]), times, stretch)[:, 0]
        assert course.sum() * 0.05 == pytest.approx(2.0, rel=1e-3)
    early, late = (regressors(np.array([0.0]), np.array([0.1]), times, stretch)[:, 0].argmax() for stretch in (1.0, 1.4))
    assert late == pytest.approx(1.4 * early, rel=0.02)


@pytest.mark.parametrize("variability", [0.0, 0.1])
def test_without_noise_least_squares_gives_the_truth(variability: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 3, (4, SHEET.n_vertices)).astype(np.float32)
    place = scene(SILENT, variability)
    bold, _ = simulate_run(truth, ONSETS, DURATIONS, 25, 2.0, place, SILENT, rng)
    percent = (bold.astype(np.float64) / place.baseline - 1) * 100
    estimate = np.linalg.lstsq(regressors(ONSETS, DURATIONS, 2.0 * np.arange(25)), percent, rcond=None)[0]
    error = np.abs(estimate - truth).max()
    # With a stretched HRF the canonical design is wrong, by more than rounding.
    assert error < 1e-2 if variability == 0 else error > 0.05


def test_amplitude_changes_the_signal_alone() -> None:
    noise, place = Noise(), scene(Noise())
    truth = np.ones((4, SHEET.n_vertices), np.float32)
    runs = [
        simulate_run(gain * truth, ONSETS, DURATIONS, 25, 2.0, place, noise, np.random.default_rng(7))[0].astype(np.float64)
        for gain in (0, 1, 2)
    ]
    np.testing.assert_allclose(runs[2] - runs[0], 2 * (runs[1] - runs[0]), atol=0.01)
    assert (runs[1] - runs[0]).max() > 10


def test_parts_of_the_noise_have_their_declared_size() -> None:
    for part in ("white", "smooth", "shared", "drift", "motion"):
        noise = replace(SILENT, **{part: 0.8})
        place = scene(noise)
        silence = np.zeros((1, SHEET.n_vertices), np.float32)
        bold, _ = simulate_run(silence, np.zeros(1), np.ones(1), 400, 2.0, place, noise, np.random.default_rng(3))
        percent = (bold / place.baseline - 1) * 100
        assert np.sqrt((percent**2).mean()) == pytest.approx(0.8, rel=0.2), part


def test_white_noise_is_autocorrelated_by_rho() -> None:
    noise = replace(SILENT, white=1.0)
    place = scene(noise)
    silence = np.zeros((1, SHEET.n_vertices), np.float32)
    bold, _ = simulate_run(silence, np.zeros(1), np.ones(1), 2000, 2.0, place, noise, np.random.default_rng(3))
    series = bold / place.baseline - 1
    lagged = (series[1:] * series[:-1]).mean(axis=0) / (series**2).mean(axis=0)
    assert 0.1 <= place.rho.min() < place.rho.max() <= 0.5
    np.testing.assert_allclose(lagged, place.rho, atol=0.12)


def test_smooth_noise_is_shared_with_neighbours_only() -> None:
    noise = replace(SILENT, smooth=1.0)
    place = scene(noise)
    silence = np.zeros((1, SHEET.n_vertices), np.float32)
    bold, _ = simulate_run(silence, np.zeros(1), np.ones(1), 500, 2.0, place, noise, np.random.default_rng(3))
    middle = np.argmin(np.abs(SHEET.coordinates - [-30, 0, 0]).sum(axis=1))
    correlation = np.corrcoef((bold / place.baseline).T[[middle]], (bold / place.baseline).T)[0, 1:]
    apart = np.linalg.norm(SHEET.coordinates - SHEET.coordinates[middle], axis=1)
    assert correlation[(apart > 0) & (apart < 9)].mean() > 0.5
    assert abs(correlation[apart > 60].mean()) < 0.05
    assert np.abs(correlation[SHEET.hemisphere == 1]).max() < 0.25


def test_motion_explains_its_part() -> None:
    noise = replace(SILENT, motion=1.0)
    place = scene(noise)
    silence = np.zeros((1, SHEET.n_vertices), np.float32)
    bold, motion = simulate_run(silence, np.zeros(1), np.ones(1), 200, 2.0, place, noise, np.random.default_rng(3))
    design = np.column_stack([np.ones(200), motion])
    series = bold.astype(np.float64)
    residual = series - design @ np.linalg.lstsq(design, series, rcond=None)[0]
    assert residual.std() < 0.01 * series.std(axis=0).mean()
    assert np.abs(motion[:, :3]).max() < 5
    assert not motion[0].any()
