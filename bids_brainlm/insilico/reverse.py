"""The way back: which pattern makes the model say a word, found by gradient ascent and kept near the training responses.

A decoder can be driven to a word by patterns that no brain ever makes. So the pattern is sought among the *principal components*
of the z-scored training responses, and no further out than training went: its Mahalanobis length there is that of the median
training response. What comes out is a map in standard deviations, to be laid beside the localizer of the word. It says where the
model looks, within what training responses can tell apart; it is an effect on the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bids_brainlm.core.features import fit_affine
from bids_brainlm.core.types import Affine, Examples, Floats
from bids_brainlm.insilico.drive import features_of
from bids_brainlm.insilico.participant import Participant
from bids_brainlm.insilico.words import Word, framed
from bids_brainlm.models.fusion import BrainLM
from bids_brainlm.models.tree import Tree, nll_of_tree, tree_of

COMPONENTS = 50
"""Most principal components of training responses that a pattern is made of."""

STEPS = 30
"""Of the ascent; each goes a fifth of the allowed length at first, less and less."""

BLOCK = 64
"""Responses in memory at a time."""


@dataclass(frozen=True, eq=False)
class Reversed:
    """A pattern that makes the model say a word.

    Parameters
    ----------
    word : Word
    pattern : (V,) float32, standard deviations
    before, after : float
        Mean log-probability of the word over bases, in nats, without the pattern and with it.
    length : float
        Mahalanobis length of the pattern among the components.
    """

    word: Word
    pattern: Floats
    before: float
    after: float
    length: float


@dataclass(frozen=True, eq=False)
class Subspace:
    """Principal components of training responses.

    Parameters
    ----------
    axes : (V, F) float32
        Orthonormal.
    deviation : (F,) float32
        Standard deviation of training responses along each.
    length : float
        Median Mahalanobis length of training responses.
    """

    axes: Floats
    deviation: Floats
    length: float


def subspace_of(participant: Participant, fold: int = 0, n_components: int = COMPONENTS) -> Subspace:
    """Components of the training responses of a fold."""
    split = participant.folds[fold]
    rows = np.unique(split.examples.rows[split.train])
    rows = rows[rows >= 0]
    most = max(1, min(n_components, rows.size - 1, int((participant.scale(fold) > 0).sum())))
    affine: Affine = fit_affine(split.examples.recording, rows, most)
    parts = [affine(split.examples.recording.data[rows[i : i + BLOCK]]) for i in range(0, rows.size, BLOCK)]
    scores = np.concatenate(parts)
    deviation = scores.std(axis=0)
    if affine.components is None:
        raise ValueError("no components")
    lengths = np.linalg.norm(scores / np.maximum(deviation, np.finfo(np.float32).tiny), axis=1)
    return Subspace(affine.components, deviation, float(np.median(lengths)))


def reverse(
    participant: Participant,
    word: Word,
    bases: Examples,
    training: list[str],
    subspace: Subspace,
    *,
    fold: int = 0,
    steps: int = STEPS,
) -> Reversed:
    """Climb the mean log-probability of a word over bases.

    Parameters
    ----------
    bases : Examples
        Held-out trials that the pattern is added to.
    training : list of str
        Training texts, for frames (`words.framed`).
    subspace : Subspace
        Of the same fold.
    """
    decoder = participant.decoder(fold)
    model, style = decoder.model, participant.request.config.model.style
    texts = framed([word], bases, training, decoder.text, model.n_tokens, style).texts
    trees = [tree_of(own) for own in texts]
    axes = torch.from_numpy(np.array(subspace.axes * subspace.deviation)).to(model.device)
    moves = features_of(model, np.ascontiguousarray((subspace.axes * subspace.deviation).T))
    with torch.no_grad(), model.precision():
        base = [_features(model, bases, i) for i in range(len(bases))]
    place = torch.zeros(axes.shape[1], device=model.device)
    before = best = float(_log_p(model, base, trees, place @ moves).detach())
    best_place = place
    for step in range(steps):
        place = place.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(_log_p(model, base, trees, place @ moves), place)
        size = subspace.length / 5 * (1 - step / steps)
        place = _inside(place.detach() + size * gradient / gradient.norm().clamp(min=1e-12), subspace.length)
        with torch.no_grad():
            value = float(_log_p(model, base, trees, place @ moves))
        if value > best:
            best, best_place = value, place
    pattern = (axes @ best_place).cpu().numpy().astype(np.float32)
    return Reversed(word, pattern, before, best, float(best_place.norm()))


def _features(model: BrainLM, bases: Examples, base: int) -> Tensor:
    """(1, T, F)."""
    if model.features is None:
        raise ValueError("this model has no features")
    found: Tensor = model.features(torch.from_numpy(bases.gather([base])).to(model.device))
    return found


def _inside(place: Tensor, length: float) -> Tensor:
    inside: Tensor = place * (length / place.norm().clamp(min=length))
    return inside


def _log_p(model: BrainLM, base: list[Tensor], trees: list[Tree], move: Tensor) -> Tensor:
    """Mean over bases of the log-probability that any phrase of the word comes."""
    if model.tokenizer is None:
        raise ValueError("this model has no brain tokenizer")
    found = []
    for features, tree in zip(base, trees, strict=True):
        with model.precision():
            brain = model.tokenizer(features + move)
        found.append(torch.logsumexp(-nll_of_tree(model, brain, tree), dim=1)[0])
    return torch.stack(found).mean()


def likeness(one: NDArray[np.floating], other: NDArray[np.floating], used: NDArray[np.bool_]) -> float:
    """Correlation of two maps over the vertices that the model uses; nan where one is constant."""
    a, b = one[used] - one[used].mean(), other[used] - other[used].mean()
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale else float("nan")
