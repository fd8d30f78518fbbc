"""Whole stories through the command line: which windows are reconstructed, from what, and what the tables say."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.evaluation.metrics import get
from bids_brainlm.evaluation.story.comparison import STORY_COLUMNS
from bids_brainlm.stages.story import RECONSTRUCTION_COLUMNS

ONE = ("--participant-label", "01", "--skip", "reports")
TOLD = ("--story-decoder", "generate", "encoding", "--set", "story.seconds=10", "story.null_texts=3")


@pytest.fixture(scope="module")
def study(story_done: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The finished study of stories with its test story reconstructed."""
    study = story_done.copy(tmp_path_factory.mktemp("told"), results=True)
    study.ok(*ONE, *TOLD)
    return study


def _table(study: Any, desc: str) -> pd.DataFrame:
    (path,) = study.out.glob(f"sub-01/beh/*_desc-{desc}_beh.tsv")
    about = json.loads(path.with_suffix(".json").read_text())
    table = pd.read_csv(path, sep="\t", na_values="n/a", keep_default_na=False)
    assert set(table.columns) <= set(about)
    return table


def _decoded(study: Any) -> pd.DataFrame:
    return _table(study, "decoded")


def test_only_the_story_is_new(study: Any) -> None:
    assert study.executed() == ["story"]
    study.ok(*ONE, *TOLD)
    assert study.executed() == []


def test_every_window_of_the_test_story_has_a_text_by_each_decoder(study: Any) -> None:
    table = _table(study, "reconstruction")
    assert list(table.columns) == list(RECONSTRUCTION_COLUMNS)
    stories = {stimulus.split("/")[0] for stimulus in _decoded(study)["stimulus_id"]}
    assert set(table["story"]) == stories
    drawn = table[table["draw"] > 0]
    assert drawn["decoder"].isna().all()
    assert set(drawn["draw"]) == {1, 2, 3}
    assert set(table.loc[table["draw"] == 0, "decoder"]) == {"generate", "encoding"}
    first = {story: int(part["window"].min()) for story, part in table.groupby("story")}
    assert set(first.values()) == {0}  # windows without a context of their own are reconstructed as well
    for _, part in table.groupby(["story", "run", "decoder", "draw"], dropna=False):
        windows = part["window"].tolist()
        assert windows == list(range(len(windows)))
        np.testing.assert_allclose(part["onset"], 2.0 * part["window"])
    said = _decoded(study).drop_duplicates("stimulus_id").set_index("stimulus_id")["text_true"]
    for row in table.itertuples():
        stimulus = f"{row.story}/{row.window:04d}"
        assert stimulus not in said.index or said[stimulus] == row.text_true


def test_all_texts_are_told_the_same_word_rate(study: Any) -> None:
    """Three words are said in every window, and the rate varies little in training."""
    table = _table(study, "reconstruction")
    assert np.abs(table["words_pred"] - 3).max() < 1
    # How many tokens that makes is tested with the search; the words of this model are not whole ones.
    assert (table.groupby(["story", "run", "window"])["words_pred"].nunique() == 1).all()
    assert (table.groupby(["story", "run", "window"]).size() == 2 + 3).all()


def test_figures_are_those_of_the_texts(study: Any) -> None:
    texts, table = _table(study, "reconstruction"), _table(study, "story")
    assert list(table.columns) == list(STORY_COLUMNS)
    row = table[(table["decoder"] == "encoding") & (table["metric"] == "wer") & (table["story"] == "all")].iloc[0]
    own = texts[texts["decoder"] == "encoding"].fillna("")
    scores = []
    for _, part in own.assign(long=(own["onset"] // 10).astype(int)).groupby(["story", "run", "long"]):
        said, text = (" ".join(filter(None, part[column])) for column in ("text_true", "text_pred"))
        scores.append(get("wer")([text], [(said,)])[0])
    assert row["value"] == pytest.approx(np.mean(scores))
    assert row["n_windows"] == len(scores)
    assert set(table["decoder"]) == {"generate", "encoding", "word rate"}


def test_what_was_not_run_is_said(study: Any) -> None:
    (path,) = study.out.glob("sub-01/beh/*_desc-story_beh.json")
    missing = json.loads(path.read_text())["NotRun"]
    run = set(_table(study, "story")["metric"])
    assert run | set(missing) == {"wer", "bleu1", "meteor", "bertscore", "correlation"}
    assert not run & set(missing)
    assert "bertscore" in missing["bertscore"]


def test_an_unknown_story_decoder_is_one_line(study: Any) -> None:
    done = study.run(*ONE, "--story-decoder", "encodin")
    assert done.code != 0
    assert "'encoding'" in done.err
    assert "Traceback" not in done.err
