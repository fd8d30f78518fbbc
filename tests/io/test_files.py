"""Tables and names survive a round trip; writing leaves all or nothing."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm.errors import InputError, MissingInputError, OutputError
from bids_brainlm.io.files import atomic_write, parse_tsv, read_header, read_json, read_tsv, write_json, write_text, write_tsv
from bids_brainlm.io.names import ENTITIES, bids_name, parse

CELL = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\u2028\u2029\x85'), max_size=8)


@settings(deadline=None)
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5))
def test_table_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.mktemp("t") / "t.tsv"
    write_tsv(path, {"a": [a for a, _ in rows], "key": [str(i) for i in range(len(rows))], "b": [b for _, b in rows]})
    table = read_tsv(path)
    for name, expected in (("a", [a for a, _ in rows]), ("b", [b for _, b in rows])):
        assert list(table[name]) == [None if text.strip() in ("", "n/a") else text.strip() for text in expected]


def test_values_as_bids_writes_them(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": np.array([0.1, np.nan], np.float32), "y": [True, False], "z": ["a\tb\nc", None], "n": [1, 2]})
    path = write_tsv(tmp_path / "t.tsv", table)
    assert path.read_bytes() == b"x\ty\tz\tn\n0.1\ttrue\ta\\tb\\nc\t1\nn/a\tfalse\tn/a\t2\n"
    with pytest.raises(ValueError, match="different lengths"):
        write_tsv(path, {"a": [1], "b": []})


def test_tables_as_spreadsheets_write_them(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_bytes('\ufeffkey\ttext\r\n1\t"two\nlines"\r\n2\t"say ""hi"""\r\n\r\n'.encode())
    table = read_tsv(path)
    assert list(table["text"]) == ["two\nlines", 'say "hi"']
    assert read_header(path) == ["key", "text"]


def test_a_lone_quotation_mark_swallows_nothing() -> None:
    assert parse_tsv('key\ttext\n1\t"Stop!\n2\the said\n', "t.tsv")["text"] == ['"Stop!', "he said"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"a\tb\n1\n", "line 2 has 1 fields.*2, parted by tabs"),
        (b"a\ta\n", "repeat"),
        (b"a\n\xff\n", "not UTF-8"),
    ],
)
def test_broken_tables_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.tsv").write_bytes(content)
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        read_tsv(tmp_path / "t.tsv")
    assert "t.tsv" in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError):
        read_tsv(tmp_path / "t.tsv")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(InputError, match="holds a list"):
        read_json(tmp_path / "list.json")


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = write_text(tmp_path / "deep" / "a.func.gii", "old")
    with pytest.raises(RuntimeError, match="stop"), atomic_write(path) as temporary:  # noqa: PT012
        assert temporary.name.endswith(".func.gii")
        assert temporary.parent == path.parent
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["a.func.gii"]


def test_same_content_is_not_written_again(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"x": np.float64(1), "y": np.arange(2), "p": Path("q")})
    assert read_json(path) == {"x": 1.0, "y": [0, 1], "p": "q"}
    before = path.stat().st_mtime_ns, path.stat().st_ino
    write_json(path, {"x": 1.0, "y": [0, 1], "p": "q"})
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"x": float("nan")})


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(ENTITIES)), st.from_regex(r"[0-9A-Za-z]{1,4}", fullmatch=True), max_size=8))
def test_name_round_trip(entities: dict[str, str]) -> None:
    name = bids_name(entities, "statmap", ".func.gii")
    parsed = parse(Path("func") / name)
    assert (parsed.entities, parsed.suffix, parsed.extension) == (entities, "statmap", ".func.gii")
    assert list(parsed.entities) == [key for key in ENTITIES if key in entities]


def test_order_is_that_of_the_bids_schema() -> None:
    pytest.importorskip("bidsschematools")
    from bidsschematools import schema

    tree = schema.load_schema()
    order = [tree.objects.entities[name]["name"] for name in tree.rules.entities]
    assert [key for key in ENTITIES if key in order] == [key for key in order if key in ENTITIES]


def test_entities_of_the_users_own_are_carried() -> None:
    assert parse(Path("sub-1_task-a_mine-x_scale-100_desc-q_bold.nii.gz")).entities["mine"] == "x"
    with pytest.raises(ValueError, match="task-a_b cannot stand"):
        bids_name({"task": "a_b"}, "bold", ".nii")


def _write_on_a_full_disk(path: Path) -> None:
    with atomic_write(path) as temporary:
        # A device that answers as a full disk does.
        temporary.symlink_to("/dev/full")
        temporary.write_bytes(b"after")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("before")
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\): .*x.txt .*free space"):
        _write_on_a_full_disk(path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x.txt", "before")]


def test_a_file_that_may_not_grow_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match="File too large") as raised:
            write_text(tmp_path / "x.txt", "a" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.exit_code == 73
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "word"), [(errno.EDQUOT, "free space"), (errno.EROFS, "a folder that can be written")])
def test_quotas_and_read_only_disks(tmp_path: Path, number: int, word: str) -> None:
    with pytest.raises(OutputError, match=word), atomic_write(tmp_path / "x.txt"):
        raise OSError(number, os.strerror(number))


def test_an_input_that_cannot_be_read_is_not_taken_for_the_output(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), atomic_write(tmp_path / "out" / "x.txt"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "in" / "y.txt"))
