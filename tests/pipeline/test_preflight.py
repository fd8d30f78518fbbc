"""What a survey foretells is what a run does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest

from bids_brainlm.config import Request, load
from bids_brainlm.stages.checks import survey_request
from bids_brainlm.stages.preflight import survey, survey_all


def _request(study: Any, out: Path, *more: str) -> Request:
    """The request that the study's command line makes."""
    given = dict(zip(study.settings[::2], study.settings[1::2], strict=False))
    overrides = {"run.offline": "true", "model.llm": given["--llm"]}
    overrides |= {"input.space": given["--space"], "parcels.atlas": given["--atlas"]} if "--space" in study.settings else {}
    overrides |= {"evaluate.information": "true"} if "evaluate.information=true" in study.settings else {}
    overrides |= dict(zip(more[::2], more[1::2], strict=True))
    config = load(given["--recipe"], overrides=overrides)
    return Request(study.bids, out, "participant", (), {}, study.root / "work", config)


def _settings(study: Any) -> Any:
    flags = [item for item in study.settings if item != "--offline"]
    return type(study)(study.root, tuple(flags))


@pytest.mark.parametrize("name", ["volume_done", "surface_done"])
def test_the_survey_foretells_the_run(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    study = request.getfixturevalue(name)
    asked = _request(_settings(study), study.out)
    assert survey_request(asked) == ()
    for found in survey_all(asked, ["01", "02"]):
        who = found.participant
        assert found.faults == ()
        models = [json.loads(path.read_text()) for path in sorted(study.out.glob(f"sub-{who}/model/*decoder_model.json"))]
        parts = [model["NumberOfExamples"] for model in models]
        assert [dict(zip(("train", "validation", "test"), fold, strict=True)) for fold in found.folds] == parts
        decoded = study.table("decoded", who)
        assert [(decoded["condition"] == "true").sum()] == [sum(test for _, _, test in found.folds)]
        written = sorted((study.out / f"sub-{who}" / "beh").glob("*_desc-trials_events.tsv"))
        assert [run.n_trials for run in found.runs] == [len(path.read_text().splitlines()) - 1 for path in written]
        assert [f"{run.name}_desc-trials_events.tsv" for run in found.runs] == [path.name for path in written]
        for run in found.runs:
            assert run.n_volumes == _n_volumes(study, run.name)
        stamps = {path.stem for path in (study.out / "logs" / "stages").glob(f"sub-{who}_*.json")}
        assert {f"{run.name}_estimate" for run in found.runs} <= stamps
        told = {"information"} if asked.config.evaluate.information else set()
        assert set(found.measured) == {"estimate", "parcellate", "train", "decode", "evaluate", *told}


@pytest.mark.parametrize(("scheme", "more"), [("kfold", ("split.folds", "3")), ("column", ("split.source", "part"))])
def test_other_divisions_are_foretold(volume: Any, tmp_path: Path, scheme: str, more: tuple[str, ...]) -> None:
    study = volume.copy(tmp_path)
    sets = [f"--set={name}={value}" for name, value in (("split.scheme", scheme), *zip(more[::2], more[1::2], strict=True))]
    study.ok("--participant-label", "01", "--set=phases.0.epochs=1", "--permutations", "3", "--skip", "reports", *sets)
    found = survey(_request(_settings(study), study.out, "split.scheme", scheme, *more), "01")
    models = [json.loads(path.read_text())["NumberOfExamples"] for path in sorted(study.out.glob("sub-01/model/*_model.json"))]
    assert list(found.folds) == [(model["train"], model["validation"], model["test"]) for model in models]


def _n_volumes(study: Any, stem: str) -> int:
    folder = study.bids / "derivatives" / "fmriprep" / stem.partition("_")[0] / "func"
    path = next(
        path
        for path in sorted(folder.iterdir())
        if path.name.startswith(stem) and "_bold." in path.name and "json" not in path.name
    )
    image: Any = nib.load(path)
    return int(image.shape[3]) if path.name.endswith(".nii.gz") else len(image.darrays)


def test_a_fault_of_one_participant_is_not_one_of_the_request(volume: Any, tmp_path: Path) -> None:
    study = volume.copy(tmp_path)
    study.func("space-T1w_desc-preproc_bold.nii.gz", 2).unlink()
    done = study.run("--dry-run")
    assert done.code == 75
    assert done.lines[-1].startswith("bids_brainlm: 1 of 2 participants failed (01): no BOLD series of sub-01_task-look_run-2")
    assert done.err.count("- no BOLD series") == 1
    assert not study.out.exists()
