"""``--low-mem`` changes where things lie and when they are computed, and no result."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from bids_brainlm.config import Request, load
from bids_brainlm.errors import OutputError
from bids_brainlm.models.backbones import load_llm
from bids_brainlm.stages.decoder import spare_memory
from bids_brainlm.stages.responses import load_trials, scratch

# Dropout on the way into LoRA is what the second computation of a layer could get wrong.
LORA = ("--set", 'phases.0.train=["tokenizer", "norms", "lora"]', "phases.0.epochs=2", "model.lora_dropout=0.5")


def _model(folder: Path) -> dict[str, bytes]:
    with safe_open(next((folder / "sub-01" / "model").glob("*.safetensors")), "np") as file:
        return {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 (no mapping)


def _tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "sub-01").rglob("*.tsv")}


def test_the_results_are_the_same_bytes(volume: Any, tmp_path: Path) -> None:
    study = volume.copy(tmp_path)
    outs = tmp_path / "plain", tmp_path / "spare"
    study.ok("--participant-label", "01", "--facts", "stimuli/facts.tsv", *LORA, out=outs[0], work=tmp_path / "a")
    spare = ("--participant-label", "01", "--facts", "stimuli/facts.tsv", "--low-mem", *LORA)
    study.ok(*spare, out=outs[1], work=tmp_path / "b")
    plain, lean = map(_model, outs)
    assert any("lora" in name for name in plain)
    assert lean == plain
    assert _tables(outs[1]) == _tables(outs[0])
    # What lies in the work folder for that has no name.
    assert list((tmp_path / "b" / "low-mem").iterdir()) == []


def test_responses_lie_in_a_file(volume_done: Any, tmp_path: Path) -> None:
    def trials(low_mem: str) -> Any:
        config = load("cortext-small", overrides={"input.space": "T1w", "run.low_mem": low_mem})
        folders: dict[str, Any] = {"bids_dir": volume_done.bids, "out_dir": volume_done.out, "work_dir": tmp_path}
        return load_trials(Request(**folders, level="participant", participants=(), derivatives={}, config=config), "01")

    plain, lean = trials("false"), trials("true")
    assert isinstance(lean.data, np.memmap)
    assert not isinstance(plain.data, np.memmap)
    np.testing.assert_array_equal(lean.data, plain.data)
    assert (lean.table["trial_id"] == plain.table["trial_id"]).all()


def _counted(model: Any, vectors: torch.Tensor) -> tuple[int, bytes]:
    """Bytes that a forward pass keeps for the gradient, and the gradient with respect to the vectors put in."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    own = {parameter.data_ptr() for parameter in model.parameters()}
    vectors = vectors.clone().requires_grad_(True)
    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(inputs_embeds=vectors).logits.logsumexp(-1).sum()
    loss.backward()
    assert vectors.grad is not None
    return sum(size for place, size in kept.items() if place not in own), vectors.grad.numpy().tobytes()


def test_layers_are_computed_again_and_vectors_get_the_same_gradient(llm: Path) -> None:
    model = load_llm(str(llm), offline=True).model.train()
    vectors = torch.randn(4, 20, 32, generator=torch.Generator().manual_seed(1))
    plain = _counted(model, vectors)
    spare_memory(model, load("cortext-small", overrides={"run.low_mem": "false"}))
    assert _counted(model, vectors) == plain
    spare_memory(model, load("cortext-small", overrides={"run.low_mem": "true"}))
    lean = _counted(model, vectors)
    assert lean[1] == plain[1]
    assert lean[0] < 0.5 * plain[0]


@contextmanager
def _files_of_at_most(n_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with _files_of_at_most(10_000), pytest.raises(OutputError, match="no room for .* GB of responses") as raised:
        scratch(tmp_path / "low-mem", (100, 100))
    assert raised.value.exit_code == 73
    with _files_of_at_most(10_000):
        assert scratch(tmp_path / "low-mem", (10, 10)).sum() == 0
