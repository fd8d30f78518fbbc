"""A request for a folder, and runs written into it as the rim would find them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bids_brainlm.config import Request, load
from bids_brainlm.io.runfiles import RunFiles


@pytest.fixture
def make_request(tmp_path: Path) -> Callable[..., Request]:
    """``make_request("section.name", value, ...)`` -> a request with these settings."""

    def make(*pairs: str, derivatives: dict[str, Path] | None = None) -> Request:
        config = load("cortext-small", overrides=dict(zip(pairs[::2], pairs[1::2], strict=True)))
        folders: dict[str, Any] = {"bids_dir": tmp_path / "bids", "out_dir": tmp_path / "out", "work_dir": tmp_path / "work"}
        for folder in folders.values():
            folder.mkdir(exist_ok=True)
        return Request(**folders, level="participant", participants=(), derivatives=derivatives or {}, config=config)

    return make


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunFiles]:
    """``make_run(events, confounds)`` -> a run with these tables (text), and no BOLD series."""

    def make(events: str, confounds: str = "") -> RunFiles:
        paths = {name: tmp_path / f"{name}.tsv" for name in ("events", "confounds")}
        paths["events"].write_text(events)
        if confounds:
            paths["confounds"].write_text(confounds)
        entities = {"sub": "01", "task": "x", "run": "2"}
        bold = (tmp_path / "bold.nii.gz",)
        table = paths["confounds"] if confounds else None
        return RunFiles("01", "", "x", "2", entities, bold, None, table, paths["events"], {"RepetitionTime": 2.0}, (), "T1w")

    return make
