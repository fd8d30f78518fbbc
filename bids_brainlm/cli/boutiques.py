"""The command as a Boutiques descriptor, which platforms read to show a form and to build the command line.

Generated from the click command, so that it cannot differ from it. A *value key* such as ``[BIDS_DIR]`` marks where the value
of an *input* goes in the command line, together with the flag of the input. Positionals come first there, because an option
that takes several values would swallow them. Defaults stand in the descriptions only: a platform types a ``default-value``
into every command line, where it would win over recipe and configuration file.

Usage: python -m bids_brainlm.cli.boutiques FILE
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from bids_brainlm import __version__
from bids_brainlm.cli import exits
from bids_brainlm.cli.app import NAME, command

WRITTEN = ("output_dir", "work_dir", "bids_database_dir")
"""Folders that need not be there before; Boutiques calls what must be there a File."""


def descriptor(command: click.Command) -> dict[str, Any]:
    """Boutiques descriptor (schema 0.5) of a command.

    Parameters
    ----------
    command : click.Command
        Its options with ``multiple=True`` must take several values after one flag.
    """
    inputs = [_input(param) for param in _params(command)]
    return {
        "name": NAME,
        "tool-version": __version__,
        "schema-version": "0.5",
        "description": " ".join((command.help or "").split()),
        "command-line": " ".join([NAME, *(item["value-key"] for item in inputs)]),
        "container-image": {"type": "docker", "image": f"{NAME}:{__version__}"},
        "inputs": inputs,
        "output-files": [
            {
                "id": "dataset",
                "name": "Derivatives dataset",
                "description": "Responses, decoded texts, figures of merit and reports, as BIDS derivatives.",
                "path-template": "[OUTPUT_DIR]",
                "optional": True,
            }
        ],
        "error-codes": [{"code": code, "description": text} for code, text in exits.CODES.items() if code],
        "tags": {"domain": ["neuroinformatics"], "bids-app": ["participant", "group"]},
    }


def write(path: Path) -> Path:
    """Write the descriptor of `bids_brainlm` as JSON."""
    path.write_text(json.dumps(descriptor(command), indent=2, ensure_ascii=False) + "\n", "utf-8")
    return path


def _params(command: click.Command) -> Iterator[click.Parameter]:
    """What a platform can set, positionals first."""
    params = [param for param in command.params if not param.is_eager]
    yield from (param for param in params if isinstance(param, click.Argument))
    yield from (param for param in params if isinstance(param, click.Option))


def _input(param: click.Parameter) -> dict[str, Any]:
    """One positional or option."""
    # An option of several spellings goes by the first long one.
    flag = next((item for item in param.opts if item.startswith("--")), "")
    name = (flag.removeprefix("--") or param.opts[0]).replace("-", "_")
    text = param.help if isinstance(param, click.Option) else _POSITIONALS[name]
    about = {
        "id": name,
        "name": name.replace("_", " "),
        "description": " ".join((text or "").split()),
        "value-key": f"[{name.upper()}]",
        "optional": isinstance(param, click.Option),
    }
    if isinstance(param, click.Option) and param.count:
        # A Flag is given once or not at all; -v and -vv are two values.
        short = min(param.opts, key=len)
        return about | {"type": "String", "value-choices": [short, short + short[1:]]}
    about |= _kind(param, name) | ({"command-line-flag": flag} if flag else {})
    # Glued, so that a value may begin with a dash.
    glued = flag and about["type"] != "Flag" and not param.multiple
    return about | ({"command-line-flag-separator": "="} if glued else {})


_POSITIONALS = {
    "bids_dir": "Raw BIDS dataset.",
    "output_dir": "Derivatives dataset that is written.",
    "level": "participant: estimate, train, decode, report; group: gather what the participants wrote.",
}


def _kind(param: click.Parameter, name: str) -> dict[str, Any]:
    """Type of an input, its choices, and whether it is a list."""
    if isinstance(param, click.Option) and param.is_flag:
        return {"type": "Flag"}
    several = {"list": True, "min-list-entries": 1} if param.multiple else {}
    if isinstance(param.type, click.Choice):
        return {"type": "String", "value-choices": list(param.type.choices), **several}
    if isinstance(param.type, click.types.IntParamType):
        return {"type": "Number", "integer": True, **several}
    if isinstance(param.type, click.types.FloatParamType):
        return {"type": "Number", "integer": False, **several}
    if isinstance(param.type, click.Path) and name not in WRITTEN:
        return {"type": "File", **several}
    return {"type": "String", **several}


if __name__ == "__main__":
    write(Path(sys.argv[1]))
