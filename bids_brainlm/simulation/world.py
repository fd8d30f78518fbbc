"""A small world of facts, and the sentences that tell them.

- A *factor* (subject, attribute, action, place) takes one of six *words*; a *combination* holds one word of every factor.
- A *stimulus* is a combination that was shown. Its *captions* are paraphrases, each of which names all its facts, its
  *questions* ask for one fact each, in several *phrasings*.
- A word may appear in several *forms* ("runs", "running"); every form belongs to one word of one factor only, so that
  whole-word matching tells which facts a text names.

>>> one = stimuli(12, seed=0)[0]
>>> sorted(one.facts) == sorted(FACTORS)
True
>>> captions({"subject": "dog", "attribute": "red", "action": "run", "place": "beach"})[0]
'a red dog runs on the beach'
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

FACTORS: dict[str, dict[str, tuple[str, ...]]] = {
    "subject": {word: (word,) for word in ("dog", "cat", "horse", "bird", "bear", "monkey")},
    "attribute": {word: (word,) for word in ("red", "blue", "green", "white", "black", "yellow")},
    "action": {
        "run": ("runs", "running"),
        "sleep": ("sleeps", "sleeping"),
        "jump": ("jumps", "jumping"),
        "eat": ("eats", "eating"),
        "dance": ("dances", "dancing"),
        "sing": ("sings", "singing"),
    },
    "place": {word: (word,) for word in ("beach", "park", "kitchen", "bridge", "forest", "river")},
}
"""Factor -> word -> its forms in text."""

PHRASES = {
    "beach": "on the beach",
    "park": "in the park",
    "kitchen": "in the kitchen",
    "bridge": "under the bridge",
    "forest": "in the forest",
    "river": "by the river",
}
"""How a place is told."""

TEMPLATES = (
    "a {attribute} {subject} {present} {where}",
    "a {attribute} {subject} is {gerund} {where}",
    "{where} a {attribute} {subject} {present}",
    "there is a {attribute} {subject} {gerund} {where}",
)

QUESTIONS = {
    "subject": (("Which animal is it?", "What kind of animal is there?", "Name the animal."), "a {subject}"),
    "attribute": (("What colour is it?", "Which colour does it have?", "Name the colour."), "{attribute}"),
    "action": (("What is it doing?", "What is happening?", "Name what it does."), "{gerund}"),
    "place": (("Where is it?", "In what place is it?", "Name the place."), "{where}"),
}
"""Factor -> phrasings of its question, and the template of the answer."""


@dataclass(frozen=True)
class Stimulus:
    """What was shown in a trial.

    Parameters
    ----------
    id : str
    facts : dict of factor to word
    captions : tuple of str
        Paraphrases that each name every fact.
    questions : tuple of (question, answer, factor)
        Every phrasing; those of one factor one after the other.
    split : {"train", "validation", "test"}
    """

    id: str
    facts: dict[str, str]
    captions: tuple[str, ...]
    questions: tuple[tuple[str, str, str], ...]
    split: str


def captions(facts: Mapping[str, str]) -> tuple[str, ...]:
    """Every way of telling a combination in one sentence."""
    return tuple(template.format(**_slots(facts)) for template in TEMPLATES)


def questions(facts: Mapping[str, str]) -> tuple[tuple[str, str, str], ...]:
    """Every (question, answer, factor): all phrasings for each factor."""
    slots = _slots(facts)
    return tuple(
        (question, answer.format(**slots), factor) for factor, (asked, answer) in QUESTIONS.items() for question in asked
    )


def stimuli(n: int, seed: int, *, test: float = 0.2, validation: float = 0.1) -> list[Stimulus]:
    """Draw stimuli whose combinations of facts are all different.

    Within each part of the split the words of a factor are as equally frequent as the number of stimuli allows, so that
    guessing the most frequent word is right for one in six.

    Parameters
    ----------
    n : int
        Number of stimuli, at least 12 so that every word can be learned.
    seed : int
    test, validation : float
        Shares of the stimuli in the test and validation sets.

    Raises
    ------
    ValueError
        For fewer stimuli than the words need or more than there are combinations.
    """
    n_test, n_validation = round(n * test), round(n * validation)
    n_train = n - n_test - n_validation
    sizes = [len(words) for words in FACTORS.values()]
    fewest, most = max(sizes), int(np.prod(sizes)) // 2
    if n_train < fewest or n > most:
        raise ValueError(
            f"{n} stimuli, {n_train} of them for training; expected at least {fewest} for training, at most {most} in all"
        )
    rng = np.random.default_rng([seed, 1])
    taken: set[tuple[str, ...]] = set()
    parts = [(part, size) for part, size in (("train", n_train), ("validation", n_validation), ("test", n_test))]
    drawn = [(combination, part) for part, size in parts for combination in _balanced(size, taken, rng)]
    order = rng.permutation(n)  # so that the number of a stimulus says nothing about its part
    return [_stimulus(number + 1, *drawn[i]) for number, i in enumerate(order)]


def corpus(n: int, seed: int, *, exclude: Collection[tuple[str, ...]] = ()) -> list[str]:
    """Texts for a language model that has never seen the excluded combinations.

    Parameters
    ----------
    n : int
        Number of texts; combinations repeat, in other words, once all have been used.
    seed : int
    exclude : collection of combinations
        Tuples of words in the order of `FACTORS`, as `combination` gives them.
    """
    barred = set(exclude)
    everything = (_words(index) for index in np.ndindex(*(len(words) for words in FACTORS.values())))
    left = [words for words in everything if words not in barred]
    rng = np.random.default_rng([seed, 2])
    picks = np.concatenate([rng.permutation(len(left)) for _ in range(-(-n // len(left)))])[:n]
    styles = rng.integers(len(TEMPLATES), size=n)
    return [captions(dict(zip(FACTORS, left[i], strict=True)))[style] for i, style in zip(picks, styles, strict=True)]


def combination(stimulus: Stimulus) -> tuple[str, ...]:
    """The words of a stimulus in the order of `FACTORS`."""
    return tuple(stimulus.facts[factor] for factor in FACTORS)


def forms(factor: str, word: str) -> tuple[str, ...]:
    """Every form by which a text names a word."""
    return FACTORS[factor][word]


def _slots(facts: Mapping[str, str]) -> dict[str, str]:
    present, gerund = FACTORS["action"][facts["action"]]
    return {**facts, "present": present, "gerund": gerund, "where": PHRASES[facts["place"]]}


def _words(index: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(list(words)[i] for words, i in zip(FACTORS.values(), index, strict=True))


def _balanced(n: int, taken: set[tuple[str, ...]], rng: np.random.Generator) -> list[tuple[str, ...]]:
    """``n`` combinations not yet taken, with equal word counts: shuffle one factor against another until none repeats."""
    columns = [rng.permutation(np.resize(rng.permutation(list(words)), n)) for words in FACTORS.values()]
    while True:
        rows = [tuple(str(word) for word in row) for row in zip(*columns, strict=True)]
        first = {row: i for i, row in reversed(list(enumerate(rows)))}
        clash = [i for i, row in enumerate(rows) if row in taken or first[row] != i]
        if not clash:
            taken.update(rows)
            return rows
        column = columns[rng.integers(len(columns))]
        for i in clash:
            j = rng.integers(n)
            column[i], column[j] = column[j], column[i]


def _stimulus(number: int, words: tuple[str, ...], split: str) -> Stimulus:
    facts = dict(zip(FACTORS, words, strict=True))
    return Stimulus(f"stim{number:04d}", facts, captions(facts), questions(facts), split)
