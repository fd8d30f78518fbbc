"""The least of machine, container and job."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from bids_brainlm.stages.resources import SHARE, memory_gb, n_cpus

ALL = psutil.virtual_memory().total / 2**30


@pytest.mark.parametrize(
    ("files", "environment", "gb"),
    [
        ({}, {}, ALL),
        ({"memory.max": "max\n"}, {}, ALL),
        ({"memory.max": str(2**30)}, {}, 1.0),
        ({"memory/memory.limit_in_bytes": str(2**31)}, {}, 2.0),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, {}, ALL),
        ({}, {"SLURM_MEM_PER_NODE": "1536"}, 1.5),
        ({}, {"SLURM_MEM_PER_NODE": "0"}, ALL),
        ({}, {"SLURM_MEM_PER_CPU": "512", "SLURM_CPUS_PER_TASK": "1"}, 0.5),
        ({"memory.max": str(2**30)}, {"SLURM_MEM_PER_NODE": "512"}, 0.5),
    ],
)
def test_the_smallest_limit_counts(tmp_path: Path, files: dict[str, str], environment: dict[str, str], gb: float) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory_gb(environment, tmp_path) == pytest.approx(SHARE * gb)


def test_cores_of_quota_and_job(tmp_path: Path) -> None:
    free = n_cpus({}, tmp_path)
    assert free >= 1
    assert n_cpus({"SLURM_CPUS_PER_TASK": "1"}, tmp_path) == 1
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert n_cpus({}, tmp_path) == min(free, 2)
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert n_cpus({"SLURM_CPUS_PER_TASK": "64"}, tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert n_cpus({}, tmp_path) == free
