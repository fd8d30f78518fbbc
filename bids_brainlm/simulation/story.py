"""People listen to stories: words with times, and a response to every word that means something.

``simulate`` writes the folders that `bids_brainlm.simulation.dataset` names, with these differences:

- ``stimuli/<story>.tsv`` holds the words of a story with their times from its start, beside ``stimuli/<story>.wav``, a sound
  that beeps at every word; events name the sound (``stim_file``) and say when it begins;
- ``derivatives/simulation/words.tsv`` adds what every word means and whether it was a surprise; ``stories.tsv`` says which part
  of the split a story belongs to (what ``--split list`` reads);
- ``corpus.tsv`` holds other stories. No passage of it opens like one of a validation or test story.

A word that means something drives its map from its onset to its end.
"""

from __future__ import annotations

import dataclasses
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_brainlm import __version__
from bids_brainlm.core.design import nuisance
from bids_brainlm.core.glm import percent_signal_change
from bids_brainlm.core.types import Bools, Floats
from bids_brainlm.core.windows import rows_of, window_of
from bids_brainlm.errors import ConfigError
from bids_brainlm.io.files import atomic_write, write_json, write_tsv
from bids_brainlm.simulation import derivatives
from bids_brainlm.simulation.bold import AMPLITUDE, Noise, regressors
from bids_brainlm.simulation.passages import FACTORS, parts_of
from bids_brainlm.simulation.patches import Anatomy, Sheet
from bids_brainlm.simulation.people import HIGH_PASS, Person, draw_person, labels, sheet_of
from bids_brainlm.simulation.speech import Spoken, story

TASK = "stories"

GAIN = 8.0
"""Response to a word relative to `bids_brainlm.simulation.bold.AMPLITUDE`: words are short (one of 0.35 s peaks at 2.4 %)."""

LEAD, GAP, TAIL = 10.0, 14.0, 16.0
"""Seconds before the first story of a run, between two, and after the last."""

N_STORIES = 150
"""Stories of the corpus."""

WINDOW, N_ROWS = 2.0, 4
"""Windows that the observer tells apart, in s, and the volumes it looks at; ``window.seconds`` and ``window.rows``."""

RATE = 1000
"""Samples a second of the sounds."""

EVENTS = {
    "stim_file": {"Description": "Story; its words with their times are in the table of the same name."},
    "split": {
        "Description": "Part of the split the story belongs to.",
        "Levels": dict.fromkeys(("train", "validation", "test"), ""),
    },
}

README = """# Simulated stories

Made by `brainlm simulate --paradigm story` of bids_brainlm. People listen to stories; `stimuli/` holds the words with their
times. Nothing was measured. There are no raw images: `derivatives/fmriprep` holds the BOLD series that preprocessing would have
given, `derivatives/simulation` the truth. The sounds beep where a word is said.
"""


