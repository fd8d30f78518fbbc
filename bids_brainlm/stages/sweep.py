"""What the points of a sweep have written, gathered: one table of the figures of all participants under all settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from bids_brainlm.errors import MissingInputError
from bids_brainlm.evaluation.table import METRICS_COLUMNS
from bids_brainlm.io.files import read_json, read_tsv, write_tsv
from bids_brainlm.stages.outputs import describe

METRICS = "_desc-metrics_beh.tsv"
NUMBERS = [name for name in METRICS_COLUMNS if name not in ("metric", "condition")]

SWEEP_COLUMNS = {
    "point": "Output folder below that of the sweep.",
    "participant": "Label with sub-.",
    **METRICS_COLUMNS,
}
"""Columns of the table of a sweep; those of the settings that are swept stand after ``point``."""


def collect(sweep: Path, chosen: Mapping[str, Mapping[str, str]]) -> tuple[pd.DataFrame, dict[str, str]]:
    """Figures of all points.

    Parameters
    ----------
    sweep : Path
        Folder of the sweep.
    chosen : mapping of point to mapping of setting to value

    Returns
    -------
    DataFrame
        Columns `SWEEP_COLUMNS` and the settings; figures are numbers.
    dict of str to str
        Point, or point and participant, without figures -> why.

    Raises
    ------
    MissingInputError
        When no point has figures.
    """
    found = {name: sorted((sweep / name).glob(f"sub-*/beh/*{METRICS}")) for name in chosen}
    said = {name: _outcomes(sweep / name) for name in chosen}
    people = sorted({_who(path) for paths in found.values() for path in paths}.union(*said.values()))
    if not any(found.values()):
        raise MissingInputError("no point of the sweep has metrics", sweep, remedy="run its lines first")
    parts, missing = [], {}
    for name, values in chosen.items():
        parts += [_figures(path, name, values) for path in found[name]]
        lacking = [who for who in people if who not in map(_who, found[name])]
        for who in lacking:
            missing[f"{name}, {who}"] = said[name].get(who) or "no metrics; it was not run, or is not done"
    return pd.concat(parts, ignore_index=True), missing


def _who(path: Path) -> str:
    return path.name.partition("_")[0]


def _figures(path: Path, point: str, values: Mapping[str, str]) -> pd.DataFrame:
    table = read_tsv(path)
    for name in NUMBERS:
        table[name] = table[name].astype(float)
    return pd.concat([pd.DataFrame({"point": point, **values, "participant": _who(path)}, index=table.index), table], axis=1)


def _outcomes(out: Path) -> dict[str, str]:
    """Participants of the newest call on an output -> what was wrong with them; empty where nothing was."""
    logs = [read_json(path) for path in (out / "logs").glob("*.json")]
    calls = sorted((log for log in logs if log.get("level") == "participant"), key=lambda log: str(log.get("started")))
    outcomes = calls[-1].get("outcomes", {}) if calls else {}
    return {f"sub-{who}": "; ".join(each["errors"]) for who, each in outcomes.items()}


def write(sweep: Path, table: pd.DataFrame, missing: Mapping[str, str]) -> list[Path]:
    """``sweep.tsv`` and its sidecar, which names what is missing."""
    path = sweep / "sweep.tsv"
    swept = {name: "Setting that is swept." for name in table.columns if name not in SWEEP_COLUMNS}
    about = "Figures of merit of all points of a sweep."
    return [write_tsv(path, table), describe(path, about, SWEEP_COLUMNS | swept, {"Missing": dict(missing)})]
