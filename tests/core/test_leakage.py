"""Counts of what a split lets through: the published split of BrainLLM, replayed; plain loops; and none where it is honest."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bids_brainlm.core.leakage import Leakage, count
from bids_brainlm.core.splits import average, blocks_of, make_splits
from bids_brainlm.core.types import Examples, Prompt, Recording, Split
from bids_brainlm.errors import LeakageError


def sentences(n_sentences=627, per_passage=4):
    """Sentences of three chunks, as the released example of Pereira 2018: samples 1 and 2 of each have its one response."""
    sentence, chunk = np.repeat(np.arange(n_sentences), 2), np.tile([1, 2], n_sentences)
    data = np.zeros((n_sentences, 1), np.float32)
    return Examples(
        Recording(data, "a.u.", "beta", np.arange(n_sentences), np.zeros(n_sentences)),
        sentence,
        tuple(Prompt(f"{s} words before {k}", f"{s} chunk {k}") for s, k in zip(sentence, chunk, strict=True)),
        tuple((f"{s} chunk {k}",) for s, k in zip(sentence, chunk, strict=True)),
        np.array([f"passage-{s // per_passage}" for s in sentence]),
        np.array([f"{s}/{k}" for s, k in zip(sentence, chunk, strict=True)]),
        np.array([f"{s}_chunk-{k}" for s, k in zip(sentence, chunk, strict=True)]),
        tuple(tuple(f"{s}/{j}" for j in range(k)) for s, k in zip(sentence, chunk, strict=True)),
    )


def story_windows(n_windows=100, n_rows=4, contexts=(1, 2, 3), stories=("hare", "owl")):
    """Windows of stories, one a run; window k is decoded from volumes k, k + 1, ... of its run."""
    size = n_windows + n_rows
    found = [(r, k, n) for r in range(len(stories)) for k in range(n_windows) for n in contexts if k >= n]
    recording = Recording(
        np.zeros((size * len(stories), 1), np.float32),
        "standard deviations",
        "bold",
        np.tile(np.arange(size), len(stories)),
        np.repeat(np.arange(len(stories)), size),
    )
    return Examples(
        recording,
        np.array([np.arange(k, k + n_rows) + r * size for r, k, _ in found]),
        tuple(Prompt(f"{stories[r]} {k - n} to {k}", f"{stories[r]} says {k}") for r, k, n in found),
        tuple((f"{stories[r]} says {k}",) for r, k, _ in found),
        np.array([stories[r] for r, _, _ in found]),
        np.array([f"{stories[r]}/{k:04d}" for r, k, _ in found]),
        np.array([f"{stories[r]}_win-{k:04d}_context-{n}" for r, k, n in found]),
        tuple(tuple(f"{stories[r]}/{j:04d}" for j in range(k - n, k)) for r, k, n in found),
    )


def in_blocks(examples, seconds, block):
    story, window = np.array([name.split("/") for name in examples.stimulus]).T
    return Examples(
        examples.recording,
        examples.rows,
        examples.prompts,
        examples.references,
        blocks_of(story, window.astype(int), seconds, block),
        examples.stimulus,
        examples.id,
        examples.heard,
    )


def counted(split):
    """The definition, test example by test example."""
    examples = split.examples
    rows = {int(row) for i in split.train for row in examples.rows[i].ravel() if row >= 0}
    answers = {str(examples.stimulus[i]) for i in split.train}
    prompts = {name for i in split.train for name in examples.heard[i]}
    test = [int(i) for i in split.test]
    return Leakage(
        len(test),
        sum(bool(rows & set(examples.rows[i].ravel().tolist())) for i in test),
        sum(str(examples.stimulus[i]) in answers for i in test),
        sum(str(examples.stimulus[i]) in prompts for i in test),
    )


@pytest.mark.parametrize(("validated", "rows", "contexts"), [(False, 0.77, 0.78), (True, 0.59, 0.62)])
def test_the_published_split_of_pereira_shares_its_rows(validated, rows, contexts):
    """1254 samples, each with a number drawn from seed 2021; test where it is in (.2, .4], validation in (.4, .6] or nothing."""
    examples = sentences()
    draw = random.Random(2021)
    number = np.array([draw.random() for _ in range(len(examples))])
    test, kept = (number > 0.2) & (number <= 0.4), (number > 0.4) & (number <= 0.6) & validated
    split = Split(examples, *(np.flatnonzero(part) for part in (~test & ~kept, kept, test)), leaky=True)
    leak = count(split)
    assert leak == counted(split)
    assert leak.n_test == 237
    assert leak.shared_rows / leak.n_test == pytest.approx(rows, abs=0.005)
    first = sum(str(name).endswith("/1") for name in examples.stimulus[split.test])
    assert leak.targets_in_contexts / first == pytest.approx(contexts, abs=0.005)
    assert leak.shared_targets == 0


def test_whole_passages_share_nothing():
    folds = make_splits(sentences(), "kfold", folds=5)
    assert all(count(split) == Leakage(split.test.size, 0, 0, 0) for split in folds)
    assert sum((count(split) for split in folds), Leakage(0, 0, 0, 0)) == Leakage(1254, 0, 0, 0)


def test_the_leaky_split_leaks_as_much_as_chance_says():
    """A sentence's other sample is in training with a probability of .8; for every second target it is the one after it."""
    splits = [make_splits(sentences(2000), "leaky-random", validation=0, seed=seed)[0] for seed in range(8)]
    assert all(split.leaky and count(split) == counted(split) for split in splits)
    leak = sum(map(count, splits), Leakage(0, 0, 0, 0))
    # Sentences with both samples in the test set: 8 x 80, with a standard deviation of 25.
    assert leak.shared_rows / leak.n_test == pytest.approx(0.8, abs=0.025)
    assert leak.targets_in_contexts / leak.n_test == pytest.approx(0.4, abs=0.025)


