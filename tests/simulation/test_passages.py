"""Passages hang together: what is carried over can be expected, unless it is a surprise."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainlm.simulation.passages import FACTORS, OPENING, PRONOUNS, Passage, tell


def told(n: int, surprise: float, seed: int = 0) -> list[Passage]:
    rng = np.random.default_rng(seed)
    return [tell(8, rng, surprise) for _ in range(n)]


def test_a_passage_opens_with_what_it_says_it_opens_with() -> None:
    for passage in told(50, 0.0):
        first = [word.meaning for sentence in passage.sentences[:2] for word in sentence if word.meaning]
        assert set(first) - {("person", passage.opening[0])} == set(zip(OPENING[1:], passage.opening[1:], strict=True))


def test_without_surprises_only_new_words_change_the_state() -> None:
    """A person or thing that "the" stands before is the one that was last told of."""
    for passage in told(100, 0.0):
        state: dict[str, str] = {}
        for sentence in passage.sentences:
            texts = [word.text for word in sentence]
            for place, word in enumerate(sentence):
                if word.meaning is None:
                    continue
                factor, value = word.meaning
                carried = word.text in ("she", "he", "it") or (
                    place and texts[place - 1] == "the" and factor in ("person", "thing")
                )
                if carried:
                    assert state[factor] == value, passage.text
                state[factor] = value
        assert not any(word.surprising for sentence in passage.sentences for word in sentence)


def test_surprises_come_as_often_as_asked_for_and_are_other_words() -> None:
    carried, surprising = 0, 0
    for passage in told(300, 0.3):
        state: dict[str, str] = {}
        for sentence in passage.sentences:
            for word in sentence:
                if word.meaning is None:
                    continue
                factor, value = word.meaning
                if word.surprising:
                    surprising += 1
                    assert state.get(factor) != value
                carried += (
                    factor != "action" and word.text not in PRONOUNS.values() and word.text != "it" and state.get(factor) == value
                )
                state[factor] = value
    assert surprising / (carried + surprising) == pytest.approx(0.3, abs=0.03)


def test_pronouns_agree_with_whom_they_stand_for() -> None:
    for passage in told(100, 0.5):
        person = ""
        for sentence in passage.sentences:
            for word in sentence:
                person = word.meaning[1] if word.meaning and word.meaning[0] == "person" else person
                if word.text in ("she", "he"):
                    assert PRONOUNS[person] == word.text


def test_every_meaning_is_a_word_of_its_factor_and_words_have_one_meaning() -> None:
    names = [word for words in FACTORS.values() for word in words]
    assert len(names) == len(set(names)) == 30
    said = {word for passage in told(300, 0.2) for sentence in passage.sentences for word in sentence}
    assert {word.meaning for word in said if word.meaning} == {(f, w) for f, words in FACTORS.items() for w in words}
    assert all(word.text == word.meaning[1] for word in said if word.meaning)


def test_barred_openings_are_not_told() -> None:
    rng = np.random.default_rng(0)
    free = ("girl", "beach", "red", "ball")
    every = {
        (p, w, a, t) for p in FACTORS["person"] for w in FACTORS["place"] for a in FACTORS["attribute"] for t in FACTORS["thing"]
    }
    assert tell(2, rng, 0.2, every - {free}).opening == free
    with pytest.raises(ValueError, match="every opening is barred"):
        tell(2, rng, 0.2, every)


@pytest.mark.parametrize(("n", "surprise"), [(1, 0.2), (4, -0.1), (4, 1.5)])
def test_what_makes_no_passage_is_refused(n: int, surprise: float) -> None:
    with pytest.raises(ValueError, match="expected at least 2, and 0 to 1"):
        tell(n, np.random.default_rng(0), surprise)
