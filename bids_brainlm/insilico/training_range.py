"""Has the decoder ever been trained with anything like it? Driven responses beside those of training.

A vertex is *beyond* the training range where its absolute z value is larger than in any training response; a whole response is,
where its norm over all vertices is. What a model says of such a response is extrapolation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_brainlm.core.types import Examples, Floats, Ints
from bids_brainlm.models.fusion import BrainLM

Doubles = NDArray[np.float64]

BLOCK = 64
"""Responses in memory at a time."""


@dataclass(frozen=True, eq=False)
class TrainingRange:
    """Largest values of training.

    Parameters
    ----------
    mean, gain : (V,) float32
        z is (response - mean) x gain; the gain is 0 where a vertex is not used.
    largest : (V,) float32
        Largest absolute z of each vertex.
    longest : float
        Largest norm of a response.
    """

    mean: Floats
    gain: Floats
    largest: Floats
    longest: float

    def z(self, responses: Floats) -> Floats:
        """(b, T, V) z values, 0 where there is no value."""
        return np.asarray(np.nan_to_num((responses - self.mean) * self.gain, nan=0.0, posinf=0.0, neginf=0.0))

    def beyond(self, bases: Examples, pattern: Floats, doses: ArrayLike) -> tuple[Doubles, Doubles]:
        """Share of driven vertices, and of whole responses, beyond the range at each dose.

        Returns
        -------
        vertices, norms : (A,) float64
        """
        steps = np.asarray(doses, dtype=np.float32)
        inside = np.flatnonzero((pattern != 0) & (self.gain > 0))
        vertices, norms = (np.zeros(steps.size) for _ in range(2))
        for i in range(len(bases)):
            z = self.z(bases.gather([i]))[0]
            rest = (z**2).sum() - (z[:, inside] ** 2).sum()
            for a, dose in enumerate(steps):
                moved = z[:, inside] + dose * pattern[inside]
                vertices[a] += (np.abs(moved) > self.largest[inside]).mean() if inside.size else 0.0
                norms[a] += float(np.sqrt(rest + (moved**2).sum())) > self.longest
        return vertices / len(bases), norms / len(bases)


def training_range(model: BrainLM, examples: Examples, train: Ints) -> TrainingRange:
    """Range of the training examples ``train``."""
    mean, gain = (tensor.cpu().numpy() for tensor in (model.of_vertices.mean, model.of_vertices.gain))
    found = TrainingRange(mean, gain, np.zeros_like(mean), 0.0)
    largest, longest = np.zeros_like(mean), 0.0
    for start in range(0, len(train), BLOCK):
        z = found.z(examples.gather(train[start : start + BLOCK]))
        largest = np.maximum(largest, np.abs(z).max(axis=(0, 1)))
        longest = max(longest, float(np.sqrt((z**2).sum(axis=(1, 2))).max()))
    return TrainingRange(mean, gain, largest, longest)
