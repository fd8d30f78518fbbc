"""BOLD series of a run as one matrix, whether it came as two surfaces, as a volume, or is brought to the surface here.

Columns are vertices, left hemisphere first, or the voxels of a mask in C order. The *density* of an fsaverage surface is
known by its number of vertices alone: fMRIPrep has written 164k surfaces under the name of 41k (nipreps/fmriprep #1843).
The vertices of a coarse fsaverage are the first ones of every finer one, so a lower density is had by *truncation*
of each hemisphere. When the volumes were taken is said by `bids_brainlm.io.timing`.

A run on a lower rung of the ladder to fsaverage (`bids_brainlm.io.rungs`) is projected while it is read: of its voxels or columns
only those that a vertex reads are kept in memory. Those that do not vary in the run, such as voxels outside of the field of view,
do not count, and a vertex without any other has NaN.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.projection import good_voxels
from bids_brainlm.core.types import DENSITIES, Bools, Floats, Ints
from bids_brainlm.errors import InputError
from bids_brainlm.io.cifti import cifti_series, cifti_tr
from bids_brainlm.io.headers import gifti_tr, nifti_tr
from bids_brainlm.io.images import gifti_rows, load_nifti, reading
from bids_brainlm.io.meshes import PER_HEMISPHERE
from bids_brainlm.io.projection import DENSITY, Sampling, is_projected, projection_of
from bids_brainlm.io.runfiles import RunFiles
from bids_brainlm.io.rungs import CIFTI_RUNG, TEMPLATE
from bids_brainlm.io.timing import timing
from bids_brainlm.io.voxels import file_order, load_series, series_at

LOGGER = logging.getLogger(__name__)

_ONE_GRID = "use masks and BOLD series of one fMRIPrep run"

TR_TOLERANCE = 0.001
"""s by which header and sidecar may differ."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Where the columns of a matrix lie in a volume.

    Parameters
    ----------
    affine : (4, 4) float64
        Voxel index -> mm.
    shape : tuple of 3 int
    index : (V,) int64
        Flat (C order) index of each voxel, increasing.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    index: Ints


@dataclass(frozen=True)
class Geometry:
    """What the columns of a matrix are.

    Parameters
    ----------
    space : str
    density : str
        ``den-`` value of a surface (``10k``); empty for a volume or an unknown mesh.
    n_left : int
        Vertices of the left hemisphere; V for a volume.
    n_vertices : int
        V.
    volume : Volume or None
    resolution : str
        ``res-`` label of a volume, or empty.
    method : str
        Rung of the ladder that the columns were brought to fsaverage by; empty where the files were read as they are.
    """

    space: str
    density: str
    n_left: int
    n_vertices: int
    volume: Volume | None = None
    resolution: str = ""
    method: str = ""

    @property
    def approximate(self) -> bool:
        """Whether the columns are only roughly where they are said to be."""
        return self.method == TEMPLATE

    @property
    def entities(self) -> dict[str, str]:
        """How file names say it."""
        return {"space": self.space, "den": self.density, "res": self.resolution}


@dataclass(frozen=True, eq=False)
class Bold:
    """BOLD series of one run.

    Parameters
    ----------
    data : (T, V) float32
        As preprocessed, no scaling.
    geometry : Geometry
    frame_times : (T,) float64
        s of every volume after the onset 0 of the events.
    """

    data: Floats
    geometry: Geometry
    frame_times: NDArray[np.float64]

    @property
    def n_left(self) -> int:
        return self.geometry.n_left

    @property
    def space(self) -> str:
        return self.geometry.space

    @property
    def density(self) -> str:
        return self.geometry.density

    @property
    def volume(self) -> Volume | None:
        return self.geometry.volume


def load_bold(
    run: RunFiles,
    density: str = "",
    mask: Volume | None = None,
    sampling: Sampling | None = None,
    cache: Path | None = None,
    offline: bool = False,
) -> Bold:
    """Read the BOLD series of a run.

    Parameters
    ----------
    run : RunFiles
    density : str
        fsaverage density to bring surfaces to (``3k``, ``10k``, ``41k``, ``164k``); empty keeps that of the files, or is 10k
        for a run that is projected.
    mask : Volume, optional
        Voxels to read instead of those of the run's own mask; see `common_mask`. Of no meaning for a run that is projected.
    sampling : Sampling, optional
    cache : Path, optional
        Folder that projections are kept in.
    offline : bool
        Do not fetch templates that a projection needs.

    Raises
    ------
    MissingInputError
        When a file is not there.
    MissingResourceError
        When a template is not on this machine and cannot be fetched.
    InputError
        When one is damaged, hemispheres differ, the density is unknown or too low, mask and series do not fit,
        or the times in the sidecar make no sense.
    """
    if is_projected(run):
        data, geometry = _projected(run, density or DENSITY, sampling or Sampling(), cache, offline)
    else:
        data, geometry = _surfaces(run, density) if len(run.bold) == 2 else _volume(run, mask)
    times = timing(run.sidecar, run.bold[0])
    if times.tr:
        _compare_tr(run, times.tr)
    return Bold(data, geometry, times.frames(len(data), run.bold[0]))


def _compare_tr(run: RunFiles, tr: float) -> None:
    """Warn when the image says another TR than the sidecar, which counts: fMRIPrep 23.2.0 wrote wrong headers (#3216)."""
    path = run.bold[0]
    header = cifti_tr if run.rung == CIFTI_RUNG else gifti_tr if len(run.bold) == 2 else nifti_tr
    said = header(path)
    if said and min(abs(value - tr) for value in said) > TR_TOLERANCE:
        text = "the header says a TR of %g s, the sidecar %g s, which is taken: %s (remedy: correct the wrong one)"
        LOGGER.warning(text, said[0], tr, path)


