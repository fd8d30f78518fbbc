"""Runs of volumes and CIFTI files read as fsaverage: planted patterns come back where they belong, on every rung."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis, SeriesAxis
from nilearn.datasets import load_fsaverage
from nilearn.surface import vol_to_surf
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from bids_brainlm.config import Input
from bids_brainlm.errors import InputError, MissingResourceError
from bids_brainlm.io import meshes, projection
from bids_brainlm.io.layout import RunFiles, find_runs
from bids_brainlm.io.meshes import fsaverage_files, points
from bids_brainlm.io.projection import Sampling, projection_of
from bids_brainlm.io.surfaces import Bold, load_bold

STEM = "sub-01_task-a_run-1"
N = {"L": 700, "R": 900}
"""Vertices of the participant's hemispheres: a swap cannot pass."""

CENTRE = {"L": np.array([-45.0, 3, 0]), "R": np.array([45.0, 0, 5])}
SHAPE = (50, 30, 28)
AFFINE = np.array([[-4.0, 0, 0, 98], [0, 4, 0, -58], [0, 0, 4, -54], [0, 0, 0, 1]])
SLOPE = np.array([0.2, -0.5, 0.4])
TIMES = np.array([1.0, -2.0, 0.5, 3.0, 0.1])
ANATOMY = Rotation.from_euler("xyz", [0.5, -1.1, 2.0]).as_matrix()
"""Where a direction on the registration sphere is in the participant's head."""


