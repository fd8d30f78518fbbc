r"""Tables and JSON, read as strictly as BIDS writes them, and written so that nobody ever sees half a file.

A BIDS *table* is UTF-8 text, one row a line, fields parted by tabs, the first line naming the columns, ``n/a`` for a
missing value. Real tables also come with a byte order mark, Windows line ends, or the quotation marks that spreadsheets add.
Writing is *atomic*: into a hidden file beside the target, flushed to the disk, then renamed. What several processes write
together is written under a *lock*, an empty file below ``logs/locks``; a hidden file that a killed process left behind is a
*remnant*, which the next holder of the lock takes away.

>>> parse_tsv("onset\ttext\r\n1\tn/a\r\n2\t\"say \"\"hi\"\"\"\r\n", "events.tsv")
{'onset': ['1', '2'], 'text': [None, 'say "hi"']}
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from bids_brainlm.errors import InputError, MissingInputError, OutputError

Columns = dict[str, list[str | None]]


def read_tsv(path: Path) -> pd.DataFrame:
    """A BIDS table with every value as text, ``None`` where it is missing.

    Raises
    ------
    MissingInputError
        When there is no such file (or a link to content that was not fetched).
    InputError
        When it is not UTF-8, a line has too few or too many fields, or a column name repeats.
    """
    return pd.DataFrame(parse_tsv(read_text(path), path), dtype=object)


def read_header(path: Path) -> list[str]:
    """Column names of a table, without reading the rest of it."""
    if not path.is_file():
        read_text(path)
    with path.open("rb") as handle:
        first = handle.readline()
    try:
        return list(parse_tsv(first.decode("utf-8-sig"), path))
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text (byte {error.start})", path, remedy="save it as UTF-8") from error


def parse_tsv(text: str, path: str | os.PathLike[str]) -> Columns:
    """Text of a table -> columns; ``path`` is for the messages."""
    lines = [line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line.strip("\t ")]
    if not lines:
        raise InputError("the table is empty", path, expected="a first line with column names")
    rows = [line.split("\t") for line in lines]
    if any(len(row) != len(rows[0]) for row in rows):
        quoted = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t"))
        rows = [row for row in quoted if row] if '"' in text else rows
    header = [_unquote(name).strip() for name in rows[0]]
    if len(set(header)) != len(header):
        raise InputError(f"column names repeat ({', '.join(header)})", path, expected="a name of its own for each column")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise InputError(f"line {number} has {len(row)} fields", path, expected=f"{len(header)}, parted by tabs")
    return {name: [_value(row[i]) for row in rows[1:]] for i, name in enumerate(header)}


def _value(field: str) -> str | None:
    value = _unquote(field).strip()
    return None if value in ("", "n/a") else value


def _unquote(field: str) -> str:
    inner = field[1:-1]
    if len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return field


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises
    ------
    InputError
        When it is not valid JSON, or not an object.
    """
    try:
        tree = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON ({error})", path, remedy="correct or remove the file") from error
    if not isinstance(tree, dict):
        raise InputError(f"the JSON holds a {type(tree).__name__}", path, expected="an object with named fields")
    return tree


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, without a byte order mark."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text (byte {error.start})", path, remedy="save it as UTF-8") from error


