"""Resampling between two meshes of one hemisphere whose spheres are registered to each other.

A *registration sphere* gives every vertex of a mesh a place on a sphere, so that places which correspond in two meshes lie in
one direction from the centre. Values of the *source* mesh (W vertices) are brought to the *target* mesh (V vertices) by a
sparse matrix (V, W) whose rows sum to 1: the nearest vertex, or the three corners of the triangle that the ray from the
centre to the target vertex goes through, by their barycentric coordinates there. Only directions count, not radii.

Source vertices without data (the medial wall) are *invalid*: their weights are left out and the rows sum to 1 again; a row
that had nothing else is empty, and its vertex has no value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, diags_array
from scipy.spatial import KDTree

from bids_brainlm.core.types import Bools, Ints

Doubles = NDArray[np.float64]

NEIGHBOURS = 24
"""Nearest source vertices whose triangles are looked at; one is enough where triangles are well shaped."""

_EDGE = 1e-9
"""Barycentric coordinates below this are 0: the point is on an edge or a corner."""


def nearest(target: NDArray[Any], source: NDArray[Any], valid: Bools | None = None) -> csr_array:
    """Matrix that takes the value of the nearest source vertex.

    Parameters
    ----------
    target : (V, 3) float
        Places of the vertices on the target's sphere, from its centre, in any unit.
    source : (W, 3) float
    valid : (W,) bool, optional
        Source vertices that have data; all when None.

    Returns
    -------
    (V, W) csr_array of float64
        One 1 a row; rows whose nearest vertex is invalid are empty.

    Raises
    ------
    ValueError
        For places that are not (V, 3), not finite, or at the centre.
    """
    points, places = _directions(target), _directions(source)
    _, found = KDTree(places).query(points)
    ones = np.ones(len(points))
    return over_valid(csr_array((ones, found, np.arange(len(points) + 1)), shape=(len(points), len(places))), valid)


def barycentric(
    target: NDArray[Any], source: NDArray[Any], faces: NDArray[Any], valid: Bools | None = None, neighbours: int = NEIGHBOURS
) -> csr_array:
    """Matrix that interpolates linearly within the triangles of the source sphere.

    Parameters
    ----------
    target : (V, 3) float
        Places of the vertices on the target's sphere, from its centre, in any unit.
    source : (W, 3) float
    faces : (F, 3) int
        Corners of the triangles of the source.
    valid : (W,) bool, optional
        Source vertices that have data; all when None.
    neighbours : int
        Nearest source vertices whose triangles are looked at. Where none of them is hit, as in a fold of a bad registration,
        the triangle that comes closest is taken, its weights cut to 0..1.

    Returns
    -------
    (V, W) csr_array of float64
        At most three weights a row, all above 0, with sum 1; empty rows where no corner is valid.

    Raises
    ------
    ValueError
        For places that are not (V, 3), not finite, or at the centre; for faces that name no vertex.
    """
    points, places, corners = _directions(target), _directions(source), np.asarray(faces)
    if corners.ndim != 2 or corners.shape[1] != 3 or not corners.size:
        raise ValueError(f"faces of shape {corners.shape}; expected (F, 3)")
    if corners.min() < 0 or corners.max() >= len(places):
        raise ValueError(f"faces name vertices {corners.min()}..{corners.max()}; the sphere has {len(places)}")
    face, weights = _faces_hit(points, places, corners, neighbours)
    weights = np.where(weights > _EDGE, weights, 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(len(points)), 3)
    matrix = csr_array((weights.ravel(), (rows, corners[face].ravel())), shape=(len(points), len(places)))
    matrix.eliminate_zeros()
    return over_valid(matrix, valid)


def over_valid(matrix: csr_array, valid: Bools | None) -> csr_array:
    """Leave invalid columns out and let the rows sum to 1 again.

    Parameters
    ----------
    matrix : (V, W) csr_array
        Weights, none below 0.
    valid : (W,) bool or None
        None leaves the matrix as it is.

    Raises
    ------
    ValueError
        When lengths differ.
    """
    if valid is None:
        return matrix
    if np.shape(valid) != (matrix.shape[1],):
        raise ValueError(f"valid has shape {np.shape(valid)}; expected ({matrix.shape[1]},)")
    kept = csr_array(matrix @ diags_array(np.asarray(valid, dtype=np.float64)))
    kept.eliminate_zeros()
    sums = kept.sum(axis=1)
    scale = np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0)
    return csr_array(diags_array(scale) @ kept)


def _directions(places: NDArray[Any]) -> Doubles:
    out = np.asarray(places, dtype=np.float64)
    if out.ndim != 2 or out.shape[1] != 3 or not len(out):
        raise ValueError(f"a sphere of shape {out.shape}; expected (V, 3)")
    lengths = np.linalg.norm(out, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise ValueError("a sphere with a vertex at its centre, or nowhere")
    directions: Doubles = out / lengths
    return directions


def _faces_hit(points: Doubles, places: Doubles, corners: Ints, neighbours: int) -> tuple[Ints, Doubles]:
    """Triangle of each point (V,) and its barycentric coordinates there (V, 3), below 0 where it is outside."""
    _, near = KDTree(places).query(points, k=min(neighbours, len(places)))
    near = near.reshape(len(points), -1)
    incident = _incident(corners, len(places))
    normals, volumes = _normals(places, corners)
    best = np.full(len(points), -np.inf)
    face, weights = np.zeros(len(points), dtype=np.int64), np.zeros((len(points), 3))
    for around in near.T:
        # A point is inside as soon as no coordinate is below 0; the others look on.
        open_ = np.flatnonzero(best < -_EDGE)
        point, tried = _pairs(open_, around[open_], incident)
        found = np.einsum("nij,nj->ni", normals[tried], points[point]) / volumes[tried, None]
        # Weights sum to 1 where the ray meets the plane, not at the point; a triangle behind the centre is no candidate.
        total = found.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            found /= total[:, None]
        depth = np.where((total > 0) & np.isfinite(total), found.min(axis=1), -np.inf)
        order = np.argsort(depth, kind="stable")
        order = order[depth[order] > best[point[order]]]
        # Of several candidates of a point the last one written is the deepest.
        best[point[order]], face[point[order]], weights[point[order]] = depth[order], tried[order], found[order]
        if not (best < -_EDGE).any():
            break
    if np.isneginf(best).any():
        raise ValueError("the sphere has no triangle around some of the points")
    return face, weights


def _incident(corners: Ints, n: int) -> csr_array:
    """(n, F) which triangles a vertex is a corner of."""
    faces = np.repeat(np.arange(len(corners)), 3)
    return csr_array(coo_array((np.ones(faces.size, dtype=np.int8), (corners.ravel(), faces)), shape=(n, len(corners))))


def _pairs(points: Ints, vertices: Ints, incident: csr_array) -> tuple[Ints, Ints]:
    """Every point with every triangle of its vertex."""
    start = incident.indptr[vertices].astype(np.int64)
    count = incident.indptr[vertices + 1] - start
    before = np.concatenate([[0], np.cumsum(count)[:-1]])
    inner = np.arange(count.sum()) - np.repeat(before, count)
    return np.repeat(points, count), incident.indices[np.repeat(start, count) + inner]


def _normals(places: Doubles, corners: Ints) -> tuple[Doubles, Doubles]:
    """(F, 3, 3) rows whose product with a point, divided by (F,), are its coordinates in the triangle's corners (Cramer)."""
    first, second, third = (places[corners[:, i]] for i in range(3))
    normals = np.stack([np.cross(second, third), np.cross(third, first), np.cross(first, second)], axis=1)
    volumes = np.einsum("fi,fi->f", first, normals[:, 0])
    # A triangle without area meets no ray.
    return normals, np.where(volumes == 0, np.nan, volumes)
