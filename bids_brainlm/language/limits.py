"""Prompts of no more than so many tokens.

What is kept is whole words: the newest of a context, on which the text to come depends most, and the first of an answer. Tokens
are those of a text by itself. Where not even one word fits, as in a script without blanks, characters are kept.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bids_brainlm.core.types import Prompt
from bids_brainlm.language.render import Tokenizer


@dataclass(frozen=True)
class Limits:
    """Largest numbers of tokens.

    Parameters
    ----------
    prompt, answer : int
        Of the context and of the answer of a prompt; 0 for no limit.
    oldest : bool
        The oldest words of a context are kept, as in the released code of BrainLLM (Ye et al. 2025).
    """

    prompt: int = 0
    answer: int = 0
    oldest: bool = False


def shortened(prompt: Prompt, limits: Limits, tokenizer: Tokenizer) -> Prompt:
    """A prompt with no more tokens than the limits allow; itself where it has no more."""
    context = _fitting(prompt.context, limits.prompt, tokenizer, newest=not limits.oldest)
    return replace(prompt, context=context, answer=_fitting(prompt.answer, limits.answer, tokenizer, newest=False))


def _fitting(text: str, limit: int, tokenizer: Tokenizer, *, newest: bool) -> str:
    if not limit or _n_tokens(text, tokenizer) <= limit:
        return text
    return _longest(text.split(), " ", limit, tokenizer, newest) or _longest(list(text), "", limit, tokenizer, newest)


def _longest(pieces: Sequence[str], between: str, limit: int, tokenizer: Tokenizer, newest: bool) -> str:
    """As many of the last, or of the first, pieces of a text as fit."""

    def kept(number: int) -> str:
        return between.join(pieces[len(pieces) - number :] if newest else pieces[:number])

    numbers = range(len(pieces) + 1)
    return kept(bisect_right(numbers, limit, key=lambda number: _n_tokens(kept(number), tokenizer)) - 1)


def _n_tokens(text: str, tokenizer: Tokenizer) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
