"""Registries find what is registered, what a plug-in brings, and what a dotted name points at."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bids_brainlm import registry
from bids_brainlm.errors import ConfigError
from bids_brainlm.registry import Registry


def _points(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    made = [EntryPoint(name, value, "bids_brainlm.colours") for name, value in points]
    monkeypatch.setattr(registry, "entry_points", lambda group: [point for point in made if point.group == group])


def test_a_name_is_taken_once_and_the_same_object_twice() -> None:
    colours = Registry("colours")
    red = colours.register("red")(object())
    assert colours.register("red")(red) is red
    with pytest.raises(ConfigError, match="two colours are called 'red'"):
        colours.register("red")(object())
    assert colours.get("red") is red


def test_entry_points_are_found_but_do_not_hide_what_is_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    _points(monkeypatch, ("join", "os.path:join"), ("red", "os.path:split"))
    colours = Registry("colours")
    red = colours.register("red")(object())
    import os.path

    assert colours.get("join") is os.path.join
    assert colours.get("red") is red
    assert colours.names() == ["join", "red"]


def test_names_do_not_load_plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    _points(monkeypatch, ("broken", "no_such_module_at_all:thing"))
    assert Registry("colours").names() == ["broken"]


@pytest.mark.parametrize("value", ["no_such_module_at_all:thing", "os.path:no_such_thing"])
def test_a_broken_plug_in_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    _points(monkeypatch, ("broken", value))
    with pytest.raises(ConfigError, match=r"entry point .* \(bids_brainlm.colours\) among the colours does not load"):
        Registry("colours").get("broken")
    with pytest.raises(ConfigError, match="does not load"):
        Registry("colours").get(value)


def test_module_and_attribute() -> None:
    import os.path

    assert Registry("colours").get("os.path:join") is os.path.join


def test_a_miss_names_the_near_ones() -> None:
    colours = Registry("colours")
    for name in ("red", "green"):
        colours.register(name)(object())
    with pytest.raises(ConfigError, match=r"no 'gren' among the colours; did you mean 'green'\? known: green, red"):
        colours.get("gren")
    with pytest.raises(ConfigError, match=r"no 'xyz' among the colours; known: green, red"):
        colours.get("xyz")


def test_the_home_is_imported_at_the_first_look_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "palette_for_test.py").write_text("LOADED = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    colours = Registry("colours", home="palette_for_test")
    assert "palette_for_test" not in sys.modules
    assert colours.names() == []
    assert "palette_for_test" in sys.modules
