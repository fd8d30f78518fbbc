"""Stories and sentences as others see them: the BIDS validator, the words on disk, and responses that follow their meanings."""

from __future__ import annotations

import shutil
import subprocess
import sys
import wave
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from bids_brainlm.errors import ConfigError, InputError
from bids_brainlm.simulation import reading, story
from bids_brainlm.simulation.bold import regressors
from bids_brainlm.simulation.patches import Anatomy

SMALL = {"participants": 1, "stories": 6, "runs": 3, "minutes": 1.0, "space": "T1w"}
READ = {"participants": 1, "runs": 2, "trials": 40, "repeats": 2, "space": "T1w"}


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> story.Summary:
    return story.simulate(tmp_path_factory.mktemp("sim") / "bids", **SMALL, snr=3.0)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> reading.Summary:
    return reading.simulate(tmp_path_factory.mktemp("sim") / "bids", **READ)


def tables(folder: Path) -> list[pd.DataFrame]:
    return [pd.read_csv(path, sep="\t") for path in sorted((folder / "sub-01" / "func").glob("*_events.tsv"))]


@pytest.mark.parametrize("fixture", ["heard", "read"])
def test_the_validator_reports_no_error(fixture: str, request: pytest.FixtureRequest) -> None:
    tool = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent)) or shutil.which("bids-validator-deno")
    if tool is None:
        pytest.skip("needs bids-validator-deno")
    folder = request.getfixturevalue(fixture).folder
    ended = subprocess.run([tool, str(folder)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "[ERROR]" not in ended.stdout


def test_every_story_is_heard_once_and_keeps_its_part(heard: story.Summary) -> None:
    events = pd.concat(tables(heard.folder))
    parts = pd.read_csv(heard.folder / "derivatives" / "simulation" / "stories.tsv", sep="\t", index_col="group")["split"]
    assert sorted(events["stim_file"].str.removesuffix(".wav")) == sorted(parts.index)
    assert events["split"].tolist() == parts[events["stim_file"].str.removesuffix(".wav")].tolist()
    assert parts.value_counts().to_dict() == {"train": 4, "test": 1, "validation": 1}
    for table in tables(heard.folder):
        assert len(table) == 2
        assert table["onset"][1] - table["onset"][0] - table["duration"][0] == pytest.approx(story.GAP, abs=1e-3)


def test_words_on_disk_are_those_of_the_truth_and_last_as_long_as_the_sound(heard: story.Summary) -> None:
    truth = pd.read_csv(heard.folder / "derivatives" / "simulation" / "words.tsv", sep="\t", keep_default_na=False)
    assert len(truth) == heard.n_words
    for name, words in truth.groupby("story"):
        table = pd.read_csv(heard.folder / "stimuli" / f"{name}.tsv", sep="\t")
        pd.testing.assert_frame_equal(table, words[["onset", "duration", "word"]].reset_index(drop=True))
        with wave.open(str(heard.folder / "stimuli" / f"{name}.wav")) as sound:
            lasts = sound.getnframes() / sound.getframerate()
        assert lasts == pytest.approx(table["onset"].iloc[-1] + table["duration"].iloc[-1], abs=0.01)
    surprises = truth[truth["surprising"].astype(str).str.lower() == "true"]
    assert len(surprises) > 0
    assert "n/a" not in set(surprises["meaning"])


def test_the_response_is_the_sum_of_the_words_meanings(heard: story.Summary) -> None:
    """The series, drawn again without noise from the files alone: maps, words, and when they were heard."""
    truth = heard.folder / "derivatives" / "simulation"
    maps = nibabel.load(next((truth / "sub-01" / "func").glob("*_desc-truth_maps.nii.gz"))).get_fdata()
    names = pd.read_json(next((truth / "sub-01" / "func").glob("*_desc-truth_maps.json")))["Maps"].tolist()
    words = pd.read_csv(truth / "words.tsv", sep="\t", keep_default_na=False)
    stem = "sub-01_task-stories_run-01"
    image = nibabel.load(heard.folder / f"derivatives/fmriprep/sub-01/func/{stem}_space-T1w_desc-preproc_bold.nii.gz")
    times = 1.0 + 2.0 * np.arange(image.shape[3])
    expected = 0.0
    for row in tables(heard.folder)[0].itertuples():
        said = words[(words["story"] == Path(row.stim_file).stem) & (words["meaning"] != "n/a")]
        responses = regressors(row.onset + said["onset"].to_numpy(), said["duration"].to_numpy(), times)
        expected = expected + responses @ np.stack([maps[..., names.index(name)].ravel() for name in said["meaning"]])
    data = image.get_fdata().reshape(-1, len(times)).T
    driven = expected.std(axis=0) > 0.5 * expected.std(axis=0).max()
    agreement = [np.corrcoef(a, b)[0, 1] for a, b in zip(data[:, driven].T, expected[:, driven].T, strict=True)]
    assert np.mean(agreement) > 0.8
    # Moved by 20 s, the same words fit no more.
    moved = np.roll(expected[:, driven], 10, axis=0)
    assert abs(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(data[:, driven].T, moved.T, strict=True)])) < 0.3


