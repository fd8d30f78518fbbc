"""The one model: brain tokens spliced into the prompt of a causal language model.

    vertices --features--> brain --tokenizer--> K vectors --splice--> prompt embeddings --language model--> logits

A `Batch` holds B rendered prompts, padded on the right for training and scoring, on the left for generating; where padding
stands changes nothing, because padded positions are masked and positions are counted from the first real token.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessorList, MinLengthLogitsProcessor, RepetitionPenaltyLogitsProcessor

from bids_brainlm.core.types import Affine
from bids_brainlm.language.render import Rendered
from bids_brainlm.models.tokenizers import Marked


@dataclass(frozen=True, eq=False)
class Batch:
    """Rendered prompts as tensors.

    Parameters
    ----------
    ids : (B, L) int64 Tensor
    mask : (B, L) int64 Tensor
        1 for real tokens, 0 for padding.
    slot, train : (B, L) bool Tensor
        Where brain tokens go, and which tokens are to be predicted.
    vertices : (B, T, V) float32 Tensor or None
        None for a prompt without brain tokens.
    """

    ids: Tensor
    mask: Tensor
    slot: Tensor
    train: Tensor
    vertices: Tensor | None

    @property
    def context(self) -> Tensor:
        """(B, L) bool: tokens between the last brain slot and what is trained on.

        That is the text so far in the style ``continuation``; a chat template writes more there.
        """
        slots_to_come = self.slot.flip(1).cumsum(1).flip(1)
        trained_so_far = self.train.cumsum(1)
        return (slots_to_come == 0) & (trained_so_far == 0) & (self.mask == 1)

    def to(self, device: torch.device) -> Batch:
        vertices = None if self.vertices is None else self.vertices.to(device)
        return Batch(self.ids.to(device), self.mask.to(device), self.slot.to(device), self.train.to(device), vertices)


def collate(rendered: Sequence[Rendered], vertices: np.ndarray[Any, Any] | None, pad_left: bool = False) -> Batch:
    """Pad rendered prompts to one length."""
    length = max(len(item.ids) for item in rendered)
    out = {name: np.zeros((len(rendered), length), np.int64) for name in ("ids", "mask", "slot", "train")}
    for i, item in enumerate(rendered):
        place = slice(length - len(item.ids), None) if pad_left else slice(0, len(item.ids))
        for name, values in (("ids", item.ids), ("mask", 1), ("slot", item.slot), ("train", item.train)):
            out[name][i, place] = values
    tensors = {name: torch.from_numpy(array) for name, array in out.items()}
    brain = None if vertices is None else torch.from_numpy(np.ascontiguousarray(vertices, dtype=np.float32))
    return Batch(tensors["ids"], tensors["mask"], tensors["slot"].bool(), tensors["train"].bool(), brain)


def splice(embeddings: Tensor, slot: Tensor, brain: Tensor) -> Tensor:
    """Put brain tokens where the slots are.

    Parameters
    ----------
    embeddings : (B, L, D) Tensor
    slot : (B, L) bool Tensor
    brain : (B, K, D) Tensor

    Returns
    -------
    (B, L, D) Tensor

    Raises
    ------
    ValueError
        When a prompt does not have exactly K slots.
    """
    counts = slot.sum(1)
    if not bool((counts == brain.shape[1]).all()):
        raise ValueError(f"{brain.shape[1]} brain tokens for prompts with {sorted(set(counts.tolist()))} slots")
    spliced: Tensor = embeddings.masked_scatter(slot.unsqueeze(-1), brain.to(embeddings.dtype))
    return spliced


class Features(nn.Module):
    """`core.types.Affine` as a module, with corruption of the z-scored vertices in training.

    Parameters
    ----------
    affine : Affine
    dropout : float
        Probability that a vertex is set to its training mean; the others are scaled up.
    noise : float
        Standard deviation of added Gaussian noise, in standard deviations of the vertex.
    """

    mean: Tensor
    gain: Tensor
    components: Tensor | None

    def __init__(self, affine: Affine, dropout: float = 0.0, noise: float = 0.0) -> None:
        super().__init__()
        gain = np.divide(1.0, affine.scale, out=np.zeros_like(affine.scale), where=affine.scale > 0)
        self.register_buffer("mean", torch.from_numpy(np.array(affine.mean)))
        self.register_buffer("gain", torch.from_numpy(gain))
        self.register_buffer("components", None if affine.components is None else torch.from_numpy(np.array(affine.components)))
        self.dropout, self.noise = nn.Dropout(dropout), noise

    @property
    def scale(self) -> Tensor:
        """(V,) standard deviation of each vertex over training; 0 where it is not used."""
        return torch.where(self.gain > 0, 1 / self.gain, 0.0)

    def forward(self, vertices: Tensor) -> Tensor:
        scaled = torch.nan_to_num((vertices - self.mean) * self.gain, nan=0.0, posinf=0.0, neginf=0.0)
        if self.training and self.noise:
            scaled = scaled + self.noise * torch.randn_like(scaled) * (self.gain > 0)
        scaled = self.dropout(scaled)
        features: Tensor = scaled if self.components is None else scaled @ self.components
        return features


class BrainLM(nn.Module):
    """Features, tokenizer and language model.

    Parameters
    ----------
    llm : PreTrainedModel
        Any causal language model of Hugging Face.
    features : Features or another module (B, T, V) -> (B, T, F), or None
    tokenizer : nn.Module or None
        (B, T, F) -> (B, K, D). Both are None for a language model alone.
    rarity : (vocabulary,) Tensor, optional
        How rare each token is in training texts (`bids_brainlm.language.stimuli.rarity`); for objectives that weigh by it.
    """

    rarity: Tensor | None

    def __init__(
        self, llm: Any, features: nn.Module | None = None, tokenizer: nn.Module | None = None, rarity: Tensor | None = None
    ) -> None:
        super().__init__()
        self.llm, self.features, self.tokenizer = llm, features, tokenizer
        self.register_buffer("rarity", rarity, persistent=False)

    @property
    def n_tokens(self) -> int:
        return 0 if self.tokenizer is None else int(self.tokenizer.n_tokens)  # type: ignore[arg-type]

    @property
    def of_vertices(self) -> Features:
        """The features, where they are the usual ones.

        Raises
        ------
        ValueError
            When the model has none, or others that say nothing of vertices.
        """
        if not isinstance(self.features, Features):
            raise ValueError("this model has no features of vertices")
        return self.features

    @property
    def device(self) -> torch.device:
        device: torch.device = self.llm.get_input_embeddings().weight.device
        return device

    def brain_tokens(self, vertices: Tensor) -> Tensor:
        """(B, T, V) -> (B, K, D)."""
        if self.features is None or self.tokenizer is None:
            raise ValueError("this model has no brain tokenizer")
        tokens: Tensor = self.tokenizer(self.features(vertices))
        return tokens

    def bare_tokens(self, vertices: Tensor) -> Tensor:
        """(B, T, V) -> brain tokens without the markers around them, if there are any."""
        if self.features is None or self.tokenizer is None:
            raise ValueError("this model has no brain tokenizer")
        bare = self.tokenizer.bare if isinstance(self.tokenizer, Marked) else self.tokenizer
        tokens: Tensor = bare(self.features(vertices))
        return tokens

    def embed(self, batch: Batch) -> Tensor:
        """(B, L, D) input embeddings, brain tokens in their slots."""
        embeddings: Tensor = self.llm.get_input_embeddings()(batch.ids)
        if batch.vertices is None:
            if bool(batch.slot.any()):
                raise ValueError("prompts have brain slots, but there are no responses")
            return embeddings
        return splice(embeddings, batch.slot, self.brain_tokens(batch.vertices))

    def precision(self) -> Any:
        """Context in which everything runs: autocast when the language model is in bf16, since what is trained stays in fp32."""
        half = any(p.dtype == torch.bfloat16 for p in self.llm.parameters())
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Logits where a token is to be predicted, and only there.

        Returns
        -------
        logits : (N, vocabulary) Tensor
        targets : (N,) Tensor
        row : (N,) Tensor
            Prompt of the batch that each belongs to.
        """
        with self.precision():
            return predict(self.llm, self.embed(batch), batch)

    def mean_embedding(self, ids: Tensor, weights: Tensor) -> Tensor:
        """(B, D) weighted mean input embedding of the tokens of each prompt, 0 where nothing has weight.

        Parameters
        ----------
        ids : (B, L) int64 Tensor
        weights : (B, L) bool or float Tensor
        """
        embeddings: Tensor = self.llm.get_input_embeddings()(ids).float()
        total = weights.float().sum(1, keepdim=True)
        shares = weights.float() / torch.where(total > 0, total, 1.0)
        return (shares.unsqueeze(-1) * embeddings).sum(1)

    @torch.no_grad()
    def nll(self, batch: Batch) -> Tensor:
        """(B,) negative log-likelihood of the trained tokens of each prompt, in nats."""
        logits, targets, row = self(batch)
        return sum_nll(logits, targets, row, len(batch.ids))

    @torch.no_grad()
    def nll_at(self, batch: Batch, temperatures: Tensor) -> Tensor:
        """(B, S) the same with all logits divided by each of the temperatures (S,)."""
        logits, targets, row = self(batch)
        return torch.stack([sum_nll(logits / t, targets, row, len(batch.ids)) for t in temperatures], dim=1)

    @torch.no_grad()
    def nll_of_pairs(
        self, vertices: Tensor, texts: Sequence[Rendered], pairs: np.ndarray[Any, Any], batch_size: int = 50
    ) -> Tensor:
        """Score texts on brains; what all texts begin with is computed once a brain.

        Parameters
        ----------
        vertices : (B, T, V) Tensor
        texts : sequence of Rendered
            Up to the last brain slot, and for as long as they agree after it, all are the same prompt.
        pairs : (N, 2) int64
            Brain and text of each likelihood.
        batch_size : int
            Texts scored together, those of like length.

        Returns
        -------
        (N,) Tensor
            Equal to `nll` of each, to rounding.

        Raises
        ------
        ValueError
            When prompts differ before the last slot.
        """
        n_prefix = _shared(texts)
        prefix = collate([_cut(texts[0], 0, n_prefix + 1)] * len(vertices), vertices.cpu().numpy()).to(self.device)
        order = np.argsort([len(texts[text].ids) for text in pairs[:, 1]], kind="stable")
        out = torch.empty(len(pairs), device=self.device)
        with self.precision():
            embeddings = self.embed(prefix)
            known = self.llm(inputs_embeds=embeddings[:, :-1], use_cache=True, logits_to_keep=1) if n_prefix else None
            for start in range(0, len(order), batch_size):
                part = order[start : start + batch_size]
                tail = collate([_cut(texts[text], n_prefix, None) for text in pairs[part, 1]], None).to(self.device)
                brain = torch.from_numpy(pairs[part, 0]).to(self.device)
                tail_embeddings = self.llm.get_input_embeddings()(tail.ids)
                # The last token that is shared goes with the text, so that the first token of the text has its predictor.
                tail_embeddings[:, :1] = embeddings[brain, -1:]
                cache = None if known is None else rows_of_cache(known.past_key_values, brain)
                logits, targets, row = predict(self.llm, tail_embeddings, tail, cache, n_prefix)
                out[torch.from_numpy(part).to(self.device)] = sum_nll(logits, targets, row, len(part))
        return out

    @torch.no_grad()
    def generate(self, batch: Batch, *, stop: Sequence[int], max_new_tokens: int, **search: Any) -> list[list[int]]:
        """Continue left-padded prompts; ``search`` and the result are those of `continued`."""
        with self.precision():
            return self.continued(self.embed(batch), batch.mask, stop=stop, max_new_tokens=max_new_tokens, **search)

    @torch.no_grad()
    def continued(
        self,
        embeddings: Tensor,
        mask: Tensor,
        cache: Any = None,
        *,
        stop: Sequence[int],
        max_new_tokens: int,
        min_new_tokens: int = 0,
        beams: int = 1,
        repetition_penalty: float = 1.0,
    ) -> list[list[int]]:
        """Continue prompts; deterministic (greedy or beam search). No stop token among the first `min_new_tokens`.

        Parameters
        ----------
        embeddings : (B, L, D) Tensor
        mask : (B, L) int64 Tensor
            1 for real tokens, 0 for padding, which is on the left.
        cache : Cache, optional
            Keys and values of the first positions, for each beam of each prompt; it grows.

        Returns
        -------
        list of B lists of int
            New token ids, up to and without the first stop token.
        """
        # What the model's own file says (sampling, penalties, limits) does not belong to a search that is to be the same for all.
        self.llm.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        # Given as a setting, transformers would exempt as many generated tokens as the prompt has padding.
        rules: list[Any] = [RepetitionPenaltyLogitsProcessor(float(repetition_penalty))] if repetition_penalty != 1 else []
        if min_new_tokens:
            # After embeddings, a search counts generated tokens alone.
            rules.append(MinLengthLogitsProcessor(min_new_tokens, list(stop), str(self.device)))
        with self.precision():
            out = self.llm.generate(
                inputs_embeds=embeddings,
                attention_mask=mask,
                past_key_values=cache,
                max_new_tokens=max_new_tokens,
                num_beams=beams,
                do_sample=False,
                logits_processor=LogitsProcessorList(rules),
                eos_token_id=list(stop),
                pad_token_id=stop[0],
            )
        return [_until(row, stop) for row in out.tolist()]


