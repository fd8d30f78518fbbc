"""Regressors equal nilearn's; what cannot be fitted is named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nilearn.glm.first_level import compute_regressor
from nilearn.glm.first_level.design_matrix import create_cosine_drift

from bids_brainlm.core.design import cosine_drift, nuisance, trial_design


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


def test_trials_equal_nilearn_without_regular_frames():
    frames = np.cumsum(np.tile([1.0, 1.0, 2.5], 30))
    onsets, durations = np.array([3.0, 31.2]), np.array([1.0, 0.0])
    np.testing.assert_allclose(
        trial_design(onsets, durations, frames), reference(onsets, durations, frames, "glover"), atol=1e-12
    )


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
    with pytest.raises(ValueError, match="at least two that increase"):
        trial_design([1.0], [1.0], [0.0, 2.0, 2.0])


def test_a_run_without_trials_has_an_empty_design():
    assert trial_design([], [], 2.0 * np.arange(60)).shape == (60, 0)


@pytest.mark.parametrize(("n", "tr", "high_pass"), [(200, 2.0, 1 / 128), (187, 1.3, 0.01), (50, 0.72, 0.0), (31, 2.0, 0.2)])
def test_drifts_equal_nilearn_and_are_orthonormal(n, tr, high_pass):
    frames = 0.4 + tr * np.arange(n)
    drift = cosine_drift(frames, high_pass)
    np.testing.assert_allclose(drift, create_cosine_drift(high_pass, frames)[:, :-1], atol=1e-13)
    np.testing.assert_allclose(drift.T @ drift, np.eye(drift.shape[1]), atol=1e-12)
    np.testing.assert_allclose(drift.sum(axis=0), 0, atol=1e-10)


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
