"""The data set as others see it: the BIDS validator, nibabel, our own rim, and somebody who runs the simulator twice."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from bids_brainlm.config import Input
from bids_brainlm.core.design import nuisance, trial_design
from bids_brainlm.core.glm import lss, percent_signal_change
from bids_brainlm.errors import ConfigError, InputError
from bids_brainlm.io.atlases import load_atlas
from bids_brainlm.io.layout import find_runs, participants
from bids_brainlm.io.surfaces import load_bold
from bids_brainlm.simulation.dataset import Summary, simulate
from bids_brainlm.simulation.observer import average_repeats, facts_right, load_truth, observe
from bids_brainlm.simulation.world import FACTORS

SMALL = {"participants": 1, "runs": 3, "trials": 24}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return simulate(tmp_path_factory.mktemp("sim") / "bids", **SMALL)


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return simulate(tmp_path_factory.mktemp("silent") / "bids", **SMALL, snr=0.0)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return simulate(tmp_path_factory.mktemp("grid") / "bids", **SMALL, space="T1w", tr=1.5)


def checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def estimates(made: Summary, space: str) -> np.ndarray:
    """(n, V) LSS betas of sub-01, by the package's own way through the files."""
    runs = find_runs(made.folder, {"fmriprep": made.folder / "derivatives" / "fmriprep"}, "01", Input(space=space))
    out = []
    for run in runs:
        bold = load_bold(run)
        events = pd.read_csv(run.events, sep="\t")
        motion = pd.read_csv(run.confounds, sep="\t")[list(Input().confounds)].to_numpy()
        times = bold.frame_times
        design = trial_design(events["onset"].to_numpy(), events["duration"].to_numpy(), times)
        betas = lss(percent_signal_change(bold.data), design, nuisance(times, 1 / 128, motion))
        out.append(betas - betas.mean(axis=0))
    return np.concatenate(out)


