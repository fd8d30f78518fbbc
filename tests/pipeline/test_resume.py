"""Killed in the middle of training, the same command goes on from the last checkpoint and ends where it would have."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from bids_brainlm.training import loop

EPOCHS = 20
# Two phases, the second with adapters that start at random and dropout, so that every kind of randomness is met.
PHASES = f"""
[[phases]]
name = "first"
train = ["tokenizer", "norms"]
epochs = {EPOCHS}
learning_rate = 3e-3
l2 = 1.0
batch_size = 8

[[phases]]
name = "second"
train = ["tokenizer", "norms", "lora"]
epochs = {EPOCHS}
learning_rate = 1e-3
batch_size = 8
"""
ONE = ("--participant-label", "01", "--seed", "5")


def _place(work: Path) -> tuple[int, int]:
    """Phase and epoch of the last checkpoint; (0, 0) before the first."""
    path = next((work / "checkpoints").glob("sub-01_*/fold-0/last.safetensors"), None)
    if path is None:
        return 0, 0
    try:
        with safe_open(path, "np") as file:
            place = json.loads(file.metadata()["about"])["position"]
    except (SafetensorError, OSError):
        return 0, 0
    return place["phase"], place["epoch"]


def _stop_at(process: subprocess.Popen[str], work: Path, place: tuple[int, int], signum: signal.Signals) -> str:
    """Send a signal to the whole process group once a checkpoint of that phase and epoch is there; return its stderr."""
    try:
        while _place(work) < place:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.005)
        os.killpg(process.pid, signum)
        return process.communicate(timeout=60)[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def study(volume: Any, tmp_path: Path) -> Any:
    config = tmp_path / "phases.toml"
    config.write_text(PHASES)
    study = volume.copy(tmp_path)
    return type(study)(study.root, (*study.settings, "--config-file", str(config), *ONE))


@pytest.mark.slow
def test_killed_and_interrupted_it_ends_with_the_same_weights(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, epochs = tmp_path / "work", []
    for place, signum in (((0, 3), signal.SIGKILL), ((1, 3), signal.SIGINT)):
        process = study.start()
        err = _stop_at(process, work, place, signum)
        assert place <= _place(work) < (place[0] + 1, 0)
        assert not study.beh("decoded").exists()
        assert not list((study.out / "sub-01").glob("model/sub-*"))
        assert not (study.out / "logs" / "stages" / "sub-01_train.json").exists()
        assert process.returncode == (-signal.SIGKILL if signum == signal.SIGKILL else 130)
    assert "interrupted; the same command goes on from where it stopped" in err.strip().splitlines()[-1]
    assert "Traceback" not in err
    phase, epoch = _place(work)
    own = loop._Phase.epoch

    def record(self: Any, number: int) -> Any:
        epochs.append((self.schedule.name, number))
        return own(self, number)

    monkeypatch.setattr(loop._Phase, "epoch", record)
    # In one process, so that the record is kept here.
    study.ok("--debug", "pdb")
    assert phase == 1
    assert epochs == [("second", k) for k in range(epoch, EPOCHS)]
    history = study.table("training")
    wanted = [(name, k) for name in ("first", "second") for k in range(EPOCHS)]
    assert list(zip(history["phase"], history["epoch"], strict=True)) == wanted
    # The betas, done before the first kill, were not made again.
    assert study.executed() == ["train", "decode", "evaluate"]

    other = tmp_path / "other"
    study.ok("--debug", "pdb", out=other / "out", work=other / "work")
    assert len(epochs) == EPOCHS - epoch + 2 * EPOCHS
    name = "sub-01/model/sub-01_task-look_desc-fold0decoder_model.safetensors"
    ours, theirs = (load_file(folder / name) for folder in (study.out, other / "out"))
    assert ours.keys() == theirs.keys()
    assert any("lora" in key for key in ours)
    assert all((ours[key] == theirs[key]).all() for key in ours)
    for desc in ("decoded", "likelihood", "training", "metrics"):
        assert study.beh(desc).read_bytes() == study.beh(desc, out=other / "out").read_bytes()
