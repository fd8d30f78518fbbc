"""Encoding models against plain correlations and brute permutation, a planted place, and noise."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainlm.core.interventions import exchanges
from bids_brainlm.core.types import Affine, Examples, Parcellation, Prompt, Recording
from bids_brainlm.evaluation.resampling import of_folds
from bids_brainlm.insilico import encoding
from bids_brainlm.models.fusion import Features

WORDS = ("dog", "cat", "horse", "bird")


def _examples(data: np.ndarray, said: np.ndarray, repeats: int = 1) -> Examples:
    """Trials of pictures of animals, in runs of 20; ``repeats`` trials have one group and text."""
    n = len(data)
    texts = [f"a {WORDS[word]}" for word in said]
    group = np.array([f"s{i // repeats:03d}" for i in range(n)])
    recording = Recording(
        data.astype(np.float32), "percent signal change", "beta", np.arange(n, dtype=np.float64), np.arange(n) // 20
    )
    prompts = tuple(Prompt("", text) for text in texts)
    references = tuple((text,) for text in texts)
    return Examples(recording, np.arange(n), prompts, references, group, group, np.array([f"t{i:03d}" for i in range(n)]))


def _features(data: np.ndarray) -> Features:
    return Features(Affine(data.mean(0).astype(np.float32), data.std(0).astype(np.float32), None, np.arange(len(data))))


def _atlas(n_vertices: int, size: int) -> Parcellation:
    """Parcels of equal size; the first vertex is in none."""
    labels = np.arange(n_vertices, dtype=np.int32) // size + 1
    labels[0] = 0
    return Parcellation("test", "none", labels, tuple(f"p{i}" for i in range(labels.max())), n_vertices)


def _fit(examples: Examples, features: Features, atlas: Parcellation, n: int = 200) -> tuple[list[encoding.Held], encoding.Fit]:
    vectors = encoding.text_vectors(examples.references)
    responses = encoding.parcel_responses(examples, features, atlas)
    parts = encoding.held_out(vectors, responses, examples.group)
    return parts, encoding.fit_of(parts, examples, features, atlas, n, 0)


def test_fit_and_p_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    said = rng.integers(4, size=60)
    data = rng.standard_normal((60, 13)) + 0.4 * np.eye(4)[said] @ rng.standard_normal((4, 13))
    data[3, 5] = np.nan
    examples, atlas = _examples(data, said), _atlas(13, 4)
    features = _features(np.nan_to_num(data))
    parts, fit = _fit(examples, features, atlas, 99)
    z = np.nan_to_num((data - features.mean.numpy()) * features.gain.numpy())
    predicted, measured, orders = np.zeros((60, 13)), np.zeros((60, 13)), np.zeros((99, 60), int)
    for number, part in enumerate(parts):
        guess = part.hat @ z[part.fit]
        predicted[part.held], measured[part.held] = guess - guess.mean(0), z[part.held] - z[part.held].mean(0)
        orders[:, part.held] = part.held[exchanges(examples.take(part.held), 99, number)]
    for parcel in range(atlas.n_parcels):
        inside = atlas.labels == parcel + 1
        r = np.corrcoef(predicted[:, inside].ravel(), measured[:, inside].ravel())[0, 1]
        null = [np.corrcoef(predicted[:, inside].ravel(), measured[order][:, inside].ravel())[0, 1] for order in orders]
        assert fit.r[parcel] == pytest.approx(r, abs=1e-6)
        assert fit.p_value[parcel] == pytest.approx((1 + (of_folds(null, len(parts)) >= r).sum()) / 100)


def test_vertices_may_come_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    data = rng.standard_normal((60, 40))
    examples, atlas, features = _examples(data, rng.integers(4, size=60)), _atlas(40, 7), _features(data)
    _, whole = _fit(examples, features, atlas)
    monkeypatch.setattr(encoding, "MOST", 5 * 60)
    _, some = _fit(examples, features, atlas)
    np.testing.assert_allclose(some.r, whole.r, atol=1e-9)
    np.testing.assert_array_equal(some.p_value, whole.p_value)


def test_groups_are_held_out_whole_and_all_of_them_once() -> None:
    rng = np.random.default_rng(2)
    data = rng.standard_normal((80, 8))
    examples = _examples(data, np.repeat(rng.integers(4, size=40), 2), repeats=2)
    parts, _ = _fit(examples, _features(data), _atlas(8, 4), 9)
    assert sorted(np.concatenate([part.held for part in parts])) == list(range(80))
    for part in parts:
        assert not set(examples.group[part.fit]) & set(examples.group[part.held])
        # Ridge with an intercept: what is predicted from equal responses is that response.
        np.testing.assert_allclose(part.hat.sum(axis=1), 1, atol=1e-9)


def test_a_parcel_that_answers_every_word_alike_in_its_mean_is_found_by_its_pattern() -> None:
    rng = np.random.default_rng(6)
    said = rng.integers(4, size=200)
    data = rng.standard_normal((200, 41))
    data[:, 8:12] += 2 * np.eye(4)[said]  # one vertex a word, in one parcel
    atlas = _atlas(41, 4)
    _, fit = _fit(_examples(data, said), _features(data), atlas, 999)
    assert set(atlas.labels[8:12]) == {3}
    assert np.flatnonzero(fit.q_value <= 0.05).tolist() == [2]
    assert fit.r[2] > 0.4 > 0.1 > np.delete(fit.r, 2).max()


def test_the_main_pattern_is_what_tells_words_apart() -> None:
    rng = np.random.default_rng(7)
    said = rng.integers(4, size=400)
    data = rng.standard_normal((400, 13))
    data[:, 1] = 1.0  # not used
    data[:, 2:4] += 2 * (said == 0)[:, None] * np.array([1, -0.5])
    examples, features = _examples(data, said), _features(data)
    uses = np.eye(4)[said]
    atlas = _atlas(13, 6)
    pattern = encoding.main_pattern(examples, features, atlas, uses)
    first = pattern[1:6]
    assert pattern[:2].tolist() == [0, 0]
    assert (first**2).sum() == pytest.approx(4, rel=1e-5)
    assert first[1] / first[2] == pytest.approx(-2, rel=0.3)
    assert np.abs(first[3:]).max() < 0.3
    assert all(pattern[atlas.labels == number].sum() > 0 for number in (1, 2, 3))
    # Along it, responses to that word differ from those to others more than along any other pattern.
    along, even = (encoding.parcel_responses(examples, features, atlas, of)[:, 0] for of in (pattern, None))
    gap = [abs(values[said == 0].mean() - values[said != 0].mean()) / values.std() for values in (along, even)]
    assert gap[0] > 1.5 * gap[1]


def test_noise_has_p_values_that_are_not_too_small() -> None:
    rng = np.random.default_rng(4)
    found = []
    for _ in range(3):
        data = rng.standard_normal((120, 400))
        examples = _examples(data, np.repeat(rng.integers(4, size=40), 3), repeats=3)
        found.append(_fit(examples, _features(data), _atlas(400, 4), 99)[1].p_value)
    assert (np.concatenate(found) <= 0.05).mean() < 0.07


def test_a_constant_parcel_has_no_fit() -> None:
    rng = np.random.default_rng(5)
    data = rng.standard_normal((60, 9))
    data[:, 4:8] = 1.0
    _, fit = _fit(_examples(data, rng.integers(4, size=60)), _features(data), _atlas(9, 4), 9)
    assert np.isnan([fit.r[1], fit.p_value[1], fit.q_value[1]]).all()
    assert np.isfinite(fit.p_value[[0, 2]]).all()


def test_texts_of_an_example_are_averaged() -> None:
    vectors = encoding.text_vectors([("a dog", "a cat"), ("a cat",), ("a dog",)])
    np.testing.assert_allclose(vectors[0], (vectors[1] + vectors[2]) / 2, atol=1e-6)


def test_two_groups_are_too_few() -> None:
    with pytest.raises(ValueError, match="needs three"):
        encoding.held_out(np.eye(4, dtype=np.float32), np.eye(4), np.array(["a", "a", "b", "b"]))
