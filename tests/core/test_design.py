"""Regressors equal nilearn's; what cannot be fitted is named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nilearn.glm.first_level import compute_regressor
from nilearn.glm.first_level.design_matrix import create_cosine_drift
from scipy.signal import fftconvolve

from bids_brainlm.core.design import cosine_drift, nuisance, trial_design, trial_designs
from bids_brainlm.core.hrf import HRFS


def reference(onsets, durations, frames, hrf):
    columns = [
        compute_regressor(np.array([[on], [dur], [1.0]]), hrf, frames)[0] for on, dur in zip(onsets, durations, strict=True)
    ]
    return np.column_stack(columns)


@pytest.mark.parametrize("hrf", ["glover", "spm"])
@pytest.mark.parametrize(("tr", "start"), [(2.0, 0.0), (1.3, 0.65), (0.72, 0.31), (2.0, 9.0)])
def test_trials_equal_nilearn(tr, start, hrf):
    frames = start + tr * np.arange(90)
    rng = np.random.default_rng(0)
    onsets = np.sort(rng.uniform(start - 10, frames[-1] - 6, 25))
    durations = rng.choice([0.0, 0.3, 1.0, 4.0, 20.0], 25)
    np.testing.assert_allclose(
        trial_design(onsets, durations, frames, hrf), reference(onsets, durations, frames, hrf), atol=1e-12
    )


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 3), st.floats(0, 2), st.lists(st.tuples(st.floats(-20, 60), st.floats(0, 30)), min_size=1, max_size=4))
def test_trials_equal_nilearn_anywhere(tr, start, events):
    frames = start + tr * np.arange(60 if tr > 1.2 else 160)
    onsets, durations = (np.array(column) for column in zip(*events, strict=True))
    expected = reference(onsets, durations, frames, "glover")
    try:
        found = trial_design(onsets, durations, frames)
    except ValueError:  # only where a trial has next to no response in the run, which the next test holds it to
        assert np.abs(expected).max(axis=0).min() < 1e-3
        return
    np.testing.assert_allclose(found, expected, atol=1e-12)


def convolved(onsets, durations, frames, samples, fine=0.005):
    """Boxcars convolved on a grid of 5 ms with a response of area 1, read off at the frames; the oracle of everything uneven."""
    times = np.arange(frames[0] - 40, frames[-1] + 2, fine)
    boxcars = (times[:, None] >= onsets) & (times[:, None] < onsets + durations)
    columns = fftconvolve(boxcars.astype(float), (samples / samples.sum())[:, None], axes=0)[: times.size]
    return np.column_stack([np.interp(frames, times, column) for column in columns.T])


SPARSE = {
    "bursts of three": np.cumsum(np.tile([1.0, 1.0, 9.5], 20)),
    "a pause between two halves": np.concatenate([2.0 * np.arange(50), 160.3 + 2.0 * np.arange(50)]),
    "jittered": np.cumsum(np.random.default_rng(8).uniform(1.0, 6.0, 60)),
    "one volume every ten seconds": 10.0 * np.arange(30) + 1,
    "onsets before the first volume": 7.0 + 2.0 * np.arange(40),
}


@pytest.mark.parametrize("name", SPARSE)
def test_trials_equal_a_numerical_convolution(name):
    frames = SPARSE[name]
    rng = np.random.default_rng(4)
    onsets = np.sort(rng.choice(frames[:-2], 20, replace=False) - rng.uniform(0, 9, 20))
    durations = rng.choice([0.4, 1.0, 3.0, 12.0], 20)
    response = HRFS["glover"](np.arange(0, 32, 0.005))
    expected = convolved(onsets, durations, frames, response)
    # Rise and fall are each up to two steps of microtime late.
    step = 0.04 if name.startswith("onsets") else 0.06 if name.startswith("one") else 0.02
    found = trial_design(onsets, durations, frames)
    assert np.abs(found - expected).max() <= 2 * 2 * step * response.max() / 0.005
    for a, b in zip(found.T, expected.T, strict=True):
        assert np.corrcoef(a, b)[0, 1] > 0.999


def test_volumes_far_apart_are_divided_more_finely():
    frames, onsets, durations = 10.0 * np.arange(30), np.array([3.1, 44.7]), np.array([1.0, 0.3])
    columns = [
        compute_regressor(np.array([[on], [dur], [1.0]]), "glover", frames, oversampling=167)[0]
        for on, dur in zip(onsets, durations, strict=True)
    ]
    np.testing.assert_allclose(trial_design(onsets, durations, frames), np.column_stack(columns), atol=1e-12)


@pytest.mark.parametrize("frames", [1.5 * np.arange(80), SPARSE["bursts of three"]])
def test_a_sampled_response_is_taken_like_one_with_a_name(frames):
    onsets, durations = np.array([3.0, 31.2, 33.9, 70.0]), np.array([1.0, 0.5, 4.0, 2.0])
    samples = HRFS["spm"](np.arange(0, 32.01, 0.02))
    expected = trial_design(onsets, durations, frames, "spm")
    np.testing.assert_allclose(trial_design(onsets, durations, frames, samples, step=0.02), expected, atol=1e-3)
    # Its scale does not matter, its step does.
    np.testing.assert_allclose(trial_design(onsets, durations, frames, 7 * samples, step=0.02), expected, atol=1e-3)
    assert np.abs(trial_design(onsets, durations, frames, samples, step=0.03) - expected).max() > 0.02


def test_designs_of_many_responses_are_those_of_each():
    rng = np.random.default_rng(0)
    onsets, durations = np.sort(rng.uniform(-5, 150, 20)), rng.uniform(0.3, 6, 20)
    for frames in (0.3 + 2.0 * np.arange(90), SPARSE["jittered"]):
        times = np.arange(0, 32, 0.1)
        kernels = np.array([times**peak * np.exp(-times) for peak in (3, 5, 8)])
        designs = trial_designs(onsets, durations, frames, kernels, 0.1)
        assert designs.shape == (3, len(frames), 20)
        for design, samples in zip(designs, kernels, strict=True):
            np.testing.assert_array_equal(design, trial_design(onsets, durations, frames, samples, step=0.1))
            exact = convolved(onsets, durations, frames, np.interp(np.arange(0, 32, 0.005), times, samples))
            np.testing.assert_allclose(design, exact, atol=0.03)


def test_faulty_responses_are_named():
    onsets, durations, frames = [10.0, 50.0], [1.0, 1.0], 2.0 * np.arange(60)
    good = HRFS["glover"](np.arange(0, 32, 0.1))
    with pytest.raises(ValueError, match=r"response\(s\) 1: value\(s\) that are not finite"):
        trial_designs(onsets, durations, frames, [good, np.where(good > 0.01, np.nan, good)])
    with pytest.raises(ValueError, match=r"response\(s\) 0, 2: the area is not positive"):
        trial_designs(onsets, durations, frames, [-good, good, 0 * good])
    with pytest.raises(ValueError, match=r"responses of shape \(1, 320\) every 0 s"):
        trial_design(onsets, durations, frames, good, step=0)
    slow = np.exp(-0.5 * ((np.arange(0, 32, 0.1) - 12) / 2) ** 2)
    late = trial_designs([10.0, 116.0], durations, frames, [good, slow])
    assert late[0].any(axis=0).all()
    assert late[1, :, 0].any()
    assert not late[1, :, 1].any()  # under the slow response the last trial leaves nothing
    with pytest.raises(ValueError, match=r"trial\(s\) 1: response lies outside the run"):
        trial_designs([10.0, 116.0], durations, frames, [slow])


def test_two_trials_within_one_volume_are_told_apart():
    frames = 3.0 * np.arange(60)
    onsets = np.sort(np.concatenate([np.arange(6, 150, 9.0), np.arange(6, 150, 9.0) + 1.4]))
    trials = trial_design(onsets, np.full(onsets.size, 0.5), frames)
    betas = np.random.default_rng(0).standard_normal((onsets.size, 4))
    bold = trials @ betas + 100
    found = np.linalg.lstsq(np.column_stack([trials, np.ones(60)]), bold, rcond=None)[0][:-1]
    assert np.linalg.cond(trials) < 1e3
    np.testing.assert_allclose(found, betas, atol=1e-9)


def test_shifting_frames_and_onsets_together_changes_nothing():
    frames, onsets = 2.0 * np.arange(80), np.array([4.0, 40.0, 91.0])
    first = trial_design(onsets, np.ones(3), frames)
    # Up to one microtime step, where the grid falls differently (2 % of the peak).
    np.testing.assert_allclose(trial_design(onsets + 100, np.ones(3), frames + 100), first, atol=6e-3)


def test_a_late_start_time_shifts_the_response_back():
    onset, duration = np.array([20.0]), np.array([1.0])
    early = trial_design(onset, duration, 2.0 * np.arange(60))
    late = trial_design(onset, duration, 2.0 * np.arange(60) + 1.0)
    # Frames a second later see the response a second further on: larger while it rises.
    assert late[11, 0] > early[11, 0]


@pytest.mark.parametrize("onset", [119.0, 119.9, 500.0])
def test_a_trial_without_response_in_the_run_is_named(onset):
    with pytest.raises(ValueError, match=r"trial\(s\) 1: response lies outside the run \(volumes from 0 to 118 s\)"):
        trial_design(np.array([10.0, onset, 30.0]), np.zeros(3), 2.0 * np.arange(60))


@pytest.mark.parametrize(
    ("onsets", "durations", "message"),
    [
        ([1, np.nan], [1, 1], r"trial\(s\) 1: onset or duration is not a number"),
        ([1, 9], [-1, 1], r"trial\(s\) 0: duration is negative"),
        ([-60, 9], [1, 1], r"trial\(s\) 0: onset is more than 24 s before the first volume"),
        ([1, 9], [1], r"expected \(n,\) both"),
    ],
)
def test_faulty_events_are_named(onsets, durations, message):
    with pytest.raises(ValueError, match=message):
        trial_design(onsets, durations, 2.0 * np.arange(60))


def test_frames_must_increase():
    for frames in ([0.0, 2.0, 2.0], [0.0, 2.0, np.nan], [0.0, 2.0, np.inf]):
        with pytest.raises(ValueError, match="at least two that increase"):
            trial_design([1.0], [1.0], frames)


def test_a_run_without_trials_has_an_empty_design():
    assert trial_design([], [], 2.0 * np.arange(60)).shape == (60, 0)


@pytest.mark.parametrize(("n", "tr", "high_pass"), [(200, 2.0, 1 / 128), (187, 1.3, 0.01), (50, 0.72, 0.0), (31, 2.0, 0.2)])
def test_drifts_equal_nilearn_and_are_orthonormal(n, tr, high_pass):
    frames = 0.4 + tr * np.arange(n)
    drift = cosine_drift(frames, high_pass)
    np.testing.assert_allclose(drift, create_cosine_drift(high_pass, frames)[:, :-1], atol=1e-13)
    np.testing.assert_allclose(drift.T @ drift, np.eye(drift.shape[1]), atol=1e-12)
    np.testing.assert_allclose(drift.sum(axis=0), 0, atol=1e-10)


def test_drifts_follow_the_clock_where_volumes_are_unevenly_spaced():
    even = 2.0 * np.arange(100)
    taken = np.sort(np.random.default_rng(0).permutation(100)[:70])
    taken[[0, -1]] = 0, 99
    drift, full = cosine_drift(even[taken], 1 / 64), cosine_drift(even, 1 / 64)
    assert drift.shape[1] == full.shape[1] == 6
    # The cosines of all volumes, read off where volumes are; a few per cent because their period goes with the mean interval.
    for column in range(3):
        assert np.corrcoef(drift[:, column], full[taken, column])[0, 1] > 0.995
    np.testing.assert_allclose((drift**2).sum(axis=0), 1, atol=0.2)


def test_drifts_that_volumes_cannot_tell_apart_are_named():
    with pytest.raises(ValueError, match=r"drift\(s\) .*: cannot be told apart"):
        nuisance(np.concatenate([0.001 * np.arange(40), 1000 + 0.001 * np.arange(3)]), 0.02, np.empty((43, 0)))


def test_nuisance_spans_drift_confounds_and_constant():
    frames, rng = 2.0 * np.arange(100), np.random.default_rng(1)
    confounds = rng.standard_normal((100, 6))
    matrix = nuisance(frames, 1 / 128, confounds)
    parts = np.column_stack([cosine_drift(frames, 1 / 128), confounds, np.ones(100)])
    np.testing.assert_array_equal(matrix, parts)
    assert nuisance(frames, 0, np.empty((100, 0))).shape == (100, 1)


def test_confounds_that_add_nothing_are_named():
    frames, rng = 2.0 * np.arange(100), np.random.default_rng(1)
    confounds = rng.standard_normal((100, 5))
    confounds[:, 1] = 0
    confounds[:, 3] = cosine_drift(frames, 1 / 128)[:, 0] * 1e-5 + 7
    confounds[:, 4] = 1e6 * confounds[:, 0] + confounds[:, 2]
    with pytest.raises(ValueError, match=r"confound column\(s\) 1, 3, 4: is explained"):
        nuisance(frames, 1 / 128, confounds)
    confounds[0, 2] = np.nan
    with pytest.raises(ValueError, match=r"confound column\(s\) 2: value\(s\) that are not finite"):
        nuisance(frames, 1 / 128, confounds)


def test_small_but_honest_confounds_are_kept():
    rotations = np.random.default_rng(2).standard_normal((100, 3)) * 1e-7
    assert nuisance(2.0 * np.arange(100), 1 / 128, rotations).shape[1] == 4 + cosine_drift(2.0 * np.arange(100), 1 / 128).shape[1]
