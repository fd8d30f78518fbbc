"""A conversation with several brains at once: what they have read is kept, so that only what is new is computed.

A *thread* holds B brains, or none at all. Every prompt that it is given is read by all of them. Keys and values are kept of three
beginnings: what stands before the end of the brain, the prompt that was read last, and that with the answer that was scored last.
A prompt that goes on from one of them pays for its own tokens alone. What is kept changes no result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from bids_brainlm.core.types import Bools, Ints
from bids_brainlm.language.render import Rendered
from bids_brainlm.models.fusion import BrainLM, collate, predict, rows_of_cache, splice, sum_nll


@dataclass(frozen=True, eq=False)
class _Read:
    """Keys and values of B brains for the tokens that a prompt begins with."""

    ids: Ints
    slot: Bools
    cache: Any

    def begins(self, item: Rendered, most: int) -> bool:
        """Whether a prompt begins with these tokens, and they are no more than so many."""
        n = self.ids.size
        return n <= most and np.array_equal(item.ids[:n], self.ids) and np.array_equal(item.slot[:n], self.slot)


class Thread:
    """Prompts that go on from one another, under several brains.

    Parameters
    ----------
    model : BrainLM
    vertices : (B, T, V) float32 Tensor or None
        None for a thread without brain, in which prompts have no slots; B is 1 then.
    """

    @torch.no_grad()
    def __init__(self, model: BrainLM, vertices: Tensor | None) -> None:
        self.model = model
        self.n_brains = 1 if vertices is None else len(vertices)
        with model.precision():
            self._brain = None if vertices is None else model.brain_tokens(vertices.to(model.device))
        self._nothing = _Read(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_), None)
        self._start = self._prompt = self._scored = self._nothing

    @torch.no_grad()
    def read(self, item: Rendered) -> None:
        """Compute all of a prompt but its last token, and keep it.

        Raises
        ------
        ValueError
            When the prompt does not have as many slots as there are brain tokens.
        """
        n_slots, n_tokens = int(item.slot.sum()), 0 if self._brain is None else self._brain.shape[1]
        if n_slots != n_tokens:
            raise ValueError(f"{n_tokens} brain tokens for a prompt with {n_slots} slots")
        last, before = len(item.ids) - 1, int(np.flatnonzero(item.slot)[-1]) if n_slots else 0
        if not self._start.ids.size or not self._start.begins(item, before):
            # Not the last slot: where no question follows, it is what the answer is predicted from.
            self._start = self._read_on(self._nothing, item, before)
        self._prompt = self._read_on(self._known(item, last), item, last)

    @torch.no_grad()
    def nll(self, item: Rendered) -> Tensor:
        """(B,) negative log-likelihood of the trained tokens under each brain, in nats; what was scored is kept."""
        if not item.train.any():
            return torch.zeros(self.n_brains, device=self.model.device)
        known = self._known(item, int(np.flatnonzero(item.train)[0]) - 1)
        n, cache = known.ids.size, self._copy(known)
        tail = Rendered(item.ids[n:], item.train[n:], item.slot[n:])
        batch = collate([tail] * self.n_brains, None).to(self.model.device)
        with self.model.precision():
            logits, targets, row = predict(self.model.llm, self._embedded(item, n, len(item.ids)), batch, cache, n)
        self._scored = _Read(item.ids[:-1], item.slot[:-1], cache)
        return sum_nll(logits, targets, row, self.n_brains)

    @torch.no_grad()
    def generate(self, item: Rendered, brains: Sequence[int], *, beams: int = 1, **search: Any) -> list[list[int]]:
        """Continue a prompt under some of the brains; ``search`` and the result are those of `BrainLM.continued`."""
        known = self._known(item, len(item.ids) - 1)
        with self.model.precision():
            embeddings = self._embedded(item, 0, len(item.ids))[list(brains)]
        cache = self._copy(known, [row for row in brains for _ in range(beams)])
        mask = torch.ones(embeddings.shape[:2], dtype=torch.int64, device=self.model.device)
        return self.model.continued(embeddings, mask, cache, beams=beams, **search)

    def _known(self, item: Rendered, most: int) -> _Read:
        usable = [read for read in (self._scored, self._prompt, self._start) if read.begins(item, most)]
        return max(usable, key=lambda read: read.ids.size, default=self._nothing)

    def _read_on(self, known: _Read, item: Rendered, stop: int) -> _Read:
        n, cache = known.ids.size, self._copy(known)
        if stop > n:
            device = self.model.device
            with self.model.precision():
                self.model.llm(
                    inputs_embeds=self._embedded(item, n, stop),
                    attention_mask=torch.ones((self.n_brains, stop), dtype=torch.int64, device=device),
                    position_ids=torch.arange(n, stop, device=device).expand(self.n_brains, -1),
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
        return _Read(item.ids[:stop], item.slot[:stop], cache)

    def _copy(self, known: _Read, rows: Sequence[int] | None = None) -> Any:
        """A cache that may grow while the one that is kept does not."""
        if not known.ids.size:
            return DynamicCache(config=self.model.llm.config)
        return rows_of_cache(known.cache, None if rows is None else torch.as_tensor(rows, device=self.model.device))

    def _embedded(self, item: Rendered, start: int, stop: int) -> Tensor:
        """(B, stop - start, D) input embeddings of a part of a prompt."""
        device = self.model.device
        ids = torch.from_numpy(item.ids[start:stop].copy()).to(device)
        embeddings: Tensor = self.model.llm.get_input_embeddings()(ids).expand(self.n_brains, -1, -1)
        first, n = int(item.slot[:start].sum()), int(item.slot[start:stop].sum())
        if self._brain is None or not n:
            return embeddings
        slot = torch.from_numpy(item.slot[start:stop].copy()).to(device)
        return splice(embeddings, slot.expand(self.n_brains, -1), self._brain[:, first : first + n])