def test_windows_are_dealt_out_by_their_text_as_in_the_released_code():
    examples = story_windows()
    (split,) = make_splits(examples, "leaky-random", seed=0)
    leak = count(split)
    assert leak == counted(split)
    assert leak.shared_targets == 0
    assert leak.shared_rows > 0.9 * leak.n_test
    assert leak.targets_in_contexts > 0.9 * leak.n_test
    with pytest.raises(LeakageError):
        Split(examples, split.train, split.validation, split.test)


@pytest.mark.parametrize("seed", range(5))
def test_blocks_are_purged_of_all_that_tells_and_of_nothing_else(seed):
    examples = in_blocks(story_windows(n_windows=120), 2.0, 60.0)
    (split,) = make_splits(examples, "blocks", test=0.25, validation=0.2, seed=seed)
    assert count(split) == counted(split) == Leakage(split.test.size, 0, 0, 0)
    parts = (split.train, split.validation, split.test)
    assert split.purged == len(examples) - sum(map(len, parts)) > 0
    groups = [set(examples.group[part]) for part in parts]
    assert len(set().union(*groups)) == sum(map(len, groups)) == 8
    for place in (0, 1):
        dealt, held_out = np.flatnonzero(np.isin(examples.group, list(groups[place]))), np.concatenate(parts[place + 1 :])
        left_out = np.setdiff1d(dealt, parts[place])
        assert all(any(tells(examples, i, j) for j in held_out) for i in left_out)


@pytest.mark.parametrize("folds", [2, 5, 0])
def test_every_block_is_tested_in_one_fold_that_shares_nothing_with_its_training(folds):
    examples = in_blocks(story_windows(n_windows=120), 2.0, 60.0)
    splits = make_splits(examples, "blocks", folds=folds, validation=0.2, seed=3)
    assert [split.fold for split in splits] == list(range(folds or 8))
    np.testing.assert_array_equal(np.sort(np.concatenate([split.test for split in splits])), np.arange(len(examples)))
    for split in splits:
        assert count(split) == counted(split) == Leakage(split.test.size, 0, 0, 0)
        assert split.validation.size
        assert split.purged == len(examples) - sum(map(len, (split.train, split.validation, split.test))) > 0
        left_out = np.setdiff1d(np.arange(len(examples)), np.concatenate([split.train, split.validation, split.test]))
        held_out = np.concatenate([split.validation, split.test])
        assert all(any(tells(examples, i, j) for j in held_out) for i in left_out)


def tells(examples, i, j):
    rows = set(examples.rows[i].ravel()) & set(examples.rows[j].ravel())
    return bool(rows) or str(examples.stimulus[j]) in (str(examples.stimulus[i]), *examples.heard[i])


def test_blocks_that_nothing_is_left_of_are_refused():
    examples = in_blocks(story_windows(n_windows=20, stories=("hare",)), 2.0, 4.0)
    with pytest.raises(ValueError, match="take longer blocks"):
        make_splits(examples, "blocks", test=0.8, validation=0)


@pytest.mark.parametrize(("first", "second"), [("train", "validation"), ("train", "test"), ("validation", "test")])
def test_a_held_out_text_in_an_earlier_prompt_is_refused_and_the_other_way_round_is_not(first, second):
    examples = story_windows(n_windows=30, n_rows=1, contexts=(1,), stories=("hare",))
    examples = Examples(
        examples.recording, examples.rows, examples.prompts, examples.references, examples.id, examples.stimulus, examples.id,
        examples.heard,
    )  # fmt: skip
    empty = {part: np.zeros(0, int) for part in ("train", "validation", "test")}
    message = f"{first} and {second} of fold 0 share 1 text.s., prompted with in {first} and decoded in {second}, e.g. hare/0005"
    with pytest.raises(LeakageError, match=message):
        Split(examples, **(empty | {first: np.array([5]), second: np.array([4])}))
    Split(examples, **(empty | {first: np.array([4]), second: np.array([5])}))


def test_a_leaky_split_still_shares_no_example():
    with pytest.raises(LeakageError, match=r"share 1 example\(s\)"):
        Split(sentences(4), [0, 1], [], [1, 2], leaky=True)


def test_averages_keep_what_is_known_of_a_split():
    (split,) = make_splits(sentences(20), "leaky-random")
    assert average(split, ["test"]).leaky
    blocks = in_blocks(story_windows(), 2.0, 60.0)
    (split,) = make_splits(blocks, "blocks")
    after = average(split, ["train"])
    assert after.purged == split.purged > 0
    assert after.examples.heard[after.test[0]] == blocks.heard[split.test[0]]


def test_the_amount_is_a_share_of_training_groups_and_smaller_ones_are_part_of_larger_ones():
    examples = sentences(400)
    parts = [make_splits(examples, test=0.2, validation=0.1, amount=amount, seed=3)[0] for amount in (1.0, 0.5, 0.25, 1e-9)]
    groups = [set(examples.group[split.train]) for split in parts]
    assert [len(some) for some in groups] == [72, 36, 18, 1]
    assert groups[3] < groups[2] < groups[1] < groups[0]
    assert all((split.test == parts[0].test).all() and (split.validation == parts[0].validation).all() for split in parts)
    assert all(np.isin(parts[0].train[np.isin(examples.group[parts[0].train], list(some))], split.train).all()
               for some, split in zip(groups, parts, strict=True))  # fmt: skip
