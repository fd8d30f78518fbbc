"""How likely texts become when a pattern is added to responses: every site at every dose in every trial.

A *pattern* (V,) is a map in standard deviations of each vertex over the training responses; what is added to a response is
dose x pattern x standard deviation (`Participant.scale`). A *base* is a response that is driven: a held-out trial, the mean
trial (`mean_trial`), or zeros (`zero_trial`). Dose 0 is the base itself.

Features are affine, so that a pattern is added to them and not to the vertices; texts of one prompt are scored in one pass
(`bids_brainlm.models.tree`); dose 0 is computed once for all sites.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from bids_brainlm.core.types import Examples, Floats, Ints, Prompt, Recording
from bids_brainlm.language.render import Rendered, render
from bids_brainlm.models.fusion import BrainLM
from bids_brainlm.models.tree import Tree, nll_of_tree, tree_of
from bids_brainlm.stages.decoder import Decoder

Doubles = NDArray[np.float64]

BATCH = 16
"""Brains that are computed together; more of them leave the cache of a CPU."""


def driven(
    decoder: Decoder,
    examples: Examples,
    patterns: ArrayLike,
    doses: ArrayLike,
    prompts: Sequence[Prompt],
    style: str,
    *,
    batch_size: int = BATCH,
) -> Doubles:
    """Negative log-likelihood of the answer of each prompt given each driven brain.

    Parameters
    ----------
    decoder : Decoder
    examples : Examples
        n bases; their own prompts do not matter.
    patterns : (S, V) float, standard deviations
    doses : (A,) float
    prompts : sequence (W) of Prompt
    style : str
        Prompt style, that of ``model.style``.
    batch_size : int
        Brains that are computed together.

    Returns
    -------
    (S, A, n, W) float64 array, nats
        Equal to a loop that adds dose x pattern x standard deviation to the responses and scores each prompt alone, to rounding.

    Raises
    ------
    ValueError
        When patterns do not have the vertices of the responses, or there is no prompt.

    Notes
    -----
    A vertex of a base that has no value counts as its mean over training, and is driven from there.
    """
    texts = [render(prompt, decoder.text, decoder.model.n_tokens, style, with_answer=True) for prompt in prompts]
    return nll_of_driven(decoder.model, examples, patterns, doses, [texts] * len(examples), batch_size=batch_size)


def nll_of_driven(
    model: BrainLM,
    examples: Examples,
    patterns: ArrayLike,
    doses: ArrayLike,
    texts: Sequence[Sequence[Rendered]],
    *,
    batch_size: int = BATCH,
) -> Doubles:
    """`driven` for rendered texts, which may be others for each base; only their trained tokens are scored.

    Parameters
    ----------
    texts : sequence (n) of sequence (W) of Rendered
        Bases whose texts are one object are computed together.

    Returns
    -------
    (S, A, n, W) float64 array, nats
    """
    sites, steps = np.atleast_2d(np.asarray(patterns, dtype=np.float32)), np.asarray(doses, dtype=np.float64)
    n_vertices, counts = examples.recording.data.shape[1], {len(own) for own in texts}
    if sites.ndim != 2 or sites.shape[1] != n_vertices or steps.ndim != 1:
        raise ValueError(f"patterns {sites.shape} and doses {steps.shape}; expected (S, {n_vertices}) and (A,)")
    if len(texts) != len(examples) or len(counts) != 1 or 0 in counts:
        raise ValueError(f"{len(texts)} lists of {sorted(counts)} texts; expected {len(examples)}, of one length")
    jobs = np.array([(site, i) for site in range(len(sites)) for i in np.flatnonzero(steps)], dtype=np.int64).reshape(-1, 2)
    # The base comes first: whatever site, at dose 0.
    site = torch.from_numpy(np.concatenate([np.zeros(1, np.int64), jobs[:, 0]])).to(model.device)
    change = torch.from_numpy(np.concatenate([np.zeros(1), steps[jobs[:, 1]]]).astype(np.float32)).to(model.device)
    moves = Moves(features_of(model, sites), site, change)
    out = np.empty((len(sites), len(steps), len(examples), counts.pop()))
    for tree, members in _trees(texts):
        # Few sites and doses leave room for several bases in one batch.
        width = max(1, batch_size // len(change))
        for part in (members[start : start + width] for start in range(0, members.size, width)):
            found = _scored(model, torch.from_numpy(examples.gather(part)).to(model.device), moves, tree, batch_size)
            out[:, :, part] = found[0]
            out[jobs[:, :1], jobs[:, 1:], part] = found[1:]
    return out


def features_of(model: BrainLM, patterns: Floats) -> Tensor:
    """(S, F) by how much features change when patterns (S, V), in standard deviations, are added to a response.

    Vertices that the model does not use change nothing.
    """
    features = model.of_vertices
    used = torch.from_numpy(np.array(patterns)).to(model.device) * (features.gain > 0)
    return used if features.components is None else used @ features.components


def mean_trial(examples: Examples) -> Examples:
    """One example whose response (T, V) is the mean over examples, nan where no example has a value."""
    total = np.zeros((examples.rows.shape[1], examples.recording.data.shape[1]))
    known = np.zeros_like(total)
    for start in range(0, len(examples), BATCH):
        block = examples.gather(np.arange(start, min(start + BATCH, len(examples))))
        total += np.where(np.isfinite(block), block, 0.0).sum(axis=0)
        known += np.isfinite(block).sum(axis=0)
    mean = np.divide(total, known, out=np.full_like(total, np.nan), where=known > 0)
    return _made(examples, mean.astype(np.float32), "mean")


def zero_trial(examples: Examples) -> Examples:
    """One example whose response (T, V) is 0 everywhere."""
    return _made(examples, np.zeros((examples.rows.shape[1], examples.recording.data.shape[1]), np.float32), "zero")


def _made(examples: Examples, response: Floats, name: str) -> Examples:
    """One example with that response (T, V), and the prompt of the first one."""
    old, n_rows = examples.recording, len(response)
    recording = Recording(
        response, old.unit, old.kind, np.arange(n_rows, dtype=np.float64), np.zeros(n_rows, np.int64), old.sources
    )
    label = np.array([name])
    return Examples(recording, np.arange(n_rows)[None], examples.prompts[:1], examples.references[:1], label, label, label)


def _trees(texts: Sequence[Sequence[Rendered]]) -> Iterator[tuple[Tree, Ints]]:
    """Every different list of texts, as a tree, and the bases that have it."""
    owners: dict[int, list[int]] = {}
    for base, own in enumerate(texts):
        owners.setdefault(id(own), []).append(base)
    for members in owners.values():
        yield tree_of(texts[members[0]]), np.array(members)


@dataclass(frozen=True, eq=False)
class Moves:
    """What is added to features: J changes of S steps.

    Parameters
    ----------
    step : (S, F) Tensor
    site : (J,) int64 Tensor
    dose : (J,) float32 Tensor
    """

    step: Tensor
    site: Tensor
    dose: Tensor

    def of(self, job: Tensor) -> Tensor:
        """(b, 1, F)."""
        return (self.step[self.site[job]] * self.dose[job, None])[:, None]


@torch.no_grad()
def _scored(model: BrainLM, vertices: Tensor, moves: Moves, tree: Tree, batch_size: int) -> Doubles:
    """(J, b, W) NLL of the texts given each of b responses (b, T, V) after each of J moves."""
    if model.features is None or model.tokenizer is None:
        raise ValueError("this model has no brain tokenizer")
    with model.precision():
        base = model.features(vertices)
    parts, n_bases, n_jobs = [], len(vertices), len(moves.site)
    for start in range(0, n_jobs * n_bases, batch_size):
        which = torch.arange(start, min(start + batch_size, n_jobs * n_bases), device=model.device)
        with model.precision():
            brain = model.tokenizer(base[which % n_bases] + moves.of(which // n_bases))
        parts.append(nll_of_tree(model, brain, tree).cpu().double().numpy())
    return np.concatenate(parts).reshape(n_jobs, n_bases, -1)