def read_bytes(path: Path) -> bytes:
    """Content of a text file in whatever encoding.

    Raises
    ------
    MissingInputError
        When there is no such file (or a link to content that was not fetched).
    InputError
        When it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        remedy = "fetch its content (git annex / datalad get)" if Path(path).is_symlink() else "check the path"
        raise MissingInputError("no such file", path, remedy=remedy) from error
    except OSError as error:
        remedy = "put the file there, with the right to read it"
        raise InputError(f"cannot be read ({error.strerror})", path, expected="a text file", remedy=remedy) from error


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path to write to, in the same folder and with the same extension, that becomes ``path`` if all goes well.

    The folder is made. On an exception the temporary file is removed and what stood at ``path`` stays as it was.

    Raises
    ------
    OutputError
        When the disk is full or the folder cannot be written.
    """
    path = Path(path)
    make_folder(path.parent)
    stem, dot, extension = path.name.lstrip(".").partition(".")
    temporary = path.with_name(f".{stem[:80]}-{uuid.uuid4().hex}{dot}{extension}")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in _FULL or _is_about(error, path.parent):
            raise _unwritable(error, path) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> Path:
    """Make a folder with all above it.

    Raises
    ------
    OutputError
        When it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(error, folder) from error
    return folder


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_REMNANT = re.compile(r"\.(.+)-[0-9a-f]{32}(\.[^/]*)?|\..+\.partial")


def _is_about(error: OSError, folder: Path) -> bool:
    """Whether it is this folder that cannot be written, and not an input that cannot be read."""
    named = error.filename is not None and Path(os.fsdecode(error.filename)).parent == folder
    return named and error.errno in {errno.EACCES, errno.EPERM}


def _unwritable(error: OSError, path: Path) -> OutputError:
    remedy = (
        "free space, or choose another place" if error.errno in _FULL - {errno.EROFS} else "choose a folder that can be written"
    )
    return OutputError(f"cannot be written ({error.strerror})", path, remedy=remedy)


@contextmanager
def locked(out_dir: Path, name: str, *, seconds: float = 600) -> Iterator[None]:
    """Hold the lock of one thing in an output dataset: ``dataset`` for what all processes share, else ``sub-01`` ...

    The lock ends with the process, however that ends.

    Raises
    ------
    OutputError
        When another process holds it for longer than ``seconds``.
    """
    path = make_folder(out_dir / "logs" / "locks") / f"{name}.lock"
    try:
        with FileLock(path, timeout=seconds):
            yield
    except Timeout as error:
        remedy = "wait for it to end, or end it; then give the same command again"
        raise OutputError(f"another run is working on {name}", path, remedy=remedy) from error
    except OSError as error:
        if Path(os.fsdecode(error.filename or "")) == path:
            raise _unwritable(error, path) from error
        raise


def remove_remnants(folder: Path, prefix: str | tuple[str, ...] = "", *, deep: bool = False) -> None:
    """Take away what a killed process had not finished writing; only where no other process can be writing.

    Parameters
    ----------
    folder : Path
    prefix : str or tuple of str
        How the names of the finished files would begin.
    deep : bool
        Whether folders below are cleaned too.
    """
    for path in folder.rglob(".*") if deep else folder.glob(".*"):
        if _REMNANT.fullmatch(path.name) and path.name[1:].startswith(prefix) and path.is_file():
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text atomically; a file that already holds it is not touched."""
    data = text.encode("utf-8")
    if not (path.is_file() and path.read_bytes() == data):
        with atomic_write(path) as temporary:
            temporary.write_bytes(data)
    return path


def write_json(path: Path, tree: Mapping[str, Any]) -> Path:
    """Write a JSON object atomically; arrays become lists and paths text.

    Raises
    ------
    ValueError
        For a number that JSON has no word for (NaN, infinity).
    """
    return write_text(path, json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def write_tsv(path: Path, table: pd.DataFrame | Mapping[str, Sequence[Any]]) -> Path:
    r"""Write a BIDS table atomically: ``n/a`` for missing values, tabs and line ends escaped as ``\t``, ``\n``, ``\r``."""
    # Arrays keep float32 as it is: 0.1 and not 0.10000000149011612.
    columns = {
        str(name): list(np.asarray(table[name])) if isinstance(table, pd.DataFrame) else list(table[name]) for name in table
    }
    if len({len(column) for column in columns.values()}) > 1:
        raise ValueError(f"columns of different lengths: { {name: len(column) for name, column in columns.items()} }")
    lines = ["\t".join(map(_field, columns))]
    lines += ["\t".join(map(_field, row)) for row in zip(*columns.values(), strict=True)]
    return write_text(path, "\n".join(lines) + "\n")


def _field(value: Any) -> str:
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float | np.floating) and np.isnan(value)):
        return "n/a"
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    return str(value).replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r") or "n/a"
