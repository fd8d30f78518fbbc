"""Choices that runs make together: shapes, components, fractions; and the betas that follow from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bids_brainlm.core import repeats, ridge
from bids_brainlm.core.blocks import Model, group
from bids_brainlm.core.design import nuisance, trial_design, trial_designs
from bids_brainlm.core.glm import lsa
from bids_brainlm.core.hrf import FORMS, LENGTH, PEAKS, library
from bids_brainlm.core.noise import components, fewest, noise_pool, with_each_number
from bids_brainlm.core.tuned import Tuned
from bids_brainlm.core.tuning import STEPS, Options, Run
from bids_brainlm.registry import estimators

TR, N_VOLUMES, N_TRIALS, N_STIMULI = 2.0, 120, 24, 24
FRAMES = TR * np.arange(N_VOLUMES)


def session(
    n_runs: int = 4,
    n_units: int = 160,
    noise: float = 1.0,
    shared: float = 0.0,
    mean: float = 1.0,
    seed: int = 0,
    shape: int = -1,
):
    """Runs, true betas (N, V) in percent, and the shape of each unit; every stimulus once a run, in random order."""
    rng = np.random.default_rng(seed)
    shapes = library()
    chosen = rng.integers(0, len(shapes), n_units) if shape < 0 else np.full(n_units, shape)
    pattern = mean + rng.standard_normal((N_STIMULI, n_units))
    # The second half of the units does not respond.
    pattern[:, n_units // 2 :] = 0.0
    runs, truth = [], []
    for _ in range(n_runs):
        order = rng.permutation(N_STIMULI)
        onsets = 6.0 + 8.7 * np.arange(N_TRIALS) + rng.uniform(0, 1.5, N_TRIALS)
        designs = trial_designs(onsets, np.full(N_TRIALS, 2.0), FRAMES, shapes)
        bold = np.stack([designs[h] @ pattern[order, v] for v, h in enumerate(chosen)], axis=1)
        courses = np.cumsum(rng.standard_normal((N_VOLUMES, 2)), axis=0)
        courses = (courses - courses.mean(axis=0)) / courses.std(axis=0)
        bold += shared * courses @ rng.standard_normal((2, n_units)) + noise * 0.1 * rng.standard_normal(bold.shape)
        base = rng.uniform(500, 1500, n_units)
        # Percent of the mean of the whole series, so that betas are exact.
        series = base * (1 + 0.01 * (bold - bold.mean(axis=0)))
        empty = np.zeros((N_VOLUMES, 0))
        names = np.array([f"s{i}" for i in order])
        runs.append(
            Run(series.astype(np.float32), onsets, np.full(N_TRIALS, 2.0), FRAMES, nuisance(FRAMES, 1 / 128, empty), names, "1")
        )
        truth.append(pattern[order])
    return runs, np.concatenate(truth), chosen


def betas_of(estimator, runs, options=Options()):  # noqa: B008
    tuning = estimator.tune(runs, options)
    return tuning, np.concatenate([estimator.estimate(run, tuning, i, options) for i, run in enumerate(runs)])


def correlation(left, right):
    left, right = left - left.mean(axis=0), right - right.mean(axis=0)
    return (left * right).sum(axis=0) / np.sqrt((left**2).sum(axis=0) * (right**2).sum(axis=0))


def test_the_library_is_what_it_says():
    times = np.arange(round(LENGTH / 0.1)) * 0.1
    shapes = library()
    assert shapes.shape == (len(PEAKS) * len(FORMS), times.size)
    np.testing.assert_allclose(shapes.sum(axis=1), 1.0)
    np.testing.assert_allclose(times[shapes.argmax(axis=1)], np.repeat(PEAKS, len(FORMS)), atol=0.31)
    half = (shapes > shapes.max(axis=1, keepdims=True) / 2).sum(axis=1).reshape(-1, len(FORMS))
    assert (np.diff(half, axis=1) > 0).all()


@pytest.mark.parametrize("choice", ["both", "cv", "insample"])
def test_shapes_and_betas_are_recovered_without_noise(choice):
    runs, truth, chosen = session(noise=0.0)
    tuning, betas = betas_of(estimators.get("hrf"), runs, Options(hrf_choice=choice))
    half = truth.shape[1] // 2
    np.testing.assert_array_equal(tuning.hrf[:half], chosen[:half])
    np.testing.assert_allclose(betas[:, :half], truth[:, :half], atol=2e-3)


def test_on_off_needs_a_mean_response_and_repeats_do_not():
    """Where responses average to zero, only the comparison of repeats finds the shape."""
    runs, _, chosen = session(mean=0.0, noise=0.3, n_units=240)
    right = {}
    for choice in ("onoff", "cv", "both"):
        tuning = estimators.get("hrf").tune(runs, Options(hrf_choice=choice))
        right[choice] = (tuning.hrf[:120] == chosen[:120]).mean()
    assert right["onoff"] < 0.5 < 0.9 < min(right["cv"], right["both"])


def test_one_shape_and_no_repeats_is_lsa():
    runs, *_ = session()
    single = [replace(run, stimulus=np.array([f"r{i}-{k}" for k in range(N_TRIALS)])) for i, run in enumerate(runs)]
    shape = library()[4]
    tuning, betas = betas_of(estimators.get("auto"), single, Options(library=shape[None]))
    assert tuning.steps == ("hrf",)
    assert set(tuning.left_out) == {"denoise", "ridge"}
    assert "no stimulus is repeated" in tuning.left_out["ridge"]
    run = single[1]
    design = trial_design(run.onsets, run.durations, FRAMES, shape, step=0.1)
    plain = lsa(run.bold, design, run.nuisance) * (100 / run.bold.mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(betas[N_TRIALS : 2 * N_TRIALS], plain, atol=2e-4 * np.abs(plain).max())


def test_components_in_closed_form_are_those_of_the_joint_model():
    runs, *_ = session(shared=1.0, n_runs=1)
    model = Model.of(runs[0], library()[4:5], 0.1)
    found = components(model, np.ones(160, bool), 5)
    block, _ = model.block(slice(0, 20))
    betas = with_each_number(model.regressors(0), found, block)
    for k in range(6):
        joint = np.column_stack([model.trials[0], found[:, :k], model.nuisance])
        expected = np.linalg.lstsq(joint, block.astype(np.float64), rcond=None)[0][:N_TRIALS]
        np.testing.assert_allclose(betas[k], expected, atol=1e-4 * np.abs(expected).max())


def test_components_are_orthonormal_and_free_of_the_nuisance_and_largest_first():
    runs, *_ = session(shared=2.0, n_runs=1)
    model = Model.of(runs[0], library()[:1], 0.1)
    found = components(model, np.ones(160, bool), 6)
    np.testing.assert_allclose(found.T @ found, np.eye(6), atol=1e-5)
    np.testing.assert_allclose(found.T @ model.nuisance, 0, atol=1e-5)
    block, _ = model.block(slice(0, 160))
    own = block - model.nuisance @ (model.nuisance.T @ block)
    left = np.linalg.svd(own / np.linalg.norm(own, axis=0), full_matrices=False)[0][:, :6]
    np.testing.assert_allclose(np.abs((left * found).sum(axis=0)), 1.0, atol=1e-4)


def test_a_small_pool_gives_no_more_components_than_it_has():
    runs, *_ = session(n_runs=1)
    model = Model.of(runs[0], library()[:1], 0.1)
    pool = np.zeros(160, bool)
    pool[:3] = True
    assert components(model, pool, 10).shape == (N_VOLUMES, 3)


def test_planted_noise_is_found_and_taken_out():
    runs, truth, _ = session(shared=1.0, n_units=400)
    tuning, betas = betas_of(estimators.get("denoise"), runs)
    plain = betas_of(estimators.get("hrf"), runs)[1]
    half = 200
    assert tuning.components[0].shape[1] == 2
    assert tuning.pool[half:].mean() > tuning.pool[:half].mean() + 0.1
    gain = correlation(betas[:, :half], truth[:, :half]).mean() - correlation(plain[:, :half], truth[:, :half]).mean()
    assert gain > 0.1


def test_without_shared_noise_few_components_are_taken():
    taken = [estimators.get("denoise").tune(session(noise=4.0, seed=seed)[0]).components[0].shape[1] for seed in range(5)]
    assert np.median(taken) <= 1


def test_the_number_of_components_is_the_fewest_with_nearly_all_the_gain():
    assert fewest(np.array([0.1, 0.2, 0.29, 0.297, 0.3])) == 3
    assert fewest(np.array([0.1, 0.2, 0.295, 0.297, 0.3])) == 2
    assert fewest(np.array([0.3, 0.2, 0.1])) == 0


def test_the_noise_pool_is_bright_and_still():
    r2 = np.array([0.5, 0.4, 0.1, 0.2, 0.0, 0.05], np.float32)
    bright = np.array([10, 10, 10, 10, 0.1, 10], np.float32)
    usable = np.array([True] * 5 + [False])
    assert noise_pool(r2, bright, usable).tolist() == [False, False, True, True, False, False]


def test_a_fraction_is_the_ratio_of_lengths():
    rng = np.random.default_rng(0)
    design = rng.standard_normal((60, 30)) @ np.diag(np.geomspace(1, 0.03, 30))
    data = rng.standard_normal((60, 50))
    values, vectors = np.linalg.eigh(design.T @ design)
    rotated = (vectors.T @ design.T @ data).astype(np.float32)
    ols = np.linalg.lstsq(design, data, rcond=None)[0]
    rough = ridge.penalties(rotated, values, ridge.FRACTIONS)
    for fraction, start in zip(ridge.FRACTIONS, rough, strict=True):
        penalty = ridge.refine(rotated, values, np.full(50, fraction), start)
        for unit in (0, 17, 49):
            shrunk = np.linalg.solve(design.T @ design + penalty[unit] * np.eye(30), design.T @ data[:, unit])
            assert np.linalg.norm(shrunk) / np.linalg.norm(ols[:, unit]) == pytest.approx(fraction, abs=1e-5)
    assert (rough[0] == 0).all()
    assert (np.diff(rough, axis=0) > 0).all()


def test_ridge_helps_where_trials_overlap_and_keeps_the_scale():
    runs, truth, _ = session(noise=6.0, n_units=240, shape=10)
    tuning, betas = betas_of(estimators.get("ridge"), runs)
    plain = betas_of(estimators.get("denoise"), runs)[1]
    half = 120
    assert correlation(betas[:, :half], truth[:, :half]).mean() > correlation(plain[:, :half], truth[:, :half]).mean()
    # The line brings ridge betas to the scale of the others: regressing those on these gives slope 1 and offset 0.
    slopes = [np.polyfit(betas[:, v], plain[:, v], 1) for v in range(half)]
    np.testing.assert_allclose(np.array(slopes), [[1.0, 0.0]] * half, atol=2e-3)
    assert (tuning.fraction < 1).any()


def test_partners_are_trials_of_the_same_stimulus_in_other_runs():
    rows, average = repeats.partners(["a", "b", "a", "a", "c", "a"], [0, 0, 0, 1, 1, 2])
    assert rows.tolist() == [0, 2, 3, 5]
    expected = [[0, 0, 0, 0.5, 0, 0.5]] * 2 + [[1 / 3, 0, 1 / 3, 0, 0, 1 / 3], [1 / 3, 0, 1 / 3, 1 / 3, 0, 0]]
    np.testing.assert_allclose(average.toarray(), expected, rtol=1e-6)


def test_agreement_of_two_repeats_is_their_correlation():
    rng = np.random.default_rng(0)
    first = rng.standard_normal((30, 5))
    second = first + rng.standard_normal((30, 5))
    rows, average = repeats.partners([str(i) for i in range(30)] * 2, [0] * 30 + [1] * 30)
    stack = np.concatenate([first * 3 + 7, second * 5 - 2]).astype(np.float32)
    # Every run is a session here, so scale and mean of each are of no account.
    found = repeats.agreement(stack, rows, average, np.repeat([0, 1], 30))
    np.testing.assert_allclose(found, correlation(first, second), atol=1e-5)


def test_units_without_signal_are_masked_and_change_nothing_else():
    runs, *_ = session(shared=0.5)
    estimator = estimators.get("ridge")
    bad = np.array([3, 90])
    spoilt = []
    for run in runs:
        bold = run.bold.copy()
        bold[:, 3], bold[:, 90] = 100.0, np.nan
        spoilt.append(replace(run, bold=bold))
    tuning, betas = betas_of(estimator, spoilt)
    assert np.isnan(betas[:, bad]).all()
    rest = np.setdiff1d(np.arange(160), bad)
    cut = [replace(run, bold=run.bold[:, rest]) for run in runs]
    reference = betas_of(estimator, cut)[1]
    np.testing.assert_allclose(betas[:, rest], reference, atol=1e-3)
    assert not tuning.pool[bad].any()


def test_threads_and_blocks_do_not_change_the_numbers():
    runs, *_ = session(shared=0.5, n_units=2100, n_runs=2)
    one, two = (betas_of(estimators.get("ridge"), runs, Options(threads=threads))[1] for threads in (1, 2))
    np.testing.assert_array_equal(one, two)
    pieces = group(np.array([1, 0, 1, 1, 0], np.int16), 2)
    assert [(shape, units.tolist()) for shape, units in pieces] == [(0, [1, 4]), (1, [0, 2]), (1, [3])]


def test_choices_are_blind_to_runs_that_are_not_chosen():
    """Only their components, which are their own, come from runs that are left out."""
    runs, *_ = session(shared=0.5)
    rng = np.random.default_rng(1)
    other = replace(runs[3], bold=rng.uniform(900, 1100, runs[3].bold.shape).astype(np.float32))
    first, second = (Tuned(STEPS).tune([*runs[:3], last], chosen=[True] * 3 + [False]) for last in (runs[3], other))
    for name in ("hrf", "pool", "curve", "fraction", "penalty", "gain", "offset"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(first.components[0], second.components[0])
    assert not np.array_equal(first.components[3], second.components[3])


def test_sessions_may_have_different_scales():
    """Betas are z-scored by session, so a session of a wide scale does not decide alone."""
    runs, *_ = session(shared=0.8, n_units=200)
    labelled = [replace(run, session=str(i // 2)) for i, run in enumerate(runs)]
    louder = []
    for i, run in enumerate(labelled):
        mean = run.bold.mean(axis=0)
        louder.append(replace(run, bold=(mean + (run.bold - mean) * (8 if i < 2 else 1)).astype(np.float32)))
    first, second = (estimators.get("denoise").tune(each, Options(hrf_choice="cv")) for each in (labelled, louder))
    np.testing.assert_allclose(first.curve, second.curve, atol=1e-3)


@pytest.mark.parametrize("n_runs", [1, 12, 40])
def test_auto_takes_what_the_data_allow(n_runs):
    runs, *_ = session(n_runs=n_runs, n_units=120)
    runs = [replace(run, session=str(i)) for i, run in enumerate(runs)]
    tuning, betas = betas_of(estimators.get("auto"), runs)
    assert np.isfinite(betas).all()
    if n_runs == 1:
        assert tuning.steps == ("hrf",)
        assert tuning.hrf_choice == "onoff"
        with pytest.raises(ValueError, match="'denoise' is not possible: no stimulus is repeated in another run"):
            estimators.get("ridge").tune(runs)
    else:
        assert tuning.steps == STEPS
        assert tuning.hrf_choice == "both"


def test_trials_that_one_model_cannot_hold_are_estimated_separately():
    """More regressors than volumes: LSA has no solution, LSS has."""
    runs, *_ = session(n_runs=2)
    n = N_TRIALS + 4
    short = [replace(run, bold=run.bold[:n], frame_times=FRAMES[:n], nuisance=run.nuisance[:n]) for run in runs]
    short = [replace(run, onsets=np.linspace(2, FRAMES[n] - 8, N_TRIALS), durations=np.ones(N_TRIALS)) for run in short]
    tuning, betas = betas_of(estimators.get("auto"), short)
    assert tuning.model == "lss"
    assert tuning.steps == ("hrf",)
    assert "cannot be told apart" in tuning.left_out["ridge"]
    assert np.isfinite(betas).all()
    with pytest.raises(ValueError, match="cannot be told apart"):
        estimators.get("denoise").tune(short)


def test_twins_are_refused_whatever_the_estimator():
    runs, *_ = session(n_runs=2)
    twins = [replace(run, onsets=np.r_[run.onsets[:-1], run.onsets[-2]]) for run in runs]
    with pytest.raises(ValueError, match=r"trial\(s\) 22, 23"):
        estimators.get("auto").tune(twins)


def test_a_late_shape_is_no_candidate_where_a_late_trial_would_have_no_response():
    runs, *_ = session(n_runs=2)
    late = [replace(run, onsets=np.r_[run.onsets[:-1], FRAMES[-1] - 3.0]) for run in runs]
    tuning = estimators.get("hrf").tune(late)
    assert tuning.model == "lsa"
    assert tuning.hrf.max() < len(library()) - 3


def test_nothing_to_choose_on_is_said():
    runs, *_ = session(n_runs=2)
    with pytest.raises(ValueError, match="no run is left"):
        estimators.get("auto").tune(runs, chosen=[False, False])
    flat = [replace(run, bold=np.full_like(run.bold, 5.0)) for run in runs]
    with pytest.raises(ValueError, match="no unit varies"):
        estimators.get("auto").tune(flat)
