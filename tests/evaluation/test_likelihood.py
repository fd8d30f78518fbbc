"""Likelihoods of texts under many brains, computed together, are those of each pair by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bids_brainlm.core.types import Examples
from bids_brainlm.evaluation.likelihood import nll_alone, nll_matrix
from bids_brainlm.language.render import render
from bids_brainlm.models.fusion import BrainLM, collate

Speaker = Callable[[str], tuple[BrainLM, Any]]


def pair(model: BrainLM, examples: Examples, item: Any, brain: int) -> float:
    return float(model.nll(collate([item], examples.gather([brain])))[0])


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "gemma3"])
@pytest.mark.parametrize("batch_size", [1, 5, 50])
def test_pairs_are_those_of_a_plain_loop(speaker: Speaker, examples: Examples, family: str, batch_size: int) -> None:
    model, text = speaker(family)
    rendered = [render(prompt, text, 3, "chat") for prompt in examples.prompts]
    # Brains that serve many texts, one, and none; nothing is computed for -1.
    brain = np.stack([np.arange(12), np.roll(np.arange(12), 5), np.full(12, 7), np.arange(12) // 4, np.full(12, -1)], axis=1)
    first = np.arange(12)[::-1]
    found = nll_matrix(model, examples, rendered, first, brain, batch_size)
    wanted = [[pair(model, examples, rendered[i], first[j]) for j in row[:4]] for i, row in enumerate(brain)]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[:, :4], wanted, rtol=1e-5, atol=1e-4)
    assert np.isnan(found[:, 4]).all()
    assert np.ptp(found[:, :4], axis=1).min() > 1e-3


def test_each_pair_is_computed_once(speaker: Speaker, examples: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = speaker("gpt2")
    rendered = [render(prompt, text, 3, "chat") for prompt in examples.prompts]
    scored: list[int] = []
    original = BrainLM.nll_of_pairs

    def spy(self: BrainLM, vertices: Any, texts: Any, pairs: Any, batch_size: int) -> Any:
        scored.append(len(pairs))
        return original(self, vertices, texts, pairs, batch_size)

    monkeypatch.setattr(BrainLM, "nll_of_pairs", spy)
    own = np.tile(np.arange(12)[:, None], (1, 6))
    nll_matrix(model, examples, rendered, np.arange(12), own, 4)
    assert scored == [4, 4, 4]


def test_texts_without_brain_are_those_of_a_plain_loop(speaker: Speaker, examples: Examples) -> None:
    model, text = speaker("llama")
    rendered = [render(prompt, text, 0, "chat") for prompt in examples.prompts]
    wanted = [float(model.nll(collate([item], None))[0]) for item in rendered]
    np.testing.assert_allclose(nll_alone(model, rendered, 5), wanted, rtol=1e-5, atol=1e-4)
