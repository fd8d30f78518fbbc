"""Where in the brain: what a decoder makes of a region, alone and beside all others.

A *region* is a parcel, or a network of parcels where their names tell it. *Masked* vertices are set to their training mean, so
that their z-scores are 0. Nothing is trained again: a masked brain is odd input to a decoder that always had all of it, and what
it says is about this decoder. What could be decoded from a region is told by a decoder that is trained on it
(``parcels.only``).

Two *ways*: ``alone``, everything but the region is masked; ``left_out``, the region is taken out of a brain that is otherwise
whole. Masks alone may change how likely a text is, whatever was in the region. What is tested is therefore *specificity*: by how
many nats the right text is likelier with the region's own response than with that of its partner
(`bids_brainlm.core.interventions.partners`), the rest being masked (``alone``) or the own one (``left_out``). Where the region
tells nothing, the two are exchangeable, and flipping the signs of whole groups is a proper test.

Regions that tell the same cover for each other: nothing is lost without one of them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from bids_brainlm.core.types import Bools, Examples, Ints, Parcellation
from bids_brainlm.evaluation.matrix import DIGITS
from bids_brainlm.evaluation.multiplicity import false_discovery_q, maximum_p
from bids_brainlm.evaluation.resampling import MIN_UNITS, bootstrap_interval, of_folds, permutation_p
from bids_brainlm.language.render import Rendered
from bids_brainlm.models.fusion import Batch, BrainLM, collate

Array = NDArray[np.float64]

WAYS = ("alone", "left_out")

NETWORK = re.compile(r"(?:\d+Networks_)?[LR]H_([A-Za-z]+)_")
"""Names of parcels that tell a network: ``7Networks_LH_Vis_1`` (Schaefer)."""

WHERE_COLUMNS = {
    "region": "Parcel, or network.",
    "kind": "parcel, or network: the parcels of both hemispheres whose names tell the same one.",
    "way": "alone: all else is masked; left_out: the region is taken out of an otherwise whole brain.",
    "vertices": "Number of its vertices that the decoder uses.",
    "specificity": "Nats a text by which the region's own response is better than its partner's, all else masked or as it is.",
    "ci_low": "Lower end of its 95 % interval over groups (bootstrap); n/a below 6 groups or where all are equal.",
    "ci_high": "Upper end of that interval.",
    "nll_difference": "Nats by which right texts are likelier given the region than nothing (alone), less likely without.",
    "n": "Number of texts.",
    "p_value": "One-sided p value of the specificity by flipping the signs of whole groups; n/a below 6 groups.",
    "p_max": "The same against the largest of all regions of that kind and way, corrected for their number.",
    "q_value": "False discovery rate (Benjamini-Hochberg) over the regions of that kind and way.",
}
"""Columns of the table of regions, in order."""


@dataclass(frozen=True, eq=False)
class Region:
    """A part of the brain: its name, whether it is a ``parcel`` or a ``network``, and its vertices (V,) bool."""

    name: str
    kind: str
    vertices: Bools


@dataclass(frozen=True, eq=False)
class Masked:
    """NLL (nats) of n texts under brains of which R regions are masked or exchanged.

    Parameters
    ----------
    whole, nothing : (n,) float64
        The own brain, and one that is masked as a whole.
    alone, alone_of_partner : (R, n) float64
        All but the region masked; the region's response is the own one, or the partner's.
    masked, exchanged : (R, n) float64
        The own brain, but for the region: masked, or with the partner's response.
    """

    whole: Array
    nothing: Array
    alone: Array
    alone_of_partner: Array
    masked: Array
    exchanged: Array

    @property
    def specificity(self) -> dict[str, Array]:
        """Way -> (R, n) what is tested."""
        return {"alone": self.alone_of_partner - self.alone, "left_out": self.exchanged - self.whole}

    @property
    def differences(self) -> dict[str, Array]:
        """Way -> (R, n) what masks alone do to the NLL of the right texts."""
        return {"alone": self.nothing - self.alone, "left_out": self.masked - self.whole}

    @classmethod
    def concat(cls, folds: Sequence[Masked]) -> Masked:
        """Texts of several folds, one after the other."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(fold, name) for fold in folds], axis=-1) for name in names))


def regions_of(atlas: Parcellation) -> tuple[Region, ...]:
    """Parcels, then networks where names tell at least two."""
    numbers = np.arange(atlas.n_parcels) + 1
    parcels = [Region(name, "parcel", atlas.labels == number) for name, number in zip(atlas.names, numbers, strict=True)]
    found = [NETWORK.match(name) for name in atlas.names]
    networks = np.array([match[1] if match else "" for match in found])
    names = list(dict.fromkeys(name for name in networks if name))
    if len(names) < 2:
        return tuple(parcels)
    joined = [Region(name, "network", np.isin(atlas.labels, numbers[networks == name])) for name in names]
    return (*parcels, *joined)


