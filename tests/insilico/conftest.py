"""Small decoders of random weights: tokens of parcels, and of components."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bids_brainlm.core.types import Affine, Examples, Prompt, Recording
from bids_brainlm.models.backbones import load_llm
from bids_brainlm.models.fusion import BrainLM, Features
from bids_brainlm.models.tokenizers import Marked
from bids_brainlm.registry import tokenizers
from bids_brainlm.stages.decoder import Decoder

V, WIDTH = 12, 32
LABELS = np.array([1, 1, 2, 0, 3, 3, 3, 2, 1, 2, 3, 1], np.int32)
SCALE = np.array([1, 2, 0.5, 1, 3, 1, 0, 2, 1, 1, 0.2, 1], np.float32)


@pytest.fixture(scope="session")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Decoder]:
    """``decoders(kind)``: ``parcels`` (T = 1), ``marked`` (the same with markers) or ``components`` (T = 2)."""
    spec = importlib.util.spec_from_file_location("brainlm_families", Path(__file__).parents[1] / "models" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    families = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(families)
    folder = str(families.tiny_llm("llama", tmp_path_factory.mktemp("llama")))

    def build(kind: str) -> Decoder:
        llm = load_llm(folder)
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        mean = rng.standard_normal(V).astype(np.float32)
        axes = np.linalg.qr(rng.standard_normal((V, 5)))[0].astype(np.float32) if kind == "components" else None
        if axes is None:
            tokenizer = tokenizers.get("parcelwise")(n_rows=1, labels=LABELS, width=WIDTH, basis=None, hidden=8)
            with torch.no_grad():
                tokenizer.second.mul_(20)
        else:
            tokenizer = tokenizers.get("mlp")(n_rows=2, labels=np.zeros(5, np.int32), width=WIDTH, basis=None)
        tokenizer = Marked(tokenizer, torch.randn(WIDTH)) if kind == "marked" else tokenizer
        model = BrainLM(llm.model, Features(Affine(mean, SCALE, axes, np.arange(2)), dropout=0.5), tokenizer)
        return Decoder(model.eval(), llm.tokenizer, [], None)

    return build


def made(n_rows: int = 1, n: int = 5) -> Examples:
    """n bases of T rows, without values in places."""
    data = np.random.default_rng(1).standard_normal((n * n_rows, V)).astype(np.float32)
    data[0, 2] = np.nan
    names = np.array([f"t{i}" for i in range(n)])
    recording = Recording(data, "percent signal change", "beta", np.arange(n * n_rows), np.zeros(n * n_rows))
    rows = np.arange(n * n_rows).reshape(n, n_rows)
    return Examples(recording, rows, (Prompt("What?", "A bird"),) * n, (("A bird",),) * n, names, names, names)
