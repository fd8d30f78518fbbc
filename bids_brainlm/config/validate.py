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

from bids_brainlm.config.tree import SECTIONS, Config, Phase, settings
from bids_brainlm.config.values import gigabytes, near, own_filters
from bids_brainlm.errors import ConfigError


def build(tree: Mapping[str, Any]) -> Config:
    """Nested dictionaries, as TOML gives them, -> validated `Config`."""
    config = assemble(tree)
    _check(config)
    return dataclasses.replace(config, input=dataclasses.replace(config.input, filters=own_filters(config.input.filters)))


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


def to_toml(config: Config, origins: Mapping[str, str] | None = None, call: Mapping[str, Any] | None = None) -> str:
    """TOML text that `load` reads back to the same configuration.

    Parameters
    ----------
    config : Config
    origins : mapping of str to str, optional
        Dotted name -> where the value comes from; written as a comment behind it.
    call : mapping, optional
        What `call_of` gives; written as the table ``[call]``, before the settings.
    """
    tree, shown = as_tree(config), origins or {}
    blocks = [_block("[call]", "call", call, shown)] if call else []
    blocks += [_block(f"[{section}]", section, tree[section], shown) for section in SECTIONS]
    blocks += [_block("[[phases]]", f"phases.{i}", phase, shown) for i, phase in enumerate(tree["phases"])]
    # Without a word on phases, those of the recipe would come back.
    return "\n".join(blocks if tree["phases"] else ["phases = []\n", *blocks])


def _block(head: str, name: str, values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    lines = [f"{key} = {_toml(value)}{_comment(origins.get(f'{name}.{key}', ''))}" for key, value in values.items()]
    return "\n".join([head, *lines, ""])


def _comment(text: str) -> str:
    """A control character would end the comment, or the file."""
    return "  # " + "".join(char if char.isprintable() else "?" for char in text) if text else ""


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        keys = [key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key) for key in value]
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in zip(keys, value.values(), strict=True)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # JSON and TOML write strings and numbers alike, but for the one control character that JSON leaves bare.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


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
        _refuse_other(f"{name}.{key}", out[key], fields[key].metadata["choices"])
    return cls(**out)


def _refuse_other(name: str, value: Any, choices: tuple[str, ...]) -> None:
    for item in value if isinstance(value, tuple) else (value,):
        if choices and item not in choices:
            raise ConfigError(f"{name} is {item!r}; expected one of {', '.join(choices)}{near(str(item), choices)}")


