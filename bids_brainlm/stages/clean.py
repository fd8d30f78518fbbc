"""Stage clean: the BOLD series of one run in which words were heard, without what is known to be nuisance, as files.

Where words have times there are no single trials to estimate: decoders read the series itself. Drifts and confounds are regressed
out of it and every vertex or voxel is z-scored over the run, by nilearn. Neither sees a word, so that both are properties of the
recording.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nilearn import signal
from numpy.typing import NDArray

from bids_brainlm.config import Request
from bids_brainlm.core.chunks import centred, in_chunks
from bids_brainlm.core.design import nuisance
from bids_brainlm.core.types import Floats
from bids_brainlm.errors import InputError
from bids_brainlm.io.cleaned import Cleaned, write_cleaned, write_words
from bids_brainlm.io.derivatives import propagate
from bids_brainlm.io.runfiles import RunFiles
from bids_brainlm.io.surfaces import Volume
from bids_brainlm.stages.estimate import projection_fields
from bids_brainlm.stages.heard import dropped, heard_of
from bids_brainlm.stages.runs import mask_of, read_bold, regressed_out, runs_of, scale_of, stem

FEWEST = 3
"""Volumes that there must be beyond the regressors: with fewer nothing is left that varies."""

WEAKEST = 1e-6
"""Share of its mean that must be left of a vertex: float32 rounds at a sixteenth of that."""


def clean(request: Request, *, participant: str, run: str, sources: dict[str, str]) -> list[Path]:
    """Stage: clean the series of one run, and write it with the words that were heard.

    Parameters
    ----------
    request : Request
    participant, run : str
    sources : dict of str to str
        BIDS URI of every file of the run -> its SHA-256.

    Returns
    -------
    list of Path
        Series, sidecar, table of words, its sidecar.

    Raises
    ------
    InputError
        When no vertex can be used, or there are too few volumes.
    """
    every = runs_of(request, participant)
    files = next(item for item in every if stem(item) == run)
    made = {"Sources": list(sources), "SourcesSHA256": sources}
    series = clean_run(request, files, mask_of(every), made)
    words, heard = heard_of(request, files)
    return [
        *write_cleaned(request.out_dir, series),
        *write_words(request.out_dir, files.entities, words, dropped(heard, series.times) | made),
    ]


def clean_run(request: Request, files: RunFiles, mask: Volume | None, made: dict[str, Any]) -> Cleaned:
    """The series of a run, cleaned.

    Parameters
    ----------
    request : Request
    files : RunFiles
    mask : Volume or None
        Of `mask_of`.
    made : dict
        Fields of the sidecar that say what it is made from.

    Raises
    ------
    InputError
        When the files do not fit each other, no vertex can be used, or there are too few volumes.
    """
    bold = read_bold(request, files, mask)
    found = regressed_out(request, files, bold.frame_times)
    series = bold.data[found.n_dummy :]
    scale = scale_of(request, files, series)
    regressors = _regressors(request, files, found.frame_times, found.columns)
    usable = np.isfinite(scale) & standardise(series, regressors, request.config.run.omp_nthreads)
    series[:, ~usable] = np.nan
    about = {
        **found.about,
        "HighPassCutoff": request.config.estimate.high_pass,
        "Units": "z",
        "NumberOfUnusableVertices": int((~usable).sum()),
        **projection_fields(files),
        **made,
        **propagate(files.sidecar),
    }
    return Cleaned(series, found.frame_times, bold.geometry, files.entities, about)


def _regressors(
    request: Request, files: RunFiles, times: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(T, q) drifts and confounds, without the constant."""
    try:
        found = nuisance(times, request.config.estimate.high_pass, columns)
    except ValueError as error:
        remedy = "take fewer confounds (--confounds), or a lower --high-pass"
        raise InputError(f"the series cannot be cleaned: {error}", files.bold[0], remedy=remedy) from error
    if len(times) < found.shape[1] + FEWEST:
        what = f"{len(times)} volumes for {found.shape[1]} regressors"
        remedy = "take fewer confounds (--confounds), or a lower --high-pass"
        raise InputError(what, files.bold[0], expected=f"at least {FEWEST} volumes more", remedy=remedy)
    return found[:, :-1]


def standardise(series: Floats, regressors: NDArray[np.float64], threads: int = 1) -> NDArray[np.bool_]:
    """Take regressors and the mean out of a series and z-score what is left, in place and some vertices at a time.

    Parameters
    ----------
    series : (T, V) float32
        Finite.
    regressors : (T, q) float64
        Without a constant; q may be 0.
    threads : int
        Threads over chunks of vertices.

    Returns
    -------
    (V,) bool
        False where nothing is left that varies.
    """
    usable = np.zeros(series.shape[1], dtype=np.bool_)
    confounds = regressors if regressors.size else None

    def work(part: slice) -> None:
        block = centred(series, part)
        cleaned = signal.clean(block[:-1], confounds=confounds, detrend=False, standardize="zscore_sample", ensure_finite=False)
        # What was taken out is orthogonal to what is left, so that this is the standard deviation of the latter.
        deviation = np.einsum("tv,tv->v", block[:-1], cleaned) / (len(series) - 1)
        usable[part] = deviation > WEAKEST * np.abs(block[-1])
        series[:, part] = cleaned

    in_chunks(work, len(series), series.shape[1], threads)
    return usable
