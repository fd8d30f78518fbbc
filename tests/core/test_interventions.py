"""Partners keep to every rule, are as random as the rules allow, and replaced brains have the moments they promise."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bids_brainlm.core import interventions as module
from bids_brainlm.core.interventions import exchanges, partners
from bids_brainlm.core.splits import average, make_splits
from bids_brainlm.core.types import Examples, Prompt, Recording
from bids_brainlm.registry import interventions


def make_examples(stimuli, texts=None, runs=None, n_vertices=2):
    n = len(stimuli)
    runs = np.zeros(n, dtype=int) if runs is None else np.asarray(runs)
    texts = [(f"a {name}",) for name in stimuli] if texts is None else texts
    data = np.random.default_rng(0).standard_normal((n, n_vertices)).astype(np.float32) * [3, 1][:n_vertices] + 5
    names = np.array([str(name) for name in stimuli])
    recording = Recording(data.astype(np.float32), "percent signal change", "beta", np.arange(n), runs)
    prompts = tuple(Prompt("", text[0]) for text in texts)
    return Examples(recording, np.arange(n), prompts, tuple(texts), names, names, np.array([f"t{i}" for i in range(n)]))


def allowed_pairs(examples):
    """(n, n) bool by the definition, pair by pair."""
    n = len(examples)
    out = np.zeros((n, n), dtype=bool)
    for i in range(n):
        for j in range(n):
            rows = set(examples.rows[i].ravel()) & set(examples.rows[j].ravel()) - {-1}
            shared = set(examples.references[i]) & set(examples.references[j])
            out[i, j] = examples.stimulus[i] != examples.stimulus[j] and not shared and not rows
    return out


def narrowed(examples):
    """Allowed pairs, those of the own run only where it has any."""
    allowed = allowed_pairs(examples)
    inside = allowed & (examples.run[:, None] == examples.run)
    return np.where(inside.any(axis=1, keepdims=True), inside, allowed)


cases = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 2)), min_size=2, max_size=24)


@settings(max_examples=150, deadline=None)
@given(cases, st.integers(0, 1000), st.sampled_from([4, 256]))
def test_partners_keep_to_the_rules(case, seed, exact):
    stimuli, texts, runs = (np.array(column) for column in zip(*case, strict=True))
    examples = make_examples(stimuli, [(f"text {t}",) for t in texts], runs)
    allowed = narrowed(examples)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EXACT", exact)
        if not allowed.any(axis=1).all():
            with pytest.raises(ValueError, match="every other test example has the stimulus, a text or a volume of t"):
                partners(examples, 3, seed)
            return
        drawn = partners(examples, 3, seed)
    assert allowed[np.arange(len(examples)), drawn].all()
    if exact == 256 and bijection_exists(allowed):
        assert (np.sort(drawn, axis=1) == np.arange(len(examples))).all()


def bijection_exists(allowed):
    """By augmenting paths."""
    owner = {}

    def place(i, seen):
        for j in np.flatnonzero(allowed[i]):
            if j not in seen:
                seen.add(j)
                if j not in owner or place(owner[j], seen):
                    owner[j] = i
                    return True
        return False

    return all(place(i, set()) for i in range(len(allowed)))


def test_partners_are_uniform_over_the_allowed_ones():
    stimuli = np.repeat(np.arange(6), 2)
    examples = make_examples(stimuli, runs=np.tile([0, 1], 6))
    drawn = partners(examples, 4000, 1)
    allowed = narrowed(examples)
    assert (allowed.sum(axis=1) == 5).all()
    counts = np.stack([np.bincount(drawn[:, i], minlength=12) for i in range(12)])
    # Binomial(4000, 1/5) has a standard deviation of 25.
    assert (np.abs(counts[allowed] - 800) < 120).all()
    assert (counts[~allowed] == 0).all()


def test_partners_are_uniform_where_blocks_are_cut(monkeypatch):
    monkeypatch.setattr(module, "EXACT", 5)
    drawn = partners(make_examples(np.arange(16)), 3000, 2)
    counts = np.stack([np.bincount(drawn[:, i], minlength=16) for i in range(16)])
    assert (np.diag(counts) == 0).all()
    assert (np.abs(counts[~np.eye(16, dtype=bool)] - 200) < 75).all()
    assert (np.sort(drawn, axis=1) == np.arange(16)).all()


def test_two_permutations_are_independent():
    drawn = partners(make_examples(np.arange(10)), 2000, 3)
    same = (drawn[1:] == drawn[:-1]).mean()
    assert same == pytest.approx(1 / 9, abs=0.01)


def test_a_dominant_stimulus_leaves_some_to_draw_with_replacement():
    stimuli = [0] * 8 + [1, 2]
    drawn = partners(make_examples(stimuli), 500, 0)
    assert np.isin(drawn[:, :8], [8, 9]).all()
    assert all(np.isin(row, [8, 9]).sum() >= 8 for row in drawn)
    share = (drawn[:, :8] == 8).mean()
    assert share == pytest.approx(0.5, abs=0.05)


def test_the_own_run_is_left_only_by_those_without_a_choice_in_it():
    # Run 0 shows one picture only, run 1 two, run 2 one that is different.
    examples = make_examples([0, 0, 1, 2, 1, 2, 3, 3], runs=[0, 0, 1, 1, 1, 1, 2, 2])
    drawn = partners(examples, 50, 5)
    assert np.isin(drawn[:, 2:6], [2, 3, 4, 5]).all()
    assert np.isin(drawn[:, :2], [6, 7]).all()
    assert (np.sort(drawn, axis=1) == np.arange(8)).all()


def test_texts_count_as_shared_whatever_their_case_and_spacing():
    examples = make_examples([0, 1, 2], [("a dog", "a hound"), ("A  Hound",), ("a cat",)])
    drawn = partners(examples, 100, 0)
    assert (drawn[:, :2] == 2).all()
    assert set(drawn[:, 2]) == {0, 1}


def test_windows_that_share_a_volume_are_no_partners():
    recording = Recording(np.zeros((8, 1), np.float32), "a.u.", "bold", np.arange(8), np.zeros(8))
    names = np.array(list("abcd"))
    rows = np.array([[0, 1], [1, 2], [3, 4], [6, 7]])
    examples = Examples(recording, rows, (Prompt("", "x"),) * 4, tuple((name,) for name in names), names, names, names)
    drawn = partners(examples, 200, 0)
    assert (drawn[:, 0] != 1).all()
    assert (drawn[:, 1] != 0).all()


def test_an_example_that_nobody_differs_from_is_named():
    examples = make_examples([0, 1, 2], [("yes",), ("yes",), ("yes",)])
    with pytest.raises(ValueError, match="a text or a volume of t0, t1, t2"):
        partners(examples, 1, 0)
    with pytest.raises(ValueError, match="of t0;"):
        partners(make_examples([0]), 1, 0)


def test_averaged_examples_of_several_runs_partner_with_each_other():
    examples = make_examples(np.tile(np.arange(5), 2), runs=np.repeat([0, 1], 5))
    (split,) = make_splits(examples, "column", labels=["test"] * 10)
    after = average(split, ["test"]).examples
    assert (after.run == -1).all()
    drawn = partners(after, 20, 0)
    assert (np.sort(drawn, axis=1) == np.arange(5)).all()
    assert (drawn != np.arange(5)).all()


def test_the_first_permutations_do_not_depend_on_how_many_are_drawn():
    examples = make_examples(np.arange(30), runs=np.repeat([0, 1, 2], 10))
    np.testing.assert_array_equal(partners(examples, 3, 9), partners(examples, 7, 9)[:3])
    assert partners(examples, 0, 9).shape == (0, 30)


def test_thousands_of_averaged_examples_are_feasible():
    rng = np.random.default_rng(0)
    n = 4000
    # Nearly half share one text, so that what is left over of the cuts has to be repaired.
    texts = [("cat",) if i < 0.49 * n else (f"text {rng.integers(3000)}",) for i in range(n)]
    examples = make_examples(np.arange(n), texts)
    start = time.process_time()
    drawn = partners(examples, 2, 0)
    assert time.process_time() - start < 10
    assert all(examples.references[i] != examples.references[j] for row in drawn for i, j in enumerate(row))
    assert (np.sort(drawn, axis=1) == np.arange(n)).all()


def test_permuted_moves_brains_and_leaves_texts():
    examples = make_examples(np.arange(6))
    moved = interventions.get("permuted")(examples, 4)
    order = partners(examples, 1, 4)[0]
    np.testing.assert_array_equal(moved.gather(np.arange(6)), examples.gather(order))
    assert moved.references == examples.references
    assert moved.prompts == examples.prompts
    np.testing.assert_array_equal(moved.id, examples.id)


@pytest.mark.parametrize("n_rows", [1, 3])
def test_mean_and_noise_keep_the_moments_of_every_vertex(n_rows):
    rng = np.random.default_rng(1)
    n = 700
    data = (rng.standard_normal((n * n_rows, 3)) * [1, 5, 0] + [1000, -2, 7]).astype(np.float32)
    recording = Recording(data, "a.u.", "bold", np.arange(len(data)), np.zeros(len(data)))
    names = np.array([f"s{i}" for i in range(n)])
    rows = np.arange(len(data)).reshape(n, n_rows)
    examples = Examples(recording, rows, (Prompt("", "x"),) * n, (("x",),) * n, names, names, names)
    true = examples.gather(np.arange(n)).astype(np.float64)
    flat = interventions.get("mean")(examples, 0).gather(np.arange(n))
    np.testing.assert_allclose(flat, np.broadcast_to(true.mean(axis=0), true.shape), atol=1e-3)
    noisy = interventions.get("noise")(examples, 0)
    drawn = noisy.gather(np.arange(n))
    assert drawn.shape == true.shape
    np.testing.assert_allclose(drawn.std(axis=0), true.std(axis=0), rtol=0.12, atol=1e-4)
    np.testing.assert_allclose(drawn.mean(axis=0), true.mean(axis=0), atol=5 * 5 / np.sqrt(n))
    assert (drawn[..., 2] == 7).all()
    assert np.abs(np.corrcoef(drawn[..., 0].ravel(), drawn[..., 1].ravel())[0, 1]) < 0.12


def test_noise_is_the_same_however_it_is_read_and_differs_between_seeds():
    examples = make_examples(np.arange(5))
    noisy = interventions.get("noise")(examples, 1)
    np.testing.assert_array_equal(noisy.gather([3, 1])[0], noisy.gather([0, 3])[1])
    assert not np.array_equal(noisy.gather([3]), interventions.get("noise")(examples, 2).gather([3]))
    np.testing.assert_array_equal(noisy.take([3]).gather([0]), noisy.gather([3]))


@pytest.mark.parametrize("name", ["permuted", "mean", "noise"])
def test_an_intervention_leaves_its_examples_alone(name):
    examples = make_examples(np.arange(5))
    before = dataclasses.replace(examples)
    data = examples.recording.data.copy()
    interventions.get(name)(examples, 0)
    np.testing.assert_array_equal(examples.recording.data, data)
    np.testing.assert_array_equal(examples.rows, before.rows)


def test_exchanges_are_all_orders_of_the_responses_of_a_run_with_equal_probability():
    examples = make_examples(np.arange(7), runs=[0, 0, 0, 1, 1, 1, 1])
    drawn = exchanges(examples, 6000, 0)
    assert (examples.run[drawn] == examples.run).all()
    assert (np.sort(drawn, axis=1) == np.arange(7)).all()
    for members, n_orders in ((slice(0, 3), 6), (slice(3, 7), 24)):
        _, counts = np.unique(drawn[:, members], axis=0, return_counts=True)
        assert len(counts) == n_orders
        assert stats.chisquare(counts).pvalue > 0.001


def test_texts_of_one_response_keep_one_in_an_exchange():
    examples = dataclasses.replace(make_examples(np.arange(9)), rows=np.repeat(np.arange(3), 3))
    drawn = examples.rows[exchanges(examples, 200, 0), 0, 0].reshape(200, 3, 3)
    assert (drawn == drawn[:, :, :1]).all()
    assert (np.sort(drawn[:, :, 0], axis=1) == np.arange(3)).all()
    assert len(np.unique(drawn[:, :, 0], axis=0)) == 6


def test_exchanges_need_whom_partners_need():
    with pytest.raises(ValueError, match="every other test example"):
        exchanges(make_examples(["a", "a"]), 3, 0)
