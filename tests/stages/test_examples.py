"""From trials and texts to examples: one a trial and question, with every reference, in whole groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

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
