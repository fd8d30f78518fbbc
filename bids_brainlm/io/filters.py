"""Filters: which files a query may return, as BIDS Apps read them from ``--bids-filter-file``.

A filter names entities of a *query* (``bold``, ``mask``, ``confounds``, ``events``) and what they must be: a value, a list of
values, empty text (``null`` in JSON, or ``"Query.NONE"``) for an entity that must not be in the name, ``"*"`` (or
``"Query.ANY"``, ``"Query.REQUIRED"``) for one that must. Entities go by their short names (``ses``) or pybids' (``session``);
``suffix``, ``extension`` and ``datatype`` are known too.

>>> wanted = read({"bold": {"session": ["01", 2], "acquisition": "", "reconstruction": "*"}})["bold"]
>>> wanted
{'ses': ('01', '2'), 'acq': ('',), 'rec': ('*',)}
>>> say(wanted)
'ses-01|2, no acq, any rec'
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bids_brainlm.config.tree import QUERIES
from bids_brainlm.config.values import near, own_filters
from bids_brainlm.errors import ConfigError
from bids_brainlm.io.names import ENTITIES, Name, natural, plain

PROPERTIES = ("suffix", "extension", "datatype")

NONE, ANY, OPTIONAL = ("Query.NONE",), ("Query.ANY", "Query.REQUIRED", "*"), ("Query.OPTIONAL",)

_LONG = {long: short for short, long in ENTITIES.items()} | {
    "resolution": "res", "density": "den", "description": "desc", "hemisphere": "hemi", "statistic": "stat",
    "contrast_agent": "ce",
}  # fmt: skip

Filter = Mapping[str, tuple[str, ...]]
"""Entity (short) or property -> values allowed; ``""`` stands for absent, ``"*"`` for any."""


def read(tree: Mapping[str, Any]) -> dict[str, Filter]:
    """Filters by query, every query of `QUERIES` being there.

    Parameters
    ----------
    tree : mapping
        ``input.filters``.

    Raises
    ------
    ConfigError
        For an unknown query or entity (the near one is named), or a value that is no text or number.
    """
    out: dict[str, Filter] = dict.fromkeys(QUERIES, {})
    for query, entities in own_filters(tree).items():
        named = {_key(query, name): _values(query, name, value) for name, value in entities.items()}
        out[query] = {key: _labels(key, values) for key, values in named.items() if values is not None}
    return out


def passes(wanted: Filter, name: Name) -> bool:
    """Whether a file satisfies a filter; numbers are compared without leading zeros."""
    return all(_passes(values, _held(key, name)) for key, values in wanted.items())


def say(wanted: Filter) -> str:
    """A filter in words."""
    return ", ".join(_say(key, values) for key, values in wanted.items())


def there(wanted: Filter, names: Iterable[Name]) -> str:
    """Values that some files have of the entities in a filter."""
    listed, out = list(names), []
    for key in wanted:
        values = sorted({_held(key, name) for name in listed}, key=natural)
        out.append(f"{key}: {', '.join(value or '(none)' for value in values)}")
    return "; ".join(out)


def _key(query: str, name: str) -> str:
    key = _LONG.get(name, name)
    if key not in ENTITIES and key not in PROPERTIES:
        known = [*ENTITIES, *_LONG, *PROPERTIES]
        raise ConfigError(f"no entity {name!r} in input.filters.{query}{near(name, known)}")
    return key


def _values(query: str, name: str, value: Any) -> tuple[str, ...] | None:
    """None where anything goes."""
    items = list(map(str, value)) if isinstance(value, list) else [str(value)]
    if not items:
        raise ConfigError(f"input.filters.{query}.{name} is empty; expected a value, or null for an entity that is absent")
    if set(items) & set(OPTIONAL):
        return None
    return tuple("" if item in NONE else "*" if item in ANY else item for item in items)


def _labels(key: str, values: tuple[str, ...]) -> tuple[str, ...]:
    if key == "extension":
        return tuple(value if value in ("", "*") or value.startswith(".") else f".{value}" for value in values)
    return tuple(value.removeprefix(f"{key}-") for value in values)


def _held(key: str, name: Name) -> str:
    # Only folders `func` are looked into.
    own = {"suffix": name.suffix, "extension": name.extension, "datatype": "func"}
    return own[key] if key in own else name.entities.get(key, "")


def _passes(values: tuple[str, ...], held: str) -> bool:
    return (bool(held) and "*" in values) or plain(held) in map(plain, values)


def _say(key: str, values: tuple[str, ...]) -> str:
    words = {"": f"no {key}", "*": f"any {key}"}
    named = "|".join(value for value in values if value not in words)
    return " or ".join([*([f"{key}-{named}"] if named else []), *(words[value] for value in values if value in words)])
