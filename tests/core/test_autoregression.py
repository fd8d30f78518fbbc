"""AR(1): rho and betas equal nilearn's, whitening makes noise white."""

from __future__ import annotations

import numpy as np
import pytest
from nilearn.glm import ARModel
from nilearn.glm.first_level import run_glm

from bids_brainlm.core import chunks
from bids_brainlm.core.autoregression import autocorrelation, binned, for_series, whitened
from bids_brainlm.core.design import nuisance, trial_design
from bids_brainlm.core.glm import lsa, lss, orthonormal
from bids_brainlm.registry import estimators

ESTIMATORS = ["lsa", "lss"]


def noise(rng, n, rho):
    """(n, V) AR(1) of unit innovations, from a long start."""
    series = np.zeros((n + 50, rho.size))
    for t in range(1, n + 50):
        series[t] = rho * series[t - 1] + rng.standard_normal(rho.size)
    return series[50:]


@pytest.fixture(scope="module")
def run():
    """150 volumes, 25 trials, 60 units with rho from -.4 to .8: (bold, trials, nuisance, rho)."""
    rng = np.random.default_rng(4)
    frames = 2.0 * np.arange(150)
    trials = trial_design(4 + np.cumsum(rng.uniform(5, 14, 25)), np.full(25, 1.0), frames)
    others = nuisance(frames, 1 / 128, rng.standard_normal((150, 3)))
    rho = np.linspace(-0.4, 0.8, 60)
    bold = 500 + trials @ rng.standard_normal((25, 60)) * 4 + others @ rng.standard_normal((others.shape[1], 60)) * 3
    return (bold + noise(rng, 150, rho)).astype(np.float32), trials, others, rho


@pytest.fixture(scope="module")
def reference(run):
    """nilearn's rho (V,) of each unit and betas (n, V) of the model with all trials."""
    bold, trials, others, _ = run
    labels, results = run_glm(bold.astype(np.float64), np.column_stack([trials, others]), noise_model="ar1", bins=100)
    betas = np.empty((trials.shape[1], bold.shape[1]))
    for label, result in results.items():
        betas[:, labels == label] = result.theta[: trials.shape[1]]
    return labels.astype(float), betas


def test_rho_equals_nilearn(run, reference):
    bold, trials, others, _ = run
    values, which = binned(autocorrelation(bold, orthonormal(np.column_stack([trials, others]))))
    assert len(values) > 20
    np.testing.assert_array_equal(values[which], reference[0])


def test_lsa_equals_nilearn(run, reference):
    bold, trials, others, _ = run
    found = lsa(bold, trials, others, noise_model="ar1")
    np.testing.assert_allclose(found, reference[1], atol=1e-4)
    # Had it been ignored, this would show.
    assert np.abs(found - lsa(bold, trials, others)).max() > 0.05


def test_lss_equals_a_loop_of_nilearn_fits_with_the_rho_of_the_model_of_all_trials(run, reference):
    bold, trials, others, _ = run
    found = lss(bold, trials, others, noise_model="ar1")
    for i in (0, 11, 24):
        design = np.column_stack([trials[:, i], np.delete(trials, i, axis=1).sum(axis=1), others])
        for rho in np.unique(reference[0]):
            units = reference[0] == rho
            expected = ARModel(design, rho).fit(bold[:, units].astype(np.float64)).theta[0]
            np.testing.assert_allclose(found[i, units], expected, atol=1e-4)


def test_rho_is_found_where_there_are_few_regressors():
    rho = np.array([-0.3, 0.0, 0.4, 0.8])
    bold = noise(np.random.default_rng(0), 4000, rho) + 1000
    found = autocorrelation(bold.astype(np.float32), np.full((4000, 1), 4000**-0.5))
    np.testing.assert_allclose(found, rho, atol=0.05)


def test_rho_of_a_model_without_a_constant_counts_what_the_mean_leaves():
    rng = np.random.default_rng(1)
    bold = (noise(rng, 80, np.array([0.1, 0.5])) + 3).astype(np.float32)
    model = orthonormal(rng.standard_normal((80, 4)))
    left = bold - model @ (model.T @ bold)
    expected = (80 / 79) * (left[1:] * left[:-1]).sum(axis=0) / (left**2).sum(axis=0)
    np.testing.assert_allclose(autocorrelation(bold, model), expected, atol=1e-5)


def test_whitened_noise_is_white():
    series = noise(np.random.default_rng(2), 5000, np.array([0.6]))
    white = whitened(series, 0.6)
    assert np.corrcoef(series[1:, 0], series[:-1, 0])[0, 1] > 0.55
    assert abs(np.corrcoef(white[1:, 0], white[:-1, 0])[0, 1]) < 0.05


def test_weights_of_the_series_are_those_of_the_whitened_series():
    rng = np.random.default_rng(3)
    weights, series = rng.standard_normal((5, 30)), rng.standard_normal((30, 4))
    np.testing.assert_allclose(for_series(weights, 0.37) @ series, weights @ whitened(series, 0.37), atol=1e-12)


def test_rho_is_cut_towards_zero():
    values, which = binned(np.array([0.239, -0.239, 0.231, np.nan, -0.004, 0.004]))
    np.testing.assert_allclose(values, [-0.23, 0, 0.23])
    np.testing.assert_array_equal(which, [2, 0, 2, -1, 1, 1])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_units_do_not_mix_and_neither_threads_nor_chunks_show(run, name, monkeypatch):
    bold, trials, others, _ = run
    whole = estimators.get(name)(bold, trials, others, noise_model="ar1")
    faulty = bold.copy()
    faulty[:, 7] = np.nan
    faulty[3, 8] = np.nan
    faulty[:, 9] = 400
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 7 * 4 * len(bold))
    found = estimators.get(name)(faulty, trials, others, noise_model="ar1", threads=2)
    assert np.isnan(found[:, [7, 8]]).all()
    np.testing.assert_allclose(found[:, 9], 0, atol=1e-9)
    np.testing.assert_allclose(np.delete(found, [7, 8, 9], axis=1), np.delete(whole, [7, 8, 9], axis=1), atol=1e-4)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_too_few_volumes_for_rho_are_refused(run, name):
    bold, trials, others, _ = run
    message = r"34 volumes and 3\d regressors in the model of all trials leave too little"
    with pytest.raises(ValueError, match=message):
        estimators.get(name)(bold[:34], trials[:34, :4], np.column_stack([others[:34], np.eye(34)[:, :20]]), noise_model="ar1")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_unknown_noise_model_is_refused(run, name):
    bold, trials, others, _ = run
    with pytest.raises(ValueError, match="noise model 'ar2'; expected one of ols, ar1"):
        estimators.get(name)(bold, trials, others, noise_model="ar2")
