"""Patches that are no site: what a pattern of that size and strength does anywhere.

- On fsaverage a pattern is *spun*: the sphere of the left hemisphere is turned at random, that of the right one in mirror image,
  and every vertex takes the value that came to lie on it (Alexander-Bloch et al. 2018, doi:10.1016/j.neuroimage.2018.05.070).
  Neighbours stay neighbours, so that size, shape and symmetry are kept.
- In a volume, or among columns without anatomy, every *cluster* of the pattern (voxels that touch) becomes a contiguous patch of
  as many voxels around a random one, with the values of the cluster from its centre outwards. A scattered site is thereby
  compared with scattered patches.
- For a site of whole parcels they are other parcels, as many of them side by side; there are no more of these than parcels.

A patch is *matched*: it has the norm of the pattern over vertices that the model uses, as many parcels as the pattern to within
a factor of `LIKE`, and at most `OVERLAP` of its squared norm on the site.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from bids_brainlm.core.types import Bools, Floats, Ints
from bids_brainlm.errors import InputError
from bids_brainlm.io.meshes import fsaverage_files, points
from bids_brainlm.io.surfaces import Geometry
from bids_brainlm.stages.responses import Trials

Doubles = NDArray[np.float64]

LIKE = 1.5
"""By what factor the number of parcels that a patch touches may differ from that of its site."""

LOST = 0.1
"""Largest share of the squared norm that may come to lie where the model uses nothing, such as the medial wall."""

OVERLAP = 0.05
"""Largest share of the squared norm of a null patch that may lie on its site; sites cut from noisy maps are scattered."""

TRIES = 40
"""Patches that are tried for each one that is wanted."""

REGIONS = 20
"""Patches that the wrong region is chosen from."""


@dataclass(frozen=True, eq=False)
class Places:
    """Where the vertices are.

    Parameters
    ----------
    coordinates : (V, 3) float64
        On the spheres of both hemispheres, from their centres; mm of a volume; or the number of a column.
    n_left : int
        Vertices of the left hemisphere.
    spherical : bool
    used : (V,) bool
        Vertices that the model uses.
    parcels : (V,) int32
        Parcel of each vertex, 0 for none.
    """

    coordinates: Doubles
    n_left: int
    spherical: bool
    used: Bools
    parcels: NDArray[np.int32]

    def touched(self, pattern: Floats) -> int:
        """Number of parcels that a pattern is not 0 in."""
        return int(np.unique(self.parcels[(pattern != 0) & self.used & (self.parcels > 0)]).size)

    def norm(self, pattern: Floats) -> float:
        """Root of the sum of squares over vertices that the model uses, in SD."""
        return float(np.linalg.norm(pattern[self.used]))


def places_of(trials: Trials, used: Bools, parcels: NDArray[np.int32], offline: bool = False) -> Places:
    """Places of the columns of responses.

    Raises
    ------
    InputError
        For a surface other than fsaverage.
    """
    geometry = trials.geometry
    return Places(_coordinates(geometry, trials, offline), geometry.n_left, _is_surface(geometry), used, parcels)


def _is_surface(geometry: Geometry) -> bool:
    return geometry.volume is None and geometry.n_left < geometry.n_vertices


def _coordinates(geometry: Geometry, trials: Trials, offline: bool) -> Doubles:
    volume = geometry.volume
    if volume is not None:
        index = np.stack(np.unravel_index(volume.index, volume.shape)).T
        return np.asarray(index @ volume.affine[:3, :3].T + volume.affine[:3, 3])
    if not _is_surface(geometry):
        return np.stack([np.arange(geometry.n_vertices, dtype=np.float64)] + [np.zeros(geometry.n_vertices)] * 2, axis=1)
    if geometry.space != "fsaverage" or not geometry.density:
        what = f"null patches on a surface in {geometry.space}"
        raise InputError(what, trials.path, expected="fsaverage, a volume or a matrix", remedy="bring responses to fsaverage")
    files = fsaverage_files("sphere", geometry.density, trials.path, offline)
    return np.concatenate([points(path, geometry.density) for path in files])


def null_patches(pattern: Floats, places: Places, n: int, seed: tuple[int, ...]) -> Floats:
    """Matched patches of a pattern.

    Parameters
    ----------
    pattern : (V,) float32, standard deviations
    places : Places
    n : int
    seed : tuple of int

    Returns
    -------
    (m, V) float32
        m is n, or fewer where `TRIES` times as many did not suffice.
    """
    rng = np.random.default_rng(seed)
    found: list[Floats] = []
    norm, touched = places.norm(pattern), max(places.touched(pattern), 1)
    for patch in islice(_patches(pattern, places, rng), TRIES * n if norm else 0):
        if len(found) == n:
            break
        kept = places.norm(patch)
        alike = touched / LIKE <= max(places.touched(patch), 1) <= touched * LIKE
        if alike and kept**2 >= (1 - LOST) * norm**2 and overlap(patch, pattern != 0) <= OVERLAP:
            found.append(np.where(places.used, patch * np.float32(norm / kept), np.float32(0)))
    return np.array(found, dtype=np.float32).reshape(-1, pattern.size)


def elsewhere(pattern: Floats, places: Places, sites: Floats, seed: tuple[int, ...]) -> Floats | None:
    """A wrong region: of `REGIONS` matched patches the one with the least on any site (S, V); None where there is no patch."""
    taken = np.any(sites != 0, axis=0)
    patches = null_patches(pattern, places, REGIONS, seed)
    return patches[int(np.argmin([overlap(patch, taken) for patch in patches]))] if len(patches) else None


def overlap(patch: Floats, taken: Bools) -> float:
    """Share of the squared norm of a patch that lies where ``taken`` (V,) is true."""
    squares = patch.astype(np.float64) ** 2
    return float(squares[taken].sum() / max(squares.sum(), np.finfo(float).tiny))


def _patches(pattern: Floats, places: Places, rng: np.random.Generator) -> Iterator[Floats]:
    own = np.unique(places.parcels[(pattern != 0) & places.used])
    whole = np.isin(places.parcels, own) & places.used
    inside = pattern[whole]
    if own.size and own[0] and np.ptp(inside) == 0 and inside[0]:
        yield from _other_parcels(own.size, places, rng)
        return
    make = _Spinner(pattern, places) if places.spherical else _Grower(pattern, places)
    while True:
        yield make(rng)


def _other_parcels(n: int, places: Places, rng: np.random.Generator) -> Iterator[Floats]:
    """Every parcel with those nearest to it, n together, in random order."""
    # The spheres of both hemispheres have one centre.
    side = np.arange(places.parcels.size) >= places.n_left
    apart = places.coordinates + 1e4 * side[:, None]
    known = np.unique(places.parcels[places.used & (places.parcels > 0)])
    centres = np.array([apart[places.parcels == parcel].mean(axis=0) for parcel in known])
    for start in rng.permutation(known.size):
        near = np.argsort(((centres - centres[start]) ** 2).sum(axis=1), kind="stable")[:n]
        yield (np.isin(places.parcels, known[near]) & places.used).astype(np.float32)


class _Spinner:
    """Turns the spheres at random, in mirror image of each other."""

    def __init__(self, pattern: Floats, places: Places) -> None:
        unit = places.coordinates / np.linalg.norm(places.coordinates, axis=1, keepdims=True)
        self.halves = [_Half.of(unit[part], pattern[part]) for part in (slice(None, places.n_left), slice(places.n_left, None))]

    def __call__(self, rng: np.random.Generator) -> Floats:
        turn = Rotation.random(random_state=rng).as_matrix()
        mirror = np.diag([-1.0, 1.0, 1.0])
        return np.concatenate([half.turned(own) for half, own in zip(self.halves, (turn, mirror @ turn @ mirror), strict=True)])


@dataclass(frozen=True, eq=False)
class _Half:
    """Pattern on one sphere, and the cap that holds it: its centre (3,) and the cosine of its radius."""

    points: Doubles
    values: Floats
    tree: KDTree
    centre: Doubles
    cosine: float

    @classmethod
    def of(cls, points: Doubles, values: Floats) -> _Half:
        inside = points[values != 0]
        centre = inside.sum(axis=0) if len(inside) else np.zeros(3)
        centre = centre / max(float(np.linalg.norm(centre)), np.finfo(float).tiny)
        radius = np.arccos(np.clip((inside @ centre).min(initial=1.0), -1, 1))
        # Vertices whose nearest one has a value lie a vertex further out at most.
        margin = 4 * np.sqrt(4 * np.pi / len(points))
        return cls(points, values, KDTree(points), centre, float(np.cos(min(radius + margin, np.pi))))

    def turned(self, turn: Doubles) -> Floats:
        """(V,) what every vertex has after the turn: the value of the vertex that came to lie nearest."""
        out = np.zeros_like(self.values)
        near = np.flatnonzero(self.points @ (turn @ self.centre) >= self.cosine)
        out[near] = self.values[self.tree.query(self.points[near] @ turn)[1]]
        return out


class _Grower:
    """Lays every cluster of a pattern around a random place, the largest first, side by side where they meet."""

    def __init__(self, pattern: Floats, places: Places) -> None:
        inside = np.flatnonzero((pattern != 0) & places.used)
        self.used: Ints = np.flatnonzero(places.used)
        self.tree, self.size = KDTree(places.coordinates[self.used]), pattern.size
        groups = _touching(places.coordinates[inside], self._spacing()) if inside.size else []
        self.clusters = [pattern[inside[group]] for group in sorted(groups, key=len, reverse=True)]

    def _spacing(self) -> float:
        """Distance of neighbours."""
        return float(np.median(self.tree.query(self.tree.data, k=2)[0][:, 1])) if self.used.size > 1 else 1.0

    def __call__(self, rng: np.random.Generator) -> Floats:
        out, free = np.zeros(self.size, dtype=np.float32), np.ones(self.used.size, dtype=np.bool_)
        for values in self.clusters:
            start = self.tree.data[rng.choice(np.flatnonzero(free))]
            most = values.size + int((~free).sum())
            near = self.tree.query(start, k=[*range(1, most + 1)])[1]
            near = near[free[near]][: values.size]
            out[self.used[near]] = values
            free[near] = False
        return out


def _touching(coordinates: Doubles, spacing: float) -> list[Ints]:
    """Places (m, 3) in groups whose members touch, also at corners; each from its centre outwards."""
    pairs = KDTree(coordinates).query_pairs(1.01 * np.sqrt(3) * spacing, output_type="ndarray")
    links = sparse.coo_array((np.ones(len(pairs), np.int8), pairs.T), shape=(len(coordinates),) * 2)
    label = connected_components(links, directed=False)[1]
    groups = [np.flatnonzero(label == k) for k in np.unique(label)]
    distance = [((coordinates[group] - coordinates[group].mean(axis=0)) ** 2).sum(axis=1) for group in groups]
    return [group[np.argsort(own, kind="stable")] for group, own in zip(groups, distance, strict=True)]
