"""Bad input ends in one clear line, on stderr and on the page, and harms nobody else."""

from __future__ import annotations

import html
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel.freesurfer import write_annot

Damage = Callable[[Any], object]


def _half(study: Any, root: Path) -> Any:
    """A finished study whose first participant was never run."""
    copy = study.copy(root, results=True)
    shutil.rmtree(copy.out / "sub-01")
    shutil.rmtree(copy.root / "work" / "checkpoints")
    for path in (copy.out / "sub-01.html", copy.out / "group.html", *(copy.out / "logs" / "stages").glob("sub-01_*")):
        path.unlink()
    return copy


@pytest.fixture
def volume_half(volume_done: Any, tmp_path: Path) -> Any:
    return _half(volume_done, tmp_path)


@pytest.fixture
def surface_half(surface_done: Any, tmp_path: Path) -> Any:
    return _half(surface_done, tmp_path)


def _first_line(study: Any, who: str = "01") -> str:
    page = (study.out / f"sub-{who}.html").read_text("utf-8")
    return html.unescape(page.partition('class="first failed"')[2].partition("<p>")[2].partition("</p>")[0])


def _assert_named(study: Any, done: Any, code: int, *words: str) -> None:
    """One line says what, where, and what to do; nothing half-done has a final name."""
    assert done.code == code, done.err
    line = done.lines[-1]
    assert line.endswith(f"[exit code {code}]")
    for word in words:
        assert word in line, (word, line)
    assert "expected: " in line or "remedy: " in line
    assert "Traceback" not in done.err
    fault = next(line for line in done.lines if line.startswith("sub-01: ")).removeprefix("sub-01: ")
    assert _first_line(study) == f"failed: {fault}"
    for name in ("sub-01_train", "sub-01_decode", "sub-01_evaluate"):
        assert not (study.out / "logs" / "stages" / f"{name}.json").exists()
    own = study.out / "sub-01"
    assert not [path for path in own.rglob("*") if "_beh." in path.name or "_model." in path.name]
    assert [path for path in study.out.rglob(".*") if path.name != ".bidsignore"] == []
    assert not [path for path in own.rglob("*_statmap.*") if path.name not in _stamped(study)]


def _stamped(study: Any) -> set[str]:
    stamps = (study.out / "logs" / "stages").glob("sub-01_*.json")
    return {Path(name).name for path in stamps for name in json.loads(path.read_text())["outputs"]}


def _edit(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_csv(path, sep="\t", keep_default_na=False)).to_csv(path, sep="\t", index=False)


def _no_derivatives(study: Any) -> None:
    shutil.rmtree(study.func("x").parents[1])


def _no_bold_of_one_run(study: Any) -> None:
    study.func("space-T1w_desc-preproc_bold.nii.gz", 2).unlink()


def _truncated(study: Any) -> None:
    path = study.func("space-T1w_desc-preproc_bold.nii.gz", 2)
    path.write_bytes(path.read_bytes()[:-2000])


def _no_bold_of_any_run(study: Any) -> None:
    for run in (1, 2, 3):
        study.func("space-T1w_desc-preproc_bold.nii.gz", run).unlink()


def _no_mask(study: Any) -> None:
    study.func("space-T1w_desc-brain_mask.nii.gz", 1).unlink()


def _other_grid(study: Any) -> None:
    path = study.func("space-T1w_desc-brain_mask.nii.gz", 1)
    nib.save(nib.Nifti1Image(np.ones((6, 6, 7), np.uint8), np.diag([3.0, 3.0, 3.0, 1.0])), path)


def _no_tr(study: Any) -> None:
    study.func("space-T1w_desc-preproc_bold.json", 3).write_text("{}")


def _bad_json(study: Any) -> None:
    study.func("space-T1w_desc-preproc_bold.json", 3).write_text('{"RepetitionTime": 2.0,')


def _short_confounds(study: Any) -> None:
    _edit(study.func("desc-confounds_timeseries.tsv", 1), lambda table: table[:-3])


def _no_rotations(study: Any) -> None:
    _edit(study.func("desc-confounds_timeseries.tsv", 1), lambda table: table.drop(columns=["rot_x"]))


