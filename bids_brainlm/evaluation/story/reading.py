"""A language model that reads on: several texts at once, token by token, from what it has computed already.

Within a window of a story the model has before it

    [what the prompt style begins with] [K brain tokens of this window] [the last tokens of the text so far] [new tokens ...]

Keys and values of everything read stay in a *cache*; a new token costs one position. With the next window the brain tokens are
others and the text has moved on, so that every position changes: the cache is begun anew. What stands before the text is the same
for all texts and is computed once for them. A test holds the logits equal to those of the whole sequence without a cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bids_brainlm.core.types import Prompt
from bids_brainlm.language.render import control_ids, render, stop_ids
from bids_brainlm.models.fusion import BrainLM, collate

DEPTH = 0.75
"""Share of the layers whose output stands for the meaning of a word: layer 9 of 12 in Tang et al. 2023."""


@dataclass(frozen=True, eq=False)
class State:
    """What is known after reading.

    Parameters
    ----------
    logits : (B, vocabulary) float32 Tensor
        Of the next token.
    hidden : (B, D) float32 Tensor
        Of the last token, in the layer at `DEPTH`.
    cache : Cache
        Belongs to this state alone: reading on uses it up.
    """

    logits: Tensor
    hidden: Tensor
    cache: Any


class Reader:
    """Reads texts with a model.

    Parameters
    ----------
    model : BrainLM
    tokenizer : Any
    style : str
        Prompt style, which says what stands before brain tokens and text.

    Attributes
    ----------
    is_text : (vocabulary,) bool Tensor
        Tokens that are text, and not such as begin, end or structure it.
    """

    def __init__(self, model: BrainLM, tokenizer: Any, style: str) -> None:
        self.model, self.tokenizer, self.style = model, tokenizer, style
        self.layer = max(1, round(DEPTH * model.llm.config.get_text_config().num_hidden_layers))
        size = model.llm.get_output_embeddings().weight.shape[0]
        text = torch.arange(size) < len(tokenizer)
        text[[token for token in {*control_ids(tokenizer), *stop_ids(tokenizer, style)} if token < size]] = False
        self.is_text = text.to(model.device)

    @torch.no_grad()
    def open(self, vertices: Tensor | None, texts: Tensor) -> State:
        """Begin a window.

        Parameters
        ----------
        vertices : (1, T, V) Tensor or None
            Response that the window is decoded from; None leaves brain tokens out.
        texts : (B, C) int64 Tensor
            Last tokens of the texts so far; C may be 0.
        """
        state = self._read(self._beginning(vertices), None)
        rows = torch.zeros(len(texts), dtype=torch.int64, device=self.model.device)
        state = select(state, rows)
        return self._read(self._embed(texts), state.cache) if texts.shape[1] else state

    @torch.no_grad()
    def read(self, state: State, tokens: Tensor) -> State:
        """One more token (B,) of every text."""
        return self._read(self._embed(tokens[:, None]), state.cache)

    @torch.no_grad()
    def hidden(self, texts: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D) float32 hidden states of whole texts without a brain, padded on the right.

        Parameters
        ----------
        texts, mask : (B, L) int64 Tensor
            Tokens; 0 in the mask for padding.
        """
        beginning = self._beginning(None).expand(len(texts), -1, -1)
        mask = torch.nn.functional.pad(mask, (beginning.shape[1], 0), value=1)
        with self.model.precision():
            out = self.model.llm(
                inputs_embeds=torch.cat([beginning, self._embed(texts)], dim=1),
                attention_mask=mask,
                output_hidden_states=True,
                logits_to_keep=1,
            )
        states: Tensor = out.hidden_states[self.layer][:, beginning.shape[1] :]
        return states.float()

    def _beginning(self, vertices: Tensor | None) -> Tensor:
        n_slots = 0 if vertices is None else self.model.n_tokens
        rendered = render(Prompt("", ""), self.tokenizer, n_slots, self.style, with_answer=False)
        given = None if vertices is None else vertices.cpu().numpy()
        with self.model.precision():
            return self.model.embed(collate([rendered], given).to(self.model.device))

    def _embed(self, tokens: Tensor) -> Tensor:
        embeddings: Tensor = self.model.llm.get_input_embeddings()(tokens.to(self.model.device))
        return embeddings

    def _read(self, embeddings: Tensor, cache: Any) -> State:
        with self.model.precision():
            out = self.model.llm(
                inputs_embeds=embeddings,
                past_key_values=cache,
                use_cache=True,
                output_hidden_states=True,
                logits_to_keep=1,
            )
        return State(out.logits[:, -1].float(), out.hidden_states[self.layer][:, -1].float(), out.past_key_values)


def select(state: State, rows: Tensor) -> State:
    """The texts ``rows`` (N,) of a state, each as often as it is named."""
    state.cache.reorder_cache(rows)
    return State(state.logits[rows], state.hidden[rows], state.cache)
