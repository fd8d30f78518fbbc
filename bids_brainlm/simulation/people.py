"""Simulated participants: what stays the same over their runs, and the files of a run.

The raw dataset holds events alone; series and confounds stand in ``derivatives/fmriprep``, as if they had been preprocessed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.design import nuisance, trial_design
from bids_brainlm.core.glm import lss, percent_signal_change
from bids_brainlm.core.types import Floats
from bids_brainlm.errors import ConfigError
from bids_brainlm.simulation import derivatives
from bids_brainlm.simulation.bold import Noise, Scene, noise_scene, simulate_run
from bids_brainlm.simulation.patches import Anatomy, Sheet, patch_maps, surface, volume

SHEETS = {"fsaverage": surface, "fsaverage5": surface, "T1w": volume}
"""Name of a space -> where responses are."""

HIGH_PASS = 1 / 128
"""Hz; cut-off of the drift model behind the figures of a summary."""


@dataclass(frozen=True, eq=False)
class Person:
    """A participant: what the runs are drawn from, and where they are written.

    Parameters
    ----------
    label : str
        Without ``sub-``.
    out : Path
        Root of the raw dataset.
    task : str
    tr : float, s
    sheet : Sheet
    anatomy : Anatomy
    scene : Scene
    noise : Noise
    """

    label: str
    out: Path
    task: str
    tr: float
    sheet: Sheet
    anatomy: Anatomy
    scene: Scene
    noise: Noise

    @property
    def events(self) -> Path:
        """Folder of the events."""
        return self.out / f"sub-{self.label}" / "func"

    @property
    def truth(self) -> Path:
        """Folder of what only the simulation knows."""
        return self.out / "derivatives" / "simulation" / f"sub-{self.label}" / "func"

    @property
    def start_time(self) -> float:
        """When the first volume was taken, in s: the time that fMRIPrep's slice timing correction refers to."""
        return self.tr / 2

    def stem(self, index: int) -> str:
        """Name of a run, counted from 0."""
        return f"sub-{self.label}_task-{self.task}_run-{index + 1:02d}"

    def record(
        self,
        index: int,
        amplitudes: Floats,
        onsets: NDArray[np.float64],
        durations: NDArray[np.float64],
        n_volumes: int,
        rng: np.random.Generator,
    ) -> tuple[Floats, NDArray[np.float64]]:
        """Simulate a run and write its series and confounds; see `bids_brainlm.simulation.bold.simulate_run`.

        Returns
        -------
        bold : (T, V) float32
        motion : (T, 6) float64, mm and rad
        """
        bold, motion = simulate_run(
            amplitudes, onsets, durations, n_volumes, self.tr, self.scene, self.noise, rng, start_time=self.start_time
        )
        folder, stem = self.out / "derivatives" / "fmriprep" / f"sub-{self.label}" / "func", self.stem(index)
        derivatives.write_bold(stem, folder, bold, self.sheet, self.tr, self.start_time)
        derivatives.write_confounds(folder / f"{stem}_desc-confounds_timeseries.tsv", motion, self.tr)
        return bold, motion

    def write_maps(self) -> None:
        """Write where each word lives."""
        maps = {"/".join(word): weights for word, weights in self.anatomy.maps.items()}
        derivatives.write_maps(f"sub-{self.label}", self.truth, maps, self.sheet)


def single_trials(
    person: Person, onsets: NDArray[np.float64], durations: NDArray[np.float64], bold: Floats, motion: NDArray[np.float64]
) -> Floats:
    """(n, V) LSS betas of one run in percent, 0 where nothing is driven, with the mean over the run removed."""
    times = person.start_time + person.tr * np.arange(len(bold), dtype=np.float64)
    betas, driven = np.zeros((len(onsets), bold.shape[1]), np.float32), person.anatomy.driven
    design = trial_design(onsets, durations, times), nuisance(times, HIGH_PASS, motion)
    betas[:, driven] = lss(percent_signal_change(bold[:, driven]), *design)
    betas -= betas.mean(axis=0)
    return betas


def draw_person(
    out: Path,
    number: int,
    task: str,
    tr: float,
    sheet: Sheet,
    factors: Mapping[str, Collection[str]],
    hrf_variability: float,
    seed: int,
    rng: np.random.Generator,
) -> Person:
    """Draw participant ``number`` (from 0): the places of the words follow the seed, noise and HRF the generator."""
    anatomy, noise = patch_maps(sheet, factors, seed, number), Noise()
    scene = noise_scene(sheet.coordinates, sheet.hemisphere, noise, hrf_variability, rng)
    return Person(f"{number + 1:02d}", out, task, tr, sheet, anatomy, scene, noise)


def sheet_of(space: str) -> Sheet:
    """Where responses are.

    Raises
    ------
    ConfigError
        For another space than those of `SHEETS`.
    """
    if space not in SHEETS:
        raise ConfigError(f"space is {space!r}; expected one of {', '.join(SHEETS)}")
    return SHEETS[space]()


def labels(n: int) -> tuple[str, ...]:
    """Labels of n participants, without ``sub-``."""
    return tuple(f"{number + 1:02d}" for number in range(n))
