"""A conversation that keeps what was read gives what whole prompts give, and computes new tokens alone."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bids_brainlm.core.types import Affine, Prompt
from bids_brainlm.language.render import Rendered, render_conversation
from bids_brainlm.models.backbones import LLM, load_llm, norm_parameters
from bids_brainlm.models.fusion import BrainLM, Features, collate
from bids_brainlm.models.thread import Thread

Maker = Callable[..., Path]
K, WIDTH, B = 4, 32, 5
TURNS = [
    Prompt("What is in the picture?", "A red bird."),
    Prompt("What colour is the animal?", "Red, and it sits in the park."),
    Prompt("Where?", "On a wooden fence."),
]


class Given(nn.Module):
    """Responses that are brain tokens already."""

    def __init__(self, n_tokens: int) -> None:
        super().__init__()
        self.n_tokens = n_tokens

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def brain_lm(llm: LLM, n_tokens: int = K) -> BrainLM:
    identity = Affine(np.zeros(WIDTH, np.float32), np.ones(WIDTH, np.float32), None, np.arange(2))
    return BrainLM(llm.model, Features(identity), Given(n_tokens)).eval()


def brains(n_tokens: int = K) -> torch.Tensor:
    return torch.randn(B, n_tokens, WIDTH, generator=torch.Generator().manual_seed(0))


def asked(llm: LLM, n: int, style: str, with_answer: bool = True, n_slots: int = K) -> Rendered:
    return render_conversation(TURNS[:n], llm.tokenizer, n_slots, style, with_answer)


def check(llm: LLM, style: str, n_tokens: int = K) -> None:
    """Every turn of one thread is that of whole prompts, in whatever order turns come."""
    model, given = brain_lm(llm, n_tokens), brains(n_tokens)
    thread = Thread(model, given)
    alone = Thread(model, None)
    for n in (1, 2, 3, 1, 3):
        whole, prompt = asked(llm, n, style, n_slots=n_tokens), asked(llm, n, style, with_answer=False, n_slots=n_tokens)
        thread.read(prompt)
        settings = {"stop": [0], "max_new_tokens": 6}
        wanted = model.generate(collate([prompt] * 2, given[[0, 3]].numpy(), pad_left=True), **settings)
        assert thread.generate(prompt, [0, 3], **settings) == wanted
        found = thread.nll(whole)
        torch.testing.assert_close(found, model.nll(collate([whole] * B, given.numpy())), rtol=1e-5, atol=1e-4)
        assert np.ptp(found.numpy()) > 1e-2
        bare = asked(llm, n, style, n_slots=0)
        alone.read(asked(llm, n, style, with_answer=False, n_slots=0))
        torch.testing.assert_close(alone.nll(bare), model.nll(collate([bare], None)), rtol=1e-5, atol=1e-4)


@pytest.fixture(scope="module")
def llm(llm_folder: Path) -> LLM:
    return load_llm(str(llm_folder))


@pytest.mark.parametrize("style", ["chat", "continuation"])
def test_a_thread_is_what_whole_prompts_are(llm: LLM, style: str) -> None:
    check(llm, style)


@pytest.mark.parametrize("n_tokens", [1, 12])
def test_a_sliding_window_is_no_obstacle(make_llm: Maker, tmp_path: Path, n_tokens: int) -> None:
    folder = shutil.copytree(make_llm("gemma3"), tmp_path / "llm")
    config = json.loads((folder / "config.json").read_text())
    config |= {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
    (folder / "config.json").write_text(json.dumps(config))
    check(load_llm(str(folder)), "chat", n_tokens)


def test_one_brain_token_at_the_very_start(make_llm: Maker) -> None:
    llm = load_llm(str(make_llm("gpt2", bos=False, chat=None)))
    assert asked(llm, 1, "chat", n_slots=1).slot[0]
    check(llm, "chat", 1)


@pytest.mark.parametrize("search", [{"beams": 3}, {"beams": 2, "repetition_penalty": 1.7}, {"min_new_tokens": 4}])
def test_a_search_is_that_of_whole_prompts(make_llm: Maker, search: dict[str, Any]) -> None:
    llm = load_llm(str(make_llm("llama")))
    model, given, prompt = brain_lm(llm), brains(), asked(llm, 2, "chat", with_answer=False)
    thread = Thread(model, given)
    thread.read(prompt)
    wanted = model.generate(collate([prompt] * 2, given[[4, 1]].numpy(), pad_left=True), stop=[7], max_new_tokens=8, **search)
    assert thread.generate(prompt, [4, 1], stop=[7], max_new_tokens=8, **search) == wanted


def test_only_new_tokens_are_computed(make_llm: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = load_llm(str(make_llm("llama", chat="chatml")))
    model = brain_lm(llm)
    thread = Thread(model, brains())
    seen: list[tuple[int, ...]] = []
    original = llm.model.forward

    def spy(*args: Any, **given: Any) -> Any:
        seen.append(tuple(given["inputs_embeds"].shape[:2]))
        return original(*args, **given)

    monkeypatch.setattr(llm.model, "forward", spy)
    lengths = []
    for n in (1, 2):
        prompt, whole = asked(llm, n, "chat", with_answer=False), asked(llm, n, "chat")
        thread.read(prompt)
        thread.nll(whole)
        lengths += [len(prompt.ids), len(whole.ids)]
    start = int(np.flatnonzero(prompt.slot)[-1])
    first, second = lengths[0] - 1, lengths[2] - 1
    # The brain, the rest of the first prompt, its answer; then what is new in the second prompt, and its answer.
    wanted = [start, first - start, lengths[1] - lengths[0], second - (lengths[1] - 1), lengths[3] - lengths[2]]
    assert seen == [(B, n) for n in wanted]
    # Two answers to one question, and then the first one again: each pays for itself.
    other = dataclasses.replace(TURNS[1], answer="Blue.")
    rivals = [render_conversation([TURNS[0], turn], llm.tokenizer, K, "chat") for turn in (other, TURNS[1])]
    for item in rivals:
        thread.nll(item)
    assert seen[5:] == [(B, len(item.ids) - 1 - second) for item in rivals]
    # Another conversation with the same brains begins behind them.
    thread.read(asked(llm, 1, "chat", with_answer=False))
    assert seen[7:] == [(B, first - start)]


@pytest.mark.parametrize("family", ["gpt2", "qwen3", "gemma3"])
def test_in_bf16_it_is_what_whole_prompts_are_in_bf16(make_llm: Maker, family: str) -> None:
    llm = load_llm(str(make_llm(family)), precision="bf16")
    for parameter in norm_parameters(llm.model).values():
        parameter.data = parameter.data.float()
    model, given = brain_lm(llm), brains()
    thread = Thread(model, given)
    for n in (1, 2):
        prompt, whole = asked(llm, n, "chat", with_answer=False), asked(llm, n, "chat")
        thread.read(prompt)
        assert [len(row) for row in thread.generate(prompt, [2, 0], stop=[0], max_new_tokens=3)] == [3, 3]
        wanted = model.nll(collate([whole] * B, given.numpy()))
        torch.testing.assert_close(thread.nll(whole), wanted, rtol=0.01, atol=0.2)


def test_slots_that_are_not_brain_tokens_are_refused(make_llm: Maker) -> None:
    llm = load_llm(str(make_llm("gpt2")))
    with pytest.raises(ValueError, match="4 brain tokens for a prompt with 3 slots"):
        Thread(brain_lm(llm), brains()).read(asked(llm, 1, "chat", n_slots=3))
    with pytest.raises(ValueError, match="0 brain tokens for a prompt with 4 slots"):
        Thread(brain_lm(llm), None).read(asked(llm, 1, "chat"))
