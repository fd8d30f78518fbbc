"""z-scores and components equal scikit-learn's; only the named rows are read."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from bids_brainlm.core import features
from bids_brainlm.core.features import center, fit_affine
from bids_brainlm.core.types import Recording


def recording(data):
    return Recording(data, "percent signal change", "beta", np.arange(len(data)), np.zeros(len(data)))


def series(n_rows=60, n_vertices=25):
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((n_rows, 6)) @ rng.standard_normal((6, n_vertices)) * np.linspace(1, 30, n_vertices)
    return (mixed + rng.standard_normal((n_rows, n_vertices)) + 500).astype(np.float32)


@pytest.mark.parametrize("block_bytes", [8 * 25 * 7, 2**26])
def test_z_scores_equal_scikit_learn(block_bytes, monkeypatch):
    monkeypatch.setattr(features, "BLOCK_BYTES", block_bytes)
    data, rows = series(), np.arange(0, 60, 2)
    affine = fit_affine(recording(data), rows)
    scaler = StandardScaler().fit(data[rows].astype(np.float64))
    np.testing.assert_allclose(affine.mean, scaler.mean_, rtol=1e-6)
    np.testing.assert_allclose(affine.scale, scaler.scale_, rtol=1e-5)
    np.testing.assert_allclose(affine(data), scaler.transform(data.astype(np.float64)), atol=1e-3)
    np.testing.assert_array_equal(affine.fitted_rows, rows)


@pytest.mark.parametrize("shape", [(60, 25), (20, 25)])
@pytest.mark.parametrize("block_bytes", [8 * 25 * 7, 2**26])
def test_components_equal_scikit_learn(shape, block_bytes, monkeypatch):
    monkeypatch.setattr(features, "BLOCK_BYTES", block_bytes)
    data = series(*shape)
    affine = fit_affine(recording(data), np.arange(len(data)), n_components=5)
    z = StandardScaler().fit_transform(data.astype(np.float64))
    pca = PCA(5, svd_solver="full").fit(z)
    signs = np.sign((affine.components * pca.components_.T).sum(axis=0))
    np.testing.assert_allclose(affine.components * signs, pca.components_.T, atol=1e-4)
    np.testing.assert_allclose(affine(data) * signs, pca.transform(z), atol=1e-2)
    np.testing.assert_allclose(affine.components.T @ affine.components, np.eye(5), atol=1e-5)
    assert (affine.components[np.abs(affine.components).argmax(axis=0), range(5)] > 0).all()


def test_rows_outside_training_are_never_read():
    data = series()
    rows = np.arange(0, 60, 2)
    poisoned = data.copy()
    poisoned[1::2] = np.nan
    clean, other = fit_affine(recording(data), rows, 4), fit_affine(recording(poisoned), rows, 4)
    np.testing.assert_array_equal(clean.mean, other.mean)
    np.testing.assert_array_equal(clean.scale, other.scale)
    np.testing.assert_array_equal(clean.components, other.components)


def test_rows_of_examples_may_repeat_and_be_padded():
    data = series()
    rows = np.array([[[3, 5, -1]], [[5, 8, 20]]])
    affine = fit_affine(recording(data), rows)
    np.testing.assert_array_equal(affine.fitted_rows, [3, 5, 8, 20])
    np.testing.assert_allclose(affine.mean, data[[3, 5, 8, 20]].mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("n_rows", [60, 15])
def test_constant_and_broken_vertices_become_feature_zero(n_rows, monkeypatch):
    monkeypatch.setattr(features, "BLOCK_BYTES", 8 * 25 * 7)
    data = series(n_rows)
    data[:, 2] = 0.1
    data[2, 4], data[12, 5] = np.nan, np.inf
    affine = fit_affine(recording(data), np.arange(n_rows), 3)
    assert (np.flatnonzero(affine.scale == 0) == [2, 4, 5]).all()
    assert (affine.components[[2, 4, 5]] == 0).all()
    assert np.isfinite(affine.mean).all()


def test_constant_vertices_are_found_whatever_rounding_does_to_their_mean():
    data = np.tile(np.random.default_rng(3).lognormal(0, 3, 500).astype(np.float32), (37, 1))
    data[5, 0] += 1
    assert (np.flatnonzero(fit_affine(recording(data), np.arange(37)).scale) == [0]).all()


def test_a_memory_map_gives_the_same(tmp_path):
    data = series()
    mapped = np.memmap(tmp_path / "betas.dat", dtype=np.float32, mode="w+", shape=data.shape)
    mapped[:] = data
    first, second = (fit_affine(recording(item), np.arange(40), 3) for item in (data, mapped))
    np.testing.assert_array_equal(first.scale, second.scale)
    np.testing.assert_array_equal(first.components, second.components)


def test_too_few_rows_or_too_many_components_are_refused():
    data = series(20)
    with pytest.raises(ValueError, match=r"1 row\(s\)"):
        fit_affine(recording(data), [3])
    with pytest.raises(ValueError, match="20 components of 20 rows and 25 usable vertices; at most 19"):
        fit_affine(recording(data), np.arange(20), 20)
    copies = np.tile(data[:4], (5, 1))
    with pytest.raises(ValueError, match="8 components asked for, but the training rows have only 3"):
        fit_affine(recording(copies), np.arange(20), 8)


def test_centering_removes_the_mean_of_each_label_and_nothing_else():
    data, labels = series(), np.repeat(["b", "a", "c"], 20)
    before = data.copy()
    out = center(data, labels)
    np.testing.assert_array_equal(data, before)
    for label in "abc":
        np.testing.assert_allclose(out[labels == label].mean(axis=0), 0, atol=1e-3)
        np.testing.assert_allclose(np.diff(out[labels == label], axis=0), np.diff(data[labels == label], axis=0), atol=1e-3)
    np.testing.assert_allclose(center(out, labels), out, atol=1e-3)
    assert out.dtype == np.float32


def test_centering_refuses_what_would_leave_nothing():
    with pytest.raises(ValueError, match="label 7 has one row only"):
        center(np.ones((3, 2)), [1, 1, 7])
    with pytest.raises(ValueError, match="3 rows, but 2 labels"):
        center(np.ones((3, 2)), [1, 1])


@pytest.mark.parametrize("block_bytes", [8 * 25 * 7, 2**26])
def test_components_by_iteration_equal_those_of_the_inner_products(block_bytes, monkeypatch):
    data = series(400, 90)
    data[:, 2], data[8, 4] = 3, np.nan
    exact = fit_affine(recording(data), np.arange(0, 400, 2), 5)
    monkeypatch.setattr(features, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(features, "EXACT", 50)
    monkeypatch.setattr(features, "OVERSAMPLED", 10)
    found = fit_affine(recording(data), np.arange(0, 400, 2), 5)
    np.testing.assert_allclose(found.components, exact.components, atol=2e-3)
    assert (found.components[[2, 4]] == 0).all()
    # It ends by the variance captured, long before axes of like variance are told apart; of noise alone there is no more to say.
    noise = recording(np.random.default_rng(1).standard_normal((300, 120)).astype(np.float32))
    fewer = fit_affine(noise, np.arange(300), 20)
    np.testing.assert_allclose(fewer.components.T @ fewer.components, np.eye(20), atol=1e-4)
    monkeypatch.setattr(features, "EXACT", 1000)
    most = fit_affine(noise, np.arange(300), 20)
    assert fewer(noise.data).var(axis=0).sum() >= 0.98 * most(noise.data).var(axis=0).sum()


def test_iteration_refuses_more_components_than_there_are(monkeypatch):
    monkeypatch.setattr(features, "EXACT", 4)
    with pytest.raises(ValueError, match="8 components asked for, but the training rows have only 3"):
        fit_affine(recording(np.tile(series(20)[:4], (5, 1))), np.arange(20), 8)


def test_centering_may_write_over_the_data_and_does_not_depend_on_blocks(monkeypatch):
    data, labels = series(), np.arange(60) % 3
    expected = center(data, labels)
    monkeypatch.setattr(features, "BLOCK_BYTES", 8 * 25 * 7)
    found = data.copy()
    assert center(found, labels, found) is found
    np.testing.assert_allclose(found, expected, atol=1e-4)
