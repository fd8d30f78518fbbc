"""Reading GIFTI and NIfTI files so that a damaged one is named, not met as an exception from deep inside a library."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from bids_brainlm.errors import InputError, MissingInputError

_DAMAGE = (
    OSError, EOFError, ValueError, IndexError, KeyError, TypeError, AttributeError,
    zlib.error, struct.error, ExpatError, ImageFileError, HeaderDataError,
)  # fmt: skip
"""What nibabel raises on truncated or corrupt files (it has no error of its own for most of them)."""


@contextmanager
def reading(path: Path, expected: str = "") -> Iterator[None]:
    """Turn what goes wrong while a file is read into an error that names it.

    Raises
    ------
    MissingInputError
        When the file is not there, or is a link to content that was not fetched.
    InputError
        When it may not be read, is no file, or is empty, truncated or corrupt.
    """
    try:
        refuse_unreadable(path, expected)
        yield
    except InputError:
        raise
    except _DAMAGE as error:
        why = f"damaged or of another format ({type(error).__name__}: {error})" if path.stat().st_size else "the file is empty"
        raise InputError(why, path, expected=expected, remedy="copy or make it again") from error


def refuse_unreadable(path: Path, expected: str = "") -> None:
    """Refuse what cannot even be opened.

    Raises
    ------
    MissingInputError
        When there is nothing, or a link that leads nowhere.
    InputError
        When it is no file, or may not be read.
    """
    try:
        with path.open("rb"):
            return
    except FileNotFoundError as error:
        fetch = "fetch its content (git annex / datalad get)" if path.is_symlink() else "check the path"
        raise MissingInputError("no such file", path, expected=expected, remedy=fetch) from error
    except PermissionError as error:
        remedy = "get the right to read it, e.g. chmod u+r"
        raise InputError(f"cannot be read ({error.strerror})", path, remedy=remedy) from error
    except OSError as error:
        # A folder, or a link that leads to itself.
        raise InputError(f"cannot be read ({error.strerror})", path, expected=expected, remedy="put the file there") from error


def load_nifti(path: Path) -> Any:
    """A NIfTI image, its voxels not yet read."""
    with reading(path, "a NIfTI file"):
        image = nib.load(path)
        if not hasattr(image, "affine"):
            raise InputError(f"a {type(image).__name__}", path, expected="a NIfTI file")
        return image


def load_gifti(path: Path) -> Any:
    """A GIFTI image with at least one data array."""
    with reading(path, "a GIFTI file"):
        image = nib.load(path)
        if not isinstance(image, nib.GiftiImage):
            raise InputError(f"a {type(image).__name__}", path, expected="a GIFTI file")
        if not image.darrays:
            raise InputError("no data array", path, expected="one for each row")
        return image


def gifti_rows(path: Path, n_vertices: int = 0) -> tuple[NDArray[np.float32], list[str]]:
    """Data arrays of a GIFTI file as rows.

    Parameters
    ----------
    path : Path
    n_vertices : int
        Keep the first so many vertices of each array; 0 keeps all.

    Returns
    -------
    data : (R, V) float32
        One row a data array; a single array (V, R) is taken apart.
    names : list of str, length R
        ``Name`` of each array, empty where it has none.
    """
    arrays = load_gifti(path).darrays
    with reading(path, "a GIFTI file"):
        if len(arrays) == 1 and arrays[0].data.ndim == 2:
            data = np.ascontiguousarray(arrays[0].data.T[:, : n_vertices or None], dtype=np.float32)
            return data, [""] * len(data)
        sizes = {array.data.shape for array in arrays}
        if len(sizes) > 1 or arrays[0].data.ndim != 1:
            raise InputError(f"data arrays of shapes {sorted(sizes)}", path, expected="(V,) all")
        stop = n_vertices or arrays[0].data.size
        data = np.empty((len(arrays), min(stop, arrays[0].data.size)), dtype=np.float32)
        for row, array in zip(data, arrays, strict=True):
            row[:] = array.data[:stop]
        return data, [str(dict(array.meta).get("Name", "")) for array in arrays]


def gifti_mesh(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Places of the vertices and corners of the triangles of a surface.

    Returns
    -------
    places : (V, 3) float64, in mm
    faces : (F, 3) int64

    Raises
    ------
    MissingInputError, InputError
        When the file is not there or damaged, or holds no surface.
    """
    image = load_gifti(path)
    with reading(path, "a GIFTI surface"):
        held = [image.get_arrays_from_intent(intent) for intent in ("NIFTI_INTENT_POINTSET", "NIFTI_INTENT_TRIANGLE")]
        if [len(arrays) for arrays in held] != [1, 1]:
            raise InputError("no mesh in the file", path, expected="one array of points and one of triangles (.surf.gii)")
        places = held[0][0].data.astype(np.float64)
        faces = held[1][0].data.astype(np.int64)
        if places.shape[1:] != (3,) or faces.shape[1:] != (3,) or faces.min() < 0 or faces.max() >= len(places):
            raise InputError(f"points {places.shape} and triangles {faces.shape}", path, expected="(V, 3) and (F, 3) below V")
        if not np.isfinite(places).all():
            raise InputError("points that are not finite", path, expected="mm", remedy="make the surfaces again")
        return places, faces


def gifti_size(path: Path) -> int:
    """Vertices of the first data array."""
    with reading(path, "a GIFTI file"):
        return int(load_gifti(path).darrays[0].data.shape[0])
