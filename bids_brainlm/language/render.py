"""Prompts as token ids: which are trained on, and where the brain tokens go.

- A *rendering* of a prompt is a row of token ids. Some positions are *slots*, whose embeddings the brain tokens replace, and
  some are *trained*: the model learns to predict the token that stands there from everything before it.
- A *style* lays out brain, context and answer. ``chat`` (CorText) asks in the user's turn of the tokenizer's chat template and
  trains on the assistant's turn; ``continuation`` (BrainLLM) lets the answer carry on from the context.
- An *end token* closes the answer. It is trained on, so that generation stops (`stop_ids`).
- *Control tokens* are those that structure a prompt (``<|im_end|>``, ``<think>``). Only a style writes them: a context or an
  answer that spells one out is tokenised as ordinary characters, so that no stimulus text can end a turn or open another.
- A *conversation* is several contexts with their answers, the last of which is still to come. ``chat`` writes a turn of each,
  with the brain before the first; in any other style they are one running text.

Without its answer a rendering is a prefix of the one with it, token by token; what is generated from is what was trained on.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jinja2 import TemplateError

from bids_brainlm.core.types import Bools, Ints, Prompt
from bids_brainlm.errors import InputError
from bids_brainlm.registry import prompt_styles

CHAT = "chat"
"""The style that asks and answers."""

FIXED_DATE = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"
"""Put before a chat template, hides the clock from it."""


class Tokenizer(Protocol):
    """What is asked of a tokenizer; those of Hugging Face have it."""

    bos_token_id: Any
    eos_token_id: Any
    pad_token_id: Any
    chat_template: Any
    name_or_path: Any

    def __len__(self) -> int: ...

    def __hash__(self) -> int: ...

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]: ...

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: Any, *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> Any: ...

    def get_chat_template(self) -> str: ...

    def apply_chat_template(self, conversation: Any, *, tokenize: bool, chat_template: str) -> Any: ...


@dataclass(frozen=True, eq=False)
class Rendered:
    """One prompt, tokenised.

    Parameters
    ----------
    ids : (L,) int64
        Token ids; any valid id stands in a slot.
    train : (L,) bool
        Tokens that the model learns to predict.
    slot : (L,) bool
        Positions that brain tokens fill, in order.

    Raises
    ------
    ValueError
        When lengths differ or a position is both trained on and a slot.
    """

    ids: Ints
    train: Bools
    slot: Bools

    def __post_init__(self) -> None:
        for name, kind in (("ids", np.int64), ("train", np.bool_), ("slot", np.bool_)):
            array = np.array(getattr(self, name), dtype=kind)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.ids.ndim != 1 or not self.ids.shape == self.train.shape == self.slot.shape:
            raise ValueError(f"ids {self.ids.shape}, train {self.train.shape} and slot {self.slot.shape}; expected (L,) all")
        both = np.flatnonzero(self.train & self.slot)
        if both.size:
            raise ValueError(f"position {both[0]} is both trained on and a slot")


Style = Callable[[Prompt, Any, int, bool], Rendered]


def render(prompt: Prompt, tokenizer: Tokenizer, n_slots: int, style: str, with_answer: bool = True) -> Rendered:
    """Lay out a prompt in a registered style.

    Parameters
    ----------
    prompt : Prompt
    tokenizer : Tokenizer
    n_slots : int
        Brain tokens K; 0 for a prompt without a brain.
    style : str
        Name among ``registry.prompt_styles``.
    with_answer : bool
        False for the prompt that an answer is generated from.

    Raises
    ------
    ValueError
        When the style does not make ``n_slots`` slots.
    """
    out: Rendered = prompt_styles.get(style)(prompt, tokenizer, n_slots, with_answer)
    if int(out.slot.sum()) != n_slots:
        raise ValueError(f"the prompt style {style!r} made {int(out.slot.sum())} slots for {n_slots} brain tokens")
    return out


def render_conversation(
    turns: Sequence[Prompt], tokenizer: Tokenizer, n_slots: int, style: str, with_answer: bool = True
) -> Rendered:
    """Lay out a conversation; only the last answer is trained on.

    Parameters
    ----------
    turns : sequence of Prompt
        At least one; a single one is laid out as `render` does.
    tokenizer, n_slots, style, with_answer
        As in `render`.
    """
    if has_turns(style, tokenizer):
        return _in_turns(turns, tokenizer, n_slots, with_answer)
    return render(as_one_text(turns, style), tokenizer, n_slots, style, with_answer)


def as_one_text(turns: Sequence[Prompt], style: str) -> Prompt:
    """A conversation as a single prompt, whose context is all that was said before the last answer.

    >>> as_one_text([Prompt("A fox", "runs."), Prompt("It", "sleeps.")], "continuation").context
    'A fox runs. It'
    """
    *earlier, last = turns
    said = [text.strip() for turn in earlier for text in (turn.context, turn.answer)]
    told = [text for text in [*said, last.context if style != CHAT else last.context.strip()] if text]
    return Prompt(("\n" if style == CHAT else " ").join(told), last.answer)


def has_turns(style: str, tokenizer: Tokenizer) -> bool:
    """Whether a conversation has turns; otherwise it is one text."""
    return style == CHAT and bool(tokenizer.chat_template)


@prompt_styles.register(CHAT)
def chat(prompt: Prompt, tokenizer: Tokenizer, n_slots: int, with_answer: bool) -> Rendered:
    """Brain and question in the user's turn, the answer in the assistant's (CorText, Bosch et al. 2025).

    Where a chat template begins the assistant's turn with more than a header (an empty ``<think>`` block, say) or the
    conversation with a system prompt, so does the rendering. White space around context and answer is dropped, as most templates
    do. A tokenizer without a template gets ``[BOS] [slots] context "\\n" answer EOS``.

    Raises
    ------
    InputError
        When the template fails, does not keep the two turns, or nothing ends the answer.
    """
    if not tokenizer.chat_template:
        context = prompt.context.strip()
        separator = "\n" if context else ""
        return _plain(context + separator, prompt.answer.strip(), tokenizer, n_slots, with_answer)
    return _in_turns([prompt], tokenizer, n_slots, with_answer)


@prompt_styles.register("continuation")
def continuation(prompt: Prompt, tokenizer: Tokenizer, n_slots: int, with_answer: bool) -> Rendered:
    """``[BOS] [slots] context answer [EOS]``: the answer carries on from the context (BrainLLM, Ye et al. 2025).

    BOS and EOS where the tokenizer has them; EOS is trained on. A space stands between context and answer unless the context
    ends in white space; it belongs to the answer, whose first token it is part of in most vocabularies.
    """
    context = prompt.context.rstrip()
    gap = prompt.context[len(context) :] or (" " if context and not prompt.answer[:1].isspace() else "")
    return _plain(context, gap + prompt.answer, tokenizer, n_slots, with_answer)


def stop_ids(tokenizer: Tokenizer, style: str) -> tuple[int, ...]:
    """Tokens that end an answer: the one that the style trains on last, and the tokenizer's end of text.

    Raises
    ------
    InputError
        When there is none.
    """
    sample = render(Prompt("a", "a"), tokenizer, 0, style)
    last = [int(token) for token in sample.ids[sample.train][-1:] if int(token) in _controls(tokenizer, len(tokenizer))]
    stops = tuple(dict.fromkeys(last + _eos(tokenizer)))
    if not stops:
        raise _endless(tokenizer)
    return stops


def control_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens that structure a prompt; every other one is text."""
    return frozenset(_controls(tokenizer, len(tokenizer)))


