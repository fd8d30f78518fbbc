"""Story decoders.

What is registered (`registry.story_decoders`) is a *factory*: it takes the `Material` of a fold and returns a function from a
stretch and the number of tokens of each of its windows to the tokens of all of them (`Decode`).

- ``generate``: the trained decoder goes on from its own text, given the brain tokens of each window (Ye et al. 2025).
- ``encoding``: the language model proposes, and an encoding model, fitted to the training stories, weighs what it proposes by how
  well it explains the brain (Tang et al. 2023). The trained brain tokenizer has no part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bids_brainlm.core.types import Ints, Prompt, Recording
from bids_brainlm.evaluation.story.encoding import BrainEvidence, fit
from bids_brainlm.evaluation.story.reading import Reader
from bids_brainlm.evaluation.story.search import Search, search
from bids_brainlm.evaluation.story.tellings import Stretch, Telling, responses
from bids_brainlm.language.render import control_ids, render
from bids_brainlm.registry import story_decoders

Decode = Callable[[Stretch, Sequence[int]], list[int]]
"""From a stretch and the number of tokens of each of its windows to the tokens of all of them."""


@dataclass(frozen=True, eq=False)
class Material:
    """What a story decoder may draw on in a fold.

    Parameters
    ----------
    reader : Reader
        Of the trained model.
    recording : Recording
    tellings : tuple of Telling
        Divided into parts; only training windows may be learned from.
    held : (.,) int64
        Rows of the recording that nothing may be fitted on.
    settings : Search
    seconds : float
        Length of a window.
    """

    reader: Reader
    recording: Recording
    tellings: tuple[Telling, ...]
    held: Ints
    settings: Search
    seconds: float

    @property
    def tokens_per_word(self) -> float:
        """Of the training texts."""
        texts = [(t, k) for t in self.tellings for k in range(len(t.texts)) if t.part[k] == "train" and t.texts[k]]
        n_tokens = sum(len(_tokens(t.texts, k, self.reader.tokenizer)) for t, k in texts)
        return n_tokens / max(1, sum(len(t.texts[k].split()) for t, k in texts))


@story_decoders.register("generate")
def generate(material: Material) -> Decode:
    """Brain tokens of the window, the text so far, and what the model says next (BrainLLM, Ye et al. 2025)."""
    device = material.reader.model.device

    def decode(stretch: Stretch, counts: Sequence[int]) -> list[int]:
        found = torch.from_numpy(responses(material.recording, stretch.rows)).to(device)
        return search(material.reader, counts, material.settings, vertices=[found[k : k + 1] for k in range(len(found))])

    return decode


@story_decoders.register("encoding")
def encoding(material: Material) -> Decode:
    """Proposals of the language model, weighed by how likely an encoding model finds the brain given them (Tang et al. 2023)."""
    reader, recording = material.reader, material.recording
    tokens = [window_tokens(telling.texts, reader.tokenizer) for telling in material.tellings]
    context, seconds = material.settings.context, material.seconds
    fitted = fit(reader, recording, material.tellings, tokens, material.held, context=context, seconds=seconds)

    def decode(stretch: Stretch, counts: Sequence[int]) -> list[int]:
        evidence = BrainEvidence(fitted, reader, recording, stretch, counts)
        return search(reader, counts, material.settings, evidence=evidence)

    return decode


def window_tokens(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """Tokens of every window as they are after the window before."""
    return [_tokens(texts, k, tokenizer) for k in range(len(texts))]


def _tokens(texts: Sequence[str], k: int, tokenizer: Any) -> list[int]:
    if not texts[k]:
        return []
    before = next((text for text in reversed(texts[:k]) if text), "")
    item = render(Prompt(before, texts[k]), tokenizer, 0, "continuation")
    controls = control_ids(tokenizer)
    return [int(token) for token in item.ids[item.train] if int(token) not in controls]
