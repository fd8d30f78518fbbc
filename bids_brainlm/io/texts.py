"""Which texts belong to a trial.

Texts come from a column of ``events.tsv`` itself, or from a *table*: a TSV inside the BIDS folder that shares a *key* column
(``stim_file``, ``trial_type`` ...) with the events. One row of the table is one text; several rows of one key and question
are the *references* of each other: every one of them is a right answer. A table may also have a column of questions.

What the settings leave open is looked for: a column ``text``, ``caption`` or ``sentence`` of the events, else the first of
``stim_file``, ``stim_id``, ``stimulus``, ``trial_type`` for which some ``stimuli/*.tsv`` has a column of that name and one of
answers. Keys are compared as they stand, paths included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from bids_brainlm.config import Text
from bids_brainlm.core.types import Bools
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.io.files import read_header, read_tsv

TEXT_COLUMNS = ("text", "caption", "sentence")
KEY_COLUMNS = ("stim_file", "stim_id", "stimulus", "trial_type")
ANSWER_COLUMNS = ("caption", "text", "answer", "sentence")
QUESTION_COLUMN = "question"


class NoTextError(MissingInputError):
    """A run without texts, such as one at rest: a fault only where texts were expected of it."""


@dataclass(frozen=True)
class Item:
    """One text of a trial: the question it answers (empty if none), itself, and every text that counts as right."""

    question: str
    answer: str
    references: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts of the trials of one run, n of them, in the order of the events.

    Parameters
    ----------
    stimulus : tuple of str, length n
        Key of the stimulus, or the text itself where the events hold it; empty for a trial without text.
    items : tuple of tuples of Item, length n
    keep : (n,) bool
        False for a trial without a text.
    reasons : tuple of str, length n
        Why a trial is not kept; empty for the others.
    source : str
        Where the texts come from, for the report.
    table : Path or None
    n_duplicates : int
        Rows of the table that repeated another one and were dropped.
    unknown : tuple of str
        Keys of the events for which the table has no text.
    """

    stimulus: tuple[str, ...]
    items: tuple[tuple[Item, ...], ...]
    keep: Bools
    reasons: tuple[str, ...]
    source: str
    table: Path | None = None
    n_duplicates: int = 0
    unknown: tuple[str, ...] = ()


def load_texts(bids_dir: Path, settings: Text, events: pd.DataFrame, events_path: Path) -> Texts:
    """Find the texts of every trial.

    Parameters
    ----------
    bids_dir : Path
    settings : Text
        ``column``, ``key``, ``table``, ``answer`` and ``question`` are used; what is empty is looked for.
    events : DataFrame
        From `bids_brainlm.io.events.load_events`.
    events_path : Path
        For messages.

    Raises
    ------
    NoTextError
        When no source of texts is found, or not one trial has a text: this run has none.
    InputError, MissingInputError
        When a column or table that was named is not there, two tables could be meant, or the table leaves the BIDS folder.
    """
    columns = list(events)
    for name, what in ((settings.column, "texts"), (settings.key, "keys")):
        if name and name not in columns:
            expected, remedy = f"one of {', '.join(columns)}", "--text-column or --key-column"
            raise InputError(f"no column {name!r} of {what}", events_path, expected=expected, remedy=remedy)
    column = settings.column or _first(TEXT_COLUMNS if not (settings.key or settings.table) else (), columns)
    if column:
        texts = _from_column(events, column, settings.key)
    else:
        key, table = _find_table(Path(bids_dir), settings, columns, events_path)
        texts = _from_table(events[key], table, settings)
    if not texts.keep.any():
        reason = next(iter(texts.reasons), "")
        remedy = "check --texts and --key-column: keys are compared as they stand"
        raise NoTextError(
            f"no trial has a text in {texts.source}", events_path, expected=f"at least one; but {reason}", remedy=remedy
        )
    return texts


def normalise(text: str) -> str:
    r"""One line: tabs, line ends and runs of blanks become single blanks.

    >>> normalise(" a\tred\r\n  cat ")
    'a red cat'
    """
    return " ".join(text.split())


def inside(bids_dir: Path, path: Path) -> Path:
    """The path, made absolute by the BIDS folder, if it stays inside once links are followed.

    Raises
    ------
    InputError
        When it leaves the folder.
    """
    full = Path(bids_dir) / path
    try:
        target = full.resolve()
    except (OSError, RuntimeError) as error:
        raise InputError("a link that leads to itself", full, expected="a file", remedy="put the file there") from error
    if not target.is_relative_to(Path(bids_dir).resolve()):
        raise InputError("the path leaves the BIDS folder", full, expected=f"a file below {bids_dir}", remedy="copy it there")
    return full


def _first(names: Iterable[str], columns: Iterable[str]) -> str:
    return next((name for name in names if name in set(columns)), "")