def _coerce(name: str, value: Any, kind: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin is tuple:
        items = value if isinstance(value, (list, tuple)) else [value] if value != "" else []
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


_LOWEST = {
    "input.dummy_scans": -1,
    "input.depths": 1,
    "estimate.high_pass": 0,
    "estimate.max_components": 0,
    "estimate.max_fd": 0,
    "estimate.max_outliers": 0,
    "split.folds": -1,
    "window.rows": 1,
    "window.lag": 0,
    "window.chunks": 0,
    "model.components": 0,
    "model.max_prompt_tokens": 0,
    "model.max_answer_tokens": 0,
    "model.basis_components": 1,
    "model.lora_rank": 1,
    "decode.max_new_tokens": 1,
    "decode.min_new_tokens": 0,
    "decode.beams": 1,
    "decode.permutations": 0,
    "decode.pairs": 1,
    "decode.batch_size": 1,
    "evaluate.bootstrap": 1,
    "story.beams": 1,
    "story.extensions": 1,
    "story.lm_context": 1,
    "story.null_texts": 2,
    "story.permutations": 1,
    "run.nprocs": 0,
    "run.omp_nthreads": 1,
}
"""Setting -> smallest value that means something."""


def _check(config: Config) -> None:
    """What values, and settings together, must keep to.

    Raises
    ------
    ConfigError
    """
    for i, phase in enumerate(config.phases):
        if phase.epochs < 1 or phase.batch_size < 1 or phase.accumulation < 1:
            raise ConfigError(f"phases.{i}: epochs, batch_size and accumulation must be at least 1")
        linear = config.model.options.get("kind") == "joint" and config.model.options.get("layers") == 0
        if phase.solver == "ridge" and not (config.model.tokenizer == "mlp" and linear):
            wanted = 'model.tokenizer mlp with model.options = {kind = "joint", layers = 0}'
            raise ConfigError(f"phases.{i}: solver ridge needs a linear tokenizer, {wanted}")
    for name, lowest in _LOWEST.items():
        section, _, key = name.partition(".")
        value = getattr(getattr(config, section), key)
        if value < lowest:
            raise ConfigError(f"{name} is {value}; expected at least {lowest}")
    _check_shares(config)
    _check_mix(config)
    if config.input.density not in ("", "3k", "10k", "41k", "164k"):
        raise ConfigError(f"input.density is {config.input.density!r}; expected 3k, 10k, 41k or 164k")
    if config.split.scheme in ("column", "list") and not config.split.source:
        wanted = "column" if config.split.scheme == "column" else "file"
        raise ConfigError(f"split.scheme is {config.split.scheme!r}, but split.source names no {wanted}")
    if config.split.leave_out and not config.evaluate.facts:
        raise ConfigError("split.leave_out names categories, but there is no table of facts; set --facts")
    _check_windows(config)
    try:
        gigabytes(config.run.memory)
    except ConfigError as error:
        raise ConfigError(f"run.memory: {error}") from error


def _check_mix(config: Config) -> None:
    weights = list(config.text.mix.values())
    numbers = [value for value in weights if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0]
    if len(numbers) < len(weights) or (weights and not any(numbers)):
        raise ConfigError(f"text.mix is {config.text.mix}; expected a weight of 0 or more for each kind of text, and one above 0")
    if (config.text.mix or config.split.leave_out_questions) and (config.window.words or config.window.chunks):
        raise ConfigError(
            "text.mix and split.leave_out_questions are of captions and questions, not of words with times or chunks"
        )


def _check_windows(config: Config) -> None:
    for name in ("window.seconds", "split.block", "split.amount", "story.seconds"):
        section, _, key = name.partition(".")
        value = getattr(getattr(config, section), key)
        if value <= 0:
            raise ConfigError(f"{name} is {value}; expected more than 0")
    if config.split.amount > 1:
        raise ConfigError(f"split.amount is {config.split.amount}; expected at most 1")
    if not config.window.context or min(config.window.context) < 0:
        raise ConfigError(f"window.context is {list(config.window.context)}; expected numbers of windows, 0 or more")
    if config.window.words and config.window.chunks:
        raise ConfigError("window.words and window.chunks exclude each other: a text over time is not cut into chunks")
    if config.window.words and (config.estimate.max_fd or config.estimate.max_outliers):
        raise ConfigError("estimate.max_fd and estimate.max_outliers are limits on trials, which words with times have none of")
    if not config.window.words and config.split.scheme == "blocks":
        raise ConfigError("split.scheme is 'blocks', which divides words with times; set --words")
    if config.story.decoders and not config.window.words:
        raise ConfigError("story.decoders reconstruct words with times; set --words")
    if config.decode.min_new_tokens > config.decode.max_new_tokens:
        raise ConfigError("decode.min_new_tokens is larger than decode.max_new_tokens")


def _check_shares(config: Config) -> None:
    ranges = {
        "split.test": (config.split.test, 0.0, 1.0),
        "split.validation": (config.split.validation, 0.0, 1.0),
        "model.vertex_dropout": (config.model.vertex_dropout, 0.0, 1.0),
        "parcels.min_coverage": (config.parcels.min_coverage, 0.0, 1.0),
    }
    for name, (value, low, high) in ranges.items():
        if not low <= value < high and not (name == "parcels.min_coverage" and value == high):
            raise ConfigError(f"{name} is {value}; expected at least {low} and below {high}")
