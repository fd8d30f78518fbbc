"""Patches lie where they should: on cortex, apart, in both hemispheres, alike between people."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainlm.simulation.patches import Anatomy, Sheet, patch_maps, surface, volume
from bids_brainlm.simulation.world import FACTORS


@pytest.fixture(scope="module", params=[surface, volume])
def sheet(request: pytest.FixtureRequest) -> Sheet:
    made: Sheet = request.param()
    return made


@pytest.fixture(scope="module")
def anatomy(sheet: Sheet) -> Anatomy:
    return patch_maps(sheet, FACTORS, seed=0)


def test_fsaverage5_has_a_medial_wall() -> None:
    sheet = surface()
    assert sheet.n_vertices == 2 * sheet.n_left == 20484
    assert 0.88 < sheet.cortex.mean() < 0.96
    # The medial wall faces the midline.
    left = sheet.coordinates[: sheet.n_left]
    assert left[~sheet.cortex[: sheet.n_left], 0].mean() > 50


def test_maps_are_positive_smooth_bumps_inside_their_patch(sheet: Sheet, anatomy: Anatomy) -> None:
    assert list(anatomy.maps) == [(factor, word) for factor, words in FACTORS.items() for word in words]
    for (factor, _), weights in anatomy.maps.items():
        assert weights.dtype == np.float32
        assert weights.min() == 0
        assert 0.9 < weights.max() <= 1
        assert not (weights > 0)[~anatomy.patches[factor]].any()
        assert not weights[~sheet.cortex].any()


def test_factors_do_not_share_a_vertex(anatomy: Anatomy) -> None:
    assert np.sum(list(anatomy.patches.values()), axis=0).max() == 1


def test_words_lie_in_both_hemispheres_and_apart(sheet: Sheet, anatomy: Anatomy) -> None:
    for weights in anatomy.maps.values():
        sides = np.bincount(sheet.hemisphere[weights > 0], minlength=2)
        assert sides.min() > 0.4 * sides.max()
    for words in (list(words) for words in FACTORS.values()):
        factor = next(name for name in FACTORS if set(FACTORS[name]) == set(words))
        maps = np.stack([anatomy.maps[factor, word] for word in words])
        overlap = np.corrcoef(maps[:, anatomy.patches[factor]])
        assert (overlap - np.eye(len(words))).max() < 0.7


def test_people_differ_a_little(sheet: Sheet, anatomy: Anatomy) -> None:
    other, same = patch_maps(sheet, FACTORS, seed=0, participant=1), patch_maps(sheet, FACTORS, seed=0)
    for word, weights in anatomy.maps.items():
        np.testing.assert_array_equal(weights, same.maps[word])
        assert 0.5 < np.corrcoef(weights, other.maps[word])[0, 1] < 0.999


def test_patches_that_do_not_fit_are_refused(sheet: Sheet) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        patch_maps(sheet, {f"factor{i}": ["a"] for i in range(60)}, seed=0)


def test_volume_keeps_a_margin_of_air() -> None:
    sheet = volume()
    assert sheet.mask is not None
    assert sheet.affine is not None
    assert sheet.mask.sum() == sheet.n_vertices
    assert not sheet.mask[0].any()
    assert not sheet.mask[:, -1].any()
    where = np.argwhere(sheet.mask) @ sheet.affine[:3, :3].T + sheet.affine[:3, 3]
    np.testing.assert_allclose(where, sheet.coordinates, atol=1e-3)
