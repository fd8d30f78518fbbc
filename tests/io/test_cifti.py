"""CIFTI series and labels on fsLR, and their way to fsaverage through spheres that are made here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis, LabelAxis, ScalarAxis, SeriesAxis
from scipy.spatial import ConvexHull, KDTree

from bids_brainlm.errors import InputError, MissingInputError, MissingResourceError
from bids_brainlm.io.atlases import load_atlas
from bids_brainlm.io.cifti import FSLR, cifti_cortex, cifti_labels, cifti_series, cifti_tr, cortex_matrix, fslr_spheres
from bids_brainlm.io.headers import cifti_shape
from bids_brainlm.io.surfaces import Volume

N, T = 32492, 3
WALL = {"L": np.arange(0, N, 11), "R": np.arange(5, N, 13)}
"""Vertices of the medial wall: other ones in each hemisphere, as in real files."""


def cortex_axis(side: str, n: int = N) -> BrainModelAxis:
    mask = np.ones(n, bool)
    mask[WALL[side][WALL[side] < n]] = False
    return BrainModelAxis.from_mask(mask, name=f"CIFTI_STRUCTURE_CORTEX_{'LEFT' if side == 'L' else 'RIGHT'}")


def voxels(n: int = 50) -> BrainModelAxis:
    mask = np.zeros((5, 5, 5), bool)
    mask.ravel()[:n] = True
    return BrainModelAxis.from_mask(mask, affine=np.eye(4), name="CIFTI_STRUCTURE_BRAIN_STEM")


def save(path: Path, models: Sequence[BrainModelAxis], data: np.ndarray | None = None, rows: Any = None) -> Path:
    axis = models[0]
    for model in models[1:]:
        axis = axis + model
    if data is None:
        data = np.random.default_rng(0).standard_normal((T, len(axis)))
    nib.save(nib.Cifti2Image(data.astype(np.float32), (rows or SeriesAxis(0, 1.5, len(data)), axis)), path)
    return path


@cache
def fibonacci(n: int) -> tuple[np.ndarray, np.ndarray]:
    """A sphere of n evenly spread points and its triangles."""
    i = np.arange(n) + 0.5
    z, turn = 1 - 2 * i / n, np.pi * (1 + 5**0.5) * i
    points = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], axis=1)
    return points, ConvexHull(points).simplices


def sphere(path: Path, n: int = N, radius: float = 100.0) -> Path:
    points, faces = fibonacci(n)
    arrays = [
        nib.gifti.GiftiDataArray((points * radius).astype(np.float32), "NIFTI_INTENT_POINTSET"),
        nib.gifti.GiftiDataArray(faces.astype(np.int32), "NIFTI_INTENT_TRIANGLE"),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.GiftiImage(darrays=arrays), path)
    return path


@pytest.fixture
def template_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of TemplateFlow with the skeleton of the spheres, nothing of it fetched."""
    folder = tmp_path / "templateflow" / "tpl-fsLR"
    folder.mkdir(parents=True)
    for side in "LR":
        (folder / f"tpl-fsLR_space-fsaverage_hemi-{side}_den-32k_sphere.surf.gii").touch()
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(folder.parent))
    return folder


def test_columns_of_the_cortices_wherever_they_stand(tmp_path: Path) -> None:
    """Structures in an unusual order: the left cortex last, voxels between."""
    models = [cortex_axis("R"), voxels(), cortex_axis("L")]
    path = save(tmp_path / "x.dtseries.nii", models)
    whole = np.asarray(nib.load(path).dataobj)
    data, cortex = cifti_series(path)
    right = N - WALL["R"].size
    np.testing.assert_array_equal(data, np.concatenate([whole[:, right + 50 :], whole[:, :right]], axis=1))
    for vertices, side in zip(cortex.vertices, "LR", strict=True):
        np.testing.assert_array_equal(vertices, np.setdiff1d(np.arange(N), WALL[side]))
    assert (cortex.density, cortex.n_columns, data.dtype) == ("32k", data.shape[1], np.float32)
    assert cifti_cortex(path).columns == cortex.columns
    assert cifti_shape(path) == whole.shape
    assert cifti_tr(path) == (1.5,)


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ([cortex_axis("L"), voxels()], "no brain model of CIFTI_STRUCTURE_CORTEX_RIGHT"),
        ([cortex_axis("L", 10242), cortex_axis("R", 10242)], "cortices of 10242 vertices.*fsLR: 32492 .32k. or 59292 .59k."),
        ([cortex_axis("L"), cortex_axis("R", 10242)], "cortices of 10242, 32492 vertices"),
    ],
)
def test_what_is_not_fslr_is_named(tmp_path: Path, models: list[BrainModelAxis], said: str) -> None:
    with pytest.raises(InputError, match=said):
        cifti_series(save(tmp_path / "x.dtseries.nii", models))


