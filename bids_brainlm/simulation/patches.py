"""Where facts live in cortex.

- A *sheet* is the set of places where a response can be: the vertices of two spherical hemispheres (millimetres on a sphere
  of radius 100 mm, as FreeSurfer registers them), or the voxels of a small volume.
- A *patch* is the disc of cortex of one factor, at mirrored places of both hemispheres.
- A *map* is the tuning of one word: a Gaussian bump around a centre of its own inside the patch, positive, 1 at the centre,
  exactly 0 where it has fallen below `EDGE` or leaves the patch or the cortex.

Where the factors are depends on the seed; each participant's centres are jittered around them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.types import Bools, Floats

EDGE = 0.1
"""Smallest weight of a map; below it a vertex does not respond at all."""

MIN_THICKNESS = 1.3
"""Millimetres; where fsaverage's mean cortex is thinner lies the medial wall."""


@dataclass(frozen=True, eq=False)
class Sheet:
    """Vertices or voxels that may respond.

    Parameters
    ----------
    coordinates : (V, 3) float32, mm
    hemisphere : (V,) int, 0 left and 1 right
    cortex : (V,) bool
        False on the medial wall, where recordings hold zeros.
    n_left : int
        Vertices of the left hemisphere; V for a volume.
    affine : (4, 4) float64, or None for a surface
    mask : (X, Y, Z) bool, or None for a surface
        Which voxels of the grid the V places are, in C order.
    radius, width : float, mm
        Sizes that suit the sheet: radius of a factor's patch, standard deviation of a word's bump.
    gain : float
        By how much stronger responses must be for the same reliability: more of a ball than of a disc is edge.
    """

    coordinates: Floats
    hemisphere: NDArray[np.int64]
    cortex: Bools
    n_left: int
    affine: NDArray[np.float64] | None = None
    mask: Bools | None = None
    radius: float = 28.0
    width: float = 8.5
    gain: float = 1.0

    @property
    def n_vertices(self) -> int:
        return len(self.coordinates)


def surface() -> Sheet:
    """fsaverage5 (20,484 vertices), from the mesh that comes with nilearn; nothing is fetched."""
    from nilearn.datasets import load_fsaverage, load_fsaverage_data

    sphere = load_fsaverage("fsaverage5")["sphere"].parts
    thickness = load_fsaverage_data("fsaverage5", data_type="thickness").data.parts
    parts = [np.asarray(sphere[side].coordinates, dtype=np.float32) for side in ("left", "right")]
    cortex = np.concatenate([np.asarray(thickness[side]).ravel() >= MIN_THICKNESS for side in ("left", "right")])
    hemisphere = np.repeat([0, 1], [len(part) for part in parts])
    return Sheet(np.concatenate(parts), hemisphere, cortex, len(parts[0]))


