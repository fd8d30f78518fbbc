"""A sheet goes out, is filled in, and comes back through files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.cli import companion
from bids_brainlm.core.types import DECODED_COLUMNS
from bids_brainlm.io.files import read_tsv, write_json, write_tsv

N = 8


@pytest.fixture
def out(tmp_path: Path) -> Path:
    rows = [
        {"trial_id": f"t{i}", "condition": condition, "text_pred": f'"{text}" {i}', "text_true": f"right {i}", "group": f"g{i}"}
        for condition, text in {"true": "right", "permuted": "wrong"}.items()
        for i in range(N)
    ]
    frame = pd.DataFrame(rows).reindex(columns=list(DECODED_COLUMNS)).astype(object).fillna("")
    path = tmp_path / "out" / "sub-01" / "beh" / "sub-01_task-look_desc-decoded_beh.tsv"
    write_tsv(path, frame.assign(nll=1.0, n_tokens=2, fold=0))
    write_json(path.with_suffix(".json"), {"LeakySplit": True, "Warning": "leaks"})
    return tmp_path / "out"


def call(out: Path, *args: str) -> int:
    return companion.main(["ratings", str(out), "--participant-label", "01", *args])


def test_there_and_back(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet, beh = tmp_path / "sheet.tsv", out / "sub-01" / "beh"
    assert call(out, "--export", str(sheet)) == 0
    assert call(out, "--export", str(sheet)) == 0  # the same once more
    given = read_tsv(sheet)
    assert not {"true", "permuted"} & set(given.astype(str).to_numpy().ravel())
    right = given["text_pred"].str.contains("right")
    write_tsv(sheet, given.assign(rating=np.where(right, "4", "1")))
    capsys.readouterr()
    assert call(out, "--import", str(sheet), "--import", str(sheet)) == 0
    assert "permuted" in capsys.readouterr().out
    table = pd.read_csv(beh / "sub-01_task-look_desc-ratings_beh.tsv", sep="\t").set_index("condition")
    assert table["value"].to_dict() == {"true": 4.0, "permuted": 1.0}
    assert table.loc["permuted", "difference"] == 3.0
    told = json.loads((beh / "sub-01_task-look_desc-ratings_beh.json").read_text())
    assert (told["Raters"], told["LeakySplit"]) == (2, True)


def test_what_does_not_go_is_one_clear_line(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.tsv"

    def told(*args: str, where: Path = out) -> str:
        capsys.readouterr()
        assert call(where, *args) != 0
        return capsys.readouterr().err

    assert "either --export or --import" in told()
    assert "no sheet was given out" in told("--import", str(sheet))
    assert "no decoded texts" in told("--export", str(sheet), where=tmp_path)
    assert call(out, "--export", str(sheet)) == 0
    assert "no item is rated" in told("--import", str(sheet))
    assert "no such file" in told("--import", str(tmp_path / "other.tsv"))
    assert "another sheet was given out before" in told("--export", str(sheet), "--seed", "5")