def predict(llm: Any, embeddings: Tensor, batch: Batch, cache: Any = None, n_cached: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits as those of `BrainLM`, of prompts that go on from a cache of ``n_cached`` positions, which grows."""
    wanted = batch.train.clone()
    wanted[:, 0] = False
    columns = wanted.any(0).nonzero()[:, 0]
    # The last token predicts nothing.
    mask = nn.functional.pad(batch.mask[:, :-1], (n_cached, 0), value=1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, n_cached:]
    logits = llm(
        inputs_embeds=embeddings[:, :-1],
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=columns - 1,
    ).logits
    chosen = wanted[:, columns]
    row = chosen.nonzero()[:, 0]
    return logits[chosen].float(), batch.ids[:, columns][chosen], row


def sum_nll(logits: Tensor, targets: Tensor, row: Tensor, n: int) -> Tensor:
    """(n,) negative log-likelihood of each prompt, in nats."""
    losses = nn.functional.cross_entropy(logits, targets, reduction="none")
    return torch.zeros(n, device=losses.device).index_add_(0, row, losses)


def _shared(texts: Sequence[Rendered]) -> int:
    """Number of tokens that all texts begin with, but for the last of them; the first to be predicted is none of them."""
    first = texts[0]
    length = min(int(np.flatnonzero(np.append(item.train, True))[0]) for item in texts)
    same = np.append([all(item.ids[i] == first.ids[i] for item in texts) for i in range(length)], False)
    n_shared = int(same.argmin())
    if n_shared <= int(np.flatnonzero(first.slot)[-1]):
        raise ValueError("prompts differ before their last brain slot")
    return n_shared - 1


def rows_of_cache(cache: Any, rows: Tensor | None) -> Any:
    """A cache of some rows (or all) of another; layers grow by new tensors, so the other one stays as it is."""
    out = copy.copy(cache)
    out.layers = [copy.copy(layer) for layer in cache.layers]
    if rows is not None:
        out.batch_select_indices(rows)
    return out


def _cut(item: Rendered, start: int, stop: int | None) -> Rendered:
    # A tail keeps its first position only for its embedding, which the caller overwrites.
    slot = item.slot[start:stop].copy()
    if start:
        slot[0] = False
    return Rendered(item.ids[start:stop], item.train[start:stop] & ~slot, slot)


def _until(ids: list[int], stop: Sequence[int]) -> list[int]:
    ends = [i for i, token in enumerate(ids) if token in stop]
    return ids[: ends[0]] if ends else ids
