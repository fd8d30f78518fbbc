"""Hints: calibrated, spread as contents are, decided by seed and place, and said in the language model's own embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bids_brainlm.language.render import Rendered
from bids_brainlm.models.fusion import BrainLM, collate
from bids_brainlm.simulation.hints import Hints, Pupil, Spoken

RNG = np.random.default_rng(3)
TEXTS = [[9, *RNG.choice(np.arange(10, 22), RNG.integers(2, 7)).tolist(), 2] for _ in range(400)]


def small() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=30, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )


def test_contents_are_shares_of_tokens_that_are_not_everywhere() -> None:
    hints = Hints([[5, 7, 2], [6, 7, 7, 2], [2]], 0.5, 0)
    assert hints.tokens.tolist() == [2, 5, 6, 7]
    rare, common = np.log(4 / 2), np.log(4 / 3)
    np.testing.assert_allclose(hints.content(0), [0, rare / (rare + common), 0, common / (rare + common)], rtol=1e-6)
    np.testing.assert_allclose(hints.content(1), [0, 0, rare / (rare + 2 * common), 2 * common / (rare + 2 * common)], rtol=1e-6)
    assert hints.content(2).sum() == 0


@pytest.mark.parametrize("explained", [1.0, 0.3])
def test_hints_are_calibrated(explained: float) -> None:
    hints = Hints(TEXTS, explained, 1)
    contents = np.stack([hints.content(i) for i in range(400)])
    said = hints(np.arange(400))[:, 0]
    centre = contents.mean(axis=0)
    product = ((contents - centre) * (said - centre)).sum()
    # The regression of content on hint has slope 1, and explains a third of what the surest hint does (mean of u^2).
    assert product / ((said - centre) ** 2).sum() == pytest.approx(1, abs=0.08)
    assert product / ((contents - centre) ** 2).sum() == pytest.approx(explained / 3, abs=0.05)


def test_errors_are_spread_as_contents_are() -> None:
    hints = Hints(TEXTS, 1.0, 2)
    contents = np.stack([hints.content(i) for i in range(400)])
    draws = hints(np.arange(400))[:, 0] - contents.mean(axis=0)
    # E[r2^2 + r2 (1 - r2)] = E[r2] = 1/3 of the covariance of contents.
    np.testing.assert_allclose(draws.T @ draws / 400, np.cov(contents.T, bias=True) / 3, atol=0.004)


def test_a_hint_follows_from_seed_and_place() -> None:
    one, two, three = Hints(TEXTS, 0.5, 1), Hints(TEXTS, 0.5, 1), Hints(TEXTS, 0.5, 2)
    np.testing.assert_array_equal(one(np.array([5, 3])), two(np.array([3, 5]))[::-1])
    assert np.abs(one(np.array([5])) - three(np.array([5]))).max() > 0.01


def test_hints_are_said_in_embeddings_as_they_are_at_the_moment() -> None:
    llm = small()
    spoken = Spoken(llm, np.array([4, 9]), 3)
    assert not list(spoken.parameters())
    assert not spoken.state_dict()
    table = llm.get_input_embeddings().weight
    out = spoken(torch.tensor([[[0.25, 0.75]], [[1.0, 0.0]]]))
    assert out.shape == (2, 3, 8)
    torch.testing.assert_close(out[0, 2], 0.25 * table[4] + 0.75 * table[9])
    out.sum().backward()
    assert table.grad is not None
    assert set(table.grad.abs().sum(1).nonzero()[:, 0].tolist()) == {4, 9}
    with torch.no_grad():
        table += 1
    torch.testing.assert_close(spoken(torch.tensor([[[1.0, 0.0]]]))[0, 0], table[4])


def test_prompts_with_and_without_a_hint_are_what_they_are_alone() -> None:
    llm, place = small(), np.arange(7)
    told = Rendered(np.array([1, 0, 0, 5, 6, 7, 2]), place > 3, (place > 0) & (place < 3))
    bare = Rendered(np.array([1, 8, 9, 2]), np.arange(4) > 1, np.zeros(4, dtype=np.bool_))
    spoken, hints = Spoken(llm, np.array([4, 9]), 2), np.array([[[0.3, 0.7]], [[0.9, 0.1]]], dtype=np.float32)
    both = Pupil(llm, torch.nn.Identity(), spoken).nll(collate([told, bare], hints))
    whole = BrainLM(llm, torch.nn.Identity(), spoken)
    torch.testing.assert_close(both[:1], whole.nll(collate([told], hints[:1])))
    torch.testing.assert_close(both[1:], whole.nll(collate([bare], None)))
