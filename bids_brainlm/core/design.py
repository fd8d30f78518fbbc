"""Regressors of one run: one for each trial, cosine drifts, and what else is taken out of the data.

*Frame times* are the seconds at which the volumes of a run count as taken (slice-timing correction included); onsets are
seconds on the same clock. *Microtime* is a grid about 50 times finer than the volumes, on which events are boxcars that are
convolved with the haemodynamic response before being read off at the frame times.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.hrf import kernel

Doubles = NDArray[np.float64]

OVERSAMPLING = 50
LEAD = 24.0
"""Seconds before the first volume at which microtime starts: earlier trials leave no trace that could be fitted."""

WEAKEST = 1e-3
"""Share of its full response that a trial must reach within the run."""

RANK_TOLERANCE = 1e-6
"""Share of its length that a nuisance column must add to the columns before it."""


def trial_design(onsets: Any, durations: Any, frame_times: Any, hrf: str = "glover") -> Doubles:
    """Each trial's own regressor.

    The convolution of a boxcar is the difference of two shifted step responses (running sums of the kernel), so every value
    is looked up, and none of the ``n`` convolutions is carried out.

    Parameters
    ----------
    onsets, durations : (n,)
        Seconds; a duration of 0 is an event of one microtime step.
    frame_times : (T,)
        Seconds, increasing.
    hrf : str
        One of `bids_brainlm.core.hrf.HRFS`.

    Returns
    -------
    (T, n) float64
        Equal to nilearn's ``compute_regressor`` with an oversampling of 50.

    Raises
    ------
    ValueError
        Naming (by index) trials that are not finite, have a negative duration, or leave no response within the run.
    """
    onsets, durations = np.asarray(onsets, dtype=np.float64), np.asarray(durations, dtype=np.float64)
    frames = _checked_frames(frame_times)
    if onsets.ndim != 1 or onsets.shape != durations.shape:
        raise ValueError(f"onsets {onsets.shape} and durations {durations.shape}; expected (n,) both")
    refuse(~np.isfinite(onsets) | ~np.isfinite(durations), "onset or duration is not a number")
    refuse(durations < 0, "duration is negative")
    refuse(onsets < frames[0] - LEAD, f"onset is more than {LEAD:g} s before the first volume (at {frames[0]:g} s)")
    grid = _microtime(frames)
    response = kernel(hrf, float(np.diff(frames).min()) / OVERSAMPLING)
    start, stop = _boxcars(grid, onsets, onsets + durations)
    design = _convolved_at(frames, grid, start, stop, response)
    full = np.minimum((stop - start) * response.max(), np.cumsum(response).max())
    late = np.abs(design).max(axis=0, initial=0.0) <= WEAKEST * full
    refuse(late, f"response lies outside the run (volumes from {frames[0]:g} to {frames[-1]:g} s)")
    return design


def cosine_drift(frame_times: Any, high_pass: float) -> Doubles:
    """Slow cosines (discrete cosine transform, type II) up to a cut-off, without the constant.

    Parameters
    ----------
    frame_times : (T,)
        Seconds, evenly spaced.
    high_pass : float
        Cut-off in Hz; 0 for none.

    Returns
    -------
    (T, q) float64
        Orthonormal columns, slowest first; equal to nilearn's ``create_cosine_drift`` without its constant.
    """
    frames = _checked_frames(frame_times)
    n = frames.size
    interval = (frames[-1] - frames[0]) / (n - 1)
    order = min(n - 1, int(np.floor(2 * n * high_pass * interval)))
    angle = np.pi / n * (np.arange(n) + 0.5)
    return np.asarray(np.sqrt(2.0 / n) * np.cos(angle[:, None] * np.arange(1, order + 1)))


def nuisance(frame_times: Any, high_pass: float, confounds: Any) -> Doubles:
    """Everything but the trials: drifts, confounds and the constant, in this order.

    Parameters
    ----------
    frame_times : (T,)
        Seconds.
    high_pass : float
        Cut-off of `cosine_drift` in Hz.
    confounds : (T, c)
        Confound time series in any unit; c may be 0.

    Returns
    -------
    (T, q) float64
        Of full column rank.

    Raises
    ------
    ValueError
        Naming (by index) confounds that are not finite or that the other columns already explain.
    """
    frames = _checked_frames(frame_times)
    confounds = np.asarray(confounds, dtype=np.float64).reshape(frames.size, -1)
    refuse(~np.isfinite(confounds).all(axis=0), "value(s) that are not finite", "confound column")
    others = np.column_stack([np.ones(frames.size), cosine_drift(frames, high_pass)])
    refuse(_explained(others, confounds), "is explained by the constant, the drifts and the columns before it", "confound column")
    return np.column_stack([others[:, 1:], confounds, others[:, 0]])


def name_some(indices: Iterable[int], limit: int = 10) -> str:
    """``3, 5, 8 and 2 more``: indices for a message."""
    items = [str(i) for i in indices]
    return ", ".join(items[:limit]) + (f" and {len(items) - limit} more" if len(items) > limit else "")


def refuse(bad: Any, why: str, what: str = "trial") -> None:
    """Raise ValueError naming the places (by index) where ``bad`` (n,) is true."""
    if bad.any():
        raise ValueError(f"{what}(s) {name_some(np.flatnonzero(bad))}: {why}")


def _checked_frames(frame_times: Any) -> Doubles:
    frames = np.asarray(frame_times, dtype=np.float64)
    if frames.ndim != 1 or frames.size < 2 or not (np.diff(frames) > 0).all():
        raise ValueError(f"frame times of shape {frames.shape}; expected at least two that increase")
    return frames


def _microtime(frames: Doubles) -> Doubles:
    """(m,) seconds: from `LEAD` before the first volume to one volume past the last, at nilearn's very points."""
    n = frames.size
    start, stop = frames[0] - LEAD, frames[-1] * (1 + 1.0 / (n - 1))
    density = (n - 1) * 1.0 / (frames[-1] - frames[0]) * OVERSAMPLING
    return np.linspace(start, stop, int(np.rint((stop - start) * density + 1)))


