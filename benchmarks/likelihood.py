"""Rows of the likelihood matrix with what all texts begin with computed once a brain, against a loop over pairs.

A Llama of random weights. The prompt is 140 tokens: brain tokens and a question that is the same for all texts, as it is for
captions. 48 candidate texts of 12 tokens are scored under each brain, as in a test set of 48 trials. Two loops are measured: one
pass a pair (the naive loop), and whole prompts in batches of as many texts as we score together. Wall seconds of one process,
fastest of a few rounds; all three have to agree.

    OMP_NUM_THREADS=1 python benchmarks/likelihood.py [--small] [--device cuda --precision bf16 --shape 8b]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from bids_brainlm.core.types import Affine
from bids_brainlm.language.render import Rendered
from bids_brainlm.models.fusion import BrainLM, Features, collate


class Given(nn.Module):
    """Responses that are brain tokens already."""

    def __init__(self, n_tokens: int) -> None:
        super().__init__()
        self.n_tokens = n_tokens

    def forward(self, features: Tensor) -> Tensor:
        return features


@dataclass(frozen=True)
class Shape:
    """Of a Llama, its prompt and the texts."""

    width: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    n_brain: int = 100
    n_prompt: int = 140
    n_texts: int = 48
    n_answer: int = 12
    n_brains: int = 4


SHAPES = {
    "small": Shape(64, 2, 4, 192, 300, n_brain=20, n_prompt=28, n_texts=6, n_brains=2),
    "demo": Shape(256, 6, 4, 768, 1200),
    "8b": Shape(4096, 32, 32, 14336, 128256, n_texts=515, n_brains=8),
}


def model_of(shape: Shape, device: str, dtype: torch.dtype) -> BrainLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=min(shape.heads, 8),
        max_position_embeddings=512,
    )
    identity = Affine(np.zeros(shape.width, np.float32), np.ones(shape.width, np.float32), None, np.arange(2))
    torch.set_default_dtype(dtype)
    with torch.device(device):
        llm = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return BrainLM(llm, Features(identity).to(device), Given(shape.n_brain)).eval()


def texts_of(shape: Shape) -> list[Rendered]:
    """Start, slots and question, which all share, and an answer."""
    rng = np.random.default_rng(0)
    head = rng.integers(2, shape.vocabulary, shape.n_prompt)
    place = np.arange(shape.n_prompt + shape.n_answer)
    slot = (place >= 1) & (place <= shape.n_brain)
    head[slot[: shape.n_prompt]] = 1
    answers = rng.integers(2, shape.vocabulary, (shape.n_texts, shape.n_answer))
    return [Rendered(np.concatenate([head, answer]), place >= shape.n_prompt, slot) for answer in answers]


def in_batches(model: BrainLM, brains: Tensor, texts: list[Rendered], batch_size: int) -> Tensor:
    """(N,) NLL of every text under every brain, whole prompts."""
    out = []
    for brain in brains.numpy():
        for start in range(0, len(texts), batch_size):
            part = texts[start : start + batch_size]
            out.append(model.nll(collate(part, np.tile(brain, (len(part), 1, 1))).to(model.device)))
    return torch.cat(out)


def seconds(work: Callable[[], Tensor], rounds: int) -> tuple[float, Tensor]:
    """Fastest of some rounds, and the result."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        result = work().cpu()
        times.append(time.perf_counter() - start)
    return min(times), result


def bound(shape: Shape, model: BrainLM, took: float) -> str:
    """Tokens a second, and what multiplying every weight of the layers once for each token would need of it at least."""
    n_tokens = shape.n_brains * (shape.n_prompt - 1 + shape.n_texts * (shape.n_answer + 1))
    weights = sum(p.numel() for name, p in model.llm.named_parameters() if "embed_tokens" not in name)
    whole = shape.n_texts * (shape.n_prompt - 1 + shape.n_texts * (shape.n_answer + 1)) / n_tokens * took / 60
    text = f"{n_tokens / took:.0f} tokens/s, {2 * weights * n_tokens / took / 1e12:.2f} Tflop/s of products with weights"
    return f"{text}; all {shape.n_texts} brains: {whole:.2f} min"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a shape that takes a moment")
    parser.add_argument("--shape", choices=list(SHAPES), default="demo")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--batch-size", type=int, default=50)
    given = parser.parse_args()
    shape = SHAPES["small" if given.small else given.shape]
    dtype = torch.bfloat16 if given.precision == "bf16" else torch.float32
    model, texts = model_of(shape, given.device, dtype), texts_of(shape)
    brains = torch.randn(shape.n_brains, shape.n_brain, shape.width)
    pairs = np.stack(np.meshgrid(np.arange(shape.n_brains), np.arange(shape.n_texts), indexing="ij"), axis=-1).reshape(-1, 2)
    print(
        f"{shape.n_texts} texts of {shape.n_answer} tokens under {shape.n_brains} brains, prompt of {shape.n_prompt} tokens; ",
        end="",
    )
    print(f"{shape.layers} layers of width {shape.width}; OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'all')}")
    shared, ours = seconds(lambda: model.nll_of_pairs(brains.to(model.device), texts, pairs, given.batch_size), 3)
    print(f"shared prefix   {shared:8.3f} s   {bound(shape, model, shared)}", flush=True)
    # Differences of sums of twelve terms, in nats; in bf16 both are only that near to the truth.
    allowed = 1e-4 if dtype == torch.float32 else 2.0
    for label, size in (("batches", given.batch_size), ("naive loop", 1)):
        taken, theirs = seconds(lambda size=size: in_batches(model, brains, texts, size), 1 if size == 1 else 3)  # type: ignore[misc]
        difference = float((ours - theirs).abs().max())
        print(f"{label:15s} {taken:8.3f} s   {taken / shared:5.2f}x   largest difference {difference:.1e} nats", flush=True)
        if difference > allowed:
            raise SystemExit(f"likelihoods differ by {difference:.1e} nats")


if __name__ == "__main__":
    main()
