"""Where in the brain: what a decoder loses without a region, and what it makes of the region alone.

A *region* is a parcel, or a network of parcels where their names tell it. *Masked* vertices are set to their training mean, so
that their z-scores are 0. Nothing is trained again: a masked brain is odd input to a decoder that always had all of it, and
what it says is about this decoder. What could be decoded from a region is told by a decoder that is trained on it
(``parcels.only``).

Two *ways*: ``left_out`` masks the region, ``alone`` masks everything else. Masks alone may change how likely a text is,
whatever the brain. What is tested is therefore *specificity*: by how many nats a text is likelier under its own brain than
under that of its partner (`bids_brainlm.core.interventions.partners`), both masked in the same way.

- ``alone``: the specificity of the region alone. Where it tells nothing of the text, own brain and partner's are exchangeable,
  and flipping the signs of whole groups is a proper test.
- ``left_out``: the specificity of the whole brain minus that without the region. Regions that tell the same thing cover for
  each other: nothing is lost without one of them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from bids_brainlm.core.types import Bools, Examples, Ints, Parcellation
from bids_brainlm.evaluation.matrix import DIGITS
from bids_brainlm.evaluation.multiplicity import false_discovery_q, maximum_p
from bids_brainlm.evaluation.resampling import MIN_UNITS, bootstrap_interval, of_folds, permutation_p
from bids_brainlm.language.render import Rendered
from bids_brainlm.models.fusion import BrainLM, Features, collate

Array = NDArray[np.float64]

WAYS = ("alone", "left_out")

NETWORK = re.compile(r"(?:\d+Networks_)?[LR]H_([A-Za-z]+)_")
"""Names of parcels that tell a network: ``7Networks_LH_Vis_1`` (Schaefer)."""

WHERE_COLUMNS = {
    "region": "Parcel, or network.",
    "kind": "parcel, or network: the parcels of both hemispheres whose names tell the same one.",
    "way": "alone: all else is masked; left_out: the region is masked.",
    "vertices": "Number of its vertices that the decoder uses.",
    "specificity": "Nats a text: of the region alone, or by how much less there is without it.",
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
    """NLL (nats) of texts under masked brains.

    Parameters
    ----------
    own, other : (2 + 2 R, n) float64
        Under the own brain of each text, and under its partner's. Rows: nothing masked, everything masked, each of R regions
        alone, each left out.
    """

    own: Array
    other: Array

    @property
    def specificity(self) -> dict[str, Array]:
        """Way -> (R, n)."""
        spared, whole = self.other - self.own, (self.other - self.own)[0]
        alone, left_out = np.split(spared[2:], 2)
        return {"alone": alone, "left_out": whole - left_out}

    @property
    def differences(self) -> dict[str, Array]:
        """Way -> (R, n) difference of the NLL of the right texts."""
        alone, left_out = np.split(self.own[2:], 2)
        return {"alone": self.own[1] - alone, "left_out": left_out - self.own[0]}

    @classmethod
    def concat(cls, folds: Sequence[Masked]) -> Masked:
        """Texts of several folds, one after the other."""
        return cls(*(np.concatenate([getattr(fold, name) for fold in folds], axis=1) for name in ("own", "other")))


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
    """Score texts under masked brains.

    Parameters
    ----------
    model : BrainLM
        With `Features`, whose means stand for what is masked.
    examples : Examples
        A test set.
    rendered : sequence of Rendered
        Of all of them, with brain slots and answers.
    partner : (.,) int64
        Whose response each is compared with.
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
    if not isinstance(model.features, Features):
        raise ValueError("nothing can be masked in a model without features of vertices")
    everyone = np.arange(len(examples)) if chosen is None else chosen
    spared = np.stack([region.vertices for region in regions])
    nothing = np.zeros((1, spared.shape[1]), dtype=np.bool_)
    kept = torch.from_numpy(np.concatenate([~nothing, nothing, spared, ~spared])).to(model.device)
    out = np.empty((2, len(kept), everyone.size))
    for start in range(0, everyone.size, batch_size):
        part = everyone[start : start + batch_size]
        for way, brains in enumerate((part, partner[part])):
            batch = collate([rendered[i] for i in part], examples.gather(brains)).to(model.device)
            for row, keep in enumerate(kept):
                vertices = torch.where(keep, batch.vertices, model.features.mean)  # type: ignore[arg-type]
                nll = model.nll(dataclasses.replace(batch, vertices=vertices))
                out[way, row, start : start + part.size] = nll.cpu().double().numpy()
    return Masked(out[0], out[1])


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
