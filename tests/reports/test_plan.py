"""The plan as text: everything in it, nothing wider than a terminal."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from bids_brainlm.config import Request, load
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.reports import plan as reports
from bids_brainlm.reports.plan import WIDTH, plan_text
from bids_brainlm.stages import costs
from bids_brainlm.stages.preflight import ParticipantPlan, RunPlan


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    overrides = {"model.llm": "nobody/has-this-model", "run.nprocs": "2", "run.offline": "true", "run.device": "cpu"}
    config = load("cortext-small", overrides=overrides)
    return Request(tmp_path, tmp_path / "out", "participant", (), {}, tmp_path / "work", config)


def _run(i: int, **fields: Any) -> RunPlan:
    return RunPlan(f"sub-01_task-x_run-{i}", "fsaverage", "10k", 300 + i, 20484, 1.25, 61 + i, 122 + i, **fields)


def _plan(who: str = "01", **fields: Any) -> ParticipantPlan:
    times = {"estimate": 7200.0, "train": 14400.0}
    whole = ParticipantPlan(
        who, (_run(1), _run(2)), 125, 88, 247, ((150, 20, 77),), {"estimate": 0.5, "train": 3.25}, times, ("train",), 1.5
    )
    return dataclasses.replace(whole, **fields)


def _words(text: str) -> str:
    return " ".join(text.split())


def test_runs_are_listed_with_their_sizes(request_: Request) -> None:
    text = plan_text(request_, [_plan()])
    rows = [line.split() for line in text.splitlines() if "task-x_run" in line]
    assert rows == [[f"task-x_run-{i}", "fsaverage", "10k", str(300 + i), "1.250", str(61 + i), str(122 + i)] for i in (1, 2)]
    assert "88 stimuli, 247 texts; train 150, validation 20, test 77" in text
    assert "memory (GB): estimate 0.5, train 3.2" in text
    assert "Nothing is missing" in text


def test_totals_are_sums(request_: Request) -> None:
    text = _words(plan_text(request_, [_plan(), _plan("02")]))
    assert "2 participants, 4 runs, 250 trials, 494 texts" in text
    # 2 x 2 h estimating and 2 x 4 h training, two at a time.
    assert "time: 12.0 h of work, about 6.0 h with 2 processes" in text
    assert "memory: 3.2 GB for the largest process (train)" in text
    assert "output: about 3 GB" in text
    assert "train: from earlier runs into this output folder" in text
    assert f"estimate: roughly, from constants measured on {costs.MEASURED}" in text


def test_what_is_not_known_is_said(request_: Request) -> None:
    unknown = dataclasses.replace(_run(1), n_volumes=0, tr=0.0)
    text = _words(plan_text(request_, [_plan(runs=(unknown,), seconds={"estimate": 60.0}, measured=())]))
    assert "fsaverage 10k ? ? 62 123" in text
    assert "it is not on this machine, so memory and time of train and decode leave it out" in text
    assert "without train, which nothing is known of yet" in text
    assert "about 30 s with" in text


def test_folds_are_counted(request_: Request) -> None:
    text = plan_text(request_, [_plan(folds=((10, 2, 5), (11, 2, 4), (9, 2, 6)))])
    assert "3 folds of train 9-11, validation 2, test 4-6" in text
    assert "not divided" in plan_text(request_, [_plan(folds=())])


def test_every_fault_is_there_whole(request_: Request) -> None:
    faults = [MissingInputError(f"no BOLD series of run {i}", "/data/" + "long/" * 30, remedy="run fMRIPrep") for i in range(3)]
    common = InputError("the atlas has too few vertices " * 5, "atlas.annot")
    text = plan_text(request_, [_plan(faults=tuple(faults)), _plan("02"), _plan("03", runs=(), faults=(faults[0],))], [common])
    flat = _words(text)
    for fault in (*faults, common):
        assert _words(str(fault)) in flat
    heads = [
        line.strip() for line in text.partition("Missing or wrong")[2].splitlines() if line.startswith("  ") and line[2] != " "
    ]
    assert heads == ["the request", "sub-01", "sub-03"]
    assert "Nothing is missing" not in text


@pytest.mark.parametrize("n", [1, 3, 10, 11, 1000])
def test_no_line_is_wider_than_a_terminal(request_: Request, n: int) -> None:
    long = dataclasses.replace(_run(1, note="no texts"), name="sub-0001_ses-" + "a" * 90 + "_task-x", space="MNI152NLin2009cAsym")
    fault = InputError("something is wrong " * 20, "/data/x.tsv", expected="something else " * 10)
    text = plan_text(request_, [_plan(f"{i:04d}", runs=(long, _run(2)), faults=(fault,)) for i in range(n)])
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.endswith("\n")


def test_many_participants_get_a_line_each(request_: Request) -> None:
    plans = [_plan(f"{i:02d}", faults=(InputError("x", "y"),) if i == 3 else ()) for i in range(1, 13)]
    overview = plan_text(request_, plans).partition("\n\n")[0].splitlines()
    assert len(overview) == 13
    assert overview[1].split() == ["sub-01", "2", "603", "125", "88", "247", "150/20/77", "3.2", "6.0", "h"]
    assert overview[3].split()[-1] == "1"


def test_a_disk_that_is_too_small_is_warned_of(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "free_gb", lambda folder: 2.9)
    assert "WARNING" in plan_text(request_, [_plan(), _plan("02")])
    monkeypatch.setattr(reports, "free_gb", lambda folder: 3.1)
    assert "WARNING" not in plan_text(request_, [_plan(), _plan("02")])


def test_a_participant_with_nothing_but_faults(request_: Request) -> None:
    text = plan_text(request_, [ParticipantPlan("09", faults=(MissingInputError("no participant '09'", "bids"),))])
    assert "no participant '09': bids" in text
    assert "1 fault: see below" in text


def test_how_a_run_gets_to_the_surface_is_said_where_it_must_be_brought_there(request_: Request) -> None:
    runs = (_run(1), _run(2, rung="native"), _run(3, rung="template"))
    rows = [line for line in plan_text(request_, [_plan(runs=runs)]).splitlines() if "task-x_run" in line]
    assert rows[0].split()[-1] == "123"
    assert rows[1].endswith("from T1w")
    assert rows[2].endswith("from MNI, approximate")


def test_what_an_estimator_can_do_is_said(request_: Request) -> None:
    assert "auto chooses on 2 runs; nothing repeats" in plan_text(
        request_, [_plan(estimation="auto chooses on 2 runs; nothing repeats")]
    )
