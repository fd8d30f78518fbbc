"""Objectives: (model, batch) -> loss, a scalar tensor; registered, named by ``phases.N.objective``."""

from __future__ import annotations

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
    towards it, the others to stay at the mean. After the warm-up of Ye et al. 2025, who take the prompt's tokens instead.

    Raises
    ------
    ValueError
        When the batch has no responses.
    """
    inner = getattr(model, "module", model)
    if not isinstance(inner, BrainLM) or batch.vertices is None:
        raise ValueError("answer_mean_mse needs brain tokens, but the prompts have none")
    with torch.no_grad():
        target = inner.answer_means(batch)
        # Not the spread of the targets: a last batch of one example, or of one text, has none.
        size = target.square().sum(1).mean()
    distance = (inner.brain_tokens(batch.vertices) - target[:, None]).square().sum(2).mean()
    return distance / size
