"""BIDS inheritance: which sidecar or table of a data set applies to a file.

A file *applies* to another when it has the wanted suffix and extension, stands in the same folder or one above it (up to
the root of the data set), and every entity in its name is also in the other's. JSON fields are merged from the root
downwards, the nearer and more specific file winning; of tables only the nearest counts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_brainlm.io.files import read_json
from bids_brainlm.io.names import parse, plain


def applicable(root: Path, folder: Path, entities: Mapping[str, str], suffix: str, extension: str) -> list[Path]:
    """Files that apply, from the most general to the most specific.

    Parameters
    ----------
    root : Path
        Data set.
    folder : Path
        Folder of the file they are to apply to, inside the root (it need not exist).
    entities : mapping
        Entities of that file.
    """
    found: list[Path] = []
    for level in dict.fromkeys((*_between(root, folder), folder)):
        if level.is_dir():
            ending = f"_{suffix}{extension}"
            names = [entry.name for entry in os.scandir(level) if entry.name.endswith(ending) or entry.name == ending[1:]]
            matching = [(parse(Path(name)).entities, level / name) for name in sorted(names)]
            matching = [(held, path) for held, path in matching if _within(held, entities)]
            found += [path for _, path in sorted(matching, key=lambda item: len(item[0]))]
    return found


def merged(paths: list[Path]) -> dict[str, Any]:
    """Fields of JSON sidecars, later ones winning."""
    return {key: value for path in paths for key, value in read_json(path).items()}


def _within(held: Mapping[str, str], entities: Mapping[str, str]) -> bool:
    return all(plain(value) == plain(entities.get(key, "")) for key, value in held.items())


def _between(root: Path, folder: Path) -> list[Path]:
    parts = folder.relative_to(root).parts[:-1]
    return [root.joinpath(*parts[:i]) for i in range(len(parts) + 1)]
