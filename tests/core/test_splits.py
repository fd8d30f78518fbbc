"""No scheme leaks, every group is tested once, and averages are plain means of what they name."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm.core.splits import PARTS, average, make_splits, shuffled, without
from bids_brainlm.core.types import Examples, Prompt, Recording
from bids_brainlm.errors import LeakageError


def make_examples(groups, stimuli=None, prompts=None, references=None, runs=None, seed=0):
    """One example a row, of 3 vertices."""
    n = len(groups)
    data = np.random.default_rng(seed).standard_normal((n, 3)).astype(np.float32)
    runs = np.zeros(n) if runs is None else runs
    stimuli = groups if stimuli is None else stimuli
    return Examples(
        Recording(data, "percent signal change", "beta", np.arange(n), runs),
        np.arange(n),
        tuple(Prompt("What is it?", f"a {name}") for name in stimuli) if prompts is None else prompts,
        tuple((f"a {name}",) for name in stimuli) if references is None else references,
        groups,
        stimuli,
        [f"trial{i}" for i in range(n)],
    )


def parts_of(split):
    return {part: set(split.examples.group[getattr(split, part)]) for part in PARTS}


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 14), min_size=12, max_size=60), st.integers(0, 6), st.floats(0, 0.5), st.integers(0, 99))
def test_every_group_is_tested_in_exactly_one_fold(groups, folds, validation, seed):
    examples = make_examples([f"g{i}" for i in groups])
    n_groups = len(set(groups))
    if folds == 1 or n_groups < max(2, folds):
        with pytest.raises(ValueError, match="expected from 2 to the number of groups"):
            make_splits(examples, "kfold", folds=folds, validation=validation, seed=seed)
        return
    splits = make_splits(examples, "kfold", folds=folds, validation=validation, seed=seed)
    assert [split.fold for split in splits] == list(range(folds or n_groups))
    assert Counter(i for split in splits for i in split.test) == Counter(range(len(groups)))
    for split in splits:
        parts = parts_of(split)
        assert sum(map(len, parts.values())) == len(set().union(*parts.values())) == n_groups
        assert parts["test"]
        assert parts["train"]
        assert bool(parts["validation"]) == (validation > 0 and n_groups - len(parts["test"]) > 2)


def test_folds_are_balanced_in_examples_where_groups_differ_in_size():
    examples = make_examples(np.repeat([f"run{i}" for i in range(10)], [30, 20, 20, 10, 10, 10, 5, 5, 5, 5]))
    sizes = [split.test.size for split in make_splits(examples, "kfold", folds=4)]
    assert max(sizes) - min(sizes) <= 5


def test_equal_groups_make_equal_folds_and_seeds_differ():
    examples = make_examples(np.repeat([f"s{i:02d}" for i in range(20)], 3))
    first, again, other = (make_splits(examples, "kfold", folds=5, seed=seed) for seed in (1, 1, 2))
    assert {split.test.size for split in first} == {12}
    assert all((a.test == b.test).all() and (a.validation == b.validation).all() for a, b in zip(first, again, strict=True))
    assert any(set(a.test) != set(b.test) for a, b in zip(first, other, strict=True))
    assert len({tuple(split.validation) for split in first}) > 1


def test_a_single_split_has_the_shares_asked_for():
    examples = make_examples(np.repeat([f"s{i}" for i in range(50)], 2))
    (split,) = make_splits(examples, "single", test=0.2, validation=0.1, seed=3)
    assert {part: len(groups) for part, groups in parts_of(split).items()} == {"train": 36, "validation": 4, "test": 10}
    (none,) = make_splits(examples, "single", test=0, validation=0)
    assert none.train.size == 100
    assert none.test.size == none.validation.size == 0


def test_small_shares_still_hold_out_a_group_but_never_all_the_training():
    examples = make_examples(["a", "b", "c", "d"])
    (small,) = make_splits(examples, test=0.01, validation=0.01)
    assert (small.train.size, small.validation.size, small.test.size) == (2, 1, 1)
    (large,) = make_splits(examples, test=0.99)
    assert (large.train.size, large.test.size) == (1, 3)
    with pytest.raises(ValueError, match=r"1 group\(s\) cannot be divided"):
        make_splits(make_examples(["a", "a"]))


def test_every_group_is_as_likely_as_the_others_to_be_tested():
    examples = make_examples([f"s{i}" for i in range(10)])
    counts = np.bincount(
        np.concatenate([make_splits(examples, test=0.2, seed=seed)[0].test for seed in range(600)]), minlength=10
    )
    # Binomial(600, 0.2) has a standard deviation of 9.8.
    assert (np.abs(counts - 120) < 45).all()


def test_which_group_validates_does_not_depend_on_which_is_tested():
    examples = make_examples([f"s{i}" for i in range(5)])
    pairs = np.zeros((5, 5))
    for seed in range(800):
        (split,) = make_splits(examples, test=0.2, validation=0.25, seed=seed)
        pairs[split.test[0], split.validation[0]] += 1
    assert not pairs.diagonal().any()
    # 20 pairs, 40 times each: chi squared with 19 degrees of freedom is above 50 once in 7000 times.
    assert (np.square(pairs - 40)[~np.eye(5, dtype=bool)] / 40).sum() < 50


@pytest.mark.parametrize("scheme", ["column", "list"])
def test_given_parts_are_taken_as_they_are(scheme):
    labels = ["train", "test", "validation", "train"]
    (split,) = make_splits(make_examples(["a", "b", "c", "d"]), scheme, labels=labels)
    assert [list(getattr(split, part)) for part in PARTS] == [[0, 3], [2], [1]]


def test_given_parts_that_leak_or_are_unknown_are_refused():
    examples = make_examples(["a", "b", "a", "d"])
    with pytest.raises(LeakageError, match="share 1 group"):
        make_splits(examples, "column", labels=["train", "test", "test", "train"])
    with pytest.raises(ValueError, match="example trial2 is in part dev; expected train, validation, test"):
        make_splits(examples, "list", labels=["train", "test", "dev", "train"])
    with pytest.raises(ValueError, match="3 labels for 4 examples"):
        make_splits(examples, "list", labels=["train"] * 3)
    with pytest.raises(ValueError, match="needs the part of every example"):
        make_splits(examples, "column")
    with pytest.raises(ValueError, match="no split scheme 'kfolds'"):
        make_splits(examples, "kfolds")


def responses(examples, index):
    return examples.gather(index)[:, 0]


def test_averages_are_means_of_the_repeats_within_a_part():
    stimuli = np.array(["a", "b", "a", "c", "b", "a", "d", "c"])
    references = tuple((f"a {name}", f"trial {i}") for i, name in enumerate(stimuli))
    examples = make_examples(stimuli, references=references, runs=[0, 0, 0, 0, 1, 1, 1, 1])
    labels = {"a": "test", "b": "train", "c": "train", "d": "test"}
    (split,) = make_splits(examples, "column", labels=[labels[name] for name in stimuli])
    data = examples.recording.data
    after = average(split, ["test"])
    assert list(after.examples.id[after.test]) == ["a_mean", "trial6"]
    np.testing.assert_allclose(responses(after.examples, after.test), [data[[0, 2, 5]].mean(axis=0), data[6]], atol=1e-6)
    np.testing.assert_array_equal(responses(after.examples, after.train), responses(examples, split.train))
    assert after.examples.references[after.test[0]] == ("a a", "trial 0", "trial 2", "trial 5")
    assert list(after.examples.run[after.test]) == [-1, 1]
    both = average(split, ["train", "test"])
    assert both.train.size == both.test.size == 2
    np.testing.assert_allclose(responses(both.examples, both.train)[0], data[[1, 4]].mean(axis=0), atol=1e-6)


def test_averaging_an_average_again_weighs_every_repeat_alike():
    stimuli = np.array(["a", "a", "a", "b"])
    (split,) = make_splits(make_examples(stimuli), "column", labels=["test"] * 3 + ["train"])
    once = average(split, ["test"])
    twice = average(once, ["test"])
    np.testing.assert_array_equal(responses(once.examples, once.test), responses(twice.examples, twice.test))
    assert list(twice.examples.id) == ["trial3", "a_mean"]


def test_only_the_same_prompt_is_averaged_and_ids_stay_unique():
    stimuli = np.array(["a", "a", "a", "a", "b"])
    prompts = tuple(Prompt(question, "yes") for question in ["big?", "red?", "big?", "red?", "big?"])
    (split,) = make_splits(make_examples(stimuli, prompts=prompts), "column", labels=["test"] * 4 + ["train"])
    after = average(split, ["test"])
    assert [prompt.context for prompt in after.examples.prompts] == ["big?", "big?", "red?"]
    assert list(after.examples.id[after.test]) == ["a_mean", "a_mean2"]
    data = after.examples.recording.data
    np.testing.assert_allclose(
        responses(after.examples, after.test), [data[[0, 2]].mean(axis=0), data[[1, 3]].mean(axis=0)], atol=1e-6
    )


def test_repeats_in_two_parts_are_never_averaged_together():
    examples = make_examples(groups=["r1", "r1", "r2", "r3", "r4"], stimuli=np.array(["a", "b", "a", "a", "b"]))
    (split,) = make_splits(examples, "column", labels=["train", "train", "train", "test", "test"])
    after = average(split, PARTS)
    assert list(after.examples.id) == ["a_mean", "trial1", "trial3", "trial4"]
    assert after.examples.group[0] == "r1+r2"
    assert set(after.examples.rows[after.train].ravel()) - {-1} == {0, 1, 2}
    assert set(after.examples.rows[after.test].ravel()) - {-1} == {3, 4}


def test_windows_of_several_rows_are_averaged_row_by_row():
    data = np.arange(24, dtype=np.float32).reshape(12, 2)
    recording = Recording(data, "percent signal change", "bold", np.tile(np.arange(6), 2), np.repeat([0, 1], 6))
    prompt, names = (Prompt("", "x"),) * 3, np.array(["w", "w", "v"])
    rows = np.array([[0, 1], [6, 7], [3, 4]])
    examples = Examples(recording, rows, prompt, (("x",),) * 3, names, names, np.array(["1", "2", "3"]))
    (split,) = make_splits(examples, "column", labels=["test", "test", "train"])
    after = average(split, ["test"])
    np.testing.assert_array_equal(after.examples.gather(after.test)[0], (data[[0, 1]] + data[[6, 7]]) / 2)


def test_parts_must_exist():
    (split,) = make_splits(make_examples(["a", "b", "c"]))
    with pytest.raises(ValueError, match="no part.s. dev of a split"):
        average(split, ["dev"])


def test_what_is_left_out_is_counted_and_stays_in_the_test_set():
    examples = make_examples([f"g{i}" for i in range(20)])
    whole = make_splits(examples, "single", seed=0)[0]
    barred = np.arange(20) % 4 == 0
    less = without(whole, barred)
    np.testing.assert_array_equal(less.test, whole.test)
    np.testing.assert_array_equal(less.train, [i for i in whole.train if i % 4])
    assert less.left_out == sum(i % 4 == 0 for i in (*whole.train, *whole.validation))
    assert average(less, ["train"]).left_out == less.left_out
    with pytest.raises(ValueError, match="every training example"):
        without(whole, np.ones(20, dtype=bool))


def test_shuffled_pairs_are_those_of_training_and_validation_each_among_itself():
    examples = make_examples(np.repeat([f"g{i}" for i in range(30)], 2))
    splits = make_splits(examples, "kfold", folds=3, validation=0.3)
    orders = []
    for split in splits:
        after = shuffled(split, 7)
        for name in ("train", "validation"):
            part = getattr(split, name)
            moved, own = after.examples.rows[part, 0, 0], examples.rows[part, 0, 0]
            assert sorted(moved) == sorted(own)
            # Two of their places are kept by chance in the mean of a random order, never nearly all.
            assert (moved == own).mean() < 0.3
        np.testing.assert_array_equal(after.examples.rows[split.test], examples.rows[split.test])
        assert after.examples.prompts == examples.prompts
        assert after.examples.references == examples.references
        np.testing.assert_array_equal(shuffled(split, 7).examples.rows, after.examples.rows)
        assert not np.array_equal(shuffled(split, 8).examples.rows, after.examples.rows)
        orders.append(after.examples.rows)
    assert not np.array_equal(orders[0], orders[1])