def _late(study: Any) -> None:
    _edit(study.events(3), lambda table: table.assign(onset=table["onset"] + 60))


def _in_milliseconds(study: Any) -> None:
    _edit(study.events(2), lambda table: table.assign(onset=table["onset"] * 1000))


def _no_number(study: Any) -> None:
    _edit(study.events(2), lambda table: table.assign(onset=["n/a", *table["onset"][1:]]))


def _twice_at_once(study: Any) -> None:
    _edit(study.events(1), lambda table: table.assign(onset=[table["onset"][1], *table["onset"][1:]]))


def _no_text(study: Any) -> None:
    for run in (1, 2, 3):
        _edit(study.events(run), lambda table: table.drop(columns="stim_id"))


def _other_keys(study: Any) -> None:
    for run in (1, 2, 3):
        _edit(study.events(run), lambda table: table.assign(stim_id="picture" + table["stim_id"]))


def _few(study: Any) -> None:
    for run in (1, 2, 3):
        _edit(study.events(run), lambda table: table[:1])


def _one_picture(study: Any) -> None:
    for run in (1, 2, 3):
        _edit(study.events(run), lambda table: table.assign(stim_id="red-dog"))


def _flat(study: Any) -> None:
    path = study.func("space-T1w_desc-preproc_bold.nii.gz", 1)
    image: Any = nib.load(path)
    nib.save(nib.Nifti1Image(np.full(image.shape, 7, np.float32), image.affine), path)


VOLUME: list[tuple[Damage, int, tuple[str, ...]]] = [
    (_no_derivatives, 66, ("no BOLD series of participant '01'", "derivatives/fmriprep/sub-01", "run fMRIPrep")),
    (_no_bold_of_one_run, 66, ("no BOLD series of sub-01_task-look_run-2", "--output-spaces")),
    (
        _no_bold_of_any_run,
        66,
        ("no BOLD series of sub-01_task-look_run-1", "no BOLD series of sub-01_task-look_run-3", "--output-spaces"),
    ),
    (_truncated, 65, ("damaged", "run-2_space-T1w_desc-preproc_bold.nii.gz", "copy or make it again")),
    (_no_mask, 66, ("no brain mask for sub-01_task-look_run-1", "desc-brain_mask.nii.gz")),
    (_other_grid, 65, ("(6, 6, 8)", "(6, 6, 7)")),
    (_no_tr, 66, ("RepetitionTime", "run-3")),
    (_bad_json, 65, ("not valid JSON", "run-3_space-T1w_desc-preproc_bold.json")),
    (_short_confounds, 65, ("41 rows for 44 volumes", "confounds_timeseries.tsv")),
    (_no_rotations, 65, ("rot_x", "run-1_desc-confounds_timeseries.tsv")),
    (_late, 65, ("run-3_events.tsv", "events between 0 and")),
    (_in_milliseconds, 65, ("run-2_events.tsv", "check onsets (seconds)")),
    (_no_number, 65, ("the onset of row 1 is n/a", "run-2_events.tsv")),
    (_twice_at_once, 65, ("two trials with texts begin at 10 s", "run-1_events.tsv", "one row a trial")),
    (_no_text, 65, ("no column 'stim_id' of keys", "run-1_events.tsv", "one of onset, duration, trial_type, part")),
    (_other_keys, 66, ("no trial has a text in captions.tsv", "run-1_events.tsv", "no text for 'picture")),
    (_few, 65, ("3 trial(s) with a text", "_events.tsv", "at least 4")),
    (_one_picture, 65, ("cannot be split", "1 group(s)", "_events.tsv")),
    (_flat, 65, ("no vertex varies", "run-1_space-T1w_desc-preproc_bold.nii.gz")),
]


@pytest.mark.parametrize(("damage", "code", "words"), VOLUME, ids=[item[0].__name__.strip("_") for item in VOLUME])
def test_a_fault_of_one_participant(volume_half: Any, damage: Damage, code: int, words: tuple[str, ...]) -> None:
    study = volume_half
    damage(study)
    _assert_named(study, study.run("--facts", "stimuli/facts.tsv", "--participant-label", "01"), code, *words)
    # Beside another participant, who is done, the same line is part of a success.
    done = study.run("--facts", "stimuli/facts.tsv")
    assert done.code == 75
    assert "1 of 2 participants failed (01)" in done.lines[-1]
    assert words[0] in done.lines[-1]
    outcomes = study.log()["outcomes"]
    assert (outcomes["01"]["exit_code"], outcomes["02"]["exit_code"]) == (code, 0)
    assert study.beh("metrics", "02").is_file()