def volume(shape: tuple[int, int, int] = (30, 36, 28), voxel: float = 5.0) -> Sheet:
    """A brain-like ellipsoid of voxels of ``voxel`` mm that leaves a margin of air, centred on the origin."""
    affine = np.diag([voxel, voxel, voxel, 1.0])
    affine[:3, 3] = -voxel * (np.array(shape) - 1) / 2
    index = np.indices(shape).reshape(3, -1).T
    relative = (index - (np.array(shape) - 1) / 2) / (np.array(shape) / 2 - 1.5)
    mask = ((relative**2).sum(axis=1) <= 1).reshape(shape)
    coordinates = (index @ affine[:3, :3].T + affine[:3, 3])[mask.ravel()].astype(np.float32)
    side, n = (coordinates[:, 0] > 0).astype(np.int64), len(coordinates)
    return Sheet(coordinates, side, np.ones(n, dtype=bool), n, affine, mask, radius=21.0, width=8.0, gain=1.2)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Where a participant's words live.

    Parameters
    ----------
    maps : dict of (factor, word) to (V,) float32
        Tuning of each word, 0 to 1.
    patches : dict of factor to (V,) bool
        The disc that holds the maps of a factor.
    """

    maps: dict[tuple[str, str], Floats]
    patches: dict[str, Bools]

    @property
    def driven(self) -> Bools:
        """(V,) bool, vertices that respond to at least one word."""
        return np.asarray(np.any([weights > 0 for weights in self.maps.values()], axis=0))

    def responses(self, said: Sequence[Iterable[tuple[str, str]]], gain: float) -> Floats:
        """(k, V) response to each of k things that are said or shown: the sum of the maps of its (factor, word), times a gain."""
        out = np.zeros((len(said), len(next(iter(self.maps.values())))), dtype=np.float32)
        for row, words in zip(out, said, strict=True):
            for word in words:
                row += self.maps[word]
        out *= np.float32(gain)
        return out


def patch_maps(
    sheet: Sheet,
    factors: Mapping[str, Collection[str]],
    seed: int,
    participant: int = 0,
    *,
    jitter: float = 3.0,
) -> Anatomy:
    """Lay every factor in a patch of its own and every word in a bump inside it.

    Parameters
    ----------
    sheet : Sheet
    factors : mapping of factor to its words
    seed : int
        Decides where the factors are, the same for all participants.
    participant : int
        Decides the jitter of the centres.
    jitter : float, mm
        Standard deviation over participants of where a patch lies; a third of it for a word in its patch.

    Raises
    ------
    ValueError
        When the patches do not fit on the sheet side by side.
    """
    radius, anatomy, person = sheet.radius, np.random.default_rng([seed, 3]), np.random.default_rng([seed, 4, participant])
    centres = _spread(sheet, len(factors), radius, anatomy)
    maps: dict[tuple[str, str], Floats] = {}
    patches: dict[str, Bools] = {}
    for (factor, words), centre in zip(factors.items(), centres, strict=True):
        shift = person.normal(0, jitter, (2, 3))
        turn = anatomy.uniform(0, 2 * np.pi)
        places = [_snap(sheet, _mirror(centre, side) + shift[side], side) for side in (0, 1)]
        patches[factor] = np.asarray(_near(sheet, places, radius).any(axis=0) & sheet.cortex)
        for number, word in enumerate(words):
            spots = [_word_centre(sheet, places[side], side, radius, number, len(words), turn) for side in (0, 1)]
            spots = [_snap(sheet, spot + person.normal(0, jitter / 3, 3), side) for side, spot in enumerate(spots)]
            maps[factor, word] = _bump(sheet, spots, sheet.width, patches[factor])
    return Anatomy(maps, patches)


def _mirror(point: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    return np.asarray(point * np.array([1.0 if side == 0 else -1.0, 1.0, 1.0]))


def _snap(sheet: Sheet, point: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """The place of the hemisphere that is nearest to a point of space."""
    places = sheet.coordinates[sheet.hemisphere == side]
    return np.asarray(places[np.argmin(((places - point) ** 2).sum(axis=1))], dtype=np.float64)


def _distances(sheet: Sheet, point: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """(V,) mm from a point to the places of one hemisphere, infinite for the other."""
    apart = np.sqrt(((sheet.coordinates - point) ** 2).sum(axis=1))
    return np.where(sheet.hemisphere == side, apart, np.inf)


def _near(sheet: Sheet, points: Sequence[NDArray[np.float64]], radius: float) -> Bools:
    return np.array([_distances(sheet, point, side) <= radius for side, point in enumerate(points)])


def _spread(sheet: Sheet, n: int, radius: float, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Centres in the left hemisphere, at least two radii apart, whose discs lie on cortex in both hemispheres."""
    left = np.flatnonzero((sheet.hemisphere == 0) & sheet.cortex)
    chosen: list[NDArray[np.float64]] = []
    for vertex in rng.permutation(left):
        point = sheet.coordinates[vertex].astype(np.float64)
        if any(np.linalg.norm(point - other) < 2 * radius for other in chosen):
            continue
        discs = _near(sheet, [point, _snap(sheet, _mirror(point, 1), 1)], radius)
        inside = discs.any(axis=0)
        if (inside & ~sheet.cortex).sum() <= 0.02 * inside.sum() and abs(point[0]) >= (0 if sheet.mask is None else radius / 2):
            chosen.append(point)
        if len(chosen) == n:
            return chosen
    raise ValueError(f"{n} patches of radius {radius:g} mm do not fit side by side; {len(chosen)} did")


def _word_centre(
    sheet: Sheet, centre: NDArray[np.float64], side: int, radius: float, number: int, n: int, turn: float
) -> NDArray[np.float64]:
    """Words sit on a ring in the plane that touches the sheet at the centre of the patch."""
    normal = centre / np.linalg.norm(centre)
    first = np.cross(normal, [0.0, 0.0, 1.0] if abs(normal[2]) < 0.9 else [0.0, 1.0, 0.0])
    first /= np.linalg.norm(first)
    second = np.cross(normal, first)
    angle = (turn + 2 * np.pi * number / n) * (1 if side == 0 else -1)
    return np.asarray(centre + 0.6 * radius * (np.cos(angle) * first + np.sin(angle) * second))


def _bump(sheet: Sheet, centres: Sequence[NDArray[np.float64]], width: float, inside: Bools) -> Floats:
    apart = np.min([_distances(sheet, centre, side) for side, centre in enumerate(centres)], axis=0)
    weights = np.exp(-0.5 * (apart / width) ** 2)
    weights[(weights < EDGE) | ~inside] = 0.0
    return np.asarray(weights, dtype=np.float32)
