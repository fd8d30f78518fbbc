"""Words whose probability is read off: what a factor could be said to be, at the place where texts say what it is.

- A *word* is a value of a factor (`bids_brainlm.evaluation.metrics.Facts`) or one of a list of the user's; the other values of
  the factor are its *rivals*.
- A *phrase* is a name of a word with what always stands before it in the training texts: "on the beach", since a place is told
  with the preposition that it wants; but "dog", since anything may stand before that.
- A *frame* is the beginning of a text up to where a phrase of the factor stands: of a text of the trial itself where one has it,
  otherwise of a training text. It is the same for a word and its rivals.

The log-probability of a word in a frame is that of any of its phrases coming next: log of the sum of their probabilities. What
comes behind does not matter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from bids_brainlm.core.types import Examples, Prompt
from bids_brainlm.language.render import Rendered, render

Doubles = NDArray[np.float64]

ALWAYS = 0.95
"""Share of a word's places at which one and the same word stands before it, above which that one belongs to the phrase."""

NEXT = " and"
"""Shows where the tokens of a text end: what it has in common with a longer one."""


@dataclass(frozen=True)
class Word:
    """A value of a factor, its names, and the phrases by which texts say them."""

    factor: str
    label: str
    names: tuple[str, ...]
    phrases: tuple[str, ...]


def words_of(vocabulary: Mapping[str, Mapping[str, Sequence[str]]], texts: Sequence[str]) -> tuple[Word, ...]:
    """Words of every factor, with phrases as they stand in texts.

    Parameters
    ----------
    vocabulary : mapping of factor to mapping of label to names
        As `bids_brainlm.evaluation.metrics.Facts.vocabulary` gives it.
    texts : sequence of str
        Training texts.

    Examples
    --------
    >>> texts = ["a dog on the beach", "on the beach a cat", "in the park a dog", "the cat in the park"]
    >>> [word.phrases for word in words_of({"place": {"beach": ["beach"], "park": ["park"]}, "it": {"dog": ["dog"]}}, texts)]
    [('on the beach',), ('in the park',), ('a dog',)]
    """
    return tuple(
        Word(factor, label, tuple(names), tuple(dict.fromkeys(_phrase(name, texts) for name in names)))
        for factor, values in vocabulary.items()
        for label, names in values.items()
    )


def _phrase(name: str, texts: Sequence[str]) -> str:
    befores = [text[: found.start()].split() for text in texts for found in _places(name, text)]
    said = name.split()
    while befores:
        last = [before[-1] if before else "" for before in befores]
        word, count = Counter(map(str.casefold, last)).most_common(1)[0]
        if not word or count < ALWAYS * len(befores):
            break
        # In the spelling that is most common: a text may begin with it.
        said = [Counter(item for item in last if item.casefold() == word).most_common(1)[0][0], *said]
        befores = [before[:-1] for before in befores if before and before[-1].casefold() == word]
    return " ".join(said)


def _places(phrase: str, text: str) -> Iterable[re.Match[str]]:
    """Where a phrase stands in a text as whole words, in any case."""
    return re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, flags=re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Framed:
    """What is scored for some bases.

    Parameters
    ----------
    words : tuple (W) of Word
    texts : tuple (n) of tuple of Rendered
        One a phrase, words in order; only the tokens of the phrase are trained.
    frames : tuple (n) of dict of factor to str
        The text that stands before.
    """

    words: tuple[Word, ...]
    texts: tuple[tuple[Rendered, ...], ...]
    frames: tuple[dict[str, str], ...]

    def log_probability(self, nll: Doubles) -> Doubles:
        """(..., W) log-probability of words, in nats, from the NLL (..., phrases) of their phrases."""
        ends = np.cumsum([len(word.phrases) for word in self.words])
        parts = np.split(-np.asarray(nll), ends[:-1], axis=-1)
        return np.stack([logsumexp(part, axis=-1) for part in parts], axis=-1)


def framed(
    words: Sequence[Word], bases: Examples, training: Sequence[str], text: Any, n_slots: int, style: str, seed: int = 0
) -> Framed:
    """Put every word into a frame of every base.

    Parameters
    ----------
    words : sequence (W) of Word
    bases : Examples
        Their contexts are asked, and frames are cut from their references.
    training : sequence of str
        Texts that frames are cut from where a base has none for a factor; one is drawn.
    text : Any
        Tokenizer of the language model.
    n_slots : int
        Brain tokens K.
    style : str
        Prompt style.
    """
    factors = list(dict.fromkeys(word.factor for word in words))
    phrases = {factor: [p for word in words if word.factor == factor for p in word.phrases] for factor in factors}
    pools = {factor: _befores(phrases[factor], training) for factor in factors}
    rng = np.random.default_rng(seed)
    texts, frames = [], []
    for prompt, references in zip(bases.prompts, bases.references, strict=True):
        drawn = {factor: pool[int(rng.integers(len(pool)))] if pool else "" for factor, pool in pools.items()}
        own = {factor: next(iter(_befores(phrases[factor], references)), drawn[factor]) for factor in factors}
        cut = [_cut(prompt.context, own[word.factor], phrase, text, n_slots, style) for word in words for phrase in word.phrases]
        texts.append(tuple(cut))
        frames.append(own)
    return Framed(tuple(words), tuple(texts), tuple(frames))


def _befores(phrases: Sequence[str], texts: Iterable[str]) -> list[str]:
    """What stands before the first phrase of each text that has one."""
    found = [[place.start() for phrase in phrases for place in _places(phrase, text)] for text in texts]
    return [text[: min(starts)].rstrip() for text, starts in zip(texts, found, strict=True) if starts]


def _cut(context: str, before: str, phrase: str, text: Any, n_slots: int, style: str) -> Rendered:
    """The prompt up to the end of the phrase, whose tokens alone are trained."""
    said = f"{before} {phrase}" if before else phrase
    whole = render(Prompt(context, said), text, n_slots, style)
    start, end = (_reach(context, answer, text, n_slots, style) for answer in (before, said))
    shared = _common(render(Prompt(context, before), text, n_slots, style), whole) if before else start
    place = np.arange(end)
    return Rendered(whole.ids[:end], place >= min(start, shared), whole.slot[:end])


def _reach(context: str, answer: str, text: Any, n_slots: int, style: str) -> int:
    """Number of tokens of a prompt and the beginning of its answer, without what ends an answer."""
    if not answer:
        return len(render(Prompt(context, answer), text, n_slots, style, with_answer=False).ids)
    one, other = (render(Prompt(context, item), text, n_slots, style) for item in (answer, answer + NEXT))
    return _common(one, other)


def _common(one: Rendered, other: Rendered) -> int:
    n = min(len(one.ids), len(other.ids))
    return int(np.append(one.ids[:n] == other.ids[:n], False).argmin())
