"""Prompts that are cut keep whole words, as many as fit, and at the right end."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from bids_brainlm.core.types import Prompt
from bids_brainlm.language.limits import Limits, shortened
from bids_brainlm.language.render import render

CONTEXT = "the sun sets in the park while two dogs run"
ANSWER = "along a wooden fence in the picture"


@pytest.fixture(scope="module", params=["bytes", "spaces"])
def tokenizer(request: pytest.FixtureRequest, tiny: ModuleType) -> Any:
    return tiny.tokenizer(kind=request.param)


def n_tokens(text: str, tokenizer: Any) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False))


def test_as_many_words_are_kept_as_fit_and_no_token_more(tokenizer: Any) -> None:
    words, said = CONTEXT.split(), ANSWER.split()
    seen = set()
    for limit in range(1, n_tokens(CONTEXT, tokenizer) + 2):
        fit = [k for k in range(1, len(words) + 1) if n_tokens(" ".join(words[-k:]), tokenizer) <= limit]
        old = [k for k in range(1, len(words) + 1) if n_tokens(" ".join(words[:k]), tokenizer) <= limit]
        first = [k for k in range(1, len(said) + 1) if n_tokens(" ".join(said[:k]), tokenizer) <= limit]
        if not (fit and old and first):
            continue
        prompt = Prompt(CONTEXT, ANSWER)
        assert shortened(prompt, Limits(limit, limit), tokenizer) == Prompt(
            " ".join(words[-max(fit) :]), " ".join(said[: max(first)])
        )
        assert shortened(prompt, Limits(limit, oldest=True), tokenizer) == Prompt(" ".join(words[: max(old)]), ANSWER)
        seen.add(max(fit))
    assert len(seen) > 5


def test_what_fits_is_left_as_it_is_and_0_is_no_limit(tokenizer: Any) -> None:
    prompt = Prompt("two  dogs ", " run")
    assert shortened(prompt, Limits(), tokenizer) == prompt
    assert shortened(prompt, Limits(n_tokens(prompt.context, tokenizer), n_tokens(prompt.answer, tokenizer)), tokenizer) == prompt
    assert shortened(Prompt("", "dogs"), Limits(1, 50), tokenizer).context == ""


def test_a_text_without_blanks_is_cut_between_characters(tokenizer: Any) -> None:
    text = "sunsetsinthepark"
    cut = shortened(Prompt(text, text), Limits(4, 4), tokenizer)
    assert 0 < len(cut.context) < len(text)
    assert text.endswith(cut.context)
    assert text.startswith(cut.answer)
    assert max(n_tokens(cut.context, tokenizer), n_tokens(cut.answer, tokenizer)) <= 4


def test_a_cut_prompt_has_so_many_tokens_when_it_is_laid_out(tiny: ModuleType) -> None:
    tokenizer = tiny.tokenizer()
    rendered = render(shortened(Prompt(CONTEXT, ANSWER), Limits(12, 9), tokenizer), tokenizer, 2, "continuation")
    context = ~rendered.train & ~rendered.slot
    assert 8 < context.sum() - 1 <= 12  # and the token that begins a text
    # The blank before the answer may be a token of its own; the last one ends the text.
    assert 5 < rendered.train.sum() - 1 <= 10
