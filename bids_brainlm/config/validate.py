"""Nested dictionaries, as TOML gives them -> the validated tree, and back."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

from bids_brainlm.config.tree import GROUPS, SECTIONS, Config, Phase, settings
from bids_brainlm.errors import ConfigError


def build(tree: Mapping[str, Any]) -> Config:
    """Nested dictionaries, as TOML gives them, -> validated `Config`."""
    config = assemble(tree)
    _check(config)
    return config


def assemble(tree: Mapping[str, Any]) -> Config:
    """The tree of some settings. Names and types are checked here; what settings say of each other in `_check`."""
    known = [*SECTIONS, "phases"]
    for name in tree:
        if name not in known:
            raise ConfigError(f"no section {name!r}{near(name, known)}")
    parts: dict[str, Any] = {name: _section(name, cls, tree.get(name, {})) for name, cls in SECTIONS.items()}
    phases = tree.get("phases", ())
    if not isinstance(phases, (list, tuple)):
        raise ConfigError(f"phases is {phases!r}; expected a list of tables, [[phases]] in TOML")
    parts["phases"] = tuple(_section(f"phases.{i}", Phase, item) for i, item in enumerate(phases))
    return Config(**parts)


def as_tree(config: Config) -> dict[str, Any]:
    """The inverse of `build`: plain dictionaries and lists."""
    tree: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return tree


def bearing(config: Config, *sections: str) -> dict[str, Any]:
    """Settings of some sections that bear on results, as plain data to be hashed."""
    tree = as_tree(config)
    for name, item, _ in settings():
        if not item.metadata["bears"]:
            section, _, key = name.partition(".")
            tree[section].pop(key)
    return {section: tree[section] for section in sections}


def to_toml(config: Config) -> str:
    """TOML text that `load` reads back to the same configuration."""
    tree = as_tree(config)
    lines: list[str] = []
    for section in SECTIONS:
        lines += [f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in tree[section].items()), ""]
    for phase in tree["phases"]:
        lines += ["[[phases]]", *(f"{key} = {_toml(value)}" for key, value in phase.items()), ""]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        keys = [key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key) for key in value]
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in zip(keys, value.values(), strict=True)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # JSON and TOML write strings and numbers alike, but for the one control character that JSON leaves bare.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def near(name: str, known: list[str]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _section(name: str, cls: type[Any], values: Any) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{name} is {values!r}; expected a table of settings")
    hints, fields = typing.get_type_hints(cls), {item.name: item for item in dataclasses.fields(cls)}
    out = {}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=2)
            hint = f"; did you mean {' or '.join(repr(f'{name}.{item}') for item in near)}?" if near else ""
            raise ConfigError(f"no setting '{name}.{key}'{hint}")
        out[key] = _coerce(f"{name}.{key}", value, hints[key])
        choices = fields[key].metadata["choices"]
        if choices and out[key] not in choices:
            raise ConfigError(f"{name}.{key} is {out[key]!r}; expected one of {', '.join(choices)}")
    return cls(**out)


def _coerce(name: str, value: Any, kind: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_coerce(name, item, typing.get_args(kind)[0]) for item in items)
    if origin is dict:
        if isinstance(value, Mapping) and _is_plain(value):
            return dict(value)
    elif kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ConfigError(f"{name} is {value}; expected a finite number")
        return float(value)
    elif kind is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    elif isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
        return value
    label = kind.__name__ if isinstance(kind, type) and not isinstance(kind, types.GenericAlias) else str(kind)
    raise ConfigError(f"{name} is {value!r}; expected {label}")


def _is_plain(value: Any) -> bool:
    """Whether JSON holds it: no dates, no infinities."""
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))


def _check(config: Config) -> None:
    for i, phase in enumerate(config.phases):
        for group in phase.train:
            if group not in GROUPS:
                raise ConfigError(
                    f"phases.{i}.train names the group {group!r}{near(group, list(GROUPS))}; known: {', '.join(GROUPS)}"
                )
        if phase.epochs < 1 or phase.batch_size < 1 or phase.accumulation < 1:
            raise ConfigError(f"phases.{i}: epochs, batch_size and accumulation must be at least 1")
    for part in config.split.average:
        if part not in ("train", "validation", "test"):
            raise ConfigError(f"split.average names {part!r}; expected train, validation or test")
    ranges = {
        "split.test": (config.split.test, 0.0, 1.0),
        "split.validation": (config.split.validation, 0.0, 1.0),
        "model.vertex_dropout": (config.model.vertex_dropout, 0.0, 1.0),
        "parcels.min_coverage": (config.parcels.min_coverage, 0.0, 1.0),
    }
    for name, (value, low, high) in ranges.items():
        if not low <= value < high and not (name == "parcels.min_coverage" and value == high):
            raise ConfigError(f"{name} is {value}; expected at least {low} and below {high}")
    if config.input.density not in ("", "3k", "10k", "41k", "164k"):
        raise ConfigError(f"input.density is {config.input.density!r}; expected 3k, 10k, 41k or 164k")
    if config.split.scheme in ("column", "list") and not config.split.source:
        wanted = "column" if config.split.scheme == "column" else "file"
        raise ConfigError(f"split.scheme is {config.split.scheme!r}, but split.source names no {wanted}")
