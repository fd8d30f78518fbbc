"""The tutorial of five minutes is typed, block by block, in an empty folder: it prints what it says and leaves what it names."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "tutorials" / "five-minutes.md"
FENCE = re.compile(r"^```(sh|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def _blocks() -> Iterator[tuple[str, str]]:
    """Each shell block with the output that follows it, empty where none is shown."""
    found = FENCE.findall(PAGE.read_text("utf-8"))
    for (kind, text), (after, shown) in zip(found, [*found[1:], ("sh", "")], strict=True):
        if kind == "sh":
            yield text, shown if after == "text" else ""


def _type(block: str, folder: Path) -> str:
    scripts = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["sh", "-e", "-c", block],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}"
    return done.stdout


def _is_shown(shown: str, printed: str) -> bool:
    # A progress bar overwrites its line; what a terminal shows of it is the end.
    lines = "\n".join(line.rpartition("\r")[2] for line in printed.splitlines())
    return doctest.OutputChecker().check_output(shown, f"{lines}\n", LIKE)


def test_output_that_differs_would_be_noticed() -> None:
    assert _is_shown("a ...\nlast b\n", "a 3\nbar 10%\rlast b\n")
    assert not _is_shown("a ...\nlast b\n", "a 3\nlast c\n")


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    blocks = list(_blocks())
    assert len(blocks) >= 9
    assert sum(bool(shown) for _, shown in blocks) >= 7
    for block, shown in blocks:
        printed = _type(block, tmp_path)
        if "--dry-run" in block:
            assert not (tmp_path / "out").exists()
        if shown:
            assert _is_shown(shown, printed), f"{block}\nprinted:\n{printed}\nexpected:\n{shown}"
    named = set(re.findall(r"`((?:bids|out)/[^`\s]+)`", PAGE.read_text("utf-8")))
    assert {"out/sub-01.html", "out/group.html"} <= named
    assert [name for name in sorted(named) if not (tmp_path / name).is_file()] == []
