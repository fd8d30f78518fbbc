"""Sizes from the first kilobytes, against the same files read whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.io.headers import gifti_shape, gifti_tr, nifti_shape, nifti_tr
from bids_brainlm.io.images import gifti_rows

gifti: Any = nib.gifti


def _write(path: Path, *arrays: np.ndarray, meta: str = "") -> Path:
    held = [gifti.GiftiDataArray(array.astype(np.float32), intent="NIFTI_INTENT_TIME_SERIES") for array in arrays]
    nib.save(gifti.GiftiImage(darrays=held, meta=gifti.GiftiMetaData({"note": meta})), path)
    return path


@pytest.mark.parametrize(
    "shapes", [[(7,)] * 5, [(7,)], [(7, 5)], [(300,)] * 3, [(1, 4)]], ids=["many", "one", "matrix", "larger", "one vertex"]
)
def test_the_shape_is_that_of_the_rows(tmp_path: Path, shapes: list[tuple[int, ...]]) -> None:
    rng = np.random.default_rng(0)
    path = _write(tmp_path / "x.func.gii", *(rng.standard_normal(shape) for shape in shapes))
    assert gifti_shape(path) == gifti_rows(path)[0].shape


def test_nothing_after_the_header_is_read(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.func.gii", *np.random.default_rng(0).standard_normal((20, 5000)))
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"<Data>")])
    assert gifti_shape(path) == (20, 5000)


def test_metadata_may_be_long(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.func.gii", np.zeros(7), np.zeros(7), meta="x" * 100_000)
    assert gifti_shape(path) == (2, 7)


def test_a_file_that_does_not_say_how_many(tmp_path: Path) -> None:
    path = tmp_path / "x.func.gii"
    path.write_text('<?xml version="1.0"?>\n<GIFTI Version="1.0">\n<DataArray Dim0="12"\n Intent="x">')
    assert gifti_shape(path) == (0, 12)


def test_what_is_no_gifti_is_named(tmp_path: Path) -> None:
    for content in ("", "\0" * 50_000, '<GIFTI NumberOfDataArrays="0"></GIFTI>'):
        (tmp_path / "x.func.gii").write_text(content)
        with pytest.raises(InputError, match=r"no data array at the start: .*x\.func\.gii"):
            gifti_shape(tmp_path / "x.func.gii")
    with pytest.raises(MissingInputError, match=r"y\.func\.gii"):
        gifti_shape(tmp_path / "y.func.gii")


def test_a_volume_of_which_only_the_header_is_there(tmp_path: Path) -> None:
    path = tmp_path / "x.nii"
    image: Any = nib.Nifti1Image
    nib.save(image(np.zeros((3, 4, 5, 6), np.float32), np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:400])
    assert nifti_shape(path) == (3, 4, 5, 6)


@pytest.mark.parametrize(
    ("step", "unit", "expected"),
    [(2.5, "sec", (2.5,)), (2500.0, "msec", (2.5,)), (2.5, "unknown", (2.5, 0.0025)), (0.0, "sec", ()), (2.5, "hz", ())],
)
def test_the_tr_of_a_header(tmp_path: Path, step: float, unit: str, expected: tuple[float, ...]) -> None:
    image = nib.Nifti1Image(np.zeros((2, 2, 2, 3), np.float32), np.eye(4))
    image.header.set_zooms((1.0, 1.0, 1.0, step))
    image.header.set_xyzt_units("mm", unit)
    nib.save(image, tmp_path / "x.nii.gz")
    assert nifti_tr(tmp_path / "x.nii.gz") == pytest.approx(expected)


@pytest.mark.parametrize("place", ["image", "array"])
def test_the_tr_of_a_surface_file(tmp_path: Path, place: str) -> None:
    meta = gifti.GiftiMetaData({"TimeStep": "2500.000000"})
    arrays = [gifti.GiftiDataArray(np.zeros(5, np.float32), meta=meta if place == "array" else None) for _ in range(3)]
    nib.save(gifti.GiftiImage(darrays=arrays, meta=meta if place == "image" else None), tmp_path / "x.func.gii")
    assert gifti_tr(tmp_path / "x.func.gii") == pytest.approx((2.5, 2500.0))


def test_a_surface_file_that_says_no_tr(tmp_path: Path) -> None:
    assert gifti_tr(_write(tmp_path / "x.func.gii", np.zeros(5), meta="TimeStep")) == ()
