"""Objectives: (model, batch) -> loss, a scalar tensor; registered, named by ``phases.N.objective``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bids_brainlm.models.fusion import Batch, BrainLM
from bids_brainlm.registry import objectives


@objectives.register("cross_entropy")
def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Mean negative log-likelihood per trained token of the batch, in nats (Bosch et al. 2025; Ye et al. 2025)."""
    logits, targets, _ = model(batch)
    return nn.functional.cross_entropy(logits, targets)


@objectives.register("answer_mean_mse")
def answer_mean_mse(model: nn.Module, batch: Batch) -> Tensor:
    """Mean squared distance of every brain token from the mean embedding of the answer's tokens, in units of its mean square.

    A warm-up that costs no pass through the language model: tokens of parcels that tell something about the text learn to point
    towards it, the others to stay at the mean. After the warm-up of Ye et al. 2025, who take the text before the answer instead
    (`context_mean_mse`).

    Raises
    ------
    ValueError
        When the batch has no responses.
    """
    inner, vertices = _with_brains(model, batch, "answer_mean_mse")
    with torch.no_grad():
        target = inner.mean_embedding(batch.ids, batch.train)
    return _distance(inner.bare_tokens(vertices), target, batch.train.any(1))


@objectives.register("answer_rare_mse")
def answer_rare_mse(model: nn.Module, batch: Batch) -> Tensor:
    """`answer_mean_mse` towards the mean weighed by how rare tokens are in training texts, so that "the" does not count.

    A response tells of what is talked about; half of the words of a sentence are those of every other one.

    Raises
    ------
    ValueError
        When the batch has no responses, or the model does not know how rare tokens are.
    """
    inner, vertices = _with_brains(model, batch, "answer_rare_mse")
    if inner.rarity is None:
        raise ValueError("answer_rare_mse needs to know how rare tokens are in training texts (BrainLM.rarity)")
    weights = batch.train * inner.rarity[batch.ids]
    with torch.no_grad():
        target = inner.mean_embedding(batch.ids, weights)
    return _distance(inner.bare_tokens(vertices), target, weights.any(1))


@objectives.register("context_mean_mse")
def context_mean_mse(model: nn.Module, batch: Batch) -> Tensor:
    """Mean squared distance of every brain token from the mean embedding of the tokens before the answer, relative to its square.

    The warm-up of Ye et al. 2025, after which brain tokens lie where the language model expects text. Examples without any text
    between brain and answer count nothing. Markers are no part of it.

    Raises
    ------
    ValueError
        When the batch has no responses.
    """
    inner, vertices = _with_brains(model, batch, "context_mean_mse")
    context = batch.context
    with torch.no_grad():
        target = inner.mean_embedding(batch.ids, context)
    return _distance(inner.bare_tokens(vertices), target, context.any(1))


@objectives.register("context_mean_mse_padded")
def context_mean_mse_padded(model: nn.Module, batch: Batch) -> Tensor:
    """`context_mean_mse` as in the released code of Ye et al., over `PADDED` tokens whatever the context.

    They are the first of the context and, where it has fewer, the end token: the shorter a context, the nearer its target to
    that token.

    Raises
    ------
    ValueError
        When the batch has no responses, or the language model no end token.
    """
    inner, vertices = _with_brains(model, batch, "context_mean_mse_padded")
    context = batch.context & (batch.context.cumsum(1) <= PADDED)
    number = context.sum(1, keepdim=True)
    with torch.no_grad():
        end = torch.full_like(batch.ids[:, :1], _end_token(inner.llm))
        filler = inner.mean_embedding(end, torch.ones_like(end).bool())
        target = (number * inner.mean_embedding(batch.ids, context) + (PADDED - number) * filler) / PADDED
    return _distance(inner.bare_tokens(vertices), target, context.any(1))


PADDED = 32
"""Tokens to which the released code of Ye et al. cuts and fills every context."""


def _with_brains(model: nn.Module, batch: Batch, name: str) -> tuple[BrainLM, Tensor]:
    inner = getattr(model, "module", model)
    if not isinstance(inner, BrainLM) or batch.vertices is None:
        raise ValueError(f"{name} needs brain tokens, but the prompts have none")
    return inner, batch.vertices


def _distance(tokens: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Mean squared distance of (B, K, D) tokens from (B, D) targets over the examples that count, relative to the targets."""
    weight = counts.float() / counts.sum().clamp(min=1)
    # Not the spread of the targets: a last batch of one example, or of one text, has none.
    size = (weight * target.square().sum(1)).sum()
    distance = (weight * (tokens - target[:, None]).square().sum(2).mean(1)).sum()
    return distance / torch.where(size > 0, size, 1.0)


def _end_token(llm: Any) -> int:
    ends = llm.config.get_text_config().eos_token_id
    if ends is None:
        raise ValueError("compat.padded_warmup needs a language model with an end token")
    return int(ends[0] if isinstance(ends, (list, tuple)) else ends)
