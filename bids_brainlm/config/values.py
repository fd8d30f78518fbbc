"""Values with a form of their own: amounts of memory, and filters of input files.

A *filter* narrows one kind of file (a *query*: bold, mask, confounds or events) by its entities: ``{bold = {acquisition =
"ap"}}``. The same file may serve fMRIPrep, whose own queries (t1w, fmap ...) are passed over here.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bids_brainlm.config.tree import QUERIES
from bids_brainlm.errors import ConfigError

LOGGER = logging.getLogger(__name__)

FOREIGN_QUERIES = ("t1w", "t2w", "flair", "sbref", "fmap", "roi", "surf", "pet", "asl", "m0scan", "dwi")
"""Queries of fMRIPrep and its kin, for files that are not read here."""

_GIGA = {"K": 1024.0**-2, "M": 1024.0**-1, "G": 1.0, "T": 1024.0}


def near(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def gigabytes(text: str) -> float:
    """Amount of memory in GB of 1024 MB; a bare number is of MB, and nothing is 0.

    Raises
    ------
    ConfigError
        For anything else.

    Examples
    --------
    >>> gigabytes("12G"), gigabytes("512"), gigabytes("1.5 GB"), gigabytes("")
    (12.0, 0.5, 1.5, 0.0)
    """
    if not text.strip():
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(?:([KMGT])i?)?B?", text.strip(), flags=re.IGNORECASE)
    amount = float(match[1]) * _GIGA[(match[2] or "M").upper()] if match else 0.0
    if not amount:
        raise ConfigError(f"{text!r} is no amount of memory; expected e.g. 12G, 500M or a number of MB")
    return amount


def read_filters(path: Path) -> dict[str, Any]:
    """What a ``--bids-filter-file`` holds; ``null`` (the entity is absent) becomes empty text, which TOML can say too.

    Raises
    ------
    ConfigError
        When the file cannot be read or is no JSON.
    """
    try:
        tree = json.loads(path.read_text("utf-8-sig"), parse_constant=str)
    except OSError as error:
        raise ConfigError(f"the filter file {path} cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the filter file {path} is not valid JSON: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"the filter file {path} holds {tree!r}; expected an object, query -> entity -> value")
    filters: dict[str, Any] = _without_null(tree)
    return filters


def _without_null(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_null(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_without_null(value) for value in tree]
    return "" if tree is None else tree


def own_filters(filters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Filters of our queries, checked; those of fMRIPrep's others are left out.

    Raises
    ------
    ConfigError
        For an unknown query, or anything but query -> entity -> value or list of values.
    """
    out = {}
    for query, entities in filters.items():
        if query.lower() in FOREIGN_QUERIES:
            LOGGER.info("the filter %r is passed over: such files are not read here", query)
            continue
        if query not in QUERIES:
            hint = near(query, [*QUERIES, *FOREIGN_QUERIES])
            raise ConfigError(f"input.filters has no query {query!r}{hint}; known: {', '.join(QUERIES)}")
        if not isinstance(entities, Mapping):
            raise ConfigError(f"input.filters.{query} is {entities!r}; expected a table, entity -> value")
        for entity, value in entities.items():
            if not all(_is_label(item) for item in (value if isinstance(value, list) else [value])):
                raise ConfigError(f"input.filters.{query}.{entity} is {value!r}; expected text, an integer, or a list of them")
        out[query] = dict(entities)
    return out


def _is_label(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)
