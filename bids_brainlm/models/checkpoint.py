"""Tensors and what they belong to, in one safetensors file that appears whole or not at all.

A *checkpoint* is a dictionary of tensors plus a JSON-able description, which stands in the header of the file; nothing is
pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bids_brainlm.errors import InputError, OutputError


def save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a checkpoint; a file of that name is replaced only once the new one is complete on disk.

    Raises
    ------
    OutputError
        When the disk is full or the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        mode = partial.stat().st_mode
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial, metadata={"about": json.dumps(about)})
        # safetensors writes for the owner alone; whoever may read the other outputs may read this one.
        partial.chmod(mode)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        # The library has only words for trouble with the disk.
        raise OutputError(f"cannot be written ({error})", path, remedy="free space, or choose another place") from error
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint.

    Raises
    ------
    InputError
        When the file is no safetensors file, or not one of ours.
    """
    with _opened(path) as (stream, about):
        return {name: stream.get_tensor(name) for name in stream.keys()}, about  # noqa: SIM118 (no mapping)


def about(path: Path) -> dict[str, Any]:
    """The description of a checkpoint alone; raises as `load` does."""
    with _opened(path) as (_, described):
        return described


def digest(path: Path) -> str:
    """SHA-256 of the tensors of a checkpoint, their names, types and shapes; not of its description.

    The same weights have the same digest, wherever and with how much memory they were trained. Raises as `load` does.
    """
    tensors, _ = load(path)
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    try:
        with safe_open(path, framework="pt") as stream:
            yield stream, json.loads((stream.metadata() or {})["about"])
    except (SafetensorError, KeyError, OSError, json.JSONDecodeError) as error:
        raise InputError(f"not a readable checkpoint ({error})", path, remedy="delete it; training then starts anew") from error
