"""When each stimulus is shown.

All runs have the same length. The repeats of a stimulus fall into different runs as long as there are enough runs; within
a run the order is random and the time between onsets varies by a second either way, off the grid of the volumes, so that
responses that overlap can still be told apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAD = 6.0
"""Seconds before the first trial."""

TAIL = 16.0
"""Seconds after the last onset, for its response to pass."""


@dataclass(frozen=True, eq=False)
class Run:
    """The trials of one run.

    Parameters
    ----------
    stimulus : (n,) int
        Index of what is shown.
    onset, duration : (n,) float64, s
    n_volumes : int
    """

    stimulus: NDArray[np.int64]
    onset: NDArray[np.float64]
    duration: NDArray[np.float64]
    n_volumes: int


def schedule(
    n_stimuli: int, repeats: int, runs: int, tr: float, rng: np.random.Generator, *, spacing: float = 5.0, duration: float = 2.0
) -> list[Run]:
    """Draw the runs of a participant.

    Parameters
    ----------
    n_stimuli, repeats, runs : int
    tr : float, s
    rng : numpy.random.Generator
    spacing, duration : float, s
        Mean time between onsets, and how long a stimulus is shown.

    Raises
    ------
    ValueError
        When a run would hold no trial.
    """
    if n_stimuli * repeats < runs:
        raise ValueError(f"{n_stimuli} stimuli shown {repeats} time(s) do not fill {runs} runs")
    first, step = rng.permutation(n_stimuli) % runs, max(1, runs // repeats)
    of_run = (first + step * np.arange(repeats)[:, None]) % runs
    shown = [rng.permutation(np.concatenate([np.flatnonzero(row == run) for row in of_run])) for run in range(runs)]
    onsets = [LEAD + np.cumsum(spacing + rng.choice((-1.0, 0.0, 1.0), len(items))) - spacing for items in shown]
    n_volumes = int(np.ceil((max(times[-1] for times in onsets) + TAIL) / tr))
    return [Run(items, times, np.full(len(items), duration), n_volumes) for items, times in zip(shown, onsets, strict=True)]
