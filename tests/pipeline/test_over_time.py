"""From words with times to decoded text, through the command line: what is planned, cleaned, kept, skipped and reported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.io.cleaned import read_cleaned
from bids_brainlm.io.timing import timing

N_RUNS, N_WINDOWS = 6, 30
CLEANED = "space-T1w_desc-cleaned_bold"


def _words(done: Any, run: int) -> pd.DataFrame:
    path = done.out / "sub-01" / "beh" / f"sub-01_task-listen_run-{run}_desc-words_events.tsv"
    return pd.read_csv(path, sep="\t")


def _decoded(done: Any) -> pd.DataFrame:
    path = done.out / "sub-01" / "beh" / "sub-01_task-listen_desc-decoded_beh.tsv"
    return pd.read_csv(path, sep="\t", na_values="n/a", keep_default_na=False)


def test_files_of_a_run_that_was_cleaned(story_done: Any) -> None:
    own = {path.name for path in (story_done.out / "sub-01" / "func").iterdir()}
    for run in range(1, N_RUNS + 1):
        assert {f"sub-01_task-listen_run-{run}_{CLEANED}.{ending}" for ending in ("nii.gz", "json")} <= own
    # A run at rest, without events, is no fault; nor is anything estimated.
    assert not [name for name in own if "rest" in name or "stat-effect" in name or "stat-mean" in name]
    assert {path.stem.rpartition("_")[2] for path in (story_done.out / "logs" / "stages").glob("*.json")} == {
        "clean",
        "train",
        "decode",
        "evaluate",
        "story",
    }


def test_words_lie_in_the_time_of_the_events(story_done: Any) -> None:
    told = pd.read_csv(story_done.bids / "stimuli" / "story2.tsv", sep="\t")
    words = _words(story_done, 2)
    np.testing.assert_allclose(words["onset"], told["onset"] + 6.0)
    assert words["word"].tolist() == told["word"].tolist()
    assert set(words["part"]) == {"train"}
    sidecar = json.loads((story_done.out / f"sub-01/func/sub-01_task-listen_run-2_{CLEANED}.json").read_text())
    assert "bids:raw:stimuli/story2.tsv" in sidecar["Sources"]
    assert (sidecar["StartTime"], sidecar["RepetitionTime"]) == (1.0, 2.0)


def test_examples_are_windows_with_their_context(story_done: Any) -> None:
    table = _decoded(story_done)
    true = table[table["condition"] == "true"]
    (story,) = set(true["group"])
    told = pd.read_csv(story_done.bids / "stimuli" / f"{story}.tsv", sep="\t")["word"].to_numpy().reshape(N_WINDOWS, 3)
    for name, text, prompt in zip(true["trial_id"], true["text_true"], true["prompt"], strict=True):
        window, n_before = (int(name.split(f"_{key}-")[1][: 4 if key == "win" else 1]) for key in ("win", "context"))
        assert text == " ".join(told[window])
        assert prompt == " ".join(told[window - n_before : window].ravel())
    # The first window has no context of one, the first two none of two.
    assert len(true) == (N_WINDOWS - 1) + (N_WINDOWS - 2)


def test_the_brain_tells_the_words(story_done: Any) -> None:
    path = story_done.out / "sub-01" / "beh" / "sub-01_task-listen_desc-metrics_beh.tsv"
    metrics = pd.read_csv(path, sep="\t").set_index(["metric", "condition"])["value"]
    assert metrics["readout_pairwise", "ridge"] > 0.85


def test_the_validator_reports_no_error(story_done: Any) -> None:
    tool = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent)) or shutil.which("bids-validator-deno")
    if tool is None:
        pytest.skip("needs bids-validator-deno")
    answer = subprocess.run([tool, "--json", story_done.out], capture_output=True, text=True, timeout=120, check=False)
    issues = json.loads(answer.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_the_report_tells_windows_and_not_trials(story_done: Any) -> None:
    page = (story_done.out / "sub-01.html").read_text("utf-8")
    text = (story_done.out / "logs" / "sub-01_CITATION.md").read_text("utf-8")
    assert "6 with 540 words in 6 runs" in page
    assert "174 of 2 s, left out 0 without words, 0 outside the series, 6 without context" in page
    assert "540 words of 6 stories were cut into windows of 2 s by their onsets" in text
    assert "least squares" not in text


def test_a_dry_run_counts_what_is_then_done(story: Any, story_done: Any, command: Any) -> None:
    said = story.run("--dry-run", "--participant-label", "01")
    assert said.code == 0
    lines = [line.removeprefix("#").split() for line in said.err.splitlines()]
    runs = [line for line in lines if line and line[0].startswith("task-")]
    assert [line[2:6] for line in runs if line[0] != "task-rest"] == [["37", "2.000", "29", "57"]] * N_RUNS
    assert next(line for line in runs if line[0] == "task-rest")[-2:] == ["no", "words"]
    sizes = json.loads((story_done.out / "sub-01/model/sub-01_task-listen_desc-fold0decoder_model.json").read_text())
    parts = sizes["NumberOfExamples"]
    assert f"342 texts; train {parts['train']}, validation {parts['validation']}, test {parts['test']}" in said.err
    assert parts == {"train": 228, "validation": 57, "test": 57}
    assert not (story.root / "out").exists()


def test_what_is_done_again_follows_from_what_changed(story_done: Any, tmp_path: Path) -> None:
    study = story_done.copy(tmp_path, results=True)
    one = ("--participant-label", "01")
    study.ok(*one)
    assert study.executed() == []
    # Longer windows: series stay as they are.
    study.ok(*one, "--set", "window.rows=2")
    assert study.executed() == ["train", "decode", "evaluate"]
    # Another word, the same series: its run is read again, since words are written beside it.
    path = study.bids / "stimuli" / "story3.tsv"
    path.write_text(path.read_text().replace("dog", "hound"), encoding="utf-8")
    study.ok(*one, "--set", "window.rows=2", "--skip", "train")
    assert study.executed() == ["clean"]
    study.ok(*one, "--high-pass", "0.02", "--skip", "estimate")
    assert study.executed() == []


def test_one_way_with_series_replaces_the_other(story_done: Any, tmp_path: Path) -> None:
    study = story_done.copy(tmp_path, results=True)
    part = ("--participant-label", "01", "--skip", "train", "--atlas", str(study.root / "atlas.nii.gz"))
    shutil.copy(story_done.settings[story_done.settings.index("--atlas") + 1], study.root / "atlas.nii.gz")
    for run in range(1, N_RUNS + 1):
        events = study.bids / "sub-01" / "func" / f"sub-01_task-listen_run-{run}_events.tsv"
        rows = [f"{6 + 8 * i}\t1\tpicture {i}" for i in range(7)]
        events.write_text("\n".join(["onset\tduration\ttext", *rows]) + "\n", encoding="utf-8")
    whole = ("--set", "window.words=", "--set", "split.group=stimulus", "--set", "text.column=text")
    study.ok(*part, *whole)
    func = study.out / "sub-01" / "func"
    assert not list(func.glob("*_desc-cleaned_bold.*"))
    assert len(list(func.glob("*_stat-effect_*.nii.gz"))) == N_RUNS
    assert len(list((study.out / "sub-02" / "func").glob("*_desc-cleaned_bold.nii.gz"))) == N_RUNS


def test_a_story_that_goes_on_after_the_scan_loses_its_last_windows(story: Any, tmp_path: Path) -> None:
    study = story.copy(tmp_path)
    events = study.bids / "sub-01" / "func" / "sub-01_task-listen_run-4_events.tsv"
    events.write_text(events.read_text().replace("\n6.0\t", "\n30.0\t"), encoding="utf-8")
    said = study.run("--dry-run", "--participant-label", "01")
    assert said.code == 0
    # The scan ends at 73 s: of three volumes after 2 s, the last window that fits begins at 66 - 2.
    last = max(k for k in range(N_WINDOWS) if np.ceil((30 + 2 * k + 2 - 1) / 2) + 2 <= 36)
    assert (
        f"{174 - (N_WINDOWS - 1 - last)} windows with text; left out: 0 without words, {N_WINDOWS - 1 - last} outside" in said.err
    )


def test_series_are_those_of_every_run_in_order(story_done: Any) -> None:
    paths = [story_done.out / f"sub-01/func/sub-01_task-listen_run-{run}_{CLEANED}.nii.gz" for run in range(1, N_RUNS + 1)]
    for path in paths:
        found = read_cleaned(path)
        np.testing.assert_allclose(found.data.std(axis=0, ddof=1), 1.0, atol=1e-4)
        np.testing.assert_allclose(found.times, timing(found.sidecar, path).frames(37, path))


def test_stories_are_reconstructed_where_that_is_asked_for_and_no_longer_when_not(story_done: Any, tmp_path: Path) -> None:
    study = story_done.copy(tmp_path, results=True)
    one, told = ("--participant-label", "01"), ("--story-decoder", "generate")
    table = pd.read_csv(study.out / "sub-01" / "beh" / "sub-01_task-listen_desc-story_beh.tsv", sep="\t")
    assert "generate" in set(table["decoder"])
    study.ok(*one, *told)
    assert study.executed() == []
    study.ok(*one, *told, "--set", "story.seconds=10", "--skip", "story")
    assert study.executed() == []
    study.ok(*one, *told, "--set", "story.seconds=10")
    assert study.executed() == ["story"]
    # Of a decoder that is no more, once something is made anew without it.
    study.ok(*one, "--high-pass", "0.02", "--skip", "train")
    assert study.executed() == ["clean"] * N_RUNS
    assert not list((study.out / "sub-01" / "beh").glob("*_desc-story_beh.tsv"))
