"""How reliable the responses of a participant are: maps, and means over parcels, of all runs together.

Responses are those that decoders see, centred as configured; the noise ceiling (`bids_brainlm.core.reliability`) is that of
single trials.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bids_brainlm.config import Request
from bids_brainlm.core.parcels import parcel_means
from bids_brainlm.core.reliability import ncsnr, noise_ceiling, split_half
from bids_brainlm.core.types import Examples
from bids_brainlm.io.files import write_json, write_tsv
from bids_brainlm.io.maps import write_maps
from bids_brainlm.stages.outputs import estimator_label, reliability_path
from bids_brainlm.stages.responses import Trials, atlas_of

MAPS = {
    "reliability": "Correlation over stimuli of the mean responses in two halves of the repeats; n/a without repeats.",
    "ncsnr": "Standard deviation of signal over that of noise in single trials, z-scored in each session; n/a without repeats.",
    "noise_ceiling": "Share (percent) of the variance of single trials that is signal: 100 ncsnr^2 / (ncsnr^2 + 1).",
}
"""Map -> what it shows."""

PARCEL_COLUMNS = {
    "parcel": "Name of the parcel.",
    "coverage": "Share of its vertices that have a reliability, 0 to 1.",
    **{name: f"Mean over those vertices. {text}" for name, text in MAPS.items()},
}


def write_reliability(request: Request, participant: str, trials: Trials, examples: Examples) -> list[Path]:
    """Write the maps and the table of parcels.

    Parameters
    ----------
    request : Request
    participant : str
    trials : Trials
    examples : Examples
        Of ``trials``, before repeats are averaged.

    Returns
    -------
    list of Path
        Images, their sidecar, table, its sidecar.
    """
    data, stimulus = examples.recording.data, _stimuli(examples)
    ratio = ncsnr(data, stimulus, trials.table["session"].to_numpy(str))
    maps = {
        "reliability": split_half(data, stimulus, request.config.run.random_seed),
        "ncsnr": ratio,
        "noise_ceiling": noise_ceiling(ratio),
    }
    about = {
        "Description": "Reliability of the single-trial responses.",
        "MapDescriptions": MAPS,
        **({} if trials.heard is not None else {"EstimationMethod": request.config.estimate.estimator}),
        "Repeats": 1,
        "Sources": list(trials.sources),
    }
    entities, desc = {"sub": participant, "task": trials.task}, estimator_label(request)
    written = write_maps(request.out_dir, entities, trials.geometry, maps, desc, about, stat="reliability")
    return [*written, *_write_parcels(request, participant, trials, maps)]


def _stimuli(examples: Examples) -> Any:
    """(R,) number of the stimulus of every row; a row without a text is a stimulus of its own. Questions of a trial share it."""
    code = np.unique(examples.stimulus, return_inverse=True)[1]
    out = len(examples) + np.arange(examples.recording.data.shape[0])
    out[examples.rows[:, 0, 0]] = code
    return out


def _write_parcels(request: Request, participant: str, trials: Trials, maps: dict[str, Any]) -> list[Path]:
    atlas, least = atlas_of(request, trials.geometry), request.config.parcels.min_coverage
    data = np.stack(list(maps.values()))
    means, coverage = parcel_means(data, atlas, np.isfinite(data).all(axis=0))
    means[:, coverage < least] = np.nan
    path = reliability_path(request, participant, trials.task, trials.geometry, atlas)
    table = {"parcel": atlas.names, "coverage": list(coverage), **dict(zip(maps, map(list, means), strict=True))}
    tree: dict[str, Any] = {
        "Description": "Mean reliability of the responses in each parcel; n/a below MinimumCoverage.",
        **{name: {"Description": text} for name, text in PARCEL_COLUMNS.items()},
        "Atlas": atlas.name,
        "MinimumCoverage": least,
    }
    return [write_tsv(path, table), write_json(path.with_suffix(".json"), tree)]
