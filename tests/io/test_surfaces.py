"""BOLD matrices against what was written, vertex by vertex and voxel by voxel."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bids_brainlm.config import Input
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.io.layout import RunFiles, find_runs
from bids_brainlm.io.surfaces import common_mask, load_bold


def first(tree: Any, **settings: Any) -> RunFiles:
    return find_runs(tree.raw, {}, "01", Input(**settings))[0]


def marked(n_left: int, n_right: int, rows: int = 3) -> list[np.ndarray]:
    """Hemispheres whose values tell row, side and vertex."""
    return [np.arange(n) + side * 1e6 + 1e5 * np.arange(rows)[:, None] for side, n in enumerate((n_left, n_right))]


def write(tree: Any, left: np.ndarray, right: np.ndarray, space: str = "fsaverage") -> RunFiles:
    for side, data in zip("LR", (left, right), strict=True):
        tree.gifti(f"sub-01_task-a_hemi-{side}_space-{space}_bold.func.gii", data)
    tree.events("sub-01_task-a")
    tree.confounds("sub-01_task-a")
    return first(tree, space=space)


def test_left_stands_before_right_even_if_sizes_differ(tree: Any) -> None:
    left, right = marked(4, 5)
    bold = load_bold(write(tree, left, right, "fsnative"))
    np.testing.assert_array_equal(bold.data, np.hstack([left, right]))
    assert (bold.n_left, bold.density, bold.volume, bold.data.dtype) == (4, "", None, np.float32)


def test_density_is_that_of_the_vertices_and_is_lowered_by_nesting(tree: Any) -> None:
    left, right = marked(10242, 10242)
    run = write(tree, left, right)  # called space-fsaverage, which 164k surfaces are called too
    assert load_bold(run).density == "10k"
    bold = load_bold(run, "3k")
    np.testing.assert_array_equal(bold.data, np.hstack([left[:, :2562], right[:, :2562]]).astype(np.float32))
    assert (bold.n_left, bold.density, bold.geometry.n_vertices) == (2562, "3k", 5124)
    with pytest.raises(InputError, match="10242 vertices.*at least 40962.*--density 10k"):
        load_bold(run, "41k")


def test_one_array_with_all_time_points(tree: Any) -> None:
    left, right = marked(4, 4)
    run = write(tree, left, right, "fsnative")
    array = nib.gifti.GiftiDataArray(left.T.astype(np.float32), intent="NIFTI_INTENT_TIME_SERIES")
    nib.save(nib.GiftiImage(darrays=[array]), run.bold[0])
    np.testing.assert_array_equal(load_bold(run).data[:, :4], left)


def test_unequal_hemispheres(tree: Any) -> None:
    left, right = marked(2562, 2562)
    with pytest.raises(InputError, match="2 time points.*hemi-R.*3, as in"):
        load_bold(write(tree, left, right[:2]))
    with pytest.raises(InputError, match="2561 vertices.*hemi-R"):
        load_bold(write(tree, left, right[:, :-1]))
    with pytest.raises(InputError, match="2561 vertices.*2562, 10242"):
        load_bold(write(tree, left[:, 1:], right[:, 1:]))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_gifti_is_named(surface_run: Callable[..., Any], share: float) -> None:
    run = first(surface_run())
    content = run.bold[1].read_bytes()
    run.bold[1].write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="hemi-R"):
        load_bold(run)


def volume_run(tree: Any, data: np.ndarray, mask: np.ndarray, run: str = "1") -> None:
    stem = f"sub-01_task-a_run-{run}"
    tree.nifti(f"{stem}_space-T1w_desc-preproc_bold.nii.gz", data)
    tree.nifti(f"{stem}_space-T1w_desc-brain_mask.nii.gz", mask.astype(np.uint8))
    tree.events(stem)
    tree.confounds(stem)


def test_volume_is_masked_in_c_order(tree: Any, rng: np.random.Generator) -> None:
    data, mask = rng.normal(size=(3, 4, 2, 6)).astype(np.float32), rng.random((3, 4, 2)) > 0.4
    volume_run(tree, data, mask)
    bold = load_bold(first(tree, space="T1w"))
    np.testing.assert_array_equal(bold.data, data[mask].T)
    assert bold.volume is not None
    np.testing.assert_array_equal(bold.volume.index, np.flatnonzero(mask))
    assert bold.n_left == mask.sum()


def test_common_mask_is_the_intersection(tree: Any, rng: np.random.Generator) -> None:
    masks = [rng.random((3, 4, 2)) > 0.3 for _ in range(2)]
    for number, mask in enumerate(masks):
        volume_run(tree, np.ones((3, 4, 2, 5), np.float32) * mask[..., None], mask, str(number))
    runs = find_runs(tree.raw, {}, "01", Input(space="T1w"))
    common = common_mask(runs)
    np.testing.assert_array_equal(common.index, np.flatnonzero(masks[0] & masks[1]))
    assert load_bold(runs[0], mask=common).data.shape == (5, common.index.size)
    tree.nifti("sub-01_task-a_run-1_space-T1w_desc-brain_mask.nii.gz", np.ones((3, 4, 3), np.uint8))
    with pytest.raises(InputError, match=r"run-1.*the mask's \(3, 4, 2\)"):
        common_mask(runs)


def test_mask_of_another_grid(tree: Any) -> None:
    volume_run(tree, np.ones((3, 4, 2, 5), np.float32), np.ones((3, 4, 3)))
    with pytest.raises(InputError, match=r"a grid of \(3, 4, 2\) voxels.*the mask's \(3, 4, 3\)"):
        load_bold(first(tree, space="T1w"))
    tree.nifti("sub-01_task-a_run-1_space-T1w_desc-brain_mask.nii.gz", np.ones((3, 4, 2), np.uint8), np.diag([2, 2, 2, 1]))
    with pytest.raises(InputError, match="affine"):
        load_bold(first(tree, space="T1w"))
    tree.nifti("sub-01_task-a_run-1_space-T1w_desc-brain_mask.nii.gz", np.zeros((3, 4, 2), np.uint8))
    with pytest.raises(InputError, match="the mask is empty"):
        load_bold(first(tree, space="T1w"))


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flip"])
def test_damaged_nifti_is_named(tree: Any, damage: str, rng: np.random.Generator) -> None:
    volume_run(tree, rng.normal(size=(9, 9, 9, 20)).astype(np.float32), np.ones((9, 9, 9)))
    run = first(tree, space="T1w")
    content = run.bold[0].read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes(255 - byte for byte in content[middle : middle + 64]) + content[middle + 64 :]
    damaged = {"cut": content[:middle], "empty": b"", "text": gzip.compress(b"no image"), "flip": flipped}[damage]
    run.bold[0].write_bytes(damaged)
    with pytest.raises(InputError, match="desc-preproc_bold.nii.gz"):
        load_bold(run)


def test_content_that_was_not_fetched(surface_run: Callable[..., Any]) -> None:
    run = first(surface_run())
    run.bold[0].unlink()
    run.bold[0].symlink_to("../.git/annex/objects/absent")
    with pytest.raises(MissingInputError, match="datalad get"):
        load_bold(run)


def test_volumes_of_sparse_acquisition(surface_run: Callable[..., Any]) -> None:
    tree = surface_run()
    n_volumes = len(load_bold(first(tree)).data)
    times = np.cumsum(np.resize([1.0, 1.0, 7.5], n_volumes)).tolist()
    tree.json(tree.raw / "task-a_bold.json", {"VolumeTiming": times})
    np.testing.assert_array_equal(load_bold(first(tree)).frame_times, times)
    tree.json(tree.raw / "task-a_bold.json", {"VolumeTiming": [*times, times[-1] + 1]})
    with pytest.raises(InputError, match=f"VolumeTiming lists {n_volumes + 1} volumes, the series has {n_volumes}"):
        load_bold(first(tree))


def test_haxby(real_data: Path) -> None:
    runs = find_runs(real_data / "haxby2001", {}, "1", Input(space="T1w"))
    bold = load_bold(runs[0])
    assert bold.data.shape == (121, 530)
    np.testing.assert_allclose(bold.frame_times, 2.5 * np.arange(121))
    reference = nib.load(runs[0].bold[0]).get_fdata()
    x, y, z = np.unravel_index(bold.volume.index[100], bold.volume.shape)  # type: ignore[union-attr]
    np.testing.assert_allclose(bold.data[:, 100], reference[x, y, z], rtol=1e-6)
    assert common_mask(runs).index.size == 530


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
