"""Scoring every text under many brains with the brain's prefix computed once, against one forward pass a pair.

A Llama of random weights, 100 brain tokens, 25 brains and 10 texts for each of them (what a permutation test of NLL needs),
answers of about ten tokens after a short question. The naive way renders and scores each pair anew, in batches of the same
size. Wall seconds of one process, fastest of a few rounds.

    OMP_NUM_THREADS=1 python benchmarks/likelihood.py [--small]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from bids_brainlm.core.types import Affine
from bids_brainlm.language.render import Rendered
from bids_brainlm.models.fusion import BrainLM, Features, collate

N_VOCABULARY = 1200


class Given(nn.Module):
    """Responses that are brain tokens already."""

    def __init__(self, n_tokens: int) -> None:
        super().__init__()
        self.n_tokens = n_tokens

    def forward(self, features: Tensor) -> Tensor:
        return features


def model_of(n_tokens: int, width: int, layers: int) -> BrainLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=N_VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
    )
    identity = Affine(np.zeros(width, np.float32), np.ones(width, np.float32), None, np.arange(2))
    return BrainLM(LlamaForCausalLM(config), Features(identity), Given(n_tokens)).eval()


def texts_of(n_texts: int, n_brains: int, n_tokens: int) -> list[list[Rendered]]:
    """Start, slots, a question of eight tokens, an answer of eight to twelve."""
    rng = np.random.default_rng(0)
    out = []
    for _ in range(n_texts):
        row = []
        for _ in range(n_brains):
            ids = rng.integers(2, N_VOCABULARY, 1 + n_tokens + 8 + int(rng.integers(8, 13)))
            place = np.arange(len(ids))
            slot = (place >= 1) & (place <= n_tokens)
            ids[: n_tokens + 1] = 1
            row.append(Rendered(ids, place > n_tokens + 8, slot))
        out.append(row)
    return out


def naive(model: BrainLM, brains: Tensor, texts: list[list[Rendered]]) -> Tensor:
    """(C, B) NLL, one full pass a pair."""
    return torch.stack([model.nll(collate(row, brains.numpy())) for row in texts])


def seconds(work: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """Fastest of some rounds, and the result."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return min(times), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="20 brain tokens, 4 brains, 3 texts, 2 layers")
    n_tokens, n_brains, n_texts, width, layers = (20, 4, 3, 64, 2) if parser.parse_args().small else (100, 25, 10, 256, 6)
    model, texts = model_of(n_tokens, width, layers), texts_of(n_texts, n_brains, n_tokens)
    brains = torch.randn(n_brains, n_tokens, width)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"{n_brains} brains of {n_tokens} tokens, {n_texts} texts each, {layers} layers of width {width}; ", end="")
    print(f"OMP_NUM_THREADS={threads}")
    shared, ours = seconds(lambda: model.nll_of_texts(brains, texts), 3)
    loop, theirs = seconds(lambda: naive(model, brains, texts), 3)
    difference = float((ours - theirs).abs().max())
    print(f"shared prefix {shared:7.3f} s   one pass a pair {loop:7.3f} s   {loop / shared:5.2f}x")
    if difference > 1e-3:
        raise SystemExit(f"likelihoods differ by {difference:.1e} nats")
    print(f"equal: largest difference {difference:.1e} nats, standard deviation {float(theirs.std()):.1f} nats")


if __name__ == "__main__":
    main()
