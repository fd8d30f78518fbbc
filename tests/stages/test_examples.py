"""From trials and texts to examples: one a trial and question, with every reference, in whole groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.core.leakage import count
from bids_brainlm.errors import InputError
from bids_brainlm.io.surfaces import Geometry
from bids_brainlm.stages.examples import examples_of, splits_of
from bids_brainlm.stages.responses import Trials

TABLE = """stim_id\tquestion\tanswer
s1\twhat?\ta dog
s1\twhat?\tone dog
s1\twhere?\ta park
s2\twhat?\ta cat
s3\twhat?\ta cow
s4\twhat?\ta fox
"""


def _trials(stimuli: list[str], runs: list[str], **columns: Any) -> Trials:
    n = len(stimuli)
    data = np.arange(3 * n, dtype=np.float32).reshape(n, 3) + 1
    table = {"trial_id": [f"t{i}" for i in range(n)], "onset": np.arange(n, dtype=float), "stim_id": stimuli, "run": runs}
    table |= {"session": ["n/a"] * n, **columns}
    return Trials(data, Geometry("none", "", 3, 3), pd.DataFrame(table), Path("trials.tsv"), (), "x")


@pytest.fixture
def request_(make_request: Any) -> Any:
    made = make_request("text.table", "texts.tsv", "text.key", "stim_id")
    (made.bids_dir / "texts.tsv").write_text(TABLE)
    return made


def test_one_example_a_trial_and_question(request_: Any) -> None:
    examples = examples_of(request_, _trials(["s1", "s2", "none", "s3", "s1"], ["a", "a", "a", "b", "b"]))
    assert list(examples.id) == ["t0_q-1", "t0_q-2", "t1", "t3", "t4_q-1", "t4_q-2"]
    assert [prompt.context for prompt in examples.prompts] == ["what?", "where?", "what?", "what?", "what?", "where?"]
    assert examples.references[0] == ("a dog", "one dog")
    assert examples.references[1] == ("a park",)
    assert list(examples.rows[:, 0, 0]) == [0, 0, 1, 3, 4, 4]
    assert list(examples.group) == list(examples.stimulus) == ["s1", "s1", "s2", "s3", "s1", "s1"]


def test_patterns_are_centred_within_their_run(request_: Any) -> None:
    trials = _trials(["s1", "s2", "s3", "s4"], ["a", "a", "b", "b"])
    data = examples_of(request_, trials).recording.data
    assert data[:2].mean(axis=0) == pytest.approx(0)
    assert data[2:].mean(axis=0) == pytest.approx(0)
    assert trials.data.mean() > 1


def test_groups_are_those_asked_for(make_request: Any) -> None:
    for group, expected in (("run", ["a", "a", "a", "b", "b"]), ("story", ["x", "x", "y", "x", "y"])):
        made = make_request("text.table", "texts.tsv", "text.key", "stim_id", "split.group", group)
        (made.bids_dir / "texts.tsv").write_text(TABLE)
        trials = _trials(["s1", "s2", "s3", "s4"], ["a", "a", "b", "b"], story=["x", "y", "x", "y"])
        assert list(examples_of(made, trials).group) == expected


def test_too_few_trials_and_odd_tables_are_named(request_: Any) -> None:
    with pytest.raises(InputError, match=r"3 trial\(s\) with a text: trials.tsv"):
        examples_of(request_, _trials(["s2", "s3", "s4"], ["a"] * 3))
    with pytest.raises(InputError, match="ids repeat"):
        examples_of(request_, _trials(["s2", "s3", "s4", "s2"], ["a"] * 4, trial_id=["t"] * 4))
    with pytest.raises(InputError, match="onsets do not increase"):
        examples_of(request_, _trials(["s2", "s3", "s4", "s2"], ["a"] * 4, onset=[3.0, 2.0, 1.0, 0.0]))


def test_a_question_of_a_stimulus_never_leaves_its_part(request_: Any) -> None:
    trials = _trials(["s1", "s2", "s3", "s4"] * 3, ["a"] * 4 + ["b"] * 4 + ["c"] * 4)
    (split,) = splits_of(request_, trials, examples_of(request_, trials))
    parts = [set(split.examples.stimulus[index]) for index in (split.train, split.validation, split.test)]
    assert sum(map(len, parts)) == 4
    assert len(split.train) + len(split.validation) + len(split.test) == 15


BOTH = {"text.table": '["texts.tsv", "captions.tsv"]', "text.key": "stim_id", "split.scheme": "column", "split.source": "part"}


def _with_captions(make_request: Any, **more: str) -> tuple[Any, Trials]:
    """Two texts of training stimuli s1, s2 and one of a test stimulus s3, as captions and as questions in two phrasings."""
    settings = BOTH | {name.replace("__", "."): value for name, value in more.items()}
    made = make_request(*(part for pair in settings.items() for part in pair))
    rows = [
        f"{s}\tcolour\t{q} colour?\t{c}\thue\n"
        for s, c in zip(("s1", "s2", "s3"), ("red", "blue", "red"), strict=True)
        for q in ("What", "Which")
    ]
    rows += [f"{s}\tplace\tWhere?\t{p}\tn/a\n" for s, p in (("s1", "here"), ("s3", "there"))]
    (made.bids_dir / "texts.tsv").write_text("stim_id\ttask\tquestion\tanswer\tcategory\n" + "".join(rows))
    (made.bids_dir / "captions.tsv").write_text("stim_id\tcaption\ns1\ta red one\ns2\ta blue one\ns3\tone in red\n")
    trials = _trials(["s1", "s2", "s3"] * 2, ["a"] * 3 + ["b"] * 3, part=["train", "train", "test"] * 2)
    return made, trials


def test_captions_and_questions_are_examples_of_the_same_rows(make_request: Any) -> None:
    made, trials = _with_captions(make_request)
    (split,) = splits_of(made, trials, examples_of(made, trials))
    examples = split.examples
    assert [p.category for p in examples.prompts[:3]] == ["hue", "question", "caption"]
    assert examples.prompts[0].phrasings == ("What colour?", "Which colour?")
    assert examples.prompts[2].phrasings == made.config.text.prompts
    assert examples.rows[:3, 0, 0].tolist() == [0, 0, 0]
    # No pair of question and answer of a held-out stimulus is trained on, in whatever phrasing or table.
    assert set(examples.stimulus[split.train]) == {"s1", "s2"}
    assert set(examples.stimulus[split.test]) == {"s3"}
    assert count(split).shared_targets == 0
    assert not np.isin(examples.rows[split.test], examples.rows[split.train]).any()


@pytest.mark.parametrize(
    ("setting", "value", "trained"),
    [
        ("text.mix", "{caption = 1}", {"caption"}),
        ("text.mix", "{question = 1}", {"hue", "question"}),
        ("text.mix", "{hue = 1, caption = 1}", {"hue", "caption"}),
        ("split.leave_out_questions", '["Which colour?"]', {"question", "caption"}),
        ("split.leave_out_questions", '["hue", "Where?"]', {"caption"}),
    ],
)
def test_what_is_not_trained_on_is_decoded_all_the_same(make_request: Any, setting: str, value: str, trained: set[str]) -> None:
    made, trials = _with_captions(make_request, **{setting.replace(".", "__"): value})
    (split,) = splits_of(made, trials, examples_of(made, trials))
    assert {split.examples.prompts[i].category for i in split.train} == trained
    assert {split.examples.prompts[i].category for i in split.test} == {"hue", "question", "caption"}
    assert split.left_out + len(split.train) == 10
    made, trials = _with_captions(make_request, split__leave_out_questions="size")
    with pytest.raises(InputError, match=r"no question or category 'size'; categories: caption, hue, question"):
        splits_of(made, trials, examples_of(made, trials))


def test_a_category_is_left_out_of_training_by_label_and_by_word(make_request: Any) -> None:
    """s1 is a dog by its facts; s3 is not, but its text speaks of a puppy."""
    options = ("text.table", "texts.tsv", "text.key", "stim_id", "split.scheme", "column", "split.source", "part")
    made = make_request(*options, "evaluate.facts", "facts.tsv", "split.leave_out", "animal=dog")
    (made.bids_dir / "texts.tsv").write_text(TABLE.replace("a cow", "a cow and a puppy"))
    (made.bids_dir / "facts.tsv").write_text("stim_id\tanimal\ns1\tdog|puppy\ns2\tcat\ns3\tcow\ns4\tfox\n")
    parts = ["train", "train", "train", "test"]
    trials = _trials(["s1", "s2", "s3", "s4"], ["a"] * 4, part=parts)
    (split,) = splits_of(made, trials, examples_of(made, trials))
    assert set(split.examples.stimulus[split.train]) == {"s2"}
    assert split.left_out == 3
    swapped = _trials(["s4", "s2", "s3", "s1"], ["a"] * 4, part=parts)
    (split,) = splits_of(made, swapped, examples_of(made, swapped))
    assert set(split.examples.stimulus[split.test]) == {"s1"}
    (made.bids_dir / "facts.tsv").write_text("stim_id\tanimal\ns2\tcat\n")
    with pytest.raises(InputError, match="animal has no value dog; values: cat"):
        splits_of(made, trials, examples_of(made, trials))


def test_shuffled_pairs_move_responses_of_training_alone(make_request: Any) -> None:
    (plain,), (mixed,) = (
        splits_of(asked, trials, examples_of(asked, trials))
        for asked in (make_request("text.column", "caption", "split.shuffle_pairs", value) for value in ("false", "true"))
        for trials in [_trials([f"s{i}" for i in range(40)], ["1"] * 40, caption=[f"text {i}" for i in range(40)])]
    )
    for part in ("train", "validation", "test"):
        assert getattr(plain, part).tolist() == getattr(mixed, part).tolist()
    moved = plain.examples.rows[:, 0, 0] != mixed.examples.rows[:, 0, 0]
    assert not moved[plain.test].any()
    assert moved[plain.train].mean() > 0.8
    assert plain.examples.references == mixed.examples.references