def common_mask(runs: Sequence[RunFiles]) -> Volume:
    """Voxels inside the mask of every run, for runs whose masks differ (fMRIPrep makes one a run).

    Raises
    ------
    InputError
        When the grids of two runs differ, or no voxel is common.
    """
    first = _load_mask(runs[0])
    index = first.index
    for run in runs[1:]:
        other = _load_mask(run)
        _same_grid(first, other.shape, other.affine, _mask_path(run))
        index = np.intersect1d(index, other.index)
    if not index.size:
        remedy = "look at the masks, or leave a run out with --run-id"
        raise InputError("no voxel is in the mask of every run", _mask_path(runs[0]), remedy=remedy)
    return Volume(first.affine, first.shape, index)


def density_of(n_vertices: int) -> str:
    """``den-`` value of an fsaverage hemisphere with so many vertices, or empty."""
    return DENSITIES.get(n_vertices, "")


def surface_geometry(run: RunFiles, density: str, n_rows: tuple[int, int], n_vertices: tuple[int, int]) -> Geometry:
    """What the columns of two hemispheres are.

    Parameters
    ----------
    run : RunFiles
    density : str
        fsaverage density that they were to be brought to, or empty.
    n_rows, n_vertices : tuple of 2 int
        Left and right; vertices after truncation.

    Raises
    ------
    InputError
        When hemispheres differ, or the density is unknown or too low.
    """
    left, right = run.bold
    n_left, n_right = n_vertices
    if n_rows[0] != n_rows[1]:
        raise InputError(f"{n_rows[1]} time points", right, expected=f"{n_rows[0]}, as in {left.name}")
    if run.space == "fsaverage" and n_left != n_right:
        raise InputError(f"{n_right} vertices", right, expected=f"{n_left}, as in {left.name}")
    found = density_of(n_left) if n_left == n_right else ""
    if run.space == "fsaverage" and not found:
        raise InputError(f"{n_left} vertices", left, expected=f"one of {', '.join(map(str, DENSITIES))} for fsaverage")
    if density and found != density:
        what = f"the surfaces have {n_left} vertices a hemisphere ({found or 'no fsaverage density'})"
        raise InputError(
            what, left, expected=f"at least {PER_HEMISPHERE[density]} for density {density}", remedy=f"--density {found or '10k'}"
        )
    return Geometry(run.space, found, n_left, n_left + n_right)


def _surfaces(run: RunFiles, density: str) -> tuple[Floats, Geometry]:
    left, right = (gifti_rows(path, PER_HEMISPHERE.get(density, 0))[0] for path in run.bold)
    geometry = surface_geometry(run, density, (left.shape[0], right.shape[0]), (left.shape[1], right.shape[1]))
    return np.concatenate([left, right], axis=1), geometry


def _volume(run: RunFiles, mask: Volume | None) -> tuple[Floats, Geometry]:
    path = run.bold[0]
    mask = mask or _load_mask(run)
    image = load_series(path)
    _same_grid(mask, image.shape[:3], image.affine, path)
    data = series_at(image, path, file_order(mask.index, mask.shape))
    return data, Geometry(run.space, "", mask.index.size, mask.index.size, mask, run.resolution)


def _projected(run: RunFiles, density: str, sampling: Sampling, cache: Path | None, offline: bool) -> tuple[Floats, Geometry]:
    path = run.bold[0]
    projection = projection_of(run, density, sampling, cache, offline)
    if run.rung == CIFTI_RUNG:
        values = cifti_series(path)[0][:, projection.columns]
        usable = _varying(values)
    else:
        image = load_series(path)
        values = series_at(image, path, projection.columns)
        usable = _varying(values)
        if sampling.good_voxels:
            usable &= good_voxels(values, projection.columns, image.affine, image.shape[:3])
    if not usable.all():
        every = np.zeros(projection.matrix.shape[1], dtype=np.bool_)
        every[projection.columns[usable]] = True
        left = projection.over(every)
        projection, values = left, values[:, np.isin(projection.columns, left.columns)]
    data = projection.compact.apply(values)
    return data, Geometry("fsaverage", density, projection.n_left, projection.n_out, method=run.rung)


def _varying(values: Floats) -> Bools:
    """(n,) columns that hold a series: finite at some time, and not always the same."""
    lowest, highest = np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)
    return np.asarray(lowest < highest)


def _mask_path(run: RunFiles) -> Path:
    if run.mask is None:
        raise InputError("no brain mask goes with this volume", run.bold[0], expected="..._desc-brain_mask.nii.gz")
    return run.mask


def _load_mask(run: RunFiles) -> Volume:
    return load_mask(_mask_path(run))


def load_mask(path: Path) -> Volume:
    """Voxels of a mask image that are not 0."""
    image = load_nifti(path)
    if len(image.shape) != 3:
        raise InputError(f"a mask of shape {image.shape}", path, expected="3 dimensions")
    with reading(path, "a NIfTI file"):
        index = np.flatnonzero(np.asarray(image.dataobj).ravel())
    if not index.size:
        raise InputError(
            "the mask is empty", path, expected="voxels that are not 0", remedy="look at fMRIPrep's report of this run"
        )
    return Volume(np.asarray(image.affine, dtype=np.float64), tuple(image.shape), index.astype(np.int64))


def _same_grid(mask: Volume, shape: Sequence[int], affine: NDArray[np.float64], path: Path) -> None:
    if tuple(shape) != mask.shape:
        raise InputError(f"a grid of {tuple(shape)} voxels", path, expected=f"the mask's {mask.shape}", remedy=_ONE_GRID)
    if not np.allclose(affine, mask.affine, atol=1e-3):
        raise InputError("the affine differs from the mask's", path, expected="one grid", remedy=_ONE_GRID)
