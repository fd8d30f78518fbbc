"""What every registered metric must do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from bids_brainlm.evaluation.metrics import Facts, Metric, get
from bids_brainlm.registry import metrics

REFERENCES = [
    ("a red bird sings on the roof", "a red bird sits on the big roof"),
    ("the man rides a grey horse along the beach",),
    ("two dogs play in the park",),
    ("a grey cat sleeps",),
    ("a red fish swims in the sea",),
]
STIMULI = np.array([f"s{i}" for i in range(5)])
FACTS = Facts(
    {
        "animal": {"s0": ("bird",), "s1": ("horse",), "s2": ("dogs", "dog"), "s3": ("cat",), "s4": ("fish",)},
        "colour": {"s0": ("red",), "s1": ("grey",), "s3": ("grey",), "s4": ("red",)},
    }
)
PERFECT = [texts[0] for texts in REFERENCES]
WRONG = ["nobody knows what was seen here"] * 5
MIXED = ["a red bird", "the man rides a red horse along the beach", "", "a dog and a cat", PERFECT[4]]
SHORT = {"meteor": 0.5 / 4**3}
"""METEOR takes one run of words in the right order for one too many: half the cube of its share among 4 words."""
AVERAGED = ("cider",)
"""Metrics for which all references count and not the best one: of two, no text equals both."""
each = pytest.mark.parametrize("metric", [get(name) for name in metrics.names()], ids=metrics.names())


Score = Callable[..., np.ndarray]


@pytest.fixture
def score(resources: Mapping[str, Any]) -> Score:
    def made(metric: Metric, texts: list[str], index: Any = slice(None)) -> np.ndarray:
        references = np.array([0, 1, 2, 3, 4])[index]
        return metric(texts, [REFERENCES[i] for i in references], stimuli=STIMULI[index], facts=FACTS, **resources)

    return made


@each
def test_a_number_a_text_within_the_range(metric: Metric, score: Score) -> None:
    for texts in (PERFECT, WRONG, MIXED, [""] * 5, ["word " * 200] * 5):
        values = score(metric, texts)
        assert values.shape == (5,)
        assert values.dtype == np.float64
        assert np.isfinite(values).all()
        assert (values >= metric.low - 1e-9).all()
        assert (values <= metric.high + 1e-9).all()


@each
def test_a_perfect_text_gets_the_best_there_is(metric: Metric, score: Score) -> None:
    sign = {"higher": 1, "lower": -1}[metric.direction]
    perfect, wrong, mixed = (sign * score(metric, texts) for texts in (PERFECT, WRONG, MIXED))
    best = metric.high if metric.direction == "higher" else metric.low
    if np.isfinite(best):
        several = int(metric.name in AVERAGED)
        np.testing.assert_allclose(perfect[several:], sign * best, atol=SHORT.get(metric.name, 1e-9))
    assert (perfect >= mixed - 1e-9).all()
    assert (perfect > wrong).all()
    assert mixed.mean() > wrong.mean()


@each
def test_texts_are_scored_each_for_itself_in_any_order(metric: Metric, score: Score) -> None:
    whole = score(metric, MIXED)
    order = np.array([3, 0, 4, 2, 1])
    np.testing.assert_allclose(score(metric, [MIXED[i] for i in order], order), whole[order])
    alone = [float(score(metric, [MIXED[i]], [i])[0]) for i in range(5)]
    np.testing.assert_allclose(alone, whole)


@each
def test_texts_of_others_score_worse(metric: Metric, score: Score) -> None:
    sign = 1 if metric.direction == "higher" else -1
    own = sign * score(metric, PERFECT).mean()
    for shift in range(1, 5):
        assert sign * score(metric, [PERFECT[(i + shift) % 5] for i in range(5)]).mean() < own


@each
def test_the_order_of_references_does_not_matter_and_more_do_no_harm(metric: Metric, resources: Mapping[str, Any]) -> None:
    sign = 1 if metric.direction == "higher" else -1
    text, pair = ["a red bird sits on a roof"], REFERENCES[0]
    context = {"stimuli": STIMULI[:1], "facts": FACTS, **resources}
    both, turned = metric(text, [pair], **context), metric(text, [pair[::-1]], **context)
    np.testing.assert_allclose(both, turned)
    alone = [sign * metric(text, [(one,)], **context)[0] for one in pair]
    assert sign * both[0] == pytest.approx(np.mean(alone)) if metric.name in AVERAGED else sign * both[0] >= max(alone) - 1e-9


@each
def test_what_it_is_stands_with_it(metric: Metric) -> None:
    assert metric.name
    assert metric.reference
    assert metric.direction in ("higher", "lower")
    assert metric.low < metric.high


@each
def test_lengths_must_agree(metric: Metric) -> None:
    with pytest.raises(ValueError, match="2 texts and 1 references"):
        metric(["a", "b"], [("a",)], stimuli=STIMULI[:2], facts=FACTS)
    with pytest.raises(ValueError, match="at least one each"):
        metric(["a"], [()], stimuli=STIMULI[:1], facts=FACTS)


def test_a_metric_says_what_context_it_lacks() -> None:
    with pytest.raises(ValueError, match="metric 'facts' needs stimuli and facts"):
        get("facts")(PERFECT, REFERENCES)