def test_what_is_no_cifti_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.dtseries.nii"
    for content, said in ((b"", "the file is empty"), (b"x" * 2000, "damaged or of another format|dimensions")):
        path.write_bytes(content)
        for read in (cifti_series, cifti_shape, cifti_tr):
            with pytest.raises(InputError, match=said):
                read(path)
    nib.save(nib.Nifti2Image(np.zeros((2, 2, 2)), np.eye(4)), path)
    for read in (cifti_series, cifti_shape):
        with pytest.raises(InputError, match="CIFTI-2"):
            read(path)
    path.unlink()
    with pytest.raises(MissingInputError):
        cifti_series(path)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "x.dtseries.nii", [cortex_axis("L"), cortex_axis("R")])
    path.write_bytes(path.read_bytes()[:-10000])
    with pytest.raises(InputError, match="damaged"):
        cifti_series(path)


def test_a_smooth_map_arrives_on_fsaverage(tmp_path: Path, template_home: Path) -> None:
    """A function of the place on the sphere is the same function there, but for the curvature within a triangle."""
    path = save(tmp_path / "x.dtseries.nii", [cortex_axis("L"), cortex_axis("R"), voxels()], rows=None)
    cortex = cifti_cortex(path)
    spheres = [sphere(template_home / f"tpl-fsLR_space-fsaverage_hemi-{side}_den-32k_sphere.surf.gii") for side in "LR"]
    assert list(fslr_spheres("32k", offline=True)) == spheres
    target = fibonacci(2562)[0] * 90
    matrix = cortex_matrix(cortex, spheres, (target, target))
    assert matrix.shape == (2 * 2562, cortex.n_columns)
    source, wanted = fibonacci(N)[0], fibonacci(2562)[0]
    normal = np.array([[1.0, -2.0, 0.5], [0.3, 0.3, 2.0]])
    values = np.concatenate([np.sin(source[vertices] @ normal[i]) for i, vertices in enumerate(cortex.vertices)])
    expected = np.concatenate([np.sin(wanted @ normal[i]) for i in range(2)])
    np.testing.assert_allclose(matrix @ values, expected, atol=0.05)
    inner = np.concatenate([_all_corners_valid(wanted, WALL[side]) for side in "LR"])
    assert inner.mean() > 0.5
    np.testing.assert_allclose((matrix @ values)[inner], expected[inner], atol=1e-3)


def _all_corners_valid(wanted: np.ndarray, wall: np.ndarray) -> np.ndarray:
    """Points that are farther from every vertex of the wall than triangles are wide."""
    distance, _ = KDTree(fibonacci(N)[0][wall]).query(wanted)
    return np.asarray(distance > 1.25 * np.sqrt(4 * np.pi / N))


def test_the_wall_has_no_value(tmp_path: Path, template_home: Path) -> None:
    """Of a cap without data, vertices well inside it are left without a value; elsewhere a constant stays what it is."""
    source = fibonacci(N)[0]
    cap = source[:, 0] > 0.9
    mask = [BrainModelAxis.from_mask(~cap, name=f"CIFTI_STRUCTURE_CORTEX_{side}") for side in ("LEFT", "RIGHT")]
    data, cortex = cifti_series(save(tmp_path / "x.dtseries.nii", mask, np.full((T, 2 * (~cap).sum()), 7.0)))
    spheres = [sphere(template_home / f"tpl-fsLR_space-fsaverage_hemi-{side}_den-32k_sphere.surf.gii") for side in "LR"]
    target = fibonacci(2562)[0]
    matrix = cortex_matrix(cortex, spheres, (target, target))
    has_none = np.diff(matrix.indptr) == 0
    assert has_none[np.tile(target[:, 0] > 0.92, 2)].all()
    assert not has_none[np.tile(target[:, 0] < 0.88, 2)].any()
    np.testing.assert_allclose((matrix @ data.T)[~has_none], 7.0, rtol=1e-6)


