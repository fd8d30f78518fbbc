"""Runs as tuned estimators work on them: the trials under every shape, and the series of some units at a time.

A *block* is the series of a few hundred units, in percent signal change without its mean; 0 where a unit is not usable. It is
small enough to stay in a core's cache while everything about those units is done, and blocks are what threads share out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core import glm
from bids_brainlm.core.design import trial_designs
from bids_brainlm.core.tuning import Run
from bids_brainlm.core.types import Bools, Floats, Ints

Doubles = NDArray[np.float64]
Real = TypeVar("Real", np.float32, np.float64)

WIDTH = 1024
"""Units of a block."""

MOST_BYTES = 2**26
"""Size of the blocks of all runs together, from which on they are narrower."""

INDEPENDENT = 1e-6
"""Smallest eigenvalue of the trials' correlations with which they still count as having responses of their own."""


@dataclass(frozen=True, eq=False)
class Model:
    """Design of one run under every shape of a library.

    Parameters
    ----------
    run : Run
    nuisance : (T, r) float64
        Orthonormal basis of everything that is not a trial.
    trials : (H, T, n) float32
        Regressor of each trial under each shape, without what the nuisance explains. In single precision, because they are
        what grows in memory with the number of runs; `regressors` has those of one shape for solving.
    """

    run: Run
    nuisance: Doubles
    trials: Floats

    @classmethod
    def of(cls, run: Run, shapes: Doubles, step: float) -> Model:
        """Designs of a run; see `bids_brainlm.core.design.trial_designs` for what is refused."""
        trials = trial_designs(run.onsets, run.durations, run.frame_times, shapes, step)
        basis = glm.orthonormal(run.nuisance)
        return cls(run, basis, without(trials, basis).astype(np.float32))

    def cleaned(self, components: Doubles) -> Model:
        """With orthonormal components (T, K), free of the nuisance, as further nuisance."""
        both = np.column_stack([self.nuisance, components])
        return Model(self.run, both, without(self.trials, components.astype(np.float32)))

    def regressors(self, shape: int) -> Doubles:
        """(T, n) float64 regressors under one shape."""
        return np.asarray(self.trials[shape], dtype=np.float64)

    def independent(self, shortest: float) -> Bools:
        """(H,) shapes under which every trial has a response of its own, no shorter than that share of the median trial's.

        A late shape leaves little of a trial at the end of a run, and its beta would be noise.
        """
        trials = self.trials.astype(np.float64)
        lengths = np.linalg.norm(trials, axis=1, keepdims=True)
        there = (lengths > shortest * np.median(lengths, axis=2, keepdims=True)).all(axis=(1, 2))
        unit = trials / np.where(lengths > 0, lengths, 1.0)
        return np.asarray(there & (np.linalg.eigvalsh(unit.transpose(0, 2, 1) @ unit)[:, 0] > INDEPENDENT))

    def block(self, units: slice | Ints) -> tuple[Floats, Bools]:
        """Series (T, v) float32 of some units and whether they are usable (v,)."""
        block = np.array(self.run.bold[:, units], dtype=np.float32, order="C")
        # What this sum rounds away is constant in time, and the nuisance takes it out.
        mean = block.sum(axis=0) / np.float32(len(block))
        # A unit that is not finite has no finite mean.
        good = np.isfinite(mean)
        if not good.all():
            block[:, ~good] = 0.0
            mean[~good] = 0.0
        block -= mean
        spread = np.sqrt(np.einsum("tv,tv->v", block, block) / len(block))
        good &= glm.varies_around_a_mean(mean, spread)
        block *= np.divide(100.0, np.abs(mean), out=np.zeros_like(mean), where=good)
        return block, good


def without(columns: NDArray[Real], basis: NDArray[Real]) -> NDArray[Real]:
    """Columns (..., T, n) less what an orthonormal basis (T, r) explains of them."""
    return np.asarray(columns - basis @ (basis.T @ columns))


def width(models: Sequence[Model]) -> int:
    """Units of which the blocks of all runs are held together."""
    n_volumes = sum(len(model.nuisance) for model in models)
    return int(np.clip(MOST_BYTES // (4 * n_volumes), 64, WIDTH))


def blocks(n_units: int, n: int = WIDTH) -> Iterator[slice]:
    """Slices of ``n`` that cover ``n_units``."""
    return (slice(start, min(start + n, n_units)) for start in range(0, n_units, n))


def group(shape: NDArray[np.int16], n: int = WIDTH) -> list[tuple[int, Ints]]:
    """Units with the same shape, at most ``n`` together: (shape, indices)."""
    order = np.argsort(shape, kind="stable")
    ends = np.flatnonzero(np.diff(shape[order])) + 1
    return [(int(shape[part[0]]), part[piece]) for part in np.split(order, ends) if part.size for piece in blocks(part.size, n)]


def stacked(models: Sequence[Model], units: slice | Ints) -> tuple[list[Floats], Bools]:
    """Blocks of all runs, and the units that are usable in every one."""
    parts = [model.block(units) for model in models]
    return [block for block, _ in parts], np.logical_and.reduce([good for _, good in parts])