def _boxcars(grid: Doubles, onsets: Doubles, offsets: Doubles) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(n,) first microtime index of each trial and the one after its last; at least one step unless past the end."""
    last = grid.size - 1
    start = np.minimum(np.searchsorted(grid, onsets), last)
    stop = np.minimum(np.searchsorted(grid, offsets), last)
    return start, np.where((stop == start) & (stop < last), stop + 1, stop)


def _convolved_at(frames: Doubles, grid: Doubles, start: NDArray[np.intp], stop: NDArray[np.intp], response: Doubles) -> Doubles:
    """(T, n) convolved boxcars, interpolated linearly between the two microtime points around each frame."""
    after = np.clip(np.searchsorted(grid, frames), 1, grid.size - 1)
    weight = (frames - grid[after - 1]) / (grid[after] - grid[after - 1])
    steps = np.concatenate([[0.0], np.cumsum(response)])

    def convolved(at: NDArray[np.intp]) -> Doubles:
        rise = steps[np.clip(at[:, None] - start + 1, 0, response.size)]
        return np.asarray(rise - steps[np.clip(at[:, None] - stop + 1, 0, response.size)])

    return np.asarray((1 - weight)[:, None] * convolved(after - 1) + weight[:, None] * convolved(after))


def _explained(others: Doubles, columns: Doubles) -> NDArray[np.bool_]:
    """(c,) bool: columns that ``others`` and the columns before them span already (or that there is no room left for)."""
    stacked = np.column_stack([others, columns])
    lengths = np.linalg.norm(stacked, axis=0)
    triangle = np.linalg.qr(stacked / np.where(lengths > 0, lengths, 1.0), mode="r")
    own = np.zeros(stacked.shape[1])
    diagonal = np.abs(np.diag(triangle))
    own[: diagonal.size] = diagonal
    return np.asarray(own[others.shape[1] :] <= RANK_TOLERANCE)
