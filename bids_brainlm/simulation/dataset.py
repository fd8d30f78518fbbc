"""A BIDS dataset with fMRIPrep-style derivatives whose truth is known: what could this design decode?

``simulate`` writes into one folder:

- the raw dataset: events (with the stimulus and its part of the split), participants, ``stimuli/captions.tsv`` and
  ``stimuli/questions.tsv``. It has no raw images: the simulation begins where fMRIPrep ends;
- ``derivatives/fmriprep``: BOLD series, sidecars, confounds;
- ``derivatives/simulation``: the truth (facts of the stimuli, true betas, patch maps, settings), ``corpus.tsv``, texts
  for a language model in which no combination of facts of the validation and test sets is ever told, and for a volume
  ``atlas``, a partition of its voxels.

The folder appears under its name only when it is complete.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_brainlm import __version__
from bids_brainlm.core.reliability import split_half
from bids_brainlm.core.types import Floats
from bids_brainlm.errors import ConfigError
from bids_brainlm.io.files import write_json, write_tsv
from bids_brainlm.simulation import derivatives, observer
from bids_brainlm.simulation.bold import AMPLITUDE, Noise
from bids_brainlm.simulation.patches import Sheet
from bids_brainlm.simulation.people import Person, draw_person, labels, sheet_of, single_trials
from bids_brainlm.simulation.trials import Run, schedule
from bids_brainlm.simulation.world import FACTORS, Stimulus, combination, corpus, forms, stimuli

TASK = "pictures"

N_TEXTS = 4000
"""Texts of the corpus."""

EVENTS = {
    "stim_id": {"Description": "Stimulus shown: a row of stimuli/captions.tsv and of stimuli/questions.tsv."},
    "split": {
        "Description": "Part of the split the stimulus belongs to.",
        "Levels": dict.fromkeys(("train", "validation", "test"), ""),
    },
}
"""What the columns of events.tsv mean beyond BIDS."""

README = """# Simulated pictures

Made by `brainlm simulate` of bids_brainlm. People look at pictures that show a subject with an attribute, doing something in a
place; `stimuli/` tells each picture in words. Nothing was measured. There are no raw images: `derivatives/fmriprep` holds the
BOLD series that preprocessing would have given, `derivatives/simulation` the truth.
"""


@dataclass(frozen=True)
class Settings:
    """What a dataset is made from; see `simulate`."""

    participants: int
    runs: int
    trials: int
    repeats: int
    tr: float
    snr: float
    hrf_variability: float
    seed: int
    space: str


@dataclass(frozen=True)
class Summary:
    """What was written, and how good the responses are.

    Parameters
    ----------
    folder : Path
    participants : tuple of str
        Labels.
    n_trials : int
        Trials of each participant.
    n_stimuli, n_test : int
        Stimuli, and those of them in the test set.
    n_volumes : int
        Volumes of each run.
    n_driven : tuple of int
        Vertices or voxels that respond to some word, for each participant.
    reliability : tuple of float
        Mean split-half reliability of LSS betas over the driven vertices, for each participant; NaN without repeats.
    observer : tuple of float
        Share of facts that an observer who knows the true patch maps names rightly in single trials of the test set.
    """

    folder: Path
    participants: tuple[str, ...]
    n_trials: int
    n_stimuli: int
    n_test: int
    n_volumes: int
    n_driven: tuple[int, ...]
    reliability: tuple[float, ...]
    observer: tuple[float, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.folder}: {len(self.participants)} participant(s), {self.n_trials} trials each of {self.n_stimuli} stimuli"
            f" ({self.n_test} for test), {self.n_volumes} volumes a run"
        ]
        lines += [
            f"sub-{label}: {driven} driven vertices, split-half reliability {reliability:.2f}, observer that knows the patches"
            f" {right:.2f} of test facts"
            for label, driven, reliability, right in zip(
                self.participants, self.n_driven, self.reliability, self.observer, strict=True
            )
        ]
        return "\n".join(lines)


def simulate(
    out: Path,
    *,
    participants: int = 2,
    runs: int = 10,
    trials: int = 80,
    repeats: int = 3,
    tr: float = 2.0,
    snr: float = 1.0,
    hrf_variability: float = 0.1,
    seed: int = 0,
    space: str = "fsaverage",
) -> Summary:
    """Write a dataset.

    Parameters
    ----------
    out : Path
        Folder of the raw dataset; must not exist, or be empty.
    participants, runs, trials, repeats : int
        Participants; runs of each; trials of each run; times that each stimulus is shown.
    tr : float, s
    snr : float
        Responses relative to the default, with which the split-half reliability is about .2; 0 leaves noise alone.
    hrf_variability : float
        Standard deviation over cortex of the stretch of the HRF in time.
    seed : int
    space : {"fsaverage", "fsaverage5", "T1w"}
        fsaverage5 surfaces, or a small volume.

    Raises
    ------
    ConfigError
        For settings that make no experiment.
    InputError
        When the folder is not empty.
    """
    settings = Settings(participants, runs, trials, repeats, float(tr), float(snr), float(hrf_variability), seed, space)
    world, sheet = _world(settings), sheet_of(space)
    with derivatives.staged(Path(out)) as staging:
        _write_raw(staging, settings, world)
        derivatives.write_atlas(staging, sheet)
        outcomes = [_participant(staging, number, settings, world, sheet) for number in range(participants)]
    n_test = sum(stimulus.split == "test" for stimulus in world)
    n_volumes = outcomes[0].n_volumes
    columns = zip(*((o.n_driven, o.reliability, o.observer) for o in outcomes), strict=True)
    return Summary(Path(out), labels(participants), repeats * len(world), len(world), n_test, n_volumes, *columns)


def _world(settings: Settings) -> list[Stimulus]:
    if min(settings.participants, settings.runs, settings.trials, settings.repeats) < 1 or settings.tr <= 0 or settings.snr < 0:
        raise ConfigError("participants, runs, trials and repeats must be at least 1, tr above 0, snr at least 0")
    try:
        return stimuli(settings.runs * settings.trials // settings.repeats, settings.seed)
    except ValueError as error:
        total = f"{settings.runs} runs of {settings.trials} trials with {settings.repeats} repeats"
        raise ConfigError(f"{total} make {error}") from error


@dataclass(frozen=True)
class _Outcome:
    n_driven: int
    n_volumes: int
    reliability: float
    observer: float


def _participant(out: Path, number: int, settings: Settings, world: Sequence[Stimulus], sheet: Sheet) -> _Outcome:
    """Simulate and write everything of one participant."""
    rng = np.random.default_rng([settings.seed, 5, number])
    runs = schedule(len(world), settings.repeats, settings.runs, settings.tr, rng)
    person = draw_person(out, number, TASK, settings.tr, sheet, FACTORS, settings.hrf_variability, settings.seed, rng)
    anatomy, driven = person.anatomy, np.flatnonzero(person.anatomy.driven)
    responses = anatomy.responses([stimulus.facts.items() for stimulus in world], settings.snr * sheet.gain * AMPLITUDE)
    betas = np.concatenate([_run(person, i, run, world, responses, rng)[:, driven] for i, run in enumerate(runs)])
    shown = np.concatenate([run.stimulus for run in runs])
    _write_truth(person, runs, world, responses[shown][:, driven], driven)
    maps = {word: weights[driven] for word, weights in anatomy.maps.items()}
    return _Outcome(len(driven), runs[0].n_volumes, *_quality(betas, maps, world, shown))


def _run(person: Person, index: int, run: Run, world: Sequence[Stimulus], responses: Floats, rng: np.random.Generator) -> Floats:
    """Simulate and write one run; return its LSS betas."""
    bold, motion = person.record(index, responses[run.stimulus], run.onset, run.duration, run.n_volumes, rng)
    _write_events(person.events / f"{person.stem(index)}_events.tsv", run, world)
    return single_trials(person, run.onset, run.duration, bold, motion)


def _quality(
    betas: Floats, maps: Mapping[tuple[str, str], Floats], world: Sequence[Stimulus], shown: NDArray[np.int64]
) -> tuple[float, float]:
    """Split-half reliability and the observer's share of test facts, from betas (n, D) and maps (D,) of the driven vertices."""
    names = np.array([stimulus.id for stimulus in world])
    test = np.array([stimulus.split == "test" for stimulus in world])[shown]
    facts = {factor: {stimulus.id: stimulus.facts[factor] for stimulus in world} for factor in FACTORS}
    named = observer.observe(betas, maps, ~test)
    right = observer.facts_right(named, facts, names[shown])
    reliability = split_half(betas, names[shown])
    share = np.mean([hits[test] for hits in right.values()]) if test.any() else np.nan
    return float(reliability.mean()), float(share)


