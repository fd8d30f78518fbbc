"""Where settings come from: preset < file < flags < ``--set``."""

from __future__ import annotations

import importlib.resources
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_brainlm.config.tree import SECTIONS, Config, Phase, settings
from bids_brainlm.config.validate import assemble, build, near
from bids_brainlm.errors import ConfigError

PRESETS = importlib.resources.files("bids_brainlm") / "data" / "templates" / "presets"


def presets() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(p.name.removesuffix(".toml") for p in PRESETS.iterdir() if p.name.endswith(".toml"))


def load(
    recipe: str = "cortext",
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Config:
    """Resolve the configuration.

    Parameters
    ----------
    recipe : str
        Name of a preset, or the path of a TOML file that stands in for one.
    file : Path, optional
        TOML file whose values win over the preset's.
    flags : mapping of dotted names to values, optional
    overrides : mapping of dotted names to text, optional
        ``--set``: values in TOML syntax, bare words being strings; ``phases.0.epochs=3`` reaches into the phases.

    Raises
    ------
    ConfigError
        For an unknown name or a value of the wrong type, with the place it came from.
    """
    tree = _read_recipe(recipe)
    _located(tree, f"recipe {recipe}")
    if file is not None:
        values = _read_toml(file)
        _located(values, str(file))
        _merge(tree, values, str(file))
    for name, value in (flags or {}).items():
        _put(tree, name, value)
    for name, text in (overrides or {}).items():
        _put(tree, name, _parse(name, text))
    return build(tree)


def _located(tree: Mapping[str, Any], where: str) -> None:
    """Refuse wrong names and types of one source by itself, so that the message can say where they stand."""
    try:
        assemble(tree)
    except ConfigError as error:
        raise ConfigError(f"{error} (in {where})") from error


def _read_recipe(recipe: str) -> dict[str, Any]:
    if recipe in presets():
        return tomllib.loads((PRESETS / f"{recipe}.toml").read_text("utf-8"))
    if recipe.endswith(".toml"):
        return _read_toml(Path(recipe))
    raise ConfigError(
        f"no recipe {recipe!r}{near(recipe, presets())}; known: {', '.join(presets())}, or the path of a .toml file"
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {path} is not valid TOML: {error}") from error


def _merge(tree: dict[str, Any], other: Mapping[str, Any], where: str) -> None:
    for section, values in other.items():
        if isinstance(values, dict):
            if not isinstance(tree.setdefault(section, {}), dict):
                raise ConfigError(f"{section!r} in {where} is a table; expected a list of tables")
            tree[section].update(values)
        else:
            tree[section] = values


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
    section, _, key = name.partition(".")
    if section == "phases":
        index, _, key = key.partition(".")
        phases = tree.setdefault("phases", [])
        if not index.isdigit() or int(index) >= len(phases):
            raise ConfigError(f"no setting {name!r}; expected phases.N.name with N from 0 to {len(phases) - 1}")
        phases[int(index)][key] = value
        return
    if section in SECTIONS and key.startswith("options."):
        tree.setdefault(section, {}).setdefault("options", {})[key.removeprefix("options.")] = value
        return
    names = [known for known, _, _ in settings()]
    if name not in names:
        raise ConfigError(f"no setting {name!r}{near(name, names)}")
    tree.setdefault(section, {})[key] = value


def _parse(name: str, text: str) -> Any:
    """Value of ``--set name=text``; for a setting that is text, only quotes and brackets are syntax (a revision may read 1e5)."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, (str, list, dict)) or not _is_text(name) else text


def _is_text(name: str) -> bool:
    section, _, key = name.partition(".")
    kinds = {"phases": Phase, **SECTIONS}.get(section)
    return kinds is not None and typing.get_type_hints(kinds).get(key.rpartition(".")[2]) in (str, tuple[str, ...])
