"""Betas equal least squares, refitted the long way, and nilearn's."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from nilearn.glm.first_level import run_glm

from bids_brainlm.core import chunks, glm
from bids_brainlm.core.design import nuisance, trial_design
from bids_brainlm.core.glm import (
    lsa,
    lsa_weights,
    lss,
    lss_weights,
    percent_scale,
    percent_signal_change,
    refuse_non_finite,
    usable,
)
from bids_brainlm.registry import estimators

ESTIMATORS = ["lsa", "lss"]


@pytest.fixture(scope="module")
def run():
    """Trials 4-8 s apart, drifts and confounds, and a noisy series: (bold, trials, nuisance, betas)."""
    rng = np.random.default_rng(3)
    frames = 2.0 * np.arange(120) + 0.3
    onsets = 4 + np.cumsum(rng.uniform(4, 8, 30))
    trials = trial_design(onsets, np.full(30, 1.0), frames)
    others = nuisance(frames, 1 / 128, rng.standard_normal((120, 6)).cumsum(axis=0))
    betas = rng.standard_normal((30, 37)) + 1
    clean = trials @ betas + others @ rng.standard_normal((others.shape[1], 37)) * 3 + 100
    return (clean + rng.standard_normal(clean.shape)).astype(np.float32), trials, others, betas, clean


def lsa_by_pinv(trials, others):
    return np.linalg.pinv(np.column_stack([trials, others]))[: trials.shape[1]]


def lss_by_pinv(trials, others):
    """One model a trial, literally refitted."""
    rows = []
    for i in range(trials.shape[1]):
        rest = np.delete(trials, i, axis=1).sum(axis=1)
        rows.append(np.linalg.pinv(np.column_stack([trials[:, i], rest, others]))[0])
    return np.array(rows)


def rounding(bold, weights):
    """What a series in float32 is known to, as betas have it."""
    return 0.5 * np.finfo(np.float32).eps * np.linalg.norm(weights, axis=1).max() * np.linalg.norm(bold, axis=0).max()


ORACLES = {"lsa": lsa_by_pinv, "lss": lss_by_pinv}
WEIGHTS = {"lsa": lsa_weights, "lss": lss_weights}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("n", [1, 2, 3, 30])
def test_weights_equal_least_squares(run, name, n):
    _, trials, others, *_ = run
    np.testing.assert_allclose(WEIGHTS[name](trials[:, :n], others), ORACLES[name](trials[:, :n], others), atol=1e-10)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("with_nuisance", [True, False])
@pytest.mark.parametrize("offset", [0, 1000])
def test_betas_are_the_weighted_series_to_the_rounding_of_the_series(run, name, with_nuisance, offset):
    bold, trials, others, *_ = run
    others = others if with_nuisance else np.empty((len(trials), 0))
    bold = bold + np.float32(offset)
    betas = estimators.get(name)(bold, trials, others)
    weights = ORACLES[name](trials, others)
    assert betas.dtype == np.float32
    np.testing.assert_allclose(betas, weights @ bold.astype(np.float64), atol=rounding(bold, weights))


def test_lsa_equals_nilearn(run):
    bold, trials, others, *_ = run
    labels, results = run_glm(bold, np.column_stack([trials, others]), noise_model="ols")
    assert np.unique(labels).size == 1
    np.testing.assert_allclose(lsa(bold, trials, others), next(iter(results.values())).theta[:30], atol=1e-4)


def test_lss_equals_nilearn(run):
    bold, trials, others, *_ = run
    found = lss(bold, trials, others)
    for i in (0, 13, 29):
        design = np.column_stack([trials[:, i], trials.sum(axis=1) - trials[:, i], others])
        _, results = run_glm(bold, design, noise_model="ols")
        np.testing.assert_allclose(found[i], next(iter(results.values())).theta[0], atol=1e-4)


def test_lsa_recovers_betas_without_noise_exactly(run):
    _, trials, others, betas, clean = run
    weights = glm.lsa_weights(trials, others)
    np.testing.assert_allclose(weights @ clean, betas, atol=1e-9)
    np.testing.assert_allclose(lsa(clean.astype(np.float32), trials, others), betas, atol=1e-3)


def test_lss_recovers_betas_without_noise_exactly_where_its_model_is_true(run):
    # Its model says that the other trials are all alike.
    _, trials, others, *_ = run
    weights = lss_weights(trials, others)
    for i in (0, 7, 29):
        amplitudes = np.full(30, 0.7)
        amplitudes[i] = 2.5
        assert weights[i] @ (trials @ amplitudes + others @ np.arange(others.shape[1])) == pytest.approx(2.5, abs=1e-9)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_nuisance_leaves_no_trace_in_the_betas(run, name):
    bold, trials, others, *_ = run
    moved = bold + 50 * others @ np.random.default_rng(5).standard_normal((others.shape[1], bold.shape[1]))
    estimate, atol = estimators.get(name), rounding(moved, WEIGHTS[name](trials, others))
    assert atol < 0.02
    np.testing.assert_allclose(estimate(moved.astype(np.float32), trials, others), estimate(bold, trials, others), atol=atol)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_vertices_do_not_mix_and_chunks_do_not_show(run, name, monkeypatch):
    bold, trials, others, *_ = run
    estimate = estimators.get(name)
    whole = estimate(bold, trials, others)
    broken = bold.copy()
    broken[5, 3] = np.nan
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 5 * 4 * len(bold))
    found = estimate(broken, trials, others)
    assert np.isnan(found[:, 3]).all()
    np.testing.assert_allclose(np.delete(found, 3, axis=1), np.delete(whole, 3, axis=1), atol=1e-4)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_series_is_never_copied_whole(run, name):
    _, trials, others, *_ = run
    bold = np.zeros((120, 60_000), dtype=np.float32)
    tracemalloc.start()
    betas = estimators.get(name)(bold, trials, others)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < betas.nbytes + 3 * chunks.CHUNK_BYTES < 0.8 * bold.nbytes * 2


@pytest.mark.parametrize("name", ESTIMATORS)
def test_trials_that_are_the_same_event_are_named(run, name):
    bold, trials, others, *_ = run
    doubled = trials.copy()
    doubled[:, 11] = 2 * doubled[:, 4]
    with pytest.raises(ValueError, match=r"trial\(s\) 4, 11: the regressors are collinear with each other"):
        estimators.get(name)(bold, doubled, others)


def test_lsa_names_trials_that_others_add_up_to(run):
    bold, trials, others, *_ = run
    blended = trials.copy()
    blended[:, 11] = blended[:, 4] - blended[:, 7]
    with pytest.raises(ValueError, match=r"trial\(s\) 4, 7, 11: the regressors are collinear with each other"):
        lsa(bold, blended, others)
    np.testing.assert_allclose(lss_weights(blended, others), lss_by_pinv(blended, others), atol=1e-10)


def test_lss_names_trials_that_cannot_be_told_from_the_others(run):
    bold, trials, others, *_ = run
    opposite = np.column_stack([trials[:, 4], trials[:, 7], trials[:, 9] - trials[:, 7]])
    with pytest.raises(ValueError, match=r"trial\(s\) 0: the regressor is collinear with the sum"):
        lss(bold, np.column_stack([opposite.sum(axis=1), opposite]), others)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_trials_without_a_response_of_their_own_are_named(run, name):
    bold, trials, others, *_ = run
    estimate = estimators.get(name)
    changes = {"zero throughout": 0.0, "not finite": np.nan, "nuisance regressors explain": 2 * others[:, 1] + 3}
    for message, column in changes.items():
        faulty = trials.copy()
        faulty[:, 6] = column
        with pytest.raises(ValueError, match=rf"trial\(s\) 6: .*{message}"):
            estimate(bold, faulty, others)


def test_more_regressors_than_volumes_are_refused(run):
    bold, trials, others, *_ = run
    with pytest.raises(ValueError, match=f"30 trial and {others.shape[1]} nuisance regressors in one model, but only 35 volumes"):
        lsa(bold[:35], trials[:35], others[:35])
    with pytest.raises(ValueError, match="2 trial and 4 nuisance regressors in one model, but only 5 volumes"):
        lss(bold[-60:-55], trials[-60:-55, -14:-10], np.eye(5, 4) + 1)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_shapes_must_agree(run, name):
    bold, trials, others, *_ = run
    with pytest.raises(ValueError, match="119 volumes of data, but 120 in the design"):
        estimators.get(name)(bold[1:], trials, others)
    with pytest.raises(ValueError, match=r"expected \(T, n\) and \(T, q\)"):
        estimators.get(name)(bold, trials[1:], others)


def faulty_series():
    rng = np.random.default_rng(7)
    bold = (rng.standard_normal((50, 9)) * 20 + 1000).astype(np.float32)
    bold[:, 1] = 0
    bold[:, 2] = 731.7
    bold[4, 3] = np.nan
    bold[9, 4] = np.inf
    bold[:, 5] -= bold[:, 5].mean()
    bold[:, 6] *= -1
    bold[:, 8] = np.where(np.arange(50) % 2, np.float32(731.7), np.nextafter(np.float32(731.7), np.float32(1000)))
    return bold, np.array([True, False, False, False, False, False, True, True, False])


def test_usable_finds_planted_faults():
    bold, expected = faulty_series()
    np.testing.assert_array_equal(usable(bold), expected)
    np.testing.assert_array_equal(usable(bold.astype(np.float64), threads=2), expected)
    np.testing.assert_array_equal(usable(bold[:, expected].astype(np.int16)), True)


def test_percent_signal_change_is_relative_to_each_mean():
    bold, good = faulty_series()
    change = percent_signal_change(bold)
    assert change.dtype == np.float32
    assert (change[:, ~good] == 0).all()
    np.testing.assert_allclose(change[:, 0], 100 * (bold[:, 0] / bold[:, 0].mean(dtype=float) - 1), atol=1e-4)
    np.testing.assert_allclose(change.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(percent_signal_change(3 * bold)[:, good], change[:, good], atol=1e-4)
    # A negative mean does not turn activity upside down.
    assert np.corrcoef(change[:, 6], bold[:, 6])[0, 1] > 0.999


@pytest.mark.parametrize("noise_model", ["ols", "ar1"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_scaled_betas_are_those_of_percent_signal_change(run, name, noise_model):
    bold, trials, others, *_ = run
    bold = bold + np.float32(900)
    estimate = estimators.get(name)
    scaled = estimate(bold, trials, others, noise_model=noise_model) * percent_scale(bold)
    # Rho of a unit next to the edge of a bin may fall to either side.
    expected = estimate(percent_signal_change(bold), trials, others, noise_model=noise_model)
    same = np.isclose(scaled, expected, atol=1e-5).all(axis=0)
    assert same.mean() > (0.99 if noise_model == "ols" else 0.9)


def test_scale_is_missing_where_a_unit_is_not_usable():
    bold, good = faulty_series()
    np.testing.assert_array_equal(np.isfinite(percent_scale(bold)), good)
    np.testing.assert_allclose(percent_scale(bold)[good], 100 / np.abs(bold[:, good].mean(axis=0, dtype=float)))


@pytest.mark.parametrize("noise_model", ["ols", "ar1"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_run_of_nothing_but_zeros_has_no_usable_unit_and_no_response(run, name, noise_model):
    bold, trials, others, *_ = run
    nothing = np.zeros_like(bold)
    assert not usable(nothing).any()
    assert (estimators.get(name)(nothing, trials, others, noise_model=noise_model) == 0).all()
    assert estimators.get(name)(nothing[:, :0], trials, others, noise_model=noise_model).shape == (30, 0)


def test_the_first_value_that_is_not_finite_is_named():
    bold, _ = faulty_series()
    with pytest.raises(ValueError, match=r"volume 4 of unit 3 is nan; 2 unit\(s\) have values"):
        refuse_non_finite(bold)
    bold[4, 3] = 1
    with pytest.raises(ValueError, match=r"volume 9 of unit 4 is inf; 1 unit\(s\) have values"):
        refuse_non_finite(bold)
    bold[9, 4] = 1
    bold[:, [0, 7]] = np.nan
    refuse_non_finite(bold)
    assert not usable(bold)[[0, 7]].any()
    bold[:, 6] = -np.inf
    with pytest.raises(ValueError, match="volume 0 of unit 6 is -inf"):
        refuse_non_finite(bold)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_threads_do_not_show(run, name, monkeypatch):
    bold, trials, others, *_ = run
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 5 * 4 * len(bold))
    estimate = estimators.get(name)
    np.testing.assert_array_equal(estimate(bold, trials, others, threads=3), estimate(bold, trials, others))
