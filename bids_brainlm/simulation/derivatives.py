"""Files as fMRIPrep writes them, and the truth behind them.

Arrays are compressed at the fastest level and values rounded to whole numbers (a ten-thousandth of the baseline): a run on
fsaverage5 then takes 10 MB and a third of a second. Nothing written depends on the clock or the machine.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import nibabel
import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.design import cosine_drift
from bids_brainlm.core.types import Floats
from bids_brainlm.errors import InputError
from bids_brainlm.io.files import atomic_write, write_json, write_text, write_tsv
from bids_brainlm.simulation.bold import MOTION
from bids_brainlm.simulation.patches import Sheet

HEAD_RADIUS = 50.0
"""mm by which rotations become displacements (Power et al. 2012)."""

CUBE = 30.0
"""mm; side of the parcels of a volume."""

SIDES = {"L": "CortexLeft", "R": "CortexRight"}


def write_bold(stem: str, folder: Path, bold: Floats, sheet: Sheet, tr: float, start_time: float) -> None:
    """Write one run: a GIFTI pair of fsaverage5, or a volume in T1w space and its mask.

    Parameters
    ----------
    stem : str
        Name up to the run, e.g. ``sub-01_task-pictures_run-01``.
    folder : Path
    bold : (T, V) float32
    sheet : Sheet
    tr, start_time : float, s
    """
    task = stem.split("_task-")[1].split("_")[0]
    sidecar = {
        "RepetitionTime": tr,
        "StartTime": start_time,
        "SliceTimingCorrected": True,
        "SkullStripped": False,
        "TaskName": task,
    }
    values = np.where(sheet.cortex, np.round(bold), np.float32(0))
    if sheet.mask is not None:
        name = f"{stem}_space-T1w_desc-preproc_bold"
        write_volume(folder / f"{name}.nii.gz", values, sheet, tr)
        write_volume(folder / f"{stem}_space-T1w_desc-brain_mask.nii.gz", np.ones((1, values.shape[1]), np.float32), sheet)
        write_json(folder / f"{name}.json", sidecar)
        return
    for side, part in _hemispheres(values, sheet).items():
        name = f"{stem}_hemi-{side}_space-fsaverage5_bold"
        write_gifti(folder / f"{name}.func.gii", part, side, "NIFTI_INTENT_TIME_SERIES", time_step=tr)
        write_json(folder / f"{name}.json", sidecar)


def write_maps(stem: str, folder: Path, maps: Mapping[str, Floats], sheet: Sheet) -> None:
    """Write the patch maps, one a word, in the order given; names are in the GIFTI metadata and in a JSON beside."""
    values = np.stack(list(maps.values()))
    space = "fsaverage5" if sheet.mask is None else "T1w"
    write_json(folder / f"{stem}_space-{space}_desc-truth_maps.json", {"Maps": list(maps)})
    if sheet.mask is not None:
        write_volume(folder / f"{stem}_space-{space}_desc-truth_maps.nii.gz", values, sheet)
        write_volume(folder / f"{stem}_space-{space}_desc-brain_mask.nii.gz", np.ones((1, sheet.n_vertices), np.float32), sheet)
        return
    for side, part in _hemispheres(values, sheet).items():
        path = folder / f"{stem}_hemi-{side}_space-{space}_desc-truth_maps.func.gii"
        write_gifti(path, part, side, "NIFTI_INTENT_ESTIMATE", names=list(maps))


def write_gifti(
    path: Path, rows: Floats, side: str, intent: str, *, names: Sequence[str] = (), time_step: float | None = None
) -> None:
    """Write rows (n, V) as the data arrays of one hemisphere; eight times as fast as nibabel for its compression level."""
    metadata = {"AnatomicalStructurePrimary": SIDES[side]} | ({} if time_step is None else {"TimeStep": f"{time_step * 1000:g}"})
    head = f'<GIFTI Version="1.0" NumberOfDataArrays="{len(rows)}">\n{_metadata(metadata)}<LabelTable/>\n'
    labels = [{"Name": name} for name in names] or [{}] * len(rows)
    arrays = [_data_array(row, intent, label) for row, label in zip(rows, labels, strict=True)]
    with atomic_write(path) as temporary:
        temporary.write_text('<?xml version="1.0" encoding="UTF-8"?>\n' + head + "".join(arrays) + "</GIFTI>\n", "utf-8")


def _data_array(row: Floats, intent: str, metadata: Mapping[str, str]) -> str:
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(row, dtype="<f4").tobytes(), 1)).decode("ascii")
    return (
        f'<DataArray Intent="{intent}" DataType="NIFTI_TYPE_FLOAT32" ArrayIndexingOrder="RowMajorOrder" Dimensionality="1"'
        f' Dim0="{row.size}" Encoding="GZipBase64Binary" Endian="LittleEndian" ExternalFileName="" ExternalFileOffset="">\n'
        f"{_metadata(metadata)}<Data>{data}</Data>\n</DataArray>\n"
    )


def _metadata(items: Mapping[str, str]) -> str:
    pairs = (f"<MD><Name>{escape(key)}</Name><Value>{escape(value)}</Value></MD>" for key, value in items.items())
    return f"<MetaData>{''.join(pairs)}</MetaData>\n"


def write_volume(path: Path, rows: NDArray[Any], sheet: Sheet, tr: float = 0.0) -> None:
    """Write rows (n, V) as the volumes of a NIfTI image, 0 outside the mask."""
    if sheet.mask is None:
        raise ValueError("a surface has no voxels")
    data = np.zeros((*sheet.mask.shape, len(rows)), dtype=np.asarray(rows).dtype)
    data[sheet.mask] = rows.T
    image: Any = nibabel.Nifti1Image(data[..., 0] if len(rows) == 1 else data, sheet.affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm", "sec")
    if tr:
        image.header["pixdim"][4] = tr
    with atomic_write(path) as temporary:
        image.to_filename(temporary)


def write_atlas(out: Path, sheet: Sheet) -> None:
    """Write a partition of a volume into cubes of `CUBE` mm, with the names of the parcels, for a dataset; none of a surface."""
    if sheet.mask is None:
        return
    folder = out / "derivatives" / "simulation" / "atlas"
    corner = np.floor(sheet.coordinates / CUBE).astype(int)
    cubes, label = np.unique(corner, axis=0, return_inverse=True)
    write_volume(folder / "space-T1w_atlas-cubes_dseg.nii.gz", (label.reshape(1, -1) + 1).astype(np.int16), sheet)
    names = ["cube" + "".join(f"{value:+d}" for value in cube) for cube in cubes]
    write_tsv(folder / "space-T1w_atlas-cubes_dseg.tsv", {"index": list(range(1, len(cubes) + 1)), "name": names})


def _hemispheres(values: Floats, sheet: Sheet) -> dict[str, Floats]:
    return {"L": values[:, : sheet.n_left], "R": values[:, sheet.n_left :]}


def write_confounds(path: Path, motion: NDArray[np.float64], tr: float) -> None:
    """Write the confounds table of a run: motion (T, 6), its differences, framewise displacement, and cosines to 128 s."""
    steps = np.vstack([np.full(6, np.nan), np.diff(motion, axis=0)])
    columns: dict[str, NDArray[np.float64]] = {}
    for i, name in enumerate(MOTION):
        columns |= {name: motion[:, i], f"{name}_derivative1": steps[:, i]}
    columns["framewise_displacement"] = np.abs(steps * np.repeat([1.0, HEAD_RADIUS], 3)).sum(axis=1)
    drift = cosine_drift(tr * np.arange(len(motion)), 1 / 128)
    columns |= {f"cosine{i:02d}": column for i, column in enumerate(drift.T)}
    write_tsv(path, {name: [round(float(value), 7) for value in column] for name, column in columns.items()})


def write_dataset(folder: Path, name: str, version: str, *, derivative: bool, readme: str, **more: Any) -> None:
    """Write ``dataset_description.json`` and ``README.md``."""
    description: dict[str, Any] = {"Name": name, "BIDSVersion": "1.10.0", "DatasetType": "derivative" if derivative else "raw"}
    if derivative:
        description["GeneratedBy"] = [{"Name": "bids_brainlm simulate", "Version": version}]
    else:
        description["Authors"] = ["The simulator of bids_brainlm"]
    write_json(folder / "dataset_description.json", {**description, "License": "CC0", **more})
    write_text(folder / "README.md", readme)


def write_roots(out: Path, name: str, version: str, readme: str, truth: str, settings: Mapping[str, Any]) -> None:
    """Write what stands at the roots of the raw dataset, of its preprocessing, and of the truth behind it.

    Parameters
    ----------
    out : Path
    name, version : str
    readme : str
        Of the raw dataset.
    truth : str
        What the folder of the truth holds, one line.
    settings : mapping
        What the dataset was made from; ``participants`` is their number.
    """
    links = {"DatasetLinks": {"raw": "../.."}}
    write_dataset(out, name, version, derivative=False, readme=readme)
    preprocessed = "# BOLD series as fMRIPrep would write them\n\nSimulated by bids_brainlm; see ../simulation for the truth.\n"
    write_dataset(out / "derivatives" / "fmriprep", name, version, derivative=True, readme=preprocessed, **links)
    folder = out / "derivatives" / "simulation"
    write_dataset(folder, name, version, derivative=True, readme=f"# Truth of the simulation\n\n{truth}\n", **links)
    write_json(folder / "simulation.json", settings)
    write_tsv(out / "participants.tsv", {"participant_id": [f"sub-{i + 1:02d}" for i in range(settings["participants"])]})


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A hidden folder beside a new one, which takes its name when everything is in it.

    Raises
    ------
    InputError
        When there is something in the folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("the folder is not empty", out, expected="a new folder", remedy="remove it or name another")
    staging = out.with_name(f".{out.name}.partial")
    if staging.exists():
        shutil.rmtree(staging)
    yield staging
    os.replace(staging, out)


def write_betas(path: Path, betas: Floats, vertices: NDArray[np.int64], run: NDArray[np.int64], stimulus: Sequence[str]) -> None:
    """Write the true betas (n, D) of the D driven vertices; everywhere else they are 0."""
    from safetensors.numpy import save_file

    arrays: dict[str, NDArray[Any]] = {"betas": np.ascontiguousarray(betas), "vertices": vertices, "run": run}
    with atomic_write(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(arrays, str(temporary), metadata={"stimulus": json.dumps(list(stimulus))})
        # safetensors writes for the owner alone.
        temporary.chmod(mode)
