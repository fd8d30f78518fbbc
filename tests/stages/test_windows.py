"""Windows of stories and chunks of sentences as examples, against loops over words and volumes."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.errors import InputError
from bids_brainlm.io.surfaces import Geometry
from bids_brainlm.stages.examples import examples_of, splits_of
from bids_brainlm.stages.responses import Trials
from bids_brainlm.stages.windows import LeftOut, left_out_by_run

TR = 1.5


def _heard(run: str, story: str, start: float, onsets: Any) -> pd.DataFrame:
    words = [f"{story}{i}" for i in range(len(onsets))]
    return pd.DataFrame(
        {"run": run, "story": story, "start": start, "onset": onsets, "offset": np.add(onsets, 0.2), "word": words}
    )


def _trials(heard: list[pd.DataFrame], volumes: dict[str, int]) -> Trials:
    tables = [
        pd.DataFrame(
            {"trial_id": [f"{run}_vol-{i}" for i in range(n)], "onset": 0.5 + TR * np.arange(n), "run": run, "session": "1"}
        )
        for run, n in volumes.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    data = np.arange(2.0 * len(table), dtype=np.float32).reshape(-1, 2)
    words = pd.concat(heard, ignore_index=True)
    return Trials(data, Geometry("none", "", 2, 2), table, Path("words.tsv"), (), "x", heard=words)


@pytest.fixture
def story_trials() -> Trials:
    rng = np.random.default_rng(0)
    onsets = [np.sort(rng.uniform(0, end, n)) for end, n in ((60, 120), (50, 100), (60, 120))]
    onsets[1] = onsets[1][(onsets[1] < 12) | (onsets[1] > 20)]  # a silence of 8 s
    heard = [_heard("a", "hare", 3.2, onsets[0]), _heard("a", "fox", 70.0, onsets[1]), _heard("b", "owl", -1.0, onsets[2])]
    return _trials(heard, {"a": 75, "b": 38})


def _request(make_request: Any, *settings: str) -> Any:
    return make_request("window.words", "table", "split.group", "story", *settings)


def test_every_example_is_its_words_its_context_and_its_volumes(make_request: Any, story_trials: Trials) -> None:
    request = _request(make_request, "window.context", "[0, 2]", "window.rows", "3", "window.lag", "4")
    examples = examples_of(request, story_trials)
    assert examples.recording.kind == "bold"
    assert len(set(examples.id)) == len(examples)
    table = story_trials.table
    for i in range(len(examples)):
        story, number = str(examples.stimulus[i]).split("/")
        words = story_trials.heard[story_trials.heard["story"] == story]
        start, k = float(words["start"].iloc[0]), int(number)

        def said(first: int, last: int, words: pd.DataFrame = words) -> str:
            inside = (words["onset"] >= 2.0 * first) & (words["onset"] < 2.0 * last)
            return " ".join(words["word"][inside])

        n_before = len(examples.heard[i])
        assert examples.prompts[i].answer == examples.references[i][0] == said(k, k + 1) != ""
        assert examples.prompts[i].context == said(k - n_before, k)
        assert examples.heard[i] == tuple(f"{story}/{j:04d}" for j in range(k - n_before, k))
        assert examples.group[i] == story
        rows = examples.rows[i, :, 0]
        assert set(table["run"][rows]) == set(words["run"])
        assert (np.diff(rows) == 1).all()
        assert rows.size == 3
        wanted = start + 2.0 * k + 4.0
        assert wanted - 1e-6 <= table["onset"][rows[0]] < wanted + TR
    with_context = [len(heard) for heard in examples.heard]
    assert set(with_context) == {0, 2}


def test_what_is_left_out_is_counted(make_request: Any, story_trials: Trials, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "bids_brainlm")
    examples = examples_of(_request(make_request, "window.context", "3"), story_trials)
    n_windows = sum(int(words["onset"].max() // 2) + 1 for _, words in story_trials.heard.groupby("story"))
    used = len(set(examples.stimulus))
    (line,) = [record.getMessage() for record in caplog.records if "windows with text" in record.getMessage()]
    numbers = [int(word) for word in line.replace(",", " ").split() if word.isdigit()]
    assert numbers[0] == used
    assert sum(numbers) == n_windows
    assert numbers[1] >= 3  # the silence
    assert numbers[2] >= 3  # the owl goes on after the run
    by_run = left_out_by_run(story_trials, _request(make_request, "window.context", "3").config.window)
    heard = story_trials.heard.groupby(["run", "story", "start"])["onset"].max() // 2 + 1
    assert {run: sum(astuple(counts)) for run, counts in by_run.items()} == heard.groupby("run").sum().to_dict()
    assert str(LeftOut(1, 2, 3, 4) + LeftOut(1, 0, 0, 0)).startswith("2 windows with text")


def test_windows_of_a_story_cannot_be_dealt_out_one_by_one(make_request: Any, story_trials: Trials) -> None:
    from bids_brainlm.errors import LeakageError

    request = make_request("window.words", "table", "split.validation", "0")
    with pytest.raises(LeakageError, match="recording row"):
        splits_of(request, story_trials, examples_of(request, story_trials))


def test_a_transcript_far_from_the_scan_is_one_clear_line(make_request: Any) -> None:
    trials = _trials([_heard("a", "hare", 500.0, [0.5, 3.0])], {"a": 20})
    with pytest.raises(InputError, match=r"no window of words can be decoded \(0 windows with text; left out: .* 2 outside"):
        examples_of(_request(make_request, "window.context", "0"), trials)


def test_an_unknown_group_is_refused(make_request: Any, story_trials: Trials) -> None:
    with pytest.raises(InputError, match=r"no column 'passage': words.tsv \(expected: one of trial_id, onset, run, .*, word"):
        examples_of(make_request("window.words", "table", "split.group", "passage"), story_trials)


def test_a_column_of_the_events_groups_windows_by_their_first_word(make_request: Any, story_trials: Trials) -> None:
    heard = story_trials.heard
    # The part changes in the middle of a window: the window counts where its first word is.
    heard["chapter"] = np.where(heard["onset"] < 31.0, "one", "two")
    examples = examples_of(make_request("window.words", "table", "split.group", "chapter"), story_trials)
    for name, group in zip(examples.stimulus, examples.group, strict=True):
        story, number = name.split("/")
        onset = heard["onset"][heard["story"] == story]
        first = onset[onset >= 2.0 * int(number)].min()
        assert group == ("one" if first < 31.0 else "two")
    assert set(examples.group) == {"one", "two"}


def test_a_column_divides_stories_into_parts(make_request: Any, story_trials: Trials) -> None:
    part = {"hare": "train", "fox": "validation", "owl": "test"}
    story_trials.heard["part"] = story_trials.heard["story"].map(part)
    request = _request(make_request, "split.scheme", "column", "split.source", "part")
    examples = examples_of(request, story_trials)
    (split,) = splits_of(request, story_trials, examples)
    for name, story in (("train", "hare"), ("validation", "fox"), ("test", "owl")):
        assert set(examples.group[getattr(split, name)]) == {story}


def test_blocks_of_time_are_groups(make_request: Any, story_trials: Trials) -> None:
    request = _request(make_request, "split.scheme", "blocks", "split.block", "20", "window.context", "1")
    examples = examples_of(request, story_trials)
    number = np.array([int(name.split("/")[1]) for name in examples.stimulus])
    for group in set(examples.group):
        inside = number[examples.group == group]
        assert np.ptp(inside) < 10
        assert len(set(inside // 10)) == 1


def _sentences(make_request: Any, sentences: list[str], *settings: str) -> Any:
    table = {"trial_id": [f"t{i}" for i in range(len(sentences))], "onset": np.arange(len(sentences), dtype=float)}
    table |= {"text": sentences, "run": "a", "session": "n/a", "passage": [str(i // 2) for i in range(len(sentences))]}
    data = np.ones((len(sentences), 3), dtype=np.float32)
    trials = Trials(data, Geometry("none", "", 3, 3), pd.DataFrame(table), Path("trials.tsv"), (), "x")
    return examples_of(make_request("text.column", "text", "split.group", "passage", "window.chunks", "3", *settings), trials)


def test_chunks_of_a_sentence_share_its_response_and_its_group(make_request: Any) -> None:
    examples = _sentences(make_request, ["a hare ran far away today", "so it was", "one", "the fox is very old now"])
    assert list(examples.id) == ["t0_chunk-1", "t0_chunk-2", "t1_chunk-1", "t1_chunk-2", "t3_chunk-1", "t3_chunk-2"]
    assert examples.rows[:, 0, 0].tolist() == [0, 0, 1, 1, 3, 3]
    assert [(p.context, p.answer) for p in examples.prompts[:2]] == [("a hare", "ran far"), ("a hare ran far", "away today")]
    assert list(examples.group) == ["0", "0", "0", "0", "1", "1"]
    sentence = "a hare ran far away today"
    assert examples.stimulus[1] == f"{sentence}/2"
    assert examples.heard[1] == (f"{sentence}/0", f"{sentence}/1")


def test_chunks_without_context_are_asked_for_by_0(make_request: Any) -> None:
    examples = _sentences(make_request, ["a b c", "d e f"], "window.context", "0")
    assert [prompt.context for prompt in examples.prompts] == [""] * 4
    assert [prompt.answer for prompt in examples.prompts] == ["b", "c", "e", "f"]
    assert set(examples.heard) == {()}


def test_lower_case_holds_for_texts_contexts_references_and_whole_stories(make_request: Any, story_trials: Trials) -> None:
    from bids_brainlm.stages.story import tellings_of

    story_trials.heard["word"] = story_trials.heard["word"].str.upper()
    as_said, lower = _request(make_request), _request(make_request, "window.lower", "true")
    before, after = examples_of(as_said, story_trials), examples_of(lower, story_trials)
    assert "HARE1" in before.prompts[0].answer + before.prompts[0].context
    for one, other in zip(before.prompts, after.prompts, strict=True):
        assert (one.context.lower(), one.answer.lower()) == (other.context, other.answer)
    assert after.references == tuple((prompt.answer,) for prompt in after.prompts)
    assert (before.id == after.id).all()
    told = [[telling.texts for telling in tellings_of(story_trials, r.config.window)] for r in (as_said, lower)]
    assert told[1] == [tuple(text.lower() for text in texts) for texts in told[0]] != told[0]


def test_chunks_in_lower_case(make_request: Any) -> None:
    sentences = ["A Hare ran FAR away Today", "The fox IS very Old"]
    as_written, lower = (_sentences(make_request, sentences, "window.lower", value) for value in ("false", "true"))
    assert as_written.prompts[0].context == "A Hare"
    assert [(p.context, p.answer) for p in lower.prompts[:2]] == [("a hare", "ran far"), ("a hare ran far", "away today")]
    assert lower.references[0] == ("ran far",)
    assert (lower.stimulus == as_written.stimulus).all()
