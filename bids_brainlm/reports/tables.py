"""Tables and sidecars of an output folder, as reports read them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from bids_brainlm.config import Request
from bids_brainlm.io.files import read_json, read_tsv
from bids_brainlm.stages.outputs import find_beh


def read_table(path: Path | None) -> pd.DataFrame | None:
    """A TSV file, if there is one."""
    return None if path is None else read_tsv(path)


def as_numbers(table: pd.DataFrame, texts: Collection[str] = ("metric", "condition")) -> pd.DataFrame:
    """A table whose columns are numbers, but for those of texts: by default those of a metrics table."""
    return table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in table if name not in texts})


def metrics_sidecar(request: Request, participant: str) -> dict[str, Any]:
    """What stands beside the metrics table of a participant; empty without one."""
    path = find_beh(request, participant, "metrics")
    return {} if path is None else dict(read_json(path.with_suffix(".json")))


def dataset_name(bids_dir: Path) -> str:
    """What a dataset calls itself, else its folder's name."""
    path = bids_dir / "dataset_description.json"
    return str(read_json(path).get("Name", bids_dir.name)) if path.is_file() else bids_dir.name
