"""A split that leaks on purpose is told from the others in every output, and ``brainlm leakage`` says what it is worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bids_brainlm.cli import companion
from bids_brainlm.core.leakage import LEAKY

ONE = ("--participant-label", "01")


def test_every_output_of_a_leaky_split_says_so(volume_done: Any, tmp_path: Path) -> None:
    study = volume_done.copy(tmp_path, results=True)
    study.ok(*ONE, "--split", "leaky-random", "--set", "phases.0.epochs=1", "decode.permutations=3")
    for desc in ("decoded", "likelihood", "metrics", "training"):
        sidecar = json.loads(study.beh(desc).with_suffix(".json").read_text())
        assert sidecar["LeakySplit"] is True
        assert sidecar["Warning"] == LEAKY
    (model,) = (study.out / "sub-01" / "model").glob("*_model.json")
    about = json.loads(model.read_text())
    assert about["LeakySplit"] is True
    assert about["Leakage"]["SharingATargetWithTraining"] > 0
    assert LEAKY in (study.out / "sub-01.html").read_text("utf-8")
    assert LEAKY in (study.out / "logs" / "sub-01_CITATION.md").read_text("utf-8")
    study.ok(level="group")
    assert f"sub-01: {LEAKY}" in (study.out / "group.html").read_text("utf-8")
    phenotype = json.loads((study.out / "phenotype" / "decodingmetrics.json").read_text())
    assert (phenotype["LeakySplit"], phenotype["Warning"]) == (True, f"sub-01: {LEAKY}")


def test_outputs_of_an_honest_split_do_not(volume_done: Any) -> None:
    assert "LeakySplit" not in json.loads(volume_done.beh("decoded").with_suffix(".json").read_text())
    (model,) = (volume_done.out / "sub-01" / "model").glob("*_model.json")
    about = json.loads(model.read_text())
    assert about["LeakySplit"] is False
    assert about["Leakage"]["SharingARowWithTraining"] == about["Leakage"]["SharingATargetWithTraining"] == 0
    assert LEAKY not in (volume_done.out / "sub-01.html").read_text("utf-8")


def test_leakage_of_stories_is_counted_and_its_worth_measured(
    story: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ("--set", "phases.0.epochs=1", "decode.permutations=3", "decode.max_new_tokens=2")
    argv = ["leakage", story.bids, *story.settings, *ONE, "-w", tmp_path / "work", *quick]
    assert companion.main([str(arg) for arg in argv]) == 0
    counted = capsys.readouterr().out
    assert not (tmp_path / "work" / "leakage").exists()
    (leaky,) = (line for line in counted.splitlines() if line.strip().startswith("leaky-random  "))
    (blocks,) = (line for line in counted.splitlines() if line.strip().startswith("blocks of 60 s  "))
    assert blocks.split()[-6:] == ["0", "%", "0", "%", "0", "%"]
    assert int(leaky.split()[-6]) > 50
    assert companion.main([str(arg) for arg in [*argv, "--train"]]) == 0
    told = capsys.readouterr().out
    assert told.startswith(counted)
    assert "What the leak is worth: pairwise" in told
    assert not list((tmp_path / "work" / "checkpoints").glob("*"))


def test_a_configured_split_that_cannot_be_made_ends_in_its_reason_after_the_others(
    story: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["leakage", story.bids, *story.settings, *ONE, "-w", tmp_path / "work", "--split", "kfold", "--folds", "40"]
    assert companion.main([str(arg) for arg in argv]) == 65
    told = capsys.readouterr()
    assert "blocks of 60 s" in told.out
    assert "40 fold(s) of 6 group(s)" in told.err.splitlines()[-1]
