"""Atlases fit the data vertex by vertex, or are refused with what to do."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bids_brainlm.core.types import Parcellation
from bids_brainlm.errors import ConfigError, InputError, MissingInputError, MissingResourceError
from bids_brainlm.io.atlases import load_atlas
from bids_brainlm.io.surfaces import Volume

N = 2562


def fsaverage(spec: str | Path, n: int = N, **settings: Any) -> Parcellation:
    return load_atlas(str(spec), **{"space": "fsaverage", "n_left": n, "n_vertices": 2 * n} | settings)


def annot(folder: Path, name: str, keys: np.ndarray, names: list[str]) -> Path:
    colours = np.array([[i, i, i, 0] for i in range(1, len(names) + 1)])
    nib.freesurfer.write_annot(str(folder / name), keys, colours, names, fill_ctab=True)
    return folder / name


def gifti(folder: Path, name: str, keys: np.ndarray, names: dict[int, str]) -> Path:
    table = nib.gifti.GiftiLabelTable()
    for key, text in names.items():
        label = nib.gifti.GiftiLabel(key)
        label.label = text
        table.labels.append(label)
    array = nib.gifti.GiftiDataArray(keys.astype(np.int32), intent="NIFTI_INTENT_LABEL", datatype="NIFTI_TYPE_INT32")
    nib.save(nib.GiftiImage(darrays=[array], labeltable=table), folder / name)
    return folder / name


def test_annot_pair_against_its_own_labels(tmp_path: Path, rng: np.random.Generator) -> None:
    names = ["unknown", "A", "Medial_wall", "B", "unused"]
    left, right = rng.integers(0, 4, N), rng.integers(0, 4, N)
    annot(tmp_path, "lh.mine.annot", left, names)
    path = annot(tmp_path, "rh.mine.annot", right, names)
    for spec in (path, tmp_path):
        atlas = fsaverage(spec)
        assert (atlas.name, atlas.n_left, atlas.names) == ("mine", N, ("LH_A", "LH_B", "RH_A", "RH_B"))
        expected = np.concatenate([np.array([0, 1, 0, 2])[left], np.array([0, 3, 0, 4])[right]])
        np.testing.assert_array_equal(atlas.labels, expected)


def test_gifti_pair_with_names_in_the_file_or_beside_it(tmp_path: Path, rng: np.random.Generator) -> None:
    packed = rng.choice([65793, 8326776, 8392312], N)
    for side in "LR":
        gifti(tmp_path, f"tpl-fsaverage_hemi-{side}_den-3k_atlas-X_dseg.label.gii", packed, {})
    (tmp_path / "tpl-fsaverage_atlas-X_dseg.tsv").write_text(
        "index\themi\tname\n65793\tL\tBackground+FreeSurfer_Defined_Medial_Wall\n8326776\tL\tL1\n8392312\tL\tL2\n"
        "65793\tR\t???\n8326776\tR\tR1\n8392312\tR\tR2\n"
    )
    atlas = fsaverage(tmp_path)
    assert (atlas.name, atlas.names) == ("X", ("L1", "L2", "R1", "R2"))
    np.testing.assert_array_equal(atlas.labels[N:] == 4, packed == 8392312)
    np.testing.assert_array_equal(atlas.labels[:N] == 0, packed == 65793)


def test_nesting_truncates_each_hemisphere_and_drops_what_is_lost(
    tmp_path: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    left, right = rng.integers(1, 4, 10242), rng.integers(1, 4, 10242)
    left[left == 2] = 1
    left[5000] = 2  # beyond the first 2562
    annot(tmp_path, "lh.x.annot", left, ["???", "a", "b", "c"])
    annot(tmp_path, "rh.x.annot", right, ["???", "d", "e", "f"])
    with caplog.at_level(logging.WARNING):
        atlas = fsaverage(tmp_path)
    assert atlas.names == ("a", "c", "d", "e", "f")
    assert "1 parcel(s) of x have no vertex" in caplog.text
    np.testing.assert_array_equal(atlas.labels[N:], right[:N] + 2)
    np.testing.assert_array_equal(atlas.labels[:N], np.where(left[:N] == 1, 1, 2))


@pytest.mark.parametrize("n", [10242, 2562])
def test_kmeans100(n: int) -> None:
    atlas = fsaverage("kmeans100", n)
    assert atlas.names == tuple(f"kmeans_{side}_{i:02d}" for side in ("LH", "RH") for i in range(1, 51))
    assert set(atlas.labels[:n]) == set(range(51))
    assert 0.05 < (atlas.labels == 0).mean() < 0.08
    assert np.bincount(atlas.labels)[1:].min() >= 40 * n / 2562 * 0.9
    with pytest.raises(InputError, match="10242 vertices a hemisphere.*40962.*--density 10k"):
        fsaverage("kmeans100", 40962)
    with pytest.raises(InputError, match="--space fsaverage"):
        fsaverage("kmeans100", n, space="T1w")


def test_kmeans100_leaves_out_the_medial_wall(real_data: Path) -> None:
    ours = fsaverage("kmeans100", 10242).labels == 0
    theirs = fsaverage(real_data / "atlases" / "fsaverage5" / "lh.Schaefer2018_100Parcels_7Networks.annot", 10242).labels == 0
    both = (ours & theirs).sum()
    assert both / ours.sum() > 0.9
    assert both / theirs.sum() > 0.7


def test_kmeans100_parcels_are_in_one_piece() -> None:
    from nilearn.datasets import fetch_surf_fsaverage
    from nilearn.surface import load_surf_mesh

    maker = _maker()
    labels = fsaverage("kmeans100", 10242).labels
    faces = np.asarray(load_surf_mesh(fetch_surf_fsaverage("fsaverage5")["sphere_right"]).faces, dtype=np.int64)
    near = maker.adjacency(faces, 10242)
    pieces = [maker.connected_components(near[member][:, member])[0] for member in _members(labels[10242:])]
    assert len(pieces) == 50
    assert max(pieces) <= 2  # the wall may cut a parcel


def test_kmeans100_is_what_its_script_makes(tmp_path: Path) -> None:
    maker = _maker()
    maker.main(tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (Path(maker.__file__).parent / path.name).read_bytes()


def _members(labels: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(labels == label) for label in np.unique(labels) if label]


def _maker() -> Any:
    import bids_brainlm

    path = Path(bids_brainlm.__file__).parent / "data" / "templates" / "atlases" / "make_kmeans100.py"
    spec = importlib.util.spec_from_file_location("make_kmeans100", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_blocks() -> None:
    atlas = load_atlas("blocks:3", space="", n_left=7, n_vertices=7)
    np.testing.assert_array_equal(atlas.labels, [1, 1, 1, 2, 2, 3, 3])
    assert (atlas.names, atlas.space) == (("block_1", "block_2", "block_3"), "none")
    for wrong in ("blocks:8", "blocks:0", "blocks:x"):
        with pytest.raises(ConfigError, match="N from 1 to the 7 columns"):
            load_atlas(wrong, space="", n_left=7, n_vertices=7)


def grid(shape: tuple[int, int, int], affine: np.ndarray, index: np.ndarray) -> dict[str, Any]:
    volume = Volume(affine, shape, index)
    return {"space": "T1w", "n_left": index.size, "n_vertices": index.size, "volume": volume}


def test_volume_with_a_table(tmp_path: Path, rng: np.random.Generator) -> None:
    keys = rng.integers(0, 3, (4, 3, 2)).astype(np.int16) * 10
    path = tmp_path / "atlas-V_dseg.nii.gz"
    nib.save(nib.Nifti1Image(keys, np.eye(4)), path)
    (tmp_path / "atlas-V_dseg.tsv").write_text("index\tname\n10\tten\n20\ttwenty\n")
    index = np.flatnonzero(rng.random(24) > 0.3)
    atlas = load_atlas(str(tmp_path), **grid((4, 3, 2), np.eye(4), index))
    assert (atlas.name, atlas.names, atlas.n_left) == ("V", ("ten", "twenty"), index.size)
    np.testing.assert_array_equal(atlas.labels * 10, keys.ravel()[index])
    with pytest.raises(InputError, match="or their affines differ.*resample"):
        load_atlas(str(path), **grid((4, 3, 2), np.diag([2, 2, 2, 1]), index))
    with pytest.raises(InputError, match="an atlas of voxels for surfaces"):
        fsaverage(path)
    surfaces = annot(tmp_path, "lh.x.annot", np.zeros(N, int), ["a"])
    with pytest.raises(InputError, match="an atlas of surfaces for voxels"):
        load_atlas(str(surfaces), **grid((4, 3, 2), np.eye(4), index))


def test_volume_in_the_same_space_is_sampled_at_the_nearest_voxel(tmp_path: Path, rng: np.random.Generator) -> None:
    keys = rng.integers(1, 4, (8, 6, 4)).astype(np.int16)
    nib.save(nib.Nifti1Image(keys, np.eye(4)), tmp_path / "tpl-MNI_atlas-V_dseg.nii.gz")
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = 1.0
    data = grid((3, 3, 2), affine, np.arange(18)) | {"space": "MNI"}
    atlas = load_atlas(str(tmp_path), **data)
    np.testing.assert_array_equal(atlas.labels.reshape(3, 3, 2), keys[1:7:2, 1:7:2, 1:5:2])


def test_real_atlases(real_data: Path) -> None:
    folder = real_data / "atlases"
    schaefer = fsaverage(folder / "fsaverage5" / "rh.Schaefer2018_100Parcels_7Networks.annot", 10242)
    assert schaefer.n_parcels == 100
    assert (schaefer.names[0], schaefer.names[50]) == ("7Networks_LH_Vis_1", "7Networks_RH_Vis_1")
    glasser = fsaverage(folder / "fsaverage5" / "lh.HCP-MMP1.annot", 10242)
    assert glasser.n_parcels == 360
    assert (glasser.names[0], glasser.names[180]) == ("LH_V1", "RH_V1")
    nested = fsaverage(folder / "fsaverage", 10242)
    assert nested.n_parcels == 100
    assert np.mean((nested.labels == 0) == (schaefer.labels == 0)) > 0.999, "one wall, at two densities"
    assert fsaverage(folder / "fsaverage5" / "lh.Schaefer2018_400Parcels_7Networks.annot", 2562).n_parcels == 400
    haxby = nib.load(real_data / "haxby2001" / "derivatives" / "atlas" / "atlas-Slice16_dseg.nii.gz")
    index = np.flatnonzero(np.asarray(haxby.dataobj))
    slices = load_atlas(str(real_data / "haxby2001" / "derivatives" / "atlas"), **grid(haxby.shape, haxby.affine, index))
    assert slices.n_parcels == 16


def test_broken_annot_is_named(real_data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="IndexError.*lh.gordon333dil.annot"):
        fsaverage(real_data / "atlases" / "broken")
    path = annot(tmp_path, "lh.x.annot", np.zeros(N, int), ["a"])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="lh.x.annot"):
        fsaverage(path)


def test_what_does_not_fit(tmp_path: Path, real_data: Path) -> None:
    coarse = real_data / "atlases" / "fsaverage5"
    with pytest.raises(InputError, match="10242 vertices a hemisphere .10k.*40962 vertices a hemisphere .41k.*--density 10k"):
        fsaverage(coarse / "lh.HCP-MMP1.annot", 40962)
    with pytest.raises(InputError, match="no fsaverage density"):
        fsaverage(coarse / "lh.HCP-MMP1.annot", 1000)
    with pytest.raises(InputError, match="4 atlases: lh.HCP-MMP1.annot, lh.Schaefer"):
        fsaverage(coarse, 10242)
    with pytest.raises(MissingInputError, match="found nothing"):
        fsaverage(tmp_path)
    annot(tmp_path, "lh.x.annot", np.arange(N) % 2, ["unknown", "a"])
    with pytest.raises(MissingInputError, match="rh.x.annot"):
        fsaverage(tmp_path)
    annot(tmp_path, "rh.x.annot", np.zeros(N, int), ["unknown", "a"])
    with pytest.raises(InputError, match="no parcel, only background"):
        fsaverage(tmp_path)
    with pytest.raises(InputError, match="which hemisphere"):
        fsaverage(annot(tmp_path, "both.annot", np.zeros(N, int), ["a"]))
    with pytest.raises(MissingInputError, match="no such atlas"):
        fsaverage(tmp_path / "absent.annot")
    with pytest.raises(ConfigError, match="expected kmeans100, a file or folder, blocks:N"):
        fsaverage("Schaefer")


def test_templateflow_offline_says_how_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    from templateflow import api

    paths = []
    for density, n in (("164k", 163842), ("3k", N), ("10k", 10242)):
        for side in "LR":
            name = f"tpl-fsaverage_hemi-{side}_den-{density}_atlas-Y_dseg.label.gii"
            keys = rng.integers(1, 3, n) if density != "164k" else np.ones(1)
            paths.append(gifti(tmp_path, name, keys, {1: f"{side}1", 2: f"{side}2"}))
    asked: list[dict[str, Any]] = []

    def ls(template: str, **query: Any) -> list[Path]:
        asked.append({"template": template, **query})
        return paths

    monkeypatch.setattr(api, "ls", ls, raising=False)
    monkeypatch.setattr(api, "get", lambda *_, **__: pytest.fail("offline must not fetch"), raising=False)
    atlas = fsaverage("Y:200:7n", offline=True)
    assert (atlas.name, atlas.names) == ("Y", ("L1", "L2", "R1", "R2"))
    assert atlas.entities == {"atlas": "Y", "seg": "7n", "scale": "200"}
    assert atlas.title == "Y (seg-7n, scale-200)"
    assert asked[0] == {
        "template": "fsaverage", "atlas": "Y", "scale": 200, "segmentation": "7n", "suffix": "dseg", "extension": ".label.gii"
    }  # fmt: skip
    paths[2].write_bytes(b"")
    with pytest.raises(MissingResourceError, match="not on this machine.*--atlas kmeans100") as caught:
        fsaverage("Y:200:7n", offline=True)
    assert caught.value.exit_code == 69
    assert "api.get('fsaverage', atlas='Y', suffix='dseg', extension='.label.gii', segmentation='7n', scale=200)" in str(
        caught.value
    )
    assert "den-3k" in str(caught.value)

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(api, "get", unreachable, raising=False)
    with pytest.raises(MissingResourceError, match="cannot be fetched .no route to host.*--atlas kmeans100"):
        fsaverage("Y:200:7n")
    paths.clear()
    with pytest.raises(MissingResourceError, match="no atlas 'Y:200:7n' in space fsaverage"):
        fsaverage("Y:200:7n")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
