"""CIFTI series (``dtseries``) on fsLR: which of its columns are cortex, their series, and their way to fsaverage.

The columns of a CIFTI file are *grayordinates*: vertices of the two cortices, without those of the medial wall, then voxels
of subcortical structures. A *brain model* in its header says which columns belong to a structure and, for a cortex, which
vertices of its mesh they are. Only the columns of cortex are read here. Vertices that have no column are not valid.

fsLR is registered to fsaverage by spheres of the fsLR mesh *deformed* to fsaverage, which TemplateFlow has
(``tpl-fsLR_space-fsaverage_hemi-L_den-32k_sphere.surf.gii``): values are interpolated linearly within their triangles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import block_diag, csr_array

from bids_brainlm.core.spheres import barycentric
from bids_brainlm.core.types import Floats, Ints
from bids_brainlm.errors import InputError
from bids_brainlm.io.images import gifti_mesh, reading
from bids_brainlm.io.templates import template_pair

FSLR = {32492: "32k", 59292: "59k"}
"""Vertices of one fsLR hemisphere -> ``den-`` value of its surfaces."""

SPHERE = "tpl-fsLR_space-fsaverage_hemi-{{}}_den-{}_sphere.surf.gii"
"""TemplateFlow's name of a sphere of fsLR deformed to fsaverage, by density."""

_CORTEX = ("CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT")
_KIND = "a dense CIFTI-2 file"


@dataclass(frozen=True, eq=False)
class Cortex:
    """Where the two cortices are in a CIFTI file.

    Parameters
    ----------
    density : str
        ``32k`` or ``59k``.
    n_vertices : int
        Of the mesh of one hemisphere.
    columns : tuple of 2 slice
        Columns of the file, left and right.
    vertices : tuple of 2 (n,) int64
        Vertex of each of these columns.
    """

    density: str
    n_vertices: int
    columns: tuple[slice, slice]
    vertices: tuple[Ints, Ints]

    @property
    def n_columns(self) -> int:
        """Columns of both."""
        return sum(index.size for index in self.vertices)


def cifti_cortex(path: Path) -> Cortex:
    """Where the two cortices are.

    Raises
    ------
    MissingInputError, InputError
        When the file is not there or damaged, is of another kind, lacks a cortex, or is of no density of fsLR.
    """
    return _cortex(_load(path), path)


def cifti_series(path: Path) -> tuple[Floats, Cortex]:
    """Series of the two cortices.

    Returns
    -------
    data : (T, n) float32
        Left columns, then right ones.
    cortex : Cortex

    Raises
    ------
    MissingInputError, InputError
        As `cifti_cortex`.
    """
    image = _load(path)
    cortex = _cortex(image, path)
    data = np.empty((image.shape[0], cortex.n_columns), dtype=np.float32)
    with reading(path, _KIND):
        start = 0
        for columns, index in zip(cortex.columns, cortex.vertices, strict=True):
            data[:, start : start + index.size] = image.dataobj[:, columns]
            start += index.size
    return data, cortex


def cifti_tr(path: Path) -> tuple[float, ...]:
    """TR in s that a series says; empty when it says none.

    Raises
    ------
    MissingInputError, InputError
        When the file is not there, damaged, or of another kind.
    """
    image = _load(path)
    with reading(path, _KIND):
        series = image.header.get_index_map(0)
        step = float(series.series_step or 0) * 10.0 ** int(series.series_exponent or 0)
    return (step,) if step > 0 and series.series_unit == "SECOND" else ()


def cifti_labels(path: Path) -> tuple[list[tuple[NDArray[np.int64], dict[int, str]]], Cortex]:
    """Labels (``dlabel``) of the two cortices.

    Returns
    -------
    sides : list of 2 (keys (n_vertices,) int64, names of keys)
        Vertices without a column have key -1.
    cortex : Cortex

    Raises
    ------
    MissingInputError, InputError
        As `cifti_cortex`, and when there is more than one map.
    """
    image = _load(path)
    cortex = _cortex(image, path)
    with reading(path, "a CIFTI label file"):
        maps = list(image.header.get_index_map(0).named_maps)
        if len(maps) != 1:
            raise InputError(f"{len(maps)} maps of labels", path, expected="one", remedy="keep the wanted one (wb_command)")
        if not maps[0].label_table:
            raise InputError("no table of labels", path, expected="a .dlabel.nii file")
        names = {int(key): str(label.label) for key, label in maps[0].label_table.items()}
        sides = []
        for columns, index in zip(cortex.columns, cortex.vertices, strict=True):
            keys = np.full(cortex.n_vertices, -1, dtype=np.int64)
            keys[index] = np.rint(np.asarray(image.dataobj[0, columns])).astype(np.int64).ravel()
            sides.append((keys, names))
    return sides, cortex


