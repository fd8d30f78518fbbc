"""Maps of one value a vertex or voxel: four views of the inflated cortex, or slices of a volume.

The cortex is drawn straight from the triangles: those that face the viewer, far ones first (painter's algorithm), shaded by
their slope. Vertices without a value show sulcal depth in grey. The mesh is fsaverage5, which comes with nilearn; denser data
are shown by their first 10,242 vertices a hemisphere (nested meshes), sparser ones by the nearest vertex on the sphere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from bids_brainlm.reports.figures import STYLE, new_figure

Array = NDArray[np.float64]

SEQUENTIAL, DIVERGING = "YlOrRd", "RdBu_r"


@dataclass(frozen=True, eq=False)
class Hemisphere:
    """Triangle mesh: coordinates (v, 3) in mm (x to the right, y forward, z up), faces (f, 3), sulcal depth (v,)."""

    coordinates: Array
    faces: NDArray[np.int64]
    sulcal: Array


@cache
def cortex() -> tuple[Hemisphere, Hemisphere]:
    """Left and right inflated fsaverage5."""
    from nilearn.datasets import load_fsaverage, load_fsaverage_data

    mesh = load_fsaverage("fsaverage5")["inflated"]
    depth = load_fsaverage_data(mesh="fsaverage5", data_type="sulcal").data
    parts = [
        Hemisphere(*(np.asarray(x) for x in (mesh.parts[s].coordinates, mesh.parts[s].faces, depth.parts[s])))
        for s in ("left", "right")
    ]
    return parts[0], parts[1]


@cache
def _nearest(n: int) -> NDArray[np.int64]:
    """(10242,) index of the nearest of the first n vertices, on the sphere."""
    from nilearn.datasets import load_fsaverage

    sphere = np.asarray(load_fsaverage("fsaverage5")["sphere"].parts["left"].coordinates)
    return np.asarray(cKDTree(sphere[:n]).query(sphere)[1], dtype=np.int64)


def surface_map(
    values: ArrayLike,
    n_left: int,
    label: str,
    limits: tuple[float, float] | None = None,
    mesh: tuple[Hemisphere, Hemisphere] | None = None,
) -> Figure:
    """Lateral and medial views of both hemispheres.

    Parameters
    ----------
    values : (V,) float
        Left hemisphere first; nan is grey.
    n_left : int
        Vertices of the left hemisphere.
    label : str
        Of the colour bar, with the unit.
    limits : (low, high), optional
        Ends of the colour scale; diverging where low is negative. By default 0 (or minus high) to the 99th percentile.
    mesh : pair of Hemisphere, optional
        Inflated fsaverage5 when absent.

    Raises
    ------
    ValueError
        When the values fit no mesh.
    """
    numbers = np.asarray(values, dtype=np.float64)
    norm, colours = scale(numbers, limits)
    rgba = [colours(norm(part)) for part in (numbers[:n_left], numbers[n_left:])]
    known = [np.isfinite(part) for part in (numbers[:n_left], numbers[n_left:])]
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure, axes, bar = _views()
        for side, hemisphere in enumerate(mesh or cortex()):
            colour = _on_mesh(rgba[side], known[side], hemisphere)
            for axis, outward in ((axes[0][side], True), (axes[1][side], False)):
                _draw(axis, hemisphere, colour, looking_right=(side == 0) == outward)
        figure.colorbar(ScalarMappable(norm, colours), cax=bar, label=label).outline.set_visible(False)
    return figure


def parcel_map(labels: ArrayLike, n_left: int, seed: int = 0, mesh: tuple[Hemisphere, Hemisphere] | None = None) -> Figure:
    """Which parcel each vertex belongs to; neighbouring numbers get unlike colours, 0 is grey.

    Parameters
    ----------
    labels : (V,) int
        0 for none, else 1..P.
    """
    numbers = np.asarray(labels, dtype=np.int64)
    count = int(numbers.max(initial=0)) + 1
    palette = _palette(count, seed)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure, axes, bar = _views()
        bar.remove()
        for side, hemisphere in enumerate(mesh or cortex()):
            own = numbers[:n_left] if side == 0 else numbers[n_left:]
            colour = _on_mesh(palette[own], own > 0, hemisphere, borders=own)
            for axis, outward in ((axes[0][side], True), (axes[1][side], False)):
                _draw(axis, hemisphere, colour, looking_right=(side == 0) == outward)
    return figure


def volume_map(
    values: ArrayLike, mask: ArrayLike, label: str, limits: tuple[float, float] | None = None, max_slices: int = 12
) -> Figure:
    """Slices of a volume that hold voxels with values, at most ``max_slices`` evenly spaced ones.

    Parameters
    ----------
    values : (V,) float
        In the order of the mask's voxels (C order).
    mask : (X, Y, Z) bool
    label : str
        Of the colour bar, with the unit.
    """
    inside, numbers = np.asarray(mask, dtype=bool), np.asarray(values, dtype=np.float64)
    if inside.ndim != 3 or inside.sum() != numbers.size:
        raise ValueError(
            f"{numbers.size} values for a mask of shape {inside.shape} with {int(inside.sum())} voxels; expected one a voxel"
        )
    volume = np.full(inside.shape, np.nan)
    volume[inside] = numbers
    # A single slice may lie along any axis; it is the one to look at.
    axis = int(np.argmin(inside.shape)) if min(inside.shape) == 1 else 2
    volume, inside = np.moveaxis(volume, axis, 2), np.moveaxis(inside, axis, 2)
    levels = np.flatnonzero(inside.any(axis=(0, 1)))
    levels = levels[np.unique(np.linspace(0, levels.size - 1, min(max_slices, levels.size)).round().astype(int))]
    return _montage(volume, inside, levels, label, limits)


def _montage(
    volume: Array, inside: NDArray[np.bool_], levels: NDArray[np.int64], label: str, limits: tuple[float, float] | None
) -> Figure:
    norm, colours = scale(volume[inside], limits)
    columns = min(6, levels.size)
    rows = -(-levels.size // columns)
    xs, ys = (np.flatnonzero(inside.any(axis=other)) for other in ((1, 2), (0, 2)))
    part = (slice(xs[0], xs[-1] + 1), slice(ys[0], ys[-1] + 1))
    size = 3.2 if columns == 1 else 1.5
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = new_figure(size * columns + 1.0, size * rows * len(ys) / len(xs) if columns > 1 else 3.0)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, level in zip(axes, levels, strict=False):
            back = np.where(inside[(*part, level)], 0.85, np.nan)
            axis.imshow(back.T, cmap="gray", vmin=0, vmax=1, origin="lower", interpolation="none")
            axis.imshow(volume[(*part, level)].T, cmap=colours, norm=norm, origin="lower", interpolation="none")
            axis.set_title(f"slice {level + 1}", fontsize=8, color="#666")
        figure.colorbar(ScalarMappable(norm, colours), ax=list(axes), label=label, shrink=0.7).outline.set_visible(False)
    return figure


def scale(numbers: Array, limits: tuple[float, float] | None) -> tuple[Normalize, matplotlib.colors.Colormap]:
    """Ends of the colour scale (as in `surface_map`), and its colours."""
    known = numbers[np.isfinite(numbers)]
    if limits is None:
        high = float(np.quantile(np.abs(known), 0.99)) if known.size else 1.0
        high = high or 1.0
        limits = (-high if known.size and np.quantile(known, 0.02) < -0.5 * high else 0.0, high)
    return Normalize(*limits, clip=True), colormaps[DIVERGING if limits[0] < 0 else SEQUENTIAL]


def _palette(count: int, seed: int) -> Array:
    """(count, 4) colours whose hues are far apart for numbers that are near; the first is never shown."""
    hues = (np.arange(count) * 0.618033988 + seed / 7) % 1
    value = 0.72 + 0.2 * ((np.arange(count) * 0.754877666) % 1)
    hsv = np.stack([hues, np.full(count, 0.5), value], axis=1)
    return np.concatenate([matplotlib.colors.hsv_to_rgb(hsv), np.ones((count, 1))], axis=1)


def _views() -> tuple[Figure, list[list[Axes]], Axes]:
    """Figure, axes [lateral, medial][left, right], axes of the colour bar."""
    figure = new_figure(9.6, 2.15)
    grid = figure.subplots(1, 5, width_ratios=[1, 1, 1, 1, 0.05])
    for axis, name in zip(grid[:4], ("left, lateral", "left, medial", "right, medial", "right, lateral"), strict=True):
        axis.set_axis_off()
        axis.set_title(name, fontsize=8, color="#666", loc="center")
    return figure, [[grid[0], grid[3]], [grid[1], grid[2]]], grid[4]


def _on_mesh(colour: Array, known: NDArray[np.bool_], hemisphere: Hemisphere, borders: NDArray[np.int64] | None = None) -> Array:
    """(f, 4) colour of each triangle of the mesh, from (v, 4) colours of the data's vertices."""
    index = to_mesh(len(colour), len(hemisphere.coordinates))
    colour, known = colour[index], known[index]
    grey = 0.62 + 0.2 * (hemisphere.sulcal < 0)
    colour = np.where(known[:, None], colour, np.stack([grey, grey, grey, np.ones_like(grey)], axis=1))
    if borders is None:
        return np.asarray(colour[hemisphere.faces].mean(axis=1))
    corners = borders[index][hemisphere.faces]
    # The middle one of three labels is that of at least two corners wherever two agree.
    out = colour[np.take_along_axis(hemisphere.faces, corners.argsort(axis=1)[:, 1:2], axis=1)[:, 0]]
    out[(corners != corners[:, :1]).any(axis=1), :3] *= 0.55
    return np.asarray(out)


