"""BOLD series of one run -> one response a trial, as files.

A trial with a text gets a regressor of its own. Other events (fixation, button presses) are modelled too, one regressor a
``trial_type``, so that they do not pass for noise; one that the design already explains is left out and logged.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.config import Request
from bids_brainlm.core import glm
from bids_brainlm.core.design import nuisance, trial_design
from bids_brainlm.errors import BrainLMError, InputError
from bids_brainlm.io.betas import Betas, write_betas, write_trials
from bids_brainlm.io.confounds import load_confounds
from bids_brainlm.io.derivatives import propagate
from bids_brainlm.io.events import load_events
from bids_brainlm.io.layout import default_derivatives, look_for_runs
from bids_brainlm.io.runfiles import RunFiles
from bids_brainlm.io.surfaces import common_mask, load_bold
from bids_brainlm.io.texts import Texts, load_texts
from bids_brainlm.registry import estimators

LOGGER = logging.getLogger(__name__)

TRIAL_COLUMNS = {
    "trial_id": "Identifier of the trial, unique in the dataset; names its data array.",
    "onset": "Onset in seconds, as in events.tsv.",
    "duration": "Duration in seconds.",
    "onset_model": "Onset in seconds relative to the acquisition time of the first volume (after the StartTime shift).",
    "stimulus_id": "Stimulus, the key that its texts are joined by.",
    "keep": "Whether the trial has a text.",
    "session": "Session.",
    "run": "Run.",
}
"""What the columns that are added to those of events.tsv mean."""


@dataclass(frozen=True, eq=False)
class Design:
    """Design of one run, and what it was made from.

    Parameters
    ----------
    trials : (T, n) float64
    nuisance : (T, q) float64
    n_dummy : int
        Volumes left out at the start.
    about : dict
        Fields for the sidecar.
    """

    trials: NDArray[np.float64]
    nuisance: NDArray[np.float64]
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
    return look_for_runs(request.bids_dir, folders, participant, request.config.input)


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
        raise InputError(what, run.events, expected="one row a trial", remedy=remedy)
    name = stem(run)
    # In place: a plan of a thousand participants does this for each of their runs.
    table = events.drop(columns="trial_id") if "trial_id" in events else events
    table.insert(0, "trial_id", [f"{name}_trial-{i + 1:04d}" for i in range(len(table))])
    table["stimulus_id"], table["keep"] = list(texts.stimulus), np.asarray(texts.keep)
    table["session"], table["run"] = run.session or "n/a", name
    return table


def _events_and_texts(request: Request, run: RunFiles) -> tuple[pd.DataFrame, Texts]:
    events = load_events(run.events)
    return events, load_texts(request.bids_dir, request.config.text, events, run.events)


def _name_what_has_no_text(request: Request, run: RunFiles) -> None:
    texts = _events_and_texts(request, run)[1]
    if texts.unknown:
        names = ", ".join(texts.unknown[:5]) + (" ..." if len(texts.unknown) > 5 else "")
        text = "%d of %d events have no text in %s and are modelled, but not decoded (%s): %s"
        LOGGER.info(text, int((~texts.keep).sum()), len(texts.keep), texts.source, names, run.events)


def estimate(request: Request, *, participant: str, run: str, sources: dict[str, str]) -> list[Path]:
    """Stage: estimate the single-trial responses of one run.

    Parameters
    ----------
    request : Request
    participant, run : str
    sources : dict of str to str
        BIDS URI of every file of the run -> its SHA-256.

    Returns
    -------
    list of Path
        Beta maps, their sidecar, and the trials table.

    Raises
    ------
    InputError
        When events lie outside the series, the design is singular, or no vertex can be used.
    """
    every = runs_of(request, participant)
    files = next(item for item in every if stem(item) == run)
    settings = request.config.estimate
    bold = load_bold(files, request.config.input.density, None if len(files.bold) == 2 else common_mask(every))
    table = trials_of(request, files)
    _name_what_has_no_text(request, files)
    design = make_design(request, files, table, len(bold.data), bold.tr, bold.start_time)
    series = bold.data[design.n_dummy :]
    usable = glm.usable(series)
    if not usable.any():
        raise InputError(
            "no vertex varies in time", files.bold[0], expected="a BOLD series", remedy="look at fMRIPrep's report of this run"
        )
    try:
        betas = estimators.get(settings.estimator)(glm.percent_signal_change(series), design.trials, design.nuisance)
    except ValueError as error:
        raise InputError(f"the design is singular: {error}", files.events, remedy="look for trials that coincide") from error
    betas[:, ~usable] = np.nan
    kept = table[table["keep"]]
    about = {
        **design.about,
        "EstimationMethod": settings.estimator,
        "HRFModel": settings.hrf,
        "HighPassCutoff": settings.high_pass,
        "Units": "percent signal change",
        "NumberOfUnusableVertices": int((~usable).sum()),
        "StartTime": bold.start_time,
        "Sources": list(sources),
        "SourcesSHA256": sources,
        **propagate(files.sidecar),
    }
    responses = Betas(betas, tuple(kept["trial_id"]), bold.geometry, files.entities, settings.estimator, about)
    paths = write_betas(request.out_dir, responses)
    model_onset = kept["onset"] - bold.start_time
    described = {name: TRIAL_COLUMNS[name] for name in TRIAL_COLUMNS if name in kept or name == "onset_model"}
    return [*paths, *write_trials(request.out_dir, files.entities, kept.assign(onset_model=model_onset), described)]


def make_design(request: Request, run: RunFiles, table: pd.DataFrame, n_volumes: int, tr: float, start: float) -> Design:
    """Regressors of a run: its trials with texts, and everything else."""
    settings = request.config
    columns: NDArray[np.float64] = np.zeros((n_volumes, 0))
    names: tuple[str, ...] = ()
    n_dummy = max(settings.input.dummy_scans, 0)
    if run.confounds is not None:
        found = load_confounds(run.confounds, settings.input.confounds)
        columns, names = found.values, found.names
        n_dummy = found.n_dummy if settings.input.dummy_scans < 0 else n_dummy
        if len(columns) != n_volumes:
            remedy = "confounds and BOLD must come from the same fMRIPrep run"
            raise InputError(
                f"{len(columns)} rows for {n_volumes} volumes", run.confounds, expected=f"{n_volumes} rows", remedy=remedy
            )
    if n_dummy >= n_volumes:
        raise InputError(f"{n_dummy} of {n_volumes} volumes are to be left out", run.bold[0], remedy="lower --dummy-scans")
    times = start + tr * np.arange(n_dummy, n_volumes)
    columns = columns[n_dummy:]
    varying = np.ptp(columns, axis=0) > 0 if columns.size else np.zeros(0, bool)
    names = tuple(name for name, keep in zip(names, varying, strict=True) if keep)
    kept = table["keep"].to_numpy(bool)
    try:
        trials = trial_design(table["onset"][kept], table["duration"][kept], times, settings.estimate.hrf)
        others = _other_events(table[~kept], times, settings.estimate.hrf, run)
        base = nuisance(times, settings.estimate.high_pass, columns[:, varying])
    except ValueError as error:
        expected = f"events between 0 and {times[-1] + tr:g} s"
        raise InputError(str(error), run.events, expected=expected, remedy="check onsets (seconds) and RepetitionTime") from error
    extra = [column for column in others.T if not _explained(column, np.column_stack([base, trials]))]
    about = {"Confounds": list(names), "NumberOfVolumesDiscarded": n_dummy, "RepetitionTimeOfSeries": tr}
    return Design(trials, np.column_stack([base, *extra]), n_dummy, about)


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
