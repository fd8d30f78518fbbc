"""CIDEr-D counted by hand."""

from __future__ import annotations

import math

import pytest

from bids_brainlm.evaluation.cider import Frequencies
from bids_brainlm.evaluation.metrics import get

REFERENCES = [("a red bird sings",), ("a dog runs home", "the dog runs home"), ("a red car stops",)]


def score(texts: list[str], references: list[tuple[str, ...]], of: list[tuple[str, ...]] = REFERENCES) -> list[float]:
    return [float(x) for x in get("cider")(texts, references, frequencies=Frequencies.of(of))]


def test_by_hand() -> None:
    """Of ``a red dog`` and ``a red bird sings``: a is everywhere, red and ``a red`` in two of three stimuli."""
    once, twice = math.log(3), math.log(3 / 2)
    unigrams = twice**2 / (math.hypot(twice, once) * math.hypot(twice, once, once))
    # "red dog" is in no reference, which counts as in one.
    pairs = twice**2 / (math.hypot(twice, once) * math.hypot(twice, once, once))
    expected = 10 * (unigrams + pairs + 0 + 0) / 4 * math.exp(-1 / 72)
    assert score(["a red dog"], REFERENCES[:1]) == pytest.approx([expected])


def test_words_that_are_repeated_gain_nothing() -> None:
    """Weights are clipped to the reference's: ``bird`` three times is as good as once, and the text the longer for it."""
    once = math.log(3)
    right = math.hypot(math.log(3 / 2), once, once)
    expected = 10 / 4 * once * once / (3 * once * right) * math.exp(-1 / 72)
    assert score(["bird bird bird"], REFERENCES[:1]) == pytest.approx([expected])


def test_the_same_text_gets_ten_and_all_references_count() -> None:
    assert score([right[0] for right in REFERENCES], REFERENCES)[0::2] == pytest.approx([10, 10])
    both = score(["a dog runs home"], REFERENCES[1:2])
    apart = [score(["a dog runs home"], [(one,)])[0] for one in REFERENCES[1]]
    assert apart[0] == pytest.approx(10)
    assert both == pytest.approx([sum(apart) / 2])
    assert 0 < apart[1] < 10


def test_neither_order_nor_repeats_of_stimuli_change_document_frequencies() -> None:
    texts, right = ["a red dog runs"], REFERENCES[:1]
    assert score(texts, right, REFERENCES[::-1]) == score(texts, right) == score(texts, right, REFERENCES + REFERENCES[:2])
    # What is in every stimulus tells nothing: of one stimulus, all is.
    assert score(["a red bird sings"], right, right) == [0]
    assert score(["", "?"], [right[0]] * 2) == [0, 0]
