"""Maps over vertices or voxels (one number each), several in one image, written and read back.

On surfaces an image is a pair of GIFTI files, left and right, with one named data array a map; a volume is one 4-D NIfTI file.
A JSON sidecar without ``hemi-`` lists the names in order (``Maps``). The last volume of a NIfTI file is the *mask*: 1 where
the values belong, 0 elsewhere, so that the file is whole without another one. A matrix without anatomy has a table instead,
one column a map and one row a column of the matrix. The same values give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.core.types import Floats
from bids_brainlm.errors import InputError
from bids_brainlm.io.files import atomic_write, read_json, read_tsv, write_json, write_tsv
from bids_brainlm.io.images import gifti_rows, load_nifti, reading
from bids_brainlm.io.names import bids_folder, bids_name, parse, run_entities
from bids_brainlm.io.surfaces import Geometry, Volume, density_of

gifti: Any = nib.gifti
STRUCTURES = {"L": "CortexLeft", "R": "CortexRight"}
MASK = "mask"
"""Name of the last volume of a NIfTI file."""


def write_maps(
    out_dir: Path,
    entities: Mapping[str, str],
    geometry: Geometry,
    maps: Mapping[str, Any],
    desc: str,
    sidecar: Mapping[str, Any],
    stat: str = "",
) -> list[Path]:
    """Write some maps as one image, ``sub-01_task-look[_hemi-L]_space-..._[stat-..._]desc-<DESC>_statmap``.

    Parameters
    ----------
    out_dir : Path
    entities : mapping of str to str
        What identifies the run, session or participant; those of processing are not used.
    geometry : Geometry
        Of the V columns.
    maps : mapping of str to (V,) array
        Name -> values, written as float32 in this order.
    desc, stat : str
        Labels; other characters than letters and digits are left out.
    sidecar : mapping
        JSON fields: ``Description``, ``Sources`` ...

    Returns
    -------
    list of Path
        Images (left then right; or the table), then the sidecar.

    Raises
    ------
    ValueError
        When a map does not have V values, there is none, or one is called ``mask``.
    """
    data = _stack(maps, geometry)
    labels = {"stat": "".join(filter(str.isalnum, stat)), "desc": "".join(filter(str.isalnum, desc))}
    named = run_entities(entities) | geometry.entities | labels
    folder, names = Path(out_dir) / bids_folder(entities, "func"), list(maps)
    if geometry.volume is not None:
        names = [*names, MASK]
        rows = np.concatenate([data, np.ones((1, data.shape[1]), dtype=np.float32)])
        paths = [save_volume(folder / bids_name(named, "statmap", ".nii.gz"), rows, geometry.volume)]
    elif _has_anatomy(geometry):
        paths = write_hemispheres(folder, named, data, geometry.n_left, names, "NIFTI_INTENT_ESTIMATE")
    else:
        named.pop("space")
        paths = [write_tsv(folder / bids_name(named, "statmap", ".tsv"), pd.DataFrame(dict(zip(names, data, strict=True))))]
    fields = {**sampling(geometry), **sidecar, "Maps": names}
    return [*paths, write_json(folder / bids_name(named, "statmap", ".json"), fields)]


def read_maps(path: Path) -> tuple[dict[str, Floats], Geometry]:
    """The inverse of `write_maps`, given the left, right or NIfTI file, or the table.

    Raises
    ------
    MissingInputError, InputError
        When a file is not there, damaged, or its names are not those of the sidecar.
    """
    name = parse(path)
    named = {key: value for key, value in name.entities.items() if key != "hemi"}
    listed = [str(item) for item in read_json(path.with_name(bids_name(named, "statmap", ".json"))).get("Maps", [])]
    if name.extension == ".func.gii":
        data, geometry, names = read_hemispheres(path.parent, named)
    elif name.extension == ".tsv":
        table = read_tsv(path).apply(pd.to_numeric)
        data, names = table.to_numpy(np.float32).T, [str(column) for column in table]
        geometry = Geometry("none", "", data.shape[1], data.shape[1])
    else:
        (data, geometry), names = _read_volume(path, named), [*listed[:-1]]
    if len(data) != len(names) or names != [item for item in listed if item != MASK]:
        raise InputError(f"{len(data)} map(s)", path, expected=f"{', '.join(listed) or 'Maps'}, as its sidecar says")
    return dict(zip(names, data, strict=True)), geometry


def write_hemispheres(
    folder: Path,
    named: Mapping[str, str],
    data: Floats,
    n_left: int,
    names: Sequence[str],
    intent: str,
    suffix: str = "statmap",
) -> list[Path]:
    """Write rows (n, V), left vertices first, as a GIFTI file for each hemisphere, one named data array a row."""
    halves = {"L": data[:, :n_left], "R": data[:, n_left:]}
    paths = {side: folder / bids_name({**named, "hemi": side}, suffix, ".func.gii") for side in halves}
    return [_write_gifti(paths[side], side, half, (names, intent)) for side, half in halves.items()]


def read_hemispheres(folder: Path, named: Mapping[str, str], suffix: str = "statmap") -> tuple[Floats, Geometry, list[str]]:
    """Rows (n, V) of a pair of GIFTI files, what their columns are, and the names of the rows.

    Raises
    ------
    MissingInputError, InputError
        When one is not there, damaged, or its rows are not those of the other.
    """
    paths = [folder / bids_name({**named, "hemi": side}, suffix, ".func.gii") for side in STRUCTURES]
    (left, names), (right, others) = (gifti_rows(path) for path in paths)
    if names != others:
        what = f"{len(others)} data array(s), or of other names"
        raise InputError(what, paths[1], expected=f"the {len(names)} of {paths[0].name}")
    density = density_of(left.shape[1]) if left.shape[1] == right.shape[1] else ""
    data = np.concatenate([left, right], axis=1)
    return data, Geometry(named.get("space", ""), density, left.shape[1], data.shape[1]), names


def save_volume(path: Path, data: Floats, volume: Volume, step: float = 0.0) -> Path:
    """Write rows (n, V) as the volumes of a NIfTI file, 0 outside the voxels; ``step`` is the TR in s, where they have one."""
    voxels = np.zeros((int(np.prod(volume.shape)), len(data)), dtype=np.float32)
    voxels[volume.index] = data.T
    return save_nifti(path, voxels.reshape(*volume.shape, -1), volume, step)


def save_nifti(path: Path, voxels: NDArray[Any], volume: Volume, step: float = 0.0) -> Path:
    image: Any = nib.Nifti1Image(voxels, volume.affine)  # type: ignore[no-untyped-call]
    if step:
        image.header.set_zooms((*image.header.get_zooms()[:3], step))
        image.header.set_xyzt_units("mm", "sec")
    with atomic_write(path) as temporary:
        nib.save(image, temporary)
    return path


def sampling(geometry: Geometry) -> dict[str, str]:
    """What BIDS wants to be told where a name has ``den-`` or ``res-``."""
    density = f"{geometry.n_left} vertices a hemisphere (fsaverage {geometry.density})"
    resolution = f"That of the BOLD series called res-{geometry.resolution}."
    return ({"Density": density} if geometry.density else {}) | ({"Resolution": resolution} if geometry.resolution else {})


def _has_anatomy(geometry: Geometry) -> bool:
    return geometry.volume is not None or geometry.n_left < geometry.n_vertices


def _stack(maps: Mapping[str, Any], geometry: Geometry) -> Floats:
    """(n, V) float32."""
    wrong = [f"{name} {np.shape(values)}" for name, values in maps.items() if np.shape(values) != (geometry.n_vertices,)]
    if wrong or not maps or MASK in maps:
        found = ", ".join(wrong) or f"maps called {', '.join(maps) or 'nothing'}"
        raise ValueError(f"{found}; expected ({geometry.n_vertices},) each, and none called {MASK!r}")
    return np.stack([np.asarray(values, dtype=np.float32) for values in maps.values()])


def _write_gifti(path: Path, side: str, data: Floats, rows: tuple[Sequence[str], str]) -> Path:
    names, intent = rows
    arrays = [
        gifti.GiftiDataArray(
            np.ascontiguousarray(row),
            intent=intent,
            datatype="NIFTI_TYPE_FLOAT32",
            encoding="GIFTI_ENCODING_B64GZ",
            meta=gifti.GiftiMetaData({"Name": name} if name else {}),
        )
        for row, name in zip(data, names, strict=True)
    ]
    image = gifti.GiftiImage(darrays=arrays, meta=gifti.GiftiMetaData({"AnatomicalStructurePrimary": STRUCTURES[side]}))
    with atomic_write(path) as temporary:
        nib.save(image, temporary)
    return path


def _read_volume(path: Path, named: Mapping[str, str]) -> tuple[Floats, Geometry]:
    image = load_nifti(path)
    if len(image.shape) != 4 or image.shape[3] < 2:
        raise InputError(f"an image of shape {image.shape}", path, expected="one volume a map, the last one the mask")
    with reading(path, "a NIfTI file"):
        voxels = image.get_fdata(dtype=np.float32, caching="unchanged").reshape(-1, image.shape[3])
    index = np.flatnonzero(voxels[:, -1])
    volume = Volume(np.asarray(image.affine, dtype=np.float64), tuple(image.shape[:3]), index.astype(np.int64))
    data = np.ascontiguousarray(voxels[index, :-1].T)
    return data, Geometry(named.get("space", ""), "", index.size, index.size, volume, named.get("res", ""))
