"""Warm-up in one step: ridge regression from features to where an objective points, for a tokenizer that is linear.

Some thousand examples and as many features leave no room for a search by steps: with any weight decay that was tried, Adam fitted
the noise of the training rows. Ridge regression with a penalty chosen on the validation examples does not, and takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bids_brainlm.errors import ConfigError
from bids_brainlm.models.fusion import BrainLM
from bids_brainlm.models.tokenizers import JointMLP, Lifted, Marked
from bids_brainlm.training.batches import Corpus

PENALTIES = torch.logspace(-3, 4, 29, dtype=torch.float64)
"""Penalties that are compared, in units of the mean eigenvalue of the features' covariance."""


@torch.no_grad()
def solve(model: BrainLM, objective: Any, train: Corpus, validation: Corpus, batch_size: int) -> float:
    """Set the weights of a linear tokenizer to the ridge solution of a warm-up.

    Parameters
    ----------
    model : BrainLM
        Its tokenizer is changed in place; all its tokens end alike.
    objective : Towards
        What says where tokens should point (`bids_brainlm.training.objectives`).
    train, validation : Corpus
    batch_size : int
        Examples whose features are made together.

    Returns
    -------
    float
        The penalty, in units of the mean eigenvalue.

    Raises
    ------
    ConfigError
        When the objective has no target, or there is no validation example to choose the penalty by.
    ValueError
        When the tokenizer is not linear in all rows.
    """
    layer, lift = _linear(model)
    if not hasattr(objective, "target"):
        raise ConfigError('solver = "ridge" needs an objective that points somewhere, such as answer_rare_mse')
    if not len(validation):
        raise ConfigError('solver = "ridge" chooses its penalty on validation examples, and there are none (split.validation)')
    known, held_out = (_gathered(model, objective, corpus, batch_size) for corpus in (train, validation))
    features, targets = known[0], _coordinates(known[1], lift)
    offset, centre = features.mean(0), targets.mean(0)
    solutions = _path(features - offset, targets - centre)
    wanted = _coordinates(held_out[1], lift) - centre
    losses = torch.stack([(wanted - (held_out[0] - offset) @ weights).square().sum() for weights in solutions])
    best = int(losses.argmin())
    weights = solutions[best]
    n_tokens = layer.out_features // weights.shape[1]
    layer.weight.copy_(weights.T.repeat(n_tokens, 1))
    layer.bias.copy_((centre - offset @ weights).repeat(n_tokens))
    return float(PENALTIES[best])


def _linear(model: BrainLM) -> tuple[nn.Linear, nn.Module | None]:
    tokenizer = model.tokenizer.bare if isinstance(model.tokenizer, Marked) else model.tokenizer
    lift = tokenizer.lift if isinstance(tokenizer, Lifted) else None
    inner = tokenizer.coordinates if isinstance(tokenizer, Lifted) else tokenizer
    if not isinstance(inner, JointMLP) or inner.linear is None:
        raise ValueError(f"solver ridge needs a JointMLP without hidden layers, not {type(inner).__name__}")
    return inner.linear, lift


def _gathered(model: BrainLM, objective: Any, corpus: Corpus, size: int) -> tuple[Tensor, Tensor]:
    """Features (n, T F) and targets (n, D) of the examples that count."""
    features, targets = [], []
    for batch in corpus.in_order(size):
        there = batch.to(model.device)
        target, counts = objective.target(model, there)
        features.append(model.features(there.vertices)[counts].flatten(1).double())  # type: ignore[misc]
        targets.append(target[counts].double())
    return torch.cat(features), torch.cat(targets)


def _coordinates(targets: Tensor, lift: Any) -> Tensor:
    """Targets as the tokenizer ends in them: in coordinates of its token basis, if it has one."""
    return targets if lift is None else (targets - lift.mean.double()) @ torch.linalg.pinv(lift.lift.double())


def _path(features: Tensor, targets: Tensor) -> Sequence[Tensor]:
    """Ridge solutions (p, r) for all penalties, from one decomposition of the smaller side."""
    wide = features.shape[1] > features.shape[0]
    values, vectors = torch.linalg.eigh(features @ features.T if wide else features.T @ features)
    unit = max(float(values.mean()), math.ulp(0.0))
    rotated = vectors.T @ (targets if wide else features.T @ targets)
    solutions = (vectors @ (rotated / (values.clamp(min=0)[:, None] + penalty * unit)) for penalty in PENALTIES)
    return [features.T @ solution if wide else solution for solution in solutions]
