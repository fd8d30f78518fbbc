"""A tiny language model, and eight random brains with a caption each."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from bids_brainlm.core.types import Affine, Prompt
from bids_brainlm.language.render import render
from bids_brainlm.models.backbones import load_llm
from bids_brainlm.models.fusion import Batch, BrainLM, Features, collate
from bids_brainlm.models.tokenizers import Marked
from bids_brainlm.registry import tokenizers
from bids_brainlm.training.batches import Corpus
from bids_brainlm.training.loop import fit
from bids_brainlm.training.phases import LoRA, Phases

LABELS = np.array([1, 1, 2, 0, 3, 3, 3, 2, 4], dtype=np.int32)
CAPTIONS = [
    "A red bird sits.",
    "Two dogs run.",
    "The sun sets in the park.",
    "A wooden fence.",
    "The beach.",
    "A helpful animal.",
    "What colour is it?",
    "Red dogs sit on a wooden bird.",
]
BRAINS = np.random.default_rng(0).standard_normal((8, 1, 9)).astype(np.float32)


@pytest.fixture(scope="session")
def llm_files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``llm_files(family)`` -> folder of a tiny random model."""
    spec = importlib.util.spec_from_file_location("brainlm_families", Path(__file__).parents[1] / "models" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    families = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(families)
    return lru_cache(lambda family: families.tiny_llm(family, tmp_path_factory.mktemp(family)))


class Training:
    """A fresh model with the corpus and everything `fit` takes."""

    brains, captions = BRAINS, CAPTIONS

    def __init__(self, folder: Path, precision: str = "fp32", dropout: float = 0.0, noise: float = 0.0, seed: int = 0) -> None:
        def load(wanted: str) -> Any:
            return load_llm(str(folder), precision=wanted).model

        self.text = load_llm(str(folder)).tokenizer
        torch.manual_seed(seed)
        tokenizer = tokenizers.get("parcelwise")(n_rows=1, labels=LABELS, width=32, basis=None, hidden=16)
        affine = Affine(np.zeros(9, np.float32), np.ones(9, np.float32), None, np.arange(2))
        llm = load(precision)
        if not dropout:
            # GPT-2 has dropout of its own.
            for module in (m for m in llm.modules() if isinstance(m, torch.nn.Dropout)):
                module.p = 0.0
        self.model = BrainLM(llm, Features(affine, dropout, noise), tokenizer)
        self.phases = Phases(self.model, load, LoRA(rank=4, alpha=4, dropout=0.1 if dropout else 0.0), precision)
        style = "chat" if self.text.chat_template else "continuation"
        self.renderings = tuple((render(Prompt("Describe.", text), self.text, 4, style),) for text in CAPTIONS)
        self.corpus = Corpus(self.renderings, lambda index: BRAINS[index])

    def fit(
        self, schedules: Any, folder: Path, *, validation: Any = None, seed: int = 3, key: str = "key"
    ) -> list[dict[str, Any]]:
        held_out = Corpus(()) if validation is None else validation
        accelerator = Accelerator(cpu=True)
        return fit(
            self.model, self.phases, schedules, self.corpus, held_out, seed=seed, folder=folder, key=key, accelerator=accelerator
        )

    def mark(self) -> None:
        """Put markers around the brain tokens."""
        self.model.tokenizer = Marked(self.model.tokenizer, torch.zeros(32))
        self.renderings = tuple((render(Prompt("Describe.", text), self.text, 6, "continuation"),) for text in CAPTIONS)
        self.corpus = Corpus(self.renderings, lambda index: BRAINS[index])

    def batch(self, index: Any = slice(None)) -> Batch:
        """Own brains with own texts, or those of ``index``."""
        return collate([item for (item,) in self.renderings], BRAINS[index])

    def state(self) -> dict[str, torch.Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}


@pytest.fixture
def training(llm_files: Callable[[str], Path]) -> Callable[..., Training]:
    """``training(family, precision=..., dropout=..., noise=...)`` -> `Training`."""

    def build(family: str = "gpt2", **options: Any) -> Training:
        return Training(llm_files(family), **options)

    return build
