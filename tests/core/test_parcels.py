"""Means by a plain loop, coverage by counting, and the hemispheres stay apart."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainlm.core.parcels import only, parcel_means, to_density
from bids_brainlm.core.types import Parcellation

# Four left and five right vertices, so that a hemisphere swap cannot pass.
PARCELS = Parcellation("test", "fsaverage", [1, 1, 0, 2, 2, 3, 3, 3, 4], ("a", "b", "c", "d"), 4)


def test_means_equal_a_loop_over_parcels():
    data = np.random.default_rng(0).standard_normal((200, 9)).astype(np.float32)
    valid = np.array([1, 1, 1, 0, 1, 1, 0, 1, 0], dtype=bool)
    data[:, ~valid] = np.nan
    means, coverage = parcel_means(data, PARCELS, valid)
    for parcel in (1, 2, 3):
        np.testing.assert_allclose(means[:, parcel - 1], np.nanmean(data[:, PARCELS.labels == parcel], axis=1), atol=1e-6)
    assert np.isnan(means[:, 3]).all()
    np.testing.assert_allclose(coverage, [1, 0.5, 2 / 3, 0])
    assert means.dtype == np.float32


def test_constant_parcels_keep_their_value_and_no_valid_vertex_gives_no_mean():
    data = np.tile(np.array([0, 7, 8, 9, 10])[PARCELS.labels], (2, 1)).astype(np.float32)
    means, coverage = parcel_means(data, PARCELS, np.ones(9, dtype=bool))
    np.testing.assert_array_equal(means, [[7, 8, 9, 10]] * 2)
    assert (coverage == 1).all()
    means, coverage = parcel_means(data, PARCELS, np.zeros(9, dtype=bool))
    assert np.isnan(means).all()
    assert (coverage == 0).all()


def test_a_value_that_is_not_finite_spoils_only_its_own_row_and_parcel():
    data = np.ones((3, 9), dtype=np.float32)
    data[1, 5] = np.nan
    means, _ = parcel_means(data, PARCELS, np.ones(9, dtype=bool))
    np.testing.assert_array_equal(np.isnan(means), [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])


def test_vertices_must_agree():
    with pytest.raises(ValueError, match="8 vertices of data, 9 of the mask, 9 of test"):
        parcel_means(np.ones((2, 8)), PARCELS, np.ones(9, dtype=bool))


def test_density_cuts_each_hemisphere():
    left, right = np.arange(10242), -np.arange(10242) - 1
    array = np.stack([np.concatenate([left, right])] * 3)
    cut = to_density(array, 10242, 2562)
    np.testing.assert_array_equal(cut, np.stack([np.concatenate([left[:2562], right[:2562]])] * 3))
    assert to_density(array, 10242, 10242) is array


@pytest.mark.parametrize(
    ("n_left", "n_right", "target", "message"),
    [
        (2562, 2562, 10242, "can only be lowered"),
        (10242, 10000, 2562, "10242 left and 10000 right"),
        (9000, 9000, 2562, "fsaverage has"),
        (10242, 10242, 3000, "to 3000 each"),
    ],
)
def test_other_meshes_are_refused(n_left, n_right, target, message):
    with pytest.raises(ValueError, match=message):
        to_density(np.zeros(n_left + n_right), n_left, target)


@pytest.mark.parametrize(
    ("patterns", "names", "labels"),
    [
        (["b"], ("b",), [0, 0, 0, 1, 1, 0, 0, 0, 0]),
        (["D", "a"], ("a", "d"), [1, 1, 0, 0, 0, 0, 0, 0, 2]),
        (["a", "?"], ("a", "b", "c", "d"), PARCELS.labels.tolist()),
        (["*"], ("a", "b", "c", "d"), PARCELS.labels.tolist()),
    ],
)
def test_chosen_parcels_keep_their_vertices_and_others_have_none(patterns, names, labels):
    chosen = only(PARCELS, patterns)
    assert chosen.names == names
    assert chosen.labels.tolist() == labels
    assert (chosen.name, chosen.space, chosen.n_left) == (PARCELS.name, PARCELS.space, PARCELS.n_left)


def test_a_pattern_without_a_parcel_is_refused():
    with pytest.raises(ValueError, match=r"no parcel of test is named 'e\*'"):
        only(PARCELS, ["a", "e*"])
    with pytest.raises(ValueError, match=r"is named '\[ab\]'"):
        only(PARCELS, ["[ab]"])
