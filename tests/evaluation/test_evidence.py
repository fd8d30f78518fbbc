"""Abstaining helps where confidence tells right from wrong; a collapse and an over-confident decoder are called out in words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.core.surrogates import constant
from bids_brainlm.core.types import Examples
from bids_brainlm.evaluation.decoding import Generation, confidence_of, decode
from bids_brainlm.evaluation.evidence import COVERAGE_COLUMNS, coverage, warnings_of
from bids_brainlm.evaluation.pairs import comparisons
from bids_brainlm.evaluation.table import PRIMARY, Predictions
from bids_brainlm.language.render import render
from bids_brainlm.models.fusion import BrainLM, collate

Speaker = Callable[[str], tuple[BrainLM, Any]]
N = 20


def predictions(said: list[str], alone: list[str]) -> Predictions:
    frame = pd.DataFrame({"trial_id": [f"t{i}" for i in range(N)], "stimulus_id": [f"s{i}" for i in range(N)], "fold": 0})
    frame = frame.assign(group=frame["stimulus_id"], prompt="What?", text_true=[f"text {i % 10}" for i in range(N)], nll=1.0)
    parts = [frame.assign(n_tokens=2, condition=name, text_pred=texts) for name, texts in (("true", said), ("none", alone))]
    return Predictions(pd.concat(parts, ignore_index=True))


def figures(specificity: float = 2.0, p: float = 0.01, **values: float) -> pd.DataFrame:
    rows = [(PRIMARY, "true", specificity, p)]
    named = {"bits": ("information_bits", "true"), "decoder": ("temperature", "true"), "other": ("temperature", "text_only")}
    named |= {"text": ("nll_calibrated", "text_only"), "alone": ("nll", "none")}
    rows += [(*named[name], value, np.nan) for name, value in values.items()]
    return pd.DataFrame(rows, columns=["metric", "condition", "value", "p_value"])


FINE = [f"text {i % 10}" for i in range(N)]
ALONE = ["a text"] * N


def test_nothing_is_doubted_where_all_is_well() -> None:
    assert warnings_of(figures(bits=0.5, decoder=1.1, other=1.0), predictions(FINE, ALONE)) == ()
    assert warnings_of(figures(), predictions(FINE, ALONE)) == ()


@pytest.mark.parametrize(
    ("table", "said", "alone", "sentence"),
    [
        (
            figures(),
            ["a dog"] * 17 + FINE[:3],
            FINE[::-1],
            r"17 of 20 decoded texts are the same sentence \(“a dog”\).* 4 different",
        ),
        (figures(), FINE, FINE, "20 of 20 texts are the same without any brain"),
        (figures(decoder=4.02, other=1.1), FINE, ALONE, r"divided by 4\.0 \(those of the text-only model by 1\.1\)"),
        (figures(text=9.0, alone=8.5), FINE, ALONE, r"text-only model \(9\.00 nats a text\).*\(8\.50\).*overstated"),
        (figures(bits=-0.3), FINE, ALONE, r"depend on the brain \(2\.00 nats\).*knows texts alone \(-0\.30 bits\)"),
    ],
)
def test_what_is_to_be_doubted_is_said(table: pd.DataFrame, said: list[str], alone: list[str], sentence: str) -> None:
    (found,) = warnings_of(table, predictions(said, alone))
    assert re.search(sentence, found)


def test_a_sentence_that_is_right_as_often_is_no_collapse() -> None:
    made = predictions(["text 0"] * 12 + FINE[12:], ALONE)
    right = made.table.assign(text_true=np.where(np.arange(2 * N) % N < 11, "text 0", made.table["text_true"]))
    assert warnings_of(figures(), Predictions(right)) == ()
    assert warnings_of(figures(bits=-0.3, p=0.4), predictions(FINE, ALONE)) == ()


def test_keeping_the_confident_texts() -> None:
    confidence = np.array([3.0, 1.0, np.nan, 2.0, 5.0, 4.0, 0.0, -1.0, 6.0, 7.0])
    table = coverage(confidence, {"exact": confidence > 2.5, "other": np.full(10, 0.5)})
    assert list(table.columns) == list(COVERAGE_COLUMNS)
    exact = table[table["metric"] == "exact"].set_index("coverage")
    assert exact["n"].tolist() == list(range(10, 0, -1))
    assert exact.loc[1.0, "value"] == 0.5
    assert exact.loc[0.5, ["value", "threshold"]].tolist() == [1.0, 3.0]
    assert exact.loc[0.6, ["value", "threshold"]].tolist() == [pytest.approx(5 / 6), 2.0]
    assert np.isnan(exact.loc[1.0, "threshold"])
    assert (table.loc[table["metric"] == "other", "value"] == 0.5).all()


def test_confidence_is_that_of_a_plain_loop(speaker: Speaker, examples: Examples) -> None:
    model, text = speaker("llama")
    compared, settings = comparisons(examples, 5, 1000, 7), Generation("chat", max_new_tokens=6, batch_size=5)
    found = decode(model, text, examples, settings, compared)
    said = found.table.loc[found.table["condition"] == "true", "text_pred"].tolist()
    for i in range(12):
        prompt = type(examples.prompts[i])(examples.prompts[i].context, said[i])
        item = render(prompt, text, 3, "chat")
        nll = [float(model.nll(collate([item], examples.gather([j])))[0]) for j in range(12)]
        others = np.flatnonzero(compared.allowed[i])
        assert found.confidence[i] == pytest.approx(np.mean([nll[j] for j in others]) - nll[i], abs=1e-4)
    # Texts that are said whatever the brain have none.
    flat = constant(examples, np.zeros(9))
    assert confidence_of(model, text, flat, said, settings, compared) == pytest.approx(np.zeros(12), abs=1e-4)
