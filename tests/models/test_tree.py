"""Texts in one tree have the likelihoods that they have alone, in every family of language models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bids_brainlm.core.types import Affine, Prompt
from bids_brainlm.language.render import Rendered, render
from bids_brainlm.models.backbones import load_llm
from bids_brainlm.models.fusion import BrainLM, Features, collate
from bids_brainlm.models.tree import nll_of_tree, tree_of

K, WIDTH = 4, 32
QUESTION = "What is it?"
PROMPTS = [
    Prompt(QUESTION, "A red bird sits on a fence."),
    Prompt(QUESTION, "A red bird"),
    Prompt(QUESTION, "Two dogs."),
    Prompt("", "A red bird"),
    Prompt(QUESTION, "A red bird sits on a fence."),
]


class Given(torch.nn.Module):
    """Responses that are brain tokens already."""

    n_tokens = K

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def test_every_text_is_as_likely_as_alone(llm_folder: Path) -> None:
    llm = load_llm(str(llm_folder))
    identity = Affine(np.zeros(WIDTH, np.float32), np.ones(WIDTH, np.float32), None, np.arange(2))
    model = BrainLM(llm.model, Features(identity), Given()).eval()
    brains = torch.randn(3, K, WIDTH, generator=torch.Generator().manual_seed(0))
    texts = [render(prompt, llm.tokenizer, K, "chat") for prompt in PROMPTS]
    found = nll_of_tree(model, brains, tree_of(texts))
    wanted = torch.stack([model.nll(collate([text] * 3, brains.numpy())) for text in texts], dim=1)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)
    assert float(wanted.std(0).min()) > 1e-3


def test_what_texts_share_is_there_once() -> None:
    def text(*ids: int) -> Rendered:
        place = np.arange(len(ids))
        return Rendered(np.array(ids), place > 2, (place == 1) | (place == 2))

    tree = tree_of([text(1, 0, 0, 5, 6, 2), text(1, 0, 0, 5, 7, 2), text(1, 0, 0, 5, 6, 2), text(1, 0, 0, 5)])
    # Trunk 1 0 0, then 5, 6 and 7: the ends predict nothing.
    assert tree.ids.tolist() == [1, 0, 0, 5, 6, 7]
    assert tree.depth.tolist() == [0, 1, 2, 3, 4, 4]
    assert tree.slot.tolist() == [False, True, True, False, False, False]
    assert np.flatnonzero(tree.sees[5]).tolist() == [0, 1, 2, 3, 5]
    edges = dict(zip(zip(tree.predictor.tolist(), tree.target.tolist(), strict=True), tree.member.tolist(), strict=True))
    assert edges == {
        (2, 5): [True, True, True, True],
        (3, 6): [True, False, True, False],
        (4, 2): [True, False, True, False],
        (3, 7): [False, True, False, False],
        (5, 2): [False, True, False, False],
    }


def test_prompts_that_cannot_share_a_brain_are_refused(make_llm: Callable[..., Path]) -> None:
    one = Rendered(np.array([1, 0, 5]), [0, 0, 1], [0, 1, 0])
    with pytest.raises(ValueError, match="differ before their last brain slot"):
        tree_of([one, Rendered(np.array([2, 0, 5]), [0, 0, 1], [0, 1, 0])])
    with pytest.raises(ValueError, match="without brain slots"):
        tree_of([one, Rendered(np.array([1, 5]), [0, 1], [0, 0])])
    with pytest.raises(ValueError, match="no text to score"):
        tree_of([one, Rendered(np.array([1, 0]), [0, 0], [0, 1])])
    llm = load_llm(str(make_llm("gemma3")))
    llm.model.config.sliding_window = 3
    model = BrainLM(llm.model, None, None)
    with pytest.raises(ValueError, match="attends to 3"):
        nll_of_tree(
            model, torch.zeros(1, 2, WIDTH), tree_of([Rendered(np.array([1, 0, 0, 5, 6]), [0, 0, 0, 1, 1], [0, 1, 1, 0, 0])])
        )
