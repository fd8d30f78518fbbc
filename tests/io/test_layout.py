"""Runs are found whatever fMRIPrep called their files, and what is missing is named with its remedy."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pickle
import re
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bids_brainlm.config import Input
from bids_brainlm.errors import ConfigError, Faults, InputError, MissingInputError
from bids_brainlm.io import names
from bids_brainlm.io.files import read_json
from bids_brainlm.io.layout import RunFiles, find_runs, participants

TREES = sorted((Path(__file__).parent / "trees").glob("*.toml"))
"""Names that fMRIPrep and its relatives give to files, and by hand what is to be read of them."""


def find(tree: Any, participant: str = "01", **settings: Any) -> list[RunFiles]:
    return find_runs(tree.raw, {}, participant, Input(**settings))


def materialise(root: Path, listed: str) -> None:
    """Small files of a list of names; ``TR=2`` after a name is its RepetitionTime."""
    for line in listed.split("\n"):
        name, *fields = line.split() or [""]
        if name:
            pairs = (field.split("=") for field in fields)
            content = {"RepetitionTime" if key == "TR" else key: float(value) for key, value in pairs}
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(json.dumps(content) if name.endswith(".json") else "")


@pytest.mark.parametrize("path", TREES, ids=lambda path: path.stem)
def test_trees_are_read_as_stated(path: Path, tmp_path: Path) -> None:
    """Which BOLD series, mask, confounds and events belong to a run, and whose TR, for every age of fMRIPrep."""
    stated = tomllib.loads(path.read_text())
    derivatives = tmp_path / "derived" / "here"
    materialise(tmp_path, stated["raw"])
    materialise(derivatives, stated["derivatives"])
    for wanted in stated["read"]:
        settings = Input(**{key: value for key, value in wanted.items() if key not in ("runs", "fault")})
        if "fault" in wanted:
            with pytest.raises(InputError, match=wanted["fault"]):
                find_runs(tmp_path, {"here": derivatives}, "01", settings)
            continue
        found = find_runs(tmp_path, {"here": derivatives}, "01", settings)
        assert len(found) == len(wanted["runs"])
        for run, expected in zip(found, wanted["runs"], strict=True):
            for kind in ("mask", "confounds", "events"):
                held = getattr(run, kind)
                assert str(held).endswith(expected[kind]) if kind in expected else held is None, (kind, held)
            assert [str(file).endswith(name) for file, name in zip(run.bold, expected["bold"], strict=True)] == [True] * len(
                run.bold
            )
            assert (run.sidecar["RepetitionTime"], run.space) == (expected["tr"], expected["is"])
            assert run.rung == expected.get("rung", "given")


@pytest.mark.parametrize("path", TREES, ids=lambda path: path.stem)
def test_names_mean_what_pybids_says(path: Path) -> None:
    """Taking the labels of subject and session out before pybids reads a name changes nothing that pybids says."""
    from bids.layout import parse_file_entities

    stated = tomllib.loads(path.read_text())
    for line in f"{stated['raw']}\n{stated['derivatives']}".split("\n"):
        name = line.split()[0].rpartition("/")[2] if line else ""
        if name and not any(old.search(name) for old, _ in names.OLD_NAMES):
            said = {key: str(value) for key, value in parse_file_entities(f"/{name}").items()}
            parsed = names.parse(name)
            assert said["extension"] == parsed.extension
            assert said.get("suffix", "description") == parsed.suffix
            kept = {names.ENTITIES.get(key, key): value for key, value in parsed.entities.items()}
            said = {key: value for key, value in said.items() if key not in ("extension", "suffix", "datatype")}
            assert said.items() <= kept.items()


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
        find_runs(root, {}, "01", Input(projection="none"))
    assert "--output-spaces fsaverage5" in str(caught.value)
    assert "or --projection auto, which brings the volume in MNI152" in str(caught.value)
    assert {run.rung for run in find_runs(root, {}, "01", Input())} == {"template"}
    with pytest.raises(Faults) as several:
        find_runs(root, {}, "01", Input(space="T1w", tasks=("rest",)))
    assert [f"ses-0{i}_task-rest" in line for i, line in enumerate(several.value.lines, start=1)] == [True, True]


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
    for side in "LR":
        tree.func(f"sub-01_task-a_run-1_hemi-{side}_space-fsaverage5_bold.func.gii").unlink(missing_ok=True)
    tree.empty("sub-01_task-a_run-1_bold_space-fsaverage5.L.func.gii")
    with pytest.raises(MissingInputError, match=r"run-1_bold_space-fsaverage5\.R\.func\.gii"):
        find(tree)


def test_all_that_is_missing_is_listed_at_once(surface_run: Callable[..., Any]) -> None:
    """Five faults of four runs are five in one go, those that agree in place and remedy on one line."""
    for run in "12345":
        tree = surface_run(f"sub-01_task-a_run-{run}")
    for run in "12":
        for side in "LR":
            tree.func(f"sub-01_task-a_run-{run}_hemi-{side}_space-fsaverage5_bold.func.gii").unlink()
    tree.empty("sub-01_task-a_run-1_space-T1w_desc-preproc_bold.nii.gz")
    tree.func("sub-01_task-a_run-2_desc-confounds_timeseries.tsv").unlink()
    tree.empty("sub-01_task-a_run-2_space-T1w_desc-preproc_bold.nii.gz")
    tree.func("sub-01_task-a_run-3_hemi-L_space-fsaverage5_bold.func.gii").unlink()
    tree.func("sub-01_task-a_run-4_desc-confounds_timeseries.tsv").unlink()
    with pytest.raises(Faults) as caught:
        find(tree)
    assert caught.value.exit_code == 66
    space, confounds, hemisphere = caught.value.lines
    assert re.search("run-1 in space fsaverage; .*run-2 in space fsaverage: .*--output-spaces fsaverage5", space)
    assert re.search("no confounds for sub-01_task-a_run-2; no confounds for sub-01_task-a_run-4: ", confounds)
    assert "one hemisphere is missing: " in hemisphere
    assert "run-3_hemi-L_space-fsaverage5" in hemisphere
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.lines == caught.value.lines


def test_runs_that_lack_a_file_can_be_left_out(surface_run: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    for run in "12":
        tree = surface_run(f"sub-01_task-a_run-{run}")
    tree.func("sub-01_task-a_run-1_hemi-R_space-fsaverage5_bold.func.gii").unlink()
    assert [run.run for run in find(tree, drop_missing=True)] == ["2"]
    assert re.search("left out: one hemisphere is missing: .*run-1_hemi-R", caplog.text)
    tree.func("sub-01_task-a_run-2_hemi-L_space-fsaverage5_bold.func.gii").unlink()
    with pytest.raises(Faults, match="run-1_hemi-R.*run-2_hemi-L"):
        find(tree, drop_missing=True)


def test_a_damaged_sidecar_is_not_missing(surface_run: Callable[..., Any]) -> None:
    for run in "12":
        tree = surface_run(f"sub-01_task-a_run-{run}")
    tree.text(tree.func("sub-01_task-a_run-1_bold.json", tree.raw), "[]")
    with pytest.raises(InputError, match="the JSON holds a list"):
        find(tree, drop_missing=True)


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


def test_sparse_sampling_needs_no_repetition_time(surface_run: Callable[..., Any]) -> None:
    tree = surface_run()
    tree.json(tree.raw / "task-a_bold.json", {"VolumeTiming": [0.0, 3.0, 9.0]})
    assert find(tree)[0].sidecar["VolumeTiming"] == [0.0, 3.0, 9.0]


def test_broken_sidecar_is_named(surface_run: Callable[..., Any]) -> None:
    tree = surface_run()
    tree.text(tree.raw / "task-a_bold.json", "{not json")
    with pytest.raises(InputError, match="not valid JSON.*task-a_bold.json"):
        find(tree)


def test_what_one_echo_says_of_itself_is_not_said_of_all(tree: Any) -> None:
    (path,) = (path for path in TREES if path.stem == "fmriprep-23")
    stated = tomllib.loads(path.read_text())
    materialise(tree.raw, stated["raw"])
    materialise(tree.derivatives, stated["derivatives"])
    for sidecar in tree.derivatives.rglob("*_bold.json"):
        sidecar.unlink()
    fields = find(tree, space="T1w")[0].sidecar
    assert fields == {"RepetitionTime": 1.4}, "the raw sidecars are of echoes, and their times of echo are not the run's"


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


def test_of_two_tables_the_nearer_to_the_run_counts(surface_run: Callable[..., Any]) -> None:
    tree = surface_run("sub-01_task-a_acq-x")
    tree.func("sub-01_task-a_acq-x_events.tsv", tree.raw).unlink()
    for name in ("task-a_events.tsv", "task-a_acq-x_events.tsv", "acq-y_events.tsv"):
        tree.text(tree.raw / name, "")
    assert find(tree)[0].events == tree.raw / "task-a_acq-x_events.tsv"
    newest = find(tree)[0].confounds
    tree.confounds("sub-01_task-a_acq-x", "desc-confounds_regressors")
    assert find(tree)[0].confounds == newest, "a folder that two ages of fMRIPrep wrote into"


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
    caplog.clear()
    for echo in "123":
        tree.text(tree.func(f"sub-01_task-a_run-3_echo-{echo}_bold.nii.gz", tree.raw), "")
    find(tree, runs=("1",))
    assert not caplog.text, "what was not asked for is not missed"
    find(tree)
    assert caplog.text.count("run-3") == 1, "a run of several echoes is one run"


def test_filters_choose_runs_and_files(surface_run: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    for session in ("01", "02"):
        for acq in ("", "_acq-fast"):
            tree = surface_run(f"sub-01_ses-{session}_task-a{acq}")

    def chosen(**bold: Any) -> list[tuple[str, str]]:
        return [(run.session, run.entities.get("acq", "")) for run in find(tree, filters={"bold": bold})]

    assert chosen(session=1) == chosen(ses=["ses-01"]) == [("01", ""), ("01", "fast")]
    assert chosen(acquisition="") == chosen(acq="Query.NONE") == [("01", ""), ("02", "")]
    assert chosen(acquisition="*") == chosen(acq="Query.ANY") == [("01", "fast"), ("02", "fast")]
    assert len(chosen(acq="Query.OPTIONAL", suffix="bold", extension=["func.gii"], datatype="func")) == 4
    assert chosen(acq=["", "fast"], ses="2") == [("02", ""), ("02", "fast")]
    with caplog.at_level(logging.INFO):
        chosen(ses=1, hemi=["L", "R"])
    assert "sub-01: the filter bold (ses-1, hemi-L|R) matches 4 of 8 files" in caplog.text
    with pytest.raises(MissingInputError, match=r"filter bold \(ses-3\) matches none of 4 run.*expected: ses: 01, 02"):
        chosen(ses=3)
    with pytest.raises(MissingInputError, match=r"filter bold \(space-T1w\) matches none of 8 file.*space: fsaverage5"):
        chosen(space="T1w")
    with pytest.raises(MissingInputError, match="one hemisphere is missing.*hemi-R"):
        chosen(hemi="L", ses=1, acq="")
    with pytest.raises(ConfigError, match="no entity 'sesion' in input.filters.bold; did you mean 'session'"):
        chosen(sesion=1)


def test_filters_of_the_files_beside(surface_run: Callable[..., Any]) -> None:
    tree = surface_run()
    stem = "sub-01_task-a_run-1"
    mine = tree.confounds(stem, "desc-mine_timeseries")
    clean = tree.events(f"{stem}_desc-clean")
    assert find(tree, filters={"confounds": {"desc": "mine"}})[0].confounds == mine
    assert find(tree)[0].confounds != mine
    assert find(tree, filters={"events": {"desc": "clean"}})[0].events == clean
    assert find(tree)[0].events == tree.func(f"{stem}_events.tsv", tree.raw)
    with pytest.raises(Faults) as caught:
        find(tree, filters={"confounds": {"desc": "yours"}, "events": {"recording": "*"}})
    confounds, events = caught.value.lines
    assert re.search(r"filter confounds \(desc-yours\) matches none of 2 file.*desc: confounds, mine", confounds)
    assert re.search(r"filter events \(any recording\) matches none of 1 file.*recording: \(none\)", events)


def test_an_events_filter_never_lends_the_table_of_another_run(surface_run: Callable[..., Any]) -> None:
    for run in "12":
        tree = surface_run(f"sub-01_task-a_run-{run}")
    runs = find(tree, filters={"events": {"run": 1}})
    assert [run.run for run in runs] == ["1"]


def test_space_modifiers_are_checked(surface_run: Callable[..., Any]) -> None:
    tree = surface_run()
    for space, remedy in (("fsaverage:den-10k", "use --density"), ("MNI:res", "expected NAME"), ("MNI:ros-2", "NAME:res-2")):
        with pytest.raises(ConfigError, match=remedy):
            find(tree, space=space)


def test_denoised_series_need_no_confounds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of XCP-D's folder beside fMRIPrep's, a filter chooses which is read, and the mask comes from either."""
    (path,) = (path for path in TREES if path.stem == "xcp_d")
    stated = tomllib.loads(path.read_text())
    materialise(tmp_path, stated["raw"])
    both = {"xcp_d": tmp_path / "x", "fmriprep": tmp_path / "f"}
    materialise(both["xcp_d"], stated["derivatives"])
    materialise(both["fmriprep"], stated["derivatives"].replace("desc-denoised_", "desc-preproc_"))
    (both["fmriprep"] / "sub-01/func/sub-01_task-story_desc-confounds_timeseries.tsv").write_text("")
    settings = Input(space="MNI152NLin2009cAsym")
    with pytest.raises(InputError, match="the same run is in xcp_d and fmriprep"):
        find_runs(tmp_path, both, "01", settings)
    denoised = dataclasses.replace(settings, filters={"bold": {"desc": "denoised"}})
    (run,) = find_runs(tmp_path, both, "01", denoised)
    assert (run.confounds, run.mask) == (None, next((both["xcp_d"] / "sub-01/func").glob("*_mask.nii.gz")))
    assert "confounds were regressed out upstream" in caplog.text
    assert run.mask is not None
    run.mask.unlink()
    (run,) = find_runs(tmp_path, both, "01", denoised)
    assert run.sources[:2] == (
        "bids:xcp_d:sub-01/func/sub-01_task-story_space-MNI152NLin2009cAsym_desc-denoised_bold.nii.gz",
        "bids:fmriprep:sub-01/func/sub-01_task-story_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz",
    )
    preprocessed = dataclasses.replace(settings, filters={"bold": {"desc": "preproc"}})
    (run,) = find_runs(tmp_path, both, "01", preprocessed)
    assert run.confounds is not None
    run.confounds.unlink()
    with pytest.raises(MissingInputError, match="no confounds"):
        find_runs(tmp_path, both, "01", preprocessed)  # parcel means end in _timeseries.tsv too


