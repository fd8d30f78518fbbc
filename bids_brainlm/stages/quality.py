"""How far each trial can be trusted, whatever its response is: from motion around it, and from its place in the design.

A trial beyond the limits of the settings (``max_fd``, ``max_outliers``) is estimated like any other, since its response is in
the series, but it is no example: it is neither trained on nor decoded. Its row of the trials table says ``keep`` = false.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.config import Estimate
from bids_brainlm.core.diagnostics import motion_in_window, trial_diagnostics
from bids_brainlm.core.types import Bools
from bids_brainlm.errors import InputError
from bids_brainlm.io.confounds import load_motion
from bids_brainlm.io.runfiles import RunFiles
from bids_brainlm.io.timing import timing

Doubles = NDArray[np.float64]


def motion_of(run: RunFiles, trials: pd.DataFrame) -> dict[str, Doubles]:
    """Motion in the response window of some trials of a run.

    Returns
    -------
    dict of str to (n,) float64
        ``fd_mean``: mean framewise displacement in mm; ``outlier_share``: share of outlier volumes. Nan where the derivatives
        do not say it.
    """
    unknown = np.full(len(trials), np.nan)
    if run.confounds is None:
        return {"fd_mean": unknown, "outlier_share": unknown}
    displacement, outlier = load_motion(run.confounds)
    frames = timing(run.sidecar, run.bold[0]).frames(displacement.size, run.confounds)
    mean, share = motion_in_window(
        trials["onset"].to_numpy(float), trials["duration"].to_numpy(float), frames, displacement, outlier
    )
    return {"fd_mean": np.asarray(mean), "outlier_share": np.asarray(share)}


def within_limits(settings: Estimate, run: RunFiles, trials: pd.DataFrame) -> Bools:
    """(n,) bool: trials whose motion the settings allow.

    Raises
    ------
    InputError
        When there is a limit on something that the derivatives do not say.
    """
    keep = np.ones(len(trials), dtype=np.bool_)
    limits = {"fd_mean": settings.max_fd, "outlier_share": settings.max_outliers}
    if not any(limits.values()):
        return keep
    for name, values in motion_of(run, trials).items():
        if limits[name]:
            if np.isnan(values).all():
                what = f"{name} is not known for {run.bold[0].name}, but estimate sets a limit on it"
                expected = "a confounds table with framewise_displacement"
                raise InputError(what, run.confounds or run.bold[0], expected=expected, remedy="set the limit to 0")
            keep &= ~(values > limits[name])
    return keep


def fit_trials(settings: Estimate, run: RunFiles, events: pd.DataFrame) -> pd.DataFrame:
    """Those events of a run that have a text; ``keep`` says which of them are within the limits."""
    trials = events[events["keep"]]
    return trials.assign(keep=within_limits(settings, run, trials))


def diagnosed(run: RunFiles, trials: pd.DataFrame, design: Any, nuisance: Any) -> pd.DataFrame:
    """Trials with the columns ``leverage``, ``vif``, ``fd_mean`` and ``outlier_share``.

    Parameters
    ----------
    run : RunFiles
    trials : DataFrame
    design : (T, n)
        Regressor of each trial.
    nuisance : (T, q)
    """
    found = trial_diagnostics(design, nuisance)
    columns = {"leverage": found.leverage, "vif": found.vif, **motion_of(run, trials)}
    return trials.assign(**{name: values.round(4) for name, values in columns.items()})
