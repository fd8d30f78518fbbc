"""Bits come out as planted; an over-confident decoder has large specificity, and information only once it is calibrated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from bids_brainlm.core.surrogates import constant
from bids_brainlm.core.types import Examples
from bids_brainlm.evaluation.information import RANGE, bits, fit_temperature, nll_at
from bids_brainlm.language.render import render
from bids_brainlm.models.fusion import BrainLM, collate

Speaker = Callable[[str], tuple[BrainLM, Any]]
Array = np.ndarray[Any, Any]


def nll_of(logits: Array, words: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(words)), words])


def decoded(confidence: float, n: int = 4000, seed: int = 0) -> dict[str, Any]:
    """Texts of one of 16 words that a noisy brain tells of; a decoder that knows how much, but is ``confidence`` times as sure.

    With e ~ N(0, 1) in every word's channel and 1.5 in the right one, 1.5 times the channels is the log posterior.
    """
    rng = np.random.default_rng(seed)
    words = rng.integers(16, size=n)
    brain = rng.standard_normal((n, 16))
    brain[np.arange(n), words] += 1.5
    logits = 1.5 * brain * confidence
    half = n // 2
    temperature = fit_temperature(lambda tried: np.array([nll_of(logits[:half] / t, words[:half]).sum() for t in tried]))
    test, said = logits[half:], words[half:]
    text_only = np.full(half, np.log(16))
    return {
        "temperature": temperature,
        "specificity": (nll_of(np.roll(test, 1, axis=0), said) - nll_of(test, said)).mean(),
        "raw": bits(text_only, nll_of(test, said)).mean(),
        "information": bits(text_only, nll_of(test / temperature, said)).mean(),
    }


def test_an_over_confident_decoder_is_specific_and_calibration_gives_its_information_back() -> None:
    sober, drunk = decoded(1.0), decoded(4.0)
    assert sober["temperature"] == pytest.approx(1.0, rel=0.1)
    assert drunk["temperature"] == pytest.approx(4.0, rel=0.1)
    assert drunk["specificity"] > 3.5 * sober["specificity"] > 3
    assert drunk["raw"] < -1 < 0 < sober["raw"]
    assert drunk["information"] == pytest.approx(sober["information"], abs=0.01)
    assert 0.5 < sober["information"] < np.log2(16)


def test_the_temperature_is_the_best_of_all_within_a_percent() -> None:
    for wanted in (0.3, 1.0, 2.2):
        assert fit_temperature(lambda tried, w=wanted: tried / w - np.log(tried)) == pytest.approx(wanted, rel=0.012)
    assert fit_temperature(lambda tried: tried) == pytest.approx(RANGE[0])
    assert fit_temperature(lambda tried: -tried) == pytest.approx(RANGE[1])


def test_temperatures_divide_logits(speaker: Speaker, examples: Examples) -> None:
    model, text = speaker("llama")
    rendered = [render(prompt, text, 3, "chat") for prompt in examples.prompts]
    found = nll_at(model, examples, rendered, np.array([0.5, 1.0, 2.0]), 5)
    assert found.shape == (12, 3)
    for i, item in enumerate(rendered):
        batch = collate([item], examples.gather([i]))
        assert found[i, 1] == pytest.approx(float(model.nll(batch)[0]), abs=1e-4)
        logits, targets, _ = model(batch)
        wanted = torch.nn.functional.cross_entropy(logits / 2, targets, reduction="sum")
        assert found[i, 2] == pytest.approx(float(wanted.detach()), abs=1e-4)


def test_a_constant_response_is_the_same_for_all_and_takes_no_memory(examples: Examples) -> None:
    mean = examples.gather(np.arange(12)).mean(axis=(0, 1))
    plain = constant(examples, mean)
    np.testing.assert_array_equal(plain.gather(np.arange(12))[:, 0], np.tile(mean, (12, 1)))
    assert plain.recording.data.strides[0] == 0
    assert plain.prompts == examples.prompts
    assert (plain.id == examples.id).all()
