"""Which stories were heard in a run, when each begins, and where its words stand.

A *story* is named by a column of the events (``stim_file`` unless the settings name another), else by the task of the run. It
begins with the first row that names it, else at ``window.start``. A later row of the same ``trial_type`` begins it anew once its
last word is over; any other row (music before a story, its second half) is a part of it. Where its words come from:

- *events*: every row with a word is one word, and the story begins with the first of them.
- *table*, *textgrid*, *align*: files beside the stimulus (`bids_brainlm.io.words`), whose times count from the start of the
  sound. For ``foo.wav`` or ``foo_audio.wav``: ``stimuli/foo.tsv`` or ``stimuli/foo_words.tsv``; ``foo.TextGrid`` in
  ``derivative/TextGrids``, ``derivatives/TextGrids``, ``stimuli`` or ``stimuli/TextGrids``; ``stimuli/gentle/foo/align.csv``.
- *auto*: the first of these that there is for the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import pandas as pd

from bids_brainlm.config import Window
from bids_brainlm.config.values import near
from bids_brainlm.core.windows import Heard
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.io.files import read_header
from bids_brainlm.io.texts import NoTextError, inside
from bids_brainlm.io.words import read_transcript, transcript_of

STORY_COLUMN = "stim_file"

Rows = list[tuple[float, str]]
"""Onset (s) and trial type of the events that name a story."""

_EXTENSION = re.compile(r"\.[A-Za-z0-9]{2,5}$")
_ROOTED = re.compile(r"^(/|[A-Za-z]:/).*/")


class RunLike(Protocol):
    """What is asked of a run: what identifies it, and where its events are."""

    @property
    def entities(self) -> Mapping[str, str]: ...

    @property
    def events(self) -> Path | None: ...


@dataclass(frozen=True)
class Source:
    """One kind of transcript: folders it is looked for in, in this order, and the names it may have for a story."""

    what: str
    folders: tuple[str, ...]
    names: tuple[str, ...]


SOURCES = {
    "table": Source("table of words", ("stimuli",), ("{}.tsv", "{}_words.tsv")),
    "textgrid": Source(
        "TextGrid", ("derivative/TextGrids", "derivatives/TextGrids", "stimuli", "stimuli/TextGrids"), ("{}.TextGrid",)
    ),
    "align": Source("alignment", ("stimuli/gentle",), ("{}/align.csv",)),
}
"""In the order of ``auto``. Where the settings name a folder, no other is looked into."""


def load_heard(bids_dir: Path, settings: Window, run: RunLike, events: pd.DataFrame | None) -> list[Heard]:
    """The stories of a run with their words, in order of their beginning.

    Parameters
    ----------
    bids_dir : Path
    settings : Window
        ``words``, ``transcripts``, ``tier``, ``column``, ``story`` and ``start`` are used.
    run : RunLike
    events : DataFrame or None
        From `bids_brainlm.io.events.load_events`; None for a run without.

    Raises
    ------
    NoTextError
        When there are no words for any story of this run: nothing was heard in it, as far as can be known.
    InputError, MissingInputError
        When a column or folder that was named is not there, only some stories of the run have a transcript, or one cannot be
        read, has no word, or has words that overlap.
    """
    if events is not None and _holds_words(settings, events):
        return _from_events(settings, run, events)
    told = _told(settings, run, events)
    heard = []
    for name, (kind, path) in _files(Path(bids_dir), settings, run, list(told)).items():
        transcript = read_transcript(story_name(name), kind, path, settings.tier if kind == "textgrid" else settings.column)
        heard += [Heard(transcript, start) for start in _starts(told[name], float(transcript.offset.max()))]
    return sorted(heard, key=lambda story: story.start)


def transcript_files(bids_dir: Path, settings: Window, run: RunLike, events: pd.DataFrame | None) -> list[Path]:
    """The files that `load_heard` reads beside the events.

    Raises
    ------
    NoTextError, InputError, MissingInputError
        As `load_heard`, before a transcript is read.
    """
    if events is not None and _holds_words(settings, events):
        return []
    files = _files(Path(bids_dir), settings, run, list(_told(settings, run, events)))
    return list(dict.fromkeys(path for _, path in files.values()))


def story_name(told: str) -> str:
    """What a story is called, from how the events name it.

    >>> story_name("stimuli/pieman_audio.wav"), story_name("part1/pieman.wav"), story_name("pieman")
    ('pieman', 'part1/pieman', 'pieman')
    """
    return _stem(told).removesuffix("_audio")


def _stem(told: str) -> str:
    """Path below ``stimuli``, without extension; of a path on somebody's machine, the last part."""
    path = _ROOTED.sub("", told.replace("\\", "/")).removeprefix("stimuli/")
    return _EXTENSION.sub("", path)


def _holds_words(settings: Window, events: pd.DataFrame) -> bool:
    return settings.words in ("auto", "events") and settings.column in events and bool(events[settings.column].notna().any())


def _column(settings: Window, run: RunLike, events: pd.DataFrame) -> str:
    """The column that names stories; empty where the task does."""
    if settings.story and settings.story not in events:
        expected = f"one of {', '.join(events)}"
        raise InputError(
            f"no column {settings.story!r} of stories", run.events or "events", expected=expected, remedy="--set window.story="
        )
    column = settings.story or STORY_COLUMN
    return column if column in events and events[column].notna().any() else ""


