"""A judge whose answers are planted: both orders, strict reading, counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bids_brainlm.errors import MissingResourceError
from bids_brainlm.evaluation.judge import HIGHEST, LONGEST, RUBRIC, Judge, asking, judged, load_judge, parsed
from bids_brainlm.evaluation.metrics import get
from bids_brainlm.stages.evaluate import not_run

Speaker = Callable[[str], tuple[Any, Any]]


def planted(answers: dict[tuple[str, str], str], asked: list[tuple[str, str]] | None = None) -> Judge:
    def ask(question: str) -> str:
        first, second = (part.split("-----\n")[1].rstrip("\n") for part in question.split(" description:\n")[1:])
        if asked is not None:
            asked.append((first, second))
        return answers[first, second]

    return Judge(ask, "org/model", "abc")


def test_both_orders_are_asked_once_and_agreement_is_of_pairs_of_different_texts() -> None:
    asked: list[tuple[str, str]] = []
    answers = {
        ("a", "b"): "1",
        ("b", "a"): "2",
        ("a", "c"): "3",
        ("c", "a"): "3",
        ("a", "a"): "4",
        ("d", "b"): "no",
        ("b", "d"): "4",
    }
    judge = planted(answers, asked)
    texts, right = ["a", "a", "", "d", "a"], [("b", "c"), ("a",), ("b",), ("b",), ("b",)]
    np.testing.assert_array_equal(get("judge")(texts, right, judge=judge), [3, 4, 0, np.nan, 1.5])
    np.testing.assert_array_equal(judged(texts, right, judge), [3, 4, 0, np.nan, 1.5])
    assert len(asked) == len(set(asked)) == 7
    report = judge.report
    assert (report["Model"], report["Revision"], report["Rubric"]) == ("org/model", "abc", RUBRIC)
    assert (report["Answers"], report["Unparsable"], report["Agreement"]) == (7, 1, 0.5)
    assert Judge(lambda question: "4").report["Agreement"] is None


@pytest.mark.parametrize("answer", ["3.", "Score: 3", "5", "-1", "33", "", "3 4", "٣", "three", "3\n\nbecause"])
def test_what_is_not_one_digit_of_the_scale_is_unparsable(answer: str) -> None:
    assert np.isnan(parsed(answer))


def test_the_rubric_names_every_score_and_texts_are_not_filled_in_again() -> None:
    assert [line[0] for line in RUBRIC.splitlines() if line[1:2] == ":"] == [str(n) for n in range(HIGHEST + 1)]
    seen: list[str] = []
    Judge(lambda question: seen.append(question) or "0").score("$second costs $5", "other")
    assert "$second costs $5" in seen[0]
    assert seen[0].index("$second") < seen[0].index("other")
    assert seen[1].index("other") < seen[1].index("$second")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_model_is_asked_in_its_chat_template_without_sampling(
    family: str, speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    brain, tokenizer = speaker(family)
    given: dict[str, Any] = {}

    def generate(input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        given.update(options, prompt=tokenizer.decode(input_ids[0]))
        answer = tokenizer("3", add_special_tokens=False, return_tensors="pt")["input_ids"]
        return torch.cat([input_ids, answer, torch.tensor([options["eos_token_id"][:1]])], dim=1)

    monkeypatch.setattr(brain.llm, "generate", generate)
    judge = Judge(asking(brain.llm, tokenizer))
    assert judge.score("a dog", "the cat") == 3
    assert "the cat" in given["prompt"]
    assert (given["do_sample"], given["num_beams"], given["max_new_tokens"]) == (False, 1, LONGEST)


def test_a_random_model_gives_the_same_answer_again(speaker: Speaker) -> None:
    ask = asking(speaker("llama")[0].llm, speaker("llama")[1])
    assert ask("How much?") == ask("How much?")


def test_a_judge_that_is_not_here_is_said(tmp_path: Path) -> None:
    assert "--judge" in not_run([get("judge")], {})["judge"]
    with pytest.raises(MissingResourceError):
        load_judge(str(tmp_path))
