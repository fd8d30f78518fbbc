"""What one call of the command line asks for beyond settings, and how it ended.

The *call* is the part of it that must be known to run again: the folders, the level and the labels. A resolved configuration
file holds it in the table ``[call]``, so that the file alone repeats a run.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_brainlm.config.tree import Config
from bids_brainlm.config.values import near
from bids_brainlm.errors import ConfigError

CALL = {
    "bids_dir": "text",
    "output_dir": "text",
    "level": "text",
    "participant_label": "a list of text",
    "derivatives": "a table of text",
    "work_dir": "text",
}
"""Names in ``[call]``, and what each holds."""


@dataclass(frozen=True)
class Request:
    """One call of the command line: what to work on, where, and how.

    Parameters
    ----------
    bids_dir, out_dir, work_dir : Path
        Raw dataset, derivatives dataset that is written, and folder for what may be thrown away; all absolute.
    level : {"participant", "group"}
    participants : tuple of str
        Labels without ``sub-``, as asked for; all of the dataset when empty.
    derivatives : dict of str to Path
        Folders given by ``-d name=path``; empty when none was given.
    config : Config
    verbosity : int
        Number of ``-v`` minus number of ``-q``.
    reports_only : bool
        Write the reports again from the outputs that are there.
    boilerplate_only : bool
        Write the method text and its references, and nothing else.
    clean_workdir : bool
        Take away what earlier runs left in the work folder, checkpoints included, before any work.
    write_graph : bool
        Draw the stages and what they wait for.
    database_dir : Path or None
        Folder of the index of input files (their hashes), which jobs may share; the work folder when None.
    plugin_file : Path or None
        YAML file that names a Nipype plugin and its arguments.
    debug : tuple of str
        ``pdb`` runs all in one process and stops in the debugger.
    resource_monitor : bool
        Write time and peak memory of every stage that ran to ``logs/*_resources.tsv``, from their stamps.
    command : tuple of str
        The command as typed, for the provenance.
    origins : dict of str to str
        Dotted name of a setting -> where its value comes from (``default``, ``recipe cortext``, ``--llm`` ...).
    """

    bids_dir: Path
    out_dir: Path
    level: str
    participants: tuple[str, ...]
    derivatives: dict[str, Path]
    work_dir: Path
    config: Config
    verbosity: int = 0
    reports_only: bool = False
    boilerplate_only: bool = False
    clean_workdir: bool = False
    write_graph: bool = False
    database_dir: Path | None = None
    plugin_file: Path | None = None
    debug: tuple[str, ...] = ()
    resource_monitor: bool = False
    command: tuple[str, ...] = ()
    origins: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How the work on one participant ended: ``errors`` is empty and ``exit_code`` 0 when all is well."""

    participant: str
    errors: tuple[str, ...] = ()
    exit_code: int = 0


def level_of(verbosity: int) -> int:
    """Number of ``-v`` minus number of ``-q`` -> level of our own logger.

    >>> logging.getLevelName(level_of(-1)), logging.getLevelName(level_of(0)), logging.getLevelName(level_of(3))
    ('WARNING', 'INFO', 'DEBUG')
    """
    return {-2: logging.ERROR, -1: logging.WARNING, 0: logging.INFO}.get(max(verbosity, -2), logging.DEBUG)


def call_of(request: Request) -> dict[str, Any]:
    """The call as plain data; `read_call` accepts it."""
    return {
        "bids_dir": str(request.bids_dir),
        "output_dir": str(request.out_dir),
        "level": request.level,
        "participant_label": list(request.participants),
        "derivatives": {name: str(path) for name, path in request.derivatives.items()},
        "work_dir": str(request.work_dir),
    }


def read_call(table: Any, where: str) -> dict[str, Any]:
    """The table ``[call]`` of a file, checked; any part of it may be missing.

    Raises
    ------
    ConfigError
        For an unknown name or a value of the wrong kind.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"call is {table!r}; expected a table (in {where})")
    for name, value in table.items():
        if name not in CALL:
            raise ConfigError(f"no name 'call.{name}'{near(name, CALL)} (in {where})")
        if not _is(CALL[name], value):
            raise ConfigError(f"call.{name} is {value!r}; expected {CALL[name]} (in {where})")
    return dict(table)


def _is(kind: str, value: Any) -> bool:
    if kind == "text":
        return isinstance(value, str)
    items = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [None]
    return isinstance(value, list) == (kind == "a list of text") and all(isinstance(item, str) for item in items)
