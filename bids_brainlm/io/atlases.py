"""From the name of an atlas to a `Parcellation` of exactly the data's vertices or voxels.

An atlas is named by

- ``kmeans100``, which comes with this package: 50 parcels a hemisphere, k-means on the fsaverage5 sphere, medial wall left out;
- the path of a file (``.annot``, ``.label.gii``, ``.dlabel.nii``, ``dseg.nii.gz``; the other hemisphere's is found) or of a
  folder with one atlas;
- a TemplateFlow query ``atlas:scale:segmentation``, such as ``Schaefer2018:100:7n``;
- ``blocks:N``: N blocks of consecutive columns, for a matrix without anatomy.

Labels of a finer fsaverage are truncated to the data's density (vertices are nested); the other way round is refused. Labels on
fsLR come to fsaverage by the nearest vertex on the spheres of fsLR deformed to fsaverage, which lie beside the atlas or are
TemplateFlow's.
"""

from __future__ import annotations

import importlib.resources
import logging
import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.spheres import nearest
from bids_brainlm.core.types import DENSITIES, Ints, Parcellation
from bids_brainlm.errors import ConfigError, InputError, MissingInputError, MissingResourceError
from bids_brainlm.io.atlas_files import (
    CIFTI_EXTENSION,
    SURFACE_EXTENSIONS,
    VOLUME_EXTENSIONS,
    Keyed,
    find_atlas,
    hemispheres,
    iter_entities,
    read_cifti,
    read_hemisphere,
    read_volume,
)
from bids_brainlm.io.cifti import FSLR, fslr_sphere, fslr_spheres
from bids_brainlm.io.meshes import fsaverage_files, points
from bids_brainlm.io.rungs import own_sphere
from bids_brainlm.io.surfaces import Volume
from bids_brainlm.io.templates import fetch, is_fetched, remedy

LOGGER = logging.getLogger(__name__)

BUNDLED = {"kmeans100": "tpl-fsaverage_hemi-L_atlas-kmeans100_den-10k_dseg.label.gii"}
"""Name -> left file of the atlases in ``data/templates/atlases``."""


def load_atlas(
    spec: str, *, space: str, n_left: int, n_vertices: int, volume: Volume | None = None, offline: bool = False
) -> Parcellation:
    """Read an atlas and fit it to the data.

    Parameters
    ----------
    spec : str
        What the module's docstring lists.
    space : str
        Space of the data.
    n_left, n_vertices : int
        Columns of the left hemisphere, and all of them (V).
    volume : Volume, optional
        Where the columns lie, for a volume.
    offline : bool
        Do not fetch from TemplateFlow.

    Raises
    ------
    ConfigError
        When the name is none of those above.
    MissingInputError, InputError
        For a file that is not there, damaged, or does not fit the data.
    MissingResourceError
        When TemplateFlow's file is not on this machine and cannot be fetched.
    """
    if spec.startswith("blocks:"):
        return _blocks(spec, space, n_left, n_vertices)
    path, named = _locate(spec, space, volume, n_left, offline)
    cifti = path.name.endswith(CIFTI_EXTENSION)
    if path.name.endswith(VOLUME_EXTENSIONS) and not cifti:
        if volume is None:
            raise InputError(
                f"an atlas of voxels for surfaces of {n_left} vertices", path, remedy="--space, or an atlas of surfaces"
            )
        keyed, affine = read_volume(path)
        keys = _sample(keyed, affine, volume, space)
        return _build(named, space, [Keyed(path, keys, keyed.names)], keys.size)
    if volume is not None:
        raise InputError(
            f"an atlas of surfaces for voxels in {space}", path, remedy="--space fsaverage, or an atlas of voxels in that space"
        )
    sides = read_cifti(path) if cifti else [read_hemisphere(side) for side in hemispheres(path)]
    wanted = (n_left, n_vertices - n_left)
    if space == "fsaverage":
        sides = [_from_fslr(side, which, n, offline) for side, which, n in zip(sides, "LR", wanted, strict=True)]
    return _build(named, space, [_fit(side, n) for side, n in zip(sides, wanted, strict=True)], n_left)


def _blocks(spec: str, space: str, n_left: int, n_vertices: int) -> Parcellation:
    text = spec.removeprefix("blocks:")
    if not text.isdigit() or not 1 <= int(text) <= n_vertices:
        raise ConfigError(f"parcels.atlas is {spec!r}; expected blocks:N with N from 1 to the {n_vertices} columns of the data")
    n = int(text)
    labels = np.arange(n_vertices, dtype=np.int64) * n // n_vertices + 1
    names = tuple(f"block_{i:0{len(text)}d}" for i in range(1, n + 1))
    return Parcellation(f"blocks{n}", space or "none", labels.astype(np.int32), names, n_left)


