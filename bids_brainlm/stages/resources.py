"""How much of the machine may be used: the least of what it has, what its container allows, and what the job was given.

A *control group* is how Linux limits containers and jobs; version 2 keeps its limits in one tree, version 1 in one a kind.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import psutil

from bids_brainlm.config import Run, gigabytes

SHARE = 0.9
"""Of the memory allowed, what is planned with; the rest is left to what nobody planned."""

IN_MEMORY = 0.25
"""Share of the memory that may be planned with up to which series and responses of a participant are kept there."""

_GROUPS = Path("/sys/fs/cgroup")


def n_processes(settings: Run) -> int:
    """Processes that may run side by side: as many as asked for, else one a core."""
    return settings.nprocs or n_cpus()


def n_cpus(environment: Mapping[str, str] = os.environ, groups: Path = _GROUPS) -> int:
    """Cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read(groups / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        cores = min(cores, -(-int(quota) // int(period)))
    job = environment.get("SLURM_CPUS_PER_TASK", "")
    return max(min(cores, int(job)) if job.isdigit() else cores, 1)


def memory_gb(environment: Mapping[str, str] = os.environ, groups: Path = _GROUPS) -> float:
    """Memory in GB (2**30 bytes) that may be planned with when nobody says how much."""
    limits: list[float] = [psutil.virtual_memory().total / 2**30]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _read(groups / name)
        limits += [int(limit) / 2**30] if limit.isdigit() else []
    node, cpu = (environment.get(f"SLURM_MEM_PER_{of}", "") for of in ("NODE", "CPU"))
    # Slurm counts in MB, and 0 stands for all there is.
    limits += [int(node) / 2**10] if node.isdigit() and int(node) else []
    limits += [int(cpu) * n_cpus(environment, groups) / 2**10] if cpu.isdigit() and int(cpu) else []
    return SHARE * min(limits)


def stays_in_memory(settings: Run, n_bytes: float) -> bool:
    """Whether a matrix of so many bytes is kept in memory, and not in a file that is mapped into it."""
    most = IN_MEMORY * 2**30 * (gigabytes(settings.memory) or memory_gb())
    return not settings.low_mem and n_bytes <= most


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        # No such limit here.
        return ""