def _told(settings: Window, run: RunLike, events: pd.DataFrame | None) -> dict[str, Rows]:
    """The rows that name a story, by the name they give it; the task of the run where there are none."""
    column = "" if events is None else _column(settings, run, events)
    if events is None or not column:
        return {run.entities.get("task", ""): [(settings.start, "")]}
    kinds = events["trial_type"] if "trial_type" in events else [None] * len(events)
    told: dict[str, Rows] = {}
    for onset, name, kind in zip(events["onset"], events[column], kinds, strict=True):
        if name is not None:
            told.setdefault(str(name), []).append((float(onset), kind or ""))
    return told


def _starts(rows: Rows, length: float) -> Iterator[float]:
    """Seconds at which a story of some length begins, each time that it is told."""
    (start, first), *others = sorted(rows, key=lambda row: row[0])
    yield start
    for onset, kind in others:
        if kind == first and onset >= start + length:
            start = onset
            yield start


def _from_events(settings: Window, run: RunLike, events: pd.DataFrame) -> list[Heard]:
    column, path = _column(settings, run, events), run.events or Path("events")
    stories = events[column] if column else pd.Series(run.entities.get("task", ""), events.index)
    spoken = events[events[settings.column].notna() & stories.notna()]
    heard = []
    for told, rows in spoken.groupby(stories[spoken.index].astype(str), sort=False):
        onset = rows["onset"].to_numpy(float)
        begin, end = onset - onset[0], onset - onset[0] + rows["duration"].to_numpy(float)
        words = list(zip(begin.tolist(), end.tolist(), rows[settings.column].astype(str), strict=True))
        heard.append(Heard(transcript_of(story_name(str(told)), words, path), float(onset[0])))
    return heard


def _files(bids_dir: Path, settings: Window, run: RunLike, names: Sequence[str]) -> dict[str, tuple[str, Path]]:
    """Kind and file of the transcript of every story, by the name that the events give it."""
    place = run.events or bids_dir / f"sub-{run.entities.get('sub', '')}"
    if settings.words == "events":
        expected = f"a column {settings.column!r}, a row a word"
        raise NoTextError("no words in the events", place, expected=expected, remedy="--words, or --set window.column=")
    kinds = list(SOURCES) if settings.words == "auto" else [settings.words]
    if settings.transcripts and not inside(bids_dir, Path(settings.transcripts)).is_dir():
        folder = bids_dir / settings.transcripts
        raise MissingInputError("no such folder of transcripts", folder, expected="a folder", remedy="correct --transcripts")
    for kind in kinds:
        found = {name: (kind, path) for name in names if (path := _find(bids_dir, settings, kind, name))}
        if found and len(found) < len(names):
            absent = [name for name in names if name not in found]
            raise _absent(MissingInputError, bids_dir, settings, [kind], absent, place)
        if found:
            return found
    raise _absent(NoTextError, bids_dir, settings, kinds, names, place)


def _folders(settings: Window, kind: str) -> tuple[str, ...]:
    return (settings.transcripts,) if settings.transcripts else SOURCES[kind].folders


def _find(bids_dir: Path, settings: Window, kind: str, told: str) -> Path | None:
    names = [_stem(told), story_name(told)]
    names += [PurePosixPath(name).name for name in names]
    for folder in _folders(settings, kind):
        for name in filter(None, dict.fromkeys(names)):
            for pattern in SOURCES[kind].names:
                path = inside(bids_dir, Path(folder) / pattern.format(name))
                # A link to content that was not fetched is no file, and must not pass for none.
                if (path.is_file() or path.is_symlink()) and (settings.words != "auto" or _fits(path, kind, settings)):
                    return path
    return None


def _fits(path: Path, kind: str, settings: Window) -> bool:
    """Whether a file found by its name alone can be meant: there are other tables beside a stimulus."""
    return kind != "table" or settings.column in read_header(path)


def _absent(
    error: type[MissingInputError],
    bids_dir: Path,
    settings: Window,
    kinds: Sequence[str],
    names: Sequence[str],
    place: Path,
) -> MissingInputError:
    """What is said of stories without a transcript."""
    stories = [story_name(name) for name in names]
    listed = ", ".join(map(repr, stories[:5])) + (" ..." if len(stories) > 5 else "")
    folders = list(dict.fromkeys(folder for kind in kinds for folder in _folders(settings, kind)))
    patterns = [pattern for kind in kinds for pattern in SOURCES[kind].names]
    known = {name for folder in folders for pattern in patterns for name in _known(bids_dir / folder, pattern)}
    files = [pattern.format(stories[0]) for pattern in patterns]
    return error(
        f"no {' or '.join(SOURCES[kind].what for kind in kinds)} for {listed}{near(stories[0], sorted(known))}",
        place,
        expected=f"{' or '.join(files)} in {', '.join(folders)}",
        remedy="--words and --transcripts, or correct the name",
    )


def _known(folder: Path, pattern: str) -> list[str]:
    """Stories that have a file of some pattern."""
    ending = pattern.removeprefix("{}")
    return [path.relative_to(folder).as_posix().removesuffix(ending) for path in folder.glob(pattern.format("*"))]
