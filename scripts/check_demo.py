"""Check what a demo left: the files of every participant, and that each text was decoded under all three conditions.

Usage: python scripts/check_demo.py FOLDER
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from bids_brainlm.core.types import CONDITIONS, DECODED_COLUMNS

PARTICIPANTS = ("sub-01", "sub-02")


def main(folder: Path) -> None:
    out = folder / "out"
    names = ["dataset_description.json", "group.html", "phenotype/decodingmetrics.tsv"]
    missing = [name for name in names + [f"{label}.html" for label in PARTICIPANTS] if not _filled(out / name)]
    for label in PARTICIPANTS:
        tables = sorted((out / label / "beh").glob(f"{label}_*desc-decoded_beh.tsv"))
        missing += [] if tables else [f"{label}/beh/*_desc-decoded_beh.tsv"]
        for table in tables:
            _check_decoded(table)
        patterns = ("func/*statmap.func.gii", "beh/*desc-metrics_beh.tsv", "model/*.safetensors", "figures/*.svg")
        missing += [f"{label}/{pattern}" for pattern in patterns if not any(map(_filled, (out / label).glob(pattern)))]
    if missing:
        sys.exit(f"{out} lacks {', '.join(missing)}")
    print(f"{out}: complete")


def _filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _check_decoded(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if not rows or list(rows[0]) != list(DECODED_COLUMNS):
        sys.exit(f"{path}: columns {list(rows[0]) if rows else 'none'}; expected {list(DECODED_COLUMNS)}")
    trials = {condition: {row["trial_id"] for row in rows if row["condition"] == condition} for condition in CONDITIONS}
    if len({frozenset(ids) for ids in trials.values()}) != 1 or not trials["true"]:
        sys.exit(f"{path}: conditions cover different trials: { {name: len(ids) for name, ids in trials.items()} }")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
