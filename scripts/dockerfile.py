"""Read a Dockerfile of the kind this project writes.

An *instruction* is a keyword and the rest of its line, continuation lines joined. A *stage* is what stands from one FROM to
the next. Known: ARG, FROM, LABEL, ENV, WORKDIR, COPY, RUN, USER, ENTRYPOINT; anything else is refused, so that what is read
here is all that an engine would do.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

KEYWORDS = ("ARG", "FROM", "LABEL", "ENV", "WORKDIR", "COPY", "RUN", "USER", "ENTRYPOINT")


@dataclass(frozen=True)
class Instruction:
    """One instruction; ``rest`` is the text after the keyword, variables as written."""

    keyword: str
    rest: str


@dataclass(frozen=True)
class Stage:
    """One stage: the name after AS (empty for a last one without), the image or stage it starts from, its instructions."""

    name: str
    parent: str
    instructions: tuple[Instruction, ...]


@dataclass
class Dockerfile:
    """The ARG lines before the first FROM with their defaults, and the stages in order."""

    arguments: dict[str, str] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)


def read(path: Path, given: Mapping[str, str] | None = None) -> Dockerfile:
    """Parse a file; ``given`` are build arguments that win over the defaults of the ARG lines.

    Raises
    ------
    ValueError
        For an instruction that is none of KEYWORDS.
    """
    out = Dockerfile()
    lines: list[Instruction] = []
    name = parent = ""
    for item in instructions(path.read_text("utf-8")):
        if item.keyword == "FROM":
            if parent:
                out.stages.append(Stage(name, parent, tuple(lines)))
            parent, _, name = substitute(item.rest, out.arguments).partition(" AS ")
            lines = []
        elif not parent:
            key, _, default = item.rest.partition("=")
            out.arguments[key] = (given or {}).get(key, default)
        else:
            lines.append(item)
    out.stages.append(Stage(name, parent, tuple(lines)))
    return out


def instructions(text: str) -> list[Instruction]:
    """Instructions of a text, without comments.

    >>> instructions("# x\\nRUN a && \\\\\\n    b\\nUSER me")
    [Instruction(keyword='RUN', rest='a && b'), Instruction(keyword='USER', rest='me')]
    """
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\s*\\\n\s*", " ", kept)
    found = [Instruction(*line.strip().split(maxsplit=1)) for line in joined.splitlines() if line.strip()]
    for item in found:
        if item.keyword not in KEYWORDS:
            raise ValueError(f"{item.keyword} {item.rest}: not one of {', '.join(KEYWORDS)}")
    return found


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """``$NAME`` and ``${NAME}`` replaced; a variable that is not set is empty, as an engine has it.

    >>> substitute("python:${PYTHON}-$X", {"PYTHON": "3.11"})
    'python:3.11-'
    """
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: variables.get(match[1] or match[2], ""), text)


def pairs(rest: str, variables: Mapping[str, str]) -> dict[str, str]:
    """``A=1 B="two words"`` -> names and values.

    >>> pairs('A=1 B="two words"', {})
    {'A': '1', 'B': 'two words'}
    """
    words = [substitute(word, variables).partition("=") for word in shlex.split(rest)]
    return {name: value for name, _, value in words}
