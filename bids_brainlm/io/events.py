"""Tables of events: what was shown or heard, and when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.errors import InputError
from bids_brainlm.io.files import parse_tsv, read_text


def load_events(path: Path) -> pd.DataFrame:
    """Trials of a run, in order of onset.

    Parameters
    ----------
    path : Path
        ``..._events.tsv``; a byte order mark and Windows line ends are no hindrance.

    Returns
    -------
    DataFrame
        ``onset`` and ``duration`` in s (float64; a missing duration is 0), every other column as text with ``None`` where
        it is missing. The index counts from 0 in order of onset; trials with one onset keep the order of the file.

    Raises
    ------
    MissingInputError
        When there is no such file.
    InputError
        When there is no trial, a column lacks, or an onset or duration is no number of seconds.
    """
    columns = parse_tsv(read_text(path), path)
    for name in ("onset", "duration"):
        if name not in columns:
            raise InputError(
                f"no column {name!r}", path, expected="onset and duration", remedy=f"columns there: {', '.join(columns)}"
            )
    if not columns["onset"]:
        raise InputError("no trial", path, expected="at least one row below the column names")
    # Numbers are read and sorted before there is a table: a plan of a thousand participants reads thousands of them.
    onset = _seconds(columns["onset"], "onset", path)
    duration = _seconds(["0" if text is None else text for text in columns["duration"]], "duration", path)
    if (duration < 0).any():
        row = int(np.argmax(duration < 0))
        raise InputError(f"the duration of row {row + 1} is {duration[row]} s", path, expected="0 or more")
    order = np.argsort(onset, kind="stable")
    table = pd.DataFrame({name: np.array(values, dtype=object)[order] for name, values in columns.items()}, dtype=object)
    table["onset"], table["duration"] = onset[order], duration[order]
    return table


def _seconds(column: Sequence[str | None], name: str, path: Path) -> NDArray[np.float64]:
    """Text -> s; ``None`` and words are refused with the number of their row (1 is the first below the names)."""
    values = np.array([_number(text) for text in column])
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(np.argmax(bad))
        shown = "n/a" if column[row] is None else column[row]
        raise InputError(f"the {name} of row {row + 1} is {shown}", path, expected="seconds", remedy="correct or remove that row")
    return values


def _number(text: str | None) -> float:
    try:
        # Python reads 1_000 as a number, which no other program does.
        return float(text) if text is not None and "_" not in text else math.nan
    except ValueError:
        return math.nan
