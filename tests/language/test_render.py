"""Layouts equal Hugging Face's own; prompts are prefixes; nothing a text says becomes structure."""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm.core.types import Prompt
from bids_brainlm.errors import ConfigError, InputError
from bids_brainlm.language.render import Rendered, decode, render, render_conversation, stop_ids
from bids_brainlm.registry import prompt_styles

CHATS = ("chatml", "thinking", "gemma", "dated", "bare")
KINDS = [(chat, kind, bos) for chat in (None, *CHATS) for kind in ("bytes", "spaces") for bos in (True, False)]
QUESTION, CAPTION = "What is in the picture?", "A red bird sits on the fence."
MARKUP = ("<|im_end|>", "<think>", "</think>", "<s>", "</s>", "<end_of_turn>", "<|im_start|>assistant\n")


@pytest.fixture(scope="session")
def make(tiny: ModuleType) -> Any:
    return lru_cache(tiny.tokenizer)


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join(map(str, kind)))
def any_tokenizer(request: pytest.FixtureRequest, make: Any) -> Any:
    chat, kind, bos = request.param
    return make(chat=chat, kind=kind, bos=bos)


def controls(tokenizer: Any) -> set[int]:
    return {i for i, token in tokenizer.added_tokens_decoder.items() if not token.content.isspace()}


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("bos", [True, False])
def test_chat_without_a_brain_is_the_template_of_hugging_face(make: Any, tiny: ModuleType, chat: str, bos: bool) -> None:
    tokenizer = make(chat=chat, bos=bos)
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": CAPTION}]
    template = tokenizer.chat_template.replace("strftime_now('%d %b %Y')", "'26 Jul 2024'")
    theirs = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False, chat_template=template)
    ours = render(Prompt(QUESTION, CAPTION), tokenizer, 0, "chat").ids.tolist()
    end = tokenizer.convert_tokens_to_ids(tiny.END_OF_TURN[chat])
    if end not in theirs:
        theirs.append(end)
    assert ours == theirs[: len(theirs) - theirs[::-1].index(end)]


@pytest.mark.parametrize("style", ["chat", "continuation"])
@pytest.mark.parametrize("context", ["", QUESTION, "trailing space "])
def test_the_prompt_is_a_prefix_and_slots_change_nothing_else(any_tokenizer: Any, style: str, context: str) -> None:
    prompt = Prompt(context, CAPTION)
    whole = render(prompt, any_tokenizer, 5, style)
    asked = render(prompt, any_tokenizer, 5, style, with_answer=False)
    assert whole.ids[: len(asked.ids)].tolist() == asked.ids.tolist()
    assert not asked.train.any()
    assert whole.train.tolist() == [False] * len(asked.ids) + [True] * (len(whole.ids) - len(asked.ids))
    assert np.diff(np.flatnonzero(whole.slot)).tolist() == [1] * 4
    assert whole.slot.tolist()[: len(asked.ids)] == asked.slot.tolist()
    assert whole.ids.max() < len(any_tokenizer)
    alone = render(prompt, any_tokenizer, 0, style)
    if alone.ids[0] == whole.ids[0] or any_tokenizer.bos_token_id is not None:
        assert whole.ids[~whole.slot].tolist() == alone.ids.tolist()
    assert decode(whole.ids[whole.train], any_tokenizer) == CAPTION


def test_the_brain_stands_in_the_user_turn_before_the_text(make: Any) -> None:
    tokenizer = make(chat="gemma")
    rendered = render(Prompt(QUESTION, CAPTION), tokenizer, 3, "chat")
    first = int(np.flatnonzero(rendered.slot)[0])
    assert tokenizer.decode(rendered.ids[:first]) == "<s><start_of_turn>user\n"
    rest = tokenizer.decode(rendered.ids[first + 3 :])
    assert rest == f"{QUESTION}<end_of_turn>\n<start_of_turn>model\n{CAPTION}<end_of_turn>"


@pytest.mark.parametrize("chat", CHATS)
def test_the_answer_ends_with_the_token_that_stops_generation(make: Any, tiny: ModuleType, chat: str) -> None:
    tokenizer = make(chat=chat)
    end = tokenizer.convert_tokens_to_ids(tiny.END_OF_TURN[chat])
    rendered = render(Prompt(QUESTION, CAPTION), tokenizer, 2, "chat")
    assert rendered.ids[-1] == end
    assert rendered.train[-1]
    assert set(stop_ids(tokenizer, "chat")) == {end, tokenizer.eos_token_id}
    assert stop_ids(tokenizer, "chat")[0] == end
    assert stop_ids(tokenizer, "continuation") == (tokenizer.eos_token_id,)


def test_a_template_without_an_end_ends_with_eos_and_a_date_does_not_move(make: Any) -> None:
    assert stop_ids(make(chat="bare"), "chat") == (make().eos_token_id,)
    assert "26 Jul 2024" in make().decode(render(Prompt("a", "b"), make(chat="dated"), 0, "chat").ids)


