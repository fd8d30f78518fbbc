"""Single-trial responses as BIDS derivatives, written and read back.

One *beta file* holds the responses of one run: a pair of GIFTI files with one data array a trial, or a 4-D NIfTI file with
one volume a trial and the mask of its voxels beside it. A JSON sidecar without ``hemi-`` names the trials in order; the
*trials table* (``beh/..._desc-trials_events.tsv``) says what they were. Means over parcels are tables with a row a trial.
The same responses give the same bytes: no dates, no file names inside compressed files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.core.types import Floats, Parcellation
from bids_brainlm.errors import InputError
from bids_brainlm.io.files import read_json, read_tsv, write_json, write_tsv
from bids_brainlm.io.images import load_nifti, reading
from bids_brainlm.io.maps import read_hemispheres, sampling, save_nifti, save_volume, write_hemispheres
from bids_brainlm.io.names import bids_folder, bids_name, parse, run_entities
from bids_brainlm.io.surfaces import Geometry, load_mask

_OWN = ("Description", "EstimationMethod", "Density", "Resolution", "TrialIDs")
DESCRIPTION = "Single-trial responses, one data array or volume a trial, in the order of TrialIDs."


@dataclass(frozen=True, eq=False)
class Betas:
    """Single-trial responses of one run.

    Parameters
    ----------
    data : (n, V) float32
        In the ``Units`` of the sidecar.
    trial_ids : tuple of str, length n
    geometry : Geometry
    entities : dict of str to str
        What identifies the run; those of processing (space, desc ...) are not used.
    estimator : str
        ``lss``, ``lsa`` ...; in capitals it is the ``desc-`` label.
    sidecar : dict
        JSON fields: ``Sources``, ``Units``, ``HRFModel`` ...

    Raises
    ------
    ValueError
        When shapes do not fit or ids repeat.
    """

    data: Floats
    trial_ids: tuple[str, ...]
    geometry: Geometry
    entities: dict[str, str]
    estimator: str
    sidecar: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "trial_ids", tuple(self.trial_ids))
        n = len(set(self.trial_ids))
        if self.data.shape != (len(self.trial_ids), self.geometry.n_vertices) or n != len(self.trial_ids):
            raise ValueError(f"betas {self.data.shape} for {n} different trial ids and {self.geometry.n_vertices} vertices")


def write_betas(out_dir: Path, betas: Betas) -> list[Path]:
    """Write the responses of one run.

    Returns
    -------
    list of Path
        The image files (and the mask of a volume, with its sidecar), then the sidecar.
    """
    folder, named = _place(out_dir, betas, "effect")
    geometry = betas.geometry
    if geometry.volume is None:
        paths = write_hemispheres(folder, named, betas.data, geometry.n_left, betas.trial_ids, "NIFTI_INTENT_ESTIMATE")
    else:
        paths = [save_volume(folder / bids_name(named, "statmap", ".nii.gz"), betas.data, geometry.volume)]
        paths += write_mask(folder, named, geometry, betas.sidecar, "Voxels of the single-trial responses.")
    fields = {"Description": DESCRIPTION, **_fields(betas), "TrialIDs": list(betas.trial_ids)}
    return [*paths, write_json(folder / bids_name(named, "statmap", ".json"), fields)]


def read_betas(path: Path) -> Betas:
    """The inverse of `write_betas`, given the left, right or NIfTI file.

    Raises
    ------
    MissingInputError, InputError
        When a file is not there, damaged, or the parts of a run do not fit each other.
    """
    name = parse(path)
    named = {key: value for key, value in name.entities.items() if key != "hemi"}
    sidecar = read_json(path.with_name(bids_name(named, "statmap", ".json")))
    data, geometry, names = read_image(path)
    ids = tuple(map(str, sidecar.get("TrialIDs", names)))
    if len(ids) != len(data) or (any(names) and tuple(names) != ids):
        raise InputError(f"{len(data)} responses, {len(ids)} TrialIDs, or not in one order", path, expected="one id a response")
    estimator = str(sidecar.get("EstimationMethod", named.get("desc", "")))
    return Betas(data, ids, geometry, run_entities(named), estimator, sidecar)


def read_image(path: Path, suffix: str = "statmap") -> tuple[Floats, Geometry, list[str]]:
    """Rows (n, V) of an image, given its left or NIfTI file; what the columns are; the names of the rows, if it has any.

    Raises
    ------
    MissingInputError, InputError
        When a file is not there, damaged, or the parts of it do not fit each other.
    """
    name = parse(path)
    named = {key: value for key, value in name.entities.items() if key != "hemi"}
    if name.extension == ".func.gii":
        return read_hemispheres(path.parent, named, suffix)
    return (*_read_nifti(path, named), [])


def write_parcel_means(
    out_dir: Path,
    betas: Betas,
    means: Floats,
    coverage: NDArray[np.floating[Any]],
    parcellation: Parcellation,
    min_coverage: float = 0.5,
) -> list[Path]:
    """Write the mean response of every parcel.

    Parameters
    ----------
    out_dir : Path
    betas : Betas
        What the means are of.
    means : (n, P) float32
    coverage : (P,) float
        Share of usable vertices, 0 to 1.
    parcellation : Parcellation
    min_coverage : float
        Parcels below it are written as n/a.

    Returns
    -------
    list of Path
        Table of means (columns ``trial_id`` and the parcels), its sidecar, table of coverage, its sidecar.
    """
    means, coverage = np.asarray(means, dtype=np.float32), np.asarray(coverage, dtype=np.float64)
    if means.shape != (len(betas.trial_ids), parcellation.n_parcels) or coverage.shape != means.shape[1:]:
        n, p = len(betas.trial_ids), parcellation.n_parcels
        raise ValueError(f"means {means.shape} and coverage {coverage.shape} for {n} trials and {p} parcels")
    shown = np.where(coverage >= min_coverage, means, np.float32(np.nan))
    table: dict[str, Sequence[Any]] = {"trial_id": betas.trial_ids}
    table |= {parcel: list(column) for parcel, column in zip(parcellation.names, shown.T, strict=True)}
    fields = _fields(betas) | {"Atlas": parcellation.title, "MinimumCoverage": min_coverage}
    paths = []
    for stat, content, text in (
        ("mean", table, "Mean single-trial response of the usable vertices of each parcel; n/a below MinimumCoverage."),
        ("coverage", {"parcel": parcellation.names, "coverage": list(coverage)}, "Share of usable vertices of each parcel."),
    ):
        folder, named = _place(out_dir, betas, stat, parcellation.entities)
        paths.append(write_tsv(folder / bids_name(named, "statmap", ".tsv"), content))
        paths.append(write_json(folder / bids_name(named, "statmap", ".json"), {"Description": text, **fields}))
    return paths


def write_trials(
    out_dir: Path, entities: Mapping[str, str], table: pd.DataFrame, columns: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write the trials table of a run.

    Parameters
    ----------
    out_dir, entities
        Of the run.
    table : DataFrame
        ``onset`` (s), ``duration`` (s), ``trial_id`` and whatever describes a trial; row i is response i.
    columns : mapping, optional
        Column -> description (text, or the JSON object of BIDS).
    """
    folder = Path(out_dir) / bids_folder(entities, "beh")
    named = run_entities(entities) | {"desc": "trials"}
    first = ["onset", "duration"]
    missing = [name for name in first if name not in table]
    if missing:
        raise ValueError(f"a trials table without {', '.join(missing)}")
    ordered = table[first + [name for name in table if name not in first]]
    described = {name: {"Description": text} if isinstance(text, str) else text for name, text in (columns or {}).items()}
    return [
        write_tsv(folder / bids_name(named, "events", ".tsv"), ordered),
        write_json(folder / bids_name(named, "events", ".json"), described),
    ]