def _locate(spec: str, space: str, volume: Volume | None, n_left: int, offline: bool) -> tuple[Path, dict[str, str]]:
    """File of an atlas (the left one of surfaces) and its entities."""
    if spec in BUNDLED:
        folder = importlib.resources.files("bids_brainlm") / "data" / "templates" / "atlases"
        if space != "fsaverage":
            remedy = "--space fsaverage, or another --atlas"
            raise InputError(f"{spec} is a parcellation of fsaverage, the data are in {space}", spec, remedy=remedy)
        return Path(str(folder / BUNDLED[spec])), {"atlas": spec}
    path = Path(spec).expanduser()
    if path.is_dir():
        path = find_atlas(path, volume is not None)
    if path.exists():
        if not path.name.endswith(SURFACE_EXTENSIONS + VOLUME_EXTENSIONS):
            raise InputError("an atlas of an unknown kind", path, expected=".annot, .label.gii, .dlabel.nii, .nii or .nii.gz")
        return path, {"atlas": _label(path)} | {key: value for key, value in iter_entities(path) if key in ("seg", "scale")}
    if re.fullmatch(r"[A-Za-z]\w*(:\w*){1,2}", spec):
        return _templateflow(spec, space, volume is not None, n_left, offline)
    if os.sep in spec or path.suffix:
        raise MissingInputError("no such atlas", path, expected="a file or folder", remedy="check --atlas")
    raise ConfigError(
        f"parcels.atlas is {spec!r}; expected {', '.join(BUNDLED)}, a file or folder, blocks:N, "
        "or a TemplateFlow query such as Schaefer2018:100:7n"
    )


def _label(path: Path) -> str:
    """``atlas-`` label of a file: its own, else its name without hemisphere and punctuation."""
    named = dict(iter_entities(path)).get("atlas", "")
    stem = re.sub(r"\.(annot|label\.gii|dlabel\.nii|nii|nii\.gz)$", "", path.name)
    return named or re.sub(r"(?<![A-Za-z])[lr]h(?![A-Za-z])|hemi-[LR]|[^0-9A-Za-z]", "", stem)


def _templateflow(spec: str, space: str, volume: bool, n_left: int, offline: bool) -> tuple[Path, dict[str, str]]:
    """Left label file (or volume) that answers a query, fetched unless offline."""
    atlas, scale, segmentation = (*spec.split(":"), "")[:3]
    query: dict[str, str | int] = {"atlas": atlas, "suffix": "dseg", "extension": ".nii.gz" if volume else ".label.gii"}
    if volume and scale:
        # Volumes keep scale and segmentation in desc: 100Parcels7Networks.
        query |= {"desc": f"{scale}Parcels{segmentation.removesuffix('n')}Networks" if segmentation else scale}
    else:
        query |= {key: value for key, value in (("segmentation", segmentation), ("scale", int(scale or 0))) if value}
    if offline:
        os.environ.setdefault("TEMPLATEFLOW_AUTOUPDATE", "off")
    otherwise = "; or use --atlas kmeans100 (fsaverage)"
    try:
        from templateflow import api

        paths = [Path(path) for path in api.ls(space, **query)]
    except (OSError, RuntimeError) as error:
        raise MissingResourceError(
            f"TemplateFlow cannot be asked ({error})", spec, remedy=remedy(space, query) + otherwise
        ) from error
    if not paths:
        raise MissingResourceError(
            f"TemplateFlow has no atlas {spec!r} in space {space}", spec, expected="e.g. Schaefer2018:100:7n"
        )
    chosen = _nearest(paths, volume, n_left)
    empty = [path for path in chosen if not is_fetched(path)]
    if empty and offline:
        hint = remedy(space, query) + otherwise
        raise MissingResourceError("the atlas is not on this machine", empty[0], expected="TemplateFlow's file", remedy=hint)
    if empty:
        fetch(space, query, empty[0], otherwise)
    return chosen[0], {"atlas": atlas, "seg": segmentation, "scale": scale}


