"""A small model with random brain tokens, and a test set of repeated stimuli."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bids_brainlm.core.types import Affine, Examples, Prompt, Recording
from bids_brainlm.models.backbones import load_llm
from bids_brainlm.models.fusion import BrainLM, Features
from bids_brainlm.registry import tokenizers

CAPTIONS = ["A red bird sits.", "Two dogs run.", "The sun sets in the park.", "A wooden fence.", "A helpful animal."]


@pytest.fixture(scope="session")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[BrainLM, Any]]:
    """``speaker(family)`` -> model with K = 3 brain tokens for 9 vertices, and the tokenizer of its texts."""
    spec = importlib.util.spec_from_file_location("brainlm_families", Path(__file__).parents[1] / "models" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    families = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(families)

    def build(family: str) -> tuple[BrainLM, Any]:
        llm = load_llm(str(families.tiny_llm(family, tmp_path_factory.mktemp(family))))
        torch.manual_seed(0)
        labels = np.array([1, 1, 2, 0, 3, 3, 3, 2, 1], np.int32)
        tokenizer = tokenizers.get("parcelwise")(n_rows=1, labels=labels, width=32, basis=None, hidden=8)
        with torch.no_grad():
            tokenizer.second.mul_(20)
        affine = Affine(np.zeros(9, np.float32), np.ones(9, np.float32), None, np.arange(2))
        return BrainLM(llm.model, Features(affine), tokenizer).eval(), llm.tokenizer

    return build


@pytest.fixture
def examples() -> Examples:
    """Twelve trials of five stimuli in three runs; two questions, and two captions for the first stimulus."""
    stimulus = np.array([0, 1, 2, 3, 1, 4, 2, 0, 3, 0, 4, 1])
    data = np.random.default_rng(0).standard_normal((12, 9)).astype(np.float32)
    names = np.array([f"s{i}" for i in stimulus])
    references = tuple((CAPTIONS[i], "Something red.") if i == 0 else (CAPTIONS[i],) for i in stimulus)
    return Examples(
        Recording(data, "percent signal change", "beta", np.tile(np.arange(4), 3), np.repeat(np.arange(3), 4)),
        np.arange(12),
        tuple(Prompt("What is it?" if i % 2 else "Describe the following image.", CAPTIONS[s]) for i, s in enumerate(stimulus)),
        references,
        names,
        names,
        np.array([f"t{i}" for i in range(12)]),
    )
