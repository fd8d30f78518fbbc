"""Beam search over tokens through a story, one window after the other.

- *Proposals* for the next token of a text are the likeliest ones that together hold a share of the probability (`Search.mass`),
  at most `Search.extensions` of them for the best text and fewer for those behind it. A token that would repeat a pair of
  tokens of the context is no proposal. No token is barred for what it means; those that structure a prompt are no text.
- The *score* of a text is its log-probability under the language model (given brain tokens, for the decoder that has them) and,
  with *evidence*, the log-likelihood of the brain given the text: together the logarithm of a posterior, by Bayes' rule.
- All texts of a beam have as many tokens in every window (`shares`), so that scores of equal lengths are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bids_brainlm.evaluation.story.reading import Reader, State, select
from bids_brainlm.language.render import decode


@dataclass(frozen=True)
class Search:
    """How texts are searched for.

    Parameters
    ----------
    beams, extensions : int
        Texts kept; proposals of the best one.
    context : int
        Tokens of a text that the language model sees.
    mass : float
        Probability that the proposals hold together.
    """

    beams: int = 5
    extensions: int = 5
    context: int = 32
    mass: float = 0.9


@dataclass(frozen=True, eq=False)
class Beam:
    """Texts so far, best first.

    Parameters
    ----------
    tokens : (B, n) int64 Tensor
    spoken : (B,) float64 Tensor
        Log-probability under the language model, nats.
    memory : Any
        What the evidence knows of each text; None without evidence.
    """

    tokens: Tensor
    spoken: Tensor
    memory: Any = None


class Evidence(Protocol):
    """How well texts explain a brain; what it keeps of B texts is a *memory*, whose fields have B rows."""

    def begin(self) -> Any:
        """Memory of one empty text."""
        ...

    def enter(self, memory: Any) -> Any:
        """The next window begins."""
        ...

    def read(self, memory: Any, parents: Tensor, hidden: Tensor) -> tuple[Any, Tensor]:
        """Texts ``parents`` (N,) with one more token of hidden state (N, D); their memory and log-likelihoods (N,)."""
        ...

    def keep(self, memory: Any, rows: Tensor) -> Any:
        """The memory of some of the texts."""
        ...


def shares(expected: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole numbers that follow expected ones so that sums up to every place are right to a half; negative ones count as 0.

    >>> shares(np.array([0.4, 0.4, 0.4, -1.0, 2.0])).tolist()
    [0, 1, 0, 0, 2]
    """
    total = np.floor(np.cumsum(np.maximum(expected, 0.0)) + 0.5)
    return np.diff(total, prepend=0.0).astype(np.int64)


def search(
    reader: Reader,
    counts: Sequence[int],
    settings: Search,
    vertices: Sequence[Tensor] | None = None,
    evidence: Evidence | None = None,
) -> list[int]:
    """Tokens of the best text of all windows.

    Parameters
    ----------
    counts : sequence of int, length w
        Tokens of each window.
    vertices : sequence of (1, T, V) Tensor, optional
        Response of each window, for a model with brain tokens.
    evidence : Evidence, optional
    """
    device = reader.model.device
    beam = Beam(torch.zeros(1, 0, dtype=torch.int64, device=device), torch.zeros(1, dtype=torch.float64, device=device))
    if evidence is not None:
        beam = Beam(beam.tokens, beam.spoken, evidence.begin())
    for k, count in enumerate(counts):
        if evidence is not None:
            beam = Beam(beam.tokens, beam.spoken, evidence.enter(beam.memory))
        if count:
            beam = _window(reader, beam, count, settings, None if vertices is None else vertices[k], evidence)
    return [int(token) for token in beam.tokens[0]]


def _window(reader: Reader, beam: Beam, count: int, settings: Search, vertices: Tensor | None, evidence: Evidence | None) -> Beam:
    state = reader.open(vertices, _last(beam.tokens, settings.context))
    for step in range(count):
        parents, tokens, gain = proposals(reader, state, beam.tokens, settings)
        spoken = beam.spoken[parents] + gain
        if evidence is None:
            best = _best(spoken, settings.beams)
            beam = Beam(_longer(beam.tokens, parents[best], tokens[best]), spoken[best])
            if step < count - 1:
                state = reader.read(select(state, parents[best]), tokens[best])
        else:
            state = reader.read(select(state, parents), tokens)
            memory, likelihood = evidence.read(beam.memory, parents, state.hidden)
            best = _best(spoken + likelihood, settings.beams)
            beam = Beam(_longer(beam.tokens, parents[best], tokens[best]), spoken[best], evidence.keep(memory, best))
            state = select(state, best)
    return beam


