"""Responses of a participant, wherever they come from, with one table row each; and parcel means of single trials.

A row is a trial, or a volume where words have times; then the words come with them.

Where all trials together would take more than a quarter of the memory that may be planned with, and always with ``--low-mem``,
matrices of them lie in *scratch*: files of the work folder that have no name, are mapped into memory, and are gone with the
process, however it ends. What reads them goes through them in blocks, so that memory does not grow with the number of sessions.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.config import Request
from bids_brainlm.core.parcels import ROWS_AT_ONCE, only, parcel_means
from bids_brainlm.core.types import Floats, Parcellation
from bids_brainlm.errors import ConfigError, InputError, OutputError
from bids_brainlm.io.atlases import load_atlas
from bids_brainlm.io.betas import read_betas, read_trials, write_parcel_means
from bids_brainlm.io.cleaned import read_cleaned, read_words, volume_times
from bids_brainlm.io.matrices import BetaFiles, find_betas, read_matrix
from bids_brainlm.io.names import parse, run_entities
from bids_brainlm.io.surfaces import Geometry
from bids_brainlm.stages import cache, resources
from bids_brainlm.stages.heard import volume_table
from bids_brainlm.stages.runs import over_time, runs_of, stem

SHOWN = 10
"""Parcels that a message names."""


@dataclass(frozen=True, eq=False)
class Trials:
    """Responses of a participant with one table row each.

    Parameters
    ----------
    data : (R, V) float32
        Array or memory map; not finite where a vertex could not be used in a run.
    geometry : Geometry
    table : DataFrame
        ``trial_id``, ``onset``, ``run``, ``session`` and the columns of events.tsv.
    path : Path
        A trials table, for messages.
    sources : tuple of str
        BIDS URIs of the files read.
    task : str
        Label for the names of what is made of all runs: the task, several joined by ``+``, ``unknown`` where names have none.
    scratch : Path or None
        Folder for matrices as large as ``data``; None keeps them in memory.
    heard : DataFrame or None
        Words over time, where rows are volumes and not trials: ``run``, ``story``, ``start`` (s, where the story begins in the
        time of the events), ``onset`` and ``offset`` (s from the start of the story) and ``word``; one row a word.
    """

    data: Any
    geometry: Geometry
    table: pd.DataFrame
    path: Path
    sources: tuple[str, ...]
    task: str
    scratch: Path | None = None
    heard: pd.DataFrame | None = None


def load_trials(request: Request, participant: str) -> Trials:
    """Responses of all runs, one after the other; in scratch where they are large, and then one run in memory at a time.

    Raises
    ------
    InputError
        When runs do not have the same vertices.
    OutputError
        When there is no room for scratch.
    """
    files = _files(request, participant)
    n_rows = sum(map(_n_rows, files))
    parts: list[Trials] = []
    data, folder, start = None, None, 0
    for item in files:
        part = _ready(item, request)
        _refuse_other_columns(part, (parts or [part])[0])
        if data is None:
            folder = scratch_folder(request, 4 * n_rows * part.data.shape[1])
            data = _room(part.data, n_rows, folder)
        if data is not part.data:
            data[start : start + len(part.data)] = part.data
        start += len(part.data)
        parts.append(dataclasses.replace(part, data=None))
    table = pd.concat([part.table for part in parts], ignore_index=True)
    task = _label([part.task for part in parts])
    sources = tuple(uri for part in parts for uri in part.sources)
    data = _without_others(data, request, parts[0].geometry, folder)
    heard = [part.heard for part in parts if part.heard is not None]
    spoken = pd.concat(heard, ignore_index=True) if heard else None
    return Trials(data, parts[0].geometry, table, parts[0].path, sources, task, folder, spoken)


LONGEST = 80
"""Letters of a label that file names have room for."""


def _label(tasks: Sequence[str]) -> str:
    """The different tasks in one label; where every story is a task, there may be too many to name them.

    >>> _label(["hare", "hare", "fox"]), _label([f"aVeryLongStory{i}" for i in range(9)])
    ('hare+fox', '9tasks')
    """
    different = list(dict.fromkeys(tasks))
    joined = "+".join(different)
    return joined if len(joined) <= LONGEST else f"{len(different)}tasks"


def scratch_folder(request: Request, n_bytes: int) -> Path | None:
    """Where matrices of so many bytes go; None for memory."""
    return None if resources.stays_in_memory(request.config.run, n_bytes) else request.work_dir / "low-mem"


def _room(first: Any, n_rows: int, folder: Path | None) -> Any:
    """Where all rows go, given the responses that are read first: those themselves, when there are no others to put beside."""
    shape = (n_rows, first.shape[1])
    if first.shape == shape and first.dtype == np.float32:
        return first
    return _empty(shape, folder)


def _empty(shape: tuple[int, int], folder: Path | None) -> Floats:
    return np.empty(shape, dtype=np.float32) if folder is None else scratch(folder, shape)


def scratch(folder: Path, shape: tuple[int, int]) -> Floats:
    """Zeros of that shape (float32) in a file of that folder that has no name and ends with the process.

    Raises
    ------
    OutputError
        When the folder cannot be written or has no room; said now (not on macOS), since a full disk would kill whoever
        writes to the map.
    """
    n_bytes = 4 * shape[0] * shape[1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if sys.platform == "darwin":
                file.truncate(n_bytes)
            else:
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            return np.memmap(file, np.float32, "r+", shape=shape)
    except OSError as error:
        what = f"no room for {n_bytes / 1e9:.1f} GB of responses ({error.strerror})"
        remedy = "free some space, choose another work folder (-w), or give the run more memory (--mem)"
        raise OutputError(what, folder, remedy=remedy) from error


def atlas_of(request: Request, geometry: Geometry) -> Parcellation:
    """The configured parcellation, fitted to the data, with the parcels that are used."""
    atlas = load_atlas(
        request.config.parcels.atlas,
        space=geometry.space,
        n_left=geometry.n_left,
        n_vertices=geometry.n_vertices,
        volume=geometry.volume,
        offline=request.config.run.offline,
    )
    return used(atlas, request)


def used(atlas: Parcellation, request: Request) -> Parcellation:
    """The parcels that ``parcels.only`` names; all where it names none.

    Raises
    ------
    ConfigError
        When it names one that the atlas does not have.
    """
    wanted = request.config.parcels.only
    try:
        return only(atlas, wanted) if wanted else atlas
    except ValueError as error:
        rest = len(atlas.names) - SHOWN
        names = ", ".join(atlas.names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
        raise ConfigError(f"parcels.only: {error}; there are {names}") from error


def _without_others(data: Any, request: Request, geometry: Geometry, folder: Path | None) -> Any:
    """The responses, not finite in parcels that are not used, as in vertices that cannot be."""
    if not request.config.parcels.only:
        return data
    others = atlas_of(request, geometry).labels == 0
    # What cannot be written to is a file of the user's.
    out = data if data.flags.writeable else _empty(data.shape, folder)
    for start in range(0, len(data), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        out[part] = np.where(others, np.nan, data[part])
    return out


def parcellate(request: Request, *, participant: str, run: str) -> list[Path]:
    """Stage: mean response of every parcel in every trial of one run, and the coverage of the parcels."""
    betas = read_betas(_image(cache.outputs(request.out_dir, f"{run}_estimate")))
    atlas = atlas_of(request, betas.geometry)
    valid = np.asarray(np.isfinite(betas.data).all(axis=0), dtype=np.bool_)
    means, coverage = parcel_means(betas.data, atlas, valid)
    return write_parcel_means(request.out_dir, betas, means, coverage, atlas, request.config.parcels.min_coverage)


def _image(paths: list[Path]) -> Path:
    return next(path for path in paths if path.name.endswith((".func.gii", ".nii.gz")))


def _files(request: Request, participant: str) -> list[BetaFiles]:
    """Where the responses are: those given by ``-d betas=``, or our own of every run that has texts or words."""
    ready = request.derivatives.get("betas")
    if ready is not None:
        return find_betas(ready, participant)
    stage, kind = ("clean", SERIES) if over_time(request) else ("estimate", "image")
    written = [cache.outputs(request.out_dir, f"{stem(run)}_{stage}") for run in runs_of(request, participant)]
    return [BetaFiles(kind, {}, _image(paths), _table(paths)) for paths in written if paths]


SERIES = "series"
"""Kind of files whose rows are volumes and whose table is one of words."""


def _table(paths: list[Path]) -> Path:
    return next(path for path in paths if path.name.endswith("_events.tsv"))


def _n_rows(files: BetaFiles) -> int:
    return len(volume_times(files.path) if files.kind == SERIES else read_trials(files.trials))


def _refuse_other_columns(part: Trials, first: Trials) -> None:
    if part.geometry.n_vertices != first.geometry.n_vertices or part.geometry.space != first.geometry.space:
        found, wanted = (f"{p.geometry.n_vertices} vertices in {p.geometry.space or 'none'}" for p in (part, first))
        raise InputError(
            found, part.path, expected=f"{wanted}, as in {first.path.name}", remedy="choose one with --space and --density"
        )


def _ready(files: BetaFiles, request: Request) -> Trials:
    if files.kind == SERIES:
        return _volumes(files, request)
    path, trials = files.path, files.trials
    if files.kind == "matrix":
        data, table = read_matrix(path, trials)
        geometry = Geometry("none", "", data.shape[1], data.shape[1])
    else:
        betas = read_betas(path)
        data, geometry, table = betas.data, betas.geometry, read_trials(trials)
        if len(table) != len(data):
            raise InputError(f"{len(table)} rows for {len(data)} responses", trials, expected="one row a response")
    inside = path.is_relative_to(request.out_dir)
    uri = f"bids::{path.relative_to(request.out_dir)}" if inside else f"bids:betas:{path.name}"
    task = parse(path).entities.get("task", "unknown")
    return Trials(data, geometry, completed(table, path), trials, (uri,), task)


def _volumes(files: BetaFiles, request: Request) -> Trials:
    """The cleaned series of a run, and its words."""
    series = read_cleaned(files.path)
    table, heard = _spoken(files, series.times)
    uri = f"bids::{files.path.relative_to(request.out_dir)}"
    task = series.entities.get("task", "unknown")
    return Trials(series.data, series.geometry, table, files.trials, (uri,), task, heard=heard)


def _spoken(files: BetaFiles, times: NDArray[np.float64]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Table of the volumes of a run, and of its words."""
    entities = parse(files.trials).entities
    name = "_".join(f"{key}-{value}" for key, value in run_entities(entities).items())
    return volume_table(name, entities.get("ses", ""), times), read_words(files.trials, name)


def heard_in(request: Request, participant: str) -> Trials | None:
    """Volumes and words of all runs without their series, from what stage clean wrote; None where there is none of it."""
    files = [item for item in _files(request, participant) if item.kind == SERIES]
    tables = [_spoken(item, volume_times(item.path)) for item in files]
    if not tables:
        return None
    volumes, words = (pd.concat(some, ignore_index=True) for some in zip(*tables, strict=True))
    return Trials(None, Geometry("none", "", 1, 1), volumes, files[0].trials, (), "", heard=words)


def completed(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A user's own table may lack what ours has: ids, runs and onsets are then made from the order of the rows."""
    label = path.name.split("_betas")[0]
    out = table.copy()
    if "run" not in out:
        out["run"] = label
    if "session" not in out:
        out["session"] = "n/a"
    if "trial_id" not in out:
        out["trial_id"] = [f"{label}_trial-{i + 1:04d}" for i in range(len(out))]
    if "onset" not in out:
        out["onset"] = np.arange(len(out), dtype=float)
    return out
