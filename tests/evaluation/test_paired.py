"""Paired differences against figures that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.core.types import DECODED_COLUMNS
from bids_brainlm.evaluation.metrics import Facts, get
from bids_brainlm.evaluation.paired import COMPARE_COLUMNS, category_scores, direction, item_scores, over_participants, paired
from bids_brainlm.evaluation.table import Predictions, Sampling
from bids_brainlm.evaluation.zero_shot import Category

FACTS = Facts({"animal": {"dog": ("dog", "puppy"), "cat": ("cat",)}})


def predictions(true: list[str], permuted: list[str], right: list[str], nll: float = 7.0) -> Predictions:
    rows = []
    for condition, texts in (("true", true), ("permuted", permuted)):
        for i, (text, own) in enumerate(zip(texts, right, strict=True)):
            stimulus = own.split()[-1]
            rows.append((f"t{i}", stimulus, 0, f"g{i}", condition, "", own, text, nll, 3))
    names = ["trial_id", "stimulus_id", "fold", "group", "condition", "prompt", "text_true", "text_pred", "nll", "n_tokens"]
    return Predictions(pd.DataFrame(rows, columns=names)[list(DECODED_COLUMNS)])


def test_items_are_scored_by_the_metrics_themselves() -> None:
    part = predictions(["a dog", "a dog"], ["a cat", "a cat"], ["a dog", "a cat"], nll=5 * np.log(2))
    found = item_scores(part, [get("wer"), get("facts"), get("meteor")], FACTS)
    assert set(found) == {(m, c) for m in ("wer", "facts") for c in ("true", "true_minus_permuted")} | {
        ("nll", "true"),
        ("bits_per_character", "true"),
    }
    assert found["wer", "true"].tolist() == [0, 0.5]
    assert found["wer", "true_minus_permuted"].tolist() == [-0.5, 0.5]
    assert found["facts", "true"].tolist() == [1, 0]
    assert found["bits_per_character", "true"].tolist() == pytest.approx([1, 1])  # 5 bits, 5 characters
    assert ("facts", "true") not in item_scores(part, [get("facts")])


def test_hits_and_false_alarms_of_a_category() -> None:
    part = predictions(["a puppy", "a cat", "a dog"], [""] * 3, ["a dog", "a dog", "a cat"])
    found = category_scores(part, Category.parsed("animal=dog", FACTS))
    assert np.array_equal(found["zero_shot_hits", "true"], [1, 0, np.nan], equal_nan=True)
    assert np.array_equal(found["zero_shot_false_alarms", "true"], [np.nan, np.nan, 1], equal_nan=True)


def test_eight_groups_of_one_mind() -> None:
    """All differences have one sign: one flip in 2^8 is as extreme on either side. Items of a group count once."""
    rng = np.random.default_rng(0)
    first, gain = rng.normal(size=16), 1 + rng.random(16)
    key, other = ("wer", "true"), ("nll", "true")
    groups = np.repeat(np.arange(8), 2).astype(str)
    sampling = Sampling(500, 20000)
    table = paired({key: first, other: first}, {key: first - gain, ("x", "true"): first}, groups, sampling)
    assert list(table.columns) == list(COMPARE_COLUMNS)[2:]
    (row,) = table.to_dict("records")
    assert (row["metric"], row["better"], row["n"]) == ("wer", "lower", 16)
    assert row["difference"] == pytest.approx(-gain.mean())
    assert row["difference"] == pytest.approx(row["value"] - row["baseline"])
    assert row["p_value"] == pytest.approx(2 * 2**-8, abs=0.002)
    assert row["q_value"] == row["p_value"]
    assert row["ci_high"] < 0


def test_an_item_that_one_output_has_no_value_of_is_left_out() -> None:
    key = ("x", "true")
    (row,) = paired(
        {key: np.array([1.0, np.nan, 3.0])}, {key: np.array([2.0, 5.0, np.nan])}, np.arange(3).astype(str), Sampling()
    )[["n", "difference", "p_value"]].itertuples(index=False)
    assert (row.n, row.difference) == (1, 1.0)
    assert np.isnan(row.p_value)


def test_nothing_is_found_where_there_is_nothing() -> None:
    """Of 300 pairs of decoders that are equally good, about .05 are significant."""
    rng = np.random.default_rng(1)
    groups, sampling = np.arange(20).astype(str), Sampling(10, 400)
    found = []
    for _ in range(300):
        a, b = rng.normal(size=(2, 20))
        found.append(paired({("x", "true"): a}, {("x", "true"): b}, groups, sampling)["p_value"][0] <= 0.05)
    assert np.mean(found) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    assert np.mean(found) > 0.01


def test_participants_are_units() -> None:
    differences = [0.1, 0.3, 0.2, 0.4, 0.5, 0.3]
    rows = [
        (f"sub-{i}", "b", "bleu1", "true", "higher", 0.2, 0.2 + d, d, np.nan, np.nan, 99, 0.5, 0.5)
        for i, d in enumerate(differences)
    ]
    rows.append(("sub-0", "b", "facts", "true", "higher", 0.2, 0.3, 0.1, np.nan, np.nan, 99, 0.5, 0.5))
    table = over_participants(pd.DataFrame(rows, columns=list(COMPARE_COLUMNS)), Sampling(500, 20000))
    (row,) = table.to_dict("records")
    assert (row["participant"], row["metric"], row["n"]) == ("all", "bleu1", 6)
    assert row["difference"] == pytest.approx(0.3)
    assert row["p_value"] == pytest.approx(2 * 2**-6, abs=0.005)
    assert row["ci_low"] > 0


@pytest.mark.parametrize(
    ("metric", "better"), [("nll", "lower"), ("wer", "lower"), ("bleu1", "higher"), ("information_bits", "higher")]
)
def test_direction(metric: str, better: str) -> None:
    assert direction(metric) == better
