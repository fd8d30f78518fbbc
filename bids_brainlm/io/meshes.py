"""Meshes of fsaverage: the vertices that everything is brought to.

nilearn comes with the meshes of 10k, whose first vertices are those of 3k. Finer ones are looked for where fMRIPrep leaves
FreeSurfer's own fsaverage (``sourcedata/freesurfer/fsaverage/surf`` of the derivatives) and in TemplateFlow. A coarser mesh is
the beginning of a finer one, so that all that is needed of any of these files are the first vertices.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from bids_brainlm.core.types import DENSITIES, Bools
from bids_brainlm.errors import InputError
from bids_brainlm.io.images import gifti_mesh, gifti_rows, reading
from bids_brainlm.io.templates import template_pair

PER_HEMISPHERE = {density: n for n, density in DENSITIES.items()}
"""``den-`` value -> vertices of one fsaverage hemisphere."""

WITHIN = ("3k", "10k")
"""Densities that nilearn's files have."""

_FREESURFER = ("sourcedata/freesurfer/fsaverage/surf", "freesurfer/fsaverage/surf")
_WALL = "tpl-fsaverage_hemi-{}_atlas-kmeans100_den-10k_dseg.label.gii"


def fsaverage_files(kind: str, density: str, beside: Path, offline: bool = False) -> tuple[Path, Path]:
    """Left and right file with the vertices of a mesh.

    Parameters
    ----------
    kind : {"white", "pial", "sphere"}
    density : str
        ``den-`` value.
    beside : Path
        A file of the derivatives in or above whose folder FreeSurfer's fsaverage may be.
    offline : bool
        Do not fetch.

    Raises
    ------
    MissingResourceError
        With the command that fetches them, when they are not on this machine and cannot be fetched.
    """
    if density in WITHIN:
        from nilearn.datasets import fetch_surf_fsaverage

        bundled = fetch_surf_fsaverage("fsaverage5")
        return Path(bundled[f"{kind}_left"]), Path(bundled[f"{kind}_right"])
    for folder in _freesurfer(beside):
        left, right = folder / f"lh.{kind}", folder / f"rh.{kind}"
        if left.is_file() and right.is_file():
            return left, right
    return template_pair("fsaverage", f"tpl-fsaverage_hemi-{{}}_den-{density}_{kind}.surf.gii", offline)


def _freesurfer(beside: Path) -> Iterator[Path]:
    for folder in beside.parents:
        yield from (folder / below for below in _FREESURFER)


def points(path: Path, density: str) -> NDArray[np.float64]:
    """(V, 3) places in mm of the vertices of a density, from a GIFTI or FreeSurfer file of that or a finer one.

    Raises
    ------
    MissingInputError, InputError
        When it is not there, damaged, or too coarse.
    """
    n = PER_HEMISPHERE[density]
    if ".gii" in path.suffixes:
        found, _ = gifti_mesh(path)
    else:
        freesurfer: Any = nib.freesurfer
        with reading(path, "a FreeSurfer surface"):
            found = np.asarray(freesurfer.read_geometry(path)[0], dtype=np.float64)
    if len(found) not in DENSITIES or len(found) < n:
        raise InputError(f"{len(found)} vertices", path, expected=f"fsaverage with at least {n}, for density {density}")
    return found[:n]


def cortex(side: str, white: NDArray[Any]) -> Bools:
    """(V,) vertices of fsaverage that are not of the medial wall.

    The wall is that of the bundled parcellation, which is of 10k; a vertex of a finer mesh has what its nearest one of 10k has.

    Parameters
    ----------
    side : {"L", "R"}
    white : (V, 3)
        White surface of that hemisphere, in mm.
    """
    path = importlib.resources.files("bids_brainlm") / "data" / "templates" / "atlases" / _WALL.format(side)
    inside = gifti_rows(Path(str(path)))[0][0] > 0
    if len(white) <= inside.size:
        return np.asarray(inside[: len(white)])
    _, nearest = KDTree(white[: inside.size]).query(white)
    return np.asarray(inside[nearest])
