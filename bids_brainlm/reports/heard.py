"""What was made of words with times, from the files of stage clean."""

from __future__ import annotations

from bids_brainlm.config import Request
from bids_brainlm.io.files import read_json
from bids_brainlm.reports.methods import WindowFacts
from bids_brainlm.stages.responses import Trials, heard_in
from bids_brainlm.stages.runs import over_time
from bids_brainlm.stages.windows import left_out_by_run, left_out_of

RUN_HEADINGS = (
    "Run",
    "Stories",
    "Words",
    "of them outside the series",
    "Words without a time",
    "Marks",
    "Windows used",
    "without words",
    "outside the series",
    "without context",
)
"""Columns of the table of runs."""

DROPPED = ("NumberOfWordsOutsideSeries", "NumberOfWordsWithoutTime", "NumberOfMarksDropped")
"""Keys of the sidecar of a table of words, in the order of the columns."""


def read_windows(request: Request, participant: str) -> WindowFacts | None:
    """Stories, words and windows of a participant; None where words have no times, or no series was cleaned."""
    trials = _heard(request, participant)
    if trials is None or trials.heard is None:
        return None
    settings, counts = request.config.window, left_out_of(trials, request.config.window)
    left = {"silent": counts.silent, "outside": counts.outside, "early": counts.early}
    told = (trials.heard["story"].nunique(), len(trials.heard), counts.used)
    return WindowFacts(*told, settings.seconds, settings.lag, settings.rows, settings.context, **left)


def read_runs(request: Request, participant: str) -> tuple[tuple[str, ...], ...]:
    """Words and windows of each run, and what was dropped of them: a row of `RUN_HEADINGS` a run; none without `--words`."""
    trials = _heard(request, participant)
    if trials is None or trials.heard is None:
        return ()
    paths = (request.out_dir / f"sub-{participant}").glob("**/beh/*_desc-words_events.json")
    sidecars = {path.name.removesuffix("_desc-words_events.json"): read_json(path) for path in paths}
    rows = []
    for run, left in left_out_by_run(trials, request.config.window).items():
        own, sidecar = trials.heard[trials.heard["run"] == run], sidecars.get(run, {})
        dropped = [str(sidecar.get(key, "")) for key in DROPPED]
        windows = map(str, (left.used, left.silent, left.outside, left.early))
        rows.append((run.partition("_")[2], ", ".join(own["story"].unique()), str(len(own)), *dropped, *windows))
    return tuple(rows)


def _heard(request: Request, participant: str) -> Trials | None:
    return heard_in(request, participant) if over_time(request) else None
