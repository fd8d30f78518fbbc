"""Which texts belong to a trial.

Texts come from a column of ``events.tsv`` itself, or from *tables*: TSVs inside the BIDS folder that share a *key* column
(``stim_file``, ``trial_type`` ...) with the events. Of several tables (captions and questions) the rows are put together. One row
is one text; several rows of one key and question are the *references* of each other: every one of them is a right answer. A table
of questions may have a *category* (the kind of question, by which scores are told apart) and a *task*: rows of one key and task
are one question in several *phrasings*, which have the same answers.

What the settings leave open is looked for: a column ``text``, ``caption`` or ``sentence`` of the events, else the first of
``stim_file``, ``stim_id``, ``stimulus``, ``trial_type`` for which some ``stimuli/*.tsv`` has a column of that name and one of
answers. Keys are compared as they stand, paths included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bids_brainlm.config import Text
from bids_brainlm.core.types import Bools
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.io.files import read_header, read_tsv

TEXT_COLUMNS = ("text", "caption", "sentence")
KEY_COLUMNS = ("stim_file", "stim_id", "stimulus", "trial_type")
ANSWER_COLUMNS = ("caption", "text", "answer", "sentence")
QUESTION_COLUMN, CATEGORY_COLUMN, TASK_COLUMN = "question", "category", "task"


class NoTextError(MissingInputError):
    """A run without texts, such as one at rest: a fault only where texts were expected of it."""


@dataclass(frozen=True)
class Item:
    """One text of a trial: the question it answers (empty if none), itself, and every text that counts as right.

    ``category`` is the kind of the question, where the table says it; ``phrasings`` are all ways in which it is asked, the first
    of them ``question``.
    """

    question: str
    answer: str
    references: tuple[str, ...]
    category: str = ""
    phrasings: tuple[str, ...] = ()


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
    n_duplicates : int
        Rows of the tables that repeated another one and were dropped.
    unknown : tuple of str
        Keys of the events for which no table has a text.
    """

    stimulus: tuple[str, ...]
    items: tuple[tuple[Item, ...], ...]
    keep: Bools
    reasons: tuple[str, ...]
    source: str
    n_duplicates: int = 0
    unknown: tuple[str, ...] = ()


