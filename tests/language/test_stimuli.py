"""Words, facts and passages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_brainlm.language.stimuli import named, normalise, passages, states, words

CAPTIONS = ["a red bird on a fence", "two dogs run", "blue fish swim in the deep sea", "cat"]


@given(st.text())
def test_words_are_lower_case_idempotent_and_within_the_text(text: str) -> None:
    out = words(text)
    assert words(" ".join(out)) == out
    assert all(word == word.lower() and not any(c.isspace() for c in word) for word in out)
    assert normalise(normalise(text)) == normalise(text)


def test_words_of_other_scripts() -> None:
    assert words("Ελλάδα, привет! हिन्दी") == ["ελλάδα", "привет", "हिन्दी"]
    assert words("cafe\u0301") == words("café")
    assert words("'quoted' -- rock'n'roll…") == ["quoted", "rock'n'roll"]
    assert words("") == []


def test_facts_are_whole_words_and_phrases() -> None:
    colours = {"red": ("red", "crimson"), "dark red": ("dark red",), "blue": ("blue",)}
    assert named("A hundred bored birds", colours) == set()
    assert named("CRIMSON sky", colours) == {"red"}
    assert named("a dark  red-ish bird", colours) == {"dark red"}
    assert named("dark blue", colours) == {"blue"}
    assert named("dark red, then red", colours) == {"dark red", "red"}
    assert named("", colours) == set()
    assert named("red", {"warm": ("red",), "loud": ("red",)}) == {"warm", "loud"}
    assert named("red", {"none": ("", "!"), "red": ("red",)}) == {"red"}


def test_a_text_that_names_two_values_states_neither() -> None:
    colours = {"red": ("red",), "blue": ("blue",)}
    assert states("the red bird", "red", colours)
    for text in ("a red and blue bird", "a bird", "a blue bird"):
        assert not states(text, "red", colours)


@given(
    seed=st.integers(0, 50),
    bag=st.tuples(st.integers(0, 3), st.integers(3, 9)),
    extra=st.tuples(st.integers(0, 2), st.integers(2, 30)),
    repeats=st.tuples(st.integers(1, 2), st.integers(2, 3)),
)
def test_bags_are_incomplete_and_distractors_foreign(
    seed: int, bag: tuple[int, int], extra: tuple[int, int], repeats: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    out = passages(CAPTIONS, rng, bag_size=bag, n_distractors=extra, repeats=repeats, left_out=("a", "the"))
    assert [p.answer for p in out] == CAPTIONS
    everything = {word for caption in CAPTIONS for word in words(caption)} - {"a", "the"}
    for prompt in out:
        own = set(words(prompt.answer)) - {"a", "the"}
        counts = {word: prompt.context.split().count(word) for word in prompt.context.split()}
        kept, foreign = own & counts.keys(), counts.keys() - own
        assert min(bag[0], max(len(own) - 1, 1)) <= len(kept) <= min(bag[1], max(len(own) - 1, 1))
        assert all(repeats[0] <= counts[word] <= repeats[1] for word in kept)
        assert foreign <= everything
        assert all(counts[word] == 1 for word in foreign)
        assert min(extra[0], len(everything - own)) <= len(foreign) <= extra[1]


def test_bags_are_shuffled_and_follow_the_seed() -> None:
    texts = ["one two three four five six seven eight"] * 40
    first, again = (passages(texts, np.random.default_rng(1), bag_size=(7, 7)) for _ in range(2))
    assert first == again
    assert passages(texts, np.random.default_rng(2), bag_size=(7, 7)) != first
    heads = [prompt.context.split()[0] for prompt in first]
    assert len(set(heads)) == 8
    # Every word is left out about equally often: 40 draws of one of eight.
    left = [next(iter(set(words(texts[0])) - set(p.context.split()))) for p in first]
    assert max(np.unique(left, return_counts=True)[1]) < 14


def test_falling_ranges_are_refused() -> None:
    for bad in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="expected 0 <= low <= high"):
            passages(CAPTIONS, np.random.default_rng(0), n_distractors=bad)
    assert passages([], np.random.default_rng(0)) == []
