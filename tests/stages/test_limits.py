"""A limit on tokens holds wherever a decoder reads a prompt: in training, in generation and in likelihoods."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bids_brainlm.config import load
from bids_brainlm.core.types import Examples, Prompt, Recording
from bids_brainlm.language.limits import Limits
from bids_brainlm.stages import decode, decoder

CONTEXT, ANSWER = "one two three four five six", "seven eight nine"


class Words:
    """A tokenizer to which every word is a token."""

    bos_token_id, eos_token_id, pad_token_id, chat_template = 0, 1, 2, None

    def __init__(self) -> None:
        self.ids = {word: i + 3 for i, word in enumerate(f"{CONTEXT} {ANSWER}".split())}
        self.added_tokens_decoder: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.ids) + 3

    def encode(self, text: str, **_: bool) -> list[int]:
        return [self.ids[word] for word in text.split()]

    def said(self, ids: Any) -> str:
        names = {number: word for word, number in self.ids.items()}
        return " ".join(names[int(i)] for i in ids if int(i) in names)


@pytest.fixture
def examples() -> Examples:
    names = np.array(["a", "b"])
    recording = Recording(np.zeros((2, 3), np.float32), "a.u.", "beta", np.arange(2.0), np.zeros(2, np.int64))
    return Examples(recording, np.arange(2), (Prompt(CONTEXT, ANSWER),) * 2, ((ANSWER,),) * 2, names, names, names)


CASES = [
    ("0", "0", "false", CONTEXT, ANSWER),
    ("4", "2", "false", "three four five six", "seven eight"),
    ("4", "0", "true", "one two three four", ANSWER),
]


@pytest.mark.parametrize(("prompt", "answer", "oldest", "context", "said"), CASES)
def test_prompts_are_cut_in_training_and_decoding(
    examples: Examples, monkeypatch: pytest.MonkeyPatch, prompt: str, answer: str, oldest: str, context: str, said: str
) -> None:
    overrides = {"model.max_prompt_tokens": prompt, "model.max_answer_tokens": answer, "compat.oldest_prompt": oldest}
    chosen, words = load("brainllm", overrides=overrides), Words()
    for ((rendered,),) in [decoder.corpus(examples, np.array([i]), words, 2, chosen).renderings for i in range(2)]:
        assert rendered.slot.sum() == 2
        assert words.said(rendered.ids[~rendered.train & ~rendered.slot]) == context
        assert words.said(rendered.ids[rendered.train]) == said
    monkeypatch.setattr(decode, "decode_texts", lambda model, text, test, *_, **__: test)
    given: Any = SimpleNamespace(model=None, text=words)
    found: Any = decode.decoded(given, examples, chosen, compared=given, fold=0)
    assert set(found.prompts) == {Prompt(context, said)}
    assert found.references == examples.references


def test_the_recipe_after_brainllm_has_its_limits_and_no_other_has_one() -> None:
    limits = {name: decoder.limits_of(load(name)) for name in ("brainllm", "brainllm-small", "cortext", "cortext-small")}
    assert (limits["brainllm"].prompt, limits["brainllm"].answer, limits["brainllm"].oldest) == (32, 32, False)
    assert all(limits[name] == Limits() for name in limits if name != "brainllm")
