"""Every test that reports give keeps its level on data without an effect, some that are not used do not: 200 draws each.

`benchmarks/nulls.py` makes the data and, with thousands of draws, the table of docs/explanation/statistics.md.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "nulls.py"
N = 200


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nulls_of_benchmarks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


nulls = _loaded()


@pytest.mark.parametrize("item", [item for item in nulls.NULLS if not item.but], ids=lambda item: f"{item.test}: {item.kept}")
def test_the_rate_of_false_findings_is_that_of_the_level(item: object) -> None:
    assert nulls.rates(item, N).max() <= nulls.bound(N)


@pytest.mark.parametrize("kept", ["8 runs of 3 trials", "3 texts a response"])
def test_what_is_not_used_finds_too_much(kept: str) -> None:
    """Otherwise these simulations could not tell a good test from a bad one."""
    (item,) = (item for item in nulls.NULLS if item.but == nulls.NOT_USED and item.kept == kept)
    assert nulls.rates(item, 3 * N).max() > nulls.bound(3 * N)