def sample(reader: Reader, counts: Sequence[int], settings: Search, n_texts: int, seed: int) -> list[list[int]]:
    """Tokens of texts by the language model alone: every next token is drawn from its proposals.

    All have as many tokens in every window as a text that is searched for with the same counts, and the same proposals.
    """
    random = torch.Generator().manual_seed(seed)
    texts = torch.zeros(n_texts, 0, dtype=torch.int64, device=reader.model.device)
    for count in counts:
        if not count:
            continue
        state = reader.open(None, _last(texts, settings.context))
        for _ in range(count):
            parents, tokens, gain = proposals(reader, state, texts, settings, ranked=False)
            drawn = torch.stack([_drawn(torch.nonzero(parents == i)[:, 0], gain, random) for i in range(n_texts)])
            texts = _longer(texts, parents[drawn], tokens[drawn])
            state = reader.read(state, tokens[drawn])
    return [[int(token) for token in row] for row in texts]


def proposals(
    reader: Reader, state: State, texts: Tensor, settings: Search, ranked: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """What each text may go on with.

    Parameters
    ----------
    texts : (B, n) int64 Tensor
        Best first.
    ranked : bool
        Whether texts behind the best one have fewer proposals.

    Returns
    -------
    parents, tokens : (N,) int64 Tensor
        Text, and its next token; at least one a text, the likeliest first.
    gain : (N,) float64 Tensor
        Log-probability of the token among those that are text.
    """
    logits = state.logits.double().masked_fill(~reader.is_text, -torch.inf)
    gains, order = torch.log_softmax(logits, dim=1).topk(min(settings.extensions + settings.context, int(reader.is_text.sum())))
    inside = (gains.exp().cumsum(1) - gains.exp()) < settings.mass
    found: list[tuple[int, int, float]] = []
    for i in range(len(texts)):
        most = -(-settings.extensions * (len(texts) - i) // len(texts)) if ranked else settings.extensions
        barred = _followers([int(token) for token in _last(texts[i : i + 1], settings.context)[0]])
        fresh = [place for place, token in enumerate(order[i].tolist()) if token not in barred] or [0]
        chosen = [place for place in fresh if inside[i, place]][:most] or fresh[:1]
        found += [(i, int(order[i, place]), float(gains[i, place])) for place in chosen]
    parents, tokens, gain = zip(*found, strict=True)
    device = texts.device
    return (
        torch.tensor(parents, device=device),
        torch.tensor(tokens, device=device),
        torch.tensor(gain, dtype=torch.float64, device=device),
    )


def window_texts(tokens: Sequence[int], counts: Sequence[int], tokenizer: Any) -> list[str]:
    """Words of each window; a word that goes on in the next window belongs to the one that it begins in."""
    ends = np.cumsum(counts)
    words = decode(tokens, tokenizer).split()
    places = [0, *(len(decode(tokens[:end], tokenizer).split()) for end in ends[:-1]), len(words)]
    return [" ".join(words[first:last]) for first, last in zip(places[:-1], places[1:], strict=True)]


def _followers(context: list[int]) -> set[int]:
    """Tokens that have followed the last token before.

    >>> sorted(_followers([5, 1, 7, 5, 2, 5]))
    [1, 2]
    """
    return {after for before, after in zip(context[:-1], context[1:], strict=True) if before == context[-1]}


def _last(texts: Tensor, n: int) -> Tensor:
    return texts[:, max(0, texts.shape[1] - n) :]


def _longer(texts: Tensor, parents: Tensor, tokens: Tensor) -> Tensor:
    return torch.cat([texts[parents], tokens[:, None]], dim=1)


def _best(scores: Tensor, n: int) -> Tensor:
    """Places of the n highest scores, highest first; of equal ones the first."""
    return torch.argsort(scores, descending=True, stable=True)[:n]


def _drawn(places: Tensor, gain: Tensor, random: torch.Generator) -> Tensor:
    weights = torch.softmax(gain[places], dim=0)
    return places[torch.multinomial(weights.cpu(), 1, generator=random).to(places.device)][0]
