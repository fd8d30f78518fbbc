"""Keys, stamps and memory of file hashes: what decides whether a stage runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bids_brainlm.errors import InputError
from bids_brainlm.stages import cache
from bids_brainlm.stages.cache import FileHashes, Stage, digest, is_fresh, outputs, read_stamp, run, void


def write(context: dict[str, Any], *, names: list[str]) -> list[Path]:
    """A stage: one file a name."""
    if context.get("fails"):
        raise RuntimeError("on purpose")
    paths = [context["out"] / name for name in names]
    for path in paths:
        path.write_text(path.name)
    return paths


@pytest.fixture
def do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(cache, "tests_stage", write, raising=False)

    def run_it(key: str = "k", names: tuple[str, ...] = ("a", "b"), **context: Any) -> Stage:
        stage = Stage("s", "bids_brainlm.stages.cache:tests_stage", key, {"names": list(names)})
        run(stage, {"out": tmp_path, **context}, tmp_path)
        return stage

    return run_it


def test_a_digest_depends_on_every_part_and_on_no_order_of_names() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert len({digest(), digest(1), digest("1"), digest(1, 2), digest([1, 2]), digest([1], 2)}) == 6


def test_a_stage_survives_its_json() -> None:
    stage = Stage("s", "m:f", "key", {"a": [1]}, ("x", "y"), heavy=True)
    assert Stage.from_json(stage.to_json()) == stage


def test_fresh_is_same_key_and_all_outputs(do: Any, tmp_path: Path) -> None:
    stage = do()
    assert is_fresh(tmp_path, stage)
    assert outputs(tmp_path, "s") == [tmp_path / "a", tmp_path / "b"]
    assert not is_fresh(tmp_path, Stage("s", stage.function, "other"))
    assert not is_fresh(tmp_path, Stage("t", stage.function, "k"))
    (tmp_path / "a").write_text("longer")
    assert not is_fresh(tmp_path, stage)
    (tmp_path / "a").unlink()
    assert not is_fresh(tmp_path, stage)


def test_a_stamp_says_what_it_cost(do: Any, tmp_path: Path) -> None:
    do()
    stamp = read_stamp(tmp_path, "s")
    assert stamp["outputs"] == {"a": 1, "b": 1}
    assert stamp["seconds"] >= 0
    assert 0.01 < stamp["peak_memory_gb"] < 100
    assert stamp["process"] == os.getpid()


def test_what_is_no_longer_written_is_taken_away(do: Any, tmp_path: Path) -> None:
    do(names=("a", "b"))
    (tmp_path / "c").write_text("of somebody else")
    do("k2", names=("b", "d"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["b", "c", "d"]


def test_a_failure_leaves_no_key_but_remembers(do: Any, tmp_path: Path) -> None:
    stage = do(names=("a", "b"))
    with pytest.raises(RuntimeError, match="on purpose"):
        do(fails=True)
    assert not is_fresh(tmp_path, stage)
    assert outputs(tmp_path, "s") == []
    do("k3", names=("b",))
    assert not (tmp_path / "a").exists()


def test_the_first_failure_leaves_no_stamp(do: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="on purpose"):
        do(fails=True)
    assert read_stamp(tmp_path, "s") == {}
    assert void(tmp_path, "s") == set()
    assert not (tmp_path / "logs").exists()


def test_a_void_stamp_is_never_fresh_even_without_a_key(do: Any, tmp_path: Path) -> None:
    stage = do()
    assert void(tmp_path, "s") == {tmp_path / "a", tmp_path / "b"}
    assert not is_fresh(tmp_path, stage)
    assert not is_fresh(tmp_path, Stage("s", stage.function, ""))


def test_hashes_follow_content_and_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("one")
    hashes = FileHashes(tmp_path)
    first = hashes(path)
    hashes.save()
    assert FileHashes(tmp_path).known == hashes.known
    path.write_text("two")
    os.utime(path, ns=(1, 1))
    assert hashes(path) != first
    path.write_text("one")
    assert FileHashes(tmp_path)(path) == first


def test_the_memory_is_used_and_a_broken_one_is_not(tmp_path: Path) -> None:
    path, store = tmp_path / "x", tmp_path / "hashes.json"
    path.write_text("one")
    stat = path.stat()
    store.write_text(json.dumps({f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}": "remembered"}))
    assert FileHashes(tmp_path)(path) == "remembered"
    store.write_text('{"cut sho')
    assert len(FileHashes(tmp_path)(path)) == 64


def test_processes_add_to_one_index(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    one, other = FileHashes(tmp_path / "index"), FileHashes(tmp_path / "index")
    one(tmp_path / "a")
    other(tmp_path / "b")
    one.save()
    other.save()
    assert len(FileHashes(tmp_path / "index").known) == 2
    assert list(one.asked) == [str(tmp_path / "a")]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "fetched").symlink_to(tmp_path / "not")
    with pytest.raises(InputError, match="no such file.*remedy: fetch its content"):
        FileHashes(tmp_path)(tmp_path / "fetched")


def test_a_folder_is_its_files_and_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "llm"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_text("1")
    (folder / "sub" / "b").write_text("2")
    hashes = FileHashes(tmp_path)
    first = hashes(folder)
    (folder / "sub" / "b").rename(folder / "sub" / "c")
    assert hashes(folder) != first
    (folder / "sub" / "c").rename(folder / "sub" / "b")
    assert hashes(folder) == first
