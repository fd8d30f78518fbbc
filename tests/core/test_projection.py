"""Projection against nilearn, plain loops, fields with a closed form, and planted faults."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nilearn.surface import InMemoryMesh, vol_to_surf
from scipy.sparse import csr_array, eye_array

from bids_brainlm.core.design import nuisance, trial_design
from bids_brainlm.core.glm import lsa
from bids_brainlm.core.projection import DEPTHS, Projection, both, compose, good_voxels, masked, ribbon_matrix

SHAPE = (9, 8, 7)
AFFINE = np.array([[-2.1, 0.3, 0.1, 9.0], [0.2, 2.5, -0.4, -8.0], [0.1, 0.5, 3.0, -10.0], [0, 0, 0, 1.0]])
"""Oblique, of unequal voxels, with a flipped axis."""


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def to_mm(voxels: np.ndarray) -> np.ndarray:
    return voxels @ AFFINE[:3, :3].T + AFFINE[:3, 3]


def surfaces(rng: np.random.Generator, n: int, margin: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """White and pial vertices at random places, at least ``margin`` voxels within the outermost voxel centres."""
    low, high = np.full(3, margin), np.array(SHAPE) - 1 - margin
    return to_mm(rng.uniform(low, high, (n, 3))), to_mm(rng.uniform(low, high, (n, 3)))


def mesh(points: np.ndarray) -> InMemoryMesh:
    return InMemoryMesh(points.astype(np.float64), np.array([[0, 1, 2]]))


def rows(image: np.ndarray) -> np.ndarray:
    return image.reshape(-1, image.shape[3], order="F").T


def nilearns(image: np.ndarray, white: np.ndarray, pial: np.ndarray, **settings: Any) -> np.ndarray:
    return vol_to_surf(nib.Nifti1Image(image, AFFINE), mesh(pial), inner_mesh=mesh(white), **settings).T


def test_a_linear_field_is_read_exactly(rng: np.random.Generator) -> None:
    white, pial = surfaces(rng, 50)
    voxels = np.stack(np.indices(SHAPE), axis=-1).reshape(-1, 3)
    field = to_mm(voxels) @ [0.3, -0.2, 0.5] + 7
    image = field.reshape(*SHAPE, 1)
    found = Projection(ribbon_matrix(white, pial, AFFINE, SHAPE), 50).apply(rows(image))[0]
    np.testing.assert_allclose(found, (white + pial) / 2 @ [0.3, -0.2, 0.5] + 7, rtol=1e-5)
    near_pial = Projection(ribbon_matrix(white, pial, AFFINE, SHAPE, (1.0,)), 50).apply(rows(image))[0]
    np.testing.assert_allclose(near_pial, pial @ [0.3, -0.2, 0.5] + 7, rtol=1e-5)


@pytest.mark.parametrize("depths", [DEPTHS, (0.5,), (0.1, 0.7, 0.9)])
@pytest.mark.parametrize("margin", [0.0, -1.5])
def test_linear_equals_nilearn_to_the_border_and_beyond(
    rng: np.random.Generator, depths: tuple[float, ...], margin: float
) -> None:
    white, pial = surfaces(rng, 400, margin)
    image = rng.normal(100, 10, (*SHAPE, 3)).astype(np.float32)
    expected = nilearns(image, white, pial, depth=[1 - depth for depth in depths])
    found = Projection(ribbon_matrix(white, pial, AFFINE, SHAPE, depths), 200).apply(rows(image))
    assert np.isnan(expected).any() == (margin < 0)
    # Extrapolated weights are up to 8 times as large as their sum, and so is what float32 rounds.
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-4 * (margin < 0))


def test_nearest_equals_nilearn_at_one_depth_and_a_loop_at_several(rng: np.random.Generator) -> None:
    white, pial = surfaces(rng, 60)
    image = rng.normal(100, 10, (*SHAPE, 2)).astype(np.float32)
    one = Projection(ribbon_matrix(white, pial, AFFINE, SHAPE, (0.25,), "nearest"), 60).apply(rows(image))
    np.testing.assert_allclose(one, nilearns(image, white, pial, depth=[0.75], interpolation="nearest_most_frequent"), rtol=1e-6)
    several = Projection(ribbon_matrix(white, pial, AFFINE, SHAPE, (0.0, 0.5, 1.0), "nearest"), 60).apply(rows(image))
    for vertex in range(60):
        places = [white[vertex] + depth * (pial[vertex] - white[vertex]) for depth in (0.0, 0.5, 1.0)]
        voxels = [np.rint(np.linalg.solve(AFFINE, [*place, 1])[:3]).astype(int) for place in places]
        np.testing.assert_allclose(several[:, vertex], np.mean([image[tuple(voxel)] for voxel in voxels], axis=0), rtol=1e-6)


def test_rows_sum_to_one_and_a_vertex_outside_has_no_value(rng: np.random.Generator) -> None:
    white, pial = surfaces(rng, 30)
    white[3], pial[3] = to_mm(np.array([-4.0, 2, 2])), to_mm(np.array([-3.0, 2, 2]))
    projection = Projection(ribbon_matrix(white, pial, AFFINE, SHAPE), 30)
    np.testing.assert_allclose(projection.matrix.sum(axis=1), np.arange(30) != 3)
    assert np.flatnonzero(projection.empty).tolist() == [3]
    assert np.isnan(projection.apply(np.ones((2, projection.matrix.shape[1])))[:, 3]).all()


def test_either_order_of_memory(rng: np.random.Generator) -> None:
    white, pial = surfaces(rng, 40)
    image = rng.normal(size=(*SHAPE, 5))
    first = Projection(ribbon_matrix(white, pial, AFFINE, SHAPE), 40)
    last = Projection(ribbon_matrix(white, pial, AFFINE, SHAPE, order="C"), 40)
    expected = (first.matrix @ rows(image).T).T
    fortran = np.asfortranarray(image)
    assert np.shares_memory(rows(fortran), fortran)
    np.testing.assert_allclose(first.apply(rows(fortran)), expected, atol=1e-5)
    np.testing.assert_allclose(first.apply(rows(image)), expected, atol=1e-5)
    c_rows = image.reshape(-1, 5).T
    assert np.shares_memory(c_rows, image)
    np.testing.assert_allclose(last.apply(c_rows), expected, atol=1e-5)
    np.testing.assert_allclose(first.compact.apply(rows(image)[:, first.columns]), expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"\(5, 503\); expected \(T, 504\)"):
        first.apply(rows(image)[:, 1:])


def test_projection_and_estimation_commute(rng: np.random.Generator) -> None:
    white, pial = surfaces(rng, 50)
    projection = Projection(ribbon_matrix(white, pial, AFFINE, SHAPE), 50)
    frames = 2.0 * np.arange(60)
    trials = trial_design(np.arange(4, 100, 8.0), np.ones(12), frames)
    bold = rng.normal(100, 5, (60, int(np.prod(SHAPE)))).astype(np.float32)
    others = nuisance(frames, 1 / 128, rng.normal(size=(60, 2)))
    after = projection.apply(lsa(bold, trials, others))
    before = lsa(projection.apply(bold), trials, others)
    assert np.abs(before).max() > 1
    np.testing.assert_allclose(after, before, atol=2e-3)


def test_left_stands_before_right(rng: np.random.Generator) -> None:
    sides = [ribbon_matrix(*surfaces(rng, n), AFFINE, SHAPE) for n in (4, 5)]
    data = rng.normal(size=(3, int(np.prod(SHAPE))))
    joined = both(*sides)
    assert (joined.n_left, joined.n_out) == (4, 9)
    np.testing.assert_allclose(joined.apply(data), np.hstack([(side @ data.T).T for side in sides]), atol=1e-5)


def test_what_is_left_out_has_no_influence(rng: np.random.Generator) -> None:
    white, pial = surfaces(rng, 200)
    projection = Projection(ribbon_matrix(white, pial, AFFINE, SHAPE), 200)
    usable = rng.random(projection.matrix.shape[1]) > 0.5
    without = projection.over(usable)
    data = np.full((1, usable.size), 3.0)
    data[:, ~usable] = np.nan
    assert np.isnan(projection.apply(data)).all()
    with np.errstate(invalid="ignore"):
        full = projection.matrix.toarray() @ usable > 0
    np.testing.assert_allclose(without.apply(data)[0], np.where(full, 3.0, np.nan), rtol=1e-6)


def test_native_mesh_then_another_mesh_is_one_matrix(rng: np.random.Generator) -> None:
    ribbon = csr_array(np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0.5, 0.5]]))
    resample = csr_array(np.array([[0.25, 0.75, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 1.0, 0], [0, 0, 0.1, 0.9]]))
    data = np.array([[8.0, 4.0, 2.0]])
    joined = Projection(compose(resample, ribbon), 4)
    # Vertex 2 of the mesh lies outside the volume: what else a target has counts fully.
    np.testing.assert_allclose(joined.apply(data), [[5, 4, np.nan, 3]])
    cortex = np.array([True, False, True, True])
    np.testing.assert_allclose(Projection(compose(resample, ribbon, cortex), 4).apply(data), [[8, np.nan, np.nan, 3]])
    kept = masked(csr_array(eye_array(3)), np.array([True, False, True]))
    np.testing.assert_allclose(Projection(kept, 3).apply(data), [[8, np.nan, 2]])


def ribbon_series(rng: np.random.Generator, shape: tuple[int, int, int], gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Series (T, n) of a slab of voxels with noise of 1 % times the gain (n,), and their flat index."""
    where = np.zeros(shape, bool)
    where[:, :, 4:7] = True
    index = np.flatnonzero(where.ravel(order="F"))
    return 1000 + 10 * gain * rng.normal(size=(100, index.size)), index


