"""Places in words: what a word does to a value, how far it stands out in a place, and how sure the best one is.

- A *word* is a whole word of the training texts, or a value of a factor in a table of facts. Words that no text tells apart,
  since they come together or not at all, are one ("by river").
- The *use* of words (m, W) says which of m texts has which.
- The *effect* (S, W) of a word in a place: by how much a value of the place (a gain in log-probability, a response) is larger for
  texts with the word than for those without, all other words being equal.
- *Reference places* are those that are known to say nothing of texts. What words do there is the noise of a decoder that found
  something in everything.
- The *standing* (S, W) of a word in a place: its effect there in standard deviations of its effects in the reference places,
  from their mean. The best word of a place has the largest one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.types import Bools, Ints
from bids_brainlm.language.stimuli import named, words

Array = NDArray[np.float64]

PRIOR = 0.1
"""Weight, in texts, of one more use of every word that had no effect: texts may hardly tell two words apart, and the values of a
factor of which every text has one they tell from each other alone."""

FEWEST = 10
"""Fewest reference places; with less of them all places serve, and nothing is tested."""


@dataclass(frozen=True)
class Vocabulary:
    """Words by which places are named.

    Parameters
    ----------
    words : tuple (W) of str
    factors : tuple (W) of str
        Of which factor each is a value; empty for words of the texts.
    names : tuple (W) of tuples of str
        What a text has that uses it, one of them as whole words.
    """

    words: tuple[str, ...]
    factors: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]

    def uses(self, texts: Sequence[str]) -> Array:
        """(m, W) 1 where a text uses a word, else 0."""
        column = {key: i for i, key in enumerate(zip(self.factors, self.words, strict=True))}
        first = {names[0]: word for word, names, factor in zip(self.words, self.names, self.factors, strict=True) if not factor}
        values = _by_factor(self)
        out = np.zeros((len(texts), len(self.words)))
        for row, text in zip(out, texts, strict=True):
            found = [("", first[word]) for word in set(words(text)) & first.keys()]
            found += [(factor, value) for factor, names in values.items() for value in named(text, names)]
            row[[column[key] for key in found]] = 1.0
        return out

    def shares(self, references: Sequence[Sequence[str]]) -> Array:
        """(n, W) share of the texts of each of n examples that use a word."""
        known = sorted({text for own in references for text in own})
        place, uses = {text: i for i, text in enumerate(known)}, self.uses(known)
        return np.array([uses[[place[text] for text in own]].mean(axis=0) for own in references])


def _by_factor(vocabulary: Vocabulary) -> dict[str, dict[str, tuple[str, ...]]]:
    out: dict[str, dict[str, tuple[str, ...]]] = {}
    for word, factor, names in zip(vocabulary.words, vocabulary.factors, vocabulary.names, strict=True):
        if factor:
            out.setdefault(factor, {})[word] = names
    return out


def vocabulary_of(
    references: Sequence[Sequence[str]], facts: Mapping[str, Mapping[str, tuple[str, ...]]] | None = None, least: int = 10
) -> Vocabulary:
    """Words that some of the examples use, and not all of them.

    Parameters
    ----------
    references : sequence (n) of sequences of str
        Texts of each example.
    facts : mapping of factor to value to names, optional
        Values are the words then; otherwise whole words are.
    least : int
        Fewest examples that use a word, and that do not.

    Raises
    ------
    ValueError
        When there are not two such words.
    """
    rows = [(value, factor, names) for factor, values in (facts or {}).items() for value, names in values.items()]
    if facts is None:
        known = Counter(word for own in references for word in dict.fromkeys(word for text in own for word in words(text)))
        rows = [(word, "", (word,)) for word, n in known.items() if n >= least]
    every = Vocabulary(*map(tuple, zip(*rows, strict=True))) if rows else Vocabulary((), (), ())
    used = every.shares(references) if rows else np.zeros((len(references), 0))
    n = (used > 0).sum(axis=0)
    found = np.flatnonzero((n >= least) & ((used < 1).sum(axis=0) >= least))
    kept = _joined(every, used, found) if facts is None else [rows[i] for i in found]
    if len(kept) < 2:
        raise ValueError(f"{len(kept)} word(s) that {least} examples use and {least} do not; two are needed")
    return Vocabulary(*map(tuple, zip(*kept, strict=True)))


def _joined(every: Vocabulary, used: Array, found: Ints) -> list[tuple[str, str, tuple[str, ...]]]:
    """Words of which every example has the same share are one, in the order in which texts have them."""
    together: dict[bytes, list[str]] = {}
    for i in found:
        together.setdefault(used[:, i].tobytes(), []).append(every.words[i])
    return [(" ".join(own), "", (own[0],)) for own in together.values()]


def chosen(uses: Array, n: int, seed: int = 0) -> Ints:
    """Texts (k,), k at most n, that use every word about equally often: one after the other that with the rarest words so far.

    Parameters
    ----------
    uses : (m, W) float64
    """
    left, count, out = np.random.default_rng(seed).permutation(len(uses)), np.zeros(uses.shape[1]), []
    for _ in range(min(n, len(uses))):
        # A text with many words is no better than one with few.
        gain = (uses[left] / (1 + count)).sum(axis=1) / np.maximum(uses[left].sum(axis=1), 1)
        best = int(gain.argmax())
        out.append(left[best])
        count += uses[left[best]]
        left = np.delete(left, best)
    return np.sort(np.array(out, dtype=np.int64))


def effects(uses: Array, values: Array, weights: Array | None = None) -> Array:
    """Effect of each word on the value of each place: regression on all words at once, with an intercept and `PRIOR`.

    Parameters
    ----------
    uses : (m, W) float64
    values : (m, S) float64
        One of each text and place.
    weights : (m,) float64, optional
        How often each text counts.

    Returns
    -------
    (S, W) float64
        In the unit of the values.
    """
    weight = (np.ones(len(uses)) if weights is None else weights)[:, None]
    total = weight.sum()
    centred = uses - (weight * uses).sum(axis=0) / total
    inner = centred.T @ (weight * centred) + PRIOR * np.eye(uses.shape[1])
    # Weighted and centred words take the mean of the values off by themselves.
    return np.asarray(np.linalg.solve(inner, (weight * centred).T @ values).T)


def standing(found: Array, reference: Bools) -> Array:
    """(S, W) effects relative to mean and standard deviation of each word over the reference places; 0 where these are all alike.

    Fewer than `FEWEST` reference places are not enough, and all places serve.
    """
    of = found[reference] if reference.sum() >= FEWEST else found
    spread = of.std(axis=0)
    return np.asarray(np.divide(found - of.mean(axis=0), spread, out=np.zeros_like(found), where=spread > 0))


def standing_p(found: Array, reference: Bools) -> Array:
    """(S, W) how often a word stands as high in a reference place: rank among the standings of all words in all of them.

    nan everywhere with fewer than `FEWEST` reference places.
    """
    if reference.sum() < FEWEST:
        return np.full(found.shape, np.nan)
    null = np.sort(found[reference], axis=None)
    reached = null.size - np.searchsorted(null, found - 1e-12)
    return np.asarray((1 + reached) / (1 + null.size))


def stability(best: Ints, samples: Iterable[Array]) -> Array:
    """(S,) share of samples, each (S, W) standings, in which the best word of a place is ``best`` (S,)."""
    hits = [sample.argmax(axis=1) == best for sample in samples]
    return np.asarray(np.mean(hits, axis=0), dtype=np.float64)


def draws(groups: NDArray[np.generic], n: int, seed: int) -> Array:
    """(n, m) how often each of m items counts in each of n bootstrap samples of whole groups (m,)."""
    code = np.unique(groups, return_inverse=True)[1]
    n_groups = int(code.max()) + 1
    counts = np.random.default_rng(seed).multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n)
    return np.asarray(counts[:, code], dtype=np.float64)


def agreement(left: Array, right: Array) -> Array:
    """(S,) Spearman correlation over words of two standings (S, W); nan where either is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(values, axis=1) for values in (left, right)]
    one, two = (values - values.mean(axis=1, keepdims=True) for values in ranks)
    size = np.sqrt((one**2).sum(axis=1) * (two**2).sum(axis=1))
    return np.asarray(np.divide((one * two).sum(axis=1), size, out=np.full(len(left), np.nan), where=size > 0))
