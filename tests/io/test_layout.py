"""Runs are found whatever fMRIPrep called their files, and what is missing is named with its remedy."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bids_brainlm.config import Input
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.io.layout import RunFiles, find_runs, participants


def find(tree: Any, participant: str = "01", **settings: Any) -> list[RunFiles]:
    return find_runs(tree.raw, {}, participant, Input(**settings))


@pytest.mark.parametrize(
    ("names", "confounds"),
    [
        ("hemi-{}_space-fsaverage5_bold", "desc-confounds_timeseries"),
        ("space-fsaverage5_hemi-{}_bold", "desc-confounds_regressors"),
        ("hemi-{}_space-fsaverage_bold", "desc-confounds_timeseries"),
        ("hemi-{}_space-fsaverage_den-41k_bold", "timeseries"),
        ("space-fsaverage6_hemi-{}_bold", "bold_confounds"),
    ],
)
def test_every_spelling_of_fmriprep_is_the_same_run(tree: Any, names: str, confounds: str) -> None:
    stem = "sub-01_ses-2_task-a_acq-x_dir-AP_run-01"
    tree.empty(*(f"{stem}_{names.format(side)}.func.gii" for side in "LR"))
    tree.events(stem)
    table = tree.confounds(stem, confounds)
    (run,) = find(tree)
    assert (run.participant, run.session, run.task, run.run, run.space) == ("01", "2", "a", "01", "fsaverage")
    assert run.entities == {"sub": "01", "ses": "2", "task": "a", "acq": "x", "dir": "AP", "run": "01"}
    assert [re.search("hemi-([LR])", path.name)[1] for path in run.bold] == ["L", "R"]  # type: ignore[index]
    assert run.confounds == table
    assert run.sources[0].startswith("bids:fmriprep:sub-01/ses-2/func/")
    assert run.sources[-1] == f"bids:raw:sub-01/ses-2/func/{stem}_events.tsv"
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.task = "b"  # type: ignore[misc]


def test_real_names_of_fmriprep_25(tree: Any, real_data: Path) -> None:
    for line in (real_data / "trees" / "fmriprep-25-ds005-outputs.txt").read_text().split():
        if "." in line.rpartition("/")[2]:
            tree.text(tree.derivatives / line, "{}" if line.endswith(".json") else "")
    for run in ("01", "02"):
        tree.events(f"sub-01_task-mixedgamblestask_run-{run}")
    tree.json(tree.raw / "task-mixedgamblestask_bold.json", {"RepetitionTime": 2.0})
    runs = find(tree)
    assert [run.run for run in runs] == ["01", "02"]
    assert runs[0].bold[1].name == "sub-01_task-mixedgamblestask_run-01_hemi-R_space-fsaverage5_bold.func.gii"
    assert [run.run for run in find(tree, runs=("1",))] == ["01"]
    assert len(find(tree, space="fsnative")) == 2


def test_real_tree_of_bids_examples(real_data: Path) -> None:
    root = real_data / "trees" / "synthetic"
    runs = find_runs(root, {}, "sub-01", Input(space="T1w", tasks=("nback",)))
    assert [(run.session, run.run) for run in runs] == [("01", "01"), ("01", "02"), ("02", "01"), ("02", "02")]
    assert {run.events for run in runs} == {root / "task-nback_events.tsv"}
    assert runs[0].sidecar["RepetitionTime"] == 2.5
    assert runs[0].mask is not None
    assert runs[0].mask.name == "sub-01_ses-01_task-nback_run-01_space-T1w_label-brain_mask.nii"
    assert find_runs(root, {}, "01", Input(space="T1w")) == runs, "rest has no events and must be passed over"
    with pytest.raises(MissingInputError, match="found MNI152NLin2009cAsym, T1w") as caught:
        find_runs(root, {}, "01", Input())
    assert "--output-spaces fsaverage5" in str(caught.value)
    with pytest.raises(MissingInputError, match="no events for sub-01_ses-01_task-rest"):
        find_runs(root, {}, "01", Input(space="T1w", tasks=("rest",)))


def test_haxby(real_data: Path) -> None:
    runs = find_runs(real_data / "haxby2001", {}, "1", Input(space="T1w"))
    assert [run.run for run in runs] == [f"{i:02d}" for i in range(1, 13)]
    assert runs[0].sidecar["RepetitionTime"] == 2.5


def test_unknown_participant_is_told_who_there_is(surface_run: Callable[..., Any]) -> None:
    tree = surface_run()
    tree.events("sub-10_task-a")
    assert participants(tree.raw) == ["01", "10"]
    with pytest.raises(MissingInputError, match="no participant '02'.*01, 10"):
        find(tree, "02")
    with pytest.raises(MissingInputError, match="no BOLD series of participant '10'.*run fMRIPrep"):
        find(tree, "sub-10")
    with pytest.raises(MissingInputError, match="no such folder"):
        participants(tree.raw / "absent")


def test_no_derivatives(tmp_path: Path) -> None:
    (tmp_path / "sub-01").mkdir()
    with pytest.raises(MissingInputError, match="-d fmriprep=PATH"):
        find_runs(tmp_path, {}, "01", Input())
    with pytest.raises(MissingInputError, match="no folder for the derivatives 'fp'"):
        find_runs(tmp_path, {"fp": tmp_path / "nowhere"}, "01", Input())


def test_missing_hemisphere_names_the_file(surface_run: Callable[..., Any]) -> None:
    tree = surface_run()
    gone = tree.func("sub-01_task-a_run-1_hemi-R_space-fsaverage5_bold.func.gii")
    gone.unlink()
    with pytest.raises(MissingInputError, match="one hemisphere is missing") as caught:
        find(tree)
    assert caught.value.exit_code == 66
    assert str(gone) in str(caught.value)


def test_all_that_is_missing_is_listed_at_once(tree: Any) -> None:
    for run in ("1", "2", "3"):
        tree.empty(f"sub-01_task-a_run-{run}_space-T1w_desc-preproc_bold.nii.gz")
        tree.events(f"sub-01_task-a_run-{run}")
    with pytest.raises(MissingInputError) as caught:
        find(tree)
    assert all(f"run-{run} in space fsaverage" in str(caught.value) for run in "123")


def test_tr_from_the_derivative_wins_over_the_raw_one(surface_run: Callable[..., Any]) -> None:
    tree = surface_run()
    assert find(tree)[0].sidecar["RepetitionTime"] == 2.0, "raw sidecar, by inheritance"
    tree.json(tree.func("sub-01_task-a_run-1_space-T1w_desc-preproc_bold.json"), {"RepetitionTime": 1.9, "StartTime": 0.9})
    tree.empty("sub-01_task-a_run-1_space-T1w_desc-preproc_bold.nii.gz")
    assert find(tree)[0].sidecar["StartTime"] == 0.9, "the volume of the run stands in for a GIFTI without sidecar"
    tree.json(tree.func("sub-01_task-a_run-1_hemi-L_space-fsaverage5_bold.json"), {"RepetitionTime": 1.8})
    assert find(tree)[0].sidecar["RepetitionTime"] == 1.8


def test_no_tr_names_the_remedy(surface_run: Callable[..., Any]) -> None:
    tree = surface_run()
    (tree.raw / "task-a_bold.json").unlink()
    with pytest.raises(MissingInputError, match="no RepetitionTime.*add RepetitionTime.*task-a_bold.json"):
        find(tree)


def test_broken_sidecar_is_named(surface_run: Callable[..., Any]) -> None:
    tree = surface_run()
    tree.text(tree.raw / "task-a_bold.json", "{not json")
    with pytest.raises(InputError, match="not valid JSON.*task-a_bold.json"):
        find(tree)


def test_echoes_and_phase_are_passed_over(surface_run: Callable[..., Any]) -> None:
    tree = surface_run("sub-01_task-a_run-1")
    for extra in ("echo-1", "part-phase"):
        tree.empty(*(f"sub-01_task-a_run-1_{extra}_hemi-{side}_space-fsaverage5_bold.func.gii" for side in "LR"))
    assert [run.entities for run in find(tree)] == [{"sub": "01", "task": "a", "run": "1"}]


def test_filters(surface_run: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    for session in ("1", "2"):
        for run in ("01", "02", "10"):
            tree = surface_run(f"sub-01_ses-{session}_task-a_run-{run}")
    assert [(run.session, run.run) for run in find(tree)] == [(s, r) for s in "12" for r in ("01", "02", "10")]
    assert {run.run for run in find(tree, runs=("1",))} == {"01"}
    assert {run.session for run in find(tree, sessions=("ses-02",))} == {"2"}
    with pytest.raises(MissingInputError, match="no task-b.*one of a"):
        find(tree, tasks=("a", "b"))
    with pytest.raises(MissingInputError, match="no ses-3.*one of 1, 2"):
        find(tree, sessions=("3",))
    with caplog.at_level(logging.WARNING):
        assert {run.session for run in find(tree, sessions=("1", "3"))} == {"1"}
    assert "no ses-3" in caplog.text


def test_two_densities_need_a_choice(surface_run: Callable[..., Any]) -> None:
    for spelling in ("hemi-{}_space-fsaverage5", "hemi-{}_space-fsaverage6", "hemi-{}_space-fsaverage"):
        tree = surface_run(spelling=spelling)
    with pytest.raises(InputError, match="choose a --density"):
        find(tree)
    for density, label in (("3k", "fsaverage5"), ("10k", "fsaverage5"), ("41k", "fsaverage6"), ("164k", "fsaverage_")):
        assert label in find(tree, density=density)[0].bold[0].name
    assert "fsaverage6" in find(tree, space="fsaverage6")[0].bold[0].name


def test_volume_needs_its_mask(tree: Any) -> None:
    tree.empty("sub-01_task-a_space-MNI_res-2_desc-preproc_bold.nii.gz", "sub-01_task-a_space-MNI_desc-brain_mask.nii.gz")
    tree.events("sub-01_task-a")
    tree.confounds("sub-01_task-a")
    with pytest.raises(MissingInputError, match="no brain mask"):
        find(tree, space="MNI")
    tree.empty("sub-01_task-a_space-MNI_res-2_desc-brain_mask.nii.gz")
    (run,) = find(tree, space="MNI")
    assert (run.resolution, run.run, run.session) == ("2", "", "")
    assert run.mask is not None
    assert "res-2" in run.mask.name


def test_confounds_are_needed_only_when_asked_for(surface_run: Callable[..., Any]) -> None:
    tree = surface_run()
    tree.func("sub-01_task-a_run-1_desc-confounds_timeseries.tsv").unlink()
    with pytest.raises(MissingInputError, match="no confounds"):
        find(tree)
    assert find(tree, confounds=())[0].confounds is None


def test_one_run_in_two_derivatives_is_refused(surface_run: Callable[..., Any]) -> None:
    tree = surface_run()
    os.symlink(tree.derivatives, tree.derivatives.with_name("fmriprep-24"))
    with pytest.raises(InputError, match="the same run is in fmriprep and fmriprep-24"):
        find(tree)
    assert len(find_runs(tree.raw, {"mine": tree.derivatives, "betas": tree.raw}, "01", Input())) == 1


def test_a_raw_run_without_derivatives_is_reported(surface_run: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    tree = surface_run()
    for run in ("1", "2"):
        tree.text(tree.func(f"sub-01_task-a_run-{run}_bold.nii.gz", tree.raw), "")
    with caplog.at_level(logging.WARNING):
        assert len(find(tree)) == 1
    assert "run-2" in caplog.text
    assert "run-1" not in caplog.text
