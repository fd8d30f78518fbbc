"""What is kept of a call: enough to run it again and to know what it ran on.

``logs/<run>.toml`` holds every setting with its origin and, in ``[call]``, the rest of the command; ``--config-file`` with it
repeats the run. ``logs/<run>.json`` holds what cannot be chosen again: versions, machine, hashes of the inputs and of the
language model, time and memory of the stages, and how it ended. Both are written by every call, however it ends.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

from bids_brainlm import __version__
from bids_brainlm.config import Outcome, Request, call_of, to_toml
from bids_brainlm.io.files import write_json, write_text, write_tsv
from bids_brainlm.stages import cache, resources

VERSIONS = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "nilearn",
    "nibabel",
    "nipype",
    "pybids",
    "numpy",
    "scipy",
    "templateflow",
)

_MEASURED = ("seconds", "cpu_seconds", "peak_memory_gb")


@dataclass
class Record:
    """One call as it goes on; `write` may be called at any point.

    Parameters
    ----------
    request : Request
    outcomes : dict of participant to Outcome
    plans, executed : dict of participant to list of Stage
        All stages, and those that were to be run.
    inputs : dict of str to str
        Path -> SHA-256 of the files that were read, the language model's among them.
    ended : str
        ``done``, or how the call was ended.
    """

    request: Request
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    plans: dict[str, list[cache.Stage]] = field(default_factory=dict)
    executed: dict[str, list[cache.Stage]] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    ended: str = "interrupted"
    start: float = field(default_factory=time.time)
    label: str = field(default_factory=lambda: f"{time.strftime('%Y%m%d-%H%M%S')}_{uuid4()}")

    def write_settings(self) -> Path:
        """The file that repeats the call."""
        request = self.request
        return write_text(self._path(".toml"), to_toml(request.config, request.origins or None, call_of(request)))

    def write(self) -> Path:
        """Everything else."""
        request, out = self.request, self.request.out_dir
        executed = {who: [s for s in stages if cache.is_fresh(out, s)] for who, stages in self.executed.items()}
        n_executed = sum(map(len, executed.values()))
        tree = {
            "command": list(request.command),
            **call_of(request),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.start)),
            "seconds": round(time.time() - self.start, 1),
            "ended": self.ended,
            "outcomes": {who: {"errors": list(o.errors), "exit_code": o.exit_code} for who, o in self.outcomes.items()},
            "version": __version__,
            "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in VERSIONS}},
            "machine": machine(),
            "seed": request.config.run.random_seed,
            "executed": {who: [stage.name for stage in stages] for who, stages in executed.items()},
            "n_executed": n_executed,
            "n_reused": sum(len(stages) - len(self.executed.get(who, ())) for who, stages in self.plans.items()),
            "stages": {stage.name: self._measured(stage) for stages in self.plans.values() for stage in stages},
            "inputs": self.inputs,
        }
        return write_json(self._path(".json"), tree)

    def write_resources(self) -> Path:
        """Time and memory of every stage that ran, as a table."""
        stages = [stage for stages in self.executed.values() for stage in stages]
        measured = [self._measured(stage) for stage in stages]
        columns: dict[str, Sequence[Any]] = {"stage": [stage.name for stage in stages]}
        return write_tsv(
            self._path("_resources.tsv"), columns | {name: [row.get(name) for row in measured] for name in _MEASURED}
        )

    def _measured(self, stage: cache.Stage) -> dict[str, Any]:
        stamp: Mapping[str, Any] = cache.read_stamp(self.request.out_dir, stage.name)
        return {name: stamp[name] for name in _MEASURED if name in stamp and stamp.get("key")}

    def _path(self, ending: str) -> Path:
        return self.request.out_dir / "logs" / f"{self.label}{ending}"


def machine() -> dict[str, Any]:
    """Hardware and system that a call ran on."""
    return {
        "node": platform.node(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "cores_allowed": resources.n_cpus(),
        "memory_allowed_gb": round(resources.memory_gb() / resources.SHARE, 1),
        "gpus": [_line(path, "Model") for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))],
        "executable": sys.executable,
    }


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    return (_line(path, "model name") if path.is_file() else "") or platform.processor() or platform.machine()


def _line(path: Path, name: str) -> str:
    """Value of the first ``name : value`` line of a file of the kernel's."""
    pairs = (line.partition(":") for line in path.read_text(errors="replace").splitlines())
    return next((value.strip() for key, _, value in pairs if key.strip() == name), "")