def test_planted_noisy_voxels_are_left_out(rng: np.random.Generator) -> None:
    shape, affine = (20, 20, 10), np.diag([2.0, 2, 2, 1])
    gain = np.ones(1200)
    faulty = rng.choice(1200, 40, replace=False)
    gain[faulty] = 6
    series, index = ribbon_series(rng, shape, gain)
    good = good_voxels(series, index, affine, shape)
    assert not good[faulty].any()
    assert good[np.setdiff1d(np.arange(1200), faulty)].mean() > 0.97
    series[:, 0], series[:, 1], series[0, 2] = 5.0, 0.0, np.nan
    assert not good_voxels(series, index, affine, shape)[:3].any()


def test_noise_is_judged_by_its_neighbourhood(rng: np.random.Generator) -> None:
    shape, affine = (40, 20, 10), np.diag([3.0, 3, 3, 1])
    where = np.zeros(shape, bool)
    where[:, :, 4:7] = True
    index = np.flatnonzero(where.ravel(order="F"))
    # Noise grows along the first axis, tenfold: a limit for the whole brain would cut that end off.
    x = np.unravel_index(index, shape, order="F")[0]
    gain = 10.0 ** (x / 39)
    series, _ = ribbon_series(rng, shape, gain)
    good = good_voxels(series, index, affine, shape)
    quiet, noisy = (x > 3) & (x < 12), (x > 28) & (x < 37)
    assert (gain[noisy] > gain.mean() + 0.5 * gain.std()).all()
    assert abs(good[noisy].mean() - good[quiet].mean()) < 0.1


def test_a_ribbon_of_equal_noise_loses_nothing() -> None:
    series = 100 + np.outer(np.sin(np.arange(50)), np.ones(12))
    assert good_voxels(series, np.arange(12), np.eye(4), (3, 2, 2)).all()


def test_surfaces_that_do_not_fit(rng: np.random.Generator) -> None:
    white, pial = surfaces(rng, 5)
    with pytest.raises(ValueError, match=r"\(5, 3\) and \(4, 3\)"):
        ribbon_matrix(white, pial[1:], AFFINE, SHAPE)
    with pytest.raises(ValueError, match="'cubic' at 6 depths; expected one of linear, nearest"):
        ribbon_matrix(white, pial, AFFINE, SHAPE, interpolation="cubic")
    with pytest.raises(ValueError, match="at 0 depths"):
        ribbon_matrix(white, pial, AFFINE, SHAPE, ())
