"""What workers find imported."""

from __future__ import annotations

import multiprocessing
from importlib.util import find_spec
from multiprocessing import forkserver

import pytest

from bids_brainlm.stages.cache import Stage
from bids_brainlm.workflows import workers


def _preloaded(monkeypatch: pytest.MonkeyPatch, *stages: Stage) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(multiprocessing, "set_forkserver_preload", found.extend)
    monkeypatch.setattr(forkserver, "ensure_running", lambda: None)
    workers.warm_up(stages, "cpu")
    return found


def test_only_what_the_stages_need_is_imported_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    estimate = Stage("sub-01_estimate", "bids_brainlm.stages.estimate:estimate", "")
    light = _preloaded(monkeypatch, estimate)
    assert {"bids_brainlm.stages.estimate", "bids.layout"} <= set(light)
    assert not [name for name in light if name.startswith("transformers")]
    heavy = _preloaded(monkeypatch, estimate, Stage("sub-01_train", "bids_brainlm.stages.decode:train", "", heavy=True))
    assert {*light, "bids_brainlm.stages.decode", "transformers.modeling_utils"} == set(heavy)


def test_what_is_imported_beforehand_is_there() -> None:
    """The server of workers passes over a module that it cannot import, and would only be slow."""
    assert [name for name in (*workers._EVERY, *workers._PUT_OFF.values()) if find_spec(name) is None] == []