def _fewer_on_the_right(study: Any) -> None:
    path = study.func("hemi-R_space-fsaverage_den-3k_bold.func.gii", 2)
    _rewrite(path, lambda rows: rows[:, :642])


def _shorter_on_the_right(study: Any) -> None:
    _rewrite(study.func("hemi-R_space-fsaverage_den-3k_bold.func.gii", 2), lambda rows: rows[:-1])


def _no_density(study: Any) -> None:
    for side in "LR":
        _rewrite(study.func(f"hemi-{side}_space-fsaverage_den-3k_bold.func.gii", 2), lambda rows: rows[:, :2000])


def _no_right(study: Any) -> None:
    study.func("hemi-R_space-fsaverage_den-3k_bold.func.gii", 1).unlink()


def _rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image: Any = nib.load(path)
    rows = change(np.stack([array.data for array in image.darrays]))
    arrays = [nib.gifti.GiftiDataArray(row, intent="NIFTI_INTENT_TIME_SERIES", datatype="NIFTI_TYPE_FLOAT32") for row in rows]
    nib.save(nib.GiftiImage(darrays=arrays), path)


SURFACE: list[tuple[Damage, int, tuple[str, ...]]] = [
    (_fewer_on_the_right, 65, ("642 vertices", "run-2_hemi-R", "2562, as in")),
    (_shorter_on_the_right, 65, ("43 time points", "run-2_hemi-R", "44, as in")),
    (_no_density, 65, ("2000 vertices", "run-2_hemi-L", "one of 2562, 10242")),
    (_no_right, 66, ("one hemisphere is missing", "run-1_hemi-R")),
]


@pytest.mark.parametrize(("damage", "code", "words"), SURFACE, ids=[item[0].__name__.strip("_") for item in SURFACE])
def test_a_fault_of_surfaces(surface_half: Any, damage: Damage, code: int, words: tuple[str, ...]) -> None:
    damage(surface_half)
    _assert_named(surface_half, surface_half.run("--participant-label", "01"), code, *words)


def _annot(folder: Path, n_vertices: int) -> Path:
    folder.mkdir()
    colours = np.array([[10, 20, 30, 0, 0], [40, 50, 60, 0, 0]])
    for side in "lr":
        labels = np.arange(n_vertices) % 2
        write_annot(folder / f"{side}h.small.annot", labels, colours, [f"{side}a", f"{side}b"], fill_ctab=True)
    return folder / "lh.small.annot"


def test_an_atlas_of_a_lower_density(surface_half: Any, tmp_path: Path) -> None:
    path = _annot(tmp_path / "atlas", 642)
    done = surface_half.run("--participant-label", "01", "--set", f"parcels.atlas={path}")
    _assert_named(surface_half, done, 65, "642", "2562", "lh.small.annot")


def test_an_atlas_of_voxels_for_surfaces(surface_half: Any, volume: Any) -> None:
    path = volume.root / "atlas" / "space-T1w_atlas-slabs_dseg.nii.gz"
    done = surface_half.run("--participant-label", "01", "--set", f"parcels.atlas={path}")
    _assert_named(surface_half, done, 65, "an atlas of voxels for surfaces", path.name)


@pytest.mark.data
def test_the_broken_annot(surface_half: Any, real_data: Path) -> None:
    path = real_data / "atlases" / "broken" / "lh.gordon333dil.annot"
    done = surface_half.run("--participant-label", "01", "--set", f"parcels.atlas={path}")
    _assert_named(surface_half, done, 65, "damaged", str(path))


def test_a_density_that_is_not_there(surface_half: Any) -> None:
    done = surface_half.run("--participant-label", "01", "--density", "41k")
    _assert_named(surface_half, done, 65, "2562 vertices a hemisphere (3k)", "40962", "--density 3k")


