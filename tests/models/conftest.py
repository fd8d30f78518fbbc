"""Tiny random language models of several families, saved as folders and loaded like any other."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
)

WIDTH, LAYERS, HEADS, KV_HEADS, HEAD_DIM, INNER = 32, 2, 4, 2, 16, 48
GROUPED = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "intermediate_size": INNER,
    "max_position_embeddings": 256,
}
CONFIGS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "gpt2": (GPT2Config, {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 256}),
    "gpt_neox": (GPTNeoXConfig, {k: v for k, v in GROUPED.items() if k not in ("num_key_value_heads", "head_dim")}),
    "llama": (LlamaConfig, GROUPED),
    "qwen2": (Qwen2Config, {k: v for k, v in GROUPED.items() if k != "head_dim"}),
    "qwen3": (Qwen3Config, GROUPED),
    "gemma": (GemmaConfig, GROUPED),
    "gemma2": (Gemma2Config, GROUPED),
    "gemma3": (Gemma3TextConfig, GROUPED),
}
FAMILIES = tuple(CONFIGS)
# What each family is usually seen with: template, beginning-of-text token, tied embeddings.
USUAL = {
    "gpt2": (None, True, True),
    "gpt_neox": (None, False, False),
    "llama": ("dated", True, False),
    "qwen3": ("thinking", False, True),
}


def _tokenizer(chat: str | None, bos: bool) -> Any:
    path = Path(__file__).parents[1] / "language" / "tiny.py"
    spec = importlib.util.spec_from_file_location("brainlm_tiny", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.tokenizer(chat=chat, bos=bos)


def tiny_llm(family: str, folder: Path, *, tied: bool | None = None, bos: bool | None = None, chat: str | None = "usual") -> Path:
    """Save a random model with its tokenizer.

    Parameters
    ----------
    family : name among FAMILIES
    folder : Path
    tied, bos : bool, optional
        Whether input and output embeddings are one matrix; whether the tokenizer has a beginning-of-text token.
    chat : str or None
        ``chatml``, ``thinking``, ``gemma``, ``dated``, ``bare``, None for no template, or what is usual for the family.
    """
    template, usual_bos, usual_tied = USUAL.get(family, ("gemma", True, True) if "gemma" in family else ("chatml", False, False))
    tokenizer = _tokenizer(template if chat == "usual" else chat, usual_bos if bos is None else bos)
    kind, sizes = CONFIGS[family]
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = kind(vocab_size=len(tokenizer), tie_word_embeddings=usual_tied if tied is None else tied, **sizes, **ids)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms away from 1, biases away from 0: otherwise a forgotten one could not be seen.
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_llm(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``make_llm(family, tied=..., bos=..., chat=...)`` -> folder; equal arguments share one, so copy it before changing it."""
    number = itertools.count()

    @lru_cache
    def make(family: str, **options: Any) -> Path:
        return tiny_llm(family, tmp_path_factory.mktemp(f"{family}{next(number)}"), **options)

    return make


@pytest.fixture(scope="session", params=FAMILIES)
def llm_folder(request: pytest.FixtureRequest, make_llm: Callable[..., Path]) -> Path:
    """Folder of a tiny model, one family after the other."""
    return make_llm(request.param)
