"""The one rule for caching: a hash of content and of the settings that bear on the result decides whether a stage runs.

- A *stage* is a function with plain arguments that writes files and returns their paths.
- Its *key* hashes the content of its inputs (or the keys of the stages that make them) and the settings it depends on, so
  the keys of a whole plan are known before anything runs.
- Its *stamp*, ``logs/stages/<name>.json`` in the output dataset, is written last and holds the key and the size of every
  output. A stage whose stamp has its key and whose outputs are all there is *fresh* and is not run again.
- From when it is known that a stage must run until it has succeeded, its stamp is *void*: it has no key, but still lists what
  the stage once wrote. Reports pass that over, and files which the stage no longer writes (other folds, another estimator) are
  taken away when it has succeeded.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import resource
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from bids_brainlm import __version__
from bids_brainlm.errors import OutputError
from bids_brainlm.io.files import atomic_write, make_folder
from bids_brainlm.io.images import refuse_unreadable

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One piece of work.

    Parameters
    ----------
    name : str
        Unique in the output dataset, e.g. ``sub-01_task-x_run-1_estimate``.
    function : str
        ``module:function``, called as ``function(context, **arguments)`` with the stage context of `plan`.
    arguments : dict
        Plain data.
    key : str
    after : tuple of str
        Stages whose outputs it reads.
    heavy : bool
        Whether it uses the accelerator.
    """

    name: str
    function: str
    key: str
    arguments: dict[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    heavy: bool = False

    @property
    def kind(self) -> str:
        """What stages of all runs and participants have in common: estimate, train ..."""
        return self.name.rpartition("_")[2]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Stage:
        fields = json.loads(text)
        return cls(**{**fields, "after": tuple(fields["after"])})


def digest(*things: Any) -> str:
    """Hash of plain data."""
    text = json.dumps([__version__, *things], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class FileHashes:
    """SHA-256 of files, remembered by (path, size, time of change) in an index file that processes share.

    Parameters
    ----------
    folder : Path
        Where the index is. What is remembered cannot be out of date, so that it may serve any dataset and any run.

    Attributes
    ----------
    asked : dict of str to str
        Path -> SHA-256 of the files that were asked for in this process.
    """

    def __init__(self, folder: Path) -> None:
        self.store = folder / "hashes.json"
        self.known = self._stored()
        self.asked: dict[str, str] = {}

    def __call__(self, path: Path) -> str:
        if path.is_dir():
            return digest([(str(p.relative_to(path)), self(p)) for p in sorted(path.rglob("*")) if p.is_file()])
        refuse_unreadable(path)
        stat = path.stat()
        label = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        if label not in self.known:
            with path.open("rb") as stream:
                self.known[label] = hashlib.file_digest(stream, "sha256").hexdigest()
        self.asked[str(path)] = self.known[label]
        return self.known[label]

    def many(self, paths: Iterable[Path | None]) -> list[str]:
        return [self(path) for path in paths if path is not None]

    def save(self) -> None:
        """Add what was learnt to the index."""
        try:
            with FileLock(make_folder(self.store.parent) / "hashes.lock"):
                self.known = self._stored() | self.known
                with atomic_write(self.store) as partial:
                    partial.write_text(json.dumps(self.known))
        except (OutputError, PermissionError) as error:
            # An index made beforehand may be shared read-only; without it, only the next start is slower.
            LOGGER.warning("the index of input files is not kept: %s", error)

    def _stored(self) -> dict[str, str]:
        try:
            known: dict[str, str] = json.loads(self.store.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            # A memory that is not there, or that a crash cut short, is only a slower start.
            return {}
        return known


def stamp_path(out_dir: Path, name: str) -> Path:
    return out_dir / "logs" / "stages" / f"{name}.json"


def read_stamp(out_dir: Path, name: str) -> dict[str, Any]:
    """The stamp of a stage; empty when there is none."""
    path = stamp_path(out_dir, name)
    if not path.is_file():
        return {}
    stamp: dict[str, Any] = json.loads(path.read_text())
    return stamp


def outputs(out_dir: Path, name: str) -> list[Path]:
    """Files that a finished stage wrote; none while its stamp is void."""
    stamp = read_stamp(out_dir, name)
    return [out_dir / path for path in stamp["outputs"]] if stamp.get("key") else []


def is_fresh(out_dir: Path, stage: Stage) -> bool:
    """Whether the outputs of a stage are there and what it would make now."""
    stamp = read_stamp(out_dir, stage.name)
    if not stage.key or stamp.get("key") != stage.key:
        return False
    return all((out_dir / path).is_file() and (out_dir / path).stat().st_size == size for path, size in stamp["outputs"].items())


def run(stage: Stage, context: Any, out_dir: Path) -> list[Path]:
    """Run a stage, take away what it wrote before and does not write any more, and stamp it.

    Parameters
    ----------
    stage : Stage
    context : Any
        First argument of the stage's function.
    out_dir : Path
        Output dataset.
    """
    module, _, name = stage.function.partition(":")
    start, cpu = time.perf_counter(), time.process_time()
    former = void(out_dir, stage.name)
    written: list[Path] = getattr(importlib.import_module(module), name)(context, **stage.arguments)
    for path in former - set(written):
        path.unlink(missing_ok=True)
    unit = 2**30 if sys.platform == "darwin" else 2**20
    stamp: Mapping[str, Any] = {
        "key": stage.key,
        "outputs": {str(path.relative_to(out_dir)): path.stat().st_size for path in written},
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 2),
        "version": __version__,
        "process": os.getpid(),
    }
    _write(out_dir, stage.name, stamp)
    return written


def void(out_dir: Path, name: str) -> set[Path]:
    """Take the key out of a stamp, if there is one; return what the stage once wrote."""
    stamp = read_stamp(out_dir, name)
    if stamp:
        _write(out_dir, name, {**stamp, "key": ""})
    return {out_dir / path for path in stamp.get("outputs", {})}


def discard(out_dir: Path, name: str) -> None:
    """Take away what a stage wrote that the plan does not have any more, and its stamp."""
    for path in void(out_dir, name):
        path.unlink(missing_ok=True)
    stamp_path(out_dir, name).unlink(missing_ok=True)


def _write(out_dir: Path, name: str, stamp: Mapping[str, Any]) -> None:
    with atomic_write(stamp_path(out_dir, name)) as partial:
        partial.write_text(json.dumps(stamp, indent=1))