def masked_nll(
    model: BrainLM,
    examples: Examples,
    rendered: Sequence[Rendered],
    partner: Ints,
    regions: Sequence[Region],
    batch_size: int,
    chosen: Ints | None = None,
) -> Masked:
    """Score texts under brains of which regions are masked or exchanged.

    Parameters
    ----------
    model : BrainLM
        With `Features`, whose means stand for what is masked.
    examples : Examples
        A test set.
    rendered : sequence of Rendered
        Of all of them, with brain slots and answers.
    partner : (.,) int64
        Whose response each is compared with (`bids_brainlm.core.interventions.partners`).
    regions : sequence (R) of Region
    batch_size : int
    chosen : (n,) int64, optional
        The examples that are scored; all by default.

    Returns
    -------
    Masked

    Raises
    ------
    ValueError
        When the model has no `Features` of vertices.
    """
    everyone, mean = np.arange(len(examples)) if chosen is None else chosen, model.of_vertices.mean
    own_parts = torch.from_numpy(np.stack([region.vertices for region in regions])).to(model.device)
    parts = []
    for start in range(0, everyone.size, batch_size):
        part = everyone[start : start + batch_size]
        own, other = (torch.from_numpy(examples.gather(who)).to(model.device) for who in (part, partner[part]))
        batch = collate([rendered[i] for i in part], None).to(model.device)
        score = partial(_scored, model, batch)
        nothing = mean.expand_as(own)
        each = [(own, nothing), (other, nothing), (nothing, own), (other, own)]
        within = [np.stack([score(torch.where(here, inside, rest)) for here in own_parts]) for inside, rest in each]
        parts.append(Masked(score(own), score(nothing), *within))
    return Masked.concat(parts)


def _scored(model: BrainLM, batch: Batch, vertices: Tensor) -> Array:
    """(b,) NLL of the texts of a batch given other responses."""
    return np.asarray(model.nll(dataclasses.replace(batch, vertices=vertices)).cpu().double().numpy())


def where_table(
    masked: Masked,
    regions: Sequence[Region],
    used: Bools,
    units: ArrayLike,
    n_folds: int = 1,
    n_samples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Regions in the order given, each way.

    Parameters
    ----------
    masked : Masked
        Of all folds.
    regions : sequence (R) of Region
    used : (V,) bool
        Vertices that a decoder uses.
    units : (n,)
        What was sampled: the group of each text.
    n_folds : int
        Folds that texts were pooled over.
    n_samples : int
        Bootstrap samples.

    Returns
    -------
    DataFrame
        Columns `WHERE_COLUMNS`.
    """
    kinds = np.array([region.kind for region in regions])
    tables = []
    for way in WAYS:
        values, losses = masked.specificity[way], masked.differences[way]
        intervals = [bootstrap_interval(row, units, n_samples, seed) or (np.nan, np.nan) for row in values]
        table = pd.DataFrame({"region": [region.name for region in regions], "kind": kinds, "way": way})
        table["vertices"] = [int((region.vertices & used).sum()) for region in regions]
        table["specificity"] = values.mean(axis=1)
        table["ci_low"], table["ci_high"] = np.array(intervals).T
        table["nll_difference"], table["n"] = losses.mean(axis=1), values.shape[1]
        for kind in np.unique(kinds):
            own = np.flatnonzero(kinds == kind)
            p, p_max = flipped(values[own].T, units, n_folds=n_folds, seed=seed)
            table.loc[own, "p_value"], table.loc[own, "p_max"], table.loc[own, "q_value"] = p, p_max, false_discovery_q(p)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)[list(WHERE_COLUMNS)]


def flipped(values: ArrayLike, units: ArrayLike, n_flips: int = 10000, n_folds: int = 1, seed: int = 0) -> tuple[Array, Array]:
    """Whether means are above 0, by flipping the signs of whole units, the same ones for all columns.

    Parameters
    ----------
    values : (n, t) float
    units : (n,)
        What was sampled.
    n_flips : int
        Random signs.
    n_folds : int
        Folds that the values were pooled over.

    Returns
    -------
    p, p_max : (t,) float64
        One-sided: of each column, and against the largest of all. nan below `MIN_UNITS` units.
    """
    numbers = np.round(np.asarray(values, dtype=np.float64), DIGITS)
    index = np.unique(np.asarray(units), return_inverse=True)[1]
    sums = np.zeros((int(index.max()) + 1, numbers.shape[1]))
    np.add.at(sums, index, numbers)
    if len(sums) < MIN_UNITS:
        nothing = np.full(numbers.shape[1], np.nan)
        return nothing, nothing
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(n_flips, len(sums)))
    # Sums in another order differ in their last bits; equal ones must count as equally extreme.
    null, observed = np.round(of_folds(signs @ sums, n_folds), 8), np.round(sums.sum(axis=0), 8)
    p = np.array([permutation_p(float(own), column) for own, column in zip(observed, null.T, strict=True)])
    return p, maximum_p(observed, null)