def _from_column(events: pd.DataFrame, column: str, key: str) -> Texts:
    texts = ["" if text is None else normalise(str(text)) for text in events[column]]
    keys = ["" if value is None else str(value) for value in events[key]] if key else texts
    keep = np.array([bool(text) for text in texts], dtype=bool)
    return Texts(
        stimulus=tuple((name or text) if text else "" for name, text in zip(keys, texts, strict=True)),
        items=tuple((Item("", text, (text,)),) if text else () for text in texts),
        keep=keep,
        reasons=tuple("" if text else f"no text in column {column}" for text in texts),
        source=f"column {column} of the events",
    )


def _find_table(bids_dir: Path, settings: Text, columns: Sequence[str], events_path: Path) -> tuple[str, Path]:
    """Key column and table; the settings win over what is found."""
    keys = [settings.key] if settings.key else [name for name in KEY_COLUMNS if name in columns]
    folder = bids_dir / "stimuli"
    named = [settings.table] if settings.table else sorted(f"stimuli/{path.name}" for path in folder.glob("*.tsv"))
    headers = {path: _header(path) for path in (inside(bids_dir, Path(name)) for name in named)}
    for key in keys:
        found = [path for path, header in headers.items() if key in header and _answer(header, settings)]
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise InputError(
                f"texts for {key} in several tables ({names})", bids_dir / "stimuli", expected="one", remedy="choose --texts"
            )
        if found:
            return key, found[0]
    if settings.table:
        table, header = next(iter(headers.items()))
        what = f"no column to join to the events ({', '.join(columns)}), or none of texts"
        raise InputError(
            what, table, expected=f"a key and an answer; found {', '.join(header)}", remedy="--key-column, --set text.answer="
        )
    raise NoTextError(
        f"no texts: the events have the columns {', '.join(columns)}",
        events_path,
        expected=f"a column {', '.join(TEXT_COLUMNS)}, or stimuli/*.tsv with one of {', '.join(keys or KEY_COLUMNS)}",
        remedy="--text-column, or --key-column and --texts",
    )


def _answer(header: Sequence[str], settings: Text) -> str:
    return _first([settings.answer] if settings.answer else ANSWER_COLUMNS, header)


def _from_table(keys: pd.Series, path: Path, settings: Text) -> Texts:
    header = _header(path)
    question = settings.question or _first((QUESTION_COLUMN,), header)
    if question and question not in header:
        raise InputError(f"no column {question!r} of questions", path, expected=f"one of {', '.join(header)}")
    items, n_duplicates = _items(path, _stamp(path), str(keys.name), question, _answer(header, settings))
    stimulus = ["" if key is None else str(key) for key in keys]
    keep = np.array([key in items for key in stimulus], dtype=bool)
    reasons = [
        "" if kept else (f"no text for {key!r} in {path.name}" if key else f"no {keys.name}")
        for key, kept in zip(stimulus, keep, strict=True)
    ]
    return Texts(
        stimulus=tuple(key if kept else "" for key, kept in zip(stimulus, keep, strict=True)),
        items=tuple(items.get(key, ()) for key in stimulus),
        keep=keep,
        reasons=tuple(reasons),
        source=f"{path.name}, joined by {keys.name}",
        table=path,
        n_duplicates=n_duplicates,
        unknown=tuple(dict.fromkeys(key for key, kept in zip(stimulus, keep, strict=True) if key and not kept)),
    )


def _header(path: Path) -> Sequence[str]:
    # What cannot be looked at is read, which says why.
    return _header_at(path, _stamp(path)) if path.is_file() else read_header(path)


@lru_cache(maxsize=64)
def _header_at(path: Path, stamp: tuple[int, int]) -> tuple[str, ...]:
    return tuple(read_header(path))


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=4)
def _items(
    path: Path, stamp: tuple[int, int], key: str, question: str, answer: str
) -> tuple[Mapping[str, tuple[Item, ...]], int]:
    """Items by key, and how many rows repeated another one.

    Every run of a participant asks for the same table, which may have 10^5 rows; ``stamp`` (time and size) tells when it changed.
    """
    table = read_tsv(path)
    questions = table[question] if question else [None] * len(table)
    rows = [
        (str(name), normalise(asked or ""), normalise(text))
        for name, asked, text in zip(table[key], questions, table[answer], strict=True)
        if name is not None and text is not None
    ]
    unique = list(dict.fromkeys(rows))
    references: dict[tuple[str, str], list[str]] = {}
    for name, asked, text in unique:
        references.setdefault((name, asked), []).append(text)
    out: dict[str, list[Item]] = {}
    for name, asked, text in unique:
        out.setdefault(name, []).append(Item(asked, text, tuple(references[name, asked])))
    return {name: tuple(items) for name, items in out.items()}, len(rows) - len(unique)
