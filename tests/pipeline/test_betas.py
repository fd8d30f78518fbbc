"""Ready betas: those of an earlier run give what the BOLD series gave; a plain matrix needs no anatomy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_brainlm.models import checkpoint

ONE = ("--facts", "stimuli/facts.tsv", "--participant-label", "01")


@pytest.mark.parametrize("kind", ["volume", "surface"])
def test_betas_of_an_earlier_run_give_the_same_texts(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    study = request.getfixturevalue(f"{kind}_done")
    study.ok(*ONE, "-d", f"betas={study.out}", out=tmp_path / "out", work=tmp_path / "work")
    told = ["information"] if kind == "surface" else []
    assert sorted(study.executed(tmp_path / "out")) == sorted(["train", "decode", "evaluate", *told])
    for desc in ("decoded", "likelihood", "training", "metrics", *told):
        assert study.beh(desc).read_bytes() == study.beh(desc, out=tmp_path / "out").read_bytes()
    figures = {path.name for path in (tmp_path / "out" / "sub-01" / "figures").iterdir()}
    assert {"sub-01_desc-reliabilitymap.png", "sub-01_desc-parcels.png"} <= figures
    links = json.loads((tmp_path / "out" / "dataset_description.json").read_text())["DatasetLinks"]
    assert "betas" in links
    study.ok(*ONE, "-d", f"betas={study.out}", out=tmp_path / "out", work=tmp_path / "work")
    assert study.executed(tmp_path / "out") == []


def test_a_changed_right_hemisphere_is_seen(surface_done: Any, tmp_path: Path) -> None:
    study = surface_done.copy(tmp_path / "study", results=True)
    where: dict[str, Any] = {"out": tmp_path / "out", "work": tmp_path / "work"}
    study.ok(*ONE, "-d", f"betas={study.out}", "--skip", "reports", **where)
    path = next((study.out / "sub-01" / "func").glob("*_run-1_hemi-R_*"))
    image: Any = nib.load(path)
    for array in image.darrays:
        array.data = array.data[::-1].copy()
    nib.save(image, path)
    study.ok(*ONE, "-d", f"betas={study.out}", "--skip", "reports", **where)
    assert sorted(study.executed(tmp_path / "out")) == ["decode", "evaluate", "information", "train"]


@pytest.fixture
def matrix(volume_done: Any, tmp_path: Path) -> tuple[Any, Path]:
    """The betas of sub-01 as ``sub-01_betas.npy`` and ``sub-01_trials.tsv``, without anything else of theirs."""
    folder = tmp_path / "matrices"
    folder.mkdir()
    files = sorted((volume_done.out / "sub-01" / "func").glob("*_stat-effect_*.nii.gz"))
    images: list[Any] = [nib.load(path) for path in files]
    rows = [image.get_fdata(dtype=np.float32)[1:-1, 1:-1].reshape(-1, image.shape[3]).T for image in images]
    np.save(folder / "sub-01_betas.npy", np.concatenate(rows))
    tables = [pd.read_csv(path, sep="\t") for path in sorted((volume_done.out / "sub-01" / "beh").glob("*_events.tsv"))]
    pd.concat(tables)[["stim_id", "run"]].to_csv(folder / "sub-01_trials.tsv", sep="\t", index=False)
    return volume_done, folder


def _run(study: Any, folder: Path, *more: object) -> Any:
    where: dict[str, Any] = {"out": folder.parent / "out", "work": folder.parent / "work"}
    return study.run(*ONE, "-d", f"betas={folder}", "--atlas", "blocks:8", *more, **where)


def test_a_plain_matrix_is_decoded_in_blocks(matrix: tuple[Any, Path]) -> None:
    study, folder = matrix
    done = _run(study, folder)
    assert done.code == 0, done.err
    table = pd.read_csv(next((folder.parent / "out").rglob("*_desc-decoded_beh.tsv")), sep="\t")
    ours = study.table("decoded")
    # The same rows and the same seed: the same pictures are held out, and the readout of the same numbers agrees.
    assert list(table["stimulus_id"]) == list(ours["stimulus_id"])
    metrics = pd.read_csv(next((folder.parent / "out").rglob("*_desc-metrics_beh.tsv")), sep="\t")
    linear = [frame.set_index(["metric", "condition"])["value"]["facts", "ridge"] for frame in (metrics, study.table("metrics"))]
    assert linear[0] == pytest.approx(linear[1])
    _, about = checkpoint.load(next((folder.parent / "out").rglob("*.safetensors")))
    assert about["atlas"] == "blocks8"


def _pickled(folder: Path) -> None:
    np.save(folder / "sub-01_betas.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)


def _short(folder: Path) -> None:
    path = folder / "sub-01_trials.tsv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))


def _no_table(folder: Path) -> None:
    (folder / "sub-01_trials.tsv").unlink()


def _repeated(folder: Path) -> None:
    table = pd.read_csv(folder / "sub-01_trials.tsv", sep="\t")
    table.assign(trial_id="same").to_csv(folder / "sub-01_trials.tsv", sep="\t", index=False)


def _backwards(folder: Path) -> None:
    table = pd.read_csv(folder / "sub-01_trials.tsv", sep="\t")
    table.assign(onset=range(len(table), 0, -1)).to_csv(folder / "sub-01_trials.tsv", sep="\t", index=False)


@pytest.mark.parametrize(
    ("damage", "code", "path", "words"),
    [
        (_pickled, 65, "sub-01_betas.npy", "allow_pickle=False"),
        (_short, 65, "sub-01_trials.tsv", "34 row"),
        (_no_table, 66, "sub-01_trials.tsv", "no table of trials"),
        (_repeated, 65, "sub-01_trials.tsv", "ids repeat"),
        (_backwards, 65, "sub-01_trials.tsv", "onsets"),
    ],
)
def test_a_matrix_that_cannot_be_used_is_named(matrix: tuple[Any, Path], damage: Any, code: int, path: str, words: str) -> None:
    study, folder = matrix
    damage(folder)
    done = _run(study, folder)
    assert done.code == code, done.err
    assert path in done.lines[-1]
    assert words in done.lines[-1]
    assert "Traceback" not in done.err
    assert not list((folder.parent / "out").rglob("*.safetensors"))


def test_more_blocks_than_columns_are_refused(matrix: tuple[Any, Path]) -> None:
    study, folder = matrix
    done = _run(study, folder, "--set", "parcels.atlas=blocks:100000")
    assert done.code == 2
    assert "blocks:100000" in done.lines[-1]


def test_a_participant_without_betas_is_named(matrix: tuple[Any, Path]) -> None:
    study, folder = matrix
    where: dict[str, Any] = {"out": folder.parent / "out", "work": folder.parent / "work"}
    done = study.run("-d", f"betas={folder}", "--atlas", "blocks:8", **where)
    assert done.code == 75
    assert any(line.startswith("sub-02: no betas of sub-02") for line in done.lines)
    assert study.beh("decoded", out=where["out"]).with_name("sub-01_task-unknown_desc-decoded_beh.tsv").is_file()
