"""Stage tune: what all runs of a participant decide about the estimation of every vertex or voxel, as files.

A *tuned estimator* is registered like any other, but has two methods, ``tune`` and ``estimate``
(`bids_brainlm.core.tuning`). ``tune`` looks at all runs, and its choices are written down; the estimate of a run reads back
those that concern it. Choices are made from responses and from which stimuli repeat, never from texts; which runs they may be
made from is a setting (``tune_on``). Series that are large against memory lie in scratch (`bids_brainlm.stages.responses`),
vertex by vertex.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.config import Request
from bids_brainlm.core import hrf
from bids_brainlm.core.tuned import NO_REPEATS
from bids_brainlm.core.tuning import Options, Run, Tuning
from bids_brainlm.core.types import Floats
from bids_brainlm.errors import ConfigError, InputError
from bids_brainlm.io.files import read_json, read_tsv, write_tsv
from bids_brainlm.io.maps import read_maps, write_maps
from bids_brainlm.io.names import bids_folder, bids_name
from bids_brainlm.io.runfiles import RunFiles
from bids_brainlm.io.surfaces import Geometry, Volume
from bids_brainlm.registry import estimators
from bids_brainlm.stages import cache
from bids_brainlm.stages.outputs import describe
from bids_brainlm.stages.responses import scratch, scratch_folder
from bids_brainlm.stages.runs import LoadedRun, load_run, mask_of, runs_of, stem

MAPS = {
    "hrf": "row of the library, from 0",
    "r2": "share of variance, after nuisance, that one regressor for all trials explains",
    "pool": "1 where the nuisance components come from",
    "fraction": "|b| / |b of ordinary least squares|; 1 is ordinary least squares",
    "penalty": "ridge penalty with that fraction",
    "gain": "slope of the line that brings ridge responses back to the scale of ordinary least squares",
    "offset": "its offset, in percent signal change",
}
"""Map -> what it holds, in the order of the file."""

HIDDEN = "training and test share stimuli, and to compare their repeats would use the labels of test trials"
"""Why steps are left out when repeats are hidden."""

EVEN = 1e-6
"""s by which the steps of a library of responses may differ."""


@dataclass(frozen=True)
class Seen:
    """What choices may look at.

    Parameters
    ----------
    runs : tuple of bool
        Runs that they are made from.
    repeats : bool
        Whether they may know which trials show the same stimulus.
    shared : bool
        Whether a test trial's stimulus is one of training, in those runs.
    """

    runs: tuple[bool, ...]
    repeats: bool
    shared: bool


def is_tuned(estimator: Any) -> bool:
    """Whether an estimator chooses from all runs before it estimates."""
    return hasattr(estimator, "tune")


def tuned(request: Request) -> bool:
    """Whether the configured estimator is one of these; not when nobody registered it, which is told elsewhere."""
    try:
        return is_tuned(estimators.get(request.config.estimate.estimator))
    except ConfigError:
        return False


def run_of(loaded: LoadedRun) -> Run:
    """A run as a tuned estimator sees it."""
    return Run(
        bold=loaded.series,
        onsets=loaded.trials["onset"].to_numpy(np.float64),
        durations=loaded.trials["duration"].to_numpy(np.float64),
        frame_times=loaded.design.frame_times,
        nuisance=loaded.design.nuisance,
        stimulus=loaded.trials["stimulus_id"].to_numpy(str),
        session=loaded.files.session,
    )


def _load_all(request: Request, files: Sequence[RunFiles], mask: Volume | None) -> tuple[list[Run], Geometry]:
    """All runs, and what their columns are.

    Raises
    ------
    InputError
        When one cannot be used, or they do not have the same vertices.
    """
    runs: list[Run] = []
    geometry: Geometry | None = None
    for item in files:
        loaded = load_run(request, item, mask)
        geometry = geometry or loaded.geometry
        if loaded.geometry.n_vertices != geometry.n_vertices:
            found, expected = f"{loaded.geometry.n_vertices} vertices", f"{geometry.n_vertices}, as in {files[0].bold[0].name}"
            raise InputError(found, item.bold[0], expected=expected, remedy="choose one with --space and --density")
        run, folder = run_of(loaded), scratch_folder(request, loaded.series.nbytes * len(files))
        runs.append(run if folder is None else replace(run, bold=_in_scratch(folder, run.bold)))
    if geometry is None:
        raise ValueError("no run to choose on")
    return runs, geometry


def _in_scratch(folder: Path, series: Floats) -> Floats:
    """The same (T, V) series in a file without a name, the volumes of a vertex side by side."""
    held = scratch(folder, (series.shape[1], series.shape[0]))
    held[:] = series.T
    return held.T


def options_of(request: Request) -> Options:
    """How choices are made, from the settings.

    Raises
    ------
    InputError, MissingInputError
        When the library of responses cannot be used.
    """
    settings = request.config.estimate
    threads = max(request.config.run.omp_nthreads, 1)
    options = Options(hrf_choice=settings.hrf_choice, max_components=settings.max_components, threads=threads)
    if not settings.hrf_library:
        return options
    library, step = read_library(Path(settings.hrf_library).expanduser())
    return replace(options, library=library, step=step)


def read_library(path: Path) -> tuple[NDArray[np.float64], float]:
    """Responses to a very short event, from a table: column ``time`` (s, from 0, even steps), then one column a response.

    Returns
    -------
    library : (H, k) float64
        Each row with sum 1.
    step : float
        Seconds.

    Raises
    ------
    MissingInputError, InputError
        When it is not there, a value is no number, the times are not even or a response has no area.
    """
    table = read_tsv(path)
    expected = "a TSV with a column time (s, from 0, even steps) and one column a response"
    if "time" not in table or table.shape[1] < 2 or len(table) < 2:
        raise InputError(f"columns {', '.join(table)}", path, expected=expected)
    values = table.apply(pd.to_numeric, errors="coerce")
    wrong = [name for name in values if not np.isfinite(values[name].to_numpy(float)).all()]
    if wrong:
        raise InputError(f"{', '.join(wrong)} holds what is no number", path, expected=expected)
    times = values["time"].to_numpy(float)
    steps = np.diff(times)
    if abs(times[0]) > EVEN or np.ptp(steps) > EVEN or steps[0] <= 0:
        raise InputError(f"times {times[0]:g}, {times[1]:g} ... {times[-1]:g} s", path, expected=expected)
    library = values.drop(columns="time").to_numpy(float).T
    area = library.sum(axis=1)
    if (area <= 0).any():
        name = values.drop(columns="time").columns[int(np.argmax(area <= 0))]
        raise InputError(f"{name} has no positive area", path, expected="responses that go up more than down")
    return library / area[:, None], float(steps.mean())


def tune(
    request: Request, *, participant: str, runs: Sequence[str], seen: Mapping[str, Any], sources: Mapping[str, str]
) -> list[Path]:
    """Stage: let the estimator choose from all runs of a participant.

    Parameters
    ----------
    request : Request
    participant : str
    runs : sequence of str
        Names of the runs that have texts.
    seen : mapping
        Fields of `Seen`: what choices may look at.
    sources : mapping of str to str
        BIDS URI of every file of those runs -> its SHA-256.

    Returns
    -------
    list of Path
        Maps, their sidecar, the library of responses, and a table of nuisance components for each run.

    Raises
    ------
    InputError
        When a run cannot be used, or runs do not have the same vertices.
    """
    every = runs_of(request, participant)
    files = [next(item for item in every if stem(item) == name) for name in runs]
    settings, options = request.config.estimate, options_of(request)
    loaded, geometry = _load_all(request, files, mask_of(every))
    allowed = Seen(**seen)
    if not allowed.repeats:
        loaded = [replace(run, stimulus=np.array([f"{i} {k}" for k in range(run.onsets.size)])) for i, run in enumerate(loaded)]
    try:
        tuning = estimators.get(settings.estimator).tune(loaded, options, None if all(allowed.runs) else allowed.runs)
    except ValueError as error:
        remedy = "look for trials that coincide, or choose --estimator lss"
        raise InputError(f"{settings.estimator} cannot choose: {error}", files[0].place, remedy=remedy) from error
    if not allowed.repeats:
        tuning = replace(tuning, left_out={step: HIDDEN if why == NO_REPEATS else why for step, why in tuning.left_out.items()})
    about = {**_about(request, tuning, runs, allowed), "Sources": list(sources), "SourcesSHA256": dict(sources)}
    maps = {name: np.asarray(getattr(tuning, name), dtype=np.float32) for name in MAPS}
    written = write_maps(request.out_dir, _entities(participant, files), geometry, maps, _label(request), about, "tuning")
    written += _write_library(request, _entities(participant, files), options)
    for item, components in zip(files, tuning.components, strict=True):
        written += _write_components(request, item, components)
    return written


def read_tuning(request: Request, run: LoadedRun) -> tuple[Tuning, dict[str, Any]]:
    """What was chosen, for one run alone: its components are the only ones; and fields for the sidecar of its responses."""
    paths = cache.outputs(request.out_dir, f"sub-{run.files.participant}_tune")
    image = next(path for path in paths if path.name.endswith(("_statmap.func.gii", "_statmap.nii.gz", "_statmap.tsv")))
    sidecar = read_json(next(path for path in paths if path.name.endswith("_statmap.json")))
    maps, _ = read_maps(image)
    own = next((path for path in paths if path.name == _components_name(request, run.files)), None)
    none = np.zeros((len(run.series), 0), dtype=np.float32)
    components = none if own is None else read_tsv(own).to_numpy(np.float32)
    tuning = Tuning(
        steps=tuple(sidecar["EstimationSteps"]),
        left_out=dict(sidecar["StepsLeftOut"]),
        hrf=np.nan_to_num(maps["hrf"]).astype(np.int16),
        pool=maps["pool"] > 0,
        components=(components,),
        curve=np.asarray(sidecar["AgreementByNumberOfComponents"], dtype=np.float64),
        model=sidecar["TrialModel"],
        hrf_choice=sidecar["HRFChoice"],
        r2=maps["r2"],
        fraction=maps["fraction"],
        penalty=maps["penalty"],
        gain=maps["gain"],
        offset=maps["offset"],
    )
    shared = (
        "EstimationSteps",
        "StepsLeftOut",
        "TrialModel",
        "HRFModel",
        "HRFChoice",
        "NumberOfComponents",
        "TuneOn",
        "TestLabelsSeen",
    )
    return tuning, {name: sidecar[name] for name in shared}


def _about(request: Request, tuning: Tuning, runs: Sequence[str], seen: Seen) -> dict[str, Any]:
    settings = request.config.estimate
    return {
        "Description": "What was chosen for every vertex or voxel before single-trial responses were estimated.",
        "EstimationMethod": settings.estimator,
        "EstimationSteps": list(tuning.steps),
        "StepsLeftOut": tuning.left_out,
        "TrialModel": tuning.model,
        "HRFModel": "one of a library for every vertex or voxel",
        "HRFLibrary": Path(settings.hrf_library).name if settings.hrf_library else "double gammas of this program",
        "HRFChoice": tuning.hrf_choice,
        "NumberOfComponents": max((part.shape[1] for part in tuning.components), default=0),
        "AgreementByNumberOfComponents": [float(value) for value in tuning.curve],
        "TuneOn": settings.tune_on,
        "TunedOnRuns": [name for name, is_used in zip(runs, seen.runs, strict=True) if is_used],
        "OtherRuns": [name for name, is_used in zip(runs, seen.runs, strict=True) if not is_used],
        "RepeatsCompared": seen.repeats,
        "TestLabelsSeen": seen.repeats and seen.shared,
        "MapDescriptions": MAPS,
    }


def _entities(participant: str, files: Sequence[RunFiles]) -> dict[str, str]:
    task = "+".join(dict.fromkeys(item.task or "unknown" for item in files))
    return {"sub": participant, "task": task}


def _label(request: Request) -> str:
    return "".join(filter(str.isalnum, request.config.estimate.estimator)).upper()


def _write_library(request: Request, entities: Mapping[str, str], options: Options) -> list[Path]:
    """The shapes that were chosen from, in the form that ``--hrf-library`` reads."""
    shapes = hrf.library(options.step) if options.library is None else options.library
    name = bids_name({**entities, "desc": f"{_label(request)}library"}, "timeseries", ".tsv")
    path = request.out_dir / bids_folder(entities, "func") / name
    columns = {f"response_{i:02d}": np.round(row, 9) for i, row in enumerate(shapes)}
    times = np.round(np.arange(shapes.shape[1]) * options.step, 9)
    about = {"time": "Seconds after a very short event."} | dict.fromkeys(columns, "Response, scaled to sum 1.")
    table = write_tsv(path, {"time": times, **columns})
    return [table, describe(table, "Responses that every vertex chose from; row i of the map hrf is response_i.", about)]


def _components_name(request: Request, run: RunFiles) -> str:
    return bids_name({**run.entities, "desc": f"{_label(request)}components"}, "timeseries", ".tsv")


def _write_components(request: Request, run: RunFiles, components: Floats) -> list[Path]:
    """Nuisance components of a run, one row a volume that was used; nothing where there are none."""
    if not components.shape[1]:
        return []
    columns = {f"component_{i + 1:02d}": column for i, column in enumerate(components.T)}
    about = dict.fromkeys(columns, "Nuisance component, unit length, largest first.")
    path = request.out_dir / bids_folder(run.entities, "func") / _components_name(request, run)
    table = write_tsv(path, columns)
    text = "Series shared by vertices that the task does not move; taken out of the data with drifts and confounds."
    return [table, describe(table, text, about)]
