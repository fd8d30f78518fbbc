"""What every registered single-trial estimator of one run must do; those that are tuned over runs have their own tests."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainlm.core.design import nuisance, trial_design
from bids_brainlm.registry import estimators

NAMES = [name for name in estimators.names() if not hasattr(estimators.get(name), "tune")]
each = pytest.mark.parametrize("name", NAMES)
FRAMES = 2.0 * np.arange(90)
ONSETS = np.cumsum(np.random.default_rng(0).uniform(5, 10, 18))
TRIALS = trial_design(ONSETS, np.ones(18), FRAMES)
OTHERS = nuisance(FRAMES, 1 / 128, np.random.default_rng(1).standard_normal((90, 3)))


def series(seed: int = 0, n_vertices: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((90, n_vertices)).astype(np.float32)


def betas(name: str, bold: np.ndarray, trials: np.ndarray = TRIALS, others: np.ndarray = OTHERS) -> np.ndarray:
    return estimators.get(name)(bold, trials, others)


@each
def test_one_finite_beta_a_trial_and_vertex(name: str) -> None:
    found = betas(name, series())
    assert found.shape == (18, 9)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert betas(name, series()[:, :0]).shape == (18, 0)


@each
def test_it_is_linear_in_the_series(name: str) -> None:
    mixed = betas(name, 2.5 * series(0) - 0.5 * series(1))
    np.testing.assert_allclose(mixed, 2.5 * betas(name, series(0)) - 0.5 * betas(name, series(1)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(betas(name, 1000 * series()), 1000 * betas(name, series()), rtol=1e-4, atol=0.1)


@each
def test_betas_are_in_units_of_the_regressor(name: str) -> None:
    np.testing.assert_allclose(betas(name, series(), 4 * TRIALS), betas(name, series()) / 4, rtol=1e-4, atol=1e-5)


@each
def test_nuisance_leaves_no_trace(name: str) -> None:
    weights = np.random.default_rng(2).standard_normal((OTHERS.shape[1], 9)) * 5
    soiled = (series() + OTHERS @ weights).astype(np.float32)
    np.testing.assert_allclose(betas(name, soiled), betas(name, series()), atol=2e-3)
    # Nor does the way it is written down.
    turned = OTHERS @ np.linalg.qr(np.random.default_rng(3).standard_normal((OTHERS.shape[1],) * 2))[0]
    np.testing.assert_allclose(betas(name, series(), others=turned), betas(name, series()), atol=1e-4)


@each
def test_vertices_do_not_know_of_each_other(name: str) -> None:
    whole = betas(name, series())
    alone = np.concatenate([betas(name, series()[:, [v]]) for v in range(9)], axis=1)
    np.testing.assert_allclose(alone, whole, rtol=1e-5, atol=1e-5)
    soiled = series()
    soiled[:, 4] = np.nan
    np.testing.assert_allclose(np.delete(betas(name, soiled), 4, axis=1), np.delete(whole, 4, axis=1), rtol=1e-5, atol=1e-5)


@each
def test_the_order_of_trials_is_that_of_the_betas(name: str) -> None:
    order = np.random.default_rng(4).permutation(18)
    np.testing.assert_allclose(betas(name, series(), TRIALS[:, order]), betas(name, series())[order], rtol=1e-4, atol=1e-5)


@each
def test_a_trial_alone_gets_its_own_response(name: str) -> None:
    wanted = np.arange(1, 10, dtype=np.float64)
    bold = (TRIALS[:, [6]] * wanted + OTHERS @ np.ones((OTHERS.shape[1], 9))).astype(np.float32)
    np.testing.assert_allclose(betas(name, bold, TRIALS[:, [6]])[0], wanted, rtol=1e-4)


@each
def test_a_trial_without_response_is_refused_by_its_number(name: str) -> None:
    faulty = TRIALS.copy()
    faulty[:, 5] = 0
    with pytest.raises(ValueError, match=r"trial\(s\) 5"):
        betas(name, series(), faulty)
