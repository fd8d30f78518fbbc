"""Story decoders on planted words: a trained brain tokenizer, and what decoders are given."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from bids_brainlm.core.types import Prompt
from bids_brainlm.evaluation.story.decoders import Material, generate, window_tokens
from bids_brainlm.evaluation.story.search import Search, sample
from bids_brainlm.evaluation.story.tellings import responses, stretches
from bids_brainlm.language.render import render
from bids_brainlm.models.fusion import collate

World = Any
SETTINGS = Search(context=5)


def material_of(world: World) -> Material:
    return Material(world.reader, world.recording, world.tellings, world.held(), SETTINGS, 2.0)


def train(world: World, steps: int) -> None:
    """Teach model and brain tokenizer to say the words of each training window: one this small cannot be steered as it is."""
    model, text = world.reader.model, world.reader.tokenizer
    model.llm = copy.deepcopy(model.llm).requires_grad_(True)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    found = [
        (t.rows[k], Prompt(" ".join(" ".join(t.texts[:k]).split()[-5:]), t.texts[k]))
        for t in world.tellings[:-1]
        for k in range(len(t.texts))
        if t.texts[k]
    ]
    rows = np.array([own for own, _ in found])
    rendered = [render(prompt, text, 2, "continuation") for _, prompt in found]
    vertices = responses(world.recording, rows)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    rng = np.random.default_rng(0)
    model.train()
    for _ in range(steps):
        some = rng.integers(len(found), size=32)
        logits, targets, _ = model(collate([rendered[i] for i in some], vertices[some]))
        loss = torch.nn.functional.cross_entropy(logits, targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()


def right(found: list[int], world: World) -> float:
    true = [token for own in world.tokens[-1] for token in own][: len(found)]
    return float(np.mean([a == b for a, b in zip(found, true, strict=True)]))


@pytest.mark.slow
def test_a_trained_decoder_tells_a_story_it_has_not_seen(make_world: Callable[..., World]) -> None:
    world = make_world(noise=0.3, n_stories=30)
    train(world, 900)
    (stretch,) = stretches(world.tellings[-1])
    counts = [len(own) for own in world.tokens[-1][: stretch.last]]
    found = right(generate(material_of(world))(stretch, counts), world)
    null = [right(tokens, world) for tokens in sample(world.reader, counts, SETTINGS, 20, seed=0)]
    assert found > 2 * max(null)


def test_tokens_per_word_are_those_of_training_texts(make_world: Callable[..., World]) -> None:
    world = make_world(n_windows=20)
    assert material_of(world).tokens_per_word == 1.0


def test_window_tokens_are_the_words_of_the_window(make_world: Callable[..., World]) -> None:
    world = make_world(n_windows=20)
    for telling, tokens in zip(world.tellings, world.tokens, strict=True):
        assert window_tokens(telling.texts, world.reader.tokenizer) == tokens
        assert [world.reader.tokenizer.decode(own) for own in tokens] == list(telling.texts)
