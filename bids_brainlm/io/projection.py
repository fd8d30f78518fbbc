"""The projection of a run to fsaverage, made from its files and kept.

What a projection is made of depends on the *rung* (`bids_brainlm.io.rungs`) that the run is on:

- ``cifti``: columns of cortex -> fsaverage, through the spheres of fsLR;
- ``native``: voxels in T1w space -> the participant's own mesh -> fsaverage, through the registration sphere;
- ``template``: voxels in MNI152 space -> the white and pial surfaces of fsaverage itself, which are in MNI305 space and have
  the folds of an average. This is *approximate*.

It is one matrix either way. What lies outside of cortex has no value. A brain mask plays no part, as in fMRIPrep's own sampling:
masks of EPI images cut into cortex. Voxels that do not vary in a run are left out when its series is read.

A projection is kept in the folder of caches under a hash of the content of the files that it is made from, the grid, the density
and the settings, so that it is made once for the runs of a participant that have one grid; and in the process.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from bids_brainlm import __version__
from bids_brainlm.core.projection import Projection, both, compose, masked, ribbon_matrix
from bids_brainlm.core.spheres import barycentric
from bids_brainlm.errors import InputError
from bids_brainlm.io.cifti import cifti_cortex, cortex_matrix, fslr_spheres
from bids_brainlm.io.files import atomic_write
from bids_brainlm.io.images import gifti_mesh, gifti_rows, reading
from bids_brainlm.io.meshes import cortex, fsaverage_files, points
from bids_brainlm.io.names import parse
from bids_brainlm.io.runfiles import RunFiles
from bids_brainlm.io.rungs import CIFTI_RUNG, NATIVE, TEMPLATE, fslr_density
from bids_brainlm.io.voxels import load_series

LOGGER = logging.getLogger(__name__)

DENSITY = "10k"
"""Density that volumes and CIFTI series are brought to unless another one is asked for."""

SIDES = ("L", "R")

_ONE_RECON = "use the surfaces of one fMRIPrep run"


@dataclass(frozen=True)
class Sampling:
    """How volumes are read between the white and the pial surface.

    Parameters
    ----------
    depths : int
        At equal distances, both surfaces included; one depth is the middle.
    interpolation : {"linear", "nearest"}
    good_voxels : bool
        Leave out voxels that are much noisier than the cortex around them.
    """

    depths: int = 6
    interpolation: str = "linear"
    good_voxels: bool = False

    @property
    def places(self) -> tuple[float, ...]:
        """The depths; 0 is white, 1 is pial."""
        return tuple(map(float, np.linspace(0, 1, self.depths))) if self.depths > 1 else (0.5,)


@dataclass(frozen=True)
class Recipe:
    """All that a projection follows from; two with the same content are equal, wherever their files lie.

    Parameters
    ----------
    rung, density : str
    source : str
        Grid of the volume, or hash of the cortical columns.
    content : tuple of (str, str)
        Kind and SHA-256 of every file.
    depths : tuple of float
    interpolation : str
    files : dict of str to Path
        By kind.
    series : Path
        A BOLD file whose header describes the source.
    """

    rung: str
    density: str
    source: str
    content: tuple[tuple[str, str], ...]
    depths: tuple[float, ...]
    interpolation: str
    files: Mapping[str, Path] = field(compare=False)
    series: Path = field(compare=False)

    @property
    def key(self) -> str:
        """Name of the projection in a cache."""
        told = repr((__version__, self.rung, self.density, self.source, self.content, self.depths, self.interpolation))
        return hashlib.sha256(told.encode()).hexdigest()[:32]


def is_projected(run: RunFiles) -> bool:
    """Whether a run is brought to the surface while it is read."""
    return run.rung in MAKERS


def projection_of(
    run: RunFiles, density: str = "", sampling: Sampling | None = None, cache: Path | None = None, offline: bool = False
) -> Projection:
    """The projection of a run, made or found.

    Parameters
    ----------
    run : RunFiles
        On one of the rungs of the module's docstring.
    density : str
        ``den-`` value of fsaverage; empty is `DENSITY`.
    sampling : Sampling, optional
        Of volumes.
    cache : Path, optional
        Folder to keep it in; it is made.
    offline : bool
        Do not fetch templates.

    Returns
    -------
    Projection
        From the voxels of the volume, first axis fastest, or from the cortical columns of the CIFTI file, to both hemispheres.

    Raises
    ------
    MissingInputError, InputError
        When a file is not there or damaged, surfaces do not fit each other, or they lie outside the volume.
    MissingResourceError
        With the command that fetches it, when a template is not on this machine and cannot be fetched.
    """
    return _kept(recipe_of(run, density or DENSITY, sampling or Sampling(), offline), cache)


def recipe_of(run: RunFiles, density: str, sampling: Sampling, offline: bool = False) -> Recipe:
    """What the projection of a run is made of.

    Raises
    ------
    MissingInputError, InputError, MissingResourceError
        As `projection_of`.
    """
    series = run.bold[0]
    where = cifti_cortex(series) if run.rung == CIFTI_RUNG else None
    files = templates_of(run, density, where.density if where else "", offline) | run.anatomy
    if where:
        source = hashlib.sha256(b"|".join(index.tobytes() for index in where.vertices)).hexdigest()
    else:
        image = load_series(series)
        source = repr((image.affine.tolist(), image.shape[:3]))
    content = tuple((kind, _hash(path)) for kind, path in sorted(files.items()))
    return Recipe(run.rung, density, source, content, sampling.places, sampling.interpolation, files, series)


def templates_of(run: RunFiles, density: str, fslr: str = "", offline: bool = False) -> dict[str, Path]:
    """Meshes that are not the participant's, by kind and hemisphere.

    Parameters
    ----------
    run : RunFiles
    density : str
        Of fsaverage.
    fslr : str
        Of the surfaces of a CIFTI file; what its name says when empty.
    offline : bool
        Do not fetch.

    Raises
    ------
    MissingResourceError
        With the command that fetches it, when one is not on this machine and cannot be fetched.
    """
    series = run.bold[0]
    if run.rung == TEMPLATE:
        white, pial = (fsaverage_files(kind, density, series, offline) for kind in ("white", "pial"))
        return _sided("white", white) | _sided("pial", pial)
    files = _sided("target", fsaverage_files("sphere", density, series, offline))
    if run.rung == CIFTI_RUNG and "sphere-L" not in run.anatomy:
        files |= _sided("sphere", fslr_spheres(fslr or fslr_density(parse(series)), offline))
    return files


def _sided(kind: str, pair: tuple[Path, Path]) -> dict[str, Path]:
    return {f"{kind}-{side}": path for side, path in zip(SIDES, pair, strict=True)}


def _hash(path: Path) -> str:
    with reading(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.lru_cache(maxsize=2)
def _kept(recipe: Recipe, cache: Path | None) -> Projection:
    path = cache / f"projection-{recipe.key}.npz" if cache else None
    found = _load(path) if path else None
    if found is None:
        found = MAKERS[recipe.rung](recipe)
        if found.empty.all():
            remedy = "look at fMRIPrep's report of the registration of BOLD and T1w"
            raise InputError(
                "no vertex of cortex has a value", recipe.series, expected="surfaces inside the volume", remedy=remedy
            )
        if path:
            _save(path, found)
    return found


def _load(path: Path) -> Projection | None:
    """What is kept; None where nothing is, or nothing that can be read."""
    try:
        with np.load(path, allow_pickle=False) as held:
            parts = tuple(held[name] for name in ("data", "indices", "indptr"))
            return Projection(csr_array(parts, shape=tuple(held["shape"])), int(held["n_left"]))
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        LOGGER.warning("%s is damaged (%s) and made again", path, error)
        return None


def _save(path: Path, made: Projection) -> None:
    matrix = made.matrix
    with atomic_write(path) as partial:
        np.savez(
            partial,
            data=matrix.data,
            indices=matrix.indices,
            indptr=matrix.indptr,
            shape=np.array(matrix.shape),
            n_left=np.array(made.n_left),
        )


def _from_cifti(recipe: Recipe) -> Projection:
    targets = [points(recipe.files[f"target-{side}"], recipe.density) for side in SIDES]
    spheres = [recipe.files[f"sphere-{side}"] for side in SIDES]
    matrix = cortex_matrix(cifti_cortex(recipe.series), spheres, targets)
    return Projection(matrix.astype(np.float32), len(targets[0]))


def _from_native(recipe: Recipe) -> Projection:
    return both(*(_through_native(recipe, side) for side in SIDES))


def _through_native(recipe: Recipe, side: str) -> csr_array:
    """Volume -> the participant's mesh -> fsaverage."""
    path = recipe.files[f"sphere-{side}"]
    sphere, faces = gifti_mesh(path)
    white, pial = (_fitting(recipe.files[f"{kind}-{side}"], len(sphere), path) for kind in ("white", "pial"))
    valid = np.ones(len(sphere), dtype=np.bool_)
    if f"cortex-{side}" in recipe.files:
        valid = _is_cortex(recipe.files[f"cortex-{side}"], len(sphere), path)
    resample = barycentric(points(recipe.files[f"target-{side}"], recipe.density), sphere, faces)
    # Of a fine mesh, a coarse one needs few vertices.
    used = np.unique(resample.indices)
    ribbon = _ribbon(recipe, white[used], pial[used])
    return compose(resample[:, used], ribbon, valid[used])


