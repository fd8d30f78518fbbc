"""From the command line: a participant whose series are CIFTI, or a volume with surfaces, is decoded on fsaverage."""

from __future__ import annotations

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis, SeriesAxis
from scipy.spatial import ConvexHull, KDTree

N_FSLR = 32492
SPHERE = "tpl-fsLR_space-fsaverage_hemi-{}_den-32k_sphere.surf.gii"


@cache
def fslr() -> tuple[np.ndarray, np.ndarray]:
    """Evenly spread points in the place of fsLR's vertices, and their triangles."""
    i = np.arange(N_FSLR) + 0.5
    z, turn = 1 - 2 * i / N_FSLR, np.pi * (1 + 5**0.5) * i
    points = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], axis=1)
    return points, ConvexHull(points).simplices


def write_sphere(path: Path) -> None:
    points, faces = fslr()
    arrays = [
        nib.gifti.GiftiDataArray((100 * points).astype(np.float32), "NIFTI_INTENT_POINTSET"),
        nib.gifti.GiftiDataArray(faces.astype(np.int32), "NIFTI_INTENT_TRIANGLE"),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.GiftiImage(darrays=arrays), path)


@cache
def target_sphere(side: str) -> np.ndarray:
    """Directions of the vertices of fsaverage at density 3k."""
    from nilearn.datasets import fetch_surf_fsaverage
    from nilearn.surface import load_surf_mesh

    sphere = np.asarray(load_surf_mesh(fetch_surf_fsaverage("fsaverage5")[f"sphere_{side}"]).coordinates, dtype=float)[:2562]
    return np.asarray(sphere / np.linalg.norm(sphere, axis=1, keepdims=True))


@cache
def nearest_vertex(side: str) -> np.ndarray:
    """Vertex of fsaverage at density 3k that lies nearest to each point."""
    return np.asarray(KDTree(target_sphere(side)).query(fslr()[0])[1])


def to_cifti(study: Any, who: str = "01") -> None:
    """Every pair of surfaces of a participant becomes a dtseries: each point has the series of the nearest vertex."""
    half = np.ones(N_FSLR, bool)
    half[:100] = False
    models = [BrainModelAxis.from_mask(half, name=f"CIFTI_STRUCTURE_CORTEX_{side}") for side in ("LEFT", "RIGHT")]
    for run in (1, 2, 3):
        data = []
        for side, name in (("L", "left"), ("R", "right")):
            path = study.func(f"hemi-{side}_space-fsaverage_den-3k_bold.func.gii", run, who)
            series = np.stack([array.data for array in nib.load(path).darrays])
            data.append(series[:, nearest_vertex(name)[half]])
            path.unlink()
        whole = np.concatenate(data, axis=1)
        image = nib.Cifti2Image(whole, (SeriesAxis(0, 2.0, len(whole)), models[0] + models[1]))
        nib.save(image, study.func("space-fsLR_den-91k_bold.dtseries.nii", run, who))
        sidecar = study.func("space-fsaverage_den-3k_bold.json", run, who)
        sidecar.rename(study.func("space-fsLR_den-91k_bold.json", run, who))


@pytest.fixture
def cifti(surface: Any, tmp_path: Path) -> Any:
    study = surface.copy(tmp_path)
    shutil.rmtree(study.bids / "sub-02")
    to_cifti(study)
    return study


def test_cifti_is_decoded_on_fsaverage(cifti: Any, surface_done: Any) -> None:
    for side in "LR":
        write_sphere(cifti.root / "spheres" / SPHERE.format(side))
    cifti.ok("-d", f"fmriprep={cifti.bids / 'derivatives' / 'fmriprep'}", f"spheres={cifti.root / 'spheres'}", "--density", "3k")
    maps = sorted(cifti.out.rglob("*run-1*_stat-effect_*_statmap.func.gii"))
    assert [re.search("hemi-(.)_space-fsaverage_den-3k", path.name)[1] for path in maps] == ["L", "R"]  # type: ignore[index]
    sidecar = json.loads(next(cifti.out.rglob("*run-1*_stat-effect_*_statmap.json")).read_text())
    assert "fsLR" in sidecar["ProjectionMethod"]
    assert sidecar["ProjectionApproximate"] is False
    assert f"bids:spheres:{SPHERE.format('L')}" in sidecar["Sources"]
    # Almost every point has neighbours of its own vertex only, so that betas are those of the surfaces it came from.
    for path in maps:
        ours, theirs = (
            np.stack([array.data for array in nib.load(file).darrays])
            for file in (path, surface_done.out / path.relative_to(cifti.out))
        )
        both = np.isfinite(ours).all(axis=0) & np.isfinite(theirs).all(axis=0)
        assert both.mean() > 0.95
        assert np.corrcoef(ours[:, both].ravel(), theirs[:, both].ravel())[0, 1] > 0.95
    assert set(cifti.table("decoded")["trial_id"]) == set(surface_done.table("decoded")["trial_id"])


