"""Words of a run with their times, and its volumes, before any response is read.

Both are on one clock, the time of the events of the run. Volumes that are not in steady state have no row.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.config import Request
from bids_brainlm.core.windows import TOLERANCE, Heard
from bids_brainlm.errors import InputError
from bids_brainlm.io.events import load_events
from bids_brainlm.io.runfiles import RunFiles
from bids_brainlm.io.timing import timing
from bids_brainlm.io.transcripts import load_heard, transcript_files
from bids_brainlm.stages.runs import regressed_out, stem
from bids_brainlm.stages.shapes import n_volumes_of

COLUMNS = ("run", "story", "start", "onset", "offset", "word")
"""Of every table of words; see `Trials.heard`."""


def heard_of(request: Request, run: RunFiles) -> tuple[pd.DataFrame, list[Heard]]:
    """Words of a run, and the stories that they belong to.

    Returns
    -------
    words : DataFrame
        In order of story and onset, one row a word: `COLUMNS`, and the columns of the last event that had begun when the word
        did, such as one that names a part of a split.
    stories : list of Heard

    Raises
    ------
    NoTextError
        When nothing was heard in the run.
    InputError
        When a table or transcript is damaged, or there is none.
    """
    events = None if run.events is None else load_events(run.events)
    heard = load_heard(request.bids_dir, request.config.window, run, events)
    return _words(run, heard, events), heard


def dropped(heard: Sequence[Heard], times: NDArray[np.float64]) -> dict[str, int]:
    """How many words and marks of a run are of no use, as fields of a sidecar.

    Parameters
    ----------
    heard : sequence of Heard
    times : (T,) float64
        s of the volumes that are kept, in the time of the events.
    """
    onsets = [story.start + story.transcript.onset for story in heard]
    return {
        "NumberOfMarksDropped": sum(story.transcript.n_marks for story in heard),
        "NumberOfWordsWithoutTime": sum(story.transcript.n_untimed for story in heard),
        "NumberOfWordsOutsideSeries": sum(int(((own < times[0]) | (own > times[-1])).sum()) for own in onsets),
    }


def listened(request: Request, run: RunFiles) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Words of a run (`heard_of`), and its volumes (`volume_table`) from the headers of its files.

    Raises
    ------
    NoTextError
        When nothing was heard in the run.
    InputError
        When a table or transcript is damaged, words and volumes lie apart, or series, confounds and times do not fit each other.
    """
    words, heard = heard_of(request, run)
    times = timing(run.sidecar, run.bold[0]).frames(n_volumes_of(request, run), run.bold[0])
    kept = regressed_out(request, run, times).frame_times
    _refuse_outside(heard, kept, run.place)
    return words, volume_table(stem(run), run.session, kept)


def files_of(request: Request, run: RunFiles) -> list[Path]:
    """Transcripts of the stories of a run, for what it was made from."""
    events = None if run.events is None else load_events(run.events)
    return transcript_files(request.bids_dir, request.config.window, run, events)


def _refuse_outside(heard: Sequence[Heard], times: NDArray[np.float64], path: Path) -> None:
    """Refuse a story of which no word was heard while volumes were taken; what is heard later is left out with its window."""
    for story in heard:
        first, last = (float(story.start + story.transcript.onset[k]) for k in (0, -1))
        if first > times[-1] or last < times[0]:
            what = f"the words of {story.transcript.name} lie between {first:g} and {last:g} s"
            expected = f"words between {times[0]:g} and {times[-1]:g} s, when volumes were taken"
            remedy = "check onsets (seconds), --set window.start= and RepetitionTime"
            raise InputError(what, path, expected=expected, remedy=remedy)


def _words(run: RunFiles, heard: Sequence[Heard], events: pd.DataFrame | None) -> pd.DataFrame:
    table = pd.concat([_table(stem(run), item) for item in heard], ignore_index=True)
    if events is None:
        return table
    begun = np.searchsorted(events["onset"].to_numpy(float), table["start"] + table["onset"] + TOLERANCE, side="right") - 1
    known = ["onset", "duration", "stim_file", *COLUMNS]
    further = events.drop(columns=[name for name in known if name in events])
    return pd.concat([table, further.iloc[np.maximum(begun, 0)].reset_index(drop=True)], axis=1)


def _table(run: str, heard: Heard) -> pd.DataFrame:
    own = heard.transcript
    values = (run, own.name, heard.start, own.onset, own.offset, list(own.words))
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))


def volume_table(name: str, session: str, times: NDArray[np.float64]) -> pd.DataFrame:
    """One row a volume: ``trial_id``, ``onset`` (s, when the volume was taken), ``run`` and ``session``."""
    ids = [f"{name}_vol-{k + 1:04d}" for k in range(len(times))]
    return pd.DataFrame({"trial_id": ids, "onset": times, "run": name, "session": session or "n/a"})
