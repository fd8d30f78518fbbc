"""A checkpoint comes back bit by bit, and appears whole or not at all."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bids_brainlm.errors import InputError
from bids_brainlm.models import checkpoint

TENSORS = {
    "weights": torch.randn(3, 4),
    "half": torch.randn(5).bfloat16(),
    "labels": torch.arange(4, dtype=torch.int32),
    "turned": torch.randn(4, 2).T,
    "step": torch.tensor(7.0),
}


def test_round_trip(tmp_path: Path) -> None:
    about = {"key": "k", "position": {"best": math.inf, "history": [{"loss": 0.1 + 0.2}]}, "text": "Käse ☃"}
    checkpoint.save(tmp_path / "new" / "folder" / "a.safetensors", TENSORS, about)
    tensors, found = checkpoint.load(tmp_path / "new" / "folder" / "a.safetensors")
    assert found == about
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert tensors[name].dtype == value.dtype
        assert torch.equal(tensors[name], value)
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["a.safetensors"]


def test_weights_have_one_digest_whatever_is_said_of_them(tmp_path: Path) -> None:
    for name, about in (("a", {"low_mem": True}), ("b", {})):
        checkpoint.save(tmp_path / name, dict(reversed(TENSORS.items())) if about else TENSORS, about)
    assert checkpoint.digest(tmp_path / "a") == checkpoint.digest(tmp_path / "b")
    changes = {
        "value": TENSORS | {"step": torch.tensor(8.0)},
        "shape": TENSORS | {"weights": TENSORS["weights"].reshape(4, 3)},
        "type": TENSORS | {"labels": TENSORS["labels"].view(torch.float32)},
        "name": {("a" if name == "step" else name): value for name, value in TENSORS.items()},
    }
    for name, tensors in changes.items():
        checkpoint.save(tmp_path / name, tensors, {})
        assert checkpoint.digest(tmp_path / name) != checkpoint.digest(tmp_path / "b")


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_a_checkpoint_may_be_read_by_who_may_read_other_files(tmp_path: Path, umask: int) -> None:
    former = os.umask(umask)
    try:
        checkpoint.save(tmp_path / "a.safetensors", {"w": torch.zeros(2)}, {})
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o666 & ~umask


def test_parameters_are_saved_without_their_gradients(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(2))
    checkpoint.save(tmp_path / "a.safetensors", {"w": weight}, {})
    assert torch.equal(checkpoint.load(tmp_path / "a.safetensors")[0]["w"], weight.detach())


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, {"w": torch.zeros(2)}, {"epoch": 1})

    def half_done(_tensors: object, target: Path, **_: object) -> None:
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_file", half_done)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, {"w": torch.ones(2)}, {"epoch": 2})
    tensors, about = checkpoint.load(path)
    assert about == {"epoch": 1}
    assert torch.equal(tensors["w"], torch.zeros(2))


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(InputError, match="not a readable checkpoint"):
        checkpoint.load(path)
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(InputError, match=r"not a readable checkpoint.*a\.safetensors.*training then starts anew"):
        checkpoint.load(path)
    checkpoint.save(path, TENSORS, {})
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match="not a readable checkpoint"):
        checkpoint.load(path)
