"""Responses come back as they were written, byte for byte the same each time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_brainlm.core.types import Parcellation
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.io.betas import Betas, read_betas, read_trials, write_betas, write_parcel_means, write_trials
from bids_brainlm.io.files import read_json, read_tsv
from bids_brainlm.io.matrices import find_betas, read_matrix
from bids_brainlm.io.surfaces import Geometry, Volume

ENTITIES = {"sub": "01", "ses": "a", "task": "story", "run": "02"}


def surface(n_left: int = 4, n_right: int = 5, trials: int = 3, entities: dict[str, str] = ENTITIES) -> Betas:
    data = np.random.default_rng(0).normal(size=(trials, n_left + n_right)).astype(np.float32)
    data[0, 0] = np.nan
    density = "3k" if n_left == n_right == 2562 else ""
    geometry = Geometry("fsaverage", density, n_left, n_left + n_right)
    return Betas(
        data, tuple(f"t{i}" for i in range(trials)), geometry, entities, "lss", {"Units": "percent", "Sources": ["bids::x"]}
    )


def volume() -> Betas:
    where = Volume(np.diag([2.0, 2.0, 3.0, 1.0]), (3, 4, 2), np.array([1, 5, 9, 23]))
    data = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    data[:, 2] = 0  # a voxel without signal stays in the mask
    return Betas(data, ("x", "y", "z"), Geometry("T1w", "", 4, 4, where, "2"), ENTITIES, "lsa")


def test_surface_round_trip(tmp_path: Path) -> None:
    betas = surface(2562, 2562)
    paths = write_betas(tmp_path, betas)
    stem = "sub-01_ses-a_task-story_run-02"
    assert [path.name for path in paths] == [
        f"{stem}_hemi-L_space-fsaverage_den-3k_stat-effect_desc-LSS_statmap.func.gii",
        f"{stem}_hemi-R_space-fsaverage_den-3k_stat-effect_desc-LSS_statmap.func.gii",
        f"{stem}_space-fsaverage_den-3k_stat-effect_desc-LSS_statmap.json",
    ]
    assert paths[0].parent == tmp_path / "sub-01" / "ses-a" / "func"
    for path in paths[:2]:
        back = read_betas(path)
        np.testing.assert_array_equal(back.data, betas.data)
        assert (back.trial_ids, back.geometry, back.entities, back.estimator) == (
            betas.trial_ids, Geometry("fsaverage", "3k", 2562, 5124), ENTITIES, "lss"
        )  # fmt: skip
    image: Any = nib.load(paths[1])
    assert [(dict(array.meta)["Name"], array.intent) for array in image.darrays] == [(f"t{i}", 1001) for i in range(3)]
    assert dict(image.meta)["AnatomicalStructurePrimary"] == "CortexRight"
    assert read_json(paths[2])["Density"] == "2562 vertices a hemisphere (fsaverage 3k)"


def test_hemispheres_of_different_size(tmp_path: Path) -> None:
    betas = surface(4, 5)
    back = read_betas(write_betas(tmp_path, betas)[0])
    np.testing.assert_array_equal(back.data, betas.data)
    assert back.geometry.n_left == 4


def test_volume_round_trip(tmp_path: Path) -> None:
    betas = volume()
    paths = write_betas(tmp_path, betas)
    assert paths[0].name == "sub-01_ses-a_task-story_run-02_space-T1w_res-2_stat-effect_desc-LSA_statmap.nii.gz"
    back = read_betas(paths[0])
    np.testing.assert_array_equal(back.data, betas.data)
    assert back.trial_ids == betas.trial_ids
    where, expected = back.geometry.volume, betas.geometry.volume
    assert where is not None
    assert expected is not None
    np.testing.assert_array_equal(where.index, expected.index)
    np.testing.assert_allclose(where.affine, expected.affine)
    assert (back.geometry.space, back.geometry.resolution) == ("T1w", "2")


@pytest.mark.parametrize("make", [surface, volume])
def test_same_responses_same_bytes(tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = {path.name: path.read_bytes() for path in write_betas(tmp_path / "a", make())}
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert {path.name: path.read_bytes() for path in write_betas(tmp_path / "b", make())} == first


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 different trial ids"):
        Betas(np.zeros((3, 4), np.float32), ("a", "b", "a"), Geometry("x", "", 2, 4), ENTITIES, "lss")
    paths = write_betas(tmp_path, surface())
    write_betas(tmp_path / "other", surface(trials=2))
    os.replace(next((tmp_path / "other").rglob("*hemi-R*")), paths[1])
    with pytest.raises(InputError, match="2 data array.*hemi-R.*the 3 of"):
        read_betas(paths[0])
    paths[1].unlink()
    with pytest.raises(MissingInputError, match="hemi-R"):
        read_betas(paths[0])


def test_parcel_means(tmp_path: Path) -> None:
    betas = surface()
    atlas = Parcellation("X", "fsaverage", [1, 1, 2, 0, 3, 3, 3, 0, 0], ("LH_a", "LH_b", "RH_a"), 4)
    means = np.array([[0.1, 2, 3], [4, 5, 6], [7, 8, np.nan]], np.float32)
    paths = write_parcel_means(tmp_path, betas, means, np.array([1.0, 0.4, 0.5]), atlas, 0.5)
    assert paths[0].name == "sub-01_ses-a_task-story_run-02_space-fsaverage_atlas-X_stat-mean_desc-LSS_statmap.tsv"
    assert paths[0].read_text() == "trial_id\tLH_a\tLH_b\tRH_a\nt0\t0.1\tn/a\t3.0\nt1\t4.0\tn/a\t6.0\nt2\t7.0\tn/a\tn/a\n"
    assert list(read_tsv(paths[2])["coverage"]) == ["1.0", "0.4", "0.5"]
    assert read_json(paths[1])["MinimumCoverage"] == 0.5
    assert read_json(paths[1])["Atlas"] == "X"


def test_parcel_means_say_which_of_several_atlases(tmp_path: Path) -> None:
    labels = [1, 1, 2, 0, 3, 3, 3, 0, 0]
    atlas = Parcellation("X", "fsaverage", labels, ("LH_a", "LH_b", "RH_a"), 4, segmentation="7n", scale="100")
    paths = write_parcel_means(tmp_path, surface(), np.ones((3, 3), np.float32), np.ones(3), atlas)
    assert "_atlas-X_seg-7n_scale-100_stat-mean_desc-LSS_" in paths[0].name
    assert "_atlas-X_seg-7n_scale-100_stat-coverage_desc-LSS_" in paths[2].name
    assert read_json(paths[1])["Atlas"] == "X (seg-7n, scale-100)"


def trials(n: int) -> pd.DataFrame:
    return pd.DataFrame({"trial_id": [f"t{i}" for i in range(n)], "onset": np.arange(n) * 3.0, "duration": 1.0})


def test_trials_table(tmp_path: Path) -> None:
    table = trials(3).assign(text=["a", None, "tab\there"])
    paths = write_trials(tmp_path, ENTITIES | {"space": "T1w"}, table, {"text": "What was read."})
    assert paths[0].relative_to(tmp_path).as_posix() == "sub-01/ses-a/beh/sub-01_ses-a_task-story_run-02_desc-trials_events.tsv"
    back = read_trials(paths[0])
    assert list(back) == ["onset", "duration", "trial_id", "text"]
    np.testing.assert_array_equal(back["onset"], table["onset"])
    assert list(back["text"]) == ["a", None, "tab\\there"]
    with pytest.raises(ValueError, match="without onset"):
        write_trials(tmp_path, ENTITIES, table[["duration"]])


def test_betas_of_an_earlier_run_are_found(tmp_path: Path) -> None:
    for run in ("10", "2"):
        write_betas(tmp_path, surface(entities=ENTITIES | {"run": run}))
    with pytest.raises(MissingInputError, match="no table of trials"):
        find_betas(tmp_path, "01")
    for run in ("10", "2"):
        write_trials(tmp_path, ENTITIES | {"run": run}, trials(3))
    found = find_betas(tmp_path, "sub-01")
    assert [(files.kind, files.entities["run"]) for files in found] == [("surface", "2"), ("surface", "10")]
    np.testing.assert_array_equal(read_betas(found[0].path).data, surface().data)
    with pytest.raises(MissingInputError, match="no betas of sub-02"):
        find_betas(tmp_path, "02")
    write_betas(tmp_path, Betas(**{**surface().__dict__, "estimator": "lsa", "entities": ENTITIES | {"run": "2"}}))
    with pytest.raises(InputError, match="several betas of one run"):
        find_betas(tmp_path, "01")


def test_matrices_are_found(tmp_path: Path) -> None:
    for stem in ("sub-1_task-a", "sub-10_task-a"):
        np.save(tmp_path / f"{stem}_betas.npy", np.ones((2, 3), np.float32))
        (tmp_path / f"{stem}_trials.tsv").write_text("onset\ttext\n5\tb\n1\ta\n")
    (found,) = find_betas(tmp_path, "1")
    assert (found.kind, found.entities) == ("matrix", {"sub": "1", "task": "a"})
    assert find_betas(found.path, "1") == [found]
    data, table = read_matrix(found.path, found.trials)
    assert isinstance(data, np.memmap)
    assert list(table["text"]) == ["b", "a"], "rows must stay those of the matrix"
    with pytest.raises(MissingInputError, match="no betas of sub-2"):
        find_betas(found.path, "2")
    with pytest.raises(MissingInputError, match="no such file or folder"):
        find_betas(tmp_path / "absent", "1")


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was loaded",)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    path, table = tmp_path / "sub-1_betas.npy", tmp_path / "sub-1_trials.tsv"
    table.write_text("onset\n1\n2\n")
    np.save(path, np.array([[Bomb()], [Bomb()]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="sub-1_betas.npy.*allow_pickle=False"):
        read_matrix(path, table)
    import pickle

    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match="sub-1_betas.npy"):
        read_matrix(path, table)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3, np.float32), "float32 of shape"),
        (np.zeros((2, 3), complex), "complex128"),
        (np.zeros((3, 3), np.float32), r"2 row\(s\).*3, one for each"),
    ],
)
def test_matrices_of_the_wrong_form(tmp_path: Path, array: np.ndarray, message: str) -> None:
    path, table = tmp_path / "sub-1_betas.npy", tmp_path / "sub-1_trials.tsv"
    table.write_text("onset\n1\n2\n")
    np.save(path, array)
    with pytest.raises(InputError, match=message):
        read_matrix(path, table)


def test_other_numbers_are_mapped_too(tmp_path: Path) -> None:
    path, table = tmp_path / "sub-1_betas.npy", tmp_path / "sub-1_trials.tsv"
    table.write_text("onset\n1\n2\n")
    np.save(path, np.arange(4.0).reshape(2, 2))
    data, _ = read_matrix(path, table)
    assert isinstance(data, np.memmap)
    assert data.dtype == np.float64
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="damaged"):
        read_matrix(path, table)