def read_trials(path: Path) -> pd.DataFrame:
    """Trials table in the order of its rows: numbers where a whole column is numeric, text elsewhere, ``None`` where missing."""
    table = read_tsv(path)
    for name in ("onset", "duration"):
        if name in table:
            table[name] = pd.to_numeric(table[name], errors="coerce").astype(np.float64)
    return table


def _place(out_dir: Path, betas: Betas, stat: str, atlas: Mapping[str, str] | None = None) -> tuple[Path, dict[str, str]]:
    """Folder and entities of a file."""
    desc = "".join(part for part in betas.estimator if part.isalnum()).upper()
    named = run_entities(betas.entities) | betas.geometry.entities | dict(atlas or {}) | {"stat": stat, "desc": desc}
    return Path(out_dir) / bids_folder(betas.entities, "func"), named


def _fields(betas: Betas) -> dict[str, Any]:
    """JSON fields that every file of these responses carries."""
    kept = {key: value for key, value in betas.sidecar.items() if key not in _OWN}
    return {"EstimationMethod": betas.estimator, **sampling(betas.geometry), **kept}


def write_mask(
    folder: Path, named: Mapping[str, str], geometry: Geometry, sidecar: Mapping[str, Any], description: str
) -> list[Path]:
    """Write the mask of the voxels of a 4-D image beside it."""
    volume = geometry.volume
    if volume is None:
        raise ValueError("surfaces have no mask of voxels")
    voxels = np.zeros(int(np.prod(volume.shape)), dtype=np.uint8)
    voxels[volume.index] = 1
    path = folder / _mask_name(named, ".nii.gz")
    save_nifti(path, voxels.reshape(volume.shape), volume)
    fields: dict[str, Any] = {"Type": "Brain", "Description": description, **sampling(geometry)}
    sources = list(sidecar.get("Sources", ()))
    if sources:
        # BIDS wants to know what a space such as T1w refers to: the mask lies on the grid of the BOLD series.
        fields |= {"Sources": sources, "SpatialReference": sources[0]}
    return [path, write_json(folder / _mask_name(named, ".json"), fields)]


def _mask_name(named: Mapping[str, str], extension: str) -> str:
    kept = {key: value for key, value in named.items() if key != "stat"}
    return bids_name(kept | {"desc": "brain"}, "mask", extension)


def _read_nifti(path: Path, named: Mapping[str, str]) -> tuple[Floats, Geometry]:
    mask = load_mask(path.with_name(_mask_name(named, ".nii.gz")))
    image = load_nifti(path)
    if image.shape[:3] != mask.shape or len(image.shape) != 4:
        raise InputError(f"an image of shape {image.shape}", path, expected=f"{mask.shape} and one volume a row")
    with reading(path, "a NIfTI file"):
        voxels = image.get_fdata(dtype=np.float32, caching="unchanged")
    data = np.ascontiguousarray(voxels.reshape(-1, image.shape[3])[mask.index].T)
    n = mask.index.size
    return data, Geometry(named.get("space", ""), "", n, n, mask, named.get("res", ""))