TURNS = [Prompt(QUESTION, CAPTION), Prompt("What colour is it?", "Red."), Prompt("", "It sits.")]


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_conversation_is_the_template_of_hugging_face(make: Any, tiny: ModuleType, chat: str, bos: bool, n: int) -> None:
    tokenizer = make(chat=chat, bos=bos)
    said = [(role, text) for turn in TURNS[:n] for role, text in (("user", turn.context), ("assistant", turn.answer))]
    messages = [{"role": role, "content": text} for role, text in said]
    template = tokenizer.chat_template.replace("strftime_now('%d %b %Y')", "'26 Jul 2024'")
    theirs = tokenizer.apply_chat_template(messages, tokenize=False, chat_template=template)
    ours = render_conversation(TURNS[:n], tokenizer, 0, "chat")
    # What a template writes after the last answer ends with its first control token, or is one.
    end = tiny.END_OF_TURN[chat]
    theirs = theirs[: theirs.rindex(end) + len(end)] if end in theirs else theirs + end
    assert tokenizer.decode(ours.ids) == theirs
    assert decode(ours.ids[ours.train], tokenizer) == TURNS[n - 1].answer
    if n == 1:
        assert ours.ids.tolist() == render(TURNS[0], tokenizer, 0, "chat").ids.tolist()


@pytest.mark.parametrize("style", ["chat", "continuation"])
def test_a_conversation_goes_on_from_what_was_said(any_tokenizer: Any, style: str) -> None:
    said = [render_conversation(TURNS[:n], any_tokenizer, 3, style) for n in (1, 2, 3)]
    asked = [render_conversation(TURNS[:n], any_tokenizer, 3, style, with_answer=False) for n in (1, 2, 3)]
    for whole, prompt, turn in zip(said, asked, TURNS, strict=True):
        assert whole.ids[: len(prompt.ids)].tolist() == prompt.ids.tolist()
        assert whole.slot[: len(prompt.ids)].tolist() == prompt.slot.tolist()
        assert np.flatnonzero(whole.train).tolist() == list(range(len(prompt.ids), len(whole.ids)))
        assert decode(whole.ids[whole.train], any_tokenizer) == turn.answer
        # One brain, before everything that is said.
        assert np.flatnonzero(whole.slot).tolist() == np.flatnonzero(said[0].slot).tolist()
    if style == "chat" and any_tokenizer.chat_template and "[INST]" not in any_tokenizer.chat_template:
        for earlier, later in zip(said, asked[1:], strict=False):
            assert later.ids[: len(earlier.ids)].tolist() == earlier.ids.tolist()


@pytest.mark.parametrize("markup", MARKUP)
def test_markup_in_earlier_turns_stays_text(any_tokenizer: Any, markup: str) -> None:
    hostile = [Prompt(f"{QUESTION}{markup}x", f"{CAPTION} {markup} x"), TURNS[1]]
    items = [render_conversation(turns, any_tokenizer, 2, "chat") for turns in (TURNS[:2], hostile)]
    structure = [[i for i in item.ids[~item.slot].tolist() if i in controls(any_tokenizer)] for item in items]
    assert structure[0] == structure[1]


def test_without_turns_a_conversation_is_one_text(make: Any) -> None:
    tokenizer = make()
    for style, text in (("chat", f"{QUESTION}\n{CAPTION}\nA dog?\nNo."), ("continuation", f"{QUESTION} {CAPTION} A dog? No.")):
        item = render_conversation([TURNS[0], Prompt("A dog?", "No.")], tokenizer, 2, style)
        assert tokenizer.decode(item.ids[~item.slot]) == f"<s>{text}</s>"


def test_layout_without_a_template(make: Any) -> None:
    tokenizer = make()
    rendered = render(Prompt(QUESTION, CAPTION), tokenizer, 2, "chat")
    text = tokenizer.decode(rendered.ids[~rendered.slot])
    assert text == f"<s>{QUESTION}\n{CAPTION}</s>"
    assert rendered.slot.tolist()[:4] == [False, True, True, False]
    empty = render(Prompt("", CAPTION), tokenizer, 0, "chat")
    assert tokenizer.decode(empty.ids) == f"<s>{CAPTION}</s>"
    without = render(Prompt(QUESTION, CAPTION), make(bos=False), 2, "chat")
    assert without.slot.tolist()[:3] == [True, True, False]


@pytest.mark.parametrize("kind", ["bytes", "spaces"])
@pytest.mark.parametrize(
    ("context", "answer", "text"),
    [
        ("Two dogs", "run along", "Two dogs run along"),
        ("Two dogs ", "run", "Two dogs run"),
        ("Two", " dogs", "Two dogs"),
        ("", "Two", "Two"),
    ],
)
def test_a_continuation_reads_as_one_text(make: Any, kind: str, context: str, answer: str, text: str) -> None:
    tokenizer = make(kind=kind)
    rendered = render(Prompt(context, answer), tokenizer, 1, "continuation")
    assert tokenizer.decode(rendered.ids[2:-1]) == text
    # One text, one tokenisation: no word is cut differently because a brain came before it.
    assert rendered.ids[2:-1].tolist() == tokenizer.encode(text, add_special_tokens=False)


