"""Continuing stories in batches with a cache against one at a time without; and training on the logits that are asked for alone.

A Llama of random weights with the vocabulary of GPT-2, four volumes of 1000 features between two markers a prompt, fifteen to
thirty tokens of text so far. *Decoding*: every prompt is continued by up to 32 tokens, greedily. Ours goes through
`BrainLM.generate`; the plain way goes through the whole sequence for every token, prompt after prompt, with logits of the last
place alone. *Training*: one step of BrainLLM's recipe (tokenizer and markers learn, the language model is frozen), with logits at
the tokens that are predicted (`BrainLM.forward`) and with logits everywhere, of which most are thrown away. Wall seconds of one
process, fastest of a few rounds; texts and gradients must be equal.

    OMP_NUM_THREADS=1 python benchmarks/generation.py [--small]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from bids_brainlm.core.types import Affine
from bids_brainlm.language.render import Rendered
from bids_brainlm.models.fusion import Batch, BrainLM, Features, collate
from bids_brainlm.models.tokenizers import Marked
from bids_brainlm.registry import tokenizers

N_ROWS, STOP = 4, 0


class Size(NamedTuple):
    """Of the language model, the features and the work."""

    vocabulary: int = 50257
    width: int = 256
    layers: int = 6
    features: int = 1000
    prompts: int = 32
    new_tokens: int = 32
    batch: int = 8


def model_of(size: Size) -> BrainLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=3 * size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
    )
    n = size.features
    identity = Affine(np.zeros(n, np.float32), np.ones(n, np.float32), None, np.arange(2))
    labels = np.zeros(n, np.int32)
    tokenizer = tokenizers.get("mlp")(n_rows=N_ROWS, labels=labels, width=size.width, basis=None)
    llm = LlamaForCausalLM(config).requires_grad_(False)
    return BrainLM(llm, Features(identity), Marked(tokenizer, torch.zeros(size.width))).eval()


def prompts_of(size: Size, n_slots: int, n_answer: int = 0) -> list[Rendered]:
    """Start, slots, fifteen to thirty tokens of context, and an answer."""
    rng = np.random.default_rng(0)
    out = []
    for _ in range(size.prompts):
        place = np.arange(1 + n_slots + int(rng.integers(15, 31)) + n_answer)
        ids = rng.integers(3, size.vocabulary, place.size)
        out.append(Rendered(ids, place >= place.size - n_answer, (place >= 1) & (place <= n_slots)))
    return out


@torch.no_grad()
def one_by_one(model: BrainLM, prompts: list[Rendered], brains: np.ndarray[Any, Any], n: int) -> list[list[int]]:
    """The likeliest token after the whole sequence, again and again."""
    out = []
    for item, brain in zip(prompts, brains, strict=True):
        vectors, row = model.embed(collate([item], brain[None])), list[int]()
        while len(row) < n:
            token = int(model.llm(inputs_embeds=vectors, use_cache=False, logits_to_keep=1).logits[0, -1].argmax())
            if token == STOP:
                break
            row.append(token)
            vectors = torch.cat([vectors, model.llm.get_input_embeddings()(torch.tensor([[token]]))], dim=1)
        out.append(row)
    return out


def batched(model: BrainLM, prompts: list[Rendered], brains: np.ndarray[Any, Any], n: int) -> list[list[int]]:
    return model.generate(collate(prompts, brains, pad_left=True), stop=[STOP], max_new_tokens=n)


def loss_where_asked(model: BrainLM, batch: Batch) -> Tensor:
    logits, targets, _ = model(batch)
    return nn.functional.cross_entropy(logits, targets)


def loss_everywhere(model: BrainLM, batch: Batch) -> Tensor:
    logits = model.llm(inputs_embeds=model.embed(batch), attention_mask=batch.mask).logits[:, :-1].float()
    targets = torch.where(batch.train, batch.ids, -100)[:, 1:]
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)


def gradients(model: BrainLM, batch: Batch, loss: Callable[[BrainLM, Batch], Tensor]) -> Tensor:
    """All gradients of a step, one after the other."""
    model.zero_grad()
    loss(model, batch).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


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
    parser.add_argument("--small", action="store_true", help="vocabulary of 500, width 64, 2 layers, 6 prompts of 8 tokens")
    size = Size(500, 64, 2, 50, 6, 8, 6) if parser.parse_args().small else Size()
    model = model_of(size)
    brains = np.random.default_rng(1).standard_normal((size.prompts, N_ROWS, size.features)).astype(np.float32)
    print(f"{size.layers} layers of width {size.width}, vocabulary {size.vocabulary}; OMP_NUM_THREADS=", end="")
    print(os.environ.get("OMP_NUM_THREADS", "all"))
    prompts = prompts_of(size, model.n_tokens)
    ours, texts = seconds(lambda: batched(model, prompts, brains, size.new_tokens), 2)
    plain, wanted = seconds(lambda: one_by_one(model, prompts, brains, size.new_tokens), 1)
    print(f"decoding {size.prompts} prompts, {sum(map(len, wanted))} tokens: ", end="")
    print(f"batched, cached {ours:6.2f} s   one by one {plain:6.2f} s   {plain / ours:5.1f}x")
    if texts != wanted:
        raise SystemExit(f"{sum(a != b for a, b in zip(texts, wanted, strict=True))} texts differ")
    batch = collate(prompts_of(size, model.n_tokens, n_answer=10)[: size.batch], brains[: size.batch])
    few, own = seconds(lambda: gradients(model, batch, loss_where_asked), 5)
    many, full = seconds(lambda: gradients(model, batch, loss_everywhere), 5)
    print(f"training step of {size.batch}: logits asked for {few:6.3f} s   everywhere {many:6.3f} s   {many / few:5.2f}x")
    difference = float((own - full).abs().max() / full.abs().max())
    if not difference <= 1e-4:
        raise SystemExit(f"gradients differ by {difference:.1e} of the largest")
    print(f"equal: every text; gradients to {difference:.1e} of the largest")


if __name__ == "__main__":
    main()
