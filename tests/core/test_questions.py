"""Which texts are trained on and with what probability, against counts by hand and against drawing."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bids_brainlm.core.questions import habits, held_out, kind_of, pools, seen, unmixed
from bids_brainlm.core.types import CAPTION, QUESTION, Examples, Prompt, Recording

COLOUR = ("What colour?", "Which colour?")
PROMPTS = (
    Prompt("Describe.", "a red cat", CAPTION, ("Describe.", "Tell.")),
    Prompt("What colour?", "red", "colour", COLOUR),
    Prompt("Is it red?", "yes", "colour"),
    Prompt("Where?", "here", QUESTION),
)


def test_kinds_are_categories_that_a_mix_names_and_else_two() -> None:
    assert [kind_of(prompt, {"caption": 1}) for prompt in PROMPTS] == ["caption", "question", "question", "question"]
    assert [kind_of(prompt, {"colour": 1}) for prompt in PROMPTS] == ["caption", "colour", "colour", "question"]


def test_kinds_without_a_weight_are_not_trained_on() -> None:
    assert not unmixed(PROMPTS, {}).any()
    assert unmixed(PROMPTS, {"caption": 1}).tolist() == [False, True, True, True]
    assert unmixed(PROMPTS, {"colour": 1, "question": 0.0}).tolist() == [True, False, False, True]
    with pytest.raises(ValueError, match=r"no text is of the kind 'color'; kinds: caption, colour, question"):
        unmixed(PROMPTS, {"caption": 1, "color": 1})


def test_a_question_is_left_out_in_all_its_wordings() -> None:
    """By its category, or by one wording; and what has a wording of it in another category goes too."""
    again = (*PROMPTS, Prompt("Which colour?", "red", "other"))
    assert held_out(again, []).tolist() == [False] * 5
    assert held_out(again, ["Where?"]).tolist() == [False, False, False, True, False]
    assert held_out(again, ["Which colour?"]).tolist() == [False, True, False, False, True]
    assert held_out(again, ["colour"]).tolist() == [False, True, True, False, True]
    for names in (["colour"], ["What colour?"]):
        left = held_out(again, names)
        out, kept = ([p for p, gone in zip(again, left, strict=True) if gone is flag] for flag in (np.True_, np.False_))
        assert not seen(out, kept).any()
    message = re.escape("no question or category 'size'; categories: caption, colour, other, question")
    with pytest.raises(ValueError, match=message):
        held_out(again, ["size"])


def test_chances_are_those_of_kinds_shared_by_their_texts() -> None:
    """Two responses: one with all four texts, one with a caption and a question."""
    prompts = (*PROMPTS, PROMPTS[3], PROMPTS[0])
    recording = Recording(np.zeros((2, 1), np.float32), "", "beta", np.arange(2.0), np.zeros(2, dtype=np.int64))
    names = np.array([f"e{i}" for i in range(6)])
    rows = np.array([0, 0, 0, 0, 1, 1])
    examples = Examples(recording, rows, prompts, tuple((p.answer,) for p in prompts), names, names, names)
    pool, chance = pools(examples, {"caption": 3, "question": 1})
    assert pool.tolist() == rows.tolist()
    assert chance == pytest.approx([3 / 4, 1 / 12, 1 / 12, 1 / 12, 1 / 4, 3 / 4])
    pool, chance = pools(examples, {"caption": 1, "question": 1, "colour": 2})
    assert chance == pytest.approx([1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 2, 1 / 2])


def test_habits_are_the_most_frequent_answers() -> None:
    trained = [Prompt("What colour?", answer, "colour", COLOUR) for answer in ("blue", "red", "red")]
    trained += [Prompt("Where?", "there", QUESTION) for _ in range(4)]
    asked = [*PROMPTS[1:], Prompt("How many?", "two", "number")]
    # The second has a category, the last one has neither wording nor category in training.
    assert habits(asked, trained) == ["red", "red", "there", "there"]
    assert habits([PROMPTS[3]], trained[:2]) == ["blue"]
    other = Prompt("Which colour?", "blue", "colour", COLOUR)
    assert habits([other], trained) == ["red"]
    assert seen([*asked, other], trained).tolist() == [True, False, True, False, True]
