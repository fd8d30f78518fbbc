"""Killed at any moment, the same command ends with the same bytes; a signal ends it at once, and a dead worker is named.

``BRAINLM_KILLS`` says how many random moments are tried.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

ONE = ("--participant-label", "01", "--nprocs", "2", "--seed", "5")
KILLS = int(os.environ.get("BRAINLM_KILLS", "3"))


def _outputs(out: Path) -> dict[str, bytes]:
    """Everything but the logs, which tell times."""
    files = (path for path in out.rglob("*") if path.is_file() and path.relative_to(out).parts[0] != "logs")
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def _command(process: subprocess.Popen[str]) -> tuple[int, str]:
    err = process.communicate(timeout=300)[1]
    return process.returncode, err


def _outliving(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those still there after a while; a server of workers first ends the imports that it has begun."""
    left = psutil.wait_procs(processes, timeout=5)[1]
    left = [process for process in left if psutil.pid_exists(process.pid) and process.status() != psutil.STATUS_ZOMBIE]
    return psutil.wait_procs(left, timeout=30)[1]


@pytest.mark.slow
def test_killed_at_random_moments_the_outputs_are_the_same_bytes(volume: Any, tmp_path: Path) -> None:
    study = volume.copy(tmp_path)
    start = time.monotonic()
    code, err = _command(study.start(*ONE, out=tmp_path / "whole" / "out", work=tmp_path / "whole" / "work"))
    length = time.monotonic() - start
    assert code == 0, err
    wanted = _outputs(tmp_path / "whole" / "out")
    assert any(name.endswith(".safetensors") for name in wanted)
    rng, alive = random.Random(KILLS), 0
    for i in range(KILLS):
        place = {"out": tmp_path / f"kill{i}" / "out", "work": tmp_path / f"kill{i}" / "work"}
        process = study.start(*ONE, **place)
        moment = rng.uniform(0, length)
        time.sleep(moment)
        workers = psutil.Process(process.pid).children(recursive=True)
        alive += process.poll() is None
        process.kill()
        process.wait()
        # No worker outlives the run that started it, to write beside the next one.
        assert _outliving(workers) == []
        process.communicate()
        made = sorted(path.name for path in (place["out"] / "logs" / "stages").glob("*.json"))
        code, err = _command(study.start(*ONE, **place))
        assert code == 0, err
        got = _outputs(place["out"])
        assert got.keys() == wanted.keys(), (moment, made)
        assert [name for name in wanted if got[name] != wanted[name]] == [], (moment, made)
        assert not [path for path in place["out"].rglob(".*") if path.name != ".bidsignore"]
        print(f"kill {i + 1} at {moment:5.1f} of {length:.1f} s, {len(made):2} of 9 stages stamped: same bytes")
    assert alive >= KILLS - 1


def _when(found: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """What is found, once it is."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()[1]
        there = found()
        if there:
            return there
        time.sleep(0.01)
    raise AssertionError("it never came")


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")])
@pytest.mark.parametrize("stage", ["estimate", "train"])
def test_a_signal_ends_it_within_five_seconds(
    volume: Any, tmp_path: Path, signum: signal.Signals, code: int, word: str, stage: str
) -> None:
    study = volume.copy(tmp_path)
    # The GLM of one run does not last; training for ever does.
    process = study.start(*ONE, "--set", "phases.0.epochs=100000")
    stamps, checkpoints = study.out / "logs" / "stages", tmp_path / "work" / "checkpoints"
    _when(lambda: list(stamps.glob("*")) if stage == "estimate" else list(checkpoints.rglob("last.*")), process)
    workers = psutil.Process(process.pid).children(recursive=True)
    start = time.monotonic()
    process.send_signal(signum)
    process.send_signal(signum)
    err = process.communicate(timeout=30)[1]
    assert time.monotonic() - start < 5
    assert process.returncode == code
    assert (
        err.strip().splitlines()[-1] == f"bids_brainlm: {word}; the same command goes on from where it stopped [exit code {code}]"
    )
    assert "Traceback" not in err
    assert _outliving(workers) == []
    tree = study.log()
    assert tree["ended"] == "interrupted"
    assert not (stamps / "sub-01_train.json").exists()


@pytest.mark.slow
def test_a_worker_killed_for_memory_is_named_and_the_others_go_on(volume: Any, tmp_path: Path) -> None:
    study = volume.copy(tmp_path)
    more = ("--skip", "reports", "--set", "phases.0.epochs=60")
    process = study.start(*more)
    _when(lambda: list((tmp_path / "work" / "checkpoints").glob("sub-01_*/fold-0/last.*")), process)
    everyone = psutil.Process(process.pid).children(recursive=True)
    # One at a time, forked from the server of workers, which the run itself has started.
    (worker,) = [child for child in everyone if child.ppid() != process.pid]
    worker.kill()
    code, err = _command(process)
    lines = err.strip().splitlines()
    assert code == 75
    assert "Traceback" not in err
    assert lines[-1].startswith("bids_brainlm: 1 of 2 participants failed (01): the process of sub-01_train was killed (SIGKILL)")
    assert "want of memory" in lines[-1]
    assert "remedy: raise the memory" in lines[-1]
    assert study.beh("decoded", "02").is_file()
    assert not study.beh("decoded").exists()
    # The betas and the other participant stay.
    study.ok(*more)
    assert study.executed() == ["train", "decode", "evaluate"]
