"""A brain that turns: the mesh and its values in a form that the script of a page draws with WebGL.

The mesh is that of `bids_brainlm.reports.brains`, in whole tenths of a millimetre; both hemispheres of fsaverage5 have the same
triangles, so that these are there once. A value is one of 255 steps of its scale, the 256th means none. All is base64 in an
attribute of the page (350 kB for the mesh, 27 kB a map). Without the script or without WebGL nothing is shown of it; the static
maps beside it show the same.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_brainlm.reports.brains import cortex, scale, to_mesh

NONE = 255
"""Step of a vertex without a value."""

N_COLOURS = 64


@dataclass(frozen=True)
class Turning:
    """What the script reads.

    Parameters
    ----------
    data : str
        JSON: ``coordinates`` (two hemispheres of v x 3 int16, tenths of a millimetre), ``faces`` (f x 3 uint16), ``sulcal`` (two
        of v uint8, 1 in a sulcus), ``maps``: ``label``, ``low``, ``high``, ``palette`` (`N_COLOURS` x 3 uint8), ``values``
        (two of v uint8).
    labels : tuple of str
        Of the maps.
    """

    data: str
    labels: tuple[str, ...]


def turning(maps: Mapping[str, ArrayLike], n_left: int | None) -> Turning | None:
    """Maps on the inflated cortex; None where nothing lies on fsaverage.

    Parameters
    ----------
    maps : mapping of label (with its unit) to (V,) float
        Left hemisphere first; nan where there is no value. Maps without any value are left out.
    n_left : int or None
        Vertices of the left hemisphere.
    """
    arrays = {label: np.asarray(values, dtype=np.float64) for label, values in maps.items()}
    known = {label: values for label, values in arrays.items() if np.isfinite(values).any()}
    if n_left is None or not known:
        return None
    drawn = [_map(label, values, n_left) for label, values in known.items()]
    return Turning(json.dumps({**_mesh(), "maps": drawn}), tuple(known))


@cache
def _mesh() -> dict[str, str]:
    left, right = cortex()
    if not np.array_equal(left.faces, right.faces):
        raise ValueError("the hemispheres of fsaverage5 have unlike triangles; expected the same")
    coordinates = np.stack([left.coordinates, right.coordinates])
    sulcal = np.stack([left.sulcal, right.sulcal]) >= 0
    return {
        "coordinates": _base64((10 * coordinates).round().astype("<i2")),
        "faces": _base64(left.faces.astype("<u2")),
        "sulcal": _base64(sulcal.astype("u1")),
    }


def _map(label: str, values: NDArray[np.float64], n_left: int) -> dict[str, str | float]:
    norm, colours = scale(values, None)
    n_mesh = len(cortex()[0].coordinates)
    mesh = [half[to_mesh(len(half), n_mesh)] for half in (values[:n_left], values[n_left:])]
    steps = np.where(np.isfinite(mesh), np.round((NONE - 1) * np.asarray(norm(np.nan_to_num(mesh)))), NONE)
    palette = np.round(255 * colours(np.linspace(0, 1, N_COLOURS))[:, :3])
    ends = {"low": float(norm.vmin or 0.0), "high": float(norm.vmax or 0.0)}
    return {"label": label, **ends, "palette": _base64(palette.astype("u1")), "values": _base64(steps.astype("u1"))}


def _base64(array: NDArray[np.generic]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
