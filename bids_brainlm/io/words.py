"""Words with times, read from one file: a transcript of one story.

- *table*: a TSV with the columns onset, duration and word.
- *textgrid*: a tier of a TextGrid of Praat, in any of its text formats (`bids_brainlm.io.textgrids`).
- *align*: a CSV of the Gentle aligner, without names of columns: word, word of its dictionary, onset, offset.

Times are s from the start of the sound file. Words without a time and *marks* of what is no speech (``sp``, ``{NS}``, ``<unk>``,
``[noise]``) are dropped and counted. Words stay as they are given, punctuation and all, whatever the language; only a transcript
in capitals throughout becomes lower case, which language models know better.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from bids_brainlm.core.windows import Transcript
from bids_brainlm.errors import InputError
from bids_brainlm.io.files import parse_tsv, read_text
from bids_brainlm.io.textgrids import read_tier
from bids_brainlm.io.texts import normalise

LOGGER = logging.getLogger(__name__)

Word = tuple[float, float, str]
"""Onset and offset in s, word; a time is nan where it is not known."""

MARKS = frozenset({"sp", "sil", "spn", "br", "lg", "ls", "ns", "sentence_start", "sentence_end"})
"""What aligners and transcribers write for silence, breath, laughter and noise, beside anything in braces or brackets."""

OVERLAP = 0.1
"""s by which a word may begin before the one before it has ended: times are rounded, and set by hand."""

_MARK = re.compile(r"\{.*\}|<.*>|\[.*\]", re.DOTALL)


def read_transcript(name: str, kind: str, path: Path, detail: str) -> Transcript:
    """The transcript of a story.

    Parameters
    ----------
    name : str
        Of the story.
    kind : {"table", "textgrid", "align"}
    path : Path
    detail : str
        Column of words, for a table; tier of words, for a TextGrid.

    Raises
    ------
    MissingInputError
        When there is no such file, or its content was not fetched.
    InputError
        When it cannot be read, has no word, words overlap, or a time is impossible.
    """
    if not path.is_file():
        read_text(path)
    status = path.stat()
    return _read_at(name, kind, path, detail, (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=256)
def _read_at(name: str, kind: str, path: Path, detail: str, stamp: tuple[int, int]) -> Transcript:
    """All runs of all participants ask for the same stories; ``stamp`` (time, size) tells when one changed."""
    return transcript_of(name, _READERS[kind](path, detail), path)


def transcript_of(name: str, rows: Sequence[Word], path: Path) -> Transcript:
    """Words in order of onset, without marks and without words that have no time; ``path`` is for messages.

    Raises
    ------
    InputError
        When no word is left, words overlap, or a time is impossible.
    """
    said = [(onset, offset, word) for onset, offset, label in rows if (word := normalise(label)) and not _is_mark(word)]
    timed = sorted((row for row in said if math.isfinite(row[0])), key=lambda row: row[0])
    n_marks = sum(bool(label.strip()) for _, _, label in rows) - len(said)
    if not timed:
        remedy = "look at the file, or --set window.tier="
        raise InputError(f"no word of {name} has a time", path, expected="words with times", remedy=remedy)
    n_untimed = len(said) - len(timed)
    LOGGER.info("%s: %d words of %s; dropped: %d without a time, %d marks", path, len(timed), name, n_untimed, n_marks)
    _refuse_overlap(name, timed, path)
    times = np.array([(onset, onset if math.isnan(offset) else offset) for onset, offset, _ in timed], dtype=np.float64)
    try:
        words = _plain_case([word for _, _, word in timed])
        return Transcript(name, words, times[:, 0], times[:, 1], n_marks, n_untimed)
    except ValueError as error:
        remedy = "correct the times; they count from the start of the sound"
        raise InputError(str(error), path, expected="words one after the other", remedy=remedy) from error


def _is_mark(word: str) -> bool:
    return word.casefold() in MARKS or bool(_MARK.fullmatch(word))


def _refuse_overlap(name: str, rows: Sequence[Word], path: Path) -> None:
    for (_, end, word), (onset, _, follower) in zip(rows, rows[1:], strict=False):
        if end - onset > OVERLAP:
            what = f"{follower!r} of {name} begins at {onset:g} s, before {word!r} ends at {end:g} s"
            remedy = "a tier or table of one speaker, without doubled rows"
            raise InputError(what, path, expected="words one after the other", remedy=remedy)


def _plain_case(words: Sequence[str]) -> tuple[str, ...]:
    capitals = all(word == word.upper() for word in words)
    return tuple(word.lower() if capitals else word for word in words)


def _from_textgrid(path: Path, tier: str) -> list[Word]:
    return list(read_tier(path, tier).intervals)


def _from_table(path: Path, column: str) -> list[Word]:
    columns = parse_tsv(read_text(path), path)
    lacking = [name for name in ("onset", "duration", column) if name not in columns]
    if lacking:
        expected, remedy = f"onset, duration and {column}; found {', '.join(columns)}", "name them so, or --set window.column="
        raise InputError(f"no column {', '.join(lacking)}", path, expected=expected, remedy=remedy)
    rows = []
    for line, (onset, duration, word) in enumerate(zip(columns["onset"], columns["duration"], columns[column], strict=True), 2):
        begin = _seconds(onset, line, path)
        rows.append((begin, begin + _seconds(duration, line, path), word or ""))
    return rows


def _from_align(path: Path, column: str) -> list[Word]:
    """Words that the aligner did not find in the sound have no times."""
    rows = []
    for line, row in enumerate(csv.reader(io.StringIO(read_text(path), newline="")), 1):
        if row and len(row) != 4:
            expected = "word, word of the dictionary, onset, offset"
            raise InputError(f"line {line} has {len(row)} fields", path, expected=expected, remedy="correct it, or --words")
        if row:
            rows.append((_seconds(row[2], line, path), _seconds(row[3], line, path), row[0]))
    return rows


_READERS: dict[str, Callable[[Path, str], list[Word]]] = {
    "table": _from_table,
    "textgrid": _from_textgrid,
    "align": _from_align,
}


def _seconds(text: str | None, line: int, path: Path) -> float:
    """A time in s; nan where there is none."""
    if text is None or text.strip().casefold() in ("", "n/a", "nan"):
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise InputError(f"{text!r} in line {line} is no time", path, expected="seconds, or nothing", remedy="correct that line")
    return value
