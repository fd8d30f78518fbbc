"""Where in the brain: which vertices a likelihood leans on, and which brain tokens are looked at.

The *contribution* of a vertex to a text is gradient x input, in nats of log-likelihood:

    c_v = -(d NLL / d x_v) (x_v - mean_v)

with its response x_v and its training mean. It is positive where the deviation of this vertex makes the right text likelier, to
first order. Where the log-likelihood is linear in the response the contributions of all vertices add up to what the brain is
worth against the mean brain; else they do so for small deviations alone. Their mean absolute value, the *saliency*, says how
much the decoder listens, to noise as well.

*Attention* to a brain token: the mean attention weight, over layers and heads and over the positions that predict the text,
that the language model puts on its slot. The weights of a position add up to 1 over all that it can see. They show where is
looked, not what is made of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bids_brainlm.core.types import Examples, Ints
from bids_brainlm.language.render import Rendered
from bids_brainlm.models.fusion import Batch, BrainLM, collate

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Contributions:
    """Sums over n texts, so that folds can be added.

    Parameters
    ----------
    signed, absolute : (V,) float64
        Nats; summed over the T rows of an example, too.
    used : (V,) bool
        Vertices that the features use.
    n : int
    """

    signed: Array
    absolute: Array
    used: NDArray[np.bool_]
    n: int

    def __add__(self, other: Contributions) -> Contributions:
        used, n = self.used | other.used, self.n + other.n
        return Contributions(self.signed + other.signed, self.absolute + other.absolute, used, n)

    def maps(self) -> dict[str, Array]:
        """``contribution`` and ``saliency``: (V,) means over texts, nan where a vertex is not used."""
        sums = {"contribution": self.signed, "saliency": self.absolute}
        return {name: np.where(self.used, total / self.n, np.nan) for name, total in sums.items()}


def contributions(
    model: BrainLM, examples: Examples, rendered: Sequence[Rendered], chosen: Ints, batch_size: int
) -> Contributions:
    """Gradient x input of the right texts.

    Parameters
    ----------
    model : BrainLM
        With `Features`, whose means are what deviations are from.
    examples : Examples
        A test set.
    rendered : sequence of Rendered
        Of all of them, with brain slots and answers.
    chosen : (n,) int64
        The examples that are taken.
    batch_size : int

    Raises
    ------
    ValueError
        When the model has no `Features` of vertices.
    """
    mean, n_vertices = model.of_vertices.mean, model.of_vertices.mean.numel()
    signed, absolute = np.zeros(n_vertices), np.zeros(n_vertices)
    for _, batch in _batches(model, examples, rendered, chosen, batch_size):
        vertices = _leaf(batch)
        logits, targets, _ = model(Batch(batch.ids, batch.mask, batch.slot, batch.train, vertices))
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, targets, reduction="sum"), vertices)
        # A vertex that is not used may hold anything; its gradient is 0.
        each = torch.nan_to_num(-gradient * (vertices.detach() - mean), nan=0.0, posinf=0.0, neginf=0.0).double()
        signed += each.sum((0, 1)).cpu().numpy()
        absolute += each.abs().sum((0, 1)).cpu().numpy()
    return Contributions(signed, absolute, (model.of_vertices.gain > 0).cpu().numpy(), chosen.size)


def attention_to_brain(
    model: BrainLM, examples: Examples, rendered: Sequence[Rendered], chosen: Ints, batch_size: int
) -> Array | None:
    """(K,) mean attention to each brain token; None for a language model that does not tell. Parameters as in `contributions`."""
    total = np.zeros(model.n_tokens)
    with _eager(model.llm) as able, torch.no_grad(), model.precision():
        if not able:
            return None
        for part, batch in _batches(model, examples, rendered, chosen, batch_size):
            positions = (batch.mask.cumsum(1) - 1).clamp(min=0)
            out = model.llm(
                inputs_embeds=model.embed(batch),
                attention_mask=batch.mask,
                position_ids=positions,
                use_cache=False,
                output_attentions=True,
                logits_to_keep=1,
            )
            layers = [layer for layer in out.attentions or () if layer is not None]
            if not layers:
                return None
            looking = _predicting(batch)
            seen = torch.stack([torch.einsum("bq,bhqk->bhk", looking, layer.float()).mean(1) for layer in layers]).mean(0)
            total += seen[batch.slot].view(len(part), -1).sum(0).double().cpu().numpy()
    return np.asarray(total / chosen.size)


def _leaf(batch: Batch) -> Tensor:
    """Responses of a batch as a leaf that gradients are taken for."""
    if batch.vertices is None:
        raise ValueError("prompts without responses")
    return batch.vertices.detach().requires_grad_()


def _batches(
    model: BrainLM, examples: Examples, rendered: Sequence[Rendered], chosen: Ints, batch_size: int
) -> Iterator[tuple[Ints, Batch]]:
    for start in range(0, chosen.size, batch_size):
        part = chosen[start : start + batch_size]
        yield part, collate([rendered[i] for i in part], examples.gather(part)).to(model.device)


def _predicting(batch: Batch) -> Tensor:
    """(B, L) weights, adding up to 1, of the positions that predict a token of the text."""
    before = nn.functional.pad(batch.train[:, 1:], (0, 1)).float()
    return before / before.sum(1, keepdim=True)


@contextmanager
def _eager(llm: Any) -> Iterator[bool]:
    """Attention that is computed in the open; whether the model has it."""
    former = getattr(llm.config, "_attn_implementation", None)
    if former is None or not hasattr(llm, "set_attn_implementation"):
        yield False
        return
    llm.set_attn_implementation("eager")
    try:
        yield True
    finally:
        llm.set_attn_implementation(former)
