"""Which windows are learned from and which are reconstructed, against sets of rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bids_brainlm.core.types import Examples, Prompt, Recording, Split
from bids_brainlm.evaluation.story.rate import word_rates
from bids_brainlm.evaluation.story.tellings import Telling, by_story, divided, held_rows, responses, stretches

SILENT, EARLY = {4, 9, 10, 19}, {0}


def _story(name: str, run: int) -> Telling:
    """Twenty windows of 2 s at a TR of 2 s, T = 2; nobody speaks in four of them, and the first has no context."""
    texts = tuple("" if k in SILENT else f"{name} {k}" for k in range(20))
    volumes = 30 * run + np.arange(30)
    rows = 30 * run + np.arange(20)[:, None] + [1, 2]
    return Telling(name, f"run{run}", texts, rows, volumes, np.arange(30), np.full(20, ""))


@pytest.fixture
def tellings() -> tuple[Telling, ...]:
    return tuple(_story(name, run) for run, name in enumerate(("hare", "fox", "owl", "hare")))


@pytest.fixture
def examples(tellings: tuple[Telling, ...]) -> Examples:
    data = np.random.default_rng(0).standard_normal((120, 5)).astype(np.float32)
    recording = Recording(data, "standard deviations", "bold", 2.0 * np.arange(120), np.repeat(np.arange(4), 30))
    found = [(t, k) for t in tellings for k in range(20) if k not in SILENT | EARLY]
    stories = np.array([t.story for t, _ in found])
    return Examples(
        recording,
        np.array([t.rows[k] for t, k in found]),
        tuple(Prompt("", t.texts[k]) for t, k in found),
        tuple((t.texts[k],) for t, k in found),
        stories,
        np.array([f"{t.story}/{k:04d}" for t, k in found]),
        np.array([f"{t.run}/{k}" for t, k in found]),
    )


def _parts(tellings: tuple[Telling, ...], split: Split) -> list[Telling]:
    return [divided(t, split, [f"{t.story}/{k:04d}" for k in range(20)], i) for i, t in enumerate(tellings)]


def _split(examples: Examples, **parts: Any) -> Split:
    index = {name: np.flatnonzero(mask) for name, mask in parts.items()}
    return Split(examples, *(index.get(name, np.zeros(0, np.int64)) for name in ("train", "validation", "test")))


def test_a_test_story_is_reconstructed_whole(tellings: tuple[Telling, ...], examples: Examples) -> None:
    stories = examples.group
    split = _split(examples, train=stories == "fox", validation=stories == "owl", test=stories == "hare")
    found = _parts(tellings, split)
    assert [set(t.part) for t in found] == [{"test"}, {"train"}, {"validation"}, {"test"}]
    whole = [stretch for t in found for stretch in stretches(t)]
    assert [(s.telling.run, s.first, s.last) for s in whole] == [("run0", 0, 20), ("run3", 0, 20)]
    assert whole[0].texts == tellings[0].texts


def test_a_window_at_a_border_belongs_to_nobody(tellings: tuple[Telling, ...], examples: Examples) -> None:
    """Windows 1-8 of the hare are test and 12-18 training; 11 was purged, 9 and 10 are silent between them."""
    numbers = np.array([int(name.split("/")[1]) for name in examples.stimulus])
    hare = examples.group == "hare"
    examples = dataclasses.replace(examples, group=examples.stimulus)
    split = _split(examples, train=hare & (numbers >= 12), test=hare & (numbers <= 8))
    first, fox, _, _ = _parts(tellings, split)
    assert first.part.tolist() == ["test"] * 9 + [""] * 3 + ["train"] * 8
    assert set(fox.part) == {""}  # nobody learns from a story that is in no part, silences included
    assert [(s.first, s.last) for s in stretches(first)] == [(0, 9)]
    held = held_rows(split)
    assert not np.isin(first.rows[first.learnable(held)], held).any()
    assert first.learnable(held).tolist() == [False] * 12 + [True] * 8


def test_windows_beyond_the_run_are_not_decoded(tellings: tuple[Telling, ...], examples: Examples) -> None:
    rows = tellings[0].rows.copy()
    rows[15:] = -1
    stories = examples.group
    short = Telling(
        "hare", "run0", tellings[0].texts, rows, tellings[0].volumes, tellings[0].window, np.full(20, "test")
    )  # fmt: skip
    assert [(s.first, s.last) for s in stretches(short)] == [(0, 15)]
    assert stories.size


def test_responses_are_rows(examples: Examples) -> None:
    rows = np.array([[3, 4], [4, 5], [100, 2]])
    found = responses(examples.recording, rows, slice(1, 4))
    np.testing.assert_array_equal(found, examples.recording.data[:, 1:4][rows])


def test_stories_are_kept_together_and_few_of_them_in_fifths(tellings: tuple[Telling, ...]) -> None:
    everything = np.arange(20)
    three = by_story(tellings, {0: everything[:1], 1: everything, 2: everything[:3]})
    assert three.tolist() == ["hare"] + ["fox"] * 20 + ["owl"] * 3
    two = by_story(tellings, {0: everything, 1: everything[:1], 2: everything[:0], 3: everything[:8]})
    assert two.tolist() == [f"hare/{k // 4}" for k in range(20)] + ["fox/0"] + ["hare/0"] * 4 + ["hare/1"] * 4


def test_lengths_must_agree(tellings: tuple[Telling, ...]) -> None:
    one = tellings[0]
    with pytest.raises(ValueError, match="19 texts"):
        Telling(one.story, one.run, one.texts[1:], one.rows, one.volumes, one.window, one.part)


def test_the_rate_of_words_is_told_from_responses_that_follow_it(make_world: Callable[..., Any]) -> None:
    world = make_world(noise=0.1, n_stories=6)
    test = world.tellings[-1]
    rates = word_rates(world.recording, world.tellings, world.held(), test.rows)
    spoken = np.array([len(text.split()) for text in test.texts])
    assert np.corrcoef(rates, spoken)[0, 1] > 0.9
    assert abs(rates.mean() - spoken.mean()) < 0.3
    # Silent windows are learned from as well: they are predicted to be so.
    assert rates[spoken == 0].mean() < 0.7


def test_no_response_to_the_test_story_bears_on_the_rate_but_its_own(make_world: Callable[..., Any]) -> None:
    world = make_world(noise=0.1)
    test = world.tellings[-1]
    wanted = test.rows[:5]
    first = word_rates(world.recording, world.tellings, world.held(), wanted)
    data = np.array(world.recording.data)
    others = np.setdiff1d(test.volumes, wanted)
    data[others] = 1e3
    changed = Recording(data, "", "bold", world.recording.onset, world.recording.run)
    np.testing.assert_array_equal(word_rates(changed, world.tellings, world.held(), wanted), first)


def test_noise_tells_the_mean_rate(make_world: Callable[..., Any]) -> None:
    world = make_world(n_stories=6)
    noise = np.random.default_rng(2).standard_normal(world.recording.data.shape).astype(np.float32)
    changed = Recording(noise, "", "bold", world.recording.onset, world.recording.run)
    rates = word_rates(changed, world.tellings, world.held(), world.tellings[-1].rows)
    mean = np.mean([len(text.split()) for t in world.tellings[:-1] for text in t.texts])
    assert np.abs(rates - mean).max() < 0.5


def test_a_rate_needs_training_windows(make_world: Callable[..., Any]) -> None:
    world = make_world(n_stories=1)
    with pytest.raises(ValueError, match="0 training windows"):
        word_rates(world.recording, world.tellings, world.held(), world.tellings[0].rows)