@pytest.mark.parametrize("fixture", ["made", "grid"])
def test_the_validator_reports_no_error(fixture: str, request: pytest.FixtureRequest) -> None:
    tool = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent)) or shutil.which("bids-validator-deno")
    if tool is None:
        pytest.skip("needs bids-validator-deno")
    folder = request.getfixturevalue(fixture).folder
    ended = subprocess.run([tool, str(folder)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "[ERROR]" not in ended.stdout


def test_the_same_seed_writes_the_same_bytes(made: Summary, tmp_path: Path) -> None:
    again = simulate(tmp_path / "other-name", **SMALL)
    assert checksums(again.folder) == checksums(made.folder)
    assert again.reliability == made.reliability
    another = simulate(tmp_path / "seed", **SMALL, seed=1)
    assert checksums(another.folder) != checksums(made.folder)


def test_default_snr_is_reliable_and_snr_0_is_not(made: Summary, silent: Summary) -> None:
    assert 0.2 <= made.reliability[0] <= 0.4
    assert abs(silent.reliability[0]) < 0.05
    assert made.observer[0] > 0.5
    assert "split-half reliability 0.2" in str(made)


def test_snr_changes_neither_design_nor_texts(made: Summary, silent: Summary) -> None:
    one, other = checksums(made.folder), checksums(silent.folder)
    same = [name for name in one if one[name] == other[name]]
    assert {name for name in one if name.endswith(("events.tsv", "captions.tsv", "stimuli.tsv", "timeseries.tsv"))} <= set(same)
    assert not any("_bold.func.gii" in name for name in same)


def test_gifti_is_what_nibabel_reads(made: Summary) -> None:
    folder = made.folder / "derivatives" / "fmriprep" / "sub-01" / "func"
    image = nibabel.load(folder / "sub-01_task-pictures_run-01_hemi-R_space-fsaverage5_bold.func.gii")
    assert len(image.darrays) == made.n_volumes
    assert {array.data.shape for array in image.darrays} == {(10242,)}
    assert image.meta["AnatomicalStructurePrimary"] == "CortexRight"
    assert image.meta["TimeStep"] == "2000"
    data = np.stack([array.data for array in image.darrays])
    wall = ~data.any(axis=0)
    assert 400 < wall.sum() < 900
    assert data[:, ~wall].min() > 3000


@pytest.mark.parametrize(("fixture", "space"), [("made", "fsaverage"), ("grid", "T1w")])
def test_the_rim_reads_it_and_finds_the_truth(fixture: str, space: str, request: pytest.FixtureRequest) -> None:
    made = request.getfixturevalue(fixture)
    assert participants(made.folder) == ["01"]
    betas, truth = estimates(made, space), load_truth(made.folder, "01")
    assert betas.shape == (72, next(iter(truth.maps.values())).size)
    centred = truth.betas - np.stack([truth.betas[truth.run == run].mean(axis=0) for run in truth.run])
    agreement = [np.corrcoef(a, b)[0, 1] for a, b in zip(betas[:, truth.vertices].T, centred.T, strict=True)]
    assert np.mean(agreement) > 0.35
    train = np.array([truth.split[item] != "test" for item in truth.stimulus])
    right = facts_right(observe(betas, truth.maps, train), truth.facts, truth.stimulus)
    share = np.mean([hits[~train] for hits in right.values()])
    assert share == pytest.approx(made.observer[0], abs=0.07)
    means, names = average_repeats(betas, truth.stimulus)
    kept = np.array([truth.split[item] != "test" for item in names])
    averaged = facts_right(observe(means, truth.maps, kept), truth.facts, names)
    assert np.mean(list(averaged.values())) > 0.85


def test_only_patches_respond(made: Summary) -> None:
    truth = load_truth(made.folder, "01")
    driven = np.any([weights > 0 for weights in truth.maps.values()], axis=0)
    np.testing.assert_array_equal(np.flatnonzero(driven), truth.vertices)
    assert truth.betas.min() >= 0
    assert truth.betas.max() > 1
    first = dict(zip(truth.stimulus, truth.betas, strict=True))
    for item, row in zip(truth.stimulus, truth.betas, strict=True):
        np.testing.assert_array_equal(row, first[item])


def test_truth_table_and_events_agree(made: Summary) -> None:
    truth = load_truth(made.folder, "01")
    table = pd.read_csv(made.folder / "derivatives" / "simulation" / "stimuli.tsv", sep="\t", index_col="stimulus_id")
    assert list(table.columns) == ["split", "subject", "attribute", "action", "place"]
    captions = pd.read_csv(made.folder / "stimuli" / "captions.tsv", sep="\t")
    for stimulus, caption in zip(captions["stim_id"], captions["caption"], strict=True):
        for factor in table.columns[1:]:
            assert set(table.loc[stimulus, factor].split("|")) & set(caption.split())
    events = [pd.read_csv(path, sep="\t") for path in sorted((made.folder / "sub-01" / "func").glob("*_events.tsv"))]
    shown = pd.concat(events)
    assert shown["stim_id"].tolist() == truth.stimulus.tolist()
    assert (table.loc[shown["stim_id"], "split"].to_numpy() == shown["split"].to_numpy()).all()
    questions = pd.read_csv(made.folder / "stimuli" / "questions.tsv", sep="\t")
    assert questions.groupby(["stim_id", "task"]).size().eq(3).all()
    assert questions.groupby(["stim_id", "category"])["answer"].nunique().eq(1).all()
    assert set(questions["category"]) == set(FACTORS)


def test_volume_comes_with_an_atlas_of_its_voxels(grid: Summary) -> None:
    run = find_runs(grid.folder, {"fmriprep": grid.folder / "derivatives" / "fmriprep"}, "01", Input(space="T1w"))[0]
    bold = load_bold(run)
    np.testing.assert_allclose(np.diff(bold.frame_times), 1.5)
    path = grid.folder / "derivatives" / "simulation" / "atlas"
    atlas = load_atlas(str(path), space="T1w", n_left=bold.n_left, n_vertices=bold.data.shape[1], volume=bold.volume)
    assert (atlas.labels > 0).all()
    assert 50 < atlas.n_parcels < 150


def test_confounds_look_like_fmripreps(made: Summary) -> None:
    folder = made.folder / "derivatives" / "fmriprep" / "sub-01" / "func"
    path = folder / "sub-01_task-pictures_run-01_desc-confounds_timeseries.tsv"
    table = pd.read_csv(path, sep="\t")
    assert len(table) == made.n_volumes
    assert path.read_text("utf-8").splitlines()[1].split("\t").count("n/a") == 7
    moved, turned = (table[[f"{kind}_{axis}" for axis in "xyz"]].diff().abs().sum(axis=1) for kind in ("trans", "rot"))
    steps = moved + 50 * turned
    np.testing.assert_allclose(table["framewise_displacement"][1:], steps[1:], atol=1e-4)
    assert "cosine00" in table


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", "utf-8")
    with pytest.raises(InputError, match="not empty"):
        simulate(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"space": "MNI"}, "space"), ({"snr": -1.0}, "snr"), ({"runs": 0}, "at least 1"), ({"trials": 2}, "2 trials")],
)
def test_settings_that_make_no_experiment_are_refused(wrong: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate(tmp_path / "out", **{**SMALL, **wrong})  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())
