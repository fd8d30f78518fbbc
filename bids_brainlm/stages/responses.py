"""Single-trial responses of a participant, wherever they come from, with one table row each; and their parcel means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bids_brainlm.config import Request
from bids_brainlm.core.parcels import parcel_means
from bids_brainlm.core.types import Parcellation
from bids_brainlm.errors import InputError
from bids_brainlm.io.atlases import load_atlas
from bids_brainlm.io.betas import read_betas, read_trials, write_parcel_means
from bids_brainlm.io.matrices import find_betas, read_matrix
from bids_brainlm.io.names import parse
from bids_brainlm.io.surfaces import Geometry
from bids_brainlm.stages import cache
from bids_brainlm.stages.estimate import runs_of, stem


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
    """

    data: Any
    geometry: Geometry
    table: pd.DataFrame
    path: Path
    sources: tuple[str, ...]
    task: str


def load_trials(request: Request, participant: str) -> Trials:
    """Responses of all runs, one after the other.

    Raises
    ------
    InputError
        When runs do not have the same vertices.
    """
    ready = request.derivatives.get("betas")
    if ready is not None:
        parts = [_ready(item.kind, item.path, item.trials, request) for item in find_betas(ready, participant)]
    else:
        # A run without texts has no responses.
        written = [cache.outputs(request.out_dir, f"{stem(run)}_estimate") for run in runs_of(request, participant)]
        parts = [_own(paths, request) for paths in written if paths]
    first = parts[0]
    for part in parts[1:]:
        if part.geometry.n_vertices != first.geometry.n_vertices or part.geometry.space != first.geometry.space:
            found, wanted = (f"{p.geometry.n_vertices} vertices in {p.geometry.space or 'none'}" for p in (part, first))
            raise InputError(
                found, part.path, expected=f"{wanted}, as in {first.path.name}", remedy="choose one with --space and --density"
            )
    data = first.data if len(parts) == 1 else np.concatenate([part.data for part in parts])
    table = pd.concat([part.table for part in parts], ignore_index=True)
    task = "+".join(dict.fromkeys(part.task for part in parts))
    return Trials(data, first.geometry, table, first.path, tuple(uri for part in parts for uri in part.sources), task)


def atlas_of(request: Request, geometry: Geometry) -> Parcellation:
    """The configured parcellation, fitted to the data."""
    return load_atlas(
        request.config.parcels.atlas,
        space=geometry.space,
        n_left=geometry.n_left,
        n_vertices=geometry.n_vertices,
        volume=geometry.volume,
        offline=request.config.run.offline,
    )


def parcellate(request: Request, *, participant: str, run: str) -> list[Path]:
    """Stage: mean response of every parcel in every trial of one run, and the coverage of the parcels."""
    betas = read_betas(_image(cache.outputs(request.out_dir, f"{run}_estimate")))
    atlas = atlas_of(request, betas.geometry)
    valid = np.asarray(np.isfinite(betas.data).all(axis=0), dtype=np.bool_)
    means, coverage = parcel_means(betas.data, atlas, valid)
    return write_parcel_means(request.out_dir, betas, means, coverage, atlas, request.config.parcels.min_coverage)


def _image(paths: list[Path]) -> Path:
    return next(path for path in paths if path.name.endswith((".func.gii", ".nii.gz")))


def _own(paths: list[Path], request: Request) -> Trials:
    return _ready("image", _image(paths), next(p for p in paths if p.name.endswith("_desc-trials_events.tsv")), request)


def _ready(kind: str, path: Path, trials: Path, request: Request) -> Trials:
    if kind == "matrix":
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
    return Trials(data, geometry, _completed(table, path), trials, (uri,), task)


def _completed(table: pd.DataFrame, path: Path) -> pd.DataFrame:
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
