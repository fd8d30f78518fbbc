"""Objectives: (model, batch) -> loss, a scalar tensor; registered, named by ``phases.N.objective``."""

from __future__ import annotations

from torch import Tensor, nn

from bids_brainlm.models.fusion import Batch
from bids_brainlm.registry import objectives


@objectives.register("cross_entropy")
def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Mean negative log-likelihood per trained token of the batch, in nats (Bosch et al. 2025; Ye et al. 2025)."""
    logits, targets, _ = model(batch)
    return nn.functional.cross_entropy(logits, targets)
