"""Encoding models: how much of the responses of a parcel can be predicted from what is said of the stimulus.

The way back from a decoder: a text becomes a vector (an embedding, or a bag of words), and ridge regression leads from it to the
response of every vertex. Models are *fitted* on training trials alone. The *fit* of a parcel is the correlation r, over trials
and vertices, of predicted and measured responses of trials that were held out: groups of training trials are, in turns, and the
penalty is chosen within the others. A parcel in which every word has a place answers all of them alike in its mean, and
differently in its pattern; so fits are those of patterns.

The p value of r counts exchanges of responses among the held-out trials of a run (`bids_brainlm.core.interventions.exchanges`),
spread as pooled folds ask for (`bids_brainlm.evaluation.resampling.of_folds`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bids_brainlm.core.interventions import exchanges
from bids_brainlm.core.parcels import parcel_means
from bids_brainlm.core.types import Examples, Floats, Ints, Parcellation
from bids_brainlm.evaluation.embeddings import bag_of_words, embed
from bids_brainlm.evaluation.multiplicity import false_discovery_q
from bids_brainlm.evaluation.resampling import of_folds
from bids_brainlm.insilico.naming import effects
from bids_brainlm.models.fusion import Features

Array = NDArray[np.float64]

N_FOLDS = 5
"""Parts in which groups are held out."""

BLOCK = 64
"""Trials whose responses are in memory at a time, where all vertices of them are."""

MOST = 2**23
"""Numbers in memory at a time, where some vertices of all trials are."""


@dataclass(frozen=True, eq=False)
class Fit:
    """How well responses are predicted.

    Parameters
    ----------
    r : (P,) float64
        Correlation of predicted and measured responses over the trials and vertices of each parcel, both relative to their mean
        over the trials that are held out together; nan where either is constant.
    p_value : (P,) float64
        That r is above 0.
    q_value : (P,) float64
        False discovery rate over parcels.
    """

    r: Array
    p_value: Array
    q_value: Array


@dataclass(frozen=True, eq=False)
class Held:
    """Trials that are held out together.

    Parameters
    ----------
    fit, held : (.,) int64
        Trials that the model is fitted on, and those that it predicts.
    hat : (m, n) float64
        Predictions are ``hat @ responses[fit]``.
    """

    fit: Ints
    held: Ints
    hat: Array


def text_vectors(references: Sequence[Sequence[str]], folder: str | Path = "") -> Floats:
    """(n, D) mean vector of the texts of each example: embeddings by the model in a folder, or bags of words without one."""
    texts = list(chain.from_iterable(references))
    vectors = embed(texts, folder) if folder else bag_of_words(texts, texts)
    owner = np.repeat(np.arange(len(references)), [len(own) for own in references])
    out = np.zeros((len(references), vectors.shape[1]), dtype=np.float32)
    np.add.at(out, owner, vectors)
    return np.asarray(out / np.bincount(owner)[:, None], dtype=np.float32)


def scaled(examples: Examples, features: Features, index: Ints, vertices: slice = slice(None)) -> Floats:
    """(b, c) responses in standard deviations over training, the mean over the rows of an example; 0 where there is no value."""
    mean, gain = (values.cpu().numpy()[vertices] for values in (features.mean, features.gain))
    data = (examples.gather(index, vertices) - mean) * gain
    return np.asarray(np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0).mean(axis=1), dtype=np.float32)


def parcel_responses(examples: Examples, features: Features, parcellation: Parcellation, pattern: Floats | None = None) -> Array:
    """Mean over each parcel's vertices of response times pattern: how far the pattern is driven.

    Parameters
    ----------
    examples : Examples
        n of them.
    features : Features
        Of the decoder, with mean and gain of V vertices; what it does not use counts nothing.
    parcellation : Parcellation
    pattern : (V,) float32, optional
        1 everywhere when None.

    Returns
    -------
    (n, P) float64
        0 in a parcel of which nothing is used.
    """
    used = features.gain.cpu().numpy() > 0
    out = np.empty((len(examples), parcellation.n_parcels))
    for start in range(0, len(out), BLOCK):
        part = np.arange(start, min(start + BLOCK, len(out)))
        data = scaled(examples, features, part)
        out[part] = np.nan_to_num(parcel_means(data if pattern is None else data * pattern, parcellation, used)[0])
    return out


def main_pattern(examples: Examples, features: Features, parcellation: Parcellation, uses: Array) -> Floats:
    """In each parcel, the pattern along which responses differ most from word to word.

    Parameters
    ----------
    examples : Examples
        n training trials.
    features : Features
    parcellation : Parcellation
    uses : (n, W) float64
        Share of the texts of each trial that use each word.

    Returns
    -------
    (V,) float32, standard deviations
        First principal component, over the vertices of each parcel, of the effects of the words (`naming.effects`), each times
        the standard deviation of its use. Its mean square is 1 over the vertices that are used, its mean positive; 0 elsewhere.
    """
    spread, labels, everyone = uses.std(axis=0), parcellation.labels, np.arange(len(examples))
    found = np.zeros((labels.size, uses.shape[1]), dtype=np.float32)
    for start in range(0, labels.size, width := max(1, MOST // len(examples))):
        part = slice(start, start + width)
        found[part] = effects(uses, scaled(examples, features, everyone, part).astype(np.float64)) * spread
    out = np.zeros(labels.size, dtype=np.float32)
    for members in _members(parcellation, features.gain.cpu().numpy() > 0):
        axis = np.linalg.svd(found[members].astype(np.float64), full_matrices=False)[0][:, 0]
        out[members] = axis * np.sqrt(members.size) * (1 if axis.sum() >= 0 else -1)
    return out


def _members(parcellation: Parcellation, used: NDArray[np.bool_]) -> Iterator[Ints]:
    """Vertices of each parcel that are used; parcels without any are left out."""
    counted = np.where(used, parcellation.labels, 0)
    order = np.argsort(counted, kind="stable")
    edges = np.searchsorted(counted[order], np.arange(1, parcellation.n_parcels + 2))
    return (order[start:stop] for start, stop in pairwise(edges) if stop > start)


def held_out(vectors: Floats, responses: Array, groups: NDArray[np.str_]) -> list[Held]:
    """Ridge models from texts to responses, each fitted without some groups.

    Parameters
    ----------
    vectors : (n, D) float32
    responses : (n, P) float64
        Those by whose held-out error the penalty is chosen, within the trials that are fitted on; one for all columns.
    groups : (n,)
        What is held out together.

    Raises
    ------
    ValueError
        When there are fewer than three groups: one to hold out, two to choose the penalty with.
    """
    # Here, because scikit-learn takes 0.7 s, and every command line imports this module.
    from sklearn.model_selection import GroupKFold

    from bids_brainlm.evaluation.readout import choose_alpha, ridge_path

    code = np.unique(groups, return_inverse=True)[1]
    n_groups = int(code.max()) + 1
    if n_groups < 3:
        raise ValueError(f"{n_groups} group(s) of training trials; a cross-validated encoding model needs three")
    rows = np.asarray(vectors, dtype=np.float64)
    kernel, out = rows @ rows.T, []
    folds = GroupKFold(min(N_FOLDS, n_groups), shuffle=True, random_state=0)
    for fit, held in folds.split(kernel, groups=code):
        inner = kernel[np.ix_(fit, fit)]
        alpha = choose_alpha(inner, responses[fit], code[fit])
        hat = ridge_path(inner, np.eye(fit.size), kernel[np.ix_(held, fit)], np.array([alpha]))[0]
        out.append(Held(fit, held, hat))
    return out


def fit_of(
    parts: Sequence[Held], examples: Examples, features: Features, parcellation: Parcellation, n_permutations: int, seed: int = 0
) -> Fit:
    """How well held-out responses are predicted in each parcel.

    Parameters
    ----------
    parts : sequence of Held
    examples : Examples
        The n trials that ``parts`` are of.
    features : Features
    parcellation : Parcellation
    n_permutations : int
    seed : int

    Raises
    ------
    ValueError
        Where nothing can be exchanged with some held-out trial.
    """
    blocks = [_blocks(examples.take(part.held), n_permutations, seed + i) for i, part in enumerate(parts)]
    widest = max(block.members.size for own in blocks for block in own)
    n_parcels, everyone = parcellation.n_parcels, np.arange(len(examples))
    products = [[np.zeros((block.members.size, block.members.size, n_parcels)) for block in own] for own in blocks]
    squares = np.zeros((2, n_parcels))
    for vertices, member in _vertices(parcellation, MOST // max(len(examples), widest**2)):
        responses = scaled(examples, features, everyone, vertices)
        for part, own, sums in zip(parts, blocks, products, strict=True):
            pair = [values - values.mean(axis=0) for values in (part.hat @ responses[part.fit], responses[part.held])]
            squares += [(values**2).sum(axis=0) @ member for values in pair]
            for block, total in zip(own, sums, strict=True):
                predicted, measured = (values[block.members] for values in pair)
                both = predicted[:, None] * measured[None]
                total += (both.reshape(-1, member.shape[0]) @ member).reshape(total.shape)
    flat = [(block, total) for own, sums in zip(blocks, products, strict=True) for block, total in zip(own, sums, strict=True)]
    return _tested(flat, np.sqrt(squares.prod(axis=0)), len(parts))


@dataclass(frozen=True, eq=False)
class _Block:
    """Trials (b,) of a part whose responses change places with each other alone, and whose response (K, b) each is given."""

    members: Ints
    order: Ints


def _blocks(examples: Examples, n_permutations: int, seed: int) -> list[_Block]:
    order = exchanges(examples, n_permutations, seed)
    n = len(examples)
    pairs = sparse.coo_array((np.ones(order.size, np.int8), (np.tile(np.arange(n), len(order)), order.ravel())), shape=(n, n))
    _, label = sparse.csgraph.connected_components(pairs, directed=False)
    sets = [np.flatnonzero(label == number) for number in np.unique(label)]
    return [_Block(members, np.searchsorted(members, order[:, members])) for members in sets]


def _vertices(parcellation: Parcellation, width: int) -> Iterator[tuple[slice, sparse.csr_array]]:
    """Some vertices at a time, and (c, P) in which parcel each is."""
    for start in range(0, parcellation.labels.size, max(1, width)):
        labels = parcellation.labels[start : start + max(1, width)]
        inside = np.flatnonzero(labels)
        ones, shape = np.ones(inside.size), (labels.size, parcellation.n_parcels)
        yield slice(start, start + labels.size), sparse.csr_array((ones, (inside, labels[inside] - 1)), shape=shape)


def _tested(products: Sequence[tuple[_Block, Array]], size: Array, n_parts: int) -> Fit:
    """From what each pair (predicted, measured) of a block adds to the correlation of each parcel, times ``size`` (P,)."""
    n_permutations = len(products[0][0].order)
    total, null = np.zeros(size.size), np.zeros((n_permutations, size.size))
    for block, sums in products:
        for i, given in enumerate(block.order.T):
            total += sums[i, i]
            null += sums[i, given]
    known = size > 0
    # Equal sums in another order differ in the last bits; they must count as equally extreme.
    reached = of_folds(null, n_parts) >= total - 1e-9 * size
    p = np.where(known, (1 + reached.sum(axis=0)) / (n_permutations + 1), np.nan)
    r = np.divide(total, size, out=np.full(size.size, np.nan), where=known)
    return Fit(r, p, false_discovery_q(p))
