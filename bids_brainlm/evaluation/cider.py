"""CIDEr-D of Vedantam and others (2015): n-grams in common with the references, those that few stimuli share counting most.

- The *weight* of an n-gram in a text is its count times its inverse document frequency: log of the number of stimuli of the test
  set by that of stimuli of whose references one has it (1 at least). Document frequencies are of the references alone, never of
  decoded texts, so that a text's score depends on no other decoded text.
- Likeness of a text to a reference, for n = 1 .. 4: the cosine of their weights, the text's clipped to the reference's in the
  numerator, times exp(-d**2 / 72) where the two differ by d words.
- The score is ten times the mean over n, and over the references: here alone not the best reference counts, but all of them, as
  in the paper. It goes up to 10: a text equal to its only reference, of four words or more, none of whose orders is in every
  stimulus.

Texts are lower-case whole words (`bids_brainlm.language.stimuli.words`) and not stems. With few stimuli the document frequencies
say little; scores of different test sets cannot be compared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bids_brainlm.language.stimuli import words

References = Sequence[Sequence[str]]
Ngram = tuple[str, ...]

ORDERS = (1, 2, 3, 4)
SPREAD = 6.0
"""Standard deviation, in words, of the penalty on a difference in length."""


@dataclass(frozen=True)
class Frequencies:
    """In how many stimuli n-grams occur.

    Parameters
    ----------
    n : int
        Number of stimuli.
    counts : Counter of n-gram
        Stimuli of whose references one has it.

    Examples
    --------
    >>> made = Frequencies.of([("a dog", "the dog"), ("a cat",), ("a cat",)])
    >>> made.n, made.counts["a",], made.counts["dog",], made.counts["the", "dog"]
    (2, 2, 1, 1)
    """

    n: int
    counts: Counter[Ngram]

    @classmethod
    def of(cls, references: References) -> Frequencies:
        """Of the references of a test set; those that occur again (repeats of a stimulus) count once."""
        distinct = {tuple(texts) for texts in references}
        counts = Counter(gram for texts in distinct for gram in {gram for text in texts for gram in _counted(words(text))})
        return cls(len(distinct), counts)

    def weights(self, text: Sequence[str]) -> dict[Ngram, float]:
        """N-gram -> count times inverse document frequency, of a list of words."""
        return {gram: n * math.log(self.n / max(self.counts[gram], 1)) for gram, n in _counted(text).items()}


def _counted(text: Sequence[str]) -> Counter[Ngram]:
    return Counter(tuple(text[i : i + n]) for n in ORDERS for i in range(len(text) - n + 1))


def cider(hypotheses: Sequence[str], references: References, frequencies: Frequencies) -> list[float]:
    """CIDEr-D of each text, 0 to 10, over all of its references."""
    found = []
    for text, right in zip(hypotheses, references, strict=True):
        likeness = [_likeness(words(text), words(one), frequencies) for one in right]
        found.append(10 * sum(likeness) / len(likeness))
    return found


def _likeness(text: Sequence[str], right: Sequence[str], frequencies: Frequencies) -> float:
    own, true = frequencies.weights(text), frequencies.weights(right)
    penalty = math.exp(-((len(text) - len(right)) ** 2) / (2 * SPREAD**2))
    return penalty * sum(_clipped_cosine(_of(own, n), _of(true, n)) for n in ORDERS) / len(ORDERS)


def _of(weights: dict[Ngram, float], order: int) -> dict[Ngram, float]:
    return {gram: weight for gram, weight in weights.items() if len(gram) == order}


def _clipped_cosine(own: dict[Ngram, float], true: dict[Ngram, float]) -> float:
    length = math.hypot(*own.values()) * math.hypot(*true.values())
    product = sum(min(weight, true[gram]) * true[gram] for gram, weight in own.items() if gram in true)
    return product / length if length > 0 else 0.0
