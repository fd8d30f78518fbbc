"""Write the parts of docs/reference that come from the code, between ``<!-- generated: NAME -->`` and ``<!-- end -->``.

Usage: python docs/generate.py. The tests fail when a page is not what this would write.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import click

from bids_brainlm.cli import app, companion, exits
from bids_brainlm.cli.arguments import option_groups
from bids_brainlm.config import SECTIONS, Phase
from bids_brainlm.core.types import DECODED_COLUMNS
from bids_brainlm.evaluation.table import METRICS_COLUMNS

REFERENCE = Path(__file__).parent / "reference"
MARKED = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def page(text: str) -> str:
    """The same page with its marked parts written anew."""
    return MARKED.sub(lambda match: match[1] + PARTS[match[2]]() + match[3], text)


def settings() -> str:
    blocks = [f"## `[{name}]`\n\n{cls.__doc__}\n\n{_fields(cls)}" for name, cls in SECTIONS.items()]
    return "\n".join([*blocks, f"## `[[phases]]`\n\n{Phase.__doc__}\n\n{_fields(Phase)}"])


def _fields(cls: Any) -> str:
    hints = get_type_hints(cls)
    rows = []
    for item in dataclasses.fields(cls):
        default = {} if item.default is dataclasses.MISSING else item.default
        kind = " \\| ".join(f"`{choice}`" for choice in item.metadata["choices"]) or _kind(hints[item.name])
        flags = ", ".join(f"`{flag}`" for flag in item.metadata["flags"])
        rows.append((f"`{item.name}`", kind, f"`{json.dumps(default)}`", flags, _cell(item.metadata["help"])))
    return _table(("name", "type", "default", "option", "meaning"), rows)


def _kind(hint: Any) -> str:
    names = {
        tuple[str, ...]: "list of text",
        dict[str, Any]: "table",
        str: "text",
        int: "whole number",
        float: "number",
        bool: "boolean",
    }
    return names[hint]


def command_line() -> str:
    ctx = click.Context(app.command, info_name=app.NAME, **app.command.context_settings)
    usage = f"```\n{app.command.get_usage(ctx).removeprefix('Usage: ')}\n```\n\n"
    return usage + "\n".join(f"### {title}\n\n{_options(rows)}" for title, rows in option_groups(app.command, ctx))


def companion_commands() -> str:
    parent = click.Context(companion.command, info_name=companion.NAME, **companion.command.context_settings)
    blocks = []
    for name in companion.command.list_commands(parent):
        command = companion.command.commands[name]
        ctx = click.Context(command, info_name=name, parent=parent, **command.context_settings)
        rows = [record for group in option_groups(command, ctx) for record in group[1]]
        about = inspect.cleandoc(command.help or "")
        blocks.append(f"### `{command.get_usage(ctx).removeprefix('Usage: ')}`\n\n{about}\n\n{_options(rows)}")
    return "\n".join(blocks)


def _options(rows: Iterable[tuple[str, str]]) -> str:
    return _table(("option", "meaning"), [(f"`{_bar(spelling)}`", _cell(text)) for spelling, text in rows])


def exit_codes() -> str:
    return _table(("code", "meaning"), [(str(code), text) for code, text in exits.CODES.items()])


def _columns(columns: Mapping[str, str]) -> str:
    return _table(("column", "meaning"), [(f"`{name}`", _cell(text)) for name, text in columns.items()])


def _bar(text: str) -> str:
    return text.replace("|", "\\|")


def _cell(text: str) -> str:
    return _bar(text).replace("*", "\\*").replace("  ", " ")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


PARTS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "command-line": command_line,
    "companion": companion_commands,
    "exit-codes": exit_codes,
    "decoded": partial(_columns, DECODED_COLUMNS),
    "metrics": partial(_columns, METRICS_COLUMNS),
}


if __name__ == "__main__":
    for path in sorted(REFERENCE.glob("*.md")):
        path.write_text(page(path.read_text("utf-8")), "utf-8")
