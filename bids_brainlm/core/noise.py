"""Nuisance components: what units share that the task does not move, and how many of them to take out.

The *noise pool* is the half of the bright units in which a regressor for all trials explains least. The components of a run are
the principal components of the pool's series, each unit at unit length, after the nuisance was taken out. They are a
property of a run; only their number is chosen, by cross-validation on repeats.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.blocks import Model, blocks
from bids_brainlm.core.types import Bools, Floats, Ints

Doubles = NDArray[np.float64]

DARK = 0.1
"""Share of the 99th percentile of mean signal below which a unit is not part of the brain."""

ENOUGH = 1 / 1.05
"""Share of the largest gain with which fewer components are preferred (GLMdenoise)."""


def noise_pool(r2: Floats, brightness: Floats, usable: Bools) -> Bools:
    """(V,) units that are bright and in which one regressor for all trials explains less than in the median one."""
    if not usable.any():
        return usable.copy()
    bright = usable & (brightness > DARK * np.quantile(brightness[usable], 0.99))
    return np.asarray(bright & (r2 < np.median(r2[bright]))) if bright.any() else bright


def components(model: Model, pool: Bools, n_components: int) -> Doubles:
    """(T, K) orthonormal components of a run, largest first; fewer where the pool or the run has no more."""
    basis = model.nuisance.astype(np.float32)
    units = np.flatnonzero(pool)
    gram = np.zeros((len(basis), len(basis)))
    for part in blocks(units.size):
        block, good = model.block(units[part])
        block -= basis @ (basis.T @ block)
        lengths = np.sqrt(np.einsum("tv,tv->v", block, block))
        block *= np.divide(1.0, lengths, out=np.zeros_like(lengths), where=good & (lengths > 0))
        gram += block @ block.T
    values, vectors = np.linalg.eigh(gram)
    # Beyond these are the nuisance and, of a small pool, nothing.
    most = min(n_components, int((values > 1e-6 * max(values[-1], 1e-30)).sum()))
    found = vectors[:, ::-1][:, :most]
    return np.asarray(found * np.where(found[np.abs(found).argmax(axis=0), np.arange(most)] < 0, -1.0, 1.0))


def with_each_number(trials: Doubles, found: Doubles, block: Floats) -> Floats:
    """Betas with the first 0, 1 ... K components as further nuisance.

    With regressors X and components P, all free of the nuisance, the coefficients of the first k components in the joint model
    are c = (P'MP)^-1 P'My, where M takes X out, and the betas those without components less (X'X)^-1 X'P c: one (k, k)
    system each, and no further product with the series.

    Parameters
    ----------
    trials : (T, n) float64
    found : (T, K) float64
        Orthonormal.
    block : (T, v) float32

    Returns
    -------
    (K + 1, n, v) float32
    """
    shared = found.T @ trials
    inverse = np.linalg.inv(trials.T @ trials)
    plain = (inverse @ trials.T).astype(np.float32) @ block
    moved = inverse @ shared.T
    own = np.eye(len(shared)) - shared @ moved
    left = found.T.astype(np.float32) @ block - shared.astype(np.float32) @ plain
    out = [plain]
    for k in range(1, len(shared) + 1):
        out.append(plain - (moved[:, :k] @ np.linalg.inv(own[:k, :k])).astype(np.float32) @ left[:k])
    return np.array(out)


def fewest(curve: Doubles) -> int:
    """Smallest number of components with nearly the largest gain in agreement (K + 1,) over none."""
    gain = curve - curve[0]
    return int(np.argmax(gain >= ENOUGH * gain.max())) if gain.max() > 0 else 0


def deciding(score: Floats, usable: Bools, share: float = 0.1, most: int = 2000) -> Ints:
    """Units that decide on the number of components: the share of usable ones with the highest scores, thinned to ``most``."""
    n = min(int(usable.sum()), max(100, int(share * usable.sum())))
    best = np.sort(np.argsort(np.where(usable, -score, np.inf), kind="stable")[:n])
    return np.asarray(best[np.linspace(0, best.size - 1, min(best.size, most)).astype(np.int64)]) if best.size else best
