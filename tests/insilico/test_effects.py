"""Slopes are those of least squares; tests find what was planted and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainlm.insilico.effects import (
    EFFECT_COLUMNS,
    Slopes,
    against_nulls,
    alike,
    dose_slope,
    effects_table,
    rivals_of,
    usable_nulls,
)
from bids_brainlm.insilico.nulls import Places
from bids_brainlm.insilico.words import Word

WORDS = (
    Word("animal", "dog", ("dog",), ("dog",)),
    Word("animal", "cat", ("cat",), ("cat",)),
    Word("place", "sea", ("sea",), ("sea",)),
)


def test_slopes_are_those_of_polyfit() -> None:
    rng = np.random.default_rng(0)
    doses, values = np.array([-2.0, 0.0, 0.5, 3.0]), rng.standard_normal((3, 4, 5, 2))
    found = dose_slope(values, doses)
    wanted = [[[np.polyfit(doses, values[s, :, i, w], 1)[0] for w in range(2)] for i in range(5)] for s in range(3)]
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    with pytest.raises(ValueError, match="no slope"):
        dose_slope(values[:, :2], [1.0, 1.0])


def test_rivals_are_the_other_words_of_the_factor() -> None:
    log_p = np.log([[0.5, 0.2, 0.9], [0.1, 0.6, 0.3]])
    np.testing.assert_allclose(np.exp(rivals_of(log_p, WORDS))[:, :2], [[0.2, 0.5], [0.6, 0.1]])
    assert np.isnan(rivals_of(log_p, WORDS)[:, 2]).all()
    three = (*WORDS[:2], Word("animal", "cow", ("cow",), ("cow",)))
    np.testing.assert_allclose(np.exp(rivals_of(np.log([[0.5, 0.2, 0.1]]), three)), [[0.3, 0.6, 0.7]])


def test_slopes_are_compared_per_norm() -> None:
    slopes, norms = np.array([[2.0, 0.0], [0.1, np.nan]]), np.array([1.0, 2.0])
    null, null_norms = np.array([[0.5, 0.0], [3.0, 1.0], [-1.0, -1.0], [9.0, 9.0]]), np.array([1.0, 2.0, 1.0, 1.0])
    usable = np.array([[True, True, True, False], [False, False, False, False]])
    found = against_nulls(slopes, norms, null, null_norms, usable)
    assert found.n.tolist() == [3, 0]
    # Per norm: .5, 1.5, -1 for the first word, 0, .5, -1 for the second.
    np.testing.assert_allclose(found.p_raised[0], [1 / 4, 3 / 4])
    np.testing.assert_allclose(found.p_lowered[0], [4 / 4, 3 / 4])
    np.testing.assert_allclose(found.null_mean[0], [1 / 3, -1 / 6])
    assert np.isnan(found.p_raised[1]).all()
    # What a site twice as strong does is expected of its nulls too.
    twice = against_nulls(2 * slopes, 2 * norms, null, null_norms, usable)
    np.testing.assert_allclose(twice.p_raised[0], found.p_raised[0])


def test_without_an_effect_p_is_uniform() -> None:
    rng = np.random.default_rng(1)
    draws = rng.standard_normal((400, 20, 1))
    p = np.array([against_nulls(d[:1], np.ones(1), d[1:], np.ones(19), np.ones((1, 19), bool)).p_raised[0, 0] for d in draws])
    assert abs((p <= 0.05).mean() - 0.05) < 0.03
    assert abs((p <= 0.5).mean() - 0.5) < 0.08


def places() -> Places:
    return Places(np.zeros((8, 3)), 8, False, np.ones(8, bool), np.array([1, 1, 2, 2, 3, 3, 4, 4], np.int32))


def test_null_patches_serve_alike_sites_that_they_do_not_overlap() -> None:
    sites = np.zeros((3, 8), np.float32)
    sites[0, [0, 1]], sites[1, [6, 7]], sites[2, 4:] = 1, 1.1, 3
    np.testing.assert_array_equal(alike(sites, places()), [[True, True, False], [True, True, False], [False, False, True]])
    patches = np.zeros((2, 8), np.float32)
    patches[0, [2, 3]], patches[1, [6, 7]] = 1, 1
    np.testing.assert_array_equal(
        usable_nulls(sites, patches, np.array([0, 0]), places()), [[True, True], [True, False], [False, False]]
    )


def test_the_table_has_what_was_planted() -> None:
    rng = np.random.default_rng(2)
    trials = 0.01 * rng.standard_normal((2, 12, 3))
    trials[0, :, 0] += 1.0
    trials[0, :, 1] -= 1.0
    other = trials.mean(axis=1)
    slopes = Slopes(trials, -trials, other, other, -other, 0 * other)
    null = 0.05 * rng.standard_normal((600, 3))
    usable = np.ones((2, 600), bool)
    own, rivals = (against_nulls(values, np.ones(2), null, np.ones(600), usable) for values in (other, -other))
    table = effects_table(["a", "b"], WORDS, slopes, own, rivals, np.arange(12), seed=0)
    assert list(table) == list(EFFECT_COLUMNS)
    planted = table[(table["q_raised"] <= 0.05) | (table["q_lowered"] <= 0.05)]
    assert list(zip(planted["site"], planted["word"], strict=True)) == [("a", "dog"), ("a", "cat")]
    first = table.iloc[0]
    assert first["ci_low"] < first["slope"] < first["ci_high"]
    assert (first["slope"], first["q_rivals"] <= 0.05) == (pytest.approx(trials[0, :, 0].mean()), True)
