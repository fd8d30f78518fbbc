"""How large the series of a run is, from the headers of its files."""

from __future__ import annotations

import math
from pathlib import Path

from bids_brainlm.config import Request
from bids_brainlm.errors import InputError
from bids_brainlm.io.headers import cifti_shape, gifti_shape, nifti_shape
from bids_brainlm.io.images import gifti_rows
from bids_brainlm.io.meshes import PER_HEMISPHERE
from bids_brainlm.io.projection import DENSITY, is_projected
from bids_brainlm.io.runfiles import RunFiles
from bids_brainlm.io.rungs import CIFTI_RUNG
from bids_brainlm.io.surfaces import surface_geometry


def shape_of(request: Request, run: RunFiles) -> tuple[int, int, str]:
    """Volumes (0 where headers do not say), vertices or voxels of the grid, and density, from the headers of a run."""
    if is_projected(run):
        density = request.config.input.density or DENSITY
        n_volumes = cifti_shape(run.bold[0])[0] if run.rung == CIFTI_RUNG else _nifti_shape(run.bold[0])[3]
        return n_volumes, 2 * PER_HEMISPHERE[density], density
    if len(run.bold) == 2:
        rows, vertices = zip(*map(gifti_shape, run.bold), strict=True)
        wanted = PER_HEMISPHERE.get(request.config.input.density, 0)
        kept = tuple(min(size, wanted) if wanted else size for size in vertices)
        known = rows if all(rows) else (0, 0)
        geometry = surface_geometry(run, request.config.input.density, known, kept)
        return known[0], geometry.n_vertices, geometry.density
    shape = _nifti_shape(run.bold[0])
    mask = nifti_shape(run.mask) if run.mask else shape[:3]
    if mask != shape[:3]:
        remedy = "use masks and BOLD series of one fMRIPrep run"
        raise InputError(f"a grid of {shape[:3]} voxels", run.bold[0], expected=f"the mask's {mask}", remedy=remedy)
    return shape[3], math.prod(shape[:3]), ""


def n_volumes_of(request: Request, run: RunFiles) -> int:
    """Volumes of a run; where the headers do not say how many there are, the series is read."""
    return shape_of(request, run)[0] or len(gifti_rows(run.bold[0], 1)[0])


def _nifti_shape(path: Path) -> tuple[int, ...]:
    shape = nifti_shape(path)
    if len(shape) != 4:
        raise InputError(f"an image of shape {shape}", path, expected="4 dimensions, the last one time")
    return shape