def _write_raw(out: Path, settings: Settings, world: Sequence[Stimulus]) -> None:
    truth = "Facts of the stimuli, true betas (percent), patch maps, texts for a language model."
    about = dataclasses.asdict(settings) | {"noise": dataclasses.asdict(Noise()), "amplitude": AMPLITUDE}
    derivatives.write_roots(out, "Simulated pictures", __version__, README, truth, about)
    write_json(out / f"task-{TASK}_events.json", EVENTS)
    pairs = [(stimulus.id, text) for stimulus in world for text in stimulus.captions]
    write_tsv(out / "stimuli" / "captions.tsv", _columns(("stim_id", "caption"), pairs))
    # The phrasings of a question are one task, and ask for one factor.
    asked = [(stimulus.id, factor, *texts, factor) for stimulus in world for *texts, factor in stimulus.questions]
    write_tsv(out / "stimuli" / "questions.tsv", _columns(("stim_id", "task", "question", "answer", "category"), asked))
    folder = out / "derivatives" / "simulation"
    _write_facts(folder / "stimuli.tsv", world)
    held_out = {combination(stimulus) for stimulus in world if stimulus.split != "train"}
    write_tsv(folder / "corpus.tsv", {"text": corpus(N_TEXTS, settings.seed, exclude=held_out)})


def _write_facts(path: Path, world: Sequence[Stimulus]) -> None:
    columns = {"stimulus_id": [stimulus.id for stimulus in world], "split": [stimulus.split for stimulus in world]}
    for factor in FACTORS:
        columns[factor] = ["|".join(forms(factor, stimulus.facts[factor])) for stimulus in world]
    write_tsv(path, columns)


def _write_events(path: Path, run: Run, world: Sequence[Stimulus]) -> None:
    shown = [world[i] for i in run.stimulus]
    columns = {
        "onset": run.onset.tolist(),
        "duration": run.duration.tolist(),
        "trial_type": ["picture"] * len(shown),
        "stim_id": [stimulus.id for stimulus in shown],
        "split": [stimulus.split for stimulus in shown],
    }
    write_tsv(path, columns)


def _write_truth(
    person: Person, runs: Sequence[Run], world: Sequence[Stimulus], betas: Floats, driven: NDArray[np.int64]
) -> None:
    person.write_maps()
    run = np.repeat(np.arange(len(runs)), [len(run.onset) for run in runs])
    names = [world[i].id for run in runs for i in run.stimulus]
    path = person.truth / f"sub-{person.label}_task-{TASK}_desc-truth_betas.safetensors"
    derivatives.write_betas(path, betas, driven, run, names)


def _columns(names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> dict[str, list[str]]:
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}
