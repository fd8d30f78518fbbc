"""The one Nipype interface: load a stage and its request, run it, hand its outputs on."""

from __future__ import annotations

import json
import logging
import pdb
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits

from bids_brainlm.config import Request, as_tree, build, level_of
from bids_brainlm.errors import BrainLMError, InputError, lines_of
from bids_brainlm.stages import cache

LOGGER = logging.getLogger(__name__)


def to_json(request: Request) -> str:
    """A request as text that a worker process can read."""
    return json.dumps({**asdict(request), "config": as_tree(request.config)}, default=str)


def from_json(text: str) -> Request:
    fields: dict[str, Any] = json.loads(text)
    paths = {name: Path(fields[name]) for name in ("bids_dir", "out_dir", "work_dir")}
    paths |= {name: Path(fields[name]) for name in ("database_dir", "plugin_file") if fields[name] is not None}
    derivatives = {name: Path(path) for name, path in fields["derivatives"].items()}
    lists = {name: tuple(fields[name]) for name in ("participants", "debug", "command")}
    return Request(**{**fields, **paths, **lists, "derivatives": derivatives, "config": build(fields["config"])})


class _StageInput(BaseInterfaceInputSpec):
    request = traits.Str(mandatory=True, desc="request as JSON")
    stage = traits.Str(mandatory=True, desc="stage as JSON")
    after = traits.List(traits.Str, desc="names of the stages before; only their order matters")


class _GpuStageInput(_StageInput):
    use_gpu = traits.Bool(True, usedefault=True, desc="asks MultiProc for a GPU slot")


class _StageOutput(TraitedSpec):
    name = traits.Str(desc="name of the stage that ran")


class RunStage(SimpleInterface):
    """A stage on the CPU."""

    input_spec, output_spec = _StageInput, _StageOutput

    def _run_interface(self, runtime: Any) -> Any:
        request, stage = from_json(self.inputs.request), cache.Stage.from_json(self.inputs.stage)
        # A worker process starts without handlers; in the main process this does nothing.
        logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
        logging.getLogger("bids_brainlm").setLevel(level_of(request.verbosity))
        start = time.perf_counter()
        try:
            cache.run(stage, request, request.out_dir)
        except Exception as error:
            FAULTS[stage.name] = _fault(request, stage, error)
            if "pdb" in request.debug:
                pdb.post_mortem(error.__traceback__)
            raise
        LOGGER.info("%s: done in %.0f s", stage.name, time.perf_counter() - start)
        self._results["name"] = stage.name
        return runtime


class RunHeavyStage(RunStage):
    """A stage that trains or decodes."""

    input_spec = _GpuStageInput


FAULTS: dict[str, dict[str, Any]] = {}
"""Name of a stage that failed in this process or one of its workers -> ``errors`` (lines for the user) and ``exit_code``.

A crash file of Nipype holds the traceback; this holds what the user is to read. Workers send theirs back with the result.
"""

_MEMORY = "raise the memory of the job or container, lower --nprocs, or try --low-mem; the same command goes on from here"


def stage_of(node: Any) -> cache.Stage:
    """The stage that a node runs."""
    return cache.Stage.from_json(node.inputs.stage)


def killed(node: Any, exit_code: int) -> dict[str, Any]:
    """Fault of a stage whose process ended without a word.

    Parameters
    ----------
    node : nipype Node
    exit_code : int
        Of the process; negative for a signal.
    """
    name, out_dir = stage_of(node).name, from_json(node.inputs.request).out_dir
    if exit_code == -signal.SIGKILL:
        what, remedy = f"the process of {name} was killed (SIGKILL), most likely for want of memory", _MEMORY
    else:
        how = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
        what, remedy = f"the process of {name} ended without a result ({how})", "give the same command again; -v -v says more"
    return {"errors": (str(InputError(what, out_dir, remedy=remedy)),), "exit_code": 1}


def _fault(request: Request, stage: cache.Stage, error: Exception) -> dict[str, Any]:
    """What the user is to read of an exception."""
    if isinstance(error, BrainLMError):
        return {"errors": lines_of(error), "exit_code": error.exit_code}
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return {"errors": (f"{stage.name} needs more memory than there is ({said}) (remedy: {_MEMORY})",), "exit_code": 1}
    where = request.out_dir / "logs" / "crashes"
    return {"errors": (f"{stage.name} failed ({said}); the traceback is in {where}",), "exit_code": 1}
