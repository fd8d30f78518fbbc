"""Baselines say what they must where the answer is known, and are compared with the decoder text by text."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.core.types import DECODED_COLUMNS
from bids_brainlm.evaluation.baselines import baseline_rows, nearest_response, nearest_text
from bids_brainlm.evaluation.metrics import Facts, get
from bids_brainlm.evaluation.readout import kernels
from bids_brainlm.evaluation.table import METRICS_COLUMNS, Predictions, Sampling


def planted(noise: float, n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, V) responses, linear in (n, D) embeddings, and the category of each of them, of 4."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 4
    embedded = rng.standard_normal((4, 6))[kind]
    return embedded @ rng.standard_normal((6, 30)) + noise * rng.standard_normal((n, 30)), embedded, kind


@pytest.mark.parametrize(("noise", "low", "high"), [(0.1, 1, 1), (1e6, 0.05, 0.55)])
def test_texts_are_found_where_there_is_signal_and_only_there(noise: float, low: float, high: float) -> None:
    responses, embedded, kind = planted(noise)
    train, test = slice(0, 80), slice(80, None)
    products = kernels([(responses[train], responses[test])])
    texts = [f"text {k}" for k in kind]
    candidates, first = np.unique(texts, return_index=True)
    right = np.array(texts[test])
    said = nearest_text(products, embedded[train], np.arange(80), list(candidates), embedded[first])
    assert low <= np.mean(np.array(said) == right) <= high
    assert low <= np.mean(np.array(nearest_response(products, texts[train])) == right) <= high


def test_the_nearest_response_is_that_of_the_largest_cosine() -> None:
    rng = np.random.default_rng(1)
    train, test = 3 * rng.standard_normal((20, 7)), rng.standard_normal((9, 7))
    train[3] *= 50  # a response of large amplitude is not like everything
    z_train, z_test = ((x - train.mean(axis=0)) / train.std(axis=0) for x in (train, test))
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z_train, z_test)]
    expected = (unit[1] @ unit[0].T).argmax(axis=1)
    assert nearest_response(kernels([(train, test)]), [str(i) for i in range(20)]) == [str(i) for i in expected]


def test_a_candidate_need_not_be_a_training_text() -> None:
    responses, embedded, kind = planted(0.1)
    train, test = kind != 3, kind == 3
    products = kernels([(responses[train], responses[test])])
    candidates = ["0", "1", "2", "3"]
    said = nearest_text(products, embedded[train], np.arange(90), candidates, embedded[:4])
    assert set(said) <= set(candidates)
    far = nearest_text(products, embedded[train], np.arange(90), ["only"], embedded[:1])
    assert set(far) == {"only"}


def test_rows_of_baselines_and_paired_comparisons() -> None:
    """The decoder is right in all of 8 groups, the baseline in none: one flip in 2^8 is as good."""
    rows = [(f"t{i}", "dog", 0, f"g{i}", "true", "", "a dog", "a dog", 5.0, 3) for i in range(8)]
    names = ["trial_id", "stimulus_id", "fold", "group", "condition", "prompt", "text_true", "text_pred", "nll", "n_tokens"]
    true = Predictions(pd.DataFrame(rows, columns=names)[list(DECODED_COLUMNS)])
    facts = Facts({"animal": {"dog": ("dog",), "cat": ("cat",)}})
    said = {"nearest_text": ["a cat"] * 8, "nearest_response": ["a dog"] * 8}
    metrics = [get(name) for name in ("wer", "facts", "bertscore")]
    table = baseline_rows(true, said, metrics, {}, facts, Sampling(200, 20000))
    assert list(table.columns) == list(METRICS_COLUMNS)
    value = table.set_index(["metric", "condition"])
    assert value["value"].to_dict() == {
        ("wer", "nearest_text"): 0.5,
        ("wer", "true_minus_nearest_text"): -0.5,
        ("wer", "nearest_response"): 0,
        ("wer", "true_minus_nearest_response"): 0,
        ("facts", "nearest_text"): 0,
        ("facts", "true_minus_nearest_text"): 1,
        ("facts", "nearest_response"): 1,
        ("facts", "true_minus_nearest_response"): 0,
    }
    for metric in ("wer", "facts"):
        assert value.loc[(metric, "true_minus_nearest_text"), "p_value"] == pytest.approx(2**-8, abs=0.002)
        assert value.loc[(metric, "true_minus_nearest_response"), "p_value"] == 1
    assert value.loc[("facts", "nearest_text"), "p_value"] != value.loc[("facts", "nearest_text"), "p_value"]  # none
    assert "facts" not in set(baseline_rows(true, said, metrics, {}, None, Sampling(200, 200))["metric"])
