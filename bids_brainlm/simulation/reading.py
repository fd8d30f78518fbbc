"""People read sentences, one a trial, that make up passages.

``simulate`` writes the folders that `bids_brainlm.simulation.dataset` names, with these differences:

- ``stimuli/sentences.tsv`` holds the sentences; events name the sentence (``stim_id``), its passage and the part of the split
  that the passage belongs to. Sentences of a passage are never shared between parts;
- ``derivatives/simulation/sentences.tsv`` says what every sentence means;
- ``corpus.tsv`` holds other passages, none of which opens like one of the validation or test set.

The response to a sentence is the sum of the maps of its words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm import __version__
from bids_brainlm.core.reliability import split_half
from bids_brainlm.errors import ConfigError
from bids_brainlm.io.files import write_json, write_tsv
from bids_brainlm.simulation import derivatives
from bids_brainlm.simulation.bold import AMPLITUDE, Noise
from bids_brainlm.simulation.passages import FACTORS, Word, parts_of, tell
from bids_brainlm.simulation.patches import Sheet
from bids_brainlm.simulation.people import draw_person, labels, sheet_of, single_trials
from bids_brainlm.simulation.trials import Run, schedule

TASK = "reading"

LENGTH = 4
"""Sentences of a passage."""

FEWEST, MOST = 5, 600
"""Passages without which there is nothing to hold out, and with which their openings still differ."""

SHOWN, SPACING = 3.0, 6.0
"""Seconds that a sentence is shown, and mean time between two onsets."""

N_PASSAGES = 1500
"""Passages of the corpus."""

EVENTS = {
    "stim_id": {"Description": "Sentence shown: a row of stimuli/sentences.tsv."},
    "passage": {"Description": "Passage that the sentence belongs to."},
    "split": {
        "Description": "Part of the split the passage belongs to.",
        "Levels": dict.fromkeys(("train", "validation", "test"), ""),
    },
}

README = """# Simulated reading

