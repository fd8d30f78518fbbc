"""From voxels to vertices: one sparse matrix for the whole way.

The *ribbon* is what lies between the white and the pial surface, which have a vertex each at every place of cortex. The value
of a vertex is the mean over *depths*, points on the line between the two (0 is white, 1 is pial) at which the volume is read:
from the 8 voxels around a point (``linear``) or from the nearest one. A depth outside the volume does not count; a vertex
without any depth inside has no value. Everything is linear in the data, so it is a matrix (V_out, V_in) whose rows sum to 1,
it may be multiplied by the matrix that brings one mesh to another, and it may be applied to responses as well as to series.

V_in are all voxels of a volume, by default in the *order of a NIfTI file*, first axis fastest. The series of a file (X, Y, Z, T)
are then the rows of ``image.reshape(-1, T, order="F").T`` without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_array, diags_array, vstack

from bids_brainlm.core.spheres import over_valid
from bids_brainlm.core.types import Bools, Floats, Ints

Doubles = NDArray[np.float64]

DEPTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Where fMRIPrep reads a volume: ``mri_vol2surf --projfrac-avg 0 1 0.2``."""

INTERPOLATIONS = ("linear", "nearest")

NEIGHBOURHOOD = 5.0
"""mm, standard deviation of the Gaussian that a voxel's noise is compared within."""

NOISIEST = 0.5
"""Standard deviations of relative noise above the mean from which a voxel is left out."""