def fslr_spheres(density: str, offline: bool = False) -> tuple[Path, Path]:
    """TemplateFlow's spheres of fsLR deformed to fsaverage, left and right.

    Raises
    ------
    MissingResourceError
        With the command that fetches them, when they are not on this machine and cannot be fetched.
    """
    return template_pair("fsLR", SPHERE.format(density), offline)


def cortex_matrix(cortex: Cortex, spheres: Sequence[Path], targets: Sequence[NDArray[Any]]) -> csr_array:
    """Matrix from the cortical columns of a CIFTI file to fsaverage.

    Parameters
    ----------
    cortex : Cortex
    spheres : two Path
        Left and right sphere of fsLR deformed to fsaverage.
    targets : two (V, 3) float
        Places of the target vertices on fsaverage's spheres.

    Returns
    -------
    (2 V, n) csr_array of float64
        Rows left then right, as the columns are; those without a valid vertex around are empty.

    Raises
    ------
    MissingInputError, InputError
        When a sphere is not there or damaged, or of another density.
    """
    blocks = []
    for path, target, index in zip(spheres, targets, cortex.vertices, strict=True):
        places, faces = fslr_sphere(path, cortex.n_vertices)
        valid = np.zeros(cortex.n_vertices, dtype=bool)
        valid[index] = True
        blocks.append(barycentric(target, places, faces, valid)[:, index])
    return csr_array(block_diag(blocks, format="csr"))


def fslr_sphere(path: Path, n_vertices: int) -> tuple[NDArray[np.float64], Ints]:
    """Places and triangles of a sphere of fsLR with so many vertices.

    Raises
    ------
    MissingInputError, InputError
        When it is not there, damaged, or of another density.
    """
    places, faces = gifti_mesh(path)
    if len(places) != n_vertices:
        expected = f"{n_vertices}, as of fsLR at {FSLR.get(n_vertices, 'no density')}"
        raise InputError(f"a sphere of {len(places)} vertices", path, expected=expected)
    return places, faces


def _load(path: Path) -> Any:
    with reading(path, _KIND):
        status = path.stat()
        return _opened(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def _opened(path: Path, changed: int, size: int) -> Any:
    """The image, its series not yet read; its header takes most of a second, and several things are asked of it."""
    image: Any = nib.load(path)
    if not isinstance(image, nib.Cifti2Image) or len(image.shape) != 2:
        raise InputError(f"a {type(image).__name__} of shape {image.shape}", path, expected=_KIND)
    return image


def _cortex(image: Any, path: Path) -> Cortex:
    with reading(path, _KIND):
        models = {model.brain_structure: model for model in image.header.get_index_map(1).brain_models}
    for structure in _CORTEX:
        if structure not in models:
            expected = "both cortices, as fMRIPrep's --cifti-output writes them"
            raise InputError(f"no brain model of {structure}", path, expected=expected)
    left, right = (models[structure] for structure in _CORTEX)
    sizes = {int(model.surface_number_of_vertices or 0) for model in (left, right)}
    if len(sizes) > 1 or not sizes <= FSLR.keys():
        what = f"cortices of {', '.join(map(str, sorted(sizes)))} vertices"
        expected = "fsLR: " + " or ".join(f"{n} ({density})" for n, density in FSLR.items())
        raise InputError(what, path, expected=expected, remedy="run fMRIPrep with --cifti-output 91k")
    n = sizes.pop()
    columns = tuple(slice(model.index_offset, model.index_offset + model.index_count) for model in (left, right))
    vertices = tuple(np.asarray(model.vertex_indices, dtype=np.int64) for model in (left, right))
    # Two hemispheres, which the types of a generator do not say.
    return Cortex(FSLR[n], n, columns, vertices)  # type: ignore[arg-type]