def decode(ids: Iterable[int], tokenizer: Tokenizer) -> str:
    """Text of generated ids, without special tokens and without white space around it."""
    text: str = tokenizer.decode([int(i) for i in ids], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.strip()


def _plain(context: str, answer: str, tokenizer: Tokenizer, n_slots: int, with_answer: bool) -> Rendered:
    before = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    if not (before or n_slots or context):
        # The first token of the answer needs something to be predicted from.
        before = _eos(tokenizer, required=True)
    after = _encode(context, tokenizer, user=True, first=True)
    joint = _encode(context + answer, tokenizer, user=True, first=True)
    # The answer's own tokens as they are after this context, unless the two share a token: the prompt must stay a prefix.
    tail = joint[len(after) :] if joint[: len(after)] == after else _encode(answer, tokenizer, user=True)
    return _assemble(before, n_slots, after, tail + _eos(tokenizer), tokenizer, with_answer)


def _in_turns(turns: Sequence[Prompt], tokenizer: Tokenizer, n_slots: int, with_answer: bool) -> Rendered:
    *pieces, end = _template(tokenizer, len(turns))
    said = _spaced(pieces, [text.strip() for turn in turns for text in (turn.context, turn.answer)])
    (head, first), *others = said
    before, after = _encode(head, tokenizer, first=True), _encode(first, tokenizer, user=True, first=not head)
    for piece, text in others[:-1]:
        after += _encode(piece, tokenizer) + _encode(text, tokenizer, user=True)
    middle, answer = others[-1]
    after += _encode(middle, tokenizer)
    ending = _until_control(_encode(end, tokenizer), tokenizer) or _eos(tokenizer, required=True)
    return _assemble(before, n_slots, after, _encode(answer, tokenizer, user=True) + ending, tokenizer, with_answer)


def _spaced(pieces: Sequence[str], texts: Sequence[str]) -> list[tuple[str, str]]:
    """What a template writes before each text, and the text; a space between them belongs to the latter.

    It is part of the next word in most vocabularies. An empty text leaves it to what follows.
    """
    out, left = [], ""
    for k, (piece, text) in enumerate(zip(pieces, texts, strict=True), start=1):
        piece, text = _space_to_next(left + piece, text)
        text, left = (text, "") if text.strip() or k == len(texts) else ("", text)
        out.append((piece, text))
    return out


def _assemble(
    before: list[int], n_slots: int, after: list[int], answer: list[int], tokenizer: Tokenizer, with_answer: bool
) -> Rendered:
    fillers = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, 0)
    filler = next(int(token) for token in fillers if token is not None)
    answer = answer if with_answer else []
    ids = np.array(before + [filler] * n_slots + after + answer, dtype=np.int64)
    position = np.arange(len(ids))
    slot = (position >= len(before)) & (position < len(before) + n_slots)
    return Rendered(ids, position >= len(ids) - len(answer), slot)