def test_a_label_that_names_nobody(volume_half: Any) -> None:
    done = volume_half.run("--participant-label", "99", "02", "--facts", "stimuli/facts.tsv")
    assert done.code == 75
    assert any(line.startswith("sub-99: no participant sub-99: ") and "one of 01, 02" in line for line in done.lines)
    assert not list(volume_half.out.glob("sub-99*"))
    assert volume_half.run("--participant-label", "99").code == 66


def test_no_derivatives_at_all(volume: Any, tmp_path: Path) -> None:
    study = volume.copy(tmp_path)
    shutil.rmtree(study.bids / "derivatives")
    done = study.run()
    assert done.code == 66
    assert [line.partition(":")[0] for line in done.lines] == ["sub-01", "sub-02", "bids_brainlm"]
    assert "no derivatives" in done.lines[0]
    assert "-d fmriprep=PATH" in done.lines[0]


def _no_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _damaged(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "words"),
    [(_no_tokenizer, "tokenizer"), (_pickled, "pickled"), (_damaged, "damaged"), (shutil.rmtree, "no such folder")],
)
def test_a_language_model_that_cannot_be_loaded(volume_half: Any, llm: Path, tmp_path: Path, damage: Any, words: str) -> None:
    folder = tmp_path / "llm"
    shutil.copytree(llm, folder)
    damage(folder)
    done = volume_half.run("--participant-label", "01", "--set", f"model.llm={folder}")
    _assert_named(volume_half, done, 69, words, str(folder))


def test_a_language_model_that_is_not_on_this_machine(volume_half: Any) -> None:
    done = volume_half.run("--participant-label", "01", "--set", "model.llm=nobody/no-such-model")
    _assert_named(volume_half, done, 69, "not on this machine", "nobody/no-such-model")
    # It is looked for before any work: no response was estimated in vain.
    assert volume_half.log()["n_executed"] == 0
    # Nobody needs it whose results are there.
    done = volume_half.run("--participant-label", "02", "--facts", "stimuli/facts.tsv", "--set", "decode.beams=1")
    assert done.code == 0


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        (["--tokenizer", "parcelwide"], 2, "did you mean 'parcelwise'?"),
        (["--metrics", "bleu1", "rouge"], 2, "did you mean 'rouge_l'"),
        (["--estimator", "las"], 2, "did you mean 'lss' or 'lsa'"),
        (["--set", "phases.0.objective=entropy"], 2, "among the objectives"),
        (["--set", "model.options={hiden = 3}"], 2, "hiden"),
        (["--facts", "stimuli/none.tsv"], 66, "none.tsv"),
        (["--set", "text.table=stimuli/none.tsv"], 66, "none.tsv"),
        (["--set", "text.table=../elsewhere.tsv"], 65, "elsewhere.tsv"),
        (["--task-id", "listen"], 66, "no task-listen"),
        (["--run-id", "7"], 66, "no run-7"),
        (["--space", "MNI152NLin2009cAsym"], 66, "no BOLD series"),
        (["--confounds", "csf", "a_comp_cor_*"], 65, "csf"),
        (["--dummy-scans", "44"], 65, "44 of 44 volumes"),
        (["--atlas", "no/such/atlas.nii.gz"], 66, "no such atlas"),
        (["--atlas", "kmeans100"], 65, "kmeans100 is a parcellation of fsaverage"),
    ],
)
def test_a_setting_that_cannot_be(volume_half: Any, settings: list[str], code: int, words: str) -> None:
    study = type(volume_half)(volume_half.root, volume_half.settings)
    if "--space" in settings or "--atlas" in settings:
        given = list(study.settings)
        where = given.index(settings[0])
        study = type(study)(study.root, tuple(given[:where] + given[where + 2 :]))
    done = study.run("--participant-label", "01", *settings)
    assert done.code == code, done.err
    assert words in done.lines[-1], done.lines
    assert "Traceback" not in done.err
    assert not list((study.out / "sub-01").glob("model/*"))


