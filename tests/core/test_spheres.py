"""Resampling between spheres: closed forms on meshes whose triangles are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from bids_brainlm.core.spheres import barycentric, nearest, over_valid

OCTAHEDRON = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1]], dtype=float)
FACES = np.array([[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]])


def scattered(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A sphere of random points, badly shaped triangles included, and its faces."""
    points = np.random.default_rng(seed).standard_normal((n, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points, ConvexHull(points).simplices


def inside(source: np.ndarray, faces: np.ndarray, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A point in every triangle, as far from the centre as the triangle is."""
    weights = np.random.default_rng(seed).dirichlet((1, 1, 1), len(faces))
    return np.einsum("fi,fij->fj", weights, source[faces]), weights


def test_known_triangle() -> None:
    weights = np.array([0.2, 0.3, 0.5])
    row = barycentric(weights[None] * 40, OCTAHEDRON * 100, FACES).toarray()[0]
    np.testing.assert_allclose(row, [0.2, 0.3, 0.5, 0, 0, 0], atol=1e-15)


@pytest.mark.parametrize("n", [30, 2000])
def test_linear_functions_on_triangles_are_reproduced(n: int) -> None:
    source, faces = scattered(n)
    points, weights = inside(source, faces)
    matrix = barycentric(points * 7, source, faces)
    values = np.random.default_rng(2).standard_normal((n, 4))
    np.testing.assert_allclose(matrix @ values, np.einsum("fi,fik->fk", weights, values[faces]), atol=1e-8)


def test_weights_are_shares() -> None:
    source, faces = scattered(500)
    matrix = barycentric(scattered(3000, 5)[0], source, faces)
    assert matrix.data.min() > 0
    assert np.diff(matrix.indptr).max() <= 3
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-14)
    # What is interpolated lies in the direction of the point it is for.
    met = matrix @ source
    met /= np.linalg.norm(met, axis=1, keepdims=True)
    np.testing.assert_allclose(met, scattered(3000, 5)[0], atol=1e-7)


def test_a_point_on_a_vertex_takes_its_value() -> None:
    source, faces = scattered(400)
    order = np.random.default_rng(3).permutation(400)
    for matrix in (barycentric(source[order] * 3, source, faces), nearest(source[order] * 3, source)):
        np.testing.assert_array_equal(matrix.toarray(), np.eye(400)[order])


def test_orientation_of_faces_does_not_matter() -> None:
    source, faces = scattered(300)
    target = scattered(200, 9)[0]
    turned = faces[:, ::-1].copy()
    difference = barycentric(target, source, faces) - barycentric(target, source, turned)
    assert abs(difference).max() < 1e-12


def test_nearest_is_the_largest_cosine() -> None:
    source, target = scattered(300)[0], scattered(100, 4)[0]
    np.testing.assert_array_equal(nearest(target, source * 100).indices, (target @ source.T).argmax(axis=1))


def test_invalid_vertices_are_left_out() -> None:
    valid = np.array([True, False, True, False, True, True])
    target = np.array([[0.2, 0.3, 0.5], [-0.1, 0.9, 0.0]])
    matrix = barycentric(target, OCTAHEDRON, FACES, valid)
    np.testing.assert_allclose(matrix.toarray()[0], [0.2 / 0.7, 0, 0.5 / 0.7, 0, 0, 0])
    assert np.diff(matrix.indptr).tolist() == [2, 0]
    assert np.diff(nearest(target, OCTAHEDRON, valid).indptr).tolist() == [1, 0]


def test_no_triangle_hit_takes_the_closest_one() -> None:
    # The octahedron without the triangle that the point is in.
    row = barycentric(np.array([[0.5, 0.5, 0.05]]), OCTAHEDRON, FACES[1:]).toarray()[0]
    np.testing.assert_allclose(row, [0.5, 0.5, 0, 0, 0, 0], atol=1e-12)


def test_triangles_without_area_are_passed_over() -> None:
    faces = np.concatenate([[[0, 0, 1], [0, 3, 2]], FACES])
    row = barycentric(np.array([[0.2, 0.3, 0.5]]), OCTAHEDRON, faces).toarray()[0]
    np.testing.assert_allclose(row, [0.2, 0.3, 0.5, 0, 0, 0], atol=1e-15)


@pytest.mark.data
@pytest.mark.parametrize("side", ["L", "R"])
def test_real_spheres_of_fsaverage_are_nested(real_data: Path, side: str) -> None:
    """A coarser fsaverage is the beginning of a finer one: each of its vertices meets itself, and nothing else."""
    import nibabel as nib

    names = ("fsaverage5_std_sphere.{0}.10k_fsavg_{0}", "fsaverage6_std_sphere.{0}.41k_fsavg_{0}")
    coarse, fine = (nib.load(real_data / "spheres" / f"{name.format(side)}.surf.gii") for name in names)
    places = [np.asarray(image.darrays[0].data) for image in (coarse, fine)]
    np.testing.assert_array_equal(nearest(places[0], places[1]).indices, np.arange(10242))
    matrix = barycentric(places[0], places[1], fine.darrays[1].data)
    # The files agree to 0.007 mm; an edge has 1.5 mm or more.
    assert matrix.diagonal().min() > 0.98
    np.testing.assert_allclose(matrix @ places[1], places[0], atol=0.05)


@pytest.mark.parametrize(
    ("target", "faces", "said"),
    [
        (np.zeros((1, 3)), FACES, "centre"),
        (np.full((1, 3), np.nan), FACES, "centre"),
        (np.ones((3, 2)), FACES, "(V, 3)"),
        (np.ones((1, 3)), FACES + 1, "name vertices"),
        (np.ones((1, 3)), FACES[0], "(F, 3)"),
    ],
)
def test_refused(target: np.ndarray, faces: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(").replace(")", r"\)")):
        barycentric(target, OCTAHEDRON, faces)


def test_refuses_valid_of_another_length() -> None:
    with pytest.raises(ValueError, match="valid"):
        over_valid(nearest(OCTAHEDRON, OCTAHEDRON), np.ones(5, dtype=bool))
