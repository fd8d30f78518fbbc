"""Where settings come from: preset < file < flags < ``--set``, and for each the place that had the last word (its *origin*)."""

from __future__ import annotations

import importlib.resources
import tomllib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bids_brainlm.config.call import read_call
from bids_brainlm.config.tree import SECTIONS, SLOPPY, Config, Phase, settings
from bids_brainlm.config.validate import assemble, build
from bids_brainlm.config.values import near, read_filters
from bids_brainlm.errors import ConfigError

PRESETS = importlib.resources.files("bids_brainlm") / "data" / "templates" / "presets"


def presets() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(p.name.removesuffix(".toml") for p in PRESETS.iterdir() if p.name.endswith(".toml"))


@dataclass(frozen=True)
class Resolved:
    """Settings, where each comes from, and the call that the file holds.

    Parameters
    ----------
    config : Config
    origins : dict of str to str
        Every dotted name (``phases.0.epochs`` too) -> ``default``, ``recipe NAME``, the file, or the flag as typed.
    call : dict
        The table ``[call]`` of the file, checked; empty without one.
    """

    config: Config
    origins: dict[str, str]
    call: dict[str, Any]


def load(
    recipe: str = "cortext",
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Config:
    """The configuration alone; parameters are those of `resolve`."""
    return resolve(recipe, file, flags, overrides).config


def resolve(
    recipe: str = "cortext",
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    overrides: Mapping[str, str] | None = None,
    *,
    sloppy: bool = False,
    filter_file: Path | None = None,
    typed: Mapping[str, str] | None = None,
) -> Resolved:
    """Resolve the configuration.

    Parameters
    ----------
    recipe : str
        Name of a preset, or the path of a TOML file that stands in for one.
    file : Path, optional
        TOML file whose values win over the preset's; it may hold ``[call]``.
    flags : mapping of dotted names to values, optional
    overrides : mapping of dotted names to text, optional
        ``--set``: values in TOML syntax, bare words being strings; ``phases.0.epochs=3`` reaches into the phases.
    sloppy : bool
        Put `SLOPPY` between file and flags.
    filter_file : Path, optional
        JSON file of filters; a flag like any other.
    typed : mapping of dotted names to flags, optional
        How the flags were spelt.

    Raises
    ------
    ConfigError
        For an unknown name or a value of the wrong type, with the place it came from.
    """
    layers = _Layers()
    layers.lay(_read_recipe(recipe), f"recipe {recipe}")
    call: dict[str, Any] = {}
    if file is not None:
        values = _read_toml(file)
        call = read_call(values.pop("call", {}), str(file))
        layers.lay(values, str(file))
    for name, value in _sloppy(len(layers.tree.get("phases", []))) if sloppy else ():
        layers.put(name, value, "--sloppy")
    if filter_file is not None:
        layers.put("input.filters", read_filters(filter_file), f"--bids-filter-file {filter_file}")
    for name, value in (flags or {}).items():
        layers.put(name, value, (typed or {}).get(name, "flag"))
    for name, text in (overrides or {}).items():
        layers.put(name, _parse(name, text), "--set")
    config = build(layers.tree)
    return Resolved(config, {name: layers.origins.get(name, "default") for name in _names(config)}, call)


class _Layers:
    """Nested dictionaries, laid one over the other, and who had the last word on each name."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self.origins: dict[str, str] = {}

    def lay(self, values: Mapping[str, Any], where: str) -> None:
        """Put one source over what is there; it must make sense by itself."""
        _located(values, where)
        for section, items in values.items():
            if section == "phases":
                # A list of phases stands for itself: nothing of an earlier one shows through.
                self.tree[section] = items
                self.origins = {name: origin for name, origin in self.origins.items() if not name.startswith("phases.")}
                self.origins |= {f"phases.{i}.{key}": where for i, phase in enumerate(items) for key in phase}
            else:
                self.tree.setdefault(section, {}).update(items)
                self.origins |= {f"{section}.{key}": where for key in items}

    def put(self, name: str, value: Any, where: str) -> None:
        """Set one value by its dotted name."""
        _put(self.tree, name, value)
        whole, _, part = name.partition(".options.")
        if part:
            # The rest of the table is still from elsewhere.
            before = self.origins.get(f"{whole}.options")
            name, where = f"{whole}.options", where if before in (None, where) else f"{before}, {where}"
        self.origins[name] = where


def _sloppy(n_phases: int) -> Iterator[tuple[str, Any]]:
    for name, value in SLOPPY.items():
        for i in range(n_phases) if ".N." in name else (0,):
            yield name.replace(".N.", f".{i}."), value


def _names(config: Config) -> Iterator[str]:
    yield from (name for name, _, _ in settings())
    for i in range(len(config.phases)):
        yield from (f"phases.{i}.{item.name}" for item in fields(Phase))


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
