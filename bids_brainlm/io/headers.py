"""How large an image is, and its TR, from the first kilobytes of its file.

A plan of the work needs the shape of every BOLD series and none of its values. A GIFTI file says how many data arrays it has
and how long the first one is before any data come, and perhaps the time from one to the next; a NIfTI file has its shape in
the header, and a CIFTI file, which is one, too.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

from bids_brainlm.errors import InputError
from bids_brainlm.io.images import load_nifti, reading

BLOCK = 2**13
"""Bytes read at a time."""

LIMIT = 2**22
"""Bytes after which a GIFTI file without a data array is given up: metadata and label tables come first."""

NIFTI2 = 540
"""Length of the header of a CIFTI file, in bytes."""

_FIRST_ARRAY = re.compile(rb"<DataArray\s([^>]*)>")
_COUNT = re.compile(rb"<GIFTI\s[^>]*?NumberOfDataArrays\s*=\s*[\"'](\d+)")
_DATA = re.compile(rb"<Data>")
_STEP = re.compile(rb"TimeStep(?:\]\]>)?\s*</Name>\s*<Value>\s*(?:<!\[CDATA\[)?\s*(\d*\.?\d+(?:[eE][+-]?\d+)?)")
_SIZE = re.compile(rb"\bDim(\d)\s*=\s*[\"'](\d+)")


def gifti_shape(path: Path) -> tuple[int, int]:
    """Rows and vertices of a GIFTI file, as `images.gifti_rows` would return them.

    Returns
    -------
    n_rows : int
        Data arrays; columns of a single array with two dimensions. 0 where the file does not say.
    n_vertices : int

    Raises
    ------
    MissingInputError
        When there is no such file.
    InputError
        When it does not begin as a GIFTI file with a data array does.
    """
    head = _head(path, _FIRST_ARRAY)
    found = _FIRST_ARRAY.search(head)
    sizes = {int(axis): int(size) for axis, size in _SIZE.findall(found[1])} if found else {}
    if 0 not in sizes:
        raise InputError(
            "no data array at the start", path, expected="a GIFTI file with one for each row", remedy="copy or make it again"
        )
    count = _COUNT.search(head)
    n_arrays = int(count[1]) if count else 0
    return (sizes[1], sizes[0]) if n_arrays == 1 and sizes.get(1, 0) else (n_arrays, sizes[0])


def nifti_shape(path: Path) -> tuple[int, ...]:
    """Shape of a NIfTI image.

    Raises
    ------
    MissingInputError, InputError
        When there is no such file, or it is no NIfTI file.
    """
    return tuple(map(int, load_nifti(path).shape))


def cifti_shape(path: Path) -> tuple[int, int]:
    """Rows and grayordinates of a CIFTI file, without its XML.

    Raises
    ------
    MissingInputError, InputError
        When there is no such file, or it is no CIFTI-2 file of two dimensions.
    """
    with reading(path, "a CIFTI-2 file"), path.open("rb") as stream:
        block = stream.read(NIFTI2)
        # Either order of bytes: the first number of the header is its length. Dimensions follow as (6, 1, 1, 1, 1, rows, ...).
        order = "<" if struct.unpack("<i", block[:4]) == (NIFTI2,) else ">"
        (length,), dims = struct.unpack(f"{order}i", block[:4]), struct.unpack(f"{order}8q", block[16:80])
        if length != NIFTI2 or dims[0] != 6 or min(dims[5:7]) < 1:
            raise InputError(f"dimensions {dims}", path, expected="a CIFTI-2 file of rows and grayordinates")
    return dims[5], dims[6]


def gifti_tr(path: Path) -> tuple[float, ...]:
    """TR in s that a GIFTI file says; empty when it says none.

    ``TimeStep`` is in ms by the standard and in s by some programs: both readings are returned.
    """
    found = _STEP.search(_head(path, _DATA))
    step = float(found[1]) if found else 0.0
    return (step * 1e-3, step) if step > 0 else ()


def nifti_tr(path: Path) -> tuple[float, ...]:
    """TR in s that the header of a 4-D NIfTI file says; empty when it says none.

    A unit that is not given may be s or ms: both readings are returned.
    """
    header = load_nifti(path).header
    step, unit = float(header["pixdim"][4]), header.get_xyzt_units()[1]
    scales = {"sec": (1.0,), "msec": (1e-3,), "usec": (1e-6,), "unknown": (1.0, 1e-3)}.get(unit, ())
    return tuple(step * scale for scale in scales if step > 0)


def _head(path: Path, until: re.Pattern[bytes]) -> bytes:
    """Beginning of a GIFTI file, up to where a pattern is found, or `LIMIT`."""
    head = b""
    with reading(path, "a GIFTI file"), path.open("rb") as stream:
        while not until.search(head) and len(head) < LIMIT:
            block = stream.read(BLOCK)
            if not block:
                break
            head += block
    return head
