r"""TextGrids of Praat: intervals of a tier, from any of the three text formats.

Praat reads the long, the short and the chronological format by one rule, and so does this reader: a file is its free-standing
numbers and quoted strings, in order; every other word in it is decoration. A quotation mark inside a string is doubled.

>>> head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n'
>>> short = head + '0\n2\n<exists>\n1\n"IntervalTier"\n"word"\n0\n2\n1\n0.5\n1\n"hi"\n'
>>> parse_textgrid(short, "a.TextGrid")
[Tier(name='word', intervals=((0.5, 1.0, 'hi'),))]
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bids_brainlm.errors import InputError
from bids_brainlm.io.files import read_bytes

LOGGER = logging.getLogger(__name__)

Interval = tuple[float, float, str]
"""Begin and end in s, label; a point begins and ends at once."""

_TOKEN = re.compile(r'"(?P<text>(?:[^"]|"")*)"|(?<!\S)!.*|(?<![^\s=])(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?!\S)')
_CHRONOLOGICAL = "Praat chronological TextGrid text file"
_POINTS = "TextTier"


@dataclass(frozen=True)
class Tier:
    """Name and intervals of a tier, in the order of the file."""

    name: str
    intervals: tuple[Interval, ...]


def read_tier(path: Path, name: str) -> Tier:
    """The tier of that name; failing one, the one that differs in case or by a plural s only.

    Raises
    ------
    MissingInputError
        When there is no such file, or its content was not fetched.
    InputError
        When it is no TextGrid, or has no such tier.
    """
    tiers = parse_textgrid(_decode(read_bytes(path), path), path)
    alike = [tier for tier in tiers if tier.name.casefold().strip() in (name.casefold(), f"{name.casefold()}s")]
    exact = [tier for tier in tiers if tier.name == name] or alike
    if len(exact) != 1:
        what = f"{len(exact)} tiers named {name!r}" if exact else f"no tier {name!r}"
        listed = ", ".join(tier.name for tier in tiers) or "no tier at all"
        raise InputError(what, path, expected=f"one of {listed}", remedy="--set window.tier=")
    return exact[0]


def parse_textgrid(text: str, path: str | os.PathLike[str]) -> list[Tier]:
    """Text of a TextGrid -> its tiers; ``path`` is for the message.

    Raises
    ------
    InputError
        When it is no TextGrid, or ends too early.
    """
    tokens = _tokens(text)
    try:
        first = next(tokens)
        if first == _CHRONOLOGICAL:
            return _chronological(tokens)
        if not str(first).startswith("ooTextFile") or not str(next(tokens)).startswith("TextGrid"):
            raise ValueError("another kind of file")
        return _by_tier(tokens)
    except (StopIteration, ValueError, IndexError) as error:
        expected = "a TextGrid of Praat, saved as text and complete"
        raise InputError("not a readable TextGrid", path, expected=expected, remedy="save it again with Praat") from error


def _decode(data: bytes, path: Path) -> str:
    """Text in one of the encodings that Praat writes: UTF-8, UTF-16, or ISO Latin-1."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif b"\x00" in data[:2]:
        encodings = ["utf-16-be" if data[:1] == b"\x00" else "utf-16-le"]
    else:
        encodings = ["utf-8-sig", "latin-1"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding == "latin-1":
            LOGGER.warning("%s is not UTF-8 and is read as ISO Latin-1 (remedy: save it as UTF-8)", path)
        return text
    raise InputError("not text", path, expected="UTF-8 or UTF-16", remedy="save it as UTF-8")


def _tokens(text: str) -> Iterator[str | float]:
    for match in _TOKEN.finditer(text):
        if match["text"] is not None:
            yield match["text"].replace('""', '"')
        elif match["number"]:
            yield float(match["number"])


def _number(tokens: Iterator[str | float]) -> float:
    return float(next(tokens))


def _head(tokens: Iterator[str | float]) -> tuple[str, str]:
    """Class and name of a tier; its limits say nothing that its intervals do not."""
    kind, name = str(next(tokens)), str(next(tokens))
    _limits(tokens)
    return kind, name


def _limits(tokens: Iterator[str | float]) -> tuple[float, float]:
    return _number(tokens), _number(tokens)


def _entry(tokens: Iterator[str | float], kind: str) -> Interval:
    begin = _number(tokens)
    end = begin if kind == _POINTS else _number(tokens)
    label = next(tokens)
    if not isinstance(label, str):
        raise ValueError(f"{label} in the place of a label")
    return begin, end, label.strip()


def _by_tier(tokens: Iterator[str | float]) -> list[Tier]:
    """Long and short format: tiers one after the other."""
    tiers = []
    _limits(tokens)
    for _ in range(int(_number(tokens))):
        kind, name = _head(tokens)
        rows = [_entry(tokens, kind) for _ in range(int(_number(tokens)))]
        tiers.append(Tier(name, tuple(rows)))
    return tiers


def _chronological(tokens: Iterator[str | float]) -> list[Tier]:
    """All tiers first, then their intervals in order of time, each with the number of its tier."""
    _limits(tokens)
    heads = [_head(tokens) for _ in range(int(_number(tokens)))]
    entries: list[list[Interval]] = [[] for _ in heads]
    for place in tokens:
        index = int(place) - 1
        if index < 0:
            raise ValueError(f"tier {index + 1}")
        entries[index].append(_entry(tokens, heads[index][0]))
    return [Tier(name, tuple(rows)) for (_, name), rows in zip(heads, entries, strict=True)]
