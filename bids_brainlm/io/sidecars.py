"""BIDS inheritance: which sidecar or table of a data set applies to a file.

A file *applies* to another when it has the wanted suffix and extension, stands in the same folder or one above it (up to
the root of the data set), and every entity in its name is also in the other's. JSON fields are merged from the root
downwards, the nearer and more specific file winning; of tables only the nearest counts.

Folders are listed once a participant, and files that all participants share are read once, for as long as their *stamp*
(time of change, size, inode) stays the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bids_brainlm.errors import InputError
from bids_brainlm.io.files import read_json
from bids_brainlm.io.names import Name, parse, plain

EXTENSIONS = (".func.gii", ".surf.gii", ".label.gii", ".nii", ".nii.gz", ".tsv", ".json")
"""What is looked at; everything else in a folder is passed over."""

_SETTLED = 2_000_000_000
"""Nanoseconds after which a change shows in a stamp on every file system (FAT counts in steps of 2 s)."""

_Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Found:
    """A file and its parsed name."""

    path: Path
    name: Name


@dataclass(frozen=True)
class Listing:
    """What stands in a folder.

    Parameters
    ----------
    names : tuple of str
        Of everything, sorted.
    files : tuple of Found
        Those with one of `EXTENSIONS`, parsed, sorted by name.
    """

    names: tuple[str, ...] = ()
    files: tuple[Found, ...] = ()


class Folders:
    """Listings of folders, each made once; a folder that cannot be listed is a fault, and one that is not there is empty.

    One is made for each participant, so that what it holds is never old.
    """

    def __init__(self) -> None:
        self.faults: list[InputError] = []
        self._known: dict[Path, Listing] = {}

    def __call__(self, folder: Path) -> Listing:
        if folder not in self._known:
            self._known[folder] = self._list(folder)
        return self._known[folder]

    def _list(self, folder: Path) -> Listing:
        try:
            stamp = _stamp(folder)
            return _listed(folder, stamp) if stamp else _listed.__wrapped__(folder, stamp)
        except (FileNotFoundError, NotADirectoryError):
            return Listing()
        except OSError as error:
            remedy = "check its permissions, and where links lead"
            self.faults.append(InputError(f"cannot be listed ({error.strerror})", folder, remedy=remedy))
            return Listing()


def applicable(
    folders: Folders,
    root: Path,
    folder: Path,
    entities: Mapping[str, str],
    suffix: str,
    extension: str,
    beyond: Collection[str] = (),
) -> list[Found]:
    """Files that apply, from the most general to the most specific.

    Parameters
    ----------
    folders : Folders
    root : Path
        Data set.
    folder : Path
        Folder of the file they are to apply to, inside the root (it need not exist).
    entities : mapping
        Entities of that file.
    suffix, extension : str
    beyond : collection of str
        Entities that a file may have although that file has not.
    """
    out: list[Found] = []
    for level in dict.fromkeys((*_between(root, folder), folder)):
        held = [item for item in folders(level).files if (item.name.suffix, item.name.extension) == (suffix, extension)]
        held = [item for item in held if _within(item.name.entities, entities, beyond)]
        out += sorted(held, key=lambda item: len(item.name.entities))
    return out


def merged(paths: list[Path]) -> dict[str, Any]:
    """Fields of JSON sidecars, later ones winning.

    Raises
    ------
    MissingInputError, InputError
        When one cannot be read or is no JSON object.
    """
    return {key: value for path in paths for key, value in _fields(path).items()}


def _fields(path: Path) -> dict[str, Any]:
    try:
        stamp = _stamp(path)
    except OSError:
        stamp = None  # reading says why
    return _read(path, stamp) if stamp else read_json(path)


@lru_cache(maxsize=256)
def _read(path: Path, stamp: _Stamp) -> dict[str, Any]:
    return read_json(path)


@lru_cache(maxsize=64)
def _listed(folder: Path, stamp: _Stamp | None) -> Listing:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    files = [Found(folder / name, parse(name)) for name in names if name.endswith(EXTENSIONS) and name[0] != "."]
    return Listing(tuple(names), tuple(files))


def _stamp(path: Path) -> _Stamp | None:
    """None for what has just changed: it may change again without a sign."""
    status = os.stat(path)
    if abs(time.time_ns() - status.st_mtime_ns) < _SETTLED:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _within(held: Mapping[str, str], entities: Mapping[str, str], beyond: Collection[str]) -> bool:
    return all(
        plain(value) == plain(entities.get(key, "")) for key, value in held.items() if key in entities or key not in beyond
    )


def _between(root: Path, folder: Path) -> list[Path]:
    parts = folder.relative_to(root).parts[:-1]
    return [root.joinpath(*parts[:i]) for i in range(len(parts) + 1)]
