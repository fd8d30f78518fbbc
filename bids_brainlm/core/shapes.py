"""Which shape of a library is the haemodynamic response of a unit.

Every criterion gives a score for every shape, of which the largest wins. Components of the noise pool are taken out first, since
slow noise that units share looks like a wide response.

- ``onoff``: how much variance one regressor for all trials explains; needs no repeats, but a mean response that is not 0.
- ``cv``: how well trials predict their partners (`bids_brainlm.core.repeats`) in other runs; needs repeats; the mean response
  does not enter.
- ``both``: the evidence of these two together.
- ``insample``: how much variance the regressors of all trials explain. Kept for comparison: it prefers wide shapes at low SNR,
  since these soak up slow noise.
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
"""Blocks of all runs (T, v) -> score (H, v)."""


MOST = 0.9999
"""Largest share of variance that is told apart from all of it."""


def on_off(models: Sequence[Model]) -> Score:
    """Share of variance explained by one regressor for all trials, with one amplitude for all runs."""
    regressors = [model.trials.sum(axis=2) for model in models]
    lengths = sum((each**2).sum(axis=1) for each in regressors)
    left = [np.concatenate([each, model.nuisance.T]).astype(np.float32) for each, model in zip(regressors, models, strict=True)]
    n = len(regressors[0])

    def score(blocks: Sequence[Floats]) -> Floats:
        products = [each @ block for each, block in zip(left, blocks, strict=True)]
        total = sum(squares(block) - squares(product[n:]) for block, product in zip(blocks, products, strict=True))
        joint = np.asarray(sum(product[:n] for product in products))
        size = np.asarray(lengths)[:, None].astype(np.float32) * total
        return np.asarray(np.divide(joint**2, size, out=np.zeros_like(joint), where=size > 0))

    return score


def in_sample(models: Sequence[Model]) -> Score:
    """Sum of squares explained by a regressor for each trial."""
    bases = [np.linalg.qr(model.trials)[0].transpose(0, 2, 1).astype(np.float32) for model in models]

    def score(blocks: Sequence[Floats]) -> Floats:
        shapes = range(len(bases[0]))
        return np.array([sum(squares(basis[h] @ block) for basis, block in zip(bases, blocks, strict=True)) for h in shapes])

    return score


def cross_validated(models: Sequence[Model], rows: Ints, average: Any, session: Ints) -> Score:
    """Agreement of trials with their partners (`bids_brainlm.core.repeats`)."""
    weights = [least_squares(model.trials) for model in models]

    def score(blocks: Sequence[Floats]) -> Floats:
        out = []
        for h in range(len(weights[0])):
            betas = np.concatenate([each[h] @ block for each, block in zip(weights, blocks, strict=True)])
            out.append(repeats.agreement(betas, rows, average, session))
        return np.array(out)

    return score


def evidence(models: Sequence[Model], rows: Ints, average: Any, session: Ints) -> Score:
    """Sum of what `on_off` and `cross_validated` say, as log likelihood ratios.

    A share r2 of variance explained in k independent values is worth -k/2 log(1 - r2). The mean response and the
    differences between stimuli are separate pieces of evidence, so theirs add up. Of the volumes, half count as independent.
    """
    mean, pattern = on_off(models), cross_validated(models, rows, average, session)
    n_volumes, n_trials = 0.5 * sum(len(model.nuisance) for model in models), rows.size

    def score(blocks: Sequence[Floats]) -> Floats:
        r2, r = np.minimum(mean(blocks), MOST), np.clip(pattern(blocks), -MOST, MOST)
        return np.asarray(-0.5 * (n_volumes * np.log1p(-r2) + n_trials * np.sign(r) * np.log1p(-(r**2))))

    return score


def least_squares(trials: Doubles) -> Floats:
    """(..., n, T) weights of trials (..., T, n) that are free of nuisance."""
    turned = np.swapaxes(trials, -1, -2)
    return np.asarray(np.linalg.solve(turned @ trials, turned), dtype=np.float32)


def squares(block: Floats) -> Floats:
    """(v,) sum of squares of every column."""
    return np.asarray(np.einsum("tv,tv->v", block, block))