def test_nesting(tmp_path: Path, template_home: Path) -> None:
    """The first vertices of a finer target are the coarser target's, so rows of the matrix are nested as vertices are."""
    cortex = cifti_cortex(save(tmp_path / "x.dtseries.nii", [cortex_axis("L"), cortex_axis("R")]))
    path = sphere(template_home / "mine.surf.gii")
    fine = fibonacci(10242)[0]
    matrices = [cortex_matrix(cortex, (path, path), (fine[:n], fine[:n])) for n in (10242, 2562)]
    assert abs(matrices[0][:2562] - matrices[1][:2562]).max() == 0
    assert abs(matrices[0][10242 : 10242 + 2562] - matrices[1][2562:]).max() == 0


def test_a_sphere_of_another_density_is_named(tmp_path: Path) -> None:
    cortex = cifti_cortex(save(tmp_path / "x.dtseries.nii", [cortex_axis("L"), cortex_axis("R")]))
    path = sphere(tmp_path / "s.surf.gii", 500)
    with pytest.raises(InputError, match="a sphere of 500 vertices.*32492, as of fsLR at 32k"):
        cortex_matrix(cortex, (path, path), (fibonacci(50)[0],) * 2)


def test_empty_files_of_the_skeleton_are_refused_with_the_command(template_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = "api.get('fsLR', space='fsaverage', density='32k', suffix='sphere', extension='.surf.gii')"
    with pytest.raises(MissingResourceError, match="not on this machine.*hemi-L_den-32k_sphere") as caught:
        fslr_spheres("32k", offline=True)
    assert f'python -c "from templateflow import api; {command}"' in str(caught.value)
    from templateflow import api

    def get(template: str, **query: Any) -> None:
        assert f"api.get({template!r}, {', '.join(f'{k}={v!r}' for k, v in query.items())})" == command
        for side in "LR":
            sphere(template_home / f"tpl-fsLR_space-fsaverage_hemi-{side}_den-32k_sphere.surf.gii", 50)

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(api, "get", unreachable, raising=False)
    with pytest.raises(MissingResourceError, match="no route to host.*api.get"):
        fslr_spheres("32k")
    monkeypatch.setattr(api, "get", lambda *_, **__: [], raising=False)
    with pytest.raises(MissingResourceError, match="TemplateFlow did not fetch it"):
        fslr_spheres("32k")
    monkeypatch.setattr(api, "get", get, raising=False)
    assert all(path.stat().st_size for path in fslr_spheres("32k"))


def test_templateflow_knows_this_query() -> None:
    """The names of the skeleton that TemplateFlow ships: both densities of fsLR are there for both hemispheres."""
    import importlib.resources
    import zipfile

    from bids_brainlm.io.cifti import SPHERE

    with importlib.resources.as_file(importlib.resources.files("templateflow") / "conf" / "templateflow-skel.zip") as path:
        names = set(zipfile.ZipFile(path).namelist())
    for density in FSLR.values():
        assert {f"tpl-fsLR/{SPHERE.format(density).format(side)}" for side in "LR"} <= names


def test_labels(tmp_path: Path) -> None:
    axis = [cortex_axis("L"), cortex_axis("R")]
    n = sum(map(len, axis))
    keys = np.arange(n) % 3
    table = {0: ("???", (0, 0, 0, 0)), 1: ("a", (1, 0, 0, 1)), 2: ("b", (0, 1, 0, 1))}
    path = save(tmp_path / "x.dlabel.nii", axis, keys[None], LabelAxis(["map"], [table]))
    sides, cortex = cifti_labels(path)
    for (found, names), side, start in zip(sides, "LR", (0, len(axis[0])), strict=True):
        assert names == {0: "???", 1: "a", 2: "b"}
        np.testing.assert_array_equal(np.flatnonzero(found == -1), WALL[side])
        kept = np.setdiff1d(np.arange(N), WALL[side])
        np.testing.assert_array_equal(found[kept], keys[start : start + kept.size])
    assert cortex.density == "32k"
    two = save(tmp_path / "y.dlabel.nii", axis, np.stack([keys] * 2), LabelAxis(["m", "n"], [table, table]))
    with pytest.raises(InputError, match="2 maps of labels"):
        cifti_labels(two)
    with pytest.raises(InputError, match="no table of labels"):
        cifti_labels(save(tmp_path / "z.dscalar.nii", axis, keys[None], ScalarAxis(["map"])))


OCTANTS = {i + 1: f"octant {i}" for i in range(8)}


def octant(points: np.ndarray) -> np.ndarray:
    return 1 + (points[:, 0] > 0) + 2 * (points[:, 1] > 0) + 4 * (points[:, 2] > 0)


def target_sphere(side: str) -> np.ndarray:
    from nilearn.datasets import fetch_surf_fsaverage
    from nilearn.surface import load_surf_mesh

    return np.asarray(load_surf_mesh(fetch_surf_fsaverage("fsaverage5")[f"sphere_{side}"]).coordinates, dtype=float)


def octant_atlas(folder: Path, kind: str) -> Path:
    """Octants of fsLR's sphere, right ones numbered from the other end; the wall has no label."""
    keys = [octant(fibonacci(N)[0]), 9 - octant(fibonacci(N)[0])]
    if kind == "dlabel":
        kept = [np.delete(key, WALL[side]) for key, side in zip(keys, "LR", strict=True)]
        table = {0: ("???", (0, 0, 0, 0))} | {key: (name, (0, 0, 0, 1)) for key, name in OCTANTS.items()}
        models = [cortex_axis("L"), cortex_axis("R"), voxels()]
        row = np.concatenate([*kept, np.zeros(50)])[None]
        return save(folder / "atlas-Octants_seg-4n_scale-8_den-91k_dseg.dlabel.nii", models, row, LabelAxis(["octant"], [table]))
    for key, side in zip(keys, "LR", strict=True):
        key[WALL[side]] = 0
        array = nib.gifti.GiftiDataArray(key.astype(np.int32), "NIFTI_INTENT_LABEL")
        table = nib.gifti.GiftiLabelTable()
        for value, name in OCTANTS.items():
            label = nib.gifti.GiftiLabel(value)
            label.label = name
            table.labels.append(label)
        path = folder / f"hemi-{side}_space-fsLR_atlas-Octants_seg-4n_scale-8_den-32k_dseg.label.gii"
        nib.save(nib.GiftiImage(darrays=[array], labeltable=table), path)
    return path


@pytest.mark.parametrize(("kind", "own"), [("dlabel", True), ("label.gii", False)])
@pytest.mark.parametrize("n", [10242, 2562])
def test_an_atlas_on_fslr_comes_to_fsaverage(tmp_path: Path, template_home: Path, kind: str, n: int, own: bool) -> None:
    """Octants stay octants, as seen from either sphere, except where the vertex is on a border or in the wall."""
    folder = tmp_path / "mine"
    folder.mkdir()
    spec = octant_atlas(folder, kind)
    for side in "LR":
        name = f"fs_LR-deformed_to-fsaverage.{side}.sphere.32k_fs_LR.surf.gii"
        sphere(folder / name if own else template_home / f"tpl-fsLR_space-fsaverage_hemi-{side}_den-32k_sphere.surf.gii")
    atlas = load_atlas(str(spec), space="fsaverage", n_left=n, n_vertices=2 * n, offline=True)
    assert atlas.names == tuple(f"{side}H_{name}" for side in "LR" for name in OCTANTS.values())
    assert (atlas.name, atlas.segmentation, atlas.scale) == ("Octants", "4n", "8")
    for side, labels, start in (("left", atlas.labels[:n], 0), ("right", atlas.labels[n:], 8)):
        places = target_sphere(side)[:n]
        wanted = octant(places) if side == "left" else 9 - octant(places)
        _, nearest = KDTree(fibonacci(N)[0]).query(places / np.linalg.norm(places, axis=1, keepdims=True))
        wall = np.isin(nearest, WALL[side[0].upper()])
        np.testing.assert_array_equal(labels == 0, wall)
        inner = ~wall & (np.abs(places).min(axis=1) > 2)  # mm of 100; vertices of fsLR are 2 mm apart
        assert inner.mean() > 0.8
        np.testing.assert_array_equal(labels[inner] - start, wanted[inner])


def test_an_atlas_on_fslr_says_which_sphere_it_lacks(tmp_path: Path, template_home: Path) -> None:
    spec = octant_atlas(tmp_path, "dlabel")
    with pytest.raises(MissingResourceError, match="hemi-L_den-32k_sphere.*api.get..fsLR., space=.fsaverage."):
        load_atlas(str(spec), space="fsaverage", n_left=2562, n_vertices=5124, offline=True)
    with pytest.raises(InputError, match="an atlas of surfaces for voxels in T1w"):
        load_atlas(str(spec), space="T1w", n_left=8, n_vertices=8, volume=Volume(np.eye(4), (2, 2, 2), np.arange(8)))