@cache
def ball(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spread directions in an order without meaning, and their triangles."""
    i = np.random.default_rng(n).permutation(n) + 0.5
    z, turn = 1 - 2 * i / n, np.pi * (1 + 5**0.5) * i
    directions = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], axis=1)
    return directions, ConvexHull(directions).simplices


def surface(path: Path, places: np.ndarray, faces: np.ndarray) -> Path:
    arrays = [
        nib.gifti.GiftiDataArray(places.astype(np.float32), "NIFTI_INTENT_POINTSET"),
        nib.gifti.GiftiDataArray(faces.astype(np.int32), "NIFTI_INTENT_TRIANGLE"),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.GiftiImage(darrays=arrays), path)
    return path


def anatomy(tree: Any, side: str) -> Path:
    """A hemisphere that is a ball of 40 to 44 mm, and its registration sphere."""
    directions, faces = ball(N[side])
    folder, stem = tree.derivatives / "sub-01" / "anat", f"sub-01_hemi-{side}"
    for kind, radius in (("white", 40.0), ("pial", 44.0)):
        surface(folder / f"{stem}_{kind}.surf.gii", CENTRE[side] + radius * directions @ ANATOMY.T, faces)
    return surface(folder / f"{stem}_space-fsaverage_desc-reg_sphere.surf.gii", 100 * directions, faces)


def field(shape: tuple[int, ...] = SHAPE, affine: np.ndarray = AFFINE) -> np.ndarray:
    """1000 + time course x position along `SLOPE`, which trilinear interpolation reads exactly."""
    where = np.stack(np.indices(shape), axis=-1) @ affine[:3, :3].T + affine[:3, 3]
    return (1000 + (where @ SLOPE)[..., None] * TIMES).astype(np.float32)


def native(tree: Any, image: np.ndarray, stem: str = STEM) -> Any:
    for side in "LR":
        anatomy(tree, side)
    tree.nifti(f"{stem}_space-T1w_desc-preproc_bold.nii.gz", image, AFFINE)
    tree.events(stem)
    tree.confounds(stem)
    return tree


def run_of(tree: Any, **settings: Any) -> RunFiles:
    return find_runs(tree.raw, {}, "01", Input(**settings))[0]


def expected(side: str) -> np.ndarray:
    """(T, 2562) what a vertex of fsaverage reads: the field in the middle of the ribbon at the same direction."""
    target = points(fsaverage_files("sphere", "3k", Path("x"))["LR".index(side)], "3k")
    directions = target / np.linalg.norm(target, axis=1, keepdims=True)
    return 1000 + np.outer(TIMES, (CENTRE[side] + 42 * directions @ ANATOMY.T) @ SLOPE)


CHORD = 0.6
"""What is lost between the vertices of a coarse ball, where triangles are flat: .4 % of the pattern."""


def close(bold: Bold) -> None:
    for side, part in zip("LR", (bold.data[:, : bold.n_left], bold.data[:, bold.n_left :]), strict=True):
        np.testing.assert_allclose(part, expected(side), rtol=0, atol=CHORD)


def test_a_pattern_in_the_head_is_found_on_fsaverage(tree: Any) -> None:
    run = run_of(native(tree, field()), density="3k")
    assert run.rung == "native"
    bold = load_bold(run, "3k")
    spread = [np.ptp(expected(side)[1]) for side in "LR"]
    assert min(spread) > 80, "the pattern is much larger than the tolerance"
    close(bold)
    assert (bold.space, bold.density, bold.n_left, bold.geometry.n_vertices) == ("fsaverage", "3k", 2562, 5124)
    assert (bold.geometry.method, bold.geometry.approximate, bold.volume) == ("native", False, None)
    assert bold.data.dtype == np.float32
    np.testing.assert_array_equal(np.diff(bold.frame_times), 2.0)


def test_density_is_10k_unless_another_one_is_asked_for(tree: Any) -> None:
    bold = load_bold(run_of(native(tree, field())))
    assert (bold.density, bold.n_left, bold.data.shape) == ("10k", 10242, (5, 20484))
    # The coarser mesh is the beginning of the finer one.
    np.testing.assert_allclose(bold.data[:, 10242 : 10242 + 2562], expected("R"), rtol=0, atol=CHORD)


def test_depths_and_interpolation_are_heard(tree: Any) -> None:
    run = run_of(native(tree, field()))
    one, nearest = (load_bold(run, "3k", sampling=Sampling(*settings)) for settings in ((1,), (6, "nearest")))
    close(one)
    differs = np.abs(nearest.data[1] - one.data[1])
    assert 0.1 < differs.mean() < 4, "the nearest voxel is up to half a voxel away"


def test_medial_wall_is_empty(tree: Any) -> None:
    native(tree, field())
    inside = {side: ball(N[side])[0][:, 0] > -0.5 for side in "LR"}
    for side in "LR":
        array = nib.gifti.GiftiDataArray(inside[side].astype(np.int32), "NIFTI_INTENT_LABEL")
        folder = tree.derivatives / "sub-01" / "anat"
        nib.save(nib.GiftiImage(darrays=[array]), folder / f"sub-01_hemi-{side}_desc-cortex_mask.label.gii")
    run = run_of(tree)
    assert "cortex-L" in run.anatomy
    data = load_bold(run, "3k").data
    sphere = np.concatenate([points(path, "3k") for path in fsaverage_files("sphere", "3k", Path("x"))]) / 100
    # Triangles reach one vertex over the border.
    edge = 0.2
    assert np.isnan(data[:, sphere[:, 0] < -0.5 - edge]).all()
    assert np.isfinite(data[:, sphere[:, 0] > -0.5 + edge]).all()


def test_voxels_that_do_not_vary_do_not_count(tree: Any) -> None:
    image = field()
    image[:, :, :10] = 0  # the field of view ends 40 mm above the lowest slice
    image[:, :, 10] = np.nan
    bold = load_bold(run_of(native(tree, image)), "3k")
    height = {side: expected_height(side) for side in "LR"}
    for side, part in zip("LR", (bold.data[:, :2562], bold.data[:, 2562:]), strict=True):
        # White and pial may differ in height by 4 mm, voxels by 4 mm.
        assert np.isnan(part[:, height[side] < -54 + 40 - 6]).all()
        above = height[side] > -54 + 40 + 10
        np.testing.assert_allclose(part[:, above], expected(side)[:, above], rtol=0, atol=CHORD)
        seen = np.isfinite(part)
        assert np.abs(part[seen] - expected(side)[seen]).max() < 30, "no zero was averaged in"


def expected_height(side: str) -> np.ndarray:
    target = points(fsaverage_files("sphere", "3k", Path("x"))["LR".index(side)], "3k") / 100
    return (CENTRE[side] + 42 * target @ ANATOMY.T)[:, 2]


def test_a_value_that_is_not_finite_once_is_not_hidden(tree: Any) -> None:
    image = field()
    image[:, :, :, 2] = np.nan
    data = load_bold(run_of(native(tree, image)), "3k").data
    assert np.isnan(data[2]).all()
    assert np.isfinite(data[[0, 1, 3, 4]]).all()


def test_noisy_voxels_are_left_out_if_asked(tree: Any) -> None:
    rng = np.random.default_rng(0)
    clean = 1000 + rng.normal(0, 10, (*SHAPE, 40)).astype(np.float32)
    faulty = rng.random(SHAPE) < 0.03
    image = clean.copy()
    image[faulty] += rng.normal(0, 300, (faulty.sum(), 40))
    run = run_of(native(tree, image))
    without, with_all = (load_bold(run, "3k", sampling=Sampling(good_voxels=on)).data for on in (True, False))
    assert with_all.std(axis=0).max() > 50
    assert without[:, np.isfinite(without).all(axis=0)].std(axis=0).max() < 20
    assert np.isnan(without).mean() < 0.02


def test_kept_on_disk_and_made_again_when_damaged_or_changed(
    tree: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_of(native(tree, field()))
    cache_dir, made = tmp_path / "cache", []
    maker = projection.MAKERS["native"]
    monkeypatch.setitem(projection.MAKERS, "native", lambda recipe: made.append(recipe) or maker(recipe))

    def fetch(**settings: Any) -> Any:
        projection._kept.cache_clear()
        return projection_of(run, "3k", cache=cache_dir, **settings)

    first, again = fetch(), fetch()
    (path,) = cache_dir.iterdir()
    assert len(made) == 1
    assert (first.matrix != again.matrix).nnz == 0
    assert (first.n_left, first.matrix.dtype) == (again.n_left, again.matrix.dtype)
    assert projection_of(run, "3k", cache=cache_dir) is again, "and in the process"
    path.write_bytes(path.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        assert (fetch().matrix != first.matrix).nnz == 0
    assert "made again" in caplog.text
    assert len(made) == 2
    fetch(sampling=Sampling(3))
    fetch(sampling=Sampling(6, "nearest"))
    assert len(list(cache_dir.iterdir())) == 3
    directions, faces = ball(N["L"])
    surface(run.anatomy["pial-L"], CENTRE["L"] + 43 * directions @ ANATOMY.T, faces)
    assert (fetch().matrix != first.matrix).nnz > 0, "another surface under the same name"
    fetch(sampling=Sampling(good_voxels=True))
    assert len(list(cache_dir.iterdir())) == 4, "noise is judged run by run, the matrix is the same"


def test_runs_of_one_grid_share_a_projection(tree: Any, tmp_path: Path) -> None:
    native(tree, field())
    native(tree, 2 * field(), STEM.replace("run-1", "run-2"))
    runs = find_runs(tree.raw, {}, "01", Input())
    first, second = (projection_of(run, "3k", cache=tmp_path) for run in runs)
    assert first is second
    assert len(list(tmp_path.glob("projection-*"))) == 1


def test_surfaces_of_different_runs_of_fmriprep(tree: Any) -> None:
    run = run_of(native(tree, field()))
    directions, faces = ball(600)
    surface(run.anatomy["white-R"], directions, faces)
    with pytest.raises(InputError, match=r"600 vertices.*hemi-R_white.*expected: 900, as in .*hemi-R_space-fsaverage"):
        load_bold(run, "3k")


def test_surfaces_outside_of_the_volume(tree: Any) -> None:
    native(tree, field())
    for side in "LR":
        directions, faces = ball(N[side])
        for kind in ("white", "pial"):
            path = tree.derivatives / "sub-01" / "anat" / f"sub-01_hemi-{side}_{kind}.surf.gii"
            surface(path, 40 * directions + [0, 0, 500], faces)
    with pytest.raises(InputError, match="no vertex of cortex has a value.*inside the volume"):
        load_bold(run_of(tree), "3k")


def test_a_mesh_that_is_not_here(tree: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(native(tree, field()))
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    with pytest.raises(MissingResourceError, match=r"api.get\('fsaverage', .*density='41k'.*suffix='sphere'"):
        load_bold(run, "41k", offline=True)


def test_freesurfers_own_fsaverage_serves_finer_meshes(tree: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    directions, faces = ball(40962)
    folder = tree.derivatives / "sourcedata" / "freesurfer" / "fsaverage" / "surf"
    folder.mkdir(parents=True)
    for side in ("lh", "rh"):
        nib.freesurfer.write_geometry(folder / f"{side}.sphere", 100 * directions, faces)
    bold = load_bold(run_of(native(tree, field())), "41k", offline=True)
    assert (bold.density, bold.data.shape) == ("41k", (5, 2 * 40962))
    middle = 1000 + np.outer(TIMES, (CENTRE["L"] + 42 * directions @ ANATOMY.T) @ SLOPE)
    np.testing.assert_allclose(bold.data[:, :40962], middle, rtol=0, atol=CHORD)


def template_run(tree: Any) -> tuple[RunFiles, np.ndarray, np.ndarray]:
    affine = np.array([[4.0, 0, 0, -90], [0, 4, 0, -126], [0, 0, 4, -72], [0, 0, 0, 1]])
    image = np.random.default_rng(0).normal(100, 5, (46, 55, 46, 3)).astype(np.float32)
    tree.nifti(f"{STEM}_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz", image, affine)
    tree.events(STEM)
    tree.confounds(STEM)
    return run_of(tree), image, affine


def test_template_rung_is_nilearn_on_cortex_and_says_that_it_is_approximate(tree: Any) -> None:
    run, image, affine = template_run(tree)
    assert run.rung == "template"
    bold = load_bold(run)
    assert (bold.density, bold.geometry.method, bold.geometry.approximate) == ("10k", "template", True)
    fsaverage, img = load_fsaverage("fsaverage5"), nib.Nifti1Image(image, affine)
    for part, side in zip((bold.data[:, :10242], bold.data[:, 10242:]), ("left", "right"), strict=True):
        pial, white = fsaverage["pial"].parts[side], fsaverage["white_matter"].parts[side]
        theirs = vol_to_surf(img, pial, inner_mesh=white, depth=list(np.linspace(0, 1, 6))).T
        wall = np.isnan(part[0])
        assert 600 < wall.sum() < 800
        np.testing.assert_allclose(part[:, ~wall], theirs[:, ~wall], rtol=1e-6)


def test_medial_wall_of_finer_and_coarser_meshes() -> None:
    white = points(fsaverage_files("white", "10k", Path("x"))[0], "10k")
    inside = meshes.cortex("L", white)
    np.testing.assert_array_equal(meshes.cortex("L", white[:2562]), inside[:2562])
    finer = np.concatenate([white, white[::-1] + 0.01])
    np.testing.assert_array_equal(meshes.cortex("L", finer), np.concatenate([inside, inside[::-1]]))


def test_cifti_rung(tree: Any, tmp_path: Path) -> None:
    directions, faces = ball(32492)
    spheres = tmp_path / "spheres"
    for side in "LR":
        surface(spheres / f"tpl-fsLR_space-fsaverage_hemi-{side}_den-32k_sphere.surf.gii", 100 * directions, faces)
    inside = {"L": directions[:, 0] < 0.8, "R": directions[:, 1] < 0.7}
    axis = BrainModelAxis.from_mask(inside["L"], name="CIFTI_STRUCTURE_CORTEX_LEFT")
    axis = axis + BrainModelAxis.from_mask(inside["R"], name="CIFTI_STRUCTURE_CORTEX_RIGHT")
    values = np.concatenate([(CENTRE[side] + 42 * directions[inside[side]] @ ANATOMY.T) @ SLOPE for side in "LR"])
    series = (1000 + np.outer(TIMES, values)).astype(np.float32)
    series[:, ::50] = 0  # vertices that fMRIPrep had no data for
    path = tree.func(f"{STEM}_space-fsLR_den-91k_bold.dtseries.nii")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Cifti2Image(series, (SeriesAxis(0, 2.0, len(series)), axis)), path)
    tree.events(STEM)
    tree.confounds(STEM)
    derivatives = {"fmriprep": tree.derivatives, "spheres": spheres}
    (run,) = find_runs(tree.raw, derivatives, "01", Input())
    assert run.rung == "cifti"
    bold = load_bold(run, "3k", cache=tmp_path / "cache")
    assert (bold.geometry.method, bold.density, bold.n_left) == ("cifti", "3k", 2562)
    for side, part in zip("LR", (bold.data[:, :2562], bold.data[:, 2562:]), strict=True):
        known = np.isfinite(part[0])
        assert 0.8 < known.mean() < 0.95
        np.testing.assert_allclose(part[:, known], expected(side)[:, known], atol=2.0)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_beginning_of_the_finest_mesh_is_the_coarser_one(real_data: Path) -> None:
    for side, bundled in zip("LR", fsaverage_files("sphere", "10k", Path("x")), strict=True):
        finest = real_data / "spheres" / f"fsaverage_std_sphere.{side}.164k_fsavg_{side}.surf.gii"
        np.testing.assert_allclose(points(finest, "10k"), points(bundled, "10k"), atol=0.01)
        with pytest.raises(InputError, match="10242 vertices.*at least 40962, for density 41k"):
            points(bundled, "41k")
