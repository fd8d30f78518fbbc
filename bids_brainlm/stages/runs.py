"""The runs of a participant: their files, their trials, their series and the design of each.

Where words have times (`over_time`), a run has no trials and needs no design, and it may have no events either.

A trial with a text gets a regressor of its own. Other events (fixation, button presses) are modelled too, one regressor a
``trial_type``, so that they do not pass for noise; one that the design already explains is left out and logged.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.config import Request
from bids_brainlm.core import glm
from bids_brainlm.core.design import nuisance, trial_design
from bids_brainlm.core.types import Bools, Floats
from bids_brainlm.errors import BrainLMError, InputError, MissingInputError
from bids_brainlm.io.confounds import load_confounds
from bids_brainlm.io.events import load_events
from bids_brainlm.io.layout import default_derivatives, look_for_runs
from bids_brainlm.io.projection import Sampling, is_projected
from bids_brainlm.io.runfiles import RunFiles
from bids_brainlm.io.surfaces import Bold, Geometry, Volume, common_mask, load_bold
from bids_brainlm.io.texts import Texts, load_texts
from bids_brainlm.stages.quality import fit_trials

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Design:
    """Design of one run, and what it was made from.

    Parameters
    ----------
    trials : (T, n) float64
    nuisance : (T, q) float64
    frame_times : (T,) float64
        Seconds.
    n_dummy : int
        Volumes left out at the start.
    about : dict
        Fields for the sidecar.
    """

    trials: NDArray[np.float64]
    nuisance: NDArray[np.float64]
    frame_times: NDArray[Any]
    n_dummy: int
    about: dict[str, Any]


def runs_of(request: Request, participant: str) -> list[RunFiles]:
    """The runs of a participant that the request asks for."""
    runs, fault = runs_and_fault(request, participant)
    if fault:
        raise fault
    return runs


def runs_and_fault(request: Request, participant: str) -> tuple[list[RunFiles], BrainLMError | None]:
    """Those of the runs whose files are all there, and what is wrong with the others."""
    derivatives = {name: path for name, path in request.derivatives.items() if name != "betas"}
    folders = derivatives or default_derivatives(request.bids_dir)
    return look_for_runs(request.bids_dir, folders, participant, request.config.input, over_time(request))


def over_time(request: Request) -> bool:
    """Whether what is decoded is words with times, from successive volumes, and not one text a trial."""
    return bool(request.config.window.words)


def stem(run: RunFiles) -> str:
    """``sub-01_task-x_run-1``: what identifies a run in names of stages and trials."""
    return "_".join(f"{key}-{value}" for key, value in run.entities.items())


def trials_of(request: Request, run: RunFiles) -> pd.DataFrame:
    """Events of a run with ``stimulus_id`` and ``keep``; one row an event.

    Raises
    ------
    InputError
        When two trials with texts begin at once: no estimator could tell their responses apart.
    """
    events, texts = _events_and_texts(request, run)
    kept = events["onset"].to_numpy()[texts.keep]
    # Events come in order of onset.
    twice = np.flatnonzero(np.diff(kept) == 0)
    if twice.size:
        what = f"two trials with texts begin at {kept[twice[0]]:g} s"
        remedy = "join their rows; several questions about one trial belong into the table of texts"
        raise InputError(what, run.place, expected="one row a trial", remedy=remedy)
    name = stem(run)
    # In place: a plan of a thousand participants does this for each of their runs.
    table = events.drop(columns="trial_id") if "trial_id" in events else events
    table.insert(0, "trial_id", [f"{name}_trial-{i + 1:04d}" for i in range(len(table))])
    table["stimulus_id"], table["keep"] = list(texts.stimulus), np.asarray(texts.keep)
    table["session"], table["run"] = run.session or "n/a", name
    return table


def _events_and_texts(request: Request, run: RunFiles) -> tuple[pd.DataFrame, Texts]:
    if run.events is None:
        raise MissingInputError("no events", run.bold[0], expected="..._events.tsv beside the raw BOLD")
    events = load_events(run.events)
    return events, load_texts(request.bids_dir, request.config.text, events, run.events)


def name_what_has_no_text(request: Request, run: RunFiles) -> None:
    """Log the events that have no text."""
    texts = _events_and_texts(request, run)[1]
    if texts.unknown:
        names = ", ".join(texts.unknown[:5]) + (" ..." if len(texts.unknown) > 5 else "")
        text = "%d of %d events have no text in %s and are modelled, but not decoded (%s): %s"
        LOGGER.info(text, int((~texts.keep).sum()), len(texts.keep), texts.source, names, run.events)


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """The series of one run with its trials and design, dummy volumes left out.

    Parameters
    ----------
    files : RunFiles
    series : (T, V) float32
        As preprocessed.
    geometry : Geometry
    start : float
        s of the first volume of the file after the onset 0 of the events.
    trials : DataFrame
        Those with a text.
    design : Design
    scale : (V,) float64
        What turns responses in the unit of the series into percent signal change; nan where a vertex cannot be used.
    """

    files: RunFiles
    series: Floats
    geometry: Geometry
    start: float
    trials: pd.DataFrame
    design: Design
    scale: NDArray[np.float64]

    @property
    def usable(self) -> Bools:
        """(V,) bool."""
        return np.isfinite(self.scale)


def load_run(request: Request, files: RunFiles, mask: Volume | None) -> LoadedRun:
    """Read the series of a run and make its design.

    Parameters
    ----------
    request : Request
    files : RunFiles
    mask : Volume or None
        Of `mask_of`.

    Raises
    ------
    InputError
        When events lie outside the series, a value is not finite in some volumes of a vertex, or no vertex can be used.
    """
    bold = read_bold(request, files, mask)
    table = trials_of(request, files)
    design = make_design(request, files, table, bold.frame_times)
    series = bold.data[design.n_dummy :]
    scale = scale_of(request, files, series)
    trials = fit_trials(request.config.estimate, files, table)
    return LoadedRun(files, series, bold.geometry, float(bold.frame_times[0]), trials, design, scale)


def read_bold(request: Request, files: RunFiles, mask: Volume | None) -> Bold:
    """The whole series of a run in the space that is asked for."""
    settings = request.config.input
    sampling = Sampling(settings.depths, settings.interpolation, settings.good_voxels)
    cache = request.work_dir / "cache" / "projections"
    return load_bold(files, settings.density, mask, sampling, cache, request.config.run.offline)


def scale_of(request: Request, files: RunFiles, series: Floats) -> NDArray[np.float64]:
    """What turns a series (T, V) into percent of the mean of each vertex; nan where it cannot be used, which is set to 0.

    Parameters
    ----------
    request : Request
    files : RunFiles
        For messages.
    series : (T, V) float32
        Without dummy volumes; changed in place.

    Raises
    ------
    InputError
        When a value is not finite in some volumes of a vertex, or no vertex can be used.
    """
    try:
        glm.refuse_non_finite(series)
    except ValueError as error:
        remedy = "look at fMRIPrep's report of this run, or leave it out"
        raise InputError(str(error), files.bold[0], expected="finite values", remedy=remedy) from error
    scale = glm.percent_scale(series, request.config.run.omp_nthreads)
    if not np.isfinite(scale).any():
        remedy = "look at fMRIPrep's report of this run"
        raise InputError("no vertex varies in time", files.bold[0], expected="a BOLD series", remedy=remedy)
    # They may hold anything, so they are not even computed with.
    series[:, ~np.isfinite(scale)] = 0.0
    return scale


def mask_of(runs: Sequence[RunFiles]) -> Volume | None:
    """Voxels that all volumes of a participant have; None where there is no volume."""
    volumes = [run for run in runs if len(run.bold) == 1 and not is_projected(run)]
    return common_mask(volumes) if volumes else None


@dataclass(frozen=True, eq=False)
class Regressed:
    """What is taken out of the series of a run beside drifts.

    Parameters
    ----------
    columns : (T, c) float64
        Confounds that vary.
    names : tuple of str, length c
    frame_times : (T,) float64
        s of the volumes that are left.
    n_dummy : int
        Volumes left out at the start.
    """

    columns: NDArray[np.float64]
    names: tuple[str, ...]
    frame_times: NDArray[np.float64]
    n_dummy: int

    @property
    def about(self) -> dict[str, Any]:
        """Fields for a sidecar."""
        return {"Confounds": list(self.names), "NumberOfVolumesDiscarded": self.n_dummy}


def regressed_out(request: Request, run: RunFiles, frame_times: NDArray[np.float64]) -> Regressed:
    """Confounds and dummy volumes of a run whose volumes lie at some times (T,) in s.

    Raises
    ------
    InputError
        When there is another number of rows than volumes, or no volume is left.
    """
    settings, n_volumes = request.config.input, len(frame_times)
    columns: NDArray[np.float64] = np.zeros((n_volumes, 0))
    names: tuple[str, ...] = ()
    n_dummy = max(settings.dummy_scans, 0)
    if run.confounds is not None:
        found = load_confounds(run.confounds, settings.confounds)
        columns, names = found.values, found.names
        n_dummy = found.n_dummy if settings.dummy_scans < 0 else n_dummy
        if len(columns) != n_volumes:
            remedy = "confounds and BOLD must come from the same fMRIPrep run"
            raise InputError(
                f"{len(columns)} rows for {n_volumes} volumes", run.confounds, expected=f"{n_volumes} rows", remedy=remedy
            )
    if n_dummy >= n_volumes:
        raise InputError(f"{n_dummy} of {n_volumes} volumes are to be left out", run.bold[0], remedy="lower --dummy-scans")
    columns = columns[n_dummy:]
    varying = np.ptp(columns, axis=0) > 0 if columns.size else np.zeros(0, bool)
    names = tuple(name for name, keep in zip(names, varying, strict=True) if keep)
    return Regressed(columns[:, varying], names, frame_times[n_dummy:], n_dummy)


def make_design(request: Request, run: RunFiles, table: pd.DataFrame, frame_times: NDArray[np.float64]) -> Design:
    """Regressors of a run, whose volumes lie at some times (T,) in s: its trials with texts, and everything else."""
    settings, found = request.config, regressed_out(request, run, frame_times)
    times = found.frame_times
    kept = table["keep"].to_numpy(bool)
    try:
        trials = trial_design(table["onset"][kept], table["duration"][kept], times, settings.estimate.hrf)
        others = _other_events(table[~kept], times, settings.estimate.hrf, run)
        base = nuisance(times, settings.estimate.high_pass, found.columns)
    except ValueError as error:
        expected = f"events between 0 and {times[-1] + np.diff(times[-2:]).sum():g} s"
        raise InputError(str(error), run.place, expected=expected, remedy="check onsets (seconds) and RepetitionTime") from error
    extra = [column for column in others.T if not _explained(column, np.column_stack([base, trials]))]
    intervals = np.diff(times)
    even = np.ptp(intervals) < 1e-6
    timed = {"RepetitionTimeOfSeries": round(float(intervals[0]), 6)} if even else {"VolumeTimingOfSeries": times.tolist()}
    return Design(trials, np.column_stack([base, *extra]), times, found.n_dummy, found.about | timed)


def _other_events(events: pd.DataFrame, times: NDArray[Any], hrf: str, run: RunFiles) -> NDArray[np.float64]:
    inside = events[(events["onset"] < times[-1]) & (events["onset"] + events["duration"] >= times[0])]
    if len(inside) < len(events):
        LOGGER.warning(
            "%d event(s) without text lie outside the series and are not modelled: %s", len(events) - len(inside), run.events
        )
    if not len(inside):
        return np.zeros((len(times), 0))
    kinds = inside["trial_type"].fillna("n/a") if "trial_type" in inside else pd.Series("other", inside.index)
    each = trial_design(inside["onset"], inside["duration"], times, hrf)
    return np.column_stack([each[:, (kinds == kind).to_numpy()].sum(axis=1) for kind in sorted(kinds.unique())])


def _explained(column: NDArray[Any], others: NDArray[Any]) -> bool:
    residual = column - others @ np.linalg.lstsq(others, column, rcond=None)[0]
    explained = bool(np.linalg.norm(residual) < 1e-6 * max(float(np.linalg.norm(column)), 1e-12))
    if explained:
        LOGGER.info("a regressor of events without text is explained by the rest of the design and left out")
    return explained
