"""Responses that nobody had, in the place of a brain: functions (examples, seed) -> examples that act in vertex space.

- ``mean``: the mean response over the examples, the same for all of them.
- ``noise``: independent normal noise with every vertex's own mean and standard deviation over the examples.
- ``noise_covariance``: random mixtures of the examples, which have their mean and, in expectation, the covariance of all their
  vertices and rows: mean + sum_j g_j (x_j - mean) / sqrt(m) over m responses x_j, with normal g_j.
- ``phase_shuffled``: the rows of a run that the examples have, in the order of time, with random phases of their discrete Fourier
  transform, the same for all vertices. Every vertex keeps its mean and power spectrum, and any two their (circular)
  cross-covariance at every lag (Prichard & Theiler 1994, doi:10.1103/PhysRevLett.73.951). What is lost is when what happened.

The last two are weighted sums of responses, each computed when it is asked for: the responses may be larger than memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.interventions import brains_of
from bids_brainlm.core.types import Examples, Floats, Ints, Recording
from bids_brainlm.registry import interventions

AT_ONCE = 64
"""Rows in memory at a time."""

MIXED = 64
"""Responses that are mixed to one, drawn anew for each: their expected covariance is that of all."""

FEWEST = 3
"""Rows of a run below which there is no phase to shuffle."""


@interventions.register("mean")
def mean(examples: Examples, seed: int) -> Examples:
    """Every example with the mean response (T, V) over all of them; nothing is random, ``seed`` is not used."""
    data, _ = _moments(examples)
    rows = np.tile(np.arange(len(data)), (len(examples), 1))
    run = np.zeros(len(data), dtype=np.int64)
    return dataclasses.replace(examples, recording=_replaced(examples.recording, data, run), rows=rows)


@interventions.register("noise")
def noise(examples: Examples, seed: int) -> Examples:
    """Every example with normal noise of equal mean and standard deviation at each of its T rows and vertices."""
    centre, spread = _moments(examples)
    n, t = examples.rows.shape[:2]
    recording = _replaced(examples.recording, _Noise(centre, spread, n, seed), np.repeat(examples.run, t))
    return dataclasses.replace(examples, recording=recording, rows=np.arange(n * t).reshape(n, t))


@interventions.register("noise_covariance")
def noise_covariance(examples: Examples, seed: int) -> Examples:
    """Every example with a random mixture of all responses, of equal mean and covariance.

    Raises
    ------
    ValueError
        When there is one response only, which nothing can be made of.
    """
    first, _ = brains_of(examples)
    if first.size < 2:
        raise ValueError("a covariance needs two different responses at least")
    distinct, (n, t) = examples.take(first), examples.rows.shape[:2]
    mixtures = _Mixtures(distinct, _moments(distinct)[0], n, seed)
    recording = _replaced(examples.recording, mixtures, np.repeat(examples.run, t))
    return dataclasses.replace(examples, recording=recording, rows=np.arange(n * t).reshape(n, t))


@interventions.register("phase_shuffled")
def phase_shuffled(examples: Examples, seed: int) -> Examples:
    """Every example with its own rows of a recording whose phases are shuffled, run by run.

    Raises
    ------
    ValueError
        When a run has fewer than `FEWEST` rows among the examples.
    """
    recording = examples.recording
    rows = np.unique(examples.rows[examples.rows >= 0])
    place, members = np.full(recording.data.shape[0], -1), []
    for run in np.unique(recording.run[rows]):
        own = rows[recording.run[rows] == run]
        if own.size < FEWEST:
            raise ValueError(f"a run has {own.size} test row(s); phases are shuffled among {FEWEST} at least")
        place[own] = np.arange(own.size)
        members.append(own)
    kernels = tuple(_kernel(own.size, np.random.default_rng((seed, k))) for k, own in enumerate(members))
    data = _Phases(recording.data, recording.run, place, tuple(members), kernels)
    return dataclasses.replace(examples, recording=dataclasses.replace(recording, data=data))


def constant(examples: Examples, response: Floats) -> Examples:
    """Every example with the same response (V,), in each of its T rows."""
    recording = examples.recording
    # One row that is seen R times: no memory.
    data = np.broadcast_to(np.asarray(response, dtype=np.float32), recording.data.shape)
    return dataclasses.replace(examples, recording=dataclasses.replace(recording, data=data))


@dataclass(frozen=True, eq=False)
class _Mixtures:
    """(n T, V) rows: for example i, all T rows of a mixture of responses around their mean (T, V), drawn from (seed, i)."""

    distinct: Examples
    centre: Floats
    n_examples: int
    seed: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.n_examples * len(self.centre), int(self.centre.shape[1])

    def __getitem__(self, index: Any) -> Floats:
        rows, t = np.atleast_1d(np.arange(self.shape[0])[index]), len(self.centre)
        asked, which = np.unique(rows // t, return_inverse=True)
        return np.asarray(np.stack([self._mixture(int(i)) for i in asked])[which, rows % t])

    def _mixture(self, i: int) -> Floats:
        """(T, V)."""
        rng = np.random.default_rng((self.seed, i))
        chosen = rng.permutation(len(self.distinct))[:MIXED]
        g = rng.standard_normal(chosen.size) / np.sqrt(chosen.size)
        mixed = np.tensordot(g, self.distinct.gather(chosen).astype(np.float64) - self.centre, axes=1)
        return np.asarray(self.centre + mixed, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class _Phases:
    """(R, V) rows of a recording, of which those with a place (R,), 0 or more, in their run are filtered by its kernel."""

    data: Any
    run: Ints
    place: Ints
    members: tuple[Ints, ...]
    kernels: tuple[NDArray[np.float64], ...]

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.data.shape[0]), int(self.data.shape[1])

    def __getitem__(self, index: Any) -> Floats:
        rows = np.atleast_1d(np.arange(self.shape[0])[index])
        out = np.array(self.data[rows], dtype=np.float32)
        for own, kernel in zip(self.members, self.kernels, strict=True):
            here = np.flatnonzero((self.run[rows] == self.run[own[0]]) & (self.place[rows] >= 0))
            if here.size:
                weights = kernel[(self.place[rows[here]][:, None] - np.arange(own.size)) % own.size]
                out[here] = _mixed(weights, partial(_some, self.data, own))
        return out


def _kernel(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(n,) circular filter of gain 1 and random phase at every frequency but 0; the highest one of an even n is real."""
    phases = rng.uniform(0, 2 * np.pi, n // 2 + 1)
    phases[0] = 0.0
    if n % 2 == 0:
        phases[-1] = np.pi * rng.integers(2)
    return np.asarray(np.fft.irfft(np.exp(1j * phases), n))


def _some(data: Any, rows: Ints, part: slice) -> Any:
    return data[rows[part]]


def _mixed(weights: NDArray[np.float64], source: Callable[[slice], Any]) -> Floats:
    """(k, V) sums of rows, weighted by (k, s); ``source`` gives some of the s rows."""
    total: Any = 0.0
    for start in range(0, weights.shape[1], AT_ONCE):
        part = slice(start, min(start + AT_ONCE, weights.shape[1]))
        block = np.asarray(source(part), dtype=np.float64)
        # Row by row: what a row is must not depend, in its last digit, on what else is asked for.
        total = total + np.stack([row @ block for row in weights[:, part]])
    return np.asarray(total, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class _Noise:
    """(R, V) rows made when asked for, each from its own seed, so that noise for 10,000 examples takes no memory."""

    centre: Floats
    spread: Floats
    n_examples: int
    seed: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.n_examples * len(self.centre), self.centre.shape[1]

    def __getitem__(self, index: Any) -> Floats:
        rows = np.atleast_1d(np.arange(self.shape[0])[index])
        out = np.empty((rows.size, self.shape[1]), dtype=np.float32)
        for i, row in enumerate(rows):
            normal = np.random.default_rng((self.seed, int(row))).standard_normal(self.shape[1], dtype=np.float32)
            place = row % len(self.centre)
            out[i] = self.centre[place] + self.spread[place] * normal
        return out


def _replaced(recording: Recording, data: Any, run: Ints) -> Recording:
    return Recording(data, recording.unit, recording.kind, np.arange(len(run), dtype=np.float64), run, recording.sources)


def _moments(examples: Examples) -> tuple[Floats, Floats]:
    """(T, V) mean and standard deviation over the examples, in one pass over blocks of them."""
    if not len(examples):
        raise ValueError("no examples to take the mean of")
    shift = examples.gather([0])[0].astype(np.float64)
    total, squares = np.zeros_like(shift), np.zeros_like(shift)
    for start in range(0, len(examples), AT_ONCE):
        # Deviations from the first example, not from 0: squares of large values would cancel.
        block = examples.gather(np.arange(start, min(start + AT_ONCE, len(examples)))) - shift
        total += block.sum(axis=0)
        squares += (block**2).sum(axis=0)
    centre = total / len(examples)
    spread = np.sqrt(np.maximum(squares / len(examples) - centre**2, 0.0))
    return (centre + shift).astype(np.float32), spread.astype(np.float32)
