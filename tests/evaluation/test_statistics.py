"""Tests have their stated error rates on simulated nulls; intervals their stated coverage on a mean whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bids_brainlm.evaluation.labels import accuracy_permutation, factor_permutations
from bids_brainlm.evaluation.resampling import MIN_UNITS, bootstrap_interval, of_folds, permutation_p, sign_flip_p
from bids_brainlm.evaluation.statistics import PrimaryTest, group_verdict, pairwise_accuracy, primary_test


def derangement(n: int, rng: np.random.Generator) -> np.ndarray:
    while True:
        order = rng.permutation(n)
        if (order != np.arange(n)).all():
            return order


def null_p(seed: int, n: int = 24, k: int = 99) -> float:
    """Texts and brains that have nothing to do with each other, but with good and bad ones of each."""
    rng = np.random.default_rng(seed)
    nll = rng.normal(size=(n, 1)) + rng.normal(size=(1, n)) + rng.normal(size=(n, n))
    partners = np.stack([derangement(n, rng) for _ in range(k)])
    return primary_test(np.diag(nll), nll[np.arange(n), partners]).p_value


def test_primary_test_is_uniform_under_the_null() -> None:
    p = np.array([null_p(seed) for seed in range(600)])
    assert stats.kstest(p, "uniform").statistic < 1.63 / np.sqrt(len(p)) + 0.01  # 1 % level, and the grid of 1/100
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.027)


def test_primary_test_sees_a_brain_that_helps() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(10, 3, size=40)
    test = primary_test(base - 0.5, base + rng.normal(0, 0.3, size=(199, 40)), units=np.arange(40))
    assert test.p_value == 1 / 200
    assert test.effect == pytest.approx(0.5, abs=0.05)
    assert test.interval is not None
    assert test.interval[0] < test.effect < test.interval[1]
    assert test.verdict.startswith("The text depends on the brain")


def test_primary_test_of_a_model_that_ignores_the_brain_is_not_decided_by_rounding() -> None:
    true = np.full(20, 12.0)
    test = primary_test(true - 1e-9, np.tile(true, (99, 1)))
    assert test.p_value == 1.0
    assert test.verdict.startswith("No evidence that the text came from the brain")


def test_verdict_says_what_p_allows() -> None:
    assert "too few" in PrimaryTest(1.0, 0.1, 30, 9).verdict
    assert "likelier" in PrimaryTest(0.2, 0.3, 30, 100).verdict
    assert "less likely" in PrimaryTest(-0.2, 0.9, 30, 100).verdict
    assert "p = .300" in PrimaryTest(0.2, 0.3, 30, 100).verdict


@pytest.mark.parametrize(
    ("true", "permuted"), [([1.0], [[1.0, 2.0]]), ([], np.empty((3, 0))), ([np.nan], [[1.0]]), ([1.0], [1.0])]
)
def test_primary_test_refuses_what_does_not_fit(true: object, permuted: object) -> None:
    with pytest.raises(ValueError, match="NLL"):
        primary_test(true, permuted)


def test_permutation_p_against_an_enumeration() -> None:
    null = np.array([0.0, 1.0, 1.0, 2.0])
    assert permutation_p(1.0, null) == 4 / 5
    assert permutation_p(1.0, null, "less") == 4 / 5
    assert permutation_p(3.0, null, "two-sided") == 2 / 5
    with pytest.raises(ValueError, match="alternative"):
        permutation_p(1.0, null, "bigger")


@pytest.mark.parametrize(("units", "repeats"), [(12, 1), (40, 3)])
def test_bootstrap_covers_the_mean(units: int, repeats: int) -> None:
    """Repeats of a unit share its effect: an interval over texts would cover far less."""
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(units), repeats)
    hits = 0
    for seed in range(500):
        values = rng.normal(3.0, 1.0, size=units)[labels] + rng.normal(0, 0.3, size=labels.size)
        low, high = bootstrap_interval(values, labels, 400, seed) or (0.0, 0.0)
        hits += low < 3.0 < high
    assert hits / 500 == pytest.approx(0.95, abs=0.03)


def test_bootstrap_of_one_value_a_unit_agrees_with_the_t_interval() -> None:
    values = np.random.default_rng(2).normal(size=25)
    low, high = bootstrap_interval(values, np.arange(25), 20000) or (0.0, 0.0)
    t_low, t_high = stats.t.interval(0.95, 24, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx((t_low, t_high), abs=0.06)


def test_no_interval_from_few_units_or_without_spread() -> None:
    assert bootstrap_interval(np.arange(20.0), np.repeat(np.arange(MIN_UNITS - 1), 4)) is None
    assert bootstrap_interval(np.ones(30), np.arange(30)) is None
    assert bootstrap_interval([1.0, np.nan, 2.0] * 10, np.arange(30)) is not None


def test_accuracy_permutation_is_not_fooled_by_runs() -> None:
    """Each run has its own word, said in it throughout: accuracy is far above 1/4, but so is every permutation."""
    true = np.repeat(["a", "b", "c", "d"], 10)
    test = accuracy_permutation(true, true, np.repeat(np.arange(4), 10), n=200)
    assert test.accuracy == test.null_mean == test.p_value == 1.0
    assert accuracy_permutation(true, true, np.zeros(40), n=200).p_value == 1 / 201


def test_accuracy_permutation_is_uniform_under_the_null() -> None:
    rng = np.random.default_rng(3)
    runs = np.repeat(np.arange(12), 8)
    p = []
    for seed in range(500):
        true, said = (np.concatenate([rng.permutation(8) for _ in range(12)]).astype(str) for _ in range(2))
        p.append(accuracy_permutation(said, true, runs, n=99, seed=seed).p_value)
    # An accuracy takes few values, so ties push p up: valid, and no further from uniform than the ties explain.
    assert (np.array(p) <= 0.05).mean() <= 0.07
    assert np.mean(p) == pytest.approx(0.5, abs=0.12)


def test_accuracy_permutation_leaves_out_what_is_not_known() -> None:
    true = np.array([["a", "x"], ["b", ""]])
    assert accuracy_permutation([["a", "y"], ["b", "z"]], true, [0, 0], n=5).accuracy == pytest.approx(2 / 3)


def test_sign_flip_against_every_flip() -> None:
    values = np.array([0.3, -0.1, 0.5, 0.2, 0.4, -0.2, 0.1])
    flips = np.array(np.meshgrid(*[[-1, 1]] * 7)).reshape(7, -1).T @ values
    assert sign_flip_p(values, np.arange(7), n=20000) == pytest.approx((flips >= values.sum() - 1e-12).mean(), abs=0.01)
    assert sign_flip_p(values[:5], np.arange(5)) is None
    assert sign_flip_p(np.repeat(values, 3), np.repeat(np.arange(7), 3), n=20000) == pytest.approx(
        sign_flip_p(values, np.arange(7), n=20000)
    )


def test_pairwise_accuracy_counts_ties_half() -> None:
    np.testing.assert_array_equal(pairwise_accuracy([1, 2, 3], [2, 2, 2]), [1, 0.5, 0])
    np.testing.assert_array_equal(pairwise_accuracy([1.0], [[2.0], [0.0]]), [0.5])


def test_factors_are_tested_on_the_permutations_of_the_whole() -> None:
    rng = np.random.default_rng(4)
    true = rng.choice(["a", "b"], size=(40, 2))
    said = true.copy()
    said[:, 1] = rng.permutation(said[:, 1])
    right, wrong = factor_permutations(said, true, np.zeros(40), n=199)
    assert right is not None
    assert wrong is not None
    assert right.p_value == 1 / 200
    assert wrong.p_value > 0.01
    both = accuracy_permutation(said, true, np.zeros(40), n=199)
    assert both.accuracy == pytest.approx((right.accuracy + wrong.accuracy) / 2)
    assert both.null_mean == pytest.approx((right.null_mean + wrong.null_mean) / 2)
    unknown = np.stack([true[:, 0], np.full(40, "")], axis=1)
    assert factor_permutations(said, unknown, np.zeros(40), n=5)[1] is None


def test_group_verdict_tests_over_participants_from_six_on() -> None:
    found, null = PrimaryTest(1.0, 0.01, 30, 99), PrimaryTest(0.0, 0.5, 30, 99)
    assert (
        group_verdict({"a": found, "b": null})
        == "The text depends on the brain in 1 of 2 participants (mean gain 0.50 nats a text)."
    )
    assert "over participants" in group_verdict({str(i): found for i in range(6)})
    assert group_verdict({"a": null}).startswith("No evidence that the text came from the brain in any of 1 participant (")
    assert group_verdict({}).startswith("No participant")


def test_pooled_folds_of_a_linear_decoder_keep_their_level() -> None:
    """Responses without texts in them: every decoder is trained on what the others are tested on."""
    p, p_plain = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        x, y, fold = rng.normal(size=(40, 60)), rng.normal(size=(40, 6)), np.arange(40) % 4
        true, null = np.empty(40), np.empty((99, 40))
        for k in range(4):
            test = fold == k
            predicted = x[test] @ x[~test].T @ (y[~test] - y[~test].mean(axis=0))
            scores = predicted @ (y[test] - y[~test].mean(axis=0)).T
            true[test] = np.diag(scores)
            null[:, test] = scores[rng.permuted(np.tile(np.arange(10), (99, 1)), axis=1), np.arange(10)]
        p.append(permutation_p(true.mean(), of_folds(null, 4).mean(axis=1)))
        p_plain.append(permutation_p(true.mean(), null.mean(axis=1)))
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.035)
    assert np.mean(np.array(p_plain) <= 0.05) == pytest.approx(0.122, abs=0.05)  # P(z > 1.645 / sqrt 2)


def test_one_fold_is_left_as_it_is_and_several_keep_their_mean() -> None:
    null = np.random.default_rng(5).normal(3, 1, size=(50, 4))
    np.testing.assert_array_equal(of_folds(null, 1), null)
    np.testing.assert_allclose(of_folds(null, 3).mean(axis=0), null.mean(axis=0))
    np.testing.assert_allclose(of_folds(null, 3).var(axis=0), 2 * null.var(axis=0))
    values = np.random.default_rng(6).normal(0.4, 1, size=30)
    alone, pooled = (sign_flip_p(values, np.arange(30), n_folds=n) for n in (1, 5))
    assert alone is not None
    assert pooled is not None
    assert alone < pooled
