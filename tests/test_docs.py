"""The reference pages are what the code says, and what the README promises exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("brainlm_docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["settings", "command-line", "exit-codes", "outputs"])
def test_generated_parts_are_up_to_date(name: str) -> None:
    text = (ROOT / "docs" / "reference" / f"{name}.md").read_text("utf-8")
    assert "<!-- generated:" in text
    assert _generator().page(text) == text, "run: python docs/generate.py"


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target
