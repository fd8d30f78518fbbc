"""Reading the files atlases come in: FreeSurfer ``.annot``, GIFTI ``.label.gii``, CIFTI ``.dlabel.nii``, NIfTI ``dseg`` with
a table of names.

Every vertex or voxel has a *key*, and a table says which parcel a key names. Keys are whatever the file uses: 0, 1, 2 ..., or
FreeSurfer's colours packed into one number. Vertices of the medial wall and of no parcel (*background*) have a key too,
known by its name; such names are dropped here, so that what is left are parcels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.freesurfer import io as freesurfer
from numpy.typing import NDArray

from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.io.cifti import cifti_labels
from bids_brainlm.io.files import read_tsv
from bids_brainlm.io.images import load_gifti, load_nifti, reading

BACKGROUND = frozenset(
    {"unknown", "medial_wall", "medialwall", "background", "background+freesurfer_defined_medial_wall", "???", "l_???", "r_???"}
)
"""Names, in lower case, of what is no parcel."""

SURFACE_EXTENSIONS = (".annot", ".label.gii")
VOLUME_EXTENSIONS = (".nii", ".nii.gz")
CIFTI_EXTENSION = ".dlabel.nii"
"""Labels of both hemispheres, in one file; not to be taken for a volume."""

_SIDES = (
    (re.compile(r"(?<![A-Za-z])lh(?![A-Za-z])"), "rh"),
    (re.compile(r"(?<=hemi-)L(?![A-Za-z])"), "R"),
    (re.compile(r"(?<=[._])L(?=[._])"), "R"),
)
_OTHER = {"rh": "lh", "R": "L"}


@dataclass(frozen=True, eq=False)
class Keyed:
    """Keys of vertices or voxels and the parcels they name.

    Parameters
    ----------
    path : Path
    keys : (v,) or (x, y, z) int64
    names : dict of int to str
        Parcels only: a key that is not here is background.
    """

    path: Path
    keys: NDArray[np.int64]
    names: dict[int, str]


def read_hemisphere(path: Path) -> Keyed:
    """One hemisphere of a surface atlas.

    Raises
    ------
    MissingInputError, InputError
        When the file is not there, damaged, or has no parcel.
    """
    keys, names = _read_annot(path) if path.name.endswith(".annot") else _read_label_gifti(path)
    return _parcels(path, keys, names)


def read_cifti(path: Path) -> list[Keyed]:
    """Both hemispheres of a CIFTI atlas on fsLR; vertices that it leaves out have key -1.

    Raises
    ------
    MissingInputError, InputError
        When the file is not there, damaged, of another kind, or has no parcel.
    """
    sides, _ = cifti_labels(path)
    return [_parcels(path, keys, names) for keys, names in sides]


def read_volume(path: Path) -> tuple[Keyed, NDArray[np.float64]]:
    """A volume atlas and its affine; names come from a TSV beside it with the columns ``index`` and ``name``."""
    image = load_nifti(path)
    if len(image.shape) != 3:
        raise InputError(f"an atlas of shape {image.shape}", path, expected="3 dimensions, one label a voxel")
    with reading(path, "a NIfTI file"):
        keys = np.rint(np.asarray(image.dataobj)).astype(np.int64)
    names = read_lookup(path)
    return _parcels(path, keys, names), np.asarray(image.affine, dtype=np.float64)


def hemispheres(path: Path) -> tuple[Path, Path]:
    """Left and right file of a surface atlas, given one of them.

    >>> [side.name for side in hemispheres(Path("rh.Schaefer.annot"))]
    ['lh.Schaefer.annot', 'rh.Schaefer.annot']

    Raises
    ------
    InputError
        When the name does not say which hemisphere it is.
    """
    for pattern, right in _SIDES:
        left = _OTHER[right]
        other = re.compile(pattern.pattern.replace("lh" if left == "lh" else "L", right, 1))
        if pattern.search(path.name):
            return path, path.with_name(pattern.sub(right, path.name, count=1))
        if other.search(path.name):
            return path.with_name(other.sub(left, path.name, count=1)), path
    raise InputError(
        "the name does not say which hemisphere it is", path, expected="lh. and rh., or hemi-L and hemi-R, in the names"
    )


def find_atlas(folder: Path, volume: bool) -> Path:
    """The only atlas of a folder: its left file, or its volume.

    Raises
    ------
    MissingInputError
        When there is none of the kind that the data need.
    InputError
        When there are several.
    """
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    cifti = [name for name in names if name.endswith(CIFTI_EXTENSION)]
    surfaces = [name for name in names if name.endswith(SURFACE_EXTENSIONS)]
    volumes = [name for name in names if name.endswith(VOLUME_EXTENSIONS) and name not in cifti]
    found = volumes if volume else [*sorted({hemispheres(folder / name)[0].name for name in surfaces}), *cifti]
    if not found:
        kind = "a volume (.nii.gz)" if volume else "a pair of surface files (.annot or .label.gii) or a .dlabel.nii"
        raise MissingInputError("no atlas for these data", folder, expected=f"{kind}; found {', '.join(names[:10]) or 'nothing'}")
    if len(found) > 1:
        raise InputError(
            f"{len(found)} atlases: {', '.join(found)}", folder, expected="one", remedy="name the file: --atlas FOLDER/FILE"
        )
    return folder / found[0]


def read_lookup(path: Path, hemi: str = "") -> dict[int, str]:
    """Key -> name from the TSV that goes with an atlas file; empty when there is none.

    A table goes with a file when all parts of its name are parts of the file's; the one with most parts counts.
    """
    stem = set(path.name.partition(".")[0].split("_"))
    fitting = [other for other in path.parent.glob("*.tsv") if set(other.name.partition(".")[0].split("_")) <= stem]
    if not fitting:
        return {}
    table_path = max(fitting, key=lambda other: (other.name.count("_"), other.name))
    table = read_tsv(table_path)
    if not {"index", "name"} <= set(table):
        raise InputError(f"columns {', '.join(table)}", table_path, expected="index and name")
    out = {}
    sides = table["hemi"] if hemi and "hemi" in table else [hemi] * len(table)
    for index, name, side in zip(table["index"], table["name"], sides, strict=True):
        if not re.fullmatch(r"-?\d+(\.0)?", index or "") or name is None:
            raise InputError(f"a row with index {index} and name {name}", table_path, expected="an integer and a text")
        if side in (hemi, None):
            out[int(float(index))] = name
    return out


def _read_annot(path: Path) -> tuple[NDArray[np.int64], dict[int, str]]:
    with reading(path, "a FreeSurfer .annot file"):
        read: Any = freesurfer.read_annot
        keys, _, names = read(path)
        return keys.astype(np.int64), {i: name.decode("utf-8", "replace") for i, name in enumerate(names)}


def _read_label_gifti(path: Path) -> tuple[NDArray[np.int64], dict[int, str]]:
    image = load_gifti(path)
    with reading(path, "a GIFTI label file"):
        keys = image.darrays[0].data.astype(np.int64).ravel()
        names = {int(label.key): str(label.label) for label in image.labeltable.labels if label.label}
    hemi = next((side for side in "LR" if f"hemi-{side}" in path.name), "")
    missing = set(np.unique(keys)) - set(names)
    return keys, names | {key: name for key, name in read_lookup(path, hemi).items() if key in missing} if missing else names


def _parcels(path: Path, keys: NDArray[np.int64], names: dict[int, str]) -> Keyed:
    """Keep the keys that occur and name a parcel; a key other than 0 or -1 without a name gets one from its number."""
    kept = {}
    for key in map(int, np.unique(keys)):
        name = names.get(key, "" if key <= 0 else f"label_{key}")
        if name and name.lower() not in BACKGROUND:
            kept[key] = name
    if not kept:
        raise InputError("no parcel, only background", path, expected="vertices or voxels with names of parcels")
    repeated = sorted({name for name in kept.values() if list(kept.values()).count(name) > 1})
    if repeated:
        raise InputError(f"several keys are called {', '.join(repeated[:3])}", path, expected="one name a parcel")
    return Keyed(path, keys, kept)


def iter_entities(path: Path) -> Iterator[tuple[str, str]]:
    """Key-value parts of a file name, of any standard.

    >>> dict(iter_entities(Path("tpl-fsaverage_hemi-L_atlas-X_dseg.label.gii")))
    {'tpl': 'fsaverage', 'hemi': 'L', 'atlas': 'X'}
    """
    for part in path.name.partition(".")[0].split("_"):
        key, dash, value = part.partition("-")
        if dash:
            yield key, value
