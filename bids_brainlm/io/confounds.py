"""Confound tables of fMRIPrep: which columns are regressed out, and how many volumes at the start are not in steady state."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.errors import InputError
from bids_brainlm.io.files import read_tsv

ALIASES = {
    "trans_x": "X", "trans_y": "Y", "trans_z": "Z", "rot_x": "RotX", "rot_y": "RotY", "rot_z": "RotZ",
    "csf": "CSF", "white_matter": "WhiteMatter", "global_signal": "GlobalSignal",
    "framewise_displacement": "FramewiseDisplacement",
}  # fmt: skip
"""Column -> what fMRIPrep 1.0 called it."""

DISPLACEMENT = "framewise_displacement"

OPTIONAL = ("non_steady_state_outlier00", "motion_outlier00")
"""Columns of single volumes; a quiet run has none, so a wildcard for them may match nothing."""


@dataclass(frozen=True, eq=False)
class Confounds:
    """Regressors of no interest of one run.

    Parameters
    ----------
    values : (T, c) float64
        In the table's own units; no missing values.
    names : tuple of str, length c
    n_dummy : int
        Volumes at the start that fMRIPrep marked as not in steady state.
    """

    values: NDArray[np.float64]
    names: tuple[str, ...]
    n_dummy: int


def load_confounds(path: Path, patterns: Sequence[str]) -> Confounds:
    """Read chosen columns of a confounds table.

    Parameters
    ----------
    path : Path
    patterns : sequence of str
        Names of columns, ``*`` and ``?`` being wildcards; a column matched twice is taken once.

    Returns
    -------
    Confounds
        A missing value in the first row (derivatives, framewise displacement) becomes 0, any other the mean of its column.

    Raises
    ------
    InputError
        When a pattern matches nothing (the near columns are named) or a value is not a number.
    """
    table = read_tsv(path)
    if table.empty:
        raise InputError("no row", path, expected="one row a volume")
    names = chosen_columns(patterns, list(table), path)
    values = np.column_stack([_numbers(table[name], name, path) for name in names]) if names else np.empty((len(table), 0))
    return Confounds(values, tuple(names), _leading_outliers(table, path))


def load_motion(path: Path) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """How much the head moved in every volume, and which volumes fMRIPrep calls outliers.

    Returns
    -------
    displacement : (T,) float64
        Framewise displacement in mm; nan where it is not known, as in the first volume.
    outlier : (T,) bool
        Volumes that a column ``motion_outlierXX`` marks; a quiet run has none.
    """
    table = read_tsv(path)
    name = next((name for name in (DISPLACEMENT, ALIASES[DISPLACEMENT]) if name in table), None)
    displacement = np.full(len(table), np.nan)
    if name is not None:
        displacement = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
    outlier = np.zeros(len(table), dtype=np.bool_)
    for column in (column for column in table if column.startswith("motion_outlier")):
        outlier |= _numbers(table[column], column, path) != 0
    return displacement, outlier


def chosen_columns(patterns: Sequence[str], columns: list[str], path: Path) -> list[str]:
    """Columns of a table that some patterns name, each once.

    Raises
    ------
    InputError
        When a pattern matches nothing.
    """
    return list(dict.fromkeys(name for pattern in patterns for name in _match(pattern, columns, path)))


def _match(pattern: str, columns: list[str], path: Path) -> list[str]:
    # Most patterns are names, and a plan asks thousands of tables for them.
    found = [pattern] if pattern in columns else [name for name in columns if fnmatch.fnmatchcase(name, pattern)]
    if not found and ALIASES.get(pattern) in columns:
        found = [ALIASES[pattern]]
    if found or any(fnmatch.fnmatchcase(name, pattern) for name in OPTIONAL):
        return found
    stem = pattern.strip("*?")
    near = (
        difflib.get_close_matches(stem, columns, n=5, cutoff=0.5)
        or [name for name in columns if stem.lower() in name.lower()][:5]
    )
    hint = f"near it: {', '.join(near)}" if near else f"there are {', '.join(columns[:12])}{' ...' if len(columns) > 12 else ''}"
    raise InputError(
        f"no confound matches {pattern!r}", path, expected=f"a column of the table; {hint}", remedy="correct --confounds"
    )


def _numbers(column: pd.Series, name: str, path: Path) -> NDArray[np.float64]:
    """(T,) values without gaps."""
    values: NDArray[np.float64] = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, copy=True)
    wrong = np.isnan(values) & column.notna().to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"{name} is {column[row]!r} in row {row + 1}", path, expected="a number or n/a")
    finite = np.isfinite(values)
    if not finite.any():
        raise InputError(f"{name} has no value in any row", path, remedy="leave it out of --confounds")
    mean = values[finite].mean()
    values[~finite] = mean
    if not finite[0]:
        values[0] = 0.0
    return values


def _leading_outliers(table: pd.DataFrame, path: Path) -> int:
    """Volumes before the first one that no ``non_steady_state_outlierXX`` column marks."""
    columns = [name for name in table if name.startswith("non_steady_state_outlier")]
    marked = np.zeros(len(table), dtype=bool)
    for name in columns:
        marked |= _numbers(table[name], name, path) != 0
    return int(np.argmin(np.append(marked, False)))
