"""Training data as batches whose every random choice follows from (seed, phase, epoch), so that a resumed run repeats it.

A *corpus* has n items; an item has one or more renderings (paraphrases of a caption, phrasings of a question), of which an
epoch of training draws one, and a response unless the corpus is text alone. Validation always takes the first rendering.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.language.render import Rendered
from bids_brainlm.models.fusion import Batch, collate


@dataclass(frozen=True, eq=False)
class Corpus:
    """Items to train or validate on.

    Parameters
    ----------
    renderings : tuple (n) of tuples of Rendered
    gather : callable or None
        Indices (b,) -> (b, T, V) float32 responses; None for text alone.
    chances : tuple (n) of (r,) float64, optional
        Probability of each rendering of each item; all alike when absent.
    """

    renderings: tuple[tuple[Rendered, ...], ...]
    gather: Callable[[NDArray[np.int64]], NDArray[np.float32]] | None = None
    chances: tuple[NDArray[np.float64], ...] | None = None

    def __len__(self) -> int:
        return len(self.renderings)

    def batch(self, index: NDArray[np.int64], choice: Sequence[Rendered]) -> Batch:
        return collate(choice, None if self.gather is None else self.gather(index))

    def mapped(self, function: Callable[[NDArray[np.float32]], NDArray[np.float32]], size: int = 32) -> Corpus:
        """The same corpus with its responses put through a function (b, T, V) -> (b, T, F) once and kept in memory.

        Parameters
        ----------
        function : callable
        size : int
            Items whose responses are in memory at a time.
        """
        if self.gather is None or not len(self):
            return self
        starts = range(0, len(self), size)
        kept = np.concatenate([function(self.gather(np.arange(s, min(s + size, len(self))))) for s in starts])
        return replace(self, gather=kept.__getitem__)

    def pooled(self, pool: NDArray[np.int64], chance: NDArray[np.float64]) -> Corpus:
        """Items of one pool as one item, of which an epoch draws one; its response is that of the first of them.

        Parameters
        ----------
        pool : (n,) int64
            0 to m - 1.
        chance : (n,) float64
            Of each item in its pool; it is shared by the renderings of the item.
        """
        members = [np.flatnonzero(pool == k) for k in range(int(pool.max()) + 1)]
        gather, first = self.gather, np.array([own[0] for own in members], dtype=np.int64)
        renderings = tuple(tuple(one for i in own for one in self.renderings[i]) for own in members)
        number = np.array([len(own) for own in self.renderings])
        chances = tuple(np.repeat(chance[own] / number[own], number[own]) for own in members)
        return Corpus(renderings, None if gather is None else lambda index: gather(first[index]), chances)

    def epoch(self, size: int, seed: Sequence[int], share: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """Shuffled batches, one rendering drawn per item.

        Parameters
        ----------
        size : int
            Items a batch (of one process).
        seed : sequence of int
            Everything the order depends on.
        share : (int, int)
            Rank and number of processes; each gets every n-th batch, the same number of batches each.
        """
        rng = np.random.default_rng(list(seed))
        order = rng.permutation(len(self))
        draws = rng.random(len(self))
        rank, world = share
        n_batches = n_steps(len(self), size, world) * world
        for k in range(rank, n_batches, world):
            # The last round wraps around where processes would otherwise wait for each other.
            index = (
                order[np.arange(k * size, min((k + 1) * size, len(self))) % len(self)] if k * size < len(self) else order[:size]
            )
            yield self.batch(index, [self._draw(i, draws[i]) for i in index])

    def in_order(self, size: int) -> Iterator[Batch]:
        """Every item once, first rendering, in order."""
        for start in range(0, len(self), size):
            index = np.arange(start, min(start + size, len(self)))
            yield self.batch(index, [self.renderings[i][0] for i in index])

    def _draw(self, item: int, draw: float) -> Rendered:
        choices = self.renderings[item]
        if self.chances is None:
            return choices[int(draw * len(choices))]
        # Sums of chances may fall short of 1 by a rounding error.
        place = np.searchsorted(np.cumsum(self.chances[item]), draw, side="right")
        return choices[min(int(place), len(choices) - 1)]


def n_steps(n: int, size: int, world: int = 1) -> int:
    """Batches of one process in an epoch."""
    return math.ceil(math.ceil(n / size) / world)
