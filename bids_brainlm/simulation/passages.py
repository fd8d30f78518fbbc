"""Passages: sentences that hang together, so that what was said before tells part of what comes.

- A passage has a *state*: who it is about, where they are, and a thing with its colour. Every sentence tells a part of the
  state and may change some of it. A word that tells what the state holds already is *carried over*; whoever knows the sentences
  before can expect it.
- A *surprise* is another word of the same factor where one is carried over. The state follows: from then on the passage is
  about that word.
- A *word* has a *meaning*, one (factor, value), or none, as pronouns and other function words do.
- A passage *opens* with a (person, place, colour, thing); passages with one opening tell about the same things.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from bids_brainlm.simulation.world import FACTORS as PICTURED
from bids_brainlm.simulation.world import PHRASES

PRONOUNS = {"girl": "she", "queen": "she", "nurse": "she", "boy": "he", "king": "he", "farmer": "he"}
"""People, and how they are called once they are known."""

FACTORS: dict[str, tuple[str, ...]] = {
    "person": tuple(PRONOUNS),
    "action": ("painted", "dropped", "washed", "kicked", "hid", "broke"),
    "thing": ("ball", "book", "lamp", "apple", "hat", "drum"),
    "attribute": tuple(PICTURED["attribute"]),
    "place": tuple(PICTURED["place"]),
}
"""Factor -> its words."""

OPENING = ("person", "place", "attribute", "thing")
"""What the state holds."""

SENTENCES = {
    "act": ("{who} {action} the {thing}", "{who} {action} a {new_attribute} {new_thing}", "then {who} {action} it {new_where}"),
    "tell": ("the {thing} was {new_attribute}", "it was a {attribute} {thing}"),
    "stay": ("{who} stayed {where} with a {new_thing}", "{who} was still {where}"),
    "move": ("then {who} went {new_where} with the {thing}", "{who} took a {new_thing} and went {new_where}"),
    "meet": ("there came a {new_person} who {action} the {thing}", "a {new_person} {action} a {new_attribute} {new_thing}"),
}
"""Kind of sentence -> its templates. ``new_`` is drawn afresh, all else but actions is carried over."""

FIRST = ("one day a {new_person} was {new_where}", "there was a {new_person} {new_where}")
SECOND = ("{who} saw a {new_attribute} {new_thing}", "{who} had a {new_attribute} {new_thing}")


@dataclass(frozen=True)
class Word:
    """One word of a passage.

    Parameters
    ----------
    text : str
    meaning : (factor, value) or None
    surprising : bool
        Whether another word was to be expected.
    """

    text: str
    meaning: tuple[str, str] | None = None
    surprising: bool = False


@dataclass(frozen=True)
class Passage:
    """Sentences about the same things.

    Parameters
    ----------
    opening : tuple of str
        Person, place, colour and thing that it begins with.
    sentences : tuple of tuples of Word
    """

    opening: tuple[str, ...]
    sentences: tuple[tuple[Word, ...], ...]

    @property
    def text(self) -> str:
        return " ".join(word.text for sentence in self.sentences for word in sentence)


def parts_of(n: int, rng: np.random.Generator) -> list[str]:
    """Part of the split of each of n passages or stories: a fifth is for test, a tenth for validation, at least one each."""
    n_test, n_validation = max(1, round(0.2 * n)), max(1, round(0.1 * n))
    parts = np.array(["train"] * n, dtype="<U10")
    order = rng.permutation(n)
    parts[order[:n_test]], parts[order[n_test : n_test + n_validation]] = "test", "validation"
    return [str(part) for part in parts]


def tell(n_sentences: int, rng: np.random.Generator, surprise: float = 0.2, barred: Collection[tuple[str, ...]] = ()) -> Passage:
    """Tell one passage.

    Parameters
    ----------
    n_sentences : int
        At least 2.
    rng : numpy.random.Generator
    surprise : float
        Probability that a word which would be carried over is another one.
    barred : collection of openings
        None of these is told.

    Raises
    ------
    ValueError
        For fewer than 2 sentences, a probability outside 0 to 1, or when every opening is barred.
    """
    if n_sentences < 2 or not 0 <= surprise <= 1:
        raise ValueError(f"{n_sentences} sentence(s) with surprises at {surprise:g}; expected at least 2, and 0 to 1")
    if len(set(barred)) >= np.prod([len(FACTORS[factor]) for factor in OPENING]):
        raise ValueError("every opening is barred")
    while (opening := tuple(_draw(FACTORS[factor], rng) for factor in OPENING)) in barred:
        pass
    teller = _Teller(dict(zip(OPENING, opening, strict=True)), surprise, rng)
    templates = [_draw(FIRST, rng), _draw(SECOND, rng)]
    sentences = [teller.sentence(template, opening=True) for template in templates]
    kinds = [kind for kind in SENTENCES for _ in range(3 if kind == "act" else 1)]
    sentences += [teller.sentence(_draw(SENTENCES[_draw(kinds, rng)], rng)) for _ in range(n_sentences - 2)]
    return Passage(opening, tuple(sentences))


class _Teller:
    """Fills templates from a state, and changes it."""

    def __init__(self, state: dict[str, str], surprise: float, rng: np.random.Generator) -> None:
        self.state, self.surprise, self.rng = state, surprise, rng

    def sentence(self, template: str, opening: bool = False) -> tuple[Word, ...]:
        """The words of one sentence; in an opening ``new_`` is what the state holds already."""
        out: list[Word] = []
        for part in template.split():
            out += self._part(part.strip("{}"), opening) if part.startswith("{") else [Word(part)]
        return tuple(out)

    def _part(self, slot: str, opening: bool) -> list[Word]:
        new, name = slot.startswith("new_"), slot.removeprefix("new_")
        if name == "who":
            return self._who()
        if name == "action":
            action = _draw(FACTORS["action"], self.rng)
            return [Word(action, ("action", action))]
        factor = "place" if name == "where" else name
        surprising = False
        if new and not opening:
            self.state[factor] = self._another(factor)
        elif not new and self.rng.random() < self.surprise:
            self.state[factor], surprising = self._another(factor), True
        value = self.state[factor]
        before = PHRASES[value].split()[:-1] if name == "where" else []
        return [*map(Word, before), Word(value, (factor, value), surprising)]

    def _who(self) -> list[Word]:
        """A pronoun, or the person by name, who may come as a surprise."""
        if self.rng.random() < 0.5:
            return [Word(PRONOUNS[self.state["person"]])]
        return [Word("the"), *self._part("person", False)]

    def _another(self, factor: str) -> str:
        return _draw([word for word in FACTORS[factor] if word != self.state[factor]], self.rng)


def _draw(items: Collection[str], rng: np.random.Generator) -> str:
    return list(items)[int(rng.integers(len(items)))]
