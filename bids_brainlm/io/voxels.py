"""Series of some voxels of a NIfTI file, read volume by volume, so that the whole image is never in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.openers import ImageOpener

from bids_brainlm.core.types import Floats, Ints
from bids_brainlm.errors import InputError
from bids_brainlm.io.images import load_nifti, reading


def load_series(path: Path) -> Any:
    """A NIfTI image with a time axis, its voxels not yet read.

    Raises
    ------
    MissingInputError, InputError
        When it is not there, damaged, or not of 4 dimensions.
    """
    image = load_nifti(path)
    if len(image.shape) != 4:
        raise InputError(f"an image of shape {image.shape}", path, expected="4 dimensions, the last one time")
    return image


def series_at(image: Any, path: Path, index: Ints) -> Floats:
    """Series of voxels.

    Parameters
    ----------
    image : NIfTI image
        Of `load_series`.
    path : Path
    index : (n,) int64
        Flat index, first axis fastest, which is the order of the file.

    Returns
    -------
    (T, n) float32

    Raises
    ------
    InputError
        When the file is damaged.
    """
    proxy = image.dataobj
    n_voxels = int(np.prod(image.shape[:3]))
    out = np.empty((image.shape[3], index.size), dtype=np.float32)
    # One stream from start to end: a compressed file cannot be entered in the middle.
    with reading(path, "a NIfTI file"), ImageOpener(proxy.file_like) as stream:
        stream.seek(proxy.offset)
        for row in out:
            row[:] = np.frombuffer(stream.read(n_voxels * proxy.dtype.itemsize), dtype=proxy.dtype, count=n_voxels)[index]
        # The checksum stands at the end of a compressed file.
        stream.read()
    if (proxy.slope, proxy.inter) != (1, 0):
        out *= np.float32(proxy.slope)
        out += np.float32(proxy.inter)
    return out


def file_order(index: Ints, shape: Sequence[int]) -> Ints:
    """Flat index with the last axis fastest (C) -> with the first axis fastest, as voxels stand in a file."""
    return np.asarray(np.ravel_multi_index(np.unravel_index(index, tuple(shape)), tuple(shape), order="F"), dtype=np.int64)
