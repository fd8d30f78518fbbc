"""BOLD series of one run -> one response a trial, as files."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np

from bids_brainlm.config import Request
from bids_brainlm.core.types import Floats
from bids_brainlm.errors import InputError
from bids_brainlm.io.betas import Betas, write_betas, write_trials
from bids_brainlm.io.derivatives import propagate
from bids_brainlm.io.projection import is_projected
from bids_brainlm.io.runfiles import RunFiles
from bids_brainlm.io.rungs import CIFTI_RUNG, NATIVE, TEMPLATE
from bids_brainlm.registry import estimators
from bids_brainlm.stages.quality import diagnosed
from bids_brainlm.stages.runs import LoadedRun, load_run, mask_of, name_what_has_no_text, runs_of, stem
from bids_brainlm.stages.tune import is_tuned, options_of, read_tuning, run_of

TRIAL_COLUMNS = {
    "trial_id": "Identifier of the trial, unique in the dataset; names its data array.",
    "onset": "Onset in seconds, as in events.tsv.",
    "duration": "Duration in seconds.",
    "onset_model": "Onset in seconds relative to the acquisition time of the first volume (after the StartTime shift).",
    "stimulus_id": "Stimulus, the key that its texts are joined by.",
    "keep": "Whether the trial is within estimate.max_fd and estimate.max_outliers; if not, it is in no part of the split.",
    "session": "Session.",
    "run": "Run.",
    "leverage": "How strongly volumes of the trial pull their own fit in the model of all trials, 0 to 1; near 1, noise too.",
    "vif": "Variance inflation factor: times by which overlap with other regressors raises the variance of the response.",
    "fd_mean": "Mean framewise displacement in mm in the trial's response window; n/a where it is not known.",
    "outlier_share": "Share of motion outlier volumes in the trial's response window; n/a without a table of confounds.",
}
"""What the columns that are added to those of events.tsv mean."""

PROJECTIONS = {
    CIFTI_RUNG: "fsLR surface (CIFTI) to fsaverage through registered spheres",
    NATIVE: "T1w volume between the participant's own white and pial surfaces, to fsaverage through the registration sphere",
    TEMPLATE: "MNI volume between the surfaces of the fsaverage template",
}
"""Rung -> how its series were brought to the surface."""


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
    loaded = load_run(request, files, mask_of(every))
    name_what_has_no_text(request, files)
    betas, how = _betas(request, loaded)
    about = {
        **loaded.design.about,
        "EstimationMethod": settings.estimator,
        **how,
        "HighPassCutoff": settings.high_pass,
        "Units": "percent signal change",
        "NumberOfUnusableVertices": int((~loaded.usable).sum()),
        "StartTime": loaded.start,
        **projection_fields(files),
        "Sources": list(sources),
        "SourcesSHA256": sources,
        **propagate(files.sidecar),
    }
    responses = Betas(betas, tuple(loaded.trials["trial_id"]), loaded.geometry, files.entities, settings.estimator, about)
    table = diagnosed(files, loaded.trials, loaded.design.trials, loaded.design.nuisance)
    table = table.assign(onset_model=table["onset"] - loaded.start)
    described = {name: TRIAL_COLUMNS[name] for name in TRIAL_COLUMNS if name in table}
    return [*write_betas(request.out_dir, responses), *write_trials(request.out_dir, files.entities, table, described)]


def _betas(request: Request, run: LoadedRun) -> tuple[Floats, dict[str, Any]]:
    """(n, V) responses of a run, NaN where it cannot be used; and the fields of the sidecar that say how they came about."""
    settings, estimator = request.config.estimate, estimators.get(request.config.estimate.estimator)
    try:
        if is_tuned(estimator):
            tuning, about = read_tuning(request, run)
            betas = estimator.estimate(run_of(run), tuning, 0, options_of(request))
        else:
            betas = estimator(run.series, run.design.trials, run.design.nuisance, **_keywords(request, estimator))
            betas *= run.scale.astype(np.float32)
            about = {"HRFModel": settings.hrf, "NoiseModel": settings.noise_model}
    except ValueError as error:
        remedy = "look for trials that coincide"
        raise InputError(f"the design is singular: {error}", run.files.place, remedy=remedy) from error
    betas[:, ~run.usable] = np.nan
    return betas, about


def _keywords(request: Request, estimator: Any) -> dict[str, Any]:
    """What an estimator is told beside the run; a plug-in need not know of noise models and threads."""
    wanted = {"noise_model": request.config.estimate.noise_model, "threads": request.config.run.omp_nthreads}
    usual = {"noise_model": "ols", "threads": 1}
    return {
        name: value for name, value in wanted.items() if value != usual[name] and name in inspect.signature(estimator).parameters
    }


def projection_fields(files: RunFiles) -> dict[str, Any]:
    """Fields of a sidecar that say how a series was brought to its space; none where it was there already."""
    if not is_projected(files):
        return {}
    return {"ProjectionMethod": PROJECTIONS[files.rung], "ProjectionApproximate": files.rung == TEMPLATE}
