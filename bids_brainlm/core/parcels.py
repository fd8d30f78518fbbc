"""From vertices to parcels, and from one fsaverage density to a coarser one.

*Coverage* of a parcel is the share of its vertices that hold usable data. The fsaverage meshes are *nested*: the first
10,242 vertices of a hemisphere of the 164k mesh are those of the 10k mesh, so a coarser map is a finer one cut short.

>>> to_density(np.arange(2 * 10242), 10242, 2562)[[0, 2561, 2562]].tolist()
[0, 2561, 10242]
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bids_brainlm.core.types import DENSITIES, Bools, Floats, Parcellation

Element = TypeVar("Element", bound=np.generic)

ROWS_AT_ONCE = 64
"""Rows in memory as float64 at a time; the data may be a memory map."""


def only(parcellation: Parcellation, patterns: Sequence[str]) -> Parcellation:
    """The parcels whose names match; the vertices of all others belong to none.

    Parameters
    ----------
    parcellation : Parcellation
    patterns : sequence of str
        Names, in which ``*`` and ``?`` are wildcards; whatever the case.

    Raises
    ------
    ValueError
        For a pattern that matches no parcel.
    """
    names = np.array([name.lower() for name in parcellation.names])
    # A bracket is a letter like any other.
    globs = [pattern.lower().replace("[", "[[]") for pattern in patterns]
    matches = [[fnmatch.fnmatchcase(name, glob) for name in names] for glob in globs]
    for pattern, found in zip(patterns, matches, strict=True):
        if not any(found):
            raise ValueError(f"no parcel of {parcellation.name} is named {pattern!r}")
    kept = np.any(matches, axis=0)
    number = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)])
    own = tuple(name for name, keep in zip(parcellation.names, kept, strict=True) if keep)
    return replace(parcellation, labels=number[parcellation.labels], names=own)


def parcel_means(data: Any, parcellation: Parcellation, valid: Bools) -> tuple[Floats, NDArray[np.float64]]:
    """Mean over the usable vertices of each parcel.

    Parameters
    ----------
    data : (R, V)
        Array or memory map, in any unit; what it holds where ``valid`` is false does not matter.
    parcellation : Parcellation
    valid : (V,) bool

    Returns
    -------
    means : (R, P) float32
        NaN where the coverage is 0.
    coverage : (P,) float64
        0 to 1.

    Raises
    ------
    ValueError
        When the three do not have the same V.
    """
    valid = np.asarray(valid, dtype=np.bool_)
    if not data.shape[1] == parcellation.labels.size == valid.size:
        raise ValueError(
            f"{data.shape[1]} vertices of data, {valid.size} of the mask, {parcellation.labels.size} of {parcellation.name}"
        )
    counted = np.where(valid, parcellation.labels, 0)
    number = np.bincount(counted, minlength=parcellation.n_parcels + 1)[1:]
    vertices = np.flatnonzero(counted)
    weights = sparse.csr_array(
        (1.0 / number[counted[vertices] - 1], (counted[vertices] - 1, np.arange(vertices.size))),
        shape=(parcellation.n_parcels, vertices.size),
    )
    means = np.empty((data.shape[0], parcellation.n_parcels), dtype=np.float32)
    for start in range(0, len(means), ROWS_AT_ONCE):
        rows = np.asarray(data[start : start + ROWS_AT_ONCE], dtype=np.float64)
        means[start : start + ROWS_AT_ONCE] = (weights @ rows[:, vertices].T).T
    means[:, number == 0] = np.nan
    return means, number / np.bincount(parcellation.labels, minlength=parcellation.n_parcels + 1)[1:]


def to_density(array: NDArray[Element], n_left: int, vertices_per_hemi: int) -> NDArray[Element]:
    """Keep the vertices of a coarser fsaverage mesh.

    Parameters
    ----------
    array : (..., V)
        Left hemisphere, then right.
    n_left : int
        Vertices of the left hemisphere.
    vertices_per_hemi : int
        One of `bids_brainlm.core.types.DENSITIES`.

    Returns
    -------
    (..., 2 * vertices_per_hemi)
        The array itself when it has that density already.

    Raises
    ------
    ValueError
        When either mesh is no fsaverage mesh (cutting another would mix places up) or the target is finer.
    """
    n_right = array.shape[-1] - n_left
    if n_left == n_right == vertices_per_hemi:
        return array
    if n_left != n_right or n_left not in DENSITIES or vertices_per_hemi not in DENSITIES:
        known = ", ".join(map(str, DENSITIES))
        raise ValueError(f"{n_left} left and {n_right} right vertices to {vertices_per_hemi} each; fsaverage has {known} each")
    if vertices_per_hemi > n_left:
        raise ValueError(f"{n_left} vertices a hemisphere cannot become {vertices_per_hemi}; a density can only be lowered")
    return np.concatenate([array[..., :vertices_per_hemi], array[..., n_left : n_left + vertices_per_hemi]], axis=-1)
