"""Leverage and VIF equal their definitions, written out; motion is counted in the window that is said."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainlm.core.design import nuisance, trial_design
from bids_brainlm.core.diagnostics import motion_in_window, trial_diagnostics


@pytest.fixture(scope="module")
def design():
    rng = np.random.default_rng(3)
    frames = 2.0 * np.arange(100)
    onsets = 4 + np.cumsum(rng.uniform(1, 12, 24))
    return trial_design(onsets, np.ones(24), frames), nuisance(frames, 1 / 128, rng.standard_normal((100, 4)))


def share_explained(column, others):
    """R2 about the mean, by least squares."""
    left = column - others @ np.linalg.lstsq(others, column, rcond=None)[0]
    return 1 - (left @ left) / ((column - column.mean()) @ (column - column.mean()))


def test_vif_is_one_over_what_the_others_leave(design):
    trials, others = design
    found = trial_diagnostics(trials, others).vif
    expected = [
        1 / (1 - share_explained(trials[:, i], np.column_stack([np.delete(trials, i, axis=1), others]))) for i in range(24)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    # Trials 1 s apart inflate, so this is no test of ones.
    assert found.max() > 3 > 1.5 > found.min() >= 1


def test_vif_is_how_much_larger_the_variance_of_the_beta_is(design):
    trials, others = design
    variance = np.diag(np.linalg.inv(np.column_stack([trials, others]).T @ np.column_stack([trials, others])))[:24]
    alone = 1 / ((trials - trials.mean(axis=0)) ** 2).sum(axis=0)
    np.testing.assert_allclose(trial_diagnostics(trials, others).vif, variance / alone, rtol=1e-8)


def test_leverage_is_the_weighted_diagonal_of_the_hat_matrix(design):
    trials, others = design
    model = np.column_stack([trials, others])
    hat = np.diag(model @ np.linalg.pinv(model))
    expected = [(trials[:, i] ** 2 * hat).sum() / (trials[:, i] ** 2).sum() for i in range(24)]
    np.testing.assert_allclose(trial_diagnostics(trials, others).leverage, expected, rtol=1e-8)


def test_regressors_that_do_not_overlap():
    # Ten volumes a trial, no nuisance: each volume has a tenth of a say in its fit, and nothing inflates.
    found = trial_diagnostics(np.kron(np.eye(4), np.ones((10, 1))), np.empty((40, 0)))
    np.testing.assert_allclose(found.leverage, 0.1)
    np.testing.assert_allclose(found.vif, 1)


def test_a_model_with_as_many_regressors_as_volumes_follows_everything(design):
    trials, _ = design
    found = trial_diagnostics(trials, np.eye(100)[:, :90])
    np.testing.assert_allclose(found.leverage, 1)
    assert (found.vif > 1e8).all()


def test_trials_that_cannot_be_told_apart_inflate_without_bound(design):
    trials, others = design
    doubled = trials.copy()
    doubled[:, 11] = 2 * doubled[:, 4]
    doubled[:, 20] = others[:, 1] + 3
    doubled[:, 22] = 0
    found = trial_diagnostics(doubled, others)
    assert np.flatnonzero(np.isinf(found.vif)).tolist() == [4, 11, 20]
    assert np.flatnonzero(np.isnan(found.vif)).tolist() == np.flatnonzero(np.isnan(found.leverage)).tolist() == [22]
    good = np.delete(np.arange(24), [4, 11, 20, 22])
    rest = np.column_stack([np.delete(doubled, [11, 20, 22, 1], axis=1), others])
    assert found.vif[1] == pytest.approx(1 / (1 - share_explained(doubled[:, 1], rest)))
    assert np.isfinite(found.vif[good]).all()


def test_one_trial(design):
    trials, others = design
    found = trial_diagnostics(trials[:, [3]], others)
    np.testing.assert_allclose(found.vif, 1 / (1 - share_explained(trials[:, 3], others)))


def test_motion_is_that_of_the_volumes_from_two_seconds_after_onset_to_ten_after_offset():
    frames, onsets, durations = 2.0 * np.arange(50) + 1, np.array([0.0, 21.5, 95.0, 120.0]), np.array([1.0, 4.0, 0.0, 1.0])
    rng = np.random.default_rng(0)
    displacement, outlier = rng.uniform(0, 1, 50), rng.uniform(size=50) < 0.3
    displacement[[0, 13]] = np.nan
    mean, share = motion_in_window(onsets, durations, frames, displacement, outlier)
    for i in range(3):
        inside = [v for v in range(50) if onsets[i] + 2 <= frames[v] <= onsets[i] + durations[i] + 10]
        assert len(inside) >= 1
        assert mean[i] == pytest.approx(np.nanmean(displacement[inside]))
        assert share[i] == pytest.approx(outlier[inside].mean())
    assert np.isnan([mean[3], share[3]]).all()


def test_motion_that_is_not_known_is_nan():
    frames = 2.0 * np.arange(50)
    mean, share = motion_in_window([10.0], [1.0], frames, np.full(50, np.nan), np.zeros(50))
    assert np.isnan(mean).all()
    assert share == 0