def load_texts(bids_dir: Path, settings: Text, events: pd.DataFrame, events_path: Path) -> Texts:
    """Find the texts of every trial.

    Parameters
    ----------
    bids_dir : Path
    settings : Text
        ``column``, ``key``, ``table``, ``answer``, ``question``, ``category`` and ``task`` are used; what is empty is looked for.
    events : DataFrame
        From `bids_brainlm.io.events.load_events`.
    events_path : Path
        For messages.

    Raises
    ------
    NoTextError
        When no source of texts is found, or not one trial has a text: this run has none.
    InputError, MissingInputError
        When a column or table that was named is not there, two tables could be meant, a table leaves the BIDS folder, or
        phrasings of one task have different answers.
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
        key, tables = _find_tables(Path(bids_dir), settings, columns, events_path)
        texts = _from_tables(events[key], tables, settings)
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


def _find_tables(bids_dir: Path, settings: Text, columns: Sequence[str], events_path: Path) -> tuple[str, list[Path]]:
    """Key column and tables; the settings win over what is found."""
    keys = [settings.key] if settings.key else [name for name in KEY_COLUMNS if name in columns]
    named = settings.table or sorted(f"stimuli/{path.name}" for path in (bids_dir / "stimuli").glob("*.tsv"))
    headers = {path: _header(path) for path in (inside(bids_dir, Path(name)) for name in named)}
    usable = {key: [path for path, header in headers.items() if key in header and _answer(header, settings)] for key in keys}
    for key, found in usable.items():
        if settings.table and len(found) == len(headers):
            return key, found
        if not settings.table and len(found) > 1:
            names = ", ".join(path.name for path in found)
            what, expected = f"texts for {key} in several tables ({names})", "one, or all of them named"
            raise InputError(what, bids_dir / "stimuli", expected=expected, remedy="choose --texts")
        if not settings.table and found:
            return key, found
    if settings.table:
        table = next(path for path in headers if not all(path in found for found in usable.values()) or not usable)
        what = f"no column to join to the events ({', '.join(columns)}), or none of texts"
        expected = f"a key and an answer; found {', '.join(headers[table])}"
        raise InputError(what, table, expected=expected, remedy="--key-column, --set text.answer=")
    raise NoTextError(
        f"no texts: the events have the columns {', '.join(columns)}",
        events_path,
        expected=f"a column {', '.join(TEXT_COLUMNS)}, or stimuli/*.tsv with one of {', '.join(keys or KEY_COLUMNS)}",
        remedy="--text-column, or --key-column and --texts",
    )


def _answer(header: Sequence[str], settings: Text) -> str:
    """Column of texts; of several tables, those without the one that is named have one of the usual names."""
    others = ANSWER_COLUMNS if not settings.answer or len(settings.table) > 1 else ()
    return _first((settings.answer, *others), header)


class _Columns(NamedTuple):
    """Names of the columns of a table; empty for one that it does not have."""

    answer: str
    question: str
    category: str
    task: str


def _columns(tables: Sequence[Path], settings: Text) -> list[_Columns]:
    """Columns of each table; one that is named must be in some table."""
    headers = [_header(path) for path in tables]
    known = dict.fromkeys(column for header in headers for column in header)
    named = {"questions": settings.question, "categories": settings.category, "tasks": settings.task}
    for what, name in named.items():
        if name and name not in known:
            raise InputError(f"no column {name!r} of {what}", tables[0], expected=f"one of {', '.join(known)}")
    usual = (QUESTION_COLUMN, CATEGORY_COLUMN, TASK_COLUMN)
    wanted = [name or other for name, other in zip(named.values(), usual, strict=True)]
    return [_Columns(_answer(header, settings), *(_first((name,), header) for name in wanted)) for header in headers]


def _from_tables(keys: pd.Series, tables: Sequence[Path], settings: Text) -> Texts:
    columns = _columns(tables, settings)
    sources = tuple((path, _stamp(path), own) for path, own in zip(tables, columns, strict=True))
    items, n_duplicates = _items(sources, str(keys.name))
    stimulus = ["" if key is None else str(key) for key in keys]
    keep = np.array([key in items for key in stimulus], dtype=bool)
    names = " and ".join(path.name for path in tables)
    reasons = [
        "" if kept else (f"no text for {key!r} in {names}" if key else f"no {keys.name}")
        for key, kept in zip(stimulus, keep, strict=True)
    ]
    return Texts(
        stimulus=tuple(key if kept else "" for key, kept in zip(stimulus, keep, strict=True)),
        items=tuple(items.get(key, ()) for key in stimulus),
        keep=keep,
        reasons=tuple(reasons),
        source=f"{names}, joined by {keys.name}",
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


class _Row(NamedTuple):
    """One row of a table; ``task`` is the question itself where the table has no column of tasks."""

    key: str
    task: str
    question: str
    answer: str
    category: str


Source = tuple[Path, tuple[int, int], _Columns]
"""A table, its stamp, its columns."""


@lru_cache(maxsize=4)
def _items(sources: tuple[Source, ...], key: str) -> tuple[Mapping[str, tuple[Item, ...]], int]:
    """Items by key, and how many rows repeated another one.

    Every run of a participant asks for the same tables, which may have 10^6 rows; stamps (time and size) tell when one changed.
    """
    rows = [row for path, _, columns in sources for row in _rows(path, key, columns)]
    asked: dict[tuple[str, str], dict[_Row, None]] = {}
    for row in rows:
        asked.setdefault((row.key, row.task), {})[row] = None
    out: dict[str, list[Item]] = {}
    place = next((path for path, _, columns in sources if columns.task), sources[0][0])
    for (name, _), own in asked.items():
        out.setdefault(name, []).append(_item(list(own), place))
    return {name: tuple(items) for name, items in out.items()}, len(rows) - sum(map(len, asked.values()))


def _rows(path: Path, key: str, columns: _Columns) -> Iterator[_Row]:
    table = read_tsv(path)
    nothing = [None] * len(table)
    cells = (table[name] if name else nothing for name in (key, columns.task, columns.question, columns.answer, columns.category))
    for name, task, question, answer, category in zip(*cells, strict=True):
        if name is not None and answer is not None:
            asked = normalise(question or "")
            # Where nothing is asked, columns of these names say something of stimuli and not of questions.
            kind, common = (normalise(cell or "") if asked else "" for cell in (category, task))
            yield _Row(str(name), common or asked, asked, normalise(answer), kind)


def _item(rows: Sequence[_Row], path: Path) -> Item:
    """One question of a stimulus, from its rows in the table at ``path``: phrasings and references."""
    answers: dict[str, dict[str, None]] = {}
    for row in rows:
        answers.setdefault(row.question, {})[row.answer] = None
    first = rows[0]
    if len({frozenset(found) for found in answers.values()}) > 1:
        what = f"phrasings of the task {first.task!r} about {first.key!r} have different answers"
        remedy = "give different questions different tasks, or name the column of tasks: --set text.task="
        raise InputError(what, path, expected="the same answers for each phrasing", remedy=remedy)
    phrasings = tuple(answers) if first.question else ()
    return Item(first.question, first.answer, tuple(answers[first.question]), first.category, phrasings)
