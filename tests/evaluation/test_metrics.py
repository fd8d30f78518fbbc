"""Metrics against brute force, independent libraries and cases counted by hand."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jiwer
import numpy as np
import pandas as pd
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm import registry
from bids_brainlm.evaluation.metrics import Facts, Metric, chosen, get, lcs_length

REFERENCES = [("a red bird sings on the roof", "a bird on a roof"), ("the man rides a horse",)]


def brute_lcs(a: list[str], b: list[str]) -> int:
    for size in range(len(a), 0, -1):
        for some in itertools.combinations(a, size):
            rest = iter(b)
            if all(item in rest for item in some):
                return size
    return 0


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=7), st.lists(st.sampled_from("abc"), max_size=7))
def test_lcs_against_brute_force(a: list[str], b: list[str]) -> None:
    assert lcs_length(a, b) == lcs_length(b, a) == brute_lcs(a, b)


def test_rouge_l_takes_the_best_reference() -> None:
    # second reference: LCS "a bird on a roof" of 5 words, text of 6
    assert get("rouge_l")(["a big bird on a roof"], REFERENCES[:1]) == pytest.approx([2 * 5 / 11])


def brute_bleu1(text: str, references: tuple[str, ...]) -> float:
    tokens = text.lower().split()
    most: Counter[str] = Counter()
    for one in references:
        most |= Counter(one.lower().split())
    clipped = sum((Counter(tokens) & most).values())
    closest = min((abs(len(r.split()) - len(tokens)), len(r.split())) for r in references)[1]
    penalty = 1.0 if len(tokens) >= closest else math.exp(1 - closest / len(tokens))
    return penalty * clipped / len(tokens)


@pytest.mark.parametrize("text", ["a red red bird", "A Bird on a roof", "the bird a a a a a a a a"])
def test_bleu1_is_clipped_precision_times_brevity(text: str) -> None:
    assert get("bleu1")([text], REFERENCES[:1]) == pytest.approx([brute_bleu1(text, REFERENCES[0])])


def test_bleu_of_a_copy_is_one_and_of_nothing_zero() -> None:
    for order in range(1, 5):
        metric = get(f"bleu{order}")
        np.testing.assert_allclose(metric([r[0] for r in REFERENCES], REFERENCES), 1.0)
        np.testing.assert_allclose(metric(["", "zebra quartz"], REFERENCES), 0.0)


def test_wer_against_jiwer_and_by_hand() -> None:
    texts = ["a red cat", "the man rides rides a big horse"]
    expected = [min(jiwer.wer(one, text) for one in right) for text, right in zip(texts, REFERENCES, strict=True)]
    assert get("wer")(texts, REFERENCES) == pytest.approx(expected)
    assert get("wer")(["", "x y"], [("a b",), ("?",)]) == pytest.approx([1.0, 2.0])


def test_rouge_1_by_hand() -> None:
    # "a red red bird" and "a bird on a roof" share one a and one bird
    assert get("rouge_1")(["a red red bird"], [("a bird on a roof",)]) == pytest.approx([2 * 2 / 9])
    assert get("rouge_1_recall")(["a a a bird"], [("a bird on a roof",)]) == pytest.approx([2 / 4])
    assert get("rouge_l_recall")(["bird and more on a"], [("a bird on a roof",)]) == pytest.approx([3 / 5])


def test_rouge_2_by_hand() -> None:
    # of three and four pairs of words, "a red" and "red bird" are in common
    assert get("rouge_2")(["a red bird sang"], [("a red bird sits down",)]) == pytest.approx([2 * 2 / 7])
    np.testing.assert_array_equal(get("rouge_2")(["bird", ""], [("bird",), ("a bird",)]), [0, 0])


def test_cer_counts_characters_of_the_nearest_reference() -> None:
    # a letter instead of another and two letters and a blank less, of 10 characters
    assert get("cer")(["a Bat sat!"], [("a cat sat up", "something else")]) == pytest.approx([4 / 12])
    assert get("cer")(["", "x y"], [("a b",), ("?",)]) == pytest.approx([1.0, 3.0])


def test_chrf_is_sacrebleus_for_the_best_reference_and_ignores_case() -> None:
    text, right = "A bird upon the roof", REFERENCES[0]
    apart = [sacrebleu.sentence_chrf(text.lower(), [one]).score / 100 for one in right]
    assert get("chrf")([text], [right]) == pytest.approx([max(apart)])
    # "ab" and "abc": of 6 orders 3 have n-grams in the reference; beta 2.
    shares = [(2 / 2, 2 / 3), (1 / 1, 1 / 2)]
    precision, recall = (np.mean([one[i] for one in shares]) for i in range(2))
    assert get("chrf")(["ab"], [("abc",)]) == pytest.approx([5 * precision * recall / (4 * precision + recall)], rel=1e-6)


def test_recalls_and_cut_texts_are_reported_beside_what_they_are_variants_of() -> None:
    assert [metric.name for metric in chosen(["wer", "rouge_1"])] == ["wer", "rouge_1"]
    assert [metric.name for metric in chosen(["wer", "rouge_1"], recall_rouge=True)] == ["wer", "rouge_1", "rouge_1_recall"]
    found = {metric.name: metric for metric in chosen(["wer", "bleu1", "facts"], truncated=True)}
    assert list(found) == ["wer", "bleu1", "facts", "wer_truncated", "bleu1_truncated"]
    text, right = ["the man rides a horse along the beach"], REFERENCES[1:]
    assert found["wer"](text, right) == pytest.approx([3 / 5])
    assert found["wer_truncated"](text, right) == pytest.approx([0.0])
    assert found["wer_truncated"](["the man"], right) == found["wer"](["the man"], right)


def test_exact_ignores_case_and_punctuation() -> None:
    np.testing.assert_array_equal(get("exact")(["A bird, on a roof.", "a man"], REFERENCES), [1, 0])


@pytest.fixture
def facts() -> Facts:
    table = pd.DataFrame(
        {
            "stimulus_id": ["s1", "s2", "s3"],
            "split": ["train", "test", "test"],
            "animal": ["dog|puppy", "cat", "polar bear"],
            "place": ["roof", "n/a", "garden"],
        }
    )
    return Facts.from_frame(table, "stimulus_id")


def test_facts_read_whole_words_and_refuse_two_values(facts: Facts) -> None:
    texts = ["The puppy is on a roof.", "a catalogue", "a dog and a cat in the garden", "polar bear"]
    assert facts.read(texts).tolist() == [["dog", "roof"], ["", ""], ["", "garden"], ["polar bear", ""]]
    assert facts.labels(["s2", "s1", "unknown"]).tolist() == [["cat", ""], ["dog", "roof"], ["", ""]]


def test_facts_metric_is_the_share_of_known_facts(facts: Facts) -> None:
    texts = ["a dog in a garden", "a cat", "nothing", "a dog"]
    score = get("facts")(texts, [("x",)] * 4, stimuli=["s1", "s2", "s3", "unknown"], facts=facts)
    np.testing.assert_array_equal(score, [0.5, 1.0, 0.0, np.nan])


def test_facts_refuse_a_word_for_two_values_and_a_stimulus_twice() -> None:
    with pytest.raises(ValueError, match="'person'"):
        Facts({"who": {"1": ("man", "person"), "2": ("woman", "person")}})
    with pytest.raises(ValueError, match="two rows"):
        Facts.from_frame(pd.DataFrame({"k": ["a", "a"], "f": ["x", "y"]}), "k")
    with pytest.raises(ValueError, match="colour"):
        Facts.from_frame(pd.DataFrame({"k": ["a"]}), "k", ["colour"])


@pytest.mark.parametrize("name", registry.metrics.names())
def test_every_metric_is_within_its_range_and_does_not_see_its_neighbours(
    name: str, facts: Facts, resources: Mapping[str, Any]
) -> None:
    metric = get(name)
    texts, right = ["a dog on a roof", "", "The cat?"], [("a dog",), ("a cat", "cats"), ("a bear",)]
    context = {"stimuli": np.array(["s1", "s2", "s3"]), "facts": facts, **resources}
    scores = metric(texts, right, **context)
    assert ((scores >= metric.low) & (scores <= metric.high)).all()
    alone = [metric([t], [r], **{**context, "stimuli": [s]})[0] for t, r, s in zip(texts, right, context["stimuli"], strict=True)]
    np.testing.assert_allclose(scores, alone)
    assert metric.direction in ("higher", "lower")
    assert metric.reference


def test_metrics_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="1 texts and 2 references"):
        get("wer")(["a"], REFERENCES)
    with pytest.raises(ValueError, match="needs stimuli and facts"):
        get("facts")(["a"], REFERENCES[:1])
    with pytest.raises(ValueError, match="shape"):
        Metric("broken", lambda texts, right: [1.0])(["a", "b"], REFERENCES)


def test_a_plain_function_is_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    def length(hypotheses: list[str], references: list[tuple[str, ...]]) -> np.ndarray:
        """Words a text."""
        return np.array([float(len(text.split())) for text in hypotheses])

    monkeypatch.setitem(registry.metrics._objects, "length", length)
    metric = get("length")
    assert metric.reference == "Words a text."
    np.testing.assert_array_equal(metric(["a b", ""], REFERENCES, stimuli=["s"], facts=None), [2, 0])
