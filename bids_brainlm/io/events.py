"""Tables of events: what was shown or heard, and when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bids_brainlm.errors import InputError
from bids_brainlm.io.files import read_tsv


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
    table = read_tsv(path)
    for name in ("onset", "duration"):
        if name not in table:
            raise InputError(
                f"no column {name!r}", path, expected="onset and duration", remedy=f"columns there: {', '.join(table)}"
            )
    if table.empty:
        raise InputError("no trial", path, expected="at least one row below the column names")
    table["onset"] = _seconds(table["onset"], "onset", path)
    table["duration"] = _seconds(table["duration"].fillna("0"), "duration", path)
    if (table["duration"] < 0).any():
        row = int(np.argmax(table["duration"] < 0))
        raise InputError(f"the duration of row {row + 1} is {table['duration'][row]} s", path, expected="0 or more")
    return table.sort_values("onset", kind="stable", ignore_index=True)


def _seconds(column: pd.Series, name: str, path: Path) -> pd.Series:
    """Text -> float64 (s); ``None`` and words are refused with the number of their row (1 is the first below the names)."""
    values = pd.to_numeric(column, errors="coerce").astype(np.float64)
    bad = ~np.isfinite(values.to_numpy())
    if bad.any():
        row = int(np.argmax(bad))
        shown = "n/a" if column[row] is None else column[row]
        raise InputError(f"the {name} of row {row + 1} is {shown}", path, expected="seconds", remedy="correct or remove that row")
    return values
