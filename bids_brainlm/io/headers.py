"""How large an image is, from the first kilobytes of its file.

A plan of the work needs the shape of every BOLD series and none of its values. A GIFTI file says how many data arrays it has
and how long the first one is before any data come; a NIfTI file has its shape in the header.
"""

from __future__ import annotations

import re
from pathlib import Path

from bids_brainlm.errors import InputError
from bids_brainlm.io.images import load_nifti, reading

BLOCK = 2**13
"""Bytes read at a time."""

LIMIT = 2**22
"""Bytes after which a GIFTI file without a data array is given up: metadata and label tables come first."""

_FIRST_ARRAY = re.compile(rb"<DataArray\s([^>]*)>")
_COUNT = re.compile(rb"<GIFTI\s[^>]*?NumberOfDataArrays\s*=\s*[\"'](\d+)")
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
    with reading(path, "a GIFTI file"), path.open("rb") as stream:
        head = b""
        found = None
        while found is None and len(head) < LIMIT:
            block = stream.read(BLOCK)
            if not block:
                break
            head += block
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
