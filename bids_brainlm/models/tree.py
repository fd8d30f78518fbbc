"""Many texts under one brain in one pass: prompts that begin alike share what they begin with.

Rendered prompts are laid into a *tree* of tokens. Its *trunk*, up to the last brain slot, is the same in all of them; behind it
texts part where they differ. The nodes are one sequence for the language model, in which a token sees only those it comes after
in its own text and has the position that it has there. Each text's likelihood is then the same as in a pass of its own, and
what texts have in common is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bids_brainlm.core.types import Bools, Ints
from bids_brainlm.language.render import Rendered
from bids_brainlm.models.fusion import BrainLM, splice


@dataclass(frozen=True, eq=False)
class Tree:
    """W rendered prompts as N nodes, the trunk first.

    Parameters
    ----------
    ids : (N,) int64
        Token of each node that something is predicted from or through; the last tokens of texts are none.
    depth : (N,) int64
        Its position in its text, from 0.
    sees : (N, N) bool
        Which nodes stand before each one in its text, itself among them.
    n_trunk : int
        Nodes up to and with the last slot.
    slot : (N,) bool
        Nodes that brain tokens fill.
    predictor, target : (M,) int64
        Node that each trained token is predicted from, and that token; what texts share is there once.
    member : (M, W) bool
        Which texts each trained token belongs to.
    """

    ids: Ints
    depth: Ints
    sees: Bools
    n_trunk: int
    slot: Bools
    predictor: Ints
    target: Ints
    member: Bools


def tree_of(texts: Sequence[Rendered]) -> Tree:
    """Lay prompts into a tree.

    Raises
    ------
    ValueError
        When prompts have no brain slot, or differ before their last one.
    """
    n_trunk = _trunk(texts)
    children: dict[tuple[int, int], int] = {}
    trained: dict[tuple[int, int], list[int]] = {}
    ids: list[int] = []
    parent: list[int] = []
    depth: list[int] = []
    for text, item in enumerate(texts):
        node = -1
        for i, token in enumerate(map(int, item.ids)):
            if item.train[i] and i:
                trained.setdefault((node, token), []).append(text)
            if i + 1 == len(item.ids):
                break
            if (node, token) not in children:
                children[node, token] = len(ids)
                ids.append(token)
                parent.append(node)
                depth.append(i)
            node = children[node, token]
    sees = np.eye(len(ids), dtype=np.bool_)
    for node, before in enumerate(parent):
        if before >= 0:
            sees[node] |= sees[before]
    slot = np.zeros(len(ids), dtype=np.bool_)
    slot[:n_trunk] = texts[0].slot[:n_trunk]
    member = np.zeros((len(trained), len(texts)), dtype=np.bool_)
    for row, some in enumerate(trained.values()):
        member[row, some] = True
    edges = np.array(list(trained), dtype=np.int64).reshape(-1, 2)
    return Tree(np.array(ids), np.array(depth), sees, n_trunk, slot, edges[:, 0], edges[:, 1], member)


def _trunk(texts: Sequence[Rendered]) -> int:
    """Number of tokens up to and with the last slot."""
    slots = [np.flatnonzero(item.slot) for item in texts]
    if not slots or not all(own.size for own in slots):
        raise ValueError("prompts without brain slots")
    n = int(slots[0][-1]) + 1
    for own, item in zip(slots, texts, strict=True):
        if not np.array_equal(own, slots[0]) or not np.array_equal(item.ids[:n], texts[0].ids[:n]) or item.train[:n].any():
            raise ValueError("prompts differ before their last brain slot")
        if len(item.ids) <= n:
            raise ValueError("a prompt ends with its brain slots; there is no text to score")
    return n


def nll_of_tree(model: BrainLM, brain: Tensor, tree: Tree) -> Tensor:
    """Negative log-likelihood of every text of a tree under every brain.

    Parameters
    ----------
    model : BrainLM
    brain : (B, K, D) Tensor
        Brain tokens.
    tree : Tree

    Returns
    -------
    (B, W) float32 Tensor, nats
        Equal to `BrainLM.nll` of each, to rounding; with gradients, unless torch is told to keep none.

    Raises
    ------
    ValueError
        When texts are longer than the window that the language model attends to.
    """
    _refuse_long(model, tree)
    device = model.device
    ids, depth = (torch.from_numpy(array).to(device) for array in (tree.ids, tree.depth))
    slot = torch.from_numpy(tree.slot).to(device).expand(len(brain), -1)
    nodes, where = np.unique(tree.predictor, return_inverse=True)
    with model.precision():
        embeddings = splice(model.llm.get_input_embeddings()(ids).expand(len(brain), -1, -1), slot, brain)
        mask = torch.zeros(tree.sees.shape, dtype=embeddings.dtype, device=device)
        mask.masked_fill_(~torch.from_numpy(tree.sees).to(device), torch.finfo(embeddings.dtype).min)
        logits = model.llm(
            inputs_embeds=embeddings,
            attention_mask=mask.expand(len(brain), 1, -1, -1),
            position_ids=depth.expand(len(brain), -1),
            use_cache=False,
            logits_to_keep=torch.from_numpy(nodes).to(device),
        ).logits
    said = nn.functional.log_softmax(logits.float(), dim=-1)
    each = said[:, torch.from_numpy(where).to(device), torch.from_numpy(tree.target).to(device)]
    total: Tensor = -(each @ torch.from_numpy(tree.member).to(device, torch.float32))
    return total


def _refuse_long(model: BrainLM, tree: Tree) -> None:
    """One mask serves all layers, so a layer with a narrower view than the texts are long cannot be had."""
    window = getattr(model.llm.config, "sliding_window", None)
    if window is not None and int(tree.depth.max()) >= window:
        raise ValueError(f"texts of {int(tree.depth.max()) + 2} tokens for a language model that attends to {window}")