def _template(tokenizer: Tokenizer, n_turns: int) -> list[str]:
    """What a chat template writes before, between and after the texts of some turns."""
    # Letters only, so that no template trims, splits or escapes them.
    marks = [f"BRAINLM{'X' * k}{who}" for k in range(n_turns) for who in ("USERTURN", "ANSWER")]
    turns = [{"role": role, "content": mark} for role, mark in zip(("user", "assistant") * n_turns, marks, strict=True)]
    try:
        text: str = tokenizer.apply_chat_template(turns, tokenize=False, chat_template=_undated(tokenizer.get_chat_template()))
    except (TemplateError, ValueError) as error:
        raise InputError(
            f"the chat template fails ({error})", tokenizer.name_or_path, remedy="use the style continuation"
        ) from error
    if re.findall("|".join(marks), text) != marks:
        raise InputError(
            "the chat template does not write each turn once", tokenizer.name_or_path, remedy="use the style continuation"
        )
    return re.split("|".join(marks), text)


def _undated(template: str) -> str:
    # Some templates write today's date into the system prompt; a model trained yesterday must be asked the same today.
    return FIXED_DATE + template if "strftime_now" in template else template


def _space_to_next(text: str, following: str) -> tuple[str, str]:
    bare = text.rstrip(" ")
    return bare, text[len(bare) :] + following


def _until_control(ids: list[int], tokenizer: Tokenizer) -> list[int]:
    """Up to and with the first control token; empty when there is none."""
    controls = _controls(tokenizer, len(tokenizer))
    return next((ids[: i + 1] for i, token in enumerate(ids) if token in controls), [])


def _eos(tokenizer: Tokenizer, required: bool = False) -> list[int]:
    if tokenizer.eos_token_id is None and required:
        raise _endless(tokenizer)
    return [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]


def _endless(tokenizer: Tokenizer) -> InputError:
    return InputError(
        "no token ends an answer",
        tokenizer.name_or_path,
        expected="an end-of-text token",
        remedy="set eos_token of the tokenizer",
    )


def _encode(text: str, tokenizer: Tokenizer, *, user: bool = False, first: bool = False) -> list[int]:
    """Ids of a piece of a prompt; ``user`` text never becomes a control token."""
    if not text:
        return []
    if user:
        return _encode_user(text, tokenizer, first)
    return _encode_raw(text, tokenizer, user=False, first=first)


def _encode_raw(text: str, tokenizer: Tokenizer, *, user: bool, first: bool) -> list[int]:
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=user)
    if first:
        return ids
    # SentencePiece puts a space before whatever it takes for the start of a text; behind a line break it does not.
    anchor = tokenizer.encode("\n", add_special_tokens=False, split_special_tokens=user)
    joint = tokenizer.encode("\n" + text, add_special_tokens=False, split_special_tokens=user)
    return joint[len(anchor) :] if joint[: len(anchor)] == anchor else ids


def _encode_user(text: str, tokenizer: Tokenizer, first: bool) -> list[int]:
    controls = _controls(tokenizer, len(tokenizer))
    ids = _encode_raw(text, tokenizer, user=True, first=first)
    if not controls.keys() & set(ids):
        return ids
    # Not every control token is marked special (<think> is not), and only special ones are split by the tokenizer itself.
    ids = _encode_pieces(_broken(text, controls.values()), tokenizer, first)
    return ids if not controls.keys() & set(ids) else _encode_pieces(list(text), tokenizer, first)


def _encode_pieces(pieces: Sequence[str], tokenizer: Tokenizer, first: bool) -> list[int]:
    out: list[int] = []
    for i, piece in enumerate(pieces):
        out += _encode_raw(piece, tokenizer, user=True, first=first and i == 0)
    return out


def _broken(text: str, spellings: Iterable[str]) -> list[str]:
    """Cut a text after the first character of every control token that it spells.

    >>> _broken("a <think> b", ["<think>"])
    ['a <', 'think> b']
    """
    cuts = "|".join(f"(?<={re.escape(name[0])})(?={re.escape(name[1:])})" for name in spellings if len(name) > 1)
    return [piece for piece in re.split(cuts, text) if piece]


@functools.lru_cache(maxsize=4)
def _controls(tokenizer: Tokenizer, n_tokens: int) -> dict[int, str]:
    """Control tokens, id -> spelling: added tokens but white space and, unless they are special, plain words.

    ``n_tokens`` is the tokenizer's length: adding a token makes the cache forget.
    """
    return {
        int(token): added.content
        for token, added in tokenizer.added_tokens_decoder.items()
        if added.special or any(not (c.isalnum() or c.isspace() or c == "▁") for c in added.content)
    }
