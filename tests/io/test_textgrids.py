"""TextGrids of all three formats and of Praat's encodings give the same intervals; what praatio writes is read back."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from praatio import textgrid

from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.io.textgrids import Interval, parse_textgrid, read_tier

WORDS: tuple[Interval, ...] = ((0.0, 0.4, "the"), (0.4, 1.0, 'so-called "hare"'), (1.0, 1.5, ""), (1.5, 2.0, "ran."))
LONG = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "TextTier"
        name = "taps"
        xmin = 0
        xmax = 2
        points: size = 1
        points [1]:
            number = 0.25
            mark = "tap 3 ! 4"
    item [2]:
        class = "IntervalTier"
        name = "word"
        xmin = 0
        xmax = 2
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.4
            text = "the"
        intervals [2]:
            xmin = 0.4
            xmax = 1.0e0
            text = "so-called ""hare"""
        intervals [3]:
            xmin = 1
            xmax = 1.5
            text = ""
        intervals [4]:
            xmin = 1.5
            xmax = 2
            text = "ran."
'''
SHORT = '''File type = "ooTextFile"
Object class = "TextGrid"

0
2
<exists>
2
"TextTier"
"taps"
0
2
1
0.25
"tap 3 ! 4"
"IntervalTier"
"word"
0
2
4
0
0.4
"the"
0.4
1
"so-called ""hare"""
1
1.5
""
1.5
2
"ran."
'''
CHRONOLOGICAL = '''"Praat chronological TextGrid text file"
0 2   ! Time domain.
2   ! Number of tiers.
"TextTier" "taps" 0 2
"IntervalTier" "word" 0 2
2 0 0.4
"the"
1 0.25
"tap 3 ! 4"
2 0.4 1
"so-called ""hare"""
2 1 1.5
""
2 1.5 2
"ran."
'''


@pytest.mark.parametrize("text", [LONG, SHORT, CHRONOLOGICAL], ids=["long", "short", "chronological"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["unix", "windows"])
def test_formats_hold_the_same(text: str, ending: str) -> None:
    tiers = parse_textgrid(text.replace("\n", ending), "a.TextGrid")
    assert {tier.name: tier.intervals for tier in tiers} == {"taps": ((0.25, 0.25, "tap 3 ! 4"),), "word": WORDS}


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (b"", "utf-16-le"),
        (b"", "utf-16-be"),
    ],
)
def test_encodings(tmp_path: Path, mark: bytes, encoding: str) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_bytes(mark + LONG.replace("ran.", "räuspern 你好").encode(encoding))
    assert read_tier(path, "word").intervals == (*WORDS[:3], (1.5, 2.0, "räuspern 你好"))


def test_latin_1_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_bytes(SHORT.replace("ran.", "über").encode("latin-1"))
    assert read_tier(path, "word").intervals[-1][2] == "über"
    assert "ISO Latin-1" in caplog.text


labels = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12).map(str.strip).filter(bool)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 900), labels), min_size=1, max_size=12), st.sampled_from(["short", "long"]))
def test_what_praatio_writes(tmp_path: Path, words: list[tuple[int, str]], form: str) -> None:
    ends = [sum(length for length, _ in words[: k + 1]) / 1000 for k in range(len(words))]
    rows = [(begin, end, label) for begin, end, (_, label) in zip([0.0, *ends], ends, words, strict=False)]
    grid = textgrid.Textgrid()
    grid.addTier(textgrid.IntervalTier("word", rows, 0, ends[-1]))
    path = tmp_path / "a.TextGrid"
    grid.save(str(path), f"{form}_textgrid", includeBlankSpaces=False)
    # praatio takes intervals below a hundredth of a microsecond for none; these are a millisecond and longer.
    assert read_tier(path, "word").intervals == tuple(rows)


def test_tiers_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(SHORT.replace('"word"', '"Words"'))
    assert read_tier(path, "word").name == "Words"
    with pytest.raises(InputError, match=r"no tier 'phone': .*one of taps, Words; remedy: --set window.tier="):
        read_tier(path, "phone")
    path.write_text(SHORT.replace('"word"', '"Word"').replace('"taps"', '"words"'))
    with pytest.raises(InputError, match="2 tiers named 'word'"):
        read_tier(path, "word")
    assert read_tier(path, "Word").name == "Word"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "onset\tduration\n0\t1\n",
        'File type = "ooTextFile"\nObject class = "PitchTier"\n0\n1\n',
        LONG[: LONG.index('text = "ran."')],
        SHORT.replace('\n4\n0\n0.4\n"the"', "\n4\n0\nsoon\n"),
        CHRONOLOGICAL.replace("\n1 0.25", "\n3 0.25"),
        CHRONOLOGICAL.replace("\n1 0.25", "\n0 0.25"),
        CHRONOLOGICAL.replace('"ran."', '"ran.'),
    ],
    ids=["empty", "table", "pitch", "cut", "no number", "tier 3", "tier 0", "open quote"],
)
def test_what_is_no_textgrid(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(text)
    with pytest.raises(InputError, match="not a readable TextGrid: .*a.TextGrid"):
        read_tier(path, "word")


def test_content_that_was_not_fetched(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.symlink_to(tmp_path / "annex" / "object")
    with pytest.raises(MissingInputError, match="datalad get"):
        read_tier(path, "word")