RUN = 8
"""Columns that are fetched from memory together."""


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear map from the columns of one matrix to those of another.

    Parameters
    ----------
    matrix : (V_out, V_in) csr_array of float32
        Rows sum to 1, or are empty where a vertex has no value.
    n_left : int
        Rows of the left hemisphere, which come first.
    """

    matrix: csr_array
    n_left: int

    @property
    def n_out(self) -> int:
        return int(self.matrix.shape[0])

    @cached_property
    def columns(self) -> Ints:
        """(n,) columns of the input that have a weight, increasing; nothing else need be read."""
        used = np.zeros(self.matrix.shape[1], dtype=np.bool_)
        used[self.matrix.indices] = True
        return np.flatnonzero(used)

    @cached_property
    def empty(self) -> Bools:
        """(V_out,) vertices without a value."""
        return _empty(self.matrix)

    @cached_property
    def compact(self) -> Projection:
        """The same from `columns` alone."""
        place = np.zeros(self.matrix.shape[1], dtype=np.int32)
        place[self.columns] = np.arange(self.columns.size)
        parts = (self.matrix.data, place[self.matrix.indices], self.matrix.indptr)
        return Projection(csr_array(parts, shape=(self.n_out, self.columns.size)), self.n_left)

    @cached_property
    def _order(self) -> tuple[Ints, Ints]:
        """Vertices in the order of the columns they read, and where each one then stands.

        Neighbours on a sphere have distant numbers, but read the same voxels: in this order a product goes through memory once.
        """
        self.matrix.sort_indices()
        first = np.append(self.matrix.indices, 0)[self.matrix.indptr[:-1]]
        order = np.argsort(first, kind="stable")
        return order, np.argsort(order)

    @cached_property
    def _runs(self) -> tuple[csr_array, Ints]:
        """The matrix (V_out, RUN r) with rows in that order and columns in runs, which are fetched together; and the r runs."""
        runs = np.unique(self.columns // RUN)
        place = np.zeros(self.matrix.shape[1] // RUN + 1, dtype=np.int32)
        place[runs] = RUN * np.arange(runs.size)
        rows = self.matrix[self._order[0]]
        parts = (rows.data, place[rows.indices // RUN] + rows.indices % RUN, rows.indptr)
        return csr_array(parts, shape=(self.n_out, RUN * runs.size)), runs

    def apply(self, data: NDArray[Any]) -> Floats:
        """Project every row.

        Parameters
        ----------
        data : (T, V_in)
            In any unit; a transposed view of a volume's voxels costs no copy.

        Returns
        -------
        (T, V_out) float32
            NaN where a vertex has no value, or reads a voxel that is NaN.

        Raises
        ------
        ValueError
            When V_in differs.
        """
        n_in = self.matrix.shape[1]
        if data.ndim != 2 or data.shape[1] != n_in:
            raise ValueError(f"data of shape {data.shape}; expected (T, {n_in})")
        if data.strides[0] < data.strides[1]:
            # Time is the fastest axis: all volumes at once.
            order, rank = self._order
            fetched = _float32(np.take(data.T, self.columns, axis=0, mode="clip"))
            out = np.ascontiguousarray((self.compact.matrix[order] @ fetched)[rank].T)
        else:
            out = self._row_by_row(data)
        out[:, self.empty] = np.nan
        return out

    def _row_by_row(self, data: NDArray[Any]) -> Floats:
        (matrix, runs), rank = self._runs, self._order[1]
        out = np.empty((len(data), self.n_out), dtype=np.float32)
        fetched = np.zeros((runs.size, RUN), dtype=np.float32)
        whole = data.shape[1] // RUN
        last = runs.size - int(runs.size > 0 and runs[-1] == whole)
        for row, target in zip(data, out, strict=True):
            row = _float32(row)
            np.take(row[: whole * RUN].reshape(whole, RUN), runs[:last], axis=0, out=fetched[:last], mode="clip")
            fetched[last:, : row.size - whole * RUN] = row[whole * RUN :]
            # Indices are within bounds; with "clip" numpy writes without a copy in between.
            np.take(matrix @ fetched.ravel(), rank, out=target, mode="clip")
        return out

    def over(self, usable: Bools) -> Projection:
        """Leave columns out; what is left of a row sums to 1 again.

        Parameters
        ----------
        usable : (V_in,) bool
        """
        # Beyond the centre of the last voxel weights are extrapolated, and what is left of them might cancel.
        positive = csr_array((np.maximum(self.matrix.data, 0), self.matrix.indices, self.matrix.indptr), shape=self.matrix.shape)
        return Projection(over_valid(positive, usable).astype(np.float32), self.n_left)


def _empty(matrix: csr_array) -> Bools:
    return np.asarray(np.diff(matrix.indptr) == 0)


def _float32(array: NDArray[Any]) -> Floats:
    return np.ascontiguousarray(array, dtype=np.float32)


def both(left: csr_array, right: csr_array) -> Projection:
    """Projection onto two hemispheres.

    Parameters
    ----------
    left : (V_left, V_in) csr_array
    right : (V_right, V_in) csr_array
    """
    return Projection(csr_array(vstack([left, right], format="csr", dtype=np.float32)), left.shape[0])


def ribbon_matrix(
    white: NDArray[Any],
    pial: NDArray[Any],
    affine: NDArray[Any],
    shape: Sequence[int],
    depths: Sequence[float] = DEPTHS,
    interpolation: str = "linear",
    order: str = "F",
) -> csr_array:
    """Matrix that reads a volume between two surfaces.

    With ``linear`` and no mask it is what nilearn's ``vol_to_surf`` does with ``inner_mesh``, which extrapolates up to one voxel
    beyond the centre of the last voxel of an axis and gives nothing before the centre of the first; with ``nearest`` depths are
    averaged too (``nearest_most_frequent`` of nilearn counts them, and is no linear map).

    Parameters
    ----------
    white, pial : (V, 3) float
        mm, in the space of the affine; vertices correspond.
    affine : (4, 4) float
        Voxel index -> mm.
    shape : 3 int
        Of the volume.
    depths : sequence of float
        0 is white, 1 is pial.
    interpolation : str
        One of `INTERPOLATIONS`.
    order : str
        Of the voxels in V_in: ``F`` first axis fastest, ``C`` last axis fastest.

    Returns
    -------
    (V, V_in) csr_array of float64
        Rows sum to 1; empty where no depth is inside the volume.

    Raises
    ------
    ValueError
        When the surfaces differ in size, no depth is given, or the interpolation is unknown.
    """
    white, pial = np.asarray(white, dtype=np.float64), np.asarray(pial, dtype=np.float64)
    if white.shape != pial.shape or white.ndim != 2 or white.shape[1] != 3:
        raise ValueError(f"surfaces of shapes {white.shape} and {pial.shape}; expected (V, 3) both")
    if interpolation not in INTERPOLATIONS or not len(depths):
        raise ValueError(f"interpolation {interpolation!r} at {len(depths)} depths; expected one of {', '.join(INTERPOLATIONS)}")
    to_voxel = np.linalg.inv(np.asarray(affine, dtype=np.float64))
    inner, outer = (points @ to_voxel[:3, :3].T + to_voxel[:3, 3] for points in (white, pial))
    points = inner[:, None] + np.asarray(depths, dtype=np.float64)[:, None] * (outer - inner)[:, None]
    points = np.rint(points) if interpolation == "nearest" else points
    inside = ((points >= 0) & (points < np.asarray(shape))).all(axis=2)
    count = np.maximum(inside.sum(axis=1, keepdims=True), 1)
    index, weight = _corners(points, np.asarray(shape), order)
    weight *= (inside / count)[..., None]
    n, width = len(white), index.shape[1] * index.shape[2]
    starts = width * np.arange(n + 1, dtype=np.int32)
    matrix = csr_array((weight.ravel(), index.ravel(), starts), shape=(n, int(np.prod(shape))))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _corners(points: Doubles, shape: Ints, order: str) -> tuple[NDArray[np.int32], Doubles]:
    """Flat index and trilinear weight of the 8 voxels around each point, both (V, D, 8).

    Points outside get voxels too, with weights that mean nothing.
    """
    last = np.maximum(shape - 2, 0)
    low = np.clip(np.floor(points), 0, last)
    share = points - low
    step = np.where(shape > 1, np.cumprod([1, *(shape[:2] if order == "F" else shape[:0:-1])]), 0)
    step = step if order == "F" else step[::-1]
    base = (low @ step).astype(np.int32)
    index = np.empty((*base.shape, 8), dtype=np.int32)
    weight = np.empty(index.shape)
    sides = [(1 - share[..., axis], share[..., axis]) for axis in range(3)]
    for corner, (x, y, z) in enumerate(product((0, 1), repeat=3)):
        index[..., corner] = base + step @ (x, y, z)
        weight[..., corner] = sides[0][x] * sides[1][y] * sides[2][z]
    return index, weight


def compose(resample: csr_array, ribbon: csr_array, valid: Bools | None = None) -> csr_array:
    """Volume -> source mesh -> target mesh as one matrix.

    Parameters
    ----------
    resample : (V_out, W) csr_array
        From the W vertices of the source mesh; weights above 0.
    ribbon : (W, V_in) csr_array
        See `ribbon_matrix`.
    valid : (W,) bool, optional
        Source vertices that count, such as cortex. Those without a value never do.

    Returns
    -------
    (V_out, V_in) csr_array
        Rows sum to 1; empty where no source vertex counts.
    """
    there = ~_empty(ribbon)
    return csr_array(over_valid(resample, there if valid is None else there & valid) @ ribbon)


def masked(matrix: csr_array, vertices: Bools) -> csr_array:
    """Take the value from vertices (V_out,) that are false."""
    kept = csr_array(diags_array(np.asarray(vertices, dtype=np.float64)) @ matrix)
    kept.eliminate_zeros()
    return kept


def good_voxels(series: NDArray[Any], index: Ints, affine: NDArray[Any], shape: Sequence[int]) -> Bools:
    """Voxels of the ribbon that are not much noisier than the cortex around them.

    The coefficient of variation over time of each voxel is divided by its mean over the ribbon within a Gaussian of 5 mm;
    what is half a standard deviation or more above the mean of this ratio is left out, such as voxels with large vessels or
    partly outside of the brain. After Glasser et al. 2013 (NeuroImage 80:105, the HCP pipelines; ``--project-goodvoxels`` of
    fMRIPrep).

    Parameters
    ----------
    series : (T, n)
        As preprocessed, with its mean.
    index : (n,) int64
        Flat index of the voxels, first axis fastest.
    affine : (4, 4) float
        Voxel index -> mm.
    shape : 3 int

    Returns
    -------
    (n,) bool
        False too where a voxel does not vary or its mean is not positive.
    """
    mean, deviation = series.mean(axis=0, dtype=np.float64), series.std(axis=0, dtype=np.float64)
    # Where values are not finite, mean and deviation are NaN, which no comparison holds for.
    usable = np.asarray((mean > 0) & (deviation > 0))
    if not usable.any():
        return usable
    noise = deviation[usable] / mean[usable]
    where = index[usable]
    sigma = NEIGHBOURHOOD / np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    around = [_smoothed(values, where, shape, sigma) for values in (noise, np.ones_like(noise))]
    relative = noise * around[1] / around[0]
    # Where all voxels are alike there is nothing to leave out, whatever rounding does.
    usable[usable] = relative <= (relative.mean() + NOISIEST * relative.std()) * (1 + 1e-9)
    return usable


def _smoothed(values: Doubles, index: Ints, shape: Sequence[int], sigma: Doubles) -> Doubles:
    volume = np.zeros(int(np.prod(shape)))
    volume[index] = values
    smooth: Doubles = ndimage.gaussian_filter(volume.reshape(shape, order="F"), sigma, mode="constant")
    return np.asarray(smooth.ravel(order="F")[index])
