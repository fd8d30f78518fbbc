"""Works cited by method texts: ``[@key]`` in sentences names one of data/templates/reports/references.toml.

>>> cited("Said before [@bleu; @rouge].")
'Said before (Papineni et al., 2002; Lin, 2004).'
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

_CITATION = re.compile(r"\[@([\w-]+(?:; ?@[\w-]+)*)\]")


@cache
def references() -> dict[str, dict[str, str]]:
    """Key -> fields of a cited work."""
    return tomllib.loads((files("bids_brainlm") / "data" / "templates" / "reports" / "references.toml").read_text("utf-8"))


def keys_of(text: str) -> list[str]:
    """Keys of the works that a text cites, in the order of the text."""
    return list(dict.fromkeys(key for group in _CITATION.findall(text) for key in _split(group)))


def cited(text: str) -> str:
    """The text with authors and years instead of keys."""
    return _CITATION.sub(lambda match: "(" + "; ".join(references()[key]["cite"] for key in _split(match[1])) + ")", text)


def listed(keys: Iterable[str]) -> list[str]:
    """A line of Markdown for each work, sorted."""
    works = [references()[key] for key in keys]
    return sorted(
        f"- {w['author'].replace(' and ', '; ')} ({w['year']}). {w['title']}. {w['venue']}. <{w['url']}>" for w in works
    )


def bibtex(keys: Iterable[str]) -> str:
    """BibTeX entries of the works."""
    return "\n".join(_entry(key, references()[key]) for key in keys)


def _entry(key: str, work: dict[str, str]) -> str:
    place = {"article": "journal", "inproceedings": "booktitle"}.get(work["type"], "howpublished")
    # Braces keep the capitals of the title.
    fields = {"author": work["author"], "title": f"{{{work['title']}}}", "year": work["year"], place: work["venue"]}
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in {**fields, "url": work["url"]}.items())
    return f"@{work['type']}{{{key},\n{lines}\n}}\n"


def _split(group: str) -> list[str]:
    return [key.strip().removeprefix("@") for key in group.split(";")]