@dataclass(frozen=True)
class Settings:
    """What a dataset is made from; see `simulate`."""

    participants: int
    runs: int
    stories: int
    minutes: float
    surprise: float
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
    n_stories, n_test : int
        Stories, and those of them in the test set.
    n_words : int
    n_volumes : int
        Volumes of each participant.
    n_driven : tuple of int
        Vertices or voxels that respond to some word, for each participant.
    observer : tuple of float
        How often an observer who knows the true patch maps finds the words of a test window likelier in their own response than
        in that to another window of the story.
    """

    folder: Path
    participants: tuple[str, ...]
    n_stories: int
    n_test: int
    n_words: int
    n_volumes: int
    n_driven: tuple[int, ...]
    observer: tuple[float, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.folder}: {len(self.participants)} participant(s), {self.n_stories} stories ({self.n_test} for test) of"
            f" {self.n_words} words in all, {self.n_volumes} volumes a participant"
        ]
        lines += [
            f"sub-{label}: {driven} driven vertices, observer that knows the patches {right:.2f} of test windows"
            for label, driven, right in zip(self.participants, self.n_driven, self.observer, strict=True)
        ]
        return "\n".join(lines)


def simulate(
    out: Path,
    *,
    participants: int = 2,
    runs: int | None = None,
    stories: int = 20,
    minutes: float = 2.5,
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
    participants, stories : int
    runs : int, optional
        Runs over which the stories are spread; one a story when not given.
    minutes : float
        Length of a story.
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
    runs = stories if runs is None else runs
    settings = Settings(participants, runs, stories, minutes, surprise, tr, snr, hrf_variability, seed, space)
    told, parts = _stories(settings)
    sheet = sheet_of(space)
    with derivatives.staged(Path(out)) as staging:
        _write_raw(staging, settings, told, parts)
        derivatives.write_atlas(staging, sheet)
        outcomes = [_participant(staging, number, settings, told, parts, sheet) for number in range(participants)]
    columns = zip(*((o.n_driven, o.observer) for o in outcomes), strict=True)
    counts = (stories, parts.count("test"), sum(len(spoken.words) for spoken in told), outcomes[0].n_volumes)
    return Summary(Path(out), labels(participants), *counts, *columns)


def _stories(settings: Settings) -> tuple[list[Spoken], list[str]]:
    """The stories, and the part of the split of each (`parts_of`)."""
    s = settings
    if min(s.participants, s.runs) < 1 or not s.runs <= s.stories or s.stories < 3 or s.tr <= 0 or s.snr < 0:
        got = f"{s.participants} participant(s), {s.runs} run(s), {s.stories} stories, tr {s.tr:g}, snr {s.snr:g}"
        raise ConfigError(f"{got}; expected at least 1, 1, 3, no more runs than stories, tr above 0 and snr at least 0")
    parts = parts_of(s.stories, np.random.default_rng([s.seed, 11]))
    rng = np.random.default_rng([s.seed, 12])
    try:
        told = [story(f"story{i + 1:02d}", 60 * s.minutes, rng, surprise=s.surprise) for i in range(s.stories)]
    except ValueError as error:
        raise ConfigError(f"stories of {s.minutes:g} minutes with surprises at {s.surprise:g}: {error}") from error
    return told, parts


def corpus(settings: Settings, told: Sequence[Spoken], parts: Sequence[str]) -> list[str]:
    """Texts for a language model that has heard no passage with the opening of a validation or test story."""
    held_out = {
        passage.opening for spoken, part in zip(told, parts, strict=True) if part != "train" for passage in spoken.passages
    }
    rng = np.random.default_rng([settings.seed, 13])
    other = (story("", 60 * settings.minutes, rng, surprise=settings.surprise, barred=held_out) for _ in range(N_STORIES))
    return [" ".join(word.text for word in spoken.words) for spoken in other]


@dataclass(frozen=True)
class _Outcome:
    n_driven: int
    n_volumes: int
    observer: float


def _participant(
    out: Path, number: int, settings: Settings, told: Sequence[Spoken], parts: Sequence[str], sheet: Sheet
) -> _Outcome:
    """Simulate and write everything of one participant; everybody hears the stories in an order of their own."""
    rng = np.random.default_rng([settings.seed, 14, number])
    order = np.array_split(rng.permutation(len(told)), settings.runs)
    person = draw_person(out, number, TASK, settings.tr, sheet, FACTORS, settings.hrf_variability, settings.seed, rng)
    person.write_maps()
    gain, hits, n_volumes = settings.snr * sheet.gain * GAIN * AMPLITUDE, list[Bools](), 0
    for index, chosen in enumerate(order):
        heard = _laid_out([told[i] for i in chosen])
        onsets, durations, amplitudes = _responses(heard, person.anatomy, gain)
        n = int(np.ceil((heard[-1][1] + heard[-1][0].seconds + TAIL) / settings.tr))
        bold, motion = person.record(index, amplitudes, onsets, durations, n, rng)
        _write_events(person.events / f"{person.stem(index)}_events.tsv", heard, [parts[i] for i in chosen])
        test = [pair for pair, i in zip(heard, chosen, strict=True) if parts[i] == "test"]
        hits += _observed(person, bold, motion, test) if test else []
        n_volumes += n
    return _Outcome(int(person.anatomy.driven.sum()), n_volumes, float(np.mean(np.concatenate(hits))))


def _laid_out(told: Sequence[Spoken]) -> list[tuple[Spoken, float]]:
    """Stories of one run, one after the other, with the second at which each begins."""
    out, now = [], LEAD
    for spoken in told:
        out.append((spoken, round(now, 3)))
        now += spoken.seconds + GAP
    return out


def _responses(
    heard: Sequence[tuple[Spoken, float]], anatomy: Anatomy, gain: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], Floats]:
    """(n,) onsets and (n,) durations of the words of a run that mean something, and (n, V) responses in percent."""
    times, rows = [], []
    for spoken, start in heard:
        for word, onset, duration in zip(spoken.words, spoken.onset, spoken.duration, strict=True):
            if word.meaning:
                times.append((start + onset, duration))
                rows.append(anatomy.maps[word.meaning])
    onsets, durations = np.array(times).T
    return onsets, durations, np.float32(gain) * np.stack(rows)


def _observed(person: Person, bold: Floats, motion: NDArray[np.float64], heard: Sequence[tuple[Spoken, float]]) -> list[Bools]:
    """For every window of a story that means something: whether its words fit its own volumes better than those of another.

    The other window is half the story away. Words fit as far as the response that the true maps and the usual HRF expect of them
    goes with the data, from which drift and motion were taken out.
    """
    driven = np.flatnonzero(person.anatomy.driven)
    times = person.start_time + person.tr * np.arange(len(bold), dtype=np.float64)
    data = percent_signal_change(bold[:, driven]).astype(np.float64)
    confounds = nuisance(times, HIGH_PASS, motion)
    data -= confounds @ np.linalg.lstsq(confounds, data, rcond=None)[0]
    out = []
    for spoken, start in heard:
        window = window_of(spoken.onset, WINDOW)
        rows = rows_of(times, start, int(window[-1]) + 1, WINDOW, WINDOW, N_ROWS)
        shifted, hits = np.roll(rows, -(len(rows) // 2), axis=0), []
        for k in range(len(rows)):
            said = [(word.meaning, i) for i, word in enumerate(spoken.words) if window[i] == k and word.meaning]
            if not said or min(rows[k].min(), shifted[k].min()) < 0:
                continue
            place = [i for _, i in said]
            maps = np.stack([person.anatomy.maps[meaning][driven] for meaning, _ in said if meaning])
            expected = regressors(start + spoken.onset[place], spoken.duration[place], times[rows[k]]) @ maps
            hits.append((expected * data[rows[k]]).sum() > (expected * data[shifted[k]]).sum())
        out.append(np.array(hits, dtype=np.bool_))
    return out


def _write_raw(out: Path, settings: Settings, told: Sequence[Spoken], parts: Sequence[str]) -> None:
    truth = "Meanings of the words, patch maps, parts of the split, texts for a language model."
    about = dataclasses.asdict(settings) | {"noise": dataclasses.asdict(Noise()), "amplitude": GAIN * AMPLITUDE}
    derivatives.write_roots(out, "Simulated stories", __version__, README, truth, about)
    write_json(out / f"task-{TASK}_events.json", EVENTS)
    for spoken in told:
        path = out / "stimuli" / f"{spoken.name}.tsv"
        columns = {"onset": spoken.onset.tolist(), "duration": spoken.duration.tolist()}
        write_tsv(path, {**columns, "word": [word.text for word in spoken.words]})
        _write_sound(path.with_suffix(".wav"), spoken)
    folder = out / "derivatives" / "simulation"
    write_tsv(folder / "stories.tsv", {"group": [spoken.name for spoken in told], "split": list(parts)})
    write_tsv(folder / "words.tsv", _truth(told))
    write_tsv(folder / "corpus.tsv", {"text": corpus(settings, told, parts)})


def _truth(told: Sequence[Spoken]) -> dict[str, list[object]]:
    rows = [(spoken.name, *row) for spoken in told for row in zip(spoken.words, spoken.onset, spoken.duration, strict=True)]
    return {
        "story": [name for name, *_ in rows],
        "onset": [float(onset) for _, _, onset, _ in rows],
        "duration": [float(duration) for *_, duration in rows],
        "word": [word.text for _, word, _, _ in rows],
        "meaning": ["/".join(word.meaning) if word.meaning else "n/a" for _, word, _, _ in rows],
        "surprising": [str(word.surprising).lower() for _, word, _, _ in rows],
    }


def _write_events(path: Path, heard: Sequence[tuple[Spoken, float]], parts: Sequence[str]) -> None:
    columns = {
        "onset": [start for _, start in heard],
        "duration": [round(spoken.seconds, 3) for spoken, _ in heard],
        "trial_type": ["story"] * len(heard),
        "stim_file": [f"{spoken.name}.wav" for spoken, _ in heard],
        "split": list(parts),
    }
    write_tsv(path, columns)


def _write_sound(path: Path, spoken: Spoken) -> None:
    """A beep of 250 Hz, 8 bits, for every word."""
    samples = np.full(int(np.ceil(spoken.seconds * RATE)), 128, dtype=np.uint8)
    for onset, duration in zip(spoken.onset, spoken.duration, strict=True):
        place = np.arange(int(onset * RATE), int((onset + duration) * RATE))
        samples[place] = 128 + 60 * np.sin(np.pi * place / 2)
    with atomic_write(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setparams((1, 1, RATE, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
