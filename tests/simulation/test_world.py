"""Facts can be read off every sentence, and the test set asks for what was never told."""

from __future__ import annotations

from collections import Counter

import pytest

from bids_brainlm.simulation import world


def named(text: str) -> dict[str, set[str]]:
    """Every word of every factor that a text names, by whole words."""
    said = set(text.split())
    return {factor: {word for word, forms in words.items() if said & set(forms)} for factor, words in world.FACTORS.items()}


@pytest.fixture(scope="module")
def shown() -> list[world.Stimulus]:
    return world.stimuli(266, seed=0)


def test_every_caption_names_its_facts_and_no_other(shown: list[world.Stimulus]) -> None:
    for stimulus in shown:
        for caption in stimulus.captions:
            assert named(caption) == {factor: {word} for factor, word in stimulus.facts.items()}
        assert len(set(stimulus.captions)) == len(stimulus.captions) >= 3


def test_answer_names_the_fact_asked_for_alone(shown: list[world.Stimulus]) -> None:
    for stimulus in shown:
        for question, answer, factor in stimulus.questions:
            assert named(answer) == {name: {stimulus.facts[name]} if name == factor else set() for name in world.FACTORS}
            assert not any(named(question).values())


def test_forms_and_function_words_do_not_collide() -> None:
    forms = [form for words in world.FACTORS.values() for forms in words.values() for form in forms]
    assert len(forms) == len(set(forms))


def test_combinations_are_unique_and_their_words_all_trained(shown: list[world.Stimulus]) -> None:
    seen = Counter(world.combination(stimulus) for stimulus in shown)
    assert set(seen.values()) == {1}
    trained = [stimulus for stimulus in shown if stimulus.split == "train"]
    for factor, words in world.FACTORS.items():
        assert {stimulus.facts[factor] for stimulus in trained} == set(words)


def test_guessing_one_word_is_right_for_one_in_six(shown: list[world.Stimulus]) -> None:
    for part in ("train", "validation", "test"):
        members = [stimulus for stimulus in shown if stimulus.split == part]
        for factor in world.FACTORS:
            counts = Counter(stimulus.facts[factor] for stimulus in members)
            assert max(counts.values()) - min(counts.get(word, 0) for word in world.FACTORS[factor]) <= 1
    assert sum(stimulus.split == "test" for stimulus in shown) == 53


def test_factors_are_not_coupled(shown: list[world.Stimulus]) -> None:
    pairs = Counter((stimulus.facts["subject"], stimulus.facts["place"]) for stimulus in shown)
    assert len(pairs) == 36
    assert max(pairs.values()) < 20


def test_corpus_never_tells_what_is_excluded(shown: list[world.Stimulus]) -> None:
    held_out = {world.combination(stimulus) for stimulus in shown if stimulus.split == "test"}
    texts = world.corpus(3000, seed=0, exclude=held_out)
    told = {tuple(next(iter(words)) for words in named(text).values()) for text in texts}
    assert len(texts) == 3000
    assert not told & held_out
    assert len(told) == 6**4 - len(held_out)


def test_seed_decides() -> None:
    assert world.stimuli(60, seed=3) == world.stimuli(60, seed=3)
    assert world.stimuli(60, seed=3) != world.stimuli(60, seed=4)
    assert world.corpus(10, seed=3) == world.corpus(10, seed=3)


@pytest.mark.parametrize("n", [3, 700])
def test_numbers_that_make_no_world_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"{n} stimuli"):
        world.stimuli(n, seed=0)