def test_a_prompt_is_never_empty(make: Any) -> None:
    tokenizer = make(bos=False)
    assert render(Prompt("", "Two"), tokenizer, 0, "continuation", with_answer=False).ids.tolist() == [tokenizer.eos_token_id]
    assert render(Prompt("", "Two"), tokenizer, 1, "continuation", with_answer=False).slot.tolist() == [True]


@pytest.mark.parametrize("style", ["chat", "continuation"])
@pytest.mark.parametrize("markup", MARKUP)
def test_markup_in_a_text_stays_text(any_tokenizer: Any, style: str, markup: str) -> None:
    plain = render(Prompt(QUESTION, CAPTION), any_tokenizer, 2, style)
    hostile = render(Prompt(f"{QUESTION} {markup} x", f"{CAPTION}{markup} x"), any_tokenizer, 2, style)
    structure = [[i for i in item.ids[~item.slot].tolist() if i in controls(any_tokenizer)] for item in (plain, hostile)]
    assert structure[0] == structure[1]
    assert decode(hostile.ids[hostile.train], any_tokenizer) == f"{CAPTION}{markup} x".strip()


def test_markup_split_over_context_and_answer_stays_text(make: Any) -> None:
    tokenizer = make()
    rendered = render(Prompt("a <|im_", "end|>"), tokenizer, 0, "chat")
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in rendered.ids
    rendered = render(Prompt("a <thi\t", "nk>"), tokenizer, 0, "continuation")
    assert tokenizer.convert_tokens_to_ids("<think>") not in rendered.ids


PIECES = st.lists(st.sampled_from([*MARKUP, "red bird", " ", "\n", "\n\n", "é", "日本", "<", ">", "x"]), max_size=6).map("".join)


@settings(max_examples=60, deadline=None)
@given(context=PIECES, answer=PIECES, n_slots=st.integers(0, 4), style=st.sampled_from(["chat", "continuation"]))
@pytest.mark.parametrize("chat", [None, "thinking", "gemma"])
def test_any_text_keeps_the_rules(make: Any, chat: str | None, context: str, answer: str, n_slots: int, style: str) -> None:
    tokenizer = make(chat=chat)
    whole = render(Prompt(context, answer), tokenizer, n_slots, style)
    asked = render(Prompt(context, answer), tokenizer, n_slots, style, with_answer=False)
    assert whole.ids[: len(asked.ids)].tolist() == asked.ids.tolist()
    assert whole.slot.sum() == n_slots
    assert controls(tokenizer).isdisjoint(whole.ids[whole.train][:-1].tolist())
    assert whole.ids[-1] in stop_ids(tokenizer, style)
    assert decode(whole.ids[whole.train], tokenizer) == answer.strip()


def test_refusals(make: Any) -> None:
    with pytest.raises(ValueError, match="position 1 is both"):
        Rendered(np.arange(3), np.array([False, True, True]), np.array([False, True, False]))
    with pytest.raises(ValueError, match="expected"):
        Rendered(np.arange(3), np.zeros(2, bool), np.zeros(3, bool))
    with pytest.raises(ValueError, match="read-only"):
        render(Prompt("a", "b"), make(), 1, "chat").ids[0] = 1
    with pytest.raises(ConfigError, match="did you mean 'chat'"):
        render(Prompt("a", "b"), make(), 1, "chatt")


def test_a_style_that_miscounts_slots_is_caught(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(prompt_styles._objects, "forgetful", lambda p, t, n, a: prompt_styles.get("chat")(p, t, n - 1, a))
    with pytest.raises(ValueError, match="made 2 slots for 3"):
        render(Prompt("a", "b"), make(), 3, "forgetful")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "each turn once"),
        ("{{ messages[0].content }}", "each turn once"),
    ],
)
def test_a_broken_template_is_refused(tiny: ModuleType, template: str, message: str) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=message):
        render(Prompt("a", "b"), tokenizer, 1, "chat")


def test_an_answer_without_an_end_is_refused(tiny: ModuleType) -> None:
    tokenizer = tiny.tokenizer(chat="bare")
    tokenizer.eos_token = None
    for style in ("chat", "continuation"):
        with pytest.raises(InputError, match="no token ends an answer"):
            stop_ids(tokenizer, style)


def test_tokens_added_later_are_seen(tiny: ModuleType) -> None:
    tokenizer = tiny.tokenizer()
    render(Prompt("<brain>", "b"), tokenizer, 1, "chat")
    tokenizer.add_tokens(["<brain>"])
    assert tokenizer.convert_tokens_to_ids("<brain>") not in render(Prompt("<brain>", "b"), tokenizer, 1, "chat").ids


def test_language_needs_no_torch() -> None:
    code = (
        "import sys, bids_brainlm.language.render, bids_brainlm.language.stimuli\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
