"""A process of its own for every stage, under Nipype's scheduler.

Nipype's MultiProc decides what may run when; its pool of processes is replaced, because a pool whose worker is killed for
memory never says so and the run hangs. Here a *worker* lives as long as one stage: its memory goes back when the stage ends,
its peak is that of the stage, its death is seen at once and laid at the right door, and it dies with the run that started it.

Workers are forked from a server process that has imported what the stages need, so that starting one costs milliseconds.
Where there is a GPU, stages that use it start from nothing instead: CUDA does not survive a fork.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from multiprocessing import connection
from pathlib import Path
from typing import Any

from nipype.pipeline.plugins.multiproc import MultiProcPlugin
from tqdm import tqdm

from bids_brainlm.stages.cache import Stage
from bids_brainlm.workflows import nodes

_EVERY = ("bids.layout",)
_MODEL = "transformers.modeling_utils"
_PUT_OFF = {
    **dict.fromkeys(("train", "decode", "information", "where", "story"), _MODEL),
    "evaluate": "bids_brainlm.evaluation.readout",
}
"""What stages import only when they run: 0.4 s, 1.2 s and 0.3 s that each worker would spend anew."""


def has_gpu() -> bool:
    """Whether the machine shows a GPU, without asking its driver, which would not survive a fork."""
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))


def warm_up(stages: Iterable[Stage], device: str) -> None:
    """Start importing what some stages need, in the process that workers are forked from, while this one goes on."""
    stages = [stage for stage in stages if not _starts_afresh(stage.heavy, device)]
    if stages and hasattr(os, "fork"):
        from multiprocessing import forkserver

        own = {stage.function.partition(":")[0] for stage in stages}
        late = {_PUT_OFF[stage.kind] for stage in stages if stage.kind in _PUT_OFF}
        multiprocessing.set_forkserver_preload([nodes.__name__, *sorted(own), *_EVERY, *sorted(late)])
        forkserver.ensure_running()


def _starts_afresh(heavy: bool, device: str) -> bool:
    return heavy and device != "cpu" and has_gpu()


class Workers:
    """The part of an executor that MultiProc uses.

    Parameters
    ----------
    device : str
        ``run.device``.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.processes: set[Any] = set()
        self.closed = False

    def submit(self, function: Callable[..., Any], node: Any, updatehash: bool, task: int) -> Future[dict[str, Any]]:
        """Start ``function(node, updatehash, task)`` in a worker."""
        heavy = isinstance(node.interface, nodes.RunHeavyStage)
        kind = "forkserver" if hasattr(os, "fork") and not _starts_afresh(heavy, self.device) else "spawn"
        context: Any = multiprocessing.get_context(kind)
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(theirs, os.getcwd(), function, node, updatehash, task))
        process.start()
        theirs.close()
        self.processes.add(process)
        future: Future[dict[str, Any]] = Future()
        threading.Thread(target=self._wait, args=(process, ours, node, task, future), daemon=True).start()
        return future

    def _wait(self, process: Any, answers: Any, node: Any, task: int, future: Future[dict[str, Any]]) -> None:
        try:
            result, faults = answers.recv()
        except EOFError:
            process.join()
            result, faults = {"result": None, "taskid": task}, {}
            if not self.closed:
                faults = {nodes.stage_of(node).name: nodes.killed(node, process.exitcode)}
            result["traceback"] = [fault["errors"][0] for fault in faults.values()] or ["stopped"]
        process.join()
        self.processes.discard(process)
        nodes.FAULTS.update(faults)
        future.set_result(result)

    def shutdown(self) -> None:
        """What MultiProc calls when nothing is left to do."""
        self.stop()

    def stop(self) -> None:
        """Kill whatever still runs; what it had not finished has no final name."""
        self.closed = True
        for process in list(self.processes):
            process.kill()
            process.join()


class OneProcessAStage(MultiProcPlugin):
    """MultiProc with `Workers` for its pool."""

    def __init__(self, plugin_args: dict[str, Any]) -> None:
        super().__init__(plugin_args)
        # The pool that this replaces has not started a process yet.
        self.pool = Workers(plugin_args["device"])


def _work(answers: Any, folder: str, function: Callable[..., Any], *arguments: Any) -> None:
    """Body of a worker."""
    _die_with_the_run()
    # Ctrl-C reaches every process of the terminal; the one that started this one decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Progress bars would share a semaphore between processes, which a killed worker leaves behind with a warning.
    tqdm.set_lock(threading.RLock())
    # What was imported before the fork stays; going through it for garbage would only copy its pages.
    gc.freeze()
    os.chdir(folder)
    nodes.FAULTS.clear()
    result = function(*arguments)
    answers.send((result, dict(nodes.FAULTS)))


def _die_with_the_run() -> None:
    """A run that is killed must not leave workers that write beside the next run.

    The server that workers are forked from does not die with the run while they live, so that its death says nothing.
    """
    run = multiprocessing.parent_process()
    if run is not None:
        threading.Thread(target=_kill_after, args=(run.sentinel,), daemon=True).start()


def _kill_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
