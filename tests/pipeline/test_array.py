"""Many jobs, one output: the processes of a cluster array, started together, and the group level after them.

``BRAINLM_JOBS`` says how many there are.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

JOBS = int(os.environ.get("BRAINLM_JOBS", "3"))
QUICK = ("--set", "phases.0.epochs=2", "decode.permutations=4", "evaluate.bootstrap=20")


def _outputs(out: Path) -> dict[str, bytes]:
    files = (path for path in out.rglob("*") if path.is_file() and path.relative_to(out).parts[0] != "logs")
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_jobs_started_together_into_one_output(new_volume: Any, tmp_path: Path) -> None:
    labels = [f"{i + 1:02d}" for i in range(JOBS)]
    study = new_volume(tuple(labels))
    jobs = [study.start(*QUICK, "--participant-label", who) for who in labels]
    ends = [(job.communicate(timeout=1500)[1], job.returncode) for job in jobs]
    assert [code for _, code in ends] == [0] * JOBS, next(err for err, code in ends if code)

    # One after the other in one process, every byte is the same.
    study.ok(*QUICK, out=tmp_path / "single", work=tmp_path / "single-work")
    together, single = _outputs(study.out), _outputs(tmp_path / "single")
    assert together.keys() == single.keys()
    assert [name for name in together if together[name] != single[name]] == []
    table = pd.read_csv(study.out / "participants.tsv", sep="\t", dtype=str)
    assert sorted(table["participant_id"]) == [f"sub-{who}" for who in labels]
    assert len(json.loads((tmp_path / "work" / "hashes.json").read_text())) >= 4 * 3 * JOBS
    assert not list((tmp_path / "work").glob("run-*"))

    study.ok(*QUICK, level="group")
    assert len(pd.read_csv(study.out / "phenotype" / "decodingmetrics.tsv", sep="\t")) == JOBS
    shutil.rmtree(study.out / "sub-02")
    done = study.run(*QUICK, level="group")
    assert done.code == 75
    assert f"1 of {JOBS} participants failed (02): no results of sub-02" in done.lines[-1]
    assert len(pd.read_csv(study.out / "phenotype" / "decodingmetrics.tsv", sep="\t")) == JOBS - 1


@pytest.mark.slow
def test_two_jobs_for_one_participant_do_not_mix(volume: Any, tmp_path: Path) -> None:
    study = volume.copy(tmp_path)
    one = ("--participant-label", "01")
    first = study.start(*one, "--set", "phases.0.epochs=100000")
    try:
        while not list((tmp_path / "work" / "checkpoints").glob("*/fold-0/last.*")):
            assert first.poll() is None, first.communicate()[1]
            time.sleep(0.05)
        workers = psutil.Process(first.pid).children(recursive=True)
        done = study.run(*one)
    finally:
        first.kill()
        first.wait()
    # Its worker would train for hours; it dies with the run that started it.
    assert not psutil.wait_procs(workers, timeout=10)[1]
    assert done.code == 73
    assert "another run is working on sub-01" in done.lines[-1]
    assert "remedy: wait for it to end" in done.lines[-1]
    assert not (study.out / "sub-01.html").exists()
    # The lock ended with the process that held it.
    study.ok(*one, "--skip", "reports")
