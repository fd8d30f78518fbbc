"""What the runs of a participant decide about the estimation of every unit: its response, nuisance components, ridge.

A *unit* is a vertex or voxel. *Choices* (`Tuning`) are made from all runs together and never from texts; the betas of a run
then follow from its own series and the choices, so runs are estimated one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.hrf import library
from bids_brainlm.core.types import Bools, Floats

Doubles = NDArray[np.float64]

STEPS = ("hrf", "denoise", "ridge")
"""Steps that a tuned estimator may take, in order."""

HRF_CHOICES = ("auto", "both", "cv", "onoff", "insample")
"""How the response of a unit is chosen (`bids_brainlm.core.shapes`); auto is both where stimuli repeat, else onoff."""


@dataclass(frozen=True, eq=False)
class Run:
    """One run as a tuned estimator sees it.

    Parameters
    ----------
    bold : (T, V) float32
        Series as preprocessed, with its mean, in any unit.
    onsets, durations : (n,) float64
        Seconds, on the clock of ``frame_times``.
    frame_times : (T,) float64
        Seconds.
    nuisance : (T, q) float64
        Constant, drifts, confounds, other events.
    stimulus : (n,) str
        What was shown or heard; trials of one stimulus are repeats.
    session : str
    """

    bold: Any
    onsets: Doubles
    durations: Doubles
    frame_times: Doubles
    nuisance: Doubles
    stimulus: NDArray[np.str_]
    session: str = ""


@dataclass(frozen=True, eq=False)
class Options:
    """How choices are made.

    Parameters
    ----------
    library : (H, k) float64 or None
        Responses to a very short event, one a row, sampled every ``step`` seconds from 0; None for the library of
        `bids_brainlm.core.hrf`.
    step : float
        Seconds.
    hrf_choice : str
        One of `HRF_CHOICES`.
    max_components : int
        Largest number of nuisance components.
    threads : int
        Threads over chunks of units.
    """

    library: Doubles | None = None
    step: float = 0.1
    hrf_choice: str = "auto"
    max_components: int = 10
    threads: int = 1

    @property
    def shapes(self) -> Doubles:
        """(H, k) the responses to choose from."""
        return library(self.step) if self.library is None else self.library


@dataclass(frozen=True, eq=False)
class Tuning:
    """Choices, and what they were made from.

    Parameters
    ----------
    steps : tuple of str
        Those of `STEPS` that were taken.
    left_out : dict of str to str
        Step -> why it was not taken.
    hrf : (V,) int16
        Row of the library.
    r2 : (V,) float32
        Share of variance (after nuisance) that one regressor for all trials explains.
    pool : (V,) bool
        Units whose series the components come from, in any session.
    components : tuple of (T, K) float32
        Nuisance components of each run; K is the number chosen, 0 without the step.
    curve : (K_max + 1,) float64
        Agreement of trials with their partners in other runs, by number of components; empty without the step.
    fraction : (V,) float32
        |b| / |b of ordinary least squares|; 1 without the step.
    penalty : (V,) float32
        Ridge penalty with that fraction.
    gain, offset : (V,) float32
        Line that brings ridge betas back to the scale of ordinary least squares.
    model : {"lsa", "lss"}
        One model for all trials of a run, or one for each where all together cannot be told apart.
    hrf_choice : str
        The criterion that shapes were chosen by.
    """

    steps: tuple[str, ...]
    left_out: dict[str, str]
    hrf: NDArray[np.int16]
    r2: Floats
    pool: Bools
    components: tuple[Floats, ...]
    curve: Doubles
    fraction: Floats
    penalty: Floats
    gain: Floats
    offset: Floats
    model: str = "lsa"
    hrf_choice: str = "onoff"