def _nearest(paths: list[Path], volume: bool, n_left: int) -> list[Path]:
    """Of the densities there are, the coarsest that is fine enough; of the resolutions of a volume, the finest."""
    if volume:
        return [min(paths, key=lambda path: dict(iter_entities(path)).get("res", ""))]
    sizes = {density: n for n, density in DENSITIES.items()}
    size = {path: sizes.get(dict(iter_entities(path)).get("den", ""), 0) for path in paths}
    best = min((n for n in size.values() if n >= n_left), default=max(size.values()))
    return sorted(path for path, n in size.items() if n == best)


def _from_fslr(side: Keyed, which: str, n: int, offline: bool) -> Keyed:
    """Bring labels on fsLR to n vertices of fsaverage; others are left as they are."""
    found = side.keys.size
    if found not in FSLR or n not in DENSITIES:
        return side
    own, _ = own_sphere(side.path.parent, which, FSLR[found])
    sphere = own or fslr_spheres(FSLR[found], offline)["LR".index(which)]
    places, _ = fslr_sphere(sphere, found)
    target = fsaverage_files("sphere", DENSITIES[n], side.path, offline)["LR".index(which)]
    return Keyed(side.path, side.keys[nearest(points(target, DENSITIES[n]), places).indices], side.names)


def _fit(side: Keyed, n: int) -> Keyed:
    """Bring one hemisphere to n vertices by nesting."""
    found = side.keys.size
    if found == n:
        return side
    if found in DENSITIES and n in DENSITIES and found > n:
        return Keyed(side.path, side.keys[:n], side.names)
    have, want = (f"{size} vertices a hemisphere ({DENSITIES.get(size, 'no fsaverage density')})" for size in (found, n))
    coarser = found in DENSITIES and n in DENSITIES
    remedy = f"--density {DENSITIES[found]}, or a finer --atlas" if coarser else "use an atlas made for the surface of the data"
    raise InputError(
        f"the atlas has {have}, the data have {want}", side.path, expected="an atlas at least as fine", remedy=remedy
    )


def _sample(keyed: Keyed, affine: NDArray[np.float64], volume: Volume, space: str) -> Ints:
    """(V,) keys at the voxels of the data: the same grid, or the nearest voxel of an atlas that says it is in that space."""
    shape = keyed.keys.shape
    if shape == volume.shape and np.allclose(affine, volume.affine, atol=1e-3):
        return np.asarray(keyed.keys.ravel()[volume.index])
    entities = dict(iter_entities(keyed.path))
    if space not in (entities.get("space"), entities.get("tpl")):
        what = f"the atlas has {shape} voxels, the data have {volume.shape}, or their affines differ"
        expected = f"one grid, or space-{space} in the name of the atlas"
        raise InputError(
            what, keyed.path, expected=expected, remedy="resample the atlas to the BOLD (nilearn.image.resample_to_img)"
        )
    voxels = np.stack(np.unravel_index(volume.index, volume.shape) + (np.ones_like(volume.index),))
    there = np.rint(np.linalg.solve(affine, volume.affine @ voxels)[:3]).astype(np.int64)
    within = np.all((there >= 0) & (there < np.array(shape)[:, None]), axis=0)
    keys = np.zeros(volume.index.size, dtype=np.int64)
    keys[within] = keyed.keys[tuple(there[:, within])]
    return keys


def _build(named: dict[str, str], space: str, sides: list[Keyed], n_left: int) -> Parcellation:
    """Number the parcels 1..P in the order of their keys, left first; those without a vertex are dropped."""
    name = named["atlas"]
    shared = set(sides[0].names.values()) & set(sides[-1].names.values()) if len(sides) == 2 else set()
    labels = np.zeros(sum(side.keys.size for side in sides), dtype=np.int32)
    names: list[str] = []
    lost: list[str] = []
    start = 0
    for side, prefix in zip(sides, ("LH_", "RH_"), strict=False):
        here = labels[start : start + side.keys.size]
        start += side.keys.size
        for key, parcel in side.names.items():
            member = side.keys == key
            full = f"{prefix}{parcel}" if shared else parcel
            if member.any():
                names.append(full)
                here[member] = len(names)
            else:
                lost.append(full)
    if lost:
        LOGGER.warning("%d parcel(s) of %s have no vertex in the data and are dropped: %s", len(lost), name, ", ".join(lost[:5]))
    if not names:
        remedy = "use an atlas of the space and the part of the brain that the data are in"
        raise InputError("no parcel of the atlas has a vertex or voxel of the data", sides[0].path, remedy=remedy)
    return Parcellation(name, space, labels, tuple(names), n_left, named.get("seg", ""), named.get("scale", ""))
