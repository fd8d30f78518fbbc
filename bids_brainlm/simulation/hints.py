"""Hints: what a linear readout of a brain would say of the words to come, for a language model to learn to read.

A large language model makes sense of a vague hint; a small one has to be taught. Taught on bags of whole words it reads the words
of a bag and little else, but what a brain tells of running speech is weak evidence on many words at once. Its teacher is
therefore the readout of a pretended brain.

The *content* of a text is the share that each of its tokens has in it, tokens weighed by rarity. Ridge regression that explains
the share r2 of the variance of contents predicts m + r2 (c - m) + sqrt(r2 (1 - r2)) e for the content c, where m is the mean
content and the error e is spread as contents are. Such a prediction is a *hint*; r2 is drawn anew for each text, and most hints
are weak, as those of brains are. As a brain token a hint is the sum of token embeddings by content, which is what the warm-up
``answer_rare_mse`` makes of a response. No brain has a part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bids_brainlm.language.stimuli import rarity
from bids_brainlm.models.backbones import embed
from bids_brainlm.models.fusion import Batch, BrainLM, splice

Floats = NDArray[np.float32]

POOL = 512
"""Texts whose contents an error is mixed of."""


class Hints:
    """Hints of n texts, made when asked for: each follows from the seed and its place alone.

    Parameters
    ----------
    texts : sequence (n) of sequences of int
        Token ids.
    explained : float
        Largest share of variance that a hint explains; half of all hints explain less than a quarter of that.
    seed : int

    Attributes
    ----------
    tokens : (U,) int64 array
        Ids of the tokens that contents are made of, those of all texts.
    """

    def __init__(self, texts: Sequence[Sequence[int]], explained: float, seed: int) -> None:
        weights = rarity(texts)
        self.texts, self.explained, self.seed = texts, explained, seed
        self.tokens = np.array(sorted(weights), dtype=np.int64)
        self._weights = np.array([weights[token] for token in self.tokens.tolist()])
        pool = np.stack([self.content(i) for i in range(min(POOL, len(texts)))])
        self._mean = pool.mean(axis=0)
        self._spread = (pool - self._mean) / len(pool) ** 0.5

    def content(self, i: int) -> Floats:
        """(U,) shares of the tokens in a text; they add up to 1, or are all 0 where every text has each of its tokens."""
        column = np.searchsorted(self.tokens, np.asarray(self.texts[i], dtype=np.int64))
        shares = np.bincount(column, weights=self._weights[column], minlength=self.tokens.size)
        return (shares / (shares.sum() or 1.0)).astype(np.float32)

    def __call__(self, index: NDArray[np.int64]) -> Floats:
        """(b, 1, U) hints of some texts."""
        return np.stack([self._hint(int(i)) for i in index])[:, None]

    def _hint(self, i: int) -> Floats:
        rng = np.random.default_rng((self.seed, i))
        r2 = self.explained * rng.uniform() ** 2
        error = rng.standard_normal(len(self._spread)) @ self._spread
        hint = self._mean + r2 * (self.content(i) - self._mean) + (r2 * (1 - r2)) ** 0.5 * error
        return np.asarray(hint, dtype=np.float32)


class Spoken(nn.Module):
    """Hints as brain tokens of the language model that learns to read them, (B, 1, U) -> (B, K, D), all K alike.

    Parameters
    ----------
    llm : PreTrainedModel
        Its embeddings are used as they are at the moment, so that they are trained through hints, too.
    tokens : (U,) int64 array
    n_tokens : int
        K.
    """

    tokens: Tensor

    def __init__(self, llm: Any, tokens: NDArray[np.int64], n_tokens: int) -> None:
        super().__init__()
        self.register_buffer("tokens", torch.from_numpy(tokens), persistent=False)
        self.n_tokens = n_tokens
        # In a tuple, because a module would take the language model for a part of it.
        self._llm = (llm,)

    def forward(self, hints: Tensor) -> Tensor:
        return (hints @ embed(self._llm[0], self.tokens)).expand(-1, self.n_tokens, -1)


class Pupil(BrainLM):
    """A language model that learns to read hints, some of whose prompts have none: without a brain, too, it is to speak well."""

    def embed(self, batch: Batch) -> Tensor:
        """(B, L, D) input embeddings; hints of prompts without slots are not looked at."""
        told = batch.slot.any(1)
        if batch.vertices is None or not bool(told.any()):
            return embed(self.llm, batch.ids)
        out = embed(self.llm, batch.ids).clone()
        out[told] = splice(out[told], batch.slot[told], self.brain_tokens(batch.vertices[told]))
        return out
