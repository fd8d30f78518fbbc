"""What is said in a text: its words, the facts it names, and passages that teach a language model to be told what to say.

- A *word* is a run of letters, digits and marks, apostrophes within it included; compared in lower case.
- A *factor* (colour, animal, place) has *values*, each with one or more *names*. A text *names* a value when it contains one of
  its names as whole words; the longest name wins where several overlap ("fire truck" is no "fire"). Negation is not understood.
- A *passage* is a bag of words and then a caption. A language model trained on bare captions takes its next word from the last
  few and cannot be steered by what precedes the text. Trained on passages that begin with a shuffled, incomplete bag of the
  caption's words plus distractors it learns to draw on such a preamble, the place where brain tokens will stand.
"""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from bids_brainlm.core.types import Prompt

Item = TypeVar("Item", bound=Hashable)


def normalise(text: str) -> str:
    """Unicode in composed form, every run of white space one space, none around.

    >>> normalise("  a\\tred\\n bird ")
    'a red bird'
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def words(text: str) -> list[str]:
    """Words of a text, in order and lower case.

    >>> words("The man's T-shirt: ÜBER 2nd, don’t")
    ['the', "man's", 't', 'shirt', 'über', '2nd', "don't"]
    """
    text = unicodedata.normalize("NFC", text).lower().replace("’", "'")
    runs = ("".join(run) for inside, run in itertools.groupby(text, _in_word) if inside)
    return [word for run in runs if (word := run.strip("'"))]


def _in_word(character: str) -> bool:
    return character == "'" or unicodedata.category(character)[0] in "LMN"


def rarity(texts: Sequence[Iterable[Item]]) -> dict[Item, float]:
    """How rare each item of texts is: log of their number by that of texts with it, both plus 1 (inverse document frequency).

    Parameters
    ----------
    texts : sequence of iterables
        Words, or token ids.

    Examples
    --------
    >>> {word: round(value, 2) for word, value in rarity([("the", "dog"), ("the", "the", "cat")]).items()}
    {'the': 0.0, 'dog': 0.41, 'cat': 0.41}
    """
    counts = Counter(item for text in texts for item in dict.fromkeys(text))
    return {item: math.log((1 + len(texts)) / (1 + n)) for item, n in counts.items()}


def named(text: str, vocabulary: Mapping[str, Sequence[str]]) -> set[str]:
    """Values of one factor that a text names.

    Parameters
    ----------
    text : str
    vocabulary : mapping of str to sequence of str
        Value -> its names, each of one or more words.

    Examples
    --------
    >>> animals = {"dog": ("dog", "puppy"), "hot dog": ("hot dog",), "cat": ("cat", "cats")}
    >>> sorted(named("The puppy's two cats", animals))
    ['cat', 'dog']
    >>> named("a hot dog and a hotdog-like category", animals)
    {'hot dog'}
    """
    owners: dict[tuple[str, ...], set[str]] = {}
    for value, names in vocabulary.items():
        for name in names:
            owners.setdefault(_stems(name), set()).add(value)
    owners.pop((), None)
    lengths = sorted({len(name) for name in owners}, reverse=True)
    stems, found, i = _stems(text), set[str](), 0
    while i < len(stems):
        step = next((n for n in lengths if stems[i : i + n] in owners), 0)
        found |= owners.get(stems[i : i + step], set())
        i += step or 1
    return found


def _stems(text: str) -> tuple[str, ...]:
    return tuple(word.removesuffix("'s") for word in words(text))


def states(text: str, value: str, vocabulary: Mapping[str, Sequence[str]]) -> bool:
    """Whether a text names this value of a factor and no other one.

    >>> colours = {"red": ("red",), "blue": ("blue",)}
    >>> states("a red bird", "red", colours), states("a red or blue bird", "red", colours), states("a bird", "red", colours)
    (True, False, False)
    """
    return named(text, vocabulary) == {value}


def passages(
    texts: Sequence[str],
    rng: np.random.Generator,
    *,
    bag_size: tuple[int, int] = (1, 6),
    n_distractors: tuple[int, int] = (0, 3),
    repeats: tuple[int, int] = (1, 1),
    left_out: Iterable[str] = (),
) -> list[Prompt]:
    """A shuffled, incomplete bag of each caption's words plus distractors, to be followed by the caption.

    Parameters
    ----------
    texts : sequence of str
        Captions; one passage each, in order.
    rng : Generator
    bag_size : (int, int)
        Smallest and largest number of the caption's distinct words in the bag; never all of them if there are two or more.
    n_distractors : (int, int)
        Smallest and largest number of distinct words of other captions that this one lacks (fewer where there are no more).
    repeats : (int, int)
        How often each of the caption's words stands in the bag; a distractor stands there once.
    left_out : iterable of str
        Words that enter no bag, e.g. function words, lower case.

    Returns
    -------
    list of Prompt
        ``context`` is the bag, lower-case words with spaces between; ``answer`` the caption, white space normalised.

    Raises
    ------
    ValueError
        For a range that is negative or falls.
    """
    for name, (low, high) in {"bag_size": bag_size, "n_distractors": n_distractors, "repeats": repeats}.items():
        if not 0 <= low <= high:
            raise ValueError(f"{name} is ({low}, {high}); expected 0 <= low <= high")
    excluded = set(left_out)
    own = [[word for word in dict.fromkeys(words(text)) if word not in excluded] for text in texts]
    pool = np.array(sorted({word for bag in own for word in bag}), dtype=object)
    out = []
    for text, vocabulary in zip(texts, own, strict=True):
        kept = _kept(vocabulary, _draw(rng, bag_size), rng)
        bag = [word for word in kept for _ in range(_draw(rng, repeats))]
        bag += _distractors(pool, set(vocabulary), _draw(rng, n_distractors), rng)
        out.append(Prompt(" ".join(bag[i] for i in rng.permutation(len(bag))), normalise(text)))
    return out


def _draw(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    return int(rng.integers(bounds[0], bounds[1] + 1))


def _kept(vocabulary: list[str], size: int, rng: np.random.Generator) -> list[str]:
    most = max(len(vocabulary) - 1, min(len(vocabulary), 1))
    return [vocabulary[i] for i in rng.permutation(len(vocabulary))[: min(size, most)]]


def _distractors(pool: np.ndarray, own: set[str], size: int, rng: np.random.Generator) -> list[str]:
    # Drawing as many more as could be the caption's own leaves enough after those are dropped.
    drawn: Iterable[str] = rng.choice(pool, size=min(size + len(own), len(pool)), replace=False) if len(pool) else []
    return [str(word) for word in drawn if word not in own][:size]
