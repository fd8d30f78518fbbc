"""Which shape of a library is the haemodynamic response of a unit.

Every criterion gives the evidence for every shape, a log likelihood ratio to no response at all: a share r2 of variance that is
explained in k independent values is worth -k/2 log(1 - r2). Components of the noise pool are taken out first, since slow noise
that units share looks like a wide response.

- ``onoff``: one regressor for all trials; needs no repeats, but a mean response that is not 0.
- ``cv``: agreement of trials with their partners in other runs (`bids_brainlm.core.repeats`); needs repeats, and does not see the
  mean response.
- ``both``: the sum of the two, which are about different things.
- ``insample``: a regressor for each trial. For comparison: at low SNR it prefers wide shapes, since these soak up slow noise.

`prior` is added to each: where the data say little, the peak lies where it does in most people.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core import repeats
from bids_brainlm.core.blocks import Model
from bids_brainlm.core.types import Floats, Ints

Doubles = NDArray[np.float64]
Score = Callable[[Sequence[Floats]], Floats]
"""Blocks of all runs (T, v) -> evidence (H, v)."""


MOST = 0.9999
"""Largest share of variance that is told apart from all of it."""

PEAK, SPREAD = 5.4, 2.0
"""Mean and standard deviation (s) of the time to peak that are expected beforehand."""


def prior(shapes: Doubles, step: float) -> Doubles:
    """(H,) logarithm of how likely each shape (H, k) is beforehand, by its time to peak."""
    return np.asarray(-0.5 * ((shapes.argmax(axis=1) * step - PEAK) / SPREAD) ** 2)


def on_off(models: Sequence[Model]) -> Score:
    """Evidence from one regressor for all trials, with one amplitude for all runs; half of the volumes count as independent."""
    shares = explained(models)
    n_volumes = 0.5 * sum(len(model.nuisance) for model in models)
    return lambda blocks: worth(shares(blocks), n_volumes)


def cross_validated(models: Sequence[Model], rows: Ints, average: Any, session: Ints) -> Score:
    """Evidence from the agreement of trials with their partners."""
    weights = [least_squares(model.trials) for model in models]

    def score(blocks: Sequence[Floats]) -> Floats:
        out = []
        for h in range(len(weights[0])):
            betas = np.concatenate([each[h] @ block for each, block in zip(weights, blocks, strict=True)])
            out.append(repeats.agreement(betas, rows, average, session))
        found = np.array(out)
        return np.sign(found) * worth(found**2, rows.size)

    return score


def both(models: Sequence[Model], rows: Ints, average: Any, session: Ints) -> Score:
    """Sum of `on_off` and `cross_validated`."""
    mean, pattern = on_off(models), cross_validated(models, rows, average, session)
    return lambda blocks: mean(blocks) + pattern(blocks)


def in_sample(models: Sequence[Model]) -> Score:
    """Evidence from a regressor for each trial, as if these were not many."""
    bases = [np.linalg.qr(model.trials)[0].transpose(0, 2, 1).astype(np.float32) for model in models]
    others = [model.nuisance.T.astype(np.float32) for model in models]
    n_volumes = 0.5 * sum(len(model.nuisance) for model in models)

    def score(blocks: Sequence[Floats]) -> Floats:
        total = remaining(others, blocks)
        shapes = range(len(bases[0]))
        fitted = np.array([sum(squares(basis[h] @ block) for basis, block in zip(bases, blocks, strict=True)) for h in shapes])
        return worth(np.divide(fitted, total, out=np.zeros_like(fitted), where=total > 0), n_volumes)

    return score


def explained(models: Sequence[Model]) -> Score:
    """Share of variance, after nuisance, that one regressor for all trials explains."""
    regressors = [model.trials.sum(axis=2) for model in models]
    lengths = np.sum([(each**2).sum(axis=1) for each in regressors], axis=0)[:, None].astype(np.float32)
    left = [each.astype(np.float32) for each in regressors]
    others = [model.nuisance.T.astype(np.float32) for model in models]

    def score(blocks: Sequence[Floats]) -> Floats:
        joint = np.sum([each @ block for each, block in zip(left, blocks, strict=True)], axis=0)
        size = lengths * remaining(others, blocks)
        return np.asarray(np.divide(joint**2, size, out=np.zeros_like(joint), where=size > 0))

    return score


def remaining(others: Sequence[Floats], blocks: Sequence[Floats]) -> Floats:
    """(v,) sum of squares of the series of all runs without their nuisance, given transposed (r, T)."""
    parts = [squares(block) - squares(each @ block) for each, block in zip(others, blocks, strict=True)]
    return np.asarray(np.sum(parts, axis=0))


def worth(share: Floats, n: float) -> Floats:
    """Log likelihood ratio of a share of variance that is explained in so many independent values."""
    return np.asarray(-0.5 * n * np.log1p(-np.clip(share, 0.0, MOST)), dtype=np.float32)


def least_squares(trials: Floats | Doubles) -> Floats:
    """(..., n, T) weights of trials (..., T, n) that are free of nuisance."""
    exact = trials.astype(np.float64)
    turned = np.swapaxes(exact, -1, -2)
    return np.asarray(np.linalg.solve(turned @ exact, turned), dtype=np.float32)


def squares(block: Floats) -> Floats:
    """(v,) sum of squares of every column."""
    return np.asarray(np.einsum("tv,tv->v", block, block))
