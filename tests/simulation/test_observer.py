"""The observer: sure without noise, at chance without signal, blind to labels."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainlm.errors import MissingInputError
from bids_brainlm.simulation.observer import average_repeats, facts_right, load_truth, observe

MAPS = {
    ("subject", "dog"): np.array([1, 0.5, 0, 0, 0, 0], np.float32),
    ("subject", "cat"): np.array([0, 0.5, 1, 0, 0, 0], np.float32),
    ("place", "park"): np.array([0, 0, 0, 2, 0, 0], np.float32),
    ("place", "beach"): np.array([0, 0, 0, 0, 1, 0], np.float32),
}
SHOWN = np.array(["a", "b", "c", "d"] * 10)
FACTS = {
    "subject": {"a": "dog", "b": "dog", "c": "cat", "d": "cat"},
    "place": {"a": "park", "b": "beach", "c": "park", "d": "beach"},
}


def responses() -> np.ndarray:
    return np.stack([sum(MAPS[factor, FACTS[factor][item]] for factor in FACTS) for item in SHOWN])


def test_it_is_right_without_noise_whatever_the_scale_of_a_map() -> None:
    named = observe(responses(), MAPS, np.arange(40) < 20)
    right = facts_right(named, FACTS, SHOWN)
    assert list(right) == ["subject", "place"]
    assert all(hits.all() for hits in right.values())


def test_it_is_at_chance_without_signal() -> None:
    noise = np.random.default_rng(0).standard_normal((40_000, 6)).astype(np.float32)
    shown = np.tile(SHOWN, 1000)
    right = facts_right(observe(noise, MAPS, np.ones(40_000, bool)), FACTS, shown)
    assert np.mean(list(right.values())) == pytest.approx(0.5, abs=0.01)


def test_baseline_and_missing_vertices_do_not_matter() -> None:
    shifted = responses() + np.array([5, 5, 5, 30, 1, 0], np.float32)
    shifted[:, 5] = np.nan
    right = facts_right(observe(shifted, MAPS, np.arange(40) < 20), FACTS, SHOWN)
    assert all(hits.all() for hits in right.values())


def test_only_training_trials_set_the_scale() -> None:
    train = np.arange(40) < 20
    changed = responses()
    changed[-1] += 100
    before, after = observe(responses(), MAPS, train), observe(changed, MAPS, train)
    for factor in before:
        np.testing.assert_array_equal(before[factor][:-1], after[factor][:-1])


def test_repeats_are_averaged_by_stimulus() -> None:
    betas = np.arange(8, dtype=np.float32).reshape(4, 2)
    means, names = average_repeats(betas, np.array(["b", "a", "b", "a"]))
    assert names.tolist() == ["a", "b"]
    np.testing.assert_array_equal(means, [[4, 5], [2, 3]])


def test_a_dataset_that_was_measured_has_no_truth(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(MissingInputError, match="simulate"):
        load_truth(tmp_path, "01")
