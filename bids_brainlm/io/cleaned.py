"""Cleaned BOLD series of a run, and the words that were heard in it, as BIDS derivatives, written and read back.

A *cleaned series* is a pair of GIFTI files with one data array a volume, or a 4-D NIfTI file with the mask of its voxels beside
it, ``..._desc-cleaned_bold``. Its JSON sidecar says when volumes were taken in the time of the run's events: ``StartTime`` and
``RepetitionTime``, or ``VolumeTiming`` after ``StartTime`` where they are unevenly spaced. The *table of words*,
``beh/..._desc-words_events.tsv``, has a row a word on the same clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.core.types import Floats
from bids_brainlm.io.betas import read_image, write_mask
from bids_brainlm.io.files import read_json, read_tsv, write_json, write_tsv
from bids_brainlm.io.headers import gifti_shape, nifti_shape
from bids_brainlm.io.maps import sampling, save_volume, write_hemispheres
from bids_brainlm.io.names import bids_folder, bids_name, parse, run_entities
from bids_brainlm.io.surfaces import Geometry
from bids_brainlm.io.timing import timing

DESCRIPTION = "BOLD series with drifts and confounds removed, every vertex or voxel z-scored."

WORD_COLUMNS = {
    "onset": "Onset of the word in seconds, in the time of the events of the run.",
    "duration": "Duration in seconds.",
    "word": "The word.",
    "story": "Story that it belongs to.",
    "start": "Start of the story in seconds, in the time of the events of the run.",
}
"""What the columns of a table of words mean; others are those of the last event that had begun."""


@dataclass(frozen=True, eq=False)
class Cleaned:
    """Cleaned BOLD series of one run.

    Parameters
    ----------
    data : (T, V) float32
        z; nan where a vertex cannot be used.
    times : (T,) float64
        s of every volume in the time of the events.
    geometry : Geometry
    entities : dict of str to str
        What identifies the run.
    sidecar : dict
        JSON fields: ``Sources``, ``Confounds`` ...
    """

    data: Floats
    times: NDArray[np.float64]
    geometry: Geometry
    entities: dict[str, str]
    sidecar: dict[str, Any] = field(default_factory=dict)


def write_cleaned(out_dir: Path, series: Cleaned) -> list[Path]:
    """Write the series of one run.

    Returns
    -------
    list of Path
        The image files (and the mask of a volume, with its sidecar), then the sidecar.
    """
    geometry = series.geometry
    folder = Path(out_dir) / bids_folder(series.entities, "func")
    named = run_entities(series.entities) | geometry.entities | {"desc": "cleaned"}
    if geometry.volume is None:
        names = [""] * len(series.data)
        paths = write_hemispheres(folder, named, series.data, geometry.n_left, names, "NIFTI_INTENT_TIME_SERIES", "bold")
    else:
        step = _timed(series.times).get("RepetitionTime", 0.0)
        paths = [save_volume(folder / bids_name(named, "bold", ".nii.gz"), series.data, geometry.volume, step)]
        paths += write_mask(folder, named, geometry, series.sidecar, "Voxels of the cleaned series.")
    task = {"TaskName": series.entities["task"]} if "task" in series.entities else {}
    # BIDS wants to know what a space such as T1w refers to, and whether what is not brain was taken away.
    where = {"SpatialReference": series.sidecar["Sources"][0]} if series.sidecar.get("Sources") else {}
    about = {"Description": DESCRIPTION, **task, "SkullStripped": True, **where, **sampling(geometry), **series.sidecar}
    about |= _timed(series.times)
    return [*paths, write_json(folder / bids_name(named, "bold", ".json"), about)]


EVEN = 1e-6
"""Seconds by which steps between volumes may differ and count as equal."""


def _timed(times: NDArray[np.float64]) -> dict[str, Any]:
    """Fields that say when volumes were taken."""
    if np.ptp(np.diff(times)) < EVEN:
        # Division leaves a rounding error in the last digit.
        step = round(float(times[-1] - times[0]) / (len(times) - 1), 12)
        return {"StartTime": float(times[0]), "RepetitionTime": step}
    return {"StartTime": float(times[0]), "VolumeTiming": (times - times[0]).tolist()}


def read_cleaned(path: Path) -> Cleaned:
    """The inverse of `write_cleaned`, given the left or NIfTI file.

    Raises
    ------
    MissingInputError, InputError
        When a file is not there, damaged, or does not have one time a volume.
    """
    data, geometry, _ = read_image(path, "bold")
    sidecar = _sidecar(path)
    return Cleaned(data, timing(sidecar, path).frames(len(data), path), geometry, run_entities(parse(path).entities), sidecar)


def volume_times(path: Path) -> NDArray[np.float64]:
    """(T,) s of every volume, from the sidecar and the header of the left or NIfTI file."""
    n_volumes = gifti_shape(path)[0] if path.name.endswith(".func.gii") else nifti_shape(path)[3]
    return timing(_sidecar(path), path).frames(n_volumes, path)


def _sidecar(path: Path) -> dict[str, Any]:
    named = {key: value for key, value in parse(path).entities.items() if key != "hemi"}
    return read_json(path.with_name(bids_name(named, "bold", ".json")))


def write_words(out_dir: Path, entities: dict[str, str], heard: pd.DataFrame, about: dict[str, Any]) -> list[Path]:
    """Write the words of a run.

    Parameters
    ----------
    out_dir, entities
        Of the run.
    heard : DataFrame
        Columns story, start, onset, offset (s from the start of the story), word, and further ones; a row a word.
    about : dict
        Further fields of the sidecar.
    """
    path = Path(out_dir) / bids_folder(entities, "beh") / bids_name(run_entities(entities) | {"desc": "words"}, "events", ".tsv")
    further = heard.drop(columns=["run", "story", "start", "onset", "offset", "word"])
    own = {
        "onset": heard["start"] + heard["onset"],
        "duration": heard["offset"] - heard["onset"],
        **{name: heard[name] for name in ("word", "story", "start")},
    }
    described = {name: {"Description": text} for name, text in WORD_COLUMNS.items()}
    return [
        write_tsv(path, pd.concat([pd.DataFrame(own), further], axis=1)),
        write_json(path.with_suffix(".json"), described | about),
    ]


def read_words(path: Path, run: str) -> pd.DataFrame:
    """The inverse of `write_words`; ``run`` is what the column of that name is to hold."""
    table = read_tsv(path)
    onset, duration, start = (pd.to_numeric(table[name]).astype(np.float64) for name in ("onset", "duration", "start"))
    begun = (onset - start).clip(lower=0.0)
    own = {"run": run, "story": table["story"], "start": start, "onset": begun, "offset": begun + duration}
    further = table.drop(columns=["onset", "duration", "story", "start"])
    return pd.concat([pd.DataFrame(own), further], axis=1)
