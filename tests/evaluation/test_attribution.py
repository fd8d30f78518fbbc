"""Contributions add up where they must, are derivatives where they do not, and attention is that of the slots."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bids_brainlm.core.types import Affine, Examples
from bids_brainlm.evaluation.attribution import attention_to_brain, contributions
from bids_brainlm.language.render import Rendered, render
from bids_brainlm.models.fusion import Batch, BrainLM, Features, collate
from bids_brainlm.models.tokenizers import Marked
from bids_brainlm.registry import tokenizers

Speaker = Callable[[str], tuple[BrainLM, Any]]
LABELS = np.array([1, 1, 2, 0, 3, 3, 3, 2, 1], np.int32)
ALL = np.arange(12)


class Readout(BrainLM):
    """One token to be predicted, whose NLL is linear in the brain tokens: softplus(60 - x) is 60 - x to rounding."""

    def __init__(self, affine: Affine) -> None:
        torch.manual_seed(1)
        tokenizer = tokenizers.get("parcelwise")(n_rows=1, labels=LABELS, width=4, basis=None, kind="linear")
        super().__init__(nn.Embedding(5, 4), Features(affine), tokenizer)
        self.weight = torch.randn(3, 4)
        self.get_input_embeddings = lambda: self.llm

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        assert batch.vertices is not None
        x = (self.brain_tokens(batch.vertices) * self.weight).sum((1, 2))
        row = torch.arange(len(x))
        return torch.stack([x, torch.full_like(x, 60.0)], 1), torch.zeros_like(row), row


def some(n_slots: int = 3) -> list[Rendered]:
    ids = np.arange(n_slots + 2)
    return [Rendered(ids % 5, ids == n_slots + 1, (ids > 0) & (ids <= n_slots)) for _ in ALL]


def test_contributions_add_up_to_what_the_brain_is_worth_where_all_is_linear(examples: Examples) -> None:
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.5, 2, 9).astype(np.float32)
    scale[6] = 0  # a vertex that is masked
    affine = Affine(rng.standard_normal(9).astype(np.float32), scale, None, np.arange(2))
    model = Readout(affine)
    data = np.array(examples.recording.data)
    data[:, 6] = np.nan
    seen = dataclasses.replace(examples, recording=dataclasses.replace(examples.recording, data=data))
    found = contributions(model, seen, some(), ALL, 5)
    nll, mean = (
        model.nll(Batch(*(torch.zeros(12, 1),) * 4, torch.from_numpy(vertices)))
        for vertices in (seen.gather(ALL), np.broadcast_to(affine.mean, (12, 1, 9)).copy())
    )
    assert found.signed.sum() == pytest.approx(float((mean - nll).sum()), rel=1e-4)
    maps = (found + found).maps()
    np.testing.assert_allclose(maps["contribution"], np.where(scale > 0, found.signed / 12, np.nan), rtol=1e-6)
    assert maps["contribution"][3] == 0  # in no parcel
    assert np.isnan(maps["saliency"][6])
    assert (found.absolute[scale > 0] >= np.abs(found.signed[scale > 0]) - 1e-9).all()


@pytest.mark.parametrize("family", ["gpt2", "gemma3"])
def test_contributions_are_derivatives_of_the_likelihood(speaker: Speaker, examples: Examples, family: str) -> None:
    model, text = speaker(family)
    rendered = [render(prompt, text, 3, "chat") for prompt in examples.prompts]
    chosen = np.array([2, 7, 9])
    found = contributions(model, examples, rendered, chosen, 2)
    vertices, step = examples.gather(chosen), 2e-2
    wanted = np.zeros(9)
    for v in range(9):
        moved = [vertices + sign * step * (np.arange(9) == v).astype(np.float32) for sign in (1, -1)]
        up, down = (model.nll(collate([rendered[i] for i in chosen], x)).double().numpy() for x in moved)
        wanted[v] = (-(up - down) / (2 * step) * vertices[:, 0, v]).sum()
    np.testing.assert_allclose(found.signed, wanted, rtol=2e-2, atol=5e-3 * np.abs(wanted).max())
    assert found.signed[3] == 0


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "gemma3"])
def test_attention_is_the_plain_mean_over_layers_heads_and_predictors(speaker: Speaker, examples: Examples, family: str) -> None:
    model, text = speaker(family)
    assert model.tokenizer is not None
    model.tokenizer = Marked(model.tokenizer, torch.zeros(32))
    rendered = [render(prompt, text, 5, "chat") for prompt in examples.prompts]
    before = model.llm.config._attn_implementation
    found = attention_to_brain(model, examples, rendered, ALL, 5)
    assert model.llm.config._attn_implementation == before
    model.llm.set_attn_implementation("eager")
    rows = []
    for i, item in enumerate(rendered):
        with torch.no_grad():
            batch = collate([item], examples.gather([i]))
            layers = model.llm(inputs_embeds=model.embed(batch), output_attentions=True).attentions
        weights = torch.stack(layers)[:, 0].mean((0, 1)).numpy()
        rows.append(weights[np.flatnonzero(item.train) - 1].mean(0)[item.slot])
    assert found is not None
    np.testing.assert_allclose(found, np.mean(rows, axis=0), rtol=1e-4)
    assert 0 < found.sum() < 1