def test_a_dry_run_names_the_spheres_that_are_missing(cifti: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cifti.root / "templateflow" / "tpl-fsLR"
    folder.mkdir(parents=True)
    for side in "LR":
        (folder / SPHERE.format(side)).touch()
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(folder.parent))
    done = cifti.run("--dry-run")
    assert done.code == 69, done.err
    assert "api.get('fsLR', space='fsaverage', density='32k', suffix='sphere', extension='.surf.gii')" in done.err
    assert "hemi-L_den-32k_sphere" in done.err


def test_without_projection_cifti_is_a_fault(cifti: Any) -> None:
    done = cifti.run("--projection", "none", "--dry-run")
    assert done.code == 66
    assert "--output-spaces fsaverage5" in done.err
    assert "or --projection auto, which brings the CIFTI series to fsaverage" in done.err


def write_surfaces(study: Any) -> None:
    """A head that is a ball within the small volume: white and pial surfaces of 2,562 vertices, its sphere that of fsaverage."""
    anat = study.bids / "derivatives" / "fmriprep" / "sub-01" / "anat"
    anat.mkdir()
    for side, name in (("L", "left"), ("R", "right")):
        sphere = target_sphere(name)
        faces = ConvexHull(sphere).simplices
        for kind, points in (
            ("white", 7.5 + 4 * sphere),
            ("pial", 7.5 + 6 * sphere),
            ("space-fsaverage_desc-reg_sphere", 100 * sphere),
        ):
            arrays = [
                nib.gifti.GiftiDataArray(points.astype(np.float32), "NIFTI_INTENT_POINTSET"),
                nib.gifti.GiftiDataArray(faces.astype(np.int32), "NIFTI_INTENT_TRIANGLE"),
            ]
            nib.save(nib.GiftiImage(darrays=arrays), anat / f"sub-01_hemi-{side}_{kind}.surf.gii")


ON_FSAVERAGE = ("--participant-label", "01", "--space", "fsaverage", "--density", "3k", "--atlas", "kmeans100")


def test_a_volume_is_estimated_on_fsaverage(volume: Any, tmp_path: Path) -> None:
    study = volume.copy(tmp_path)
    done = study.run(*ON_FSAVERAGE, "--dry-run")
    assert done.code == 66
    assert "the volume in T1w would serve with the participant's surfaces, but there are none in anat" in done.err
    assert "without --fs-no-reconall" in done.err
    write_surfaces(study)
    study.ok(*ON_FSAVERAGE, "--skip", "train", "decode", "evaluate")
    sidecar = json.loads(next(study.out.rglob("*run-2*_stat-effect_*_statmap.json")).read_text())
    assert sidecar["ProjectionApproximate"] is False
    assert "bids:fmriprep:sub-01/anat/sub-01_hemi-R_pial.surf.gii" in sidecar["Sources"]
    left = next(study.out.rglob("*run-2*_hemi-L_space-fsaverage_den-3k_stat-effect_*_statmap.func.gii"))
    rows = np.stack([array.data for array in nib.load(left).darrays])
    assert rows.shape == (12, 2562)
    assert np.isfinite(rows).all(axis=0).mean() > 0.9


def test_a_volume_in_mni_is_called_approximate(volume: Any, tmp_path: Path) -> None:
    study = volume.copy(tmp_path)
    for path in list((study.bids / "derivatives").rglob("*space-T1w*")):
        path.rename(path.with_name(path.name.replace("space-T1w", "space-MNI152NLin2009cAsym")))
    done = study.ok(*ON_FSAVERAGE, "--dry-run")
    assert "only approximate" in done.err
    assert "--output-spaces fsaverage5" in done.err
