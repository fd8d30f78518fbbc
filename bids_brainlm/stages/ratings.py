"""Sheets for human ratings: written beside a key in the output folder, read back with the ratings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.evaluation.ratings import (
    KEY_COLUMNS,
    RATINGS_COLUMNS,
    SHEET_COLUMNS,
    blinded,
    digest,
    rated_conditions,
    ratings_of,
)
from bids_brainlm.evaluation.table import Predictions, Sampling
from bids_brainlm.io.files import read_json, read_tsv, write_tsv
from bids_brainlm.stages.outputs import describe, marks_of

_DECODED = "_desc-decoded_beh.tsv"


def export_sheet(out_dir: Path, participant: str, sheet: Path, seed: int = 0, trials: int = 0) -> list[Path]:
    """Write the sheet of a participant's decoded texts, and its key into the output folder.

    Raises
    ------
    MissingInputError
        When there are no decoded texts.
    InputError
        When another sheet was given out before, whose ratings could then not be read.
    """
    decoded = _decoded(out_dir, participant)
    rows, key = blinded(_predictions(decoded), seed, trials)
    path, own = _beside(decoded, "ratingkey"), digest(rows)
    if path.is_file() and _given_out(path) != own:
        remedy = "give the same --seed and --trials as then, or remove the key"
        raise InputError("another sheet was given out before", path, expected="the key of the same sheet", remedy=remedy)
    about = "Which decoded text each row of the sheet for ratings is: not for those who rate."
    marks = {"SheetDigest": own, "SheetColumns": SHEET_COLUMNS}
    return [write_tsv(path, key), describe(path, about, KEY_COLUMNS, marks), write_tsv(sheet, rows)]


def import_sheets(out_dir: Path, participant: str, sheets: Sequence[Path], sampling: Sampling) -> tuple[pd.DataFrame, list[Path]]:
    """Mean ratings per condition from sheets that came back, and the files they were written to.

    Raises
    ------
    MissingInputError
        When no sheet was given out, or one is not there.
    InputError
        When a sheet cannot be used.
    """
    decoded = _decoded(out_dir, participant)
    path = _beside(decoded, "ratingkey")
    if not path.is_file():
        raise MissingInputError("no sheet was given out", path, expected="its key", remedy="write one first, with --export")
    ratings = [_rated(sheet, _given_out(path)) for sheet in sheets]
    table = rated_conditions(_predictions(decoded), read_tsv(path), ratings, sampling)
    target, sidecar = _beside(decoded, "ratings"), decoded.with_suffix(".json")
    marks = marks_of(read_json(sidecar) if sidecar.is_file() else {}) | {"Raters": len(sheets)}
    about = "Ratings by people who did not know which brain a text was decoded from. Intervals are 95 % bootstrap over groups."
    return table, [write_tsv(target, table), describe(target, about, RATINGS_COLUMNS, marks)]


def _decoded(out_dir: Path, participant: str) -> Path:
    folder = out_dir / f"sub-{participant.removeprefix('sub-')}" / "beh"
    found = sorted(folder.glob(f"*{_DECODED}"))
    if len(found) != 1:
        what = f"decoded texts of {len(found)} tasks" if found else "no decoded texts"
        expected = "one *_desc-decoded_beh.tsv"
        raise MissingInputError(what, folder, expected=expected, remedy="check the output folder and --participant-label")
    return found[0]


def _beside(decoded: Path, desc: str) -> Path:
    return decoded.with_name(decoded.name.replace(_DECODED, f"_desc-{desc}_beh.tsv"))


def _given_out(key: Path) -> str:
    return str(read_json(key.with_suffix(".json")).get("SheetDigest", ""))


def _predictions(path: Path) -> Predictions:
    try:
        return Predictions(read_tsv(path))
    except ValueError as error:
        raise InputError(f"the decoded texts cannot be used: {error}", path, remedy="run the participant level again") from error


def _rated(sheet: Path, given_out: str) -> pd.Series:
    try:
        return ratings_of(read_tsv(sheet), given_out)
    except ValueError as error:
        expected = "the sheet that was given out, its column rating filled in"
        raise InputError(f"the ratings cannot be used: {error}", sheet, expected=expected, remedy="correct the sheet") from error
