"""What is held out is what the settings say, and a split that would leak is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ONE = ("--participant-label", "01")
NO_PAGE = (*ONE, "--skip", "reports")  # for what is about files alone
QUICKER = ("--set", "phases.0.epochs=1", "decode.permutations=3")


@pytest.fixture
def study(volume_done: Any, tmp_path: Path) -> Any:
    """A copy of the finished study, so that the betas are there already."""
    return volume_done.copy(tmp_path, results=True)


def _true(study: Any) -> pd.DataFrame:
    table = study.table("decoded")
    return table[table["condition"] == "true"]


def _counts(study: Any) -> list[dict[str, int]]:
    paths = sorted((study.out / "sub-01" / "model").glob("*_model.json"))
    return [json.loads(path.read_text())["NumberOfExamples"] for path in paths]


def test_folds_by_run_pool_every_trial_once(study: Any) -> None:
    study.ok(*ONE, "--split", "kfold", "--folds", "0", "--group", "run", *QUICKER)
    table = _true(study)
    runs = table["trial_id"].str.extract(r"run-(\d)")[0]
    assert len(table) == table["trial_id"].nunique() == 36
    assert set(table["fold"]) == {0, 1, 2}
    assert runs.groupby(table["fold"]).nunique().eq(1).all()
    # Of two runs that are left, none is kept for validation.
    assert _counts(study) == [{"train": 24, "validation": 0, "test": 12}] * 3
    history = study.table("training")
    assert list(history["fold"]) == [0, 1, 2]
    metrics = study.table("metrics").set_index(["metric", "condition"])
    assert metrics["n"]["nll", "true"] == 36
    # Every picture is in every run: brains are held out here, texts are not, and the page says so.
    page = (study.out / "sub-01.html").read_text("utf-8")
    assert "36 of 36 test examples share a reference text with training" in page


def test_a_column_of_the_events_decides(study: Any) -> None:
    study.ok(*NO_PAGE, "--split", "column", *QUICKER, "split.source=part")
    assert set(_true(study)["stimulus_id"]) == {"blue-bird", "green-cow", "red-dog", "green-fox"}
    assert _counts(study) == [{"train": 24, "validation": 0, "test": 12}]


def test_a_list_of_groups_decides(study: Any) -> None:
    rows = ["group\tsplit", "blue-bird\ttest", "red-cow\ttest", "red-dog\tvalidation"]
    pictures = set(pd.read_csv(study.bids / "stimuli" / "captions.tsv", sep="\t")["stim_id"])
    rows += [f"{name}\ttrain" for name in sorted(pictures - {"blue-bird", "red-cow", "red-dog"})]
    path = study.bids / "stimuli" / "parts.tsv"
    path.write_text("\n".join(rows) + "\n")
    study.ok(*NO_PAGE, "--split", "list", *QUICKER, "split.source=stimuli/parts.tsv")
    assert set(_true(study)["stimulus_id"]) == {"blue-bird", "red-cow"}
    assert _counts(study) == [{"train": 27, "validation": 3, "test": 6}]
    path.write_text("\n".join(rows[:-1]) + "\n")
    done = study.run(*ONE, "--split", "list", *QUICKER, "split.source=stimuli/parts.tsv")
    assert done.code == 65
    assert "1 group(s) are not in the list" in done.lines[-1]
    assert "parts.tsv" in done.lines[-1]


def test_a_picture_in_two_parts_is_refused(study: Any) -> None:
    path = study.events(2)
    table = pd.read_csv(path, sep="\t")
    table.loc[table["stim_id"] == "red-dog", "part"] = "train"
    table.to_csv(path, sep="\t", index=False)
    done = study.run(*ONE, "--split", "column", *QUICKER, "split.source=part")
    assert done.code == 65
    line = done.lines[-1]
    assert "train and test of fold 0 share 1 group(s), e.g. red-dog" in line
    assert "run-1_events.tsv" in line
    assert "remedy" in line
    assert "Traceback" not in done.err
    # By run instead of by picture it would leak too: the runs have both parts.
    done = study.run(*ONE, "--split", "column", "--group", "run", *QUICKER, "split.source=part")
    assert done.code == 65
    assert "share 3 group(s)" in done.lines[-1]


def test_repeats_are_averaged_in_the_test_set_alone(study: Any) -> None:
    study.ok(*NO_PAGE, "--split", "column", *QUICKER, "split.source=part", 'split.average=["test"]')
    assert sorted(_true(study)["trial_id"]) == ["blue-bird_mean", "green-cow_mean", "green-fox_mean", "red-dog_mean"]
    assert _counts(study) == [{"train": 24, "validation": 0, "test": 4}]
    assert set(study.table("likelihood")["run"]) == {"mixed"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["--split", "kfold", "--folds", "40", *QUICKER], "40 fold(s) of 12 group(s)"),
        (["--group", "colour", *QUICKER], "no column 'colour' to group by"),
        (["--split", "column", *QUICKER, "split.source=parts"], "no column 'parts' with the split"),
        (["--split", "column", *QUICKER, "split.source=trial_type"], "is in part picture"),
    ],
)
def test_a_split_that_cannot_be_made_is_named(study: Any, settings: list[str], words: str) -> None:
    done = study.run(*ONE, *settings)
    assert done.code == 65, done.err
    assert words in done.lines[-1]
    assert "run-1_events.tsv" in done.lines[-1]