def test_unusable_voxels_are_masked_and_counted(volume_half: Any) -> None:
    study = volume_half
    path = study.func("space-T1w_desc-preproc_bold.nii.gz", 2)
    image: Any = nib.load(path)
    data = image.get_fdata(dtype=np.float32)
    data[1, 1, :3] = np.nan
    data[2, 2, 4] = 500.0
    data[3, 3, 5, 7] = np.inf
    data[0, 0] = np.nan  # outside the mask
    nib.save(nib.Nifti1Image(data, image.affine), path)
    study.ok("--participant-label", "01")
    func = study.out / "sub-01" / "func"
    counts = {run: json.loads(next(func.glob(f"*run-{run}*stat-effect*.json")).read_text()) for run in (1, 2, 3)}
    assert {run: item["NumberOfUnusableVertices"] for run, item in counts.items()} == {1: 0, 2: 5, 3: 0}
    betas: Any = nib.load(next(func.glob("*run-2*stat-effect*.nii.gz")))
    bad = np.argwhere(~np.isfinite(betas.get_fdata()).all(axis=3)).tolist()
    assert bad == [[1, 1, 0], [1, 1, 1], [1, 1, 2], [2, 2, 4], [3, 3, 5]]
    coverage = pd.read_csv(next(func.glob("*run-2*stat-coverage*.tsv")), sep="\t")["coverage"]
    assert list(coverage) == pytest.approx([15 / 16, 15 / 16, 15 / 16, 1, 15 / 16, 15 / 16, 1, 1])
    page = (study.out / "sub-01.html").read_text("utf-8")
    assert "5 (masked)" in page
    assert np.isfinite(study.table("decoded")["nll"]).all()


def test_tracebacks_are_shown_when_asked_for(volume_half: Any) -> None:
    _truncated(volume_half)
    done = volume_half.run("--participant-label", "01", "-v", "-v")
    assert done.code == 65
    assert "Traceback" in done.err
    assert done.lines[-1].startswith("bids_brainlm: 1 of 1 participants failed (01): damaged")


def test_a_defect_leaves_its_traceback_in_a_file(volume_half: Any) -> None:
    done = volume_half.run("--participant-label", "01", "--estimator", "math:floor")
    assert done.code == 1
    crashes = volume_half.out / "logs" / "crashes"
    assert "run-1_estimate failed" in done.lines[-1]
    assert str(crashes) in done.lines[-1]
    assert "Traceback" not in done.err
    assert any("TypeError" in path.read_text() for path in crashes.iterdir())
    assert _first_line(volume_half).startswith("failed: sub-01_task-look_run-1_estimate failed")


@pytest.mark.slow
def test_two_processes_and_one_fault_from_the_start(volume: Any, tmp_path: Path) -> None:
    """Both streams of a fresh process, where Nipype's own loggers could talk too."""
    study = volume.copy(tmp_path)
    _truncated(study)
    process = study.start("--set", "run.nprocs=2", "input.runs=['2']")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 75, err
    assert "Traceback" not in out + err
    lines = err.strip().splitlines()
    assert lines[-2].startswith("sub-01: damaged")
    assert lines[-1].startswith("bids_brainlm: 1 of 2 participants failed (01): damaged")
    assert _first_line(study).startswith("failed: damaged")
    assert study.beh("metrics", "02").is_file()
    assert sorted(study.log()["executed"]) == ["01", "02"]
    assert len(study.log()["executed"]["02"]) == 5
    crash = "".join(path.read_text() for path in (study.out / "logs" / "crashes").iterdir())
    assert "Traceback" in crash


def test_an_output_folder_that_cannot_be_used(volume: Any, tmp_path: Path) -> None:
    study = volume.copy(tmp_path)
    assert study.run(out=study.bids / "derivatives" / "fmriprep").code == 2
    assert study.run(work=study.bids / "work").code == 2
    (tmp_path / "file").write_text("")
    assert study.run(out=tmp_path / "file").code == 2
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        assert study.run(out=tmp_path / "locked" / "out").code != 0


def test_the_group_level_without_results(volume: Any, tmp_path: Path) -> None:
    study = volume.copy(tmp_path)
    done = study.run(level="group")
    assert done.code == 66
    assert "run the participant level first" in done.lines[-1]


def test_the_group_level_with_some_results(volume_half: Any) -> None:
    (volume_half.out / "sub-01").mkdir()
    volume_half.ok(level="group")
    page = (volume_half.out / "group.html").read_text("utf-8")
    assert "without results: sub-01" in page
