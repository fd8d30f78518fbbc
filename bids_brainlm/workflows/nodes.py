"""The one Nipype interface: load a stage and its request, run it, hand its outputs on."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits

from bids_brainlm.config import Request, as_tree, build
from bids_brainlm.errors import BrainLMError, lines_of
from bids_brainlm.io.files import atomic_write
from bids_brainlm.stages import cache

LOGGER = logging.getLogger(__name__)

INTERRUPTED = 130


def to_json(request: Request) -> str:
    """A request as text that a worker process can read."""
    return json.dumps({**asdict(request), "config": as_tree(request.config)}, default=str)


def from_json(text: str) -> Request:
    fields: dict[str, Any] = json.loads(text)
    paths = {name: Path(fields[name]) for name in ("bids_dir", "out_dir", "work_dir")}
    derivatives = {name: Path(path) for name, path in fields["derivatives"].items()}
    return Request(
        **{
            **fields,
            **paths,
            "derivatives": derivatives,
            "participants": tuple(fields["participants"]),
            "config": build(fields["config"]),
        }
    )


def level_of(verbosity: int) -> int:
    """Number of ``-v`` minus ``-q`` -> level of our own logger."""
    return {-2: logging.ERROR, -1: logging.WARNING, 0: logging.INFO}.get(max(verbosity, -2), logging.DEBUG)


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
        try:
            start = time.perf_counter()
            cache.run(stage, request, request.out_dir)
            LOGGER.info("%s: done in %.0f s", stage.name, time.perf_counter() - start)
        except BrainLMError as error:
            # The crash file of Nipype holds the traceback; this holds the one line that the user is to read.
            _write_fault(request, stage.name, lines_of(error), error.exit_code)
            raise
        except KeyboardInterrupt:
            _write_fault(request, stage.name, ("interrupted",), INTERRUPTED)
            raise
        self._results["name"] = stage.name
        return runtime


class RunHeavyStage(RunStage):
    """A stage that trains or decodes."""

    input_spec = _GpuStageInput


def fault_path(request: Request, stage: str) -> Path:
    """Where a stage leaves the message of its fault."""
    return request.work_dir / "faults" / f"{stage}.json"


def read_fault(request: Request, stage: str) -> dict[str, Any]:
    """``errors`` and ``exit_code`` of the fault of a stage; empty when it left none."""
    path = fault_path(request, stage)
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def stop_when_interrupted(node: Any, status: str) -> None:
    """Status callback: Nipype takes an interruption for the crash of one node and goes on with the others.

    Raises
    ------
    KeyboardInterrupt
        When that is what ended the node.
    """
    if status == "exception" and isinstance(node.interface, RunStage):
        request, stage = from_json(node.inputs.request), cache.Stage.from_json(node.inputs.stage)
        if read_fault(request, stage.name).get("exit_code") == INTERRUPTED:
            raise KeyboardInterrupt


def _write_fault(request: Request, stage: str, errors: tuple[str, ...], exit_code: int) -> None:
    with atomic_write(fault_path(request, stage)) as partial:
        partial.write_text(json.dumps({"errors": errors, "exit_code": exit_code}))