def test_silence_tells_the_observer_nothing(tmp_path: Path) -> None:
    loud = story.simulate(tmp_path / "loud", **SMALL, snr=3.0)
    silent = story.simulate(tmp_path / "silent", **SMALL, snr=0.0)
    assert loud.observer[0] > 0.85
    # About 30 windows: three standard errors of a half.
    assert abs(silent.observer[0] - 0.5) < 0.28


def test_the_corpus_opens_no_passage_like_a_held_out_story() -> None:
    settings = story.Settings(1, 20, 20, 1.0, 0.0, 2.0, 1.0, 0.1, 0, "T1w")
    told, parts = story._stories(settings)
    held_out = {p.opening for spoken, part in zip(told, parts, strict=True) if part != "train" for p in spoken.passages}
    texts = " ".join(story.corpus(settings, told, parts))
    assert len(held_out) > 15
    for person, place, attribute, thing in held_out:
        for he in ("she", "he", f"the {person}"):
            for verb in ("saw", "had"):
                for first in (f"one day a {person} was", f"there was a {person}"):
                    for phrase in ("in the", "on the", "under the", "by the"):
                        assert f"{first} {phrase} {place} {he} {verb} a {attribute} {thing}" not in texts


def test_sentences_of_a_passage_stay_in_one_part(read: reading.Summary) -> None:
    table = pd.read_csv(read.folder / "stimuli" / "sentences.tsv", sep="\t")
    assert (table.groupby("passage")["split"].nunique() == 1).all()
    assert set(table["split"]) == {"train", "validation", "test"}
    assert (table.groupby("passage").size() == reading.LENGTH).all()
    shown = pd.concat(tables(read.folder)).merge(table, on="stim_id", suffixes=("", "_table"))
    assert len(shown) == 80
    assert (shown["passage"] == shown["passage_table"]).all()
    assert (shown["split"] == shown["split_table"]).all()


def test_the_response_to_a_sentence_is_the_sum_of_its_words(read: reading.Summary) -> None:
    settings = reading.Settings(1, 2, 40, 2, 0.2, 2.0, 1.0, 0.1, 0, "T1w")
    world = reading.sentences(settings)
    words = [(factor, word) for factor, words in reading.FACTORS.items() for word in words]
    units = dict(zip(words, np.eye(30, dtype=np.float32), strict=True))
    anatomy = Anatomy(units, {})
    responses = anatomy.responses([sentence.meanings for sentence in world], 2.0)
    table = pd.read_csv(read.folder / "derivatives" / "simulation" / "sentences.tsv", sep="\t")
    names = ["/".join(word) for word in units]
    for row, meaning in zip(responses, table["meaning"], strict=True):
        np.testing.assert_array_equal(row, [2.0 * meaning.split().count(name) for name in names])


@pytest.mark.parametrize(
    ("module", "wrong"),
    [(story, {"runs": 9, "stories": 6}), (story, {"minutes": 0.01}), (story, {"snr": -1.0}), (story, {"surprise": 2.0}),
     (reading, {"trials": 3}), (reading, {"surprise": -0.1}), (reading, {"space": "MNI"})],
)  # fmt: skip
def test_settings_that_make_no_experiment_are_refused(module: object, wrong: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        module.simulate(tmp_path / "out", **wrong)  # type: ignore[attr-defined]
    assert not any(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", "utf-8")
    with pytest.raises(InputError, match="not empty"):
        story.simulate(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
