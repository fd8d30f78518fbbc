"""Regressors of one run: one for each trial, cosine drifts, and what else is taken out of the data.

*Frame times* are the seconds at which the volumes of a run count as taken (slice-timing correction included); onsets are
seconds on the same clock. *Microtime* is a grid about 50 times finer than the volumes, on which events are boxcars that are
convolved with the haemodynamic response before being read off at the frame times.

Volumes may be unevenly spaced (sparse acquisition): microtime, responses and drifts follow the clock, not the volume count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.hrf import kernel

Doubles = NDArray[np.float64]

OVERSAMPLING = 50
COARSEST = 0.06
"""Largest step of microtime in seconds: with a longer repetition time, a volume is divided into more than `OVERSAMPLING`."""

UNEVEN_STEP = 0.02
"""Step of microtime in seconds where volumes are unevenly spaced."""

EVEN = 1e-4
"""Share of the repetition time by which intervals between volumes may differ and count as equal."""

LEAD = 24.0
"""Seconds before the first volume at which microtime starts: earlier trials leave no trace that could be fitted."""

WEAKEST = 1e-3
"""Share of its full response that a trial must reach within the run."""

RANK_TOLERANCE = 1e-6
"""Share of its length that a nuisance column must add to the columns before it."""


def trial_design(onsets: Any, durations: Any, frame_times: Any, hrf: Any = "glover", *, step: float = 0.1) -> Doubles:
    """Each trial's own regressor.

    The convolution of a boxcar is the difference of two shifted step responses (running sums of the kernel), so every value
    is looked up, and none of the ``n`` convolutions is carried out.

    Parameters
    ----------
    onsets, durations : (n,)
        Seconds; a duration of 0 is an event of one microtime step.
    frame_times : (T,)
        Seconds, increasing; unevenly spaced ones (sparse acquisition) are taken as they are.
    hrf : str or (k,)
        One of `bids_brainlm.core.hrf.HRFS`, or a response of one's own to a very short event, sampled from 0; its area is
        scaled to 1, as theirs is.
    step : float
        Seconds between two samples of one's own response.

    Returns
    -------
    (T, n) float64
        With evenly spaced volumes and a repetition time up to 3 s, equal to nilearn's ``compute_regressor``.

    Raises
    ------
    ValueError
        Naming (by index) trials that are not finite, have a negative duration, or leave no response within the run; when
        a response is not finite or has no positive area.
    """
    if isinstance(hrf, str):
        return np.asarray(_designs(onsets, durations, frame_times, lambda fine: kernel(hrf, fine)[None])[0])
    return np.asarray(trial_designs(onsets, durations, frame_times, np.asarray(hrf)[None], step)[0])


def trial_designs(onsets: Any, durations: Any, frame_times: Any, kernels: Any, step: float = 0.1) -> Doubles:
    """Each trial's regressor under each of many responses; see `trial_design`.

    Parameters
    ----------
    onsets, durations : (n,)
        Seconds.
    frame_times : (T,)
        Seconds, increasing.
    kernels : (H, k)
        Responses to a very short event, one a row, sampled from 0.
    step : float
        Seconds between two samples of ``kernels``.

    Returns
    -------
    (H, T, n) float64
        0 where a trial leaves no response within the run under a kernel (a late one).

    Raises
    ------
    ValueError
        As `trial_design`, where a trial must leave a response within the run under one kernel at least.
    """
    kernels = np.asarray(kernels, dtype=np.float64)
    if kernels.ndim != 2 or kernels.shape[1] < 2 or not step > 0:
        raise ValueError(f"responses of shape {kernels.shape} every {step:g} s; expected (H, k), k at least 2, a step above 0")
    refuse(~np.isfinite(kernels).all(axis=1), "value(s) that are not finite", "response")
    refuse(kernels.sum(axis=1) <= WEAKEST * np.abs(kernels).sum(axis=1), "the area is not positive", "response")
    return _designs(onsets, durations, frame_times, lambda fine: _resampled(kernels, step, fine))


def _designs(onsets: Any, durations: Any, frame_times: Any, responses: Callable[[float], Doubles]) -> Doubles:
    """(H, T, n) designs; ``responses`` samples the H kernels (H, m) at a microtime step in seconds."""
    onsets, durations = np.asarray(onsets, dtype=np.float64), np.asarray(durations, dtype=np.float64)
    frames = _checked_frames(frame_times)
    if onsets.ndim != 1 or onsets.shape != durations.shape:
        raise ValueError(f"onsets {onsets.shape} and durations {durations.shape}; expected (n,) both")
    refuse(~np.isfinite(onsets) | ~np.isfinite(durations), "onset or duration is not a number")
    refuse(durations < 0, "duration is negative")
    refuse(onsets < frames[0] - LEAD, f"onset is more than {LEAD:g} s before the first volume (at {frames[0]:g} s)")
    grid, fine = _microtime(frames)
    kernels = responses(fine)
    start, stop = _boxcars(grid, onsets, onsets + durations)
    steps = np.concatenate([np.zeros((len(kernels), 1)), np.cumsum(kernels, axis=1)], axis=1)
    designs = _convolved_at(frames, grid, start, stop, steps)
    full = np.minimum((stop - start) * kernels.max(axis=1)[:, None], steps.max(axis=1)[:, None])
    late = np.abs(designs).max(axis=1, initial=0.0) <= WEAKEST * full
    refuse(late.all(axis=0), f"response lies outside the run (volumes from {frames[0]:g} to {frames[-1]:g} s)")
    return np.where(late[:, None], 0.0, designs)


def _resampled(kernels: Doubles, step: float, fine: float) -> Doubles:
    """(H, m) kernels (H, k) every ``fine`` seconds, one sample late and of sum 1, as `bids_brainlm.core.hrf.kernel` has them."""
    times = step * np.arange(kernels.shape[1])
    wanted = np.linspace(0.0, times[-1], max(2, round(times[-1] / fine))) - fine
    sampled = np.array([np.interp(wanted, times, row, left=0.0, right=0.0) for row in kernels]).reshape(-1, wanted.size)
    return np.asarray(sampled / sampled.sum(axis=1, keepdims=True))


def cosine_drift(frame_times: Any, high_pass: float) -> Doubles:
    """Slow cosines (discrete cosine transform, type II) up to a cut-off, without the constant.

    Parameters
    ----------
    frame_times : (T,)
        Seconds, increasing.
    high_pass : float
        Cut-off in Hz; 0 for none.

    Returns
    -------
    (T, q) float64
        Slowest first. With evenly spaced volumes orthonormal and equal to nilearn's ``create_cosine_drift`` without its
        constant; with others the same cosines of time, read off where the volumes are.
    """
    frames = _checked_frames(frame_times)
    n = frames.size
    interval = (frames[-1] - frames[0]) / (n - 1)
    order = min(n - 1, int(np.floor(2 * n * high_pass * interval)))
    volume = (frames - frames[0]) / interval
    return np.asarray(np.sqrt(2.0 / n) * np.cos(np.pi / n * (volume + 0.5)[:, None] * np.arange(1, order + 1)))


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
    refuse(_explained(others[:, :1], others[:, 1:]), "cannot be told apart with volumes so far apart", "drift")
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
    if frames.ndim != 1 or frames.size < 2 or not np.isfinite(frames).all() or not (np.diff(frames) > 0).all():
        raise ValueError(f"frame times of shape {frames.shape}; expected at least two that increase")
    return frames


def _microtime(frames: Doubles) -> tuple[Doubles, float]:
    """(m,) seconds from `LEAD` before the first volume to one volume past the last, and the step that kernels are sampled at.

    With evenly spaced volumes these are nilearn's very points. With others nilearn's grid takes its step from the mean
    interval and its kernel from the smallest, which stretches responses; here both have the same step.
    """
    n, gaps = frames.size, np.diff(frames)
    if np.ptp(gaps) > EVEN * gaps.min():
        return np.arange(frames[0] - LEAD, frames[-1] + 2 * UNEVEN_STEP, UNEVEN_STEP), UNEVEN_STEP
    oversampling = max(OVERSAMPLING, int(np.ceil(np.round(gaps.min() / COARSEST, 6))))
    start, stop = frames[0] - LEAD, frames[-1] * (1 + 1.0 / (n - 1))
    density = (n - 1) * 1.0 / (frames[-1] - frames[0]) * oversampling
    return np.linspace(start, stop, int(np.rint((stop - start) * density + 1))), float(gaps.min()) / oversampling


def _boxcars(grid: Doubles, onsets: Doubles, offsets: Doubles) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(n,) first microtime index of each trial and the one after its last; at least one step unless past the end."""
    last = grid.size - 1
    start = np.minimum(np.searchsorted(grid, onsets), last)
    stop = np.minimum(np.searchsorted(grid, offsets), last)
    return start, np.where((stop == start) & (stop < last), stop + 1, stop)