def test_one_series_under_two_names_is_refused(surface_run: Callable[..., Any]) -> None:
    surface_run()
    tree = surface_run("sub-01_task-a_run-01", "space-fsaverage5_hemi-{}")
    with pytest.raises(InputError, match="two files claim to be the same series"):
        find(tree)


def test_derivatives_without_description_are_read_with_a_warning(
    surface_run: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    tree = surface_run()
    (tree.derivatives / "dataset_description.json").unlink()
    assert len(find(tree)) == 1
    assert re.search(f"no dataset_description.json: {tree.derivatives} .*remedy: copy it", caplog.text)
    (tree.raw / "sub-02").mkdir()
    with pytest.raises(MissingInputError, match="no BOLD series of participant '02'.*without dataset_description.json"):
        find(tree, "02")


def test_the_folder_above_is_answered_with_the_one_inside(surface_run: Callable[..., Any]) -> None:
    tree = surface_run()
    with pytest.raises(MissingInputError, match=f"-d fmriprep={tree.derivatives}"):
        find_runs(tree.raw, {"fmriprep": tree.derivatives.parent}, "01", Input())


def test_a_link_to_itself_is_the_fault_of_its_participant(surface_run: Callable[..., Any]) -> None:
    tree = surface_run()
    surface_run("sub-02_ses-1_task-a")
    (tree.raw / "sub-03").symlink_to("sub-03")
    (tree.derivatives / "sub-03").symlink_to("sub-03")
    (tree.derivatives / "sub-02" / "ses-2").symlink_to("ses-2")
    (tree.raw / "sub-04").symlink_to("nowhere")
    assert participants(tree.raw) == ["01", "02", "03"]
    assert len(find(tree)) == 1
    for label, folder in (("02", "sub-02/ses-2"), ("03", "sub-03")):
        with pytest.raises(InputError, match=r"cannot be listed \(Too many levels of symbolic links\)") as caught:
            find(tree, label)
        assert folder in str(caught.value)
        assert caught.value.exit_code == 65


def test_a_folder_that_may_not_be_read(surface_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals of the operating system are played, since some users of tests may read everything."""
    tree = surface_run()
    refused, scandir = tree.derivatives / "sub-01" / "func", os.scandir

    def scan(path: Any) -> Any:
        if Path(path) == refused:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(InputError, match=f"cannot be listed .Permission denied.: {refused} "):
        find(tree)
    refused = tree.raw
    with pytest.raises(InputError, match="cannot be listed"):
        participants(tree.raw)


def cohort(root: Path, n: int) -> Path:
    """``n`` participants with two runs in two sessions named by date, nothing of it changed lately."""
    for i in range(n):
        for session in (2 * i, 2 * i + 1):
            stem = f"sub-{i:03d}/ses-{session:04d}/func/sub-{i:03d}_ses-{session:04d}_task-a"
            materialise(root, f"{stem}_bold.nii.gz\n{stem}_bold.json TR=1\n{stem}_events.tsv")
            sides = "".join(f"{stem}_hemi-{side}_space-fsaverage5_bold.func.gii\n" for side in "LR")
            materialise(root / "derivatives/fmriprep", f"{sides}{stem}_desc-confounds_timeseries.tsv")
    materialise(root, "task-a_bold.json TR=2")
    materialise(root / "derivatives/fmriprep", "dataset_description.json")
    for folder in (root, root / "derivatives/fmriprep", root / "task-a_bold.json"):
        os.utime(folder, (1e9, 1e9))
    return root


def test_work_does_not_grow_with_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders listed and names read by pybids, counted: a participant costs the same in any company."""
    import bids.layout

    counts = {"scandir": 0, "parse": 0, "json": 0}

    def counted(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any, **kwargs: Any) -> Any:
            counts[kind] += 1
            return function(*args, **kwargs)

        return count

    monkeypatch.setattr(os, "scandir", counted("scandir", os.scandir))
    monkeypatch.setattr(bids.layout, "parse_file_entities", counted("parse", bids.layout.parse_file_entities))
    monkeypatch.setattr("bids_brainlm.io.sidecars.read_json", counted("json", read_json))
    seen = []
    for n in (3, 12):
        root = cohort(tmp_path / str(n), n)
        names._parse.cache_clear()
        counts.update(dict.fromkeys(counts, 0))
        for label in [f"{i:03d}" for i in range(n)]:
            assert len(find_runs(root, {"fmriprep": root / "derivatives/fmriprep"}, label, Input())) == 2
        seen.append(dict(counts))
    few, many = seen
    # Per participant: raw and derived folder of the participant, of two sessions, and their func. Raw sessions are listed for
    # sidecars that apply to all of a session, derived ones too. Once for all: the two roots, and the sidecar at one of them.
    assert (few["scandir"], many["scandir"]) == (2 + 3 * 10, 2 + 12 * 10)
    assert (few["json"], many["json"]) == (1 + 3 * 2, 1 + 12 * 2)
    assert few["parse"] == many["parse"], "labels of participants and sessions are no part of what is read"


def test_a_changed_sidecar_is_read_again(surface_run: Callable[..., Any]) -> None:
    """What is kept of shared files goes by their stamp, and what has just been written is not kept at all."""
    tree = surface_run()
    path = tree.raw / "task-a_bold.json"
    now = time.time_ns()
    for tr in (1.0, 2.0, 3.0):
        tree.json(path, {"TaskName": "a", "RepetitionTime": tr})
        os.utime(path, ns=(now, now))  # as on a file system whose clock ticks slowly
        assert find(tree)[0].sidecar["RepetitionTime"] == tr
    os.utime(path, (1e9, 1e9))
    assert find(tree)[0].sidecar["RepetitionTime"] == 3.0
    tree.json(path, {"TaskName": "a", "RepetitionTime": 4.0})
    assert find(tree)[0].sidecar["RepetitionTime"] == 4.0
    os.utime(tree.raw, (1e9, 1e9))
    path.unlink()
    with pytest.raises(MissingInputError, match="no RepetitionTime"):
        find(tree)
