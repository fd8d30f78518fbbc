"""Files of TemplateFlow: found on this machine, fetched where that is allowed, else named with the command that fetches them.

TemplateFlow keeps a *skeleton* of empty files in its folder (``TEMPLATEFLOW_HOME``) until they are fetched, so a file of
0 bytes is one that is not there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from bids_brainlm.errors import MissingResourceError
from bids_brainlm.io.names import ENTITIES, parse

_QUERY = {"den": "density", "seg": "segmentation", "res": "resolution"}


def template_pair(template: str, name: str, offline: bool = False) -> tuple[Path, Path]:
    """Left and right file of a template.

    Parameters
    ----------
    template : str
        ``fsLR``, ``fsaverage`` ...
    name : str
        File name with ``{}`` for the hemisphere.
    offline : bool
        Do not fetch.

    Raises
    ------
    MissingResourceError
        When a file is not on this machine and cannot be fetched.
    """
    paths = home() / f"tpl-{template}" / name.format("L"), home() / f"tpl-{template}" / name.format("R")
    absent = [path for path in paths if not is_fetched(path)]
    query = _query(name.format("L"))
    if absent and offline:
        raise MissingResourceError(
            "the template is not on this machine", absent[0], expected="TemplateFlow's file", remedy=remedy(template, query)
        )
    if absent:
        fetch(template, query, absent[0])
    return paths


def home() -> Path:
    """Folder of TemplateFlow's files."""
    given = os.environ.get("TEMPLATEFLOW_HOME")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "templateflow"


def is_fetched(path: Path) -> bool:
    """Whether a file has content."""
    return path.is_file() and path.stat().st_size > 0


def remedy(template: str, query: Mapping[str, str | int]) -> str:
    """What to do about a file that is not there: the command that fetches what a query finds."""
    arguments = ", ".join([repr(template), *(f"{key}={value!r}" for key, value in query.items())])
    return f'where there is a network, run: python -c "from templateflow import api; api.get({arguments})"'


def fetch(template: str, query: Mapping[str, str | int], path: Path, otherwise: str = "") -> None:
    """Fetch what a query finds.

    Parameters
    ----------
    template : str
    query : mapping
        As ``templateflow.api.get`` takes it.
    path : Path
        For messages, and looked for afterwards.
    otherwise : str
        What else the user could do.

    Raises
    ------
    MissingResourceError
        When it cannot be had.
    """
    try:
        from templateflow import api

        api.get(template, **query)
    except (OSError, RuntimeError) as error:
        why = f"TemplateFlow's file cannot be fetched ({error})"
        raise MissingResourceError(why, path, remedy=remedy(template, query) + otherwise) from error
    if not is_fetched(path):
        raise MissingResourceError("TemplateFlow did not fetch it", path, remedy=remedy(template, query) + otherwise)


def _query(name: str) -> dict[str, str | int]:
    """What finds a file and its twin of the other hemisphere."""
    parsed = parse(name)
    named = {key: value for key, value in parsed.entities.items() if key not in ("tpl", "hemi")}
    query: dict[str, str | int] = {_QUERY.get(key, ENTITIES.get(key, key)): value for key, value in named.items()}
    return query | {"suffix": parsed.suffix, "extension": parsed.extension}