def to_mesh(n: int, n_mesh: int) -> NDArray[np.int64]:
    """(n_mesh,) for each vertex of the mesh of a hemisphere, which of ``n`` values it shows.

    Raises
    ------
    ValueError
        When so many values fit no mesh.
    """
    if n >= n_mesh:
        return np.arange(n_mesh)
    if n_mesh == 10242 and n in (642, 2562):
        return _nearest(n)
    raise ValueError(f"{n} values for a hemisphere of {n_mesh} vertices; expected that many, or a denser fsaverage")


def _draw(axis: Axes, hemisphere: Hemisphere, colour: Array, looking_right: bool) -> None:
    """One view along x: what faces the viewer, far triangles first."""
    sign = -1.0 if looking_right else 1.0  # the viewer stands at sign * infinity
    triangles = hemisphere.coordinates[hemisphere.faces]
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    slope = sign * normal[:, 0] / np.maximum(np.linalg.norm(normal, axis=1), 1e-12)
    front = np.flatnonzero(slope > 0)
    front = front[np.argsort(sign * triangles[front, :, 0].mean(axis=1))]
    flat = triangles[front][:, :, 1:] * np.array([sign, 1.0])
    shaded = colour[front].copy()
    shaded[:, :3] *= (0.72 + 0.28 * slope[front] ** 0.7)[:, None]
    axis.add_collection(PolyCollection(list(flat), facecolors=shaded, edgecolors=shaded, linewidths=0.3, rasterized=True))
    axis.set_aspect("equal")
    axis.autoscale_view()
