"""Series of voxels, read volume by volume, against the whole image."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_brainlm.errors import InputError
from bids_brainlm.io.voxels import file_order, load_series, series_at

SHAPE = (6, 5, 4)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<i2", ">i2", "<u1", "<f8"])
def test_volume_by_volume_is_the_whole(tmp_path: Path, rng: np.random.Generator, name: str, dtype: str) -> None:
    data = rng.uniform(0, 250, (*SHAPE, 7)).astype(dtype)
    image = nib.Nifti1Image(data, np.eye(4), nib.Nifti1Header(endianness=dtype[0]))
    image.set_data_dtype(dtype[1:])
    image.header.set_slope_inter(2.0, 5.0)
    nib.save(image, tmp_path / name)
    index = rng.choice(np.prod(SHAPE), 50, replace=False)
    found = series_at(load_series(tmp_path / name), tmp_path / name, file_order(index, SHAPE))
    np.testing.assert_allclose(found, nib.load(tmp_path / name).get_fdata().reshape(-1, 7)[index].T, rtol=1e-6)
    assert (found.dtype, found.shape) == (np.float32, (7, 50))


def test_the_image_is_never_in_memory_whole(tmp_path: Path) -> None:
    path, shape = tmp_path / "x.nii.gz", (30, 30, 30, 60)
    nib.save(nib.Nifti1Image(np.zeros(shape, np.float32), np.eye(4)), path)
    image = load_series(path)
    tracemalloc.start()
    series_at(image, path, np.arange(100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * np.prod(shape) / 2


@pytest.mark.parametrize("missing", [1, 100])
def test_a_short_file(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "x.nii"
    nib.save(nib.Nifti1Image(np.ones((*SHAPE, 3), np.float32), np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(InputError, match=r"x\.nii"):
        series_at(load_series(path), path, np.arange(3))


def test_a_wrong_checksum_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((*SHAPE, 3), np.float32), np.eye(4)), tmp_path / "x.nii")
    content = bytearray(gzip.compress((tmp_path / "x.nii").read_bytes()))
    content[-6] ^= 255
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.nii\.gz"):
        series_at(load_series(path), path, np.arange(3))


def test_an_image_without_time(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.float32), np.eye(4)), tmp_path / "x.nii")
    with pytest.raises(InputError, match=r"shape \(6, 5, 4\).*4 dimensions"):
        load_series(tmp_path / "x.nii")
