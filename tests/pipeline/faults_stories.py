"""Faults where words have times: transcripts, where stories begin, and splits that cannot be made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from faults_case import CALL, ONE, FaultCase, edit

TOPIC = "Words with times"


def _events(study: Any, run: int = 2) -> Path:
    path: Path = study.bids / "sub-01" / "func" / f"sub-01_task-listen_run-{run}_events.tsv"
    return path


def _words(change: Callable[[Path], object]) -> Callable[[Any], None]:
    """Of a story that both hear."""
    return lambda study: change(study.bids / "stimuli" / "story2.tsv") and None


def _column(path: Path, name: str, row: int, value: object) -> None:
    edit(path, lambda table: table.assign(**{name: table[name].astype(object).where(table.index != row, value)}))


def _told(name: str, value: object) -> Callable[[Any], None]:
    return lambda study: _column(_events(study), name, 0, value)


def _second_story_absent(study: Any) -> None:
    path = _events(study)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1].replace("story2", "nowhere")]) + "\n", encoding="utf-8")


def _short(study: Any) -> None:
    """A run of so few volumes that the regressors explain them all."""
    folder = study.bids / "derivatives" / "fmriprep" / "sub-01" / "func"
    path = folder / "sub-01_task-listen_run-2_space-T1w_desc-preproc_bold.nii.gz"
    image: Any = nib.load(path)
    out = nib.Nifti1Image(np.asarray(image.dataobj)[..., :9], image.affine)
    out.header.set_zooms((3.0, 3.0, 3.0, 2.0))
    nib.save(out, path)
    edit(folder / "sub-01_task-listen_run-2_desc-confounds_timeseries.tsv", lambda table: table.iloc[:9])


def _constant(study: Any) -> None:
    path = (
        study.bids
        / "derivatives"
        / "fmriprep"
        / "sub-01"
        / "func"
        / "sub-01_task-listen_run-2_space-T1w_desc-preproc_bold.nii.gz"
    )
    image: Any = nib.load(path)
    out = nib.Nifti1Image(np.ones(image.shape, np.float32), image.affine)
    out.header.set_zooms((3.0, 3.0, 3.0, 2.0))
    nib.save(out, path)


CASES = [
    FaultCase(
        TOPIC,
        "a story without a transcript, its task asked for",
        lambda study: (study.bids / "stimuli" / "story2.tsv").unlink(),
        66,
        ("no table of words", "'story2'", "story2_words.tsv"),
        ("-t", "listen"),
        ONE,
        study="story",
    ),
    FaultCase(
        TOPIC,
        "one of two stories of a run without a transcript",
        _second_story_absent,
        66,
        ("no table of words for 'nowhere'",),
        study="story",
    ),
    FaultCase(
        TOPIC,
        "a story that begins after the last volume",
        _told("onset", 900.0),
        words=("the words of story2 lie between 900.1 and 959 s", "when volumes were taken", "--set window.start="),
        study="story",
    ),
    FaultCase(
        TOPIC,
        "a transcript that leads out of the dataset",
        _told("stim_file", "../../secret.wav"),
        words=("the path leaves the BIDS folder",),
        study="story",
    ),
    FaultCase(
        TOPIC,
        "words that overlap",
        _words(lambda path: _column(path, "duration", 3, "5.0")),
        words=("begins at", "before", "story2.tsv", "one speaker"),
        whose=ONE,
        study="story",
    ),
    FaultCase(
        TOPIC,
        "an onset of a word that is no number",
        _words(lambda path: _column(path, "onset", 3, "2,1")),
        words=("'2,1' in line 5 is no time", "story2.tsv"),
        whose=ONE,
        study="story",
    ),
    FaultCase(
        TOPIC,
        "a table of words without onsets",
        _words(lambda path: edit(path, lambda table: table.rename(columns={"onset": "begin"}))),
        words=("no column onset", "story2.tsv"),
        whose=ONE,
        study="story",
    ),
    FaultCase(
        TOPIC,
        "words wanted of events that have none",
        None,
        66,
        ("no words", "window.column"),
        ("--words", "events"),
        ONE,
        study="story",
    ),
    FaultCase(
        TOPIC,
        "a folder of transcripts that is not there",
        None,
        66,
        ("no such folder of transcripts", "stimuli/words"),
        ("--transcripts", "stimuli/words"),
        ONE,
        study="story",
    ),
    FaultCase(
        TOPIC,
        "one story alone, divided by story",
        None,
        65,
        ("the trials cannot be split", "--split blocks"),
        ("--run-id", "1"),
        ONE,
        study="story",
    ),
    FaultCase(
        TOPIC,
        "neighbouring windows in training and test",
        None,
        65,
        ("share", "--group story or --split blocks"),
        ("--group", "stimulus"),
        ONE,
        study="story",
    ),
    FaultCase(
        TOPIC,
        "a column of stories that is not there",
        None,
        65,
        ("no column 'tale' of stories", "window.story"),
        ("--set", "window.story=tale"),
        ONE,
        study="story",
    ),
    FaultCase(
        TOPIC,
        "windows that begin after the scan",
        None,
        65,
        ("no window of words can be decoded", "0 windows with text", "outside the series"),
        ("--set", "window.lag=90"),
        ONE,
        study="story",
    ),
    FaultCase(
        TOPIC,
        "fewer volumes than regressors",
        _short,
        words=("9 volumes for 7 regressors", "--confounds"),
        whose=ONE,
        study="story",
    ),
    FaultCase(
        TOPIC,
        "a story heard over a series that does not vary",
        _constant,
        words=("no vertex varies in time", "run-2_space-T1w_desc-preproc_bold.nii.gz"),
        whose=ONE,
        study="story",
    ),
    FaultCase(
        TOPIC,
        "single trials given for words with times",
        lambda study: ["-d", f"betas={study.out}"],
        2,
        ("-d betas= holds single trials", "--words"),
        whose=CALL,
        study="story",
    ),
]
