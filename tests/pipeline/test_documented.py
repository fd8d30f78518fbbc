"""docs/reference/outputs.md against five studies: nothing is written that is not described, and the other way round.

A row whose meaning begins with *Only* tells of something that these studies need not have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from bids_brainlm.io.files import read_header

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "outputs.md"
TABLE = re.compile(r"((?:^\|.*\n)+)", re.MULTILINE)
NAMED = re.compile(r"^(?:Columns|Keys) of (.+):\n\n(?:<!-- .* -->\n)?((?:^\|.*\n)+)", re.MULTILINE)
PLACES = {
    "XX": "[A-Za-z0-9]+",
    "{L,R}": "[LR]",
    "<run>": r"sub-[A-Za-z0-9]+_task-[^/]+?_run-\d+",
    "<space>": "space-[^/]+",
    "<task>": "task-[A-Za-z0-9+]+",
    "<k>": r"\d+",
    "<time>_<uuid>": r"\d{8}-\d{6}_[0-9a-f-]{36}",
    "<stage>": "[^/]+",
    "<crash>": "[^/]+",
    "<lock>": "[^/]+",
}


@dataclass(frozen=True)
class Row:
    """Names in the first cell of a row, and whether the studies must have them."""

    names: tuple[str, ...]
    required: bool


def _rows(table: str) -> list[Row]:
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()[2:]]
    return [Row(tuple(re.findall(r"`([^`]+)`", cells[0])), not cells[1].strip().startswith("Only")) for cells in lines]


def _tables(head: str) -> Iterator[Row]:
    for table in TABLE.findall(PAGE.read_text("utf-8")):
        if table.startswith(f"| {head} |"):
            yield from _rows(table)


def _files() -> list[tuple[str, bool]]:
    """Patterns of file names; ``.json`` alone is the JSON file beside the one before it."""
    out = []
    for row in _tables("file"):
        first = row.names[0]
        for name in row.names:
            beside = re.sub(r"(\.nii)?\.\w+$", ".json", first)
            out.append((beside if name == ".json" else name, row.required))
    return out


def _pattern(name: str) -> re.Pattern[str]:
    text = re.escape(name).replace("LSS", "(?:LS[AS]|AUTO|cleaned)")
    for place, means in PLACES.items():
        text = text.replace(re.escape(place), means)
    return re.compile(text)


def _described(file: str) -> dict[str, bool]:
    """Names of columns or keys that the page gives for a file -> whether they are required."""
    out = {}
    for whose, table in NAMED.findall(PAGE.read_text("utf-8")):
        if any(fnmatchcase(file, glob) for glob in re.findall(r"`([^`]+)`", whose)):
            out |= {name: row.required for row in _rows(table) for name in row.names}
    return out


def _names(path: Path) -> list[str]:
    return read_header(path) if path.suffix == ".tsv" else list(json.loads(path.read_text("utf-8")))


@pytest.fixture(scope="module")
def studies(volume_done: Any, surface_done: Any, tuned_done: Any, story_done: Any, questions_done: Any) -> list[Any]:
    return [volume_done, surface_done, tuned_done, story_done, questions_done]


@pytest.fixture(scope="module")
def written(studies: list[Any]) -> dict[str, Path]:
    """Files of all studies by their names in the output folder."""
    # They are of the same participants: what the first one wrote under a name stands for all.
    return {path.relative_to(s.out).as_posix(): path for s in studies[::-1] for path in s.out.rglob("*") if path.is_file()}


def test_the_page_is_read() -> None:
    assert len(_files()) > 30
    assert {"trial_id", "nll"} <= set(_described("sub-01/beh/sub-01_task-x_desc-decoded_beh.tsv"))
    assert _described("sub-01/x.tsv") == {}
    assert not _pattern("sub-XX/func/<run>_<space>_stat-effect_desc-LSS_statmap.nii.gz").fullmatch("sub-01/func/x.nii.gz")


def test_every_file_is_described(written: dict[str, Path]) -> None:
    patterns = [_pattern(name) for name, _ in _files()]
    assert [name for name in sorted(written) if not any(pattern.fullmatch(name) for pattern in patterns)] == []


def test_every_file_that_is_described_is_written(written: dict[str, Path]) -> None:
    wanted = [name for name, required in _files() if required]
    assert [name for name in wanted if not any(_pattern(name).fullmatch(file) for file in written)] == []


@pytest.mark.parametrize("kind", [".tsv", ".json"])
def test_every_column_and_key_is_described(kind: str, written: dict[str, Path], studies: list[Any]) -> None:
    """A JSON file beside a table may have ``Description`` and the columns; events have the columns of the input too."""
    unknown = {}
    source = read_header(studies[0].events())
    for file, path in written.items():
        if path.suffix == kind:
            known = set(_described(file))
            table = path.with_suffix(".tsv")
            if kind == ".json" and table.is_file():
                known |= {"Description", *_names(table)}
            if file.endswith("_desc-trials_events.tsv"):
                known |= set(source)
            if file.endswith("_desc-words_events.tsv"):
                known |= {"part"}  # of the events of the study of stories
            rest = [name for name in _names(path) if not any(fnmatchcase(name, each) for each in known)]
            if rest:
                unknown[file] = rest
    assert unknown == {}


@pytest.mark.parametrize("kind", [".tsv", ".json"])
def test_every_column_and_key_that_is_described_is_written(kind: str, written: dict[str, Path]) -> None:
    missing = {}
    for whose, table in NAMED.findall(PAGE.read_text("utf-8")):
        for glob in re.findall(r"`([^`]+)`", whose):
            files = [path for file, path in written.items() if path.suffix == kind and fnmatchcase(file, glob)]
            if glob.endswith(kind):
                found = {name for path in files for name in _names(path)}
                wanted = [name for row in _rows(table) if row.required for name in row.names]
                rest = [name for name in wanted if not any(fnmatchcase(each, name) for each in found)]
                if rest or (wanted and not files):
                    missing[glob] = rest
    assert missing == {}


def test_every_table_has_its_json(written: dict[str, Path]) -> None:
    bare = [name for name in written if name.endswith(".tsv") and name.removesuffix(".tsv") + ".json" not in written]
    assert sorted(bare) == ["descriptions.tsv", "participants.tsv"]


def test_the_work_folder_is_described(studies: list[Any]) -> None:
    rows = list(_tables("in the work folder"))
    found = {path.name for study in studies for path in (study.root / "work").iterdir()}
    assert {name for row in rows if row.required for name in row.names} <= found
    assert [name for name in sorted(found) if not any(fnmatchcase(name, each) for row in rows for each in row.names)] == []