def _fitting(path: Path, n: int, sphere: Path) -> NDArray[np.float64]:
    places, _ = gifti_mesh(path)
    if len(places) != n:
        raise InputError(f"{len(places)} vertices", path, expected=f"{n}, as in {sphere.name}", remedy=_ONE_RECON)
    return places


def _is_cortex(path: Path, n: int, sphere: Path) -> NDArray[np.bool_]:
    inside = gifti_rows(path)[0][0] != 0
    if inside.size != n:
        raise InputError(f"{inside.size} vertices", path, expected=f"{n}, as in {sphere.name}", remedy=_ONE_RECON)
    return np.asarray(inside)


def _from_template(recipe: Recipe) -> Projection:
    return both(*(_on_template(recipe, side) for side in SIDES))


def _on_template(recipe: Recipe, side: str) -> csr_array:
    white, pial = (points(recipe.files[f"{kind}-{side}"], recipe.density) for kind in ("white", "pial"))
    return masked(_ribbon(recipe, white, pial), cortex(side, white))


def _ribbon(recipe: Recipe, white: NDArray[np.float64], pial: NDArray[np.float64]) -> csr_array:
    image = load_series(recipe.series)
    return ribbon_matrix(white, pial, image.affine, image.shape[:3], recipe.depths, recipe.interpolation)


MAKERS: dict[str, Callable[[Recipe], Projection]] = {CIFTI_RUNG: _from_cifti, NATIVE: _from_native, TEMPLATE: _from_template}
"""Rung -> what makes a projection on it."""
