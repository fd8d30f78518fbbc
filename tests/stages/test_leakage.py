"""What splits let through is counted from tables alone; for Pereira's sentences it is what the published split is known for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.core.leakage import Leakage, count
from bids_brainlm.errors import InputError, LeakageError
from bids_brainlm.stages.examples import examples_of, splits_of
from bids_brainlm.stages.leakage import COLUMNS, as_text, honest_and_leaky, leakage, schemes, unread
from bids_brainlm.stages.plan import before_responses


@pytest.fixture
def reading(make_request: Any, tmp_path: Path) -> Any:
    """627 sentences of passages, as a plain matrix; no value of it is ever read."""
    folder = tmp_path / "betas"
    folder.mkdir()
    np.save(folder / "sub-01_betas.npy", np.zeros((627, 2), np.float32))
    table = pd.DataFrame({"passage": np.arange(627) // 4, "sentence": np.arange(627)})
    table["text"] = [f"the sentence {i} is read by some people" for i in table["sentence"]]
    table.to_csv(folder / "sub-01_trials.tsv", sep="\t", index=False)

    def make(*settings: str) -> Any:
        about = ("text.column", "text", "text.key", "sentence", "window.chunks", "3", "window.context", "[1, 2]")
        return make_request(*about, "split.group", "passage", *settings, derivatives={"betas": folder})

    return make


def test_the_table_has_a_row_for_every_kind_of_split(reading: Any) -> None:
    request = reading("split.scheme", "kfold", "split.folds", "5", "split.validation", "0", "run.random_seed", "0")
    assert list(schemes(request)) == ["kfold by passage", "single by passage", "leaky-random"]
    table, without = leakage(request, ["01"])
    assert not without
    rows = table.set_index("split")
    shares = ["shared_volumes", "shared_targets", "targets_in_contexts"]
    assert (rows.loc[["kfold by passage", "single by passage"], shares] == 0).all(axis=None)
    assert rows.loc["kfold by passage", "test"] == 1254
    # The other sample of a sentence is in training with a probability of .8, and every second target is the first of two.
    assert rows.loc["leaky-random", "shared_volumes"] == pytest.approx(80, abs=10)
    assert rows.loc["leaky-random", "targets_in_contexts"] == pytest.approx(40, abs=10)
    text = as_text(table, {"x": "too few"})
    assert all(name in text for name in COLUMNS)
    assert text.endswith("x cannot be made: too few")


def test_counts_are_those_of_the_splits(reading: Any) -> None:
    request = reading("split.scheme", "leaky-random", "split.validation", "0")
    table, _ = leakage(request, ["01"])
    trials = unread(request, "01")
    (split,) = splits_of(request, trials, examples_of(request, trials))
    leak = count(split)
    assert table["split"].tolist() == ["leaky-random", "single by passage"]
    assert table["shared_volumes"][0] == pytest.approx(100 * leak.shared_rows / leak.n_test)
    assert leak.n_test == table["test"][0] == 251
    assert count(dataclasses.replace(split, train=split.train[:0])) == Leakage(251, 0, 0, 0)


def test_a_split_that_leaks_by_accident_is_refused_and_told(reading: Any) -> None:
    request = reading("split.group", "run", "split.scheme", "single")
    table, without = leakage(request, ["01"])
    assert table["split"].tolist() == ["leaky-random"]
    assert "1 group(s) cannot be divided" in str(without["single by run"])
    assert "single by run" not in as_text(table, {})
    with pytest.raises(InputError, match="no column 'said' of texts"):
        leakage(reading("text.column", "said"), ["01"])


def test_honest_and_leaky_are_what_is_compared(reading: Any) -> None:
    for scheme in ("kfold", "leaky-random"):
        pair = honest_and_leaky(reading("split.scheme", scheme))
        honest, leaky = (request.config.split for request in pair.values())
        assert leaky.scheme == "leaky-random"
        assert honest.scheme == ("kfold" if scheme == "kfold" else "single")
        assert honest.group == leaky.group == "passage"


def test_neighbouring_windows_dealt_out_by_window_are_refused_in_one_line(make_request: Any) -> None:
    words = pd.DataFrame({"run": "a", "story": "hare", "start": 0.0, "onset": np.arange(0.0, 120.0, 0.5)})
    words = words.assign(offset=words["onset"] + 0.2, word=[f"w{i}" for i in range(len(words))])
    onset = np.arange(0.0, 130.0, 2.0)
    table = pd.DataFrame({"trial_id": [f"v{i}" for i in range(len(onset))], "onset": onset, "run": "a", "session": "n/a"})
    trials = before_responses([table], Path("events.tsv"), [words])
    request = make_request("window.words", "table", "split.group", "stimulus")
    with pytest.raises(LeakageError, match="recording row.*remedy: set --group story or --split blocks"):
        splits_of(request, trials, examples_of(request, trials))
    alone = make_request("window.words", "table", "split.group", "story")
    with pytest.raises(InputError, match="1 group.s. cannot be divided.*use --split blocks"):
        splits_of(alone, trials, examples_of(alone, trials))
    short = make_request("window.words", "table", "split.scheme", "blocks", "split.block", "20")
    with pytest.raises(InputError, match="no permuted brains in fold 0: .* move each by 14 s.*test longer stretches"):
        splits_of(short, trials, examples_of(short, trials))