Made by `brainlm simulate --paradigm reading` of bids_brainlm. People read sentences of short passages; `stimuli/` holds them.
Nothing was measured. There are no raw images: `derivatives/fmriprep` holds the BOLD series that preprocessing would have given,
`derivatives/simulation` the truth.
"""


@dataclass(frozen=True)
class Settings:
    """What a dataset is made from; see `simulate`."""

    participants: int
    runs: int
    trials: int
    repeats: int
    surprise: float
    tr: float
    snr: float
    hrf_variability: float
    seed: int
    space: str


@dataclass(frozen=True)
class Sentence:
    """What is shown in a trial.

    Parameters
    ----------
    id, passage : str
    opening : tuple of str
        Of the passage.
    words : tuple of Word
    split : {"train", "validation", "test"}
    """

    id: str
    passage: str
    opening: tuple[str, ...]
    words: tuple[Word, ...]
    split: str

    @property
    def text(self) -> str:
        return spelt(self.words)

    @property
    def meanings(self) -> list[tuple[str, str]]:
        """(factor, value) of the words that have a meaning."""
        return [word.meaning for word in self.words if word.meaning]


@dataclass(frozen=True)
class Summary:
    """What was written, and how good the responses are.

    Parameters
    ----------
    folder : Path
    participants : tuple of str
        Labels.
    n_trials, n_sentences, n_passages : int
        Trials of each participant; sentences, and the passages that they make up.
    n_driven : tuple of int
        Vertices or voxels that respond to some word, for each participant.
    reliability : tuple of float
        Mean split-half reliability of LSS betas over the driven vertices; NaN without repeats.
    """

    folder: Path
    participants: tuple[str, ...]
    n_trials: int
    n_sentences: int
    n_passages: int
    n_driven: tuple[int, ...]
    reliability: tuple[float, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.folder}: {len(self.participants)} participant(s), {self.n_trials} trials each of {self.n_sentences} sentences"
            f" in {self.n_passages} passages"
        ]
        lines += [
            f"sub-{label}: {driven} driven vertices, split-half reliability {reliability:.2f}"
            for label, driven, reliability in zip(self.participants, self.n_driven, self.reliability, strict=True)
        ]
        return "\n".join(lines)


def simulate(
    out: Path,
    *,
    participants: int = 2,
    runs: int = 10,
    trials: int = 80,
    repeats: int = 2,
    surprise: float = 0.2,
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
        Participants; runs of each; trials of each run; times that each sentence is shown.
    surprise : float
        Probability that a word which could be expected is another one.
    tr : float, s
    snr : float
        Responses relative to the default; 0 leaves noise alone.
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
    settings = Settings(participants, runs, trials, repeats, surprise, tr, snr, hrf_variability, seed, space)
    world, sheet = sentences(settings), sheet_of(space)
    with derivatives.staged(Path(out)) as staging:
        _write_raw(staging, settings, world)
        derivatives.write_atlas(staging, sheet)
        outcomes = [_participant(staging, number, settings, world, sheet) for number in range(participants)]
    counts = (repeats * len(world), len(world), len(world) // LENGTH)
    return Summary(Path(out), labels(participants), *counts, *zip(*outcomes, strict=True))


def sentences(settings: Settings) -> list[Sentence]:
    """All sentences, passage by passage; a fifth of the passages is for test, a tenth for validation.

    Raises
    ------
    ConfigError
        For settings that make no experiment.
    """
    s = settings
    if min(s.participants, s.runs, s.trials, s.repeats) < 1 or s.tr <= 0 or s.snr < 0 or not 0 <= s.surprise <= 1:
        raise ConfigError(
            "participants, runs, trials and repeats must be at least 1, tr above 0, snr at least 0, surprise 0 to 1"
        )
    n = s.runs * s.trials // (s.repeats * LENGTH)
    if not FEWEST <= n <= MOST:
        total = f"{s.runs} runs of {s.trials} trials with {s.repeats} repeats"
        raise ConfigError(f"{total} make {n} passages of {LENGTH} sentences; expected {FEWEST} to {MOST}")
    parts = parts_of(n, np.random.default_rng([s.seed, 21]))
    rng = np.random.default_rng([s.seed, 22])
    out, taken = list[Sentence](), set[tuple[str, ...]]()
    for i, part in enumerate(parts):
        passage = tell(LENGTH, rng, s.surprise, taken)
        taken.add(passage.opening)
        name = f"passage{i + 1:03d}"
        out += [Sentence(f"{name}-{k + 1}", name, passage.opening, said, part) for k, said in enumerate(passage.sentences)]
    return out


def spelt(words: Sequence[Word]) -> str:
    """A sentence as it is written.

    >>> spelt([Word("it"), Word("fell")])
    'It fell.'
    """
    return " ".join(word.text for word in words).capitalize() + "."


def corpus(settings: Settings, world: Sequence[Sentence]) -> list[str]:
    """Texts for a language model that has read no passage with the opening of one of the validation or test set."""
    held_out = {sentence.opening for sentence in world if sentence.split != "train"}
    rng = np.random.default_rng([settings.seed, 23])
    other = (tell(LENGTH, rng, settings.surprise, held_out) for _ in range(N_PASSAGES))
    return [" ".join(map(spelt, passage.sentences)) for passage in other]


def _participant(out: Path, number: int, settings: Settings, world: Sequence[Sentence], sheet: Sheet) -> tuple[int, float]:
    """Simulate and write everything of one participant; return the driven vertices, and the reliability of responses."""
    rng = np.random.default_rng([settings.seed, 24, number])
    runs = schedule(len(world), settings.repeats, settings.runs, settings.tr, rng, spacing=SPACING, duration=SHOWN)
    person = draw_person(out, number, TASK, settings.tr, sheet, FACTORS, settings.hrf_variability, settings.seed, rng)
    person.write_maps()
    gain, betas = settings.snr * sheet.gain * AMPLITUDE, []
    responses = person.anatomy.responses([sentence.meanings for sentence in world], gain)
    for index, run in enumerate(runs):
        bold, motion = person.record(index, responses[run.stimulus], run.onset, run.duration, run.n_volumes, rng)
        _write_events(person.events / f"{person.stem(index)}_events.tsv", run, world)
        betas.append(single_trials(person, run.onset, run.duration, bold, motion)[:, person.anatomy.driven])
    shown = np.array([world[i].id for run in runs for i in run.stimulus])
    return int(person.anatomy.driven.sum()), float(split_half(np.concatenate(betas), shown).mean())


def _write_raw(out: Path, settings: Settings, world: Sequence[Sentence]) -> None:
    truth = "Meanings of the sentences, patch maps, texts for a language model."
    about = dataclasses.asdict(settings) | {"noise": dataclasses.asdict(Noise()), "amplitude": AMPLITUDE}
    derivatives.write_roots(out, "Simulated reading", __version__, README, truth, about)
    write_json(out / f"task-{TASK}_events.json", EVENTS)
    names = [sentence.id for sentence in world]
    columns = {"passage": [sentence.passage for sentence in world], "split": [sentence.split for sentence in world]}
    texts = [sentence.text for sentence in world]
    write_tsv(out / "stimuli" / "sentences.tsv", {"stim_id": names, "sentence": texts, **columns})
    folder = out / "derivatives" / "simulation"
    meanings = [" ".join(map("/".join, sentence.meanings)) for sentence in world]
    write_tsv(folder / "sentences.tsv", {"stimulus_id": names, "meaning": meanings, **columns})
    write_tsv(folder / "corpus.tsv", {"text": corpus(settings, world)})


def _write_events(path: Path, run: Run, world: Sequence[Sentence]) -> None:
    shown = [world[i] for i in run.stimulus]
    columns = {
        "onset": run.onset.tolist(),
        "duration": run.duration.tolist(),
        "trial_type": ["sentence"] * len(shown),
        "stim_id": [sentence.id for sentence in shown],
        "passage": [sentence.passage for sentence in shown],
        "split": [sentence.split for sentence in shown],
    }
    write_tsv(path, columns)