def _convolved_at(frames: Doubles, grid: Doubles, start: NDArray[np.intp], stop: NDArray[np.intp], steps: Doubles) -> Doubles:
    """(H, T, n) convolved boxcars from step responses (H, k + 1), interpolated between the two microtime points of a frame."""
    after = np.clip(np.searchsorted(grid, frames), 1, grid.size - 1)
    weight = (frames - grid[after - 1]) / (grid[after] - grid[after - 1])
    last = steps.shape[1] - 1
    # A trial shows in few volumes: from its onset to the end of the response to its offset.
    frame, trial = np.nonzero((after[:, None] >= start) & (after[:, None] - 1 - stop < last))

    def convolved(at: NDArray[np.intp]) -> Doubles:
        rise = steps[:, np.clip(at[frame] - start[trial] + 1, 0, last)]
        return np.asarray(rise - steps[:, np.clip(at[frame] - stop[trial] + 1, 0, last)])

    designs = np.zeros((len(steps), frames.size, start.size))
    designs[:, frame, trial] = (1 - weight[frame]) * convolved(after - 1) + weight[frame] * convolved(after)
    return designs


def _explained(others: Doubles, columns: Doubles) -> NDArray[np.bool_]:
    """(c,) bool: columns that ``others`` and the columns before them span already (or that there is no room left for)."""
    stacked = np.column_stack([others, columns])
    lengths = np.linalg.norm(stacked, axis=0)
    triangle = np.linalg.qr(stacked / np.where(lengths > 0, lengths, 1.0), mode="r")
    own = np.zeros(stacked.shape[1])
    diagonal = np.abs(np.diag(triangle))
    own[: diagonal.size] = diagonal
    return np.asarray(own[others.shape[1] :] <= RANK_TOLERANCE)
