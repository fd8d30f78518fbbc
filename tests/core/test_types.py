"""The types refuse what would lie later; responses are gathered as a plain loop would, from the rows asked for alone."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm.core.types import CONDITIONS, DECODED_COLUMNS, Affine, Examples, Parcellation, Prompt, Recording, Split
from bids_brainlm.errors import LeakageError

# Four vertices on the left, five on the right.
LABELS = np.array([1, 1, 2, 0, 3, 3, 2, 0, 4])
NAMES = ("a", "b", "c", "d")


def recording(n=12, runs=None, data=None):
    data = np.random.default_rng(0).standard_normal((n, 9)).astype(np.float32) if data is None else data
    runs = np.repeat(np.arange(3), n // 3) if runs is None else runs
    return Recording(data, "percent signal change", "beta", np.arange(n), runs)


def examples(rows, source=None, **changes):
    n = len(rows)
    fields = {
        "recording": recording() if source is None else source,
        "rows": rows,
        "prompts": tuple(Prompt("", f"text {i}") for i in range(n)),
        "references": tuple((f"text {i}",) for i in range(n)),
        "group": [f"g{i}" for i in range(n)],
        "stimulus": [f"s{i}" for i in range(n)],
        "id": [f"t{i}" for i in range(n)],
    }
    return Examples(**{**fields, **changes})


# Parcellation ---------------------------------------------------------------------------------------------------------


def test_a_parcellation_counts_its_parcels():
    parcels = Parcellation("X", "fsaverage", LABELS, NAMES, 4)
    assert parcels.n_parcels == 4
    assert parcels.labels.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        parcels.labels[0] = 2
    assert LABELS.flags.writeable


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.where(LABELS == 4, 5, LABELS)}, r"labels 0\.\.5 of X, but 1\.\.4 have names"),
        ({"labels": LABELS - 1}, r"labels -1\.\.3 of X"),
        ({"labels": np.where(LABELS == 3, 0, LABELS)}, "parcel 'c' of X has no vertex"),
        ({"names": ("a", "b", "b", "d")}, "parcel names repeat in X"),
        ({"labels": LABELS[None]}, r"labels of shape \(1, 9\)"),
        ({"n_left": 10}, "10 in the left hemisphere"),
    ],
)
def test_a_parcellation_refuses(change, message):
    fields = {"name": "X", "space": "fsaverage", "labels": LABELS, "names": NAMES, "n_left": 4, **change}
    with pytest.raises(ValueError, match=message):
        Parcellation(**fields)


# Recording ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.zeros((12, 3, 3))}, r"rows x vertices, got an array of shape \(12, 3, 3\)"),
        ({"kind": "betas"}, "kind 'betas'; expected 'beta' or 'bold'"),
        ({"onset": np.arange(11)}, "12 rows, but 11 onsets and 12 run numbers"),
        ({"run": np.zeros(13)}, "12 rows, but 12 onsets and 13 run numbers"),
        ({"onset": np.r_[0:6, 8, 7, 8:12]}, "onsets do not increase in run 1"),
        ({"onset": np.zeros(12)}, "onsets do not increase in run 0"),
    ],
)
def test_a_recording_refuses(change, message):
    fields = {
        "data": np.zeros((12, 9)),
        "unit": "z",
        "kind": "beta",
        "onset": np.arange(12),
        "run": np.repeat([0, 1], 6),
        **change,
    }
    with pytest.raises(ValueError, match=message):
        Recording(**fields)


def test_onsets_may_begin_anew_in_each_run_and_runs_may_be_mixed():
    onset = np.array([0, 1, 2, 0, 1, 2])
    Recording(np.zeros((6, 2)), "z", "beta", onset, [0, 0, 0, 1, 1, 1])
    Recording(np.zeros((6, 2)), "z", "beta", np.repeat([0, 1, 2], 2), [0, 1, 0, 1, 0, 1])


# Examples -------------------------------------------------------------------------------------------------------------


def test_short_forms_of_rows():
    assert examples(np.arange(5)).rows.shape == (5, 1, 1)
    assert examples(np.arange(4).reshape(2, 2)).rows.shape == (2, 2, 1)
    assert examples(np.arange(4).reshape(2, 1, 2)).rows.shape == (2, 1, 2)


@pytest.mark.parametrize(
    ("rows", "change", "message"),
    [
        ([0, 12], {}, r"rows 0\.\.12, but the recording has 12"),
        ([0, -1], {}, r"rows -1\.\.0"),
        ([0, -2], {}, r"rows -2\.\.0"),
        ([[[-1, 3]]], {}, r"rows -1\.\.3"),
        ([[2, 3], [3, 4]], {}, "crosses the border of two runs"),
        ([[[0, 3], [1, 4]]], {}, "crosses the border of two runs"),
        ([0, 1], {"id": ["t", "t"]}, "example ids repeat"),
        ([0, 1], {"prompts": (Prompt("", ""),)}, r"2 rows, but fields of length \[1, 2\]"),
        ([0, 1], {"references": ()}, r"2 rows, but fields of length \[0, 2\]"),
        ([0, 1], {"group": ["a", "b", "c"]}, r"2 rows, but fields of length \[2, 3\]"),
    ],
)
def test_examples_refuse(rows, change, message):
    with pytest.raises(ValueError, match=message):
        examples(np.array(rows), **change)


def test_repeats_may_come_from_several_runs():
    mixed = examples(np.array([[[0, 4, 8]], [[1, 2, -1]], [[5, -1, -1]]]))
    assert mixed.run.tolist() == [-1, 0, 1]
    windows = examples(np.array([[[0, 4], [1, 5]], [[2, -1], [3, -1]]]))
    assert windows.run.tolist() == [-1, 0]


def naive(chosen, index):
    data, rows = np.asarray(chosen.recording.data), chosen.rows
    means = [[data[[r for r in rows[i, t] if r >= 0]].mean(axis=0) for t in range(rows.shape[1])] for i in index]
    return np.array(means).reshape(len(index), rows.shape[1], data.shape[1])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.lists(st.integers(0, 4), max_size=7), st.integers(0, 99))
def test_responses_are_plain_means_of_repeats(t, m, index, seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 12, size=(5, t, m))
    spare = rng.random((5, 1, m)) < 0.4
    spare[:, :, 0] = False
    chosen = examples(np.where(spare, -1, rows), recording(runs=np.zeros(12)))
    found = chosen.gather(np.array(index, dtype=int))
    assert found.dtype == np.float32
    assert found.shape == (len(index), t, 9)
    np.testing.assert_allclose(found, naive(chosen, index), atol=1e-6)


class Counting:
    """A memory map that remembers which rows were read."""

    def __init__(self, data):
        self.data, self.shape, self.read = data, data.shape, []

    def __getitem__(self, index):
        self.read += np.atleast_1d(index).tolist()
        return self.data[index]


def test_only_the_rows_asked_for_are_read_and_each_once():
    source = Counting(np.random.default_rng(0).standard_normal((12, 9)).astype(np.float32))
    chosen = examples(np.array([[[3, 5]], [[5, 7]], [[9, 10]]]), recording(data=source, runs=np.zeros(12)))
    chosen.gather([1, 0, 1])
    assert sorted(source.read) == [3, 5, 7]


def test_a_missing_repeat_reads_nothing():
    data = np.ones((12, 9), np.float32)
    data[0] = np.nan
    source = Counting(data)
    chosen = examples(np.array([[[3, 5]], [[7, -1]]]), recording(data=source, runs=np.zeros(12)))
    assert np.isfinite(chosen.gather([0, 1])).all()
    assert sorted(source.read) == [3, 5, 7]


def test_a_memory_map_serves(tmp_path):
    data = np.random.default_rng(0).standard_normal((12, 9)).astype(np.float32)
    np.save(tmp_path / "data.npy", data)
    mapped = np.load(tmp_path / "data.npy", mmap_mode="r")
    found = examples(np.arange(12), recording(data=mapped)).gather([4, 2])
    np.testing.assert_array_equal(found[:, 0], data[[4, 2]])
    assert not isinstance(found, np.memmap)
    assert found.flags.writeable


def test_take_keeps_what_belongs_together():
    chosen = examples(np.arange(6)).take([4, 1])
    assert len(chosen) == 2
    assert chosen.rows[:, 0, 0].tolist() == [4, 1]
    assert [prompt.answer for prompt in chosen.prompts] == ["text 4", "text 1"]
    assert chosen.references == (("text 4",), ("text 1",))
    assert [*chosen.group, *chosen.stimulus, *chosen.id] == ["g4", "g1", "s4", "s1", "t4", "t1"]
    assert len(examples(np.arange(6)).take([])) == 0


# Split ----------------------------------------------------------------------------------------------------------------

PARTS = ("train", "validation", "test")


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (1, 2)], ids=str)
@pytest.mark.parametrize("kind", ["example", "group", "recording row"])
def test_a_split_that_leaks_cannot_be_made(kind, pair):
    rows, group = np.arange(9), np.array([f"g{i}" for i in range(9)])
    parts = [np.arange(3), np.arange(3, 6), np.arange(6, 9)]
    one, two = parts[pair[0]], parts[pair[1]]
    if kind == "example":
        two[1] = one[2]
    elif kind == "group":
        group[two[1]] = group[one[2]]
    else:
        rows = np.stack([rows, np.full(9, -1)], axis=1)[:, None]
        rows[one[2], 0, 1] = rows[two[1], 0, 0]
    faulty = examples(rows, recording(runs=np.zeros(12)), group=group)
    message = f"{PARTS[pair[0]]} and {PARTS[pair[1]]} of fold 3 share 1 {kind}(s), e.g. "
    with pytest.raises(LeakageError, match=re.escape(message)):
        Split(faulty, *parts, fold=3)


def test_missing_repeats_are_not_shared():
    rows = np.stack([np.arange(4), np.full(4, -1)], axis=1)[:, None]
    split = Split(examples(rows, recording(runs=np.zeros(12))), [0, 1], [2], [3])
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist(), split.fold) == ([0, 1], [2], [3], 0)


def test_a_negative_index_is_the_example_it_stands_for():
    with pytest.raises(LeakageError, match="share 1 example"):
        Split(examples(np.arange(4)), [0, -1], [], [3])


def test_shared_texts_are_counted_not_refused():
    references = (("a dog", "a hound"), ("a cat",), ("a hound",), ("a bird", "a cat"), ("a fish",))
    split = Split(examples(np.arange(5), references=references), [0, 1], [], [2, 3, 4])
    assert split.shared_texts == 2


# Affine ---------------------------------------------------------------------------------------------------------------


def affine(components=None, fitted=(0, 1)):
    mean, scale = np.arange(9, dtype=np.float32), np.linspace(0.5, 2, 9).astype(np.float32)
    scale[4] = 0
    return Affine(mean, scale, components, np.array(fitted))


def test_the_affine_map_is_a_z_score_and_a_product():
    data = np.random.default_rng(1).standard_normal((2, 3, 9)).astype(np.float32)
    fixed = affine()
    z = np.array([(data[..., v] - v) / fixed.scale[v] if v != 4 else np.zeros((2, 3)) for v in range(9)])
    np.testing.assert_allclose(fixed(data), np.moveaxis(z, 0, -1), rtol=1e-5, atol=1e-6)
    axes = np.random.default_rng(2).standard_normal((9, 4)).astype(np.float32)
    np.testing.assert_allclose(affine(axes)(data), fixed(data) @ axes, rtol=1e-5, atol=1e-5)
    assert (fixed.n_features, affine(axes).n_features) == (9, 4)


def test_what_is_not_finite_becomes_the_mean():
    data = np.ones((1, 9), np.float32)
    data[0, 3], data[0, 4] = np.nan, np.nan
    assert affine()(data)[0, [3, 4]].tolist() == [0, 0]


def test_an_affine_map_refuses():
    with pytest.raises(ValueError, match=r"mean \(9,\) and scale \(8,\)"):
        Affine(np.zeros(9, np.float32), np.ones(8, np.float32), None, np.arange(2))
    with pytest.raises(ValueError, match=r"components \(8, 2\) for 9 vertices"):
        affine(np.zeros((8, 2), np.float32))


def test_features_fitted_outside_training_are_a_leak():
    split = Split(examples(np.arange(6)), [0, 1, 2], [3], [4, 5], fold=1)
    affine(fitted=(0, 2)).refuse_leak(split)
    with pytest.raises(LeakageError, match=r"features of fold 1 were fitted on 2 row\(s\) outside training"):
        affine(fitted=(0, 3, 4)).refuse_leak(split)


def test_types_are_frozen():
    things = [
        (Parcellation("X", "fsaverage", LABELS, NAMES, 4), "name"),
        (recording(), "unit"),
        (examples(np.arange(3)), "rows"),
        (Split(examples(np.arange(3)), [0], [1], [2]), "test"),
        (affine(), "mean"),
    ]
    for thing, name in things:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, name, None)
    for array in (recording().run, recording().onset, examples(np.arange(3)).rows, examples(np.arange(3)).group):
        assert not array.flags.writeable


def test_the_one_schema_of_decoded_text():
    assert list(DECODED_COLUMNS) == [
        "trial_id", "stimulus_id", "fold", "group", "condition", "prompt", "text_true", "text_pred", "nll", "n_tokens",
    ]  # fmt: skip
    assert CONDITIONS == ("true", "permuted", "none")
