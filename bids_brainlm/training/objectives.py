"""Objectives: (model, batch) -> loss, a scalar tensor; registered, named by ``phases.N.objective``.

Those of warm-ups cost no pass through the language model. They say of every example where its brain tokens should point
(`Towards`): tokens of a response that tells something about the text learn to point there, the others to stay at the mean.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
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


Target = Callable[[BrainLM, Batch], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Towards:
    """Mean squared distance of every brain token from the target of its example, in units of the mean square of targets.

    Markers are no part of it.

    Parameters
    ----------
    target : callable
        (model, batch) -> (B, D) targets in the space of token embeddings, (B,) bool: which examples count.
    """

    target: Target

    @property
    def reference(self) -> str:
        """What the target is, in a line."""
        return (inspect.getdoc(self.target) or "").partition("\n")[0]

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss, a scalar.

        Raises
        ------
        ValueError
            When the batch has no responses, or the model lacks what the target is made of.
        """
        inner = getattr(model, "module", model)
        if not isinstance(inner, BrainLM) or batch.vertices is None:
            raise ValueError("a warm-up needs brain tokens, but the prompts have none")
        with torch.no_grad():
            target, counts = self.target(inner, batch)
        return _distance(inner.bare_tokens(batch.vertices), target, counts)


def _warm_up(name: str) -> Callable[[Target], Target]:
    def register(target: Target) -> Target:
        objectives.register(name)(Towards(target))
        return target

    return register


@_warm_up("answer_mean_mse")
def answer_mean(model: BrainLM, batch: Batch) -> tuple[Tensor, Tensor]:
    """The mean embedding of the answer's tokens.

    After the warm-up of Ye et al. 2025, who take the text before the answer instead (`context_mean`).
    """
    return model.mean_embedding(batch.ids, batch.train), batch.train.any(1)


@_warm_up("answer_rare_mse")
def answer_rare(model: BrainLM, batch: Batch) -> tuple[Tensor, Tensor]:
    """The mean embedding of the answer's tokens weighed by how rare they are in training texts, so that "the" does not count.

    A response tells of what is talked about; half of the words of a sentence are those of every other one.
    """
    if model.rarity is None:
        raise ValueError("answer_rare_mse needs to know how rare tokens are in training texts (BrainLM.rarity)")
    weights = batch.train * model.rarity[batch.ids]
    return model.mean_embedding(batch.ids, weights), weights.any(1)


@_warm_up("context_mean_mse")
def context_mean(model: BrainLM, batch: Batch) -> tuple[Tensor, Tensor]:
    """The mean embedding of the tokens between brain and answer; examples without any count nothing.

    The warm-up of Ye et al. 2025, after which brain tokens lie where the language model expects text.
    """
    return model.mean_embedding(batch.ids, batch.context), batch.context.any(1)


@_warm_up("context_mean_mse_padded")
def context_mean_padded(model: BrainLM, batch: Batch) -> tuple[Tensor, Tensor]:
    """`context_mean` as in the released code of Ye et al., over `PADDED` tokens whatever the context.

    They are the first of the context and, where it has fewer, the end token: the shorter a context, the nearer its target to
    that token.
    """
    context = batch.context & (batch.context.cumsum(1) <= PADDED)
    number = context.sum(1, keepdim=True)
    end = torch.full_like(batch.ids[:, :1], _end_token(model.llm))
    filler = model.mean_embedding(end, torch.ones_like(end))
    return (number * model.mean_embedding(batch.ids, context) + (PADDED - number) * filler) / PADDED, context.any(1)


PADDED = 32
"""Tokens to which the released code of Ye et al. cuts and fills every context."""


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
