"""Configuration: one tree, four sources in order, and nothing wrong that is accepted."""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm import config
from bids_brainlm.config import SECTIONS, Config, Phase, as_tree, bearing, build, load, presets, to_toml
from bids_brainlm.errors import ConfigError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FREE: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: st.integers(1, 10**6),
    float: st.floats(0, 0.99),
    bool: st.booleans(),
    tuple[str, ...]: st.lists(TEXT, max_size=3),
    dict[str, Any]: st.dictionaries(TEXT, st.one_of(TEXT, st.integers(-5, 5), st.booleans(), st.lists(st.floats(-1, 1)))),
}
CLOSED = {
    "input.density": st.sampled_from(["", "3k", "164k"]),
    "split.average": st.lists(st.sampled_from(["train", "validation", "test"]), max_size=2),
    "split.source": st.just("column"),
    "phases.train": st.lists(st.sampled_from(config.GROUPS), min_size=1, max_size=2),
}


def _section(name: str, cls: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    hints = typing.get_type_hints(cls)
    values = {}
    for item in dataclasses.fields(cls):
        choices = item.metadata["choices"]
        free = st.sampled_from(choices) if choices else FREE[hints[item.name]]
        values[item.name] = CLOSED.get(f"{name}.{item.name}", free)
    return st.fixed_dictionaries({}, optional=values)


TREES = st.fixed_dictionaries(
    {"phases": st.lists(_section("phases", Phase), max_size=2), "split": _section("split", SECTIONS["split"])},
    optional={name: _section(name, cls) for name, cls in SECTIONS.items() if name != "split"},
)


@settings(max_examples=150, deadline=None)
@given(TREES.filter(lambda tree: tree["split"].get("scheme") in (None, "single", "kfold") or "source" in tree["split"]))
def test_toml_round_trip(tree: dict[str, Any]) -> None:
    built = build(tree)
    assert build(tomllib.loads(to_toml(built))) == built
    assert build(as_tree(built)) == built


@pytest.mark.parametrize("name", presets())
def test_every_preset_validates_and_reloads_equal(name: str, tmp_path: Path) -> None:
    resolved = load(name)
    (tmp_path / "same.toml").write_text(to_toml(resolved), "utf-8")
    assert load(str(tmp_path / "same.toml")) == resolved
    assert resolved.phases


def test_a_resolved_file_gives_the_same_on_top_of_any_recipe(tmp_path: Path) -> None:
    resolved = load(overrides={"split.folds": "3", "model.options.hidden": "17", "phases.1.epochs": "9"})
    (tmp_path / "run.toml").write_text(to_toml(resolved), "utf-8")
    assert load("cortext", tmp_path / "run.toml") == resolved


def test_order_is_preset_file_flags_set(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[split]\nfolds = 6\ntest = 0.4\nvalidation = 0.3\n")
    given_flags, overrides = {"split.folds": 7, "split.test": 0.3}, {"split.folds": "8"}
    split = load("cortext", tmp_path / "mine.toml", given_flags, overrides).split
    assert (split.folds, split.test, split.validation, split.group) == (8, 0.3, 0.3, "stimulus")


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"spilt": {}}, "did you mean 'split'"),
        ({"split": {"fold": 3}}, "did you mean 'split.folds'"),
        ({"phases": [{"epoch": 3}]}, "did you mean 'phases.0.epochs'"),
        ({"phases": [{"train": ["norm"]}]}, "did you mean 'norms'"),
        ({"phases": {"epochs": 3}}, "list of tables"),
        ({"split": 3}, "expected a table"),
        ({"split": {"folds": "3"}}, "split.folds is '3'; expected int"),
        ({"split": {"folds": 3.0}}, "expected int"),
        ({"split": {"folds": True}}, "expected int"),
        ({"split": {"test": "much"}}, "expected float"),
        ({"split": {"test": float("nan")}}, "finite"),
        ({"split": {"test": 1.0}}, "below 1"),
        ({"split": {"scheme": "kfolds"}}, "expected one of single, kfold"),
        ({"split": {"scheme": "column"}}, "split.source"),
        ({"split": {"average": ["tests"]}}, "tests"),
        ({"run": {"offline": 1}}, "expected bool"),
        ({"run": {"offline": "yes"}}, "expected bool"),
        ({"input": {"tasks": [["a"]]}}, "expected str"),
        ({"input": {"space": ["T1w"]}}, "expected str"),
        ({"input": {"density": "7k"}}, "7k"),
        ({"model": {"options": "hidden"}}, "model.options"),
        ({"model": {"options": {"a": float("inf")}}}, "model.options"),
        ({"phases": [{"epochs": 0}]}, "at least 1"),
    ],
)
def test_wrong_names_types_and_values_are_refused(tree: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(tree)
    assert said in str(caught.value)


def test_a_fault_in_a_file_names_the_file(tmp_path: Path) -> None:
    for text in ("[split]\nfold = 3\n", "[split\n", "folds"):
        (tmp_path / "mine.toml").write_text(text)
        with pytest.raises(ConfigError, match=r"mine\.toml"):
            load("cortext", tmp_path / "mine.toml")
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load("cortext", tmp_path / "nowhere.toml")


def test_an_unknown_recipe_names_the_near_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'cortext'"):
        load("cortxt")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("model.revision", "1e5", "1e5"),
        ("model.revision", "0123", "0123"),
        ("model.revision", "true", "true"),
        ("model.revision", '"quoted"', "quoted"),
        ("input.runs", "01", ("01",)),
        ("input.runs", '["01", "02"]', ("01", "02")),
        ("input.tasks", "2024-01-01", ("2024-01-01",)),
        ("split.test", "1e-1", 0.1),
        ("split.folds", "4", 4),
        ("run.offline", "true", True),
        ("model.options", "{hidden = 3}", {"hidden": 3}),
    ],
)
def test_text_of_set_is_read_by_the_type_of_the_setting(name: str, text: str, value: Any) -> None:
    section, _, key = name.partition(".")
    assert getattr(getattr(load(overrides={name: text}), section), key) == value


def test_set_reaches_phases_and_options() -> None:
    resolved = load(overrides={"phases.0.name": "3", "phases.1.learning_rate": "1e-4", "model.options.kind": "linear"})
    assert resolved.phases[0].name == "3"
    assert resolved.phases[1].learning_rate == 1e-4
    assert resolved.model.options["kind"] == "linear"
    for name in ("phases.2.epochs", "phases.x.epochs", "phases.0.epoch", "splt.folds", "split"):
        with pytest.raises(ConfigError):
            load(overrides={name: "1"})


def test_every_setting_says_what_it_is() -> None:
    for name, item, _ in config.settings():
        assert len(item.metadata["help"]) > 8, name
        assert item.metadata["help"].endswith("."), name


def test_only_bearing_settings_enter_hashes() -> None:
    resolved = load()
    changed = {name: item.default for name, item, _ in config.settings() if not item.metadata["bears"]}
    assert changed
    for name in changed:
        section, _, key = name.partition(".")
        assert key not in bearing(resolved, section)[section]
    assert bearing(resolved, "run") == {"run": {"random_seed": 42}}
    assert bearing(load(overrides={"split.folds": "9"}), "split") != bearing(resolved, "split")
    assert bearing(resolved, "phases")["phases"] == as_tree(resolved)["phases"]


def test_the_tree_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().split.folds = 3  # type: ignore[misc]
