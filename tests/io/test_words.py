"""Transcripts of one story: the same words from every kind of file; what is no word is dropped, what cannot be is refused."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from bids_brainlm.core.windows import Transcript
from bids_brainlm.errors import InputError
from bids_brainlm.io.words import Word, read_transcript, transcript_of

ROWS: list[Word] = [(0.5, 0.9, "Once"), (0.9, 1.4, "upon,"), (3.0, 3.5, "n/a-time.")]


def textgrid(rows: list[Word]) -> str:
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n9\n<exists>\n1\n"IntervalTier"\n"word"\n0\n9\n'
    return head + f"{len(rows)}\n" + "".join(f'{onset}\n{offset}\n"{word}"\n' for onset, offset, word in rows)


def table(rows: list[Word]) -> str:
    return "onset\tduration\tword\n" + "".join(f"{onset}\t{offset - onset}\t{word}\n" for onset, offset, word in rows)


def align(rows: list[Word]) -> str:
    return "".join(f'"{word}",{word.lower().strip(",.")},{onset},{offset}\n' for onset, offset, word in rows)


WRITERS = {"textgrid": ("hare.TextGrid", textgrid), "table": ("hare.tsv", table), "align": ("align.csv", align)}


def write(folder: Path, kind: str, rows: list[Word]) -> Path:
    name, writer = WRITERS[kind]
    path = folder / name
    path.write_text(writer(rows), encoding="utf-8")
    return path


def read(path: Path, kind: str) -> Transcript:
    return read_transcript("hare", kind, path, "word")


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file_says_the_same(tmp_path: Path, kind: str) -> None:
    transcript = read(write(tmp_path, kind, ROWS), kind)
    assert (transcript.name, transcript.words) == ("hare", ("Once", "upon,", "n/a-time."))
    np.testing.assert_allclose(transcript.onset, [0.5, 0.9, 3.0])
    np.testing.assert_allclose(transcript.offset, [0.9, 1.4, 3.5])


@pytest.mark.parametrize("kind", WRITERS)
def test_marks_are_dropped_and_counted(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    marks = ["sp", "{NS}", "{LG}", "SIL", "<unk>", "[noise]", "sentence_start"]
    rows = [(float(k), k + 0.5, word) for k, word in enumerate(["yes", *marks, "(yes)", "sip"])]
    with caplog.at_level(logging.INFO):
        transcript = read(write(tmp_path, kind, rows), kind)
    assert transcript.words == ("yes", "(yes)", "sip")
    assert (transcript.n_marks, transcript.n_untimed) == (7, 0)
    assert "3 words of hare; dropped: 0 without a time, 7 marks" in caplog.text


def test_words_without_a_time_are_dropped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "align.csv"
    path.write_text("I,i,1.0,1.2\nbegan,,,\nmy,my,2.0,2.5\nO'Grady,<unk>,3.0,3.5\n\n")
    with caplog.at_level(logging.INFO):
        transcript = read(path, "align")
    assert transcript.words == ("I", "my", "O'Grady")
    assert (transcript.n_marks, transcript.n_untimed) == (0, 1)
    assert "dropped: 1 without a time, 0 marks" in caplog.text
    path = tmp_path / "hare.tsv"
    path.write_text("onset\tduration\tword\n1\tn/a\tI\nn/a\t1\tbegan\n2\t1\tmy\n3\t1\tn/a\n")
    transcript = read(path, "table")
    assert transcript.words == ("I", "my")
    assert transcript.offset.tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["SO", "I'M", "42"], ("so", "i'm", "42")),
        (["So", "I'M", "42"], ("So", "I'M", "42")),
        (["他", "说"], ("他", "说")),
        (["Ёлка", "ΟΔΟΣ"], ("Ёлка", "ΟΔΟΣ")),
        (["むかし むかし", "あるところに"], ("むかし むかし", "あるところに")),
    ],
)
def test_case_and_script_stay_unless_all_is_in_capitals(words: list[str], kept: tuple[str, ...]) -> None:
    rows = [(float(k), k + 1.0, word) for k, word in enumerate(words)]
    assert transcript_of("hare", rows, Path("x")).words == kept


def test_words_are_put_in_order_of_onset() -> None:
    rows: list[Word] = [(2.0, 2.5, "ran"), (0.0, 0.5, "the"), (1.0, 2.0, "hare")]
    assert transcript_of("hare", rows, Path("x")).words == ("the", "hare", "ran")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(0.0, 1.0, "the"), (0.85, 2.0, "hare")], "'hare' of hare begins at 0.85 s, before 'the' ends at 1 s"),
        ([(0.0, 1.0, "the"), (0.0, 1.0, "the")], "'the' of hare begins at 0 s"),
        ([(-1.0, 1.0, "the")], "begins before the story"),
        ([(1.0, 0.5, "the")], "ends before it begins"),
        ([(0.0, 1.0, "{NS}"), (1.0, 2.0, "")], "no word of hare has a time"),
        ([], "no word of hare has a time"),
    ],
)
def test_faults_name_the_word(rows: list[Word], message: str) -> None:
    with pytest.raises(InputError, match=f"{message}.*: x.TextGrid .*expected: .*remedy: "):
        transcript_of("hare", rows, Path("x.TextGrid"))


def test_times_may_be_rounded() -> None:
    assert transcript_of("hare", [(0.0, 1.05, "the"), (1.0, 2.0, "hare")], Path("x")).words == ("the", "hare")


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("table", "onset\tword\n0\tthe\n", "no column duration"),
        ("table", "onset\tduration\tword\nsoon\t1\tthe\n", "'soon' in line 2 is no time"),
        ("table", "onset\tduration\tword\ninf\t1\tthe\n", "'inf' in line 2 is no time"),
        ("align", "the,the,0.0\n", "line 1 has 3 fields"),
        ("align", "the,the,0.0,1.0\nhare,hare,one,2.0\n", "'one' in line 2 is no time"),
    ],
)
def test_damaged_tables(tmp_path: Path, kind: str, text: str, message: str) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(InputError, match=f"{message}: .*file .*expected: "):
        read(path, kind)


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, "table", ROWS)
    assert len(read(path, "table").words) == 3
    write(tmp_path, "table", ROWS[:2])
    os.utime(path, ns=(1, 1))
    assert len(read(path, "table").words) == 2
