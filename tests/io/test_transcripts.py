"""Stories of a run: found by the events or by the task, begun where the events say, and told again where they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from bids_brainlm.config import Window
from bids_brainlm.core.windows import Heard
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.io.events import load_events
from bids_brainlm.io.texts import NoTextError
from bids_brainlm.io.transcripts import load_heard, story_name, transcript_files

TABLE = "onset\tduration\tword\n0.5\t0.5\tthe\n1\t0.5\thare\n4\t1\tran\n"


@dataclass(frozen=True)
class Run:
    events: Path | None
    entities: dict[str, str] = field(default_factory=lambda: {"sub": "01", "task": "hare"})


def hear(root: Path, text: str | None, **settings: object) -> list[Heard]:
    return load_heard(root, Window(**settings), *run_of(root, text))  # type: ignore[arg-type]


def run_of(root: Path, text: str | None) -> tuple[Run, pd.DataFrame | None]:
    if text is None:
        return Run(None), None
    path = root / "sub-01_task-hare_events.tsv"
    path.write_text(text)
    return Run(path), load_events(path)


def put(root: Path, name: str, text: str = TABLE) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def told(heard: list[Heard]) -> list[tuple[str, float]]:
    return [(story.transcript.name, story.start) for story in heard]


def test_words_in_the_events(tmp_path: Path) -> None:
    events = "onset\tduration\tword\tstim_file\n0\t2\tn/a\ta.wav\n3.5\t0.5\tthe\ta.wav\n4\t1\thare\ta.wav\n9\t1\tfox\tb.wav\n"
    first, second = hear(tmp_path, events, words="events")
    assert told([first, second]) == [("a", 3.5), ("b", 9.0)]
    assert first.transcript.words == ("the", "hare")
    assert first.transcript.onset.tolist() == [0.0, 0.5]
    assert first.transcript.offset.tolist() == [0.5, 1.5]


def test_a_story_of_the_events_is_the_same_wherever_it_begins(tmp_path: Path) -> None:
    one = hear(tmp_path, "onset\tduration\tword\n3.5\t0.5\tthe\n4\t1\thare\n", words="events")[0]
    other = hear(tmp_path, "onset\tduration\tword\n33.5\t0.5\tthe\n34\t1\thare\n", words="events")[0]
    assert (one.transcript.name, one.start, other.start) == ("hare", 3.5, 33.5)
    assert one.transcript.onset.tolist() == other.transcript.onset.tolist()


def test_another_column_of_words_and_of_stories(tmp_path: Path) -> None:
    events = "onset\tduration\ttoken\tpart\n1\t0.5\tthe\tone\n2\t1\thare\tone\n9\t1\tfox\ttwo\n"
    assert told(hear(tmp_path, events, words="auto", column="token", story="part")) == [("one", 1.0), ("two", 9.0)]
    with pytest.raises(InputError, match="no column 'chapter' of stories: .*events.tsv .*one of onset, duration, token, part"):
        hear(tmp_path, events, words="events", column="token", story="chapter")


@pytest.mark.parametrize(
    ("file", "stim"),
    [
        ("stimuli/hare.tsv", "hare.wav"),
        ("stimuli/hare_words.tsv", "hare.wav"),
        ("stimuli/hare.tsv", "stimuli/hare.wav"),
        ("stimuli/hare.tsv", "hare_audio.wav"),
        ("stimuli/hare_audio.tsv", "hare_audio.wav"),
        ("stimuli/hare.tsv", "/home/me/sounds/hare.wav"),
        ("stimuli/hare.tsv", "C:\\sounds\\hare.wav"),
    ],
)
def test_tables_are_found_by_the_name_of_the_sound(tmp_path: Path, file: str, stim: str) -> None:
    path = put(tmp_path, file)
    events = f"onset\tduration\tstim_file\n7\t5\t{stim}\n"
    assert told(hear(tmp_path, events, words="table")) == [("hare", 7.0)]
    assert transcript_files(tmp_path, Window(words="auto"), *run_of(tmp_path, events)) == [path]


def test_folders_below(tmp_path: Path) -> None:
    put(tmp_path, "stimuli/part1/hare.tsv")
    events = "onset\tduration\tstim_file\n7\t5\tpart1/hare.wav\n"
    assert told(hear(tmp_path, events, words="auto")) == [("part1/hare", 7.0)]
    put(tmp_path, "words/hare.tsv")
    assert told(hear(tmp_path, events, words="auto", transcripts="words")) == [("part1/hare", 7.0)]
    with pytest.raises(NoTextError, match="no table of words for 'part1/hare'"):
        hear(tmp_path, events, words="table", transcripts="stimuli/../")


def test_without_events_the_task_is_the_story(tmp_path: Path) -> None:
    put(tmp_path, "stimuli/hare.tsv")
    assert told(hear(tmp_path, None, words="auto", start=10.0)) == [("hare", 10.0)]
    assert told(hear(tmp_path, "onset\tduration\tstim_file\n7\t5\tn/a\n", words="auto", start=-2.0)) == [("hare", -2.0)]


def test_rows_of_one_telling_and_of_several(tmp_path: Path) -> None:
    """The words of the story end 5 s after it began."""
    put(tmp_path, "stimuli/hare.tsv")
    put(tmp_path, "stimuli/fox.tsv")
    head = "onset\tduration\ttrial_type\tstim_file\n"
    music = head + "0\t1\tmusic\thare.wav\n1\t3\tstory\thare.wav\n3\t1\tmusic\thare.wav\n6\t2\tstory\thare.wav\n"
    assert told(hear(tmp_path, music, words="table")) == [("hare", 0.0)]
    again = head + "".join(f"{onset}\t5\tstory\t{name}.wav\n" for onset, name in [(2, "hare"), (10, "fox"), (20, "hare")])
    assert told(hear(tmp_path, again, words="table")) == [("hare", 2.0), ("fox", 10.0), ("hare", 20.0)]
    untyped = "onset\tduration\tstim_file\n2\t5\thare.wav\n7\t5\thare.wav\n"
    assert told(hear(tmp_path, untyped, words="table")) == [("hare", 2.0), ("hare", 7.0)]


def test_auto_takes_the_first_that_there_is(tmp_path: Path) -> None:
    grid = 'File type = "ooTextFile"\n"TextGrid"\n0 9 <exists> 1\n"IntervalTier" "word" 0 9 1\n0 1 "grid"\n'
    events = "onset\tduration\tstim_file\n7\t5\thare.wav\n"
    wanted = []
    for name, text in [
        ("stimuli/gentle/hare/align.csv", "gentle,gentle,0,1\n"),
        ("derivative/TextGrids/hare.TextGrid", grid),
        ("stimuli/hare.tsv", "onset\tduration\tword\n0\t1\ttable\n"),
    ]:
        put(tmp_path, name, text)
        wanted += hear(tmp_path, events, words="auto")[0].transcript.words
    assert wanted == ["gentle", "grid", "table"]
    put(tmp_path, "stimuli/hare.tsv", "onset\tloudness\n0\t1\n")
    assert hear(tmp_path, events, words="auto")[0].transcript.words == ("grid",)
    with_words = "onset\tduration\tstim_file\tword\n7\t5\thare.wav\tevents\n"
    assert hear(tmp_path, with_words, words="auto")[0].transcript.words == ("events",)
    assert transcript_files(tmp_path, Window(words="auto"), *run_of(tmp_path, with_words)) == []


def test_a_run_in_which_nothing_was_heard(tmp_path: Path) -> None:
    put(tmp_path, "stimuli/hear.tsv")
    with pytest.raises(NoTextError, match=r"no TextGrid for 'hare': .*expected: hare.TextGrid in derivative/TextGrids, "):
        hear(tmp_path, None, words="textgrid")
    with pytest.raises(NoTextError, match="no table of words for 'hare'; did you mean 'hear'"):
        hear(tmp_path, None, words="table")
    with pytest.raises(NoTextError, match="no words in the events: .*expected: a column 'word'"):
        hear(tmp_path, "onset\tduration\tstim_file\n7\t5\thare.wav\n", words="events")


def test_one_of_several_stories_without_a_transcript_is_a_fault(tmp_path: Path) -> None:
    put(tmp_path, "stimuli/hare.tsv")
    events = "onset\tduration\tstim_file\n0\t5\thare.wav\n20\t5\tfox.wav\n40\t9\tn/a\n"
    with pytest.raises(MissingInputError, match="no table of words for 'fox': .*events.tsv") as caught:
        hear(tmp_path, events, words="auto")
    assert not isinstance(caught.value, NoTextError)


def test_what_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such folder of transcripts: .*words .*correct --transcripts") as caught:
        hear(tmp_path, None, words="auto", transcripts="words")
    assert not isinstance(caught.value, NoTextError)


@pytest.mark.parametrize("settings", [{"transcripts": "../words"}, {"transcripts": "/etc"}])
def test_folders_stay_in_the_dataset(tmp_path: Path, settings: dict[str, str]) -> None:
    put(tmp_path, "words/hare.tsv")
    (tmp_path / "bids").mkdir()
    with pytest.raises(InputError, match="the path leaves the BIDS folder"):
        hear(tmp_path / "bids", None, words="table", **settings)


def test_names_in_the_events_stay_in_the_dataset(tmp_path: Path) -> None:
    put(tmp_path, "hare.tsv")
    put(tmp_path, "bids/stimuli/fox.tsv")
    with pytest.raises(InputError, match="the path leaves the BIDS folder"):
        hear(tmp_path / "bids", "onset\tduration\tstim_file\n0\t5\t../../hare.wav\n", words="table")


def test_content_that_was_not_fetched_is_no_absent_transcript(tmp_path: Path) -> None:
    (tmp_path / "derivative" / "TextGrids").mkdir(parents=True)
    (tmp_path / "derivative" / "TextGrids" / "hare.TextGrid").symlink_to("../../.git/annex/objects/x")
    with pytest.raises(MissingInputError, match="no such file: .*hare.TextGrid .*datalad get") as caught:
        hear(tmp_path, None, words="auto")
    assert not isinstance(caught.value, NoTextError)


def test_names() -> None:
    assert story_name("dr.who") == "dr"  # an extension, for all that a name can tell
    assert story_name("a tale of two cities") == "a tale of two cities"
