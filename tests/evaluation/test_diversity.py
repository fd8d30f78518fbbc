"""Figures of sets of texts counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.core.types import DECODED_COLUMNS
from bids_brainlm.evaluation.diversity import FIGURES, Told, diversity_rows, figures
from bids_brainlm.evaluation.table import METRICS_COLUMNS, Predictions

SAME = ("a", "dog")


def test_by_hand() -> None:
    told = [
        Told(("a", "red", "dog"), (("a", "dog", "runs", "far"), ("a",)), {SAME}),
        Told(SAME, (("x",),), {SAME}),
        Told(SAME, (("x", "y", "z"),), {("a",)}),
        Told((), (("x", "y"),), {()}),
    ]
    found = figures(told)
    assert list(found) == list(FIGURES)
    # Words: a red dog, a dog, a dog. Pairs: a red, red dog, a dog twice. Of 4 and 1 words, 4 is nearer to 3.
    assert found == pytest.approx(
        {"distinct_1": 3 / 7, "distinct_2": 3 / 4, "distinct_texts": 3 / 4, "length_ratio": 7 / 10, "copied": 1 / 4}
    )


def test_one_text_always_and_none_at_all() -> None:
    assert figures([Told(SAME, (SAME,), ())] * 50)["distinct_texts"] == pytest.approx(1 / 50)
    empty = figures([Told((), ((),), ())] * 2)
    assert empty["distinct_texts"] == 0.5
    assert np.isnan([empty[name] for name in ("distinct_1", "distinct_2", "length_ratio")]).all()


def test_a_row_a_figure_and_condition_and_each_fold_has_its_own_training_texts() -> None:
    rows = [
        {"fold": fold, "trial_id": f"t{fold}", "condition": condition, "text_pred": text, "text_true": "a cat | the cat"}
        for condition, texts in {"true": ("A dog!", "a cat"), "permuted": ("", "a dog")}.items()
        for fold, text in enumerate(texts)
    ]
    frame = pd.DataFrame(rows).reindex(columns=list(DECODED_COLUMNS)).astype(object).fillna("").assign(nll=1.0, n_tokens=2)
    found = diversity_rows(Predictions(frame), {0: ["a dog", "x"], 1: ["a cat."]})
    assert list(found) == list(METRICS_COLUMNS)
    assert len(found) == 2 * len(FIGURES)
    value = found.set_index(["metric", "condition"])["value"]
    assert value["copied"].to_dict() == {"true": 1.0, "permuted": 0.0}
    assert value["length_ratio"].to_dict() == {"true": 1.0, "permuted": 0.5}
    assert found[["ci_low", "p_value", "q_value"]].isna().all(axis=None)
