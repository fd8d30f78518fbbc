"""Null patches are as large, as strong and as widely spread over parcels as the site, and lie elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from nilearn.datasets import load_fsaverage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from bids_brainlm.insilico.nulls import LIKE, OVERLAP, Places, _Half, elsewhere, null_patches, overlap

Array = np.ndarray


def sphere() -> Places:
    """642 vertices a hemisphere, the first of fsaverage5; parcels of about 40, and a part that is not used."""
    mesh = load_fsaverage("fsaverage5")["sphere"].parts
    points = np.concatenate([np.asarray(mesh[side].coordinates, dtype=float)[:642] for side in ("left", "right")])
    n_left = len(points) // 2
    rng = np.random.default_rng(0)
    label = [KDTree(half[rng.permutation(len(half))[:16]]).query(half)[1] for half in (points[:n_left], points[n_left:])]
    used = points[:, 2] > -80
    return Places(points, n_left, True, used, np.concatenate([label[0] + 1, label[1] + 17]).astype(np.int32))


def cap(places: Places, radius: float = 35.0) -> Array:
    """A bump in both hemispheres, at mirrored places on the used part."""
    centre = np.array([-60.0, 0.0, 80.0])
    apart = [
        np.linalg.norm(places.coordinates[: places.n_left] - centre, axis=1),
        np.linalg.norm(places.coordinates[places.n_left :] - centre * [-1, 1, 1], axis=1),
    ]
    distance = np.concatenate(apart)
    return np.where(distance < radius, 1 - distance / radius, 0).astype(np.float32)


def test_spun_patches_match_and_do_not_overlap() -> None:
    places = sphere()
    site = cap(places)
    patches = null_patches(site, places, 60, (0,))
    assert len(patches) == 60
    assert max(overlap(patch, site != 0) for patch in patches) <= OVERLAP
    assert not (patches[:, ~places.used] != 0).any()
    norms = np.array([places.norm(patch) for patch in patches])
    np.testing.assert_allclose(norms, places.norm(site), rtol=1e-5)
    touched = np.array([places.touched(patch) for patch in patches])
    assert (touched <= LIKE * places.touched(site)).all()
    assert (touched >= places.touched(site) / LIKE).all()
    size = (patches != 0).sum(axis=1) / (site != 0).sum()
    assert 0.7 < size.min() < size.max() < 1.4
    # Everywhere on the sphere, and one patch a hemisphere: values fall off with the distance from the largest.
    peaks = np.array([places.coordinates[patch[: places.n_left].argmax()] for patch in patches])
    assert (np.ptp(peaks, axis=0) > 120).all()
    for patch in patches[:5]:
        half = patch[: places.n_left]
        apart = np.linalg.norm(places.coordinates[: places.n_left] - places.coordinates[half.argmax()], axis=1)
        assert apart[half > 0].max() < 60


def test_hemispheres_are_turned_in_mirror_image() -> None:
    places = sphere()
    for patch in null_patches(cap(places), places, 10, (1,)):
        left, right = (half.argmax() for half in (patch[: places.n_left], patch[places.n_left :]))
        mirrored = places.coordinates[left] * [-1, 1, 1]
        assert np.linalg.norm(mirrored - places.coordinates[places.n_left + right]) < 25


def test_what_is_left_out_of_a_turn_is_zero() -> None:
    """Only vertices near the turned patch are looked at; all of them give the same."""
    places, turn = sphere(), Rotation.from_euler("xyz", [0.4, 1.1, 2.0]).as_matrix()
    points = places.coordinates[: places.n_left] / np.linalg.norm(places.coordinates[: places.n_left], axis=1, keepdims=True)
    for values in (cap(places)[: places.n_left], np.ones(places.n_left, np.float32), np.zeros(places.n_left, np.float32)):
        whole = values[KDTree(points).query(points @ turn)[1]]
        np.testing.assert_array_equal(_Half.of(points, values).turned(turn), whole)


def test_patches_of_a_volume_are_contiguous() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(12.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    used = grid[:, 0] > 0
    site = np.zeros(len(grid), np.float32)
    site[np.linalg.norm(grid - [3, 3, 3], axis=1) < 2] = 2
    places = Places(grid, len(grid), False, used, np.ones(len(grid), np.int32))
    patches = null_patches(site, places, 20, (0,))
    assert ((patches != 0).sum(axis=1) == (site != 0).sum()).all()
    assert (patches[:, ~used] == 0).all()
    for patch in patches:
        inside = grid[patch != 0]
        assert np.linalg.norm(inside - inside.mean(axis=0), axis=1).max() < 4


def test_a_scattered_site_of_a_volume_has_scattered_patches() -> None:
    """A ball of 7, a row of 3 and a lone voxel, far apart: patches are as scattered, and as strong in each part."""
    grid = np.stack(np.meshgrid(*[np.arange(16.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    site = np.zeros(len(grid), np.float32)
    site[np.linalg.norm(grid - [3, 3, 3], axis=1) <= 1] = 3
    site[(np.abs(grid - [12, 12, 3]) <= [1, 0, 0]).all(axis=1)] = 2
    site[(grid == [3, 12, 12]).all(axis=1)] = 1
    places = Places(grid, len(grid), False, np.ones(len(grid), bool), np.ones(len(grid), np.int32))
    patches = null_patches(site, places, 40, (0,))
    assert len(patches) == 40
    n_parts = []
    for patch in patches:
        np.testing.assert_allclose(np.sort(patch[patch != 0]), np.sort(site[site != 0]), rtol=1e-6)
        inside = grid[patch != 0]
        near = KDTree(inside).query_pairs(1.01 * 3**0.5, output_type="ndarray")
        links = coo_array((np.ones(len(near)), near.T), shape=(len(inside),) * 2)
        n_parts.append(connected_components(links, directed=False)[0])
        for value, extent in ((3, 3.5), (2, 3.5)):
            part = grid[np.isclose(patch, value)]
            assert np.linalg.norm(part - part.mean(axis=0), axis=1).max() < extent
    assert max(n_parts) == 3
    assert np.mean(n_parts) > 2.5


@pytest.mark.parametrize("n", [1, 3])
def test_for_whole_parcels_they_are_other_parcels(n: int) -> None:
    places = sphere()
    site = (np.isin(places.parcels, range(1, n + 1)) & places.used).astype(np.float32)
    patches = null_patches(site, places, 500, (0,))
    known = np.unique(places.parcels[places.used])
    assert 12 < len(patches) < known.size
    assert len(np.unique(patches != 0, axis=0)) == len(patches)
    for patch in patches:
        own = np.unique(places.parcels[patch != 0])
        assert (own.size, (patch[np.isin(places.parcels, own) & places.used] != 0).all()) == (n, True)
        assert places.norm(patch) == pytest.approx(places.norm(site), rel=1e-5)
        assert not np.intersect1d(own, range(1, n + 1)).size


def test_a_wrong_region_is_no_site() -> None:
    places = sphere()
    site = cap(places)
    other = null_patches(site, places, 1, (9,))[0]
    found = elsewhere(site, places, np.stack([site, other]), (0,))
    assert found is not None
    assert overlap(found, (site != 0) | (other != 0)) <= OVERLAP
    assert elsewhere(np.ones(site.size, np.float32), places, site[None], (0,)) is None


def test_overlap_is_a_share_of_strength() -> None:
    patch, taken = np.array([3.0, 4.0, 0.0], np.float32), np.array([True, False, True])
    assert overlap(patch, taken) == pytest.approx(9 / 25)
    assert overlap(np.zeros(3, np.float32), taken) == 0


def test_seeds_decide() -> None:
    places = sphere()
    one, again, other = (null_patches(cap(places), places, 3, seed) for seed in ((0, 1), (0, 1), (0, 2)))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@pytest.mark.parametrize("pattern", [0.0, 1.0])
def test_where_there_is_no_room_there_are_fewer(pattern: float) -> None:
    places = sphere()
    assert len(null_patches(np.full(places.used.size, pattern, np.float32), places, 3, (0,))) == 0
