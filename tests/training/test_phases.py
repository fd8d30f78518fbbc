"""What a phase trains moves, what it does not stays to the bit, and nothing learned is lost between phases."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bids_brainlm import config
from bids_brainlm.core.features import fit_affine
from bids_brainlm.core.types import Examples, Prompt, Recording, Split
from bids_brainlm.errors import ConfigError
from bids_brainlm.models import checkpoint
from bids_brainlm.models.backbones import embed, norm_parameters
from bids_brainlm.stages import decoder
from bids_brainlm.training.loop import Schedule
from bids_brainlm.training.phases import restore

Maker = Callable[..., Any]
FAMILIES = ("gpt2", "gemma3")


def schedule(train: tuple[str, ...], epochs: int = 3, precision: str = "fp32", **options: Any) -> Schedule:
    return Schedule("phase", train, epochs, 1e-2, 4, precision=precision, **options)


def group_of(name: str, norms: set[str]) -> str:
    if name == "tokenizer.markers":
        return "markers"
    if name.startswith("tokenizer."):
        return "tokenizer"
    if "lora_" in name:
        return "lora"
    return "norms" if name in norms else "rest"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("train", "moves"),
    [
        (("tokenizer",), {"tokenizer"}),
        (("norms",), {"norms"}),
        (("tokenizer", "norms"), {"tokenizer", "norms"}),
        (("tokenizer", "lora"), {"tokenizer", "lora"}),
        (("all",), {"norms", "rest"}),
        (("norms", "all", "markers"), {"norms", "rest"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_a_phase_changes_its_groups_and_no_bit_of_others(
    training: Maker, tmp_path: Path, family: str, train: tuple[str, ...], moves: set[str]
) -> None:
    case = training(family)
    norms = {f"llm.{name}" for name in norm_parameters(case.model.llm)}
    before = case.state()
    case.fit([schedule(train)], tmp_path)
    after = case.state()
    # An adapter wraps the layer it stands on; that layer's own weight keeps its value under a longer name.
    now = {name.replace(".base_layer", ""): value for name, value in after.items()}
    changed = {name for name, value in before.items() if not torch.equal(value, now[name])}
    changed |= {name for name in after if "lora_" in name}
    assert changed == {name for name in now if group_of(name, norms) in moves}
    if "lora" in moves:
        assert all(value.abs().max() > 0 for name, value in after.items() if "lora_B" in name)


@pytest.mark.parametrize(
    ("train", "moves"),
    [(("tokenizer",), {"tokenizer"}), (("markers",), {"markers"}), (("tokenizer", "markers"), {"tokenizer", "markers"})],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_markers_are_a_group_of_their_own(training: Maker, tmp_path: Path, train: tuple[str, ...], moves: set[str]) -> None:
    case = training("gpt2")
    case.mark()
    before = case.state()
    case.fit([schedule(train, l2=1.0)], tmp_path)
    changed = {name for name, value in case.state().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if group_of(name, set()) in moves}
    # Kept whether or not they moved, so that a decoder comes back whole.
    assert "tokenizer.markers" in case.phases.trained_state()


def test_what_is_trained_requires_gradients_and_nothing_else(training: Maker) -> None:
    case = training("llama")
    groups = case.phases.enter(("tokenizer", "lora"), "fp32")
    wanted = {id(p) for members in groups.values() for p in members}
    assert {id(p) for p in case.model.parameters() if p.requires_grad} == wanted
    groups = case.phases.enter(("norms",), "fp32")
    assert {id(p) for p in case.model.parameters() if p.requires_grad} == {
        id(p) for p in norm_parameters(case.model.llm).values()
    }
    # What an earlier phase trained stays part of what is saved.
    kinds = {group_of(name, set()) for name in case.phases.trained_state()}
    assert kinds == {"tokenizer", "lora", "rest"}
    assert case.phases.enter(("markers", "norms", "norms"), "fp32").keys() == {"norms"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["nf4", "bf16"])
def test_norms_and_lora_outlive_a_change_of_precision(training: Maker, tmp_path: Path, family: str, precision: str) -> None:
    case = training(family)
    case.fit([schedule(("tokenizer", "norms", "lora"))], tmp_path)
    learned = {name: value.clone() for name, value in case.phases.trained_state().items()}
    dense = case.model.llm
    # Entering without naming them: what was learned stays all the same, in full precision.
    case.phases.enter(("tokenizer",), precision)
    assert case.model.llm is not dense
    kept = case.phases.trained_state()
    assert kept.keys() == learned.keys()
    for name, value in learned.items():
        assert kept[name].dtype == torch.float32, name
        assert torch.equal(kept[name], value), name
    weights = {parameter.dtype for parameter in case.model.llm.parameters()}
    assert (torch.uint8 if precision == "nf4" else torch.bfloat16) in weights


@pytest.mark.parametrize("family", ["llama"])
def test_a_phase_in_nf4_trains_what_it_should(training: Maker, tmp_path: Path, family: str) -> None:
    case = training(family)
    first = case.fit([schedule(("tokenizer", "norms"), 5)], tmp_path / "one")
    after_one = case.state()
    schedules = [schedule(("tokenizer", "norms"), 5), schedule(("tokenizer", "norms", "lora"), 4, "nf4")]
    case = training(family)
    history = case.fit(schedules, tmp_path / "both")
    state = case.phases.trained_state()
    assert [row["train_loss"] for row in history[:5]] == [row["train_loss"] for row in first]
    assert {p.dtype for p in case.model.llm.parameters()} == {torch.float32, torch.uint8}
    for name, value in state.items():
        assert torch.isfinite(value).all()
        assert name not in after_one or not torch.equal(value, after_one[name]), f"{name} did not move in the second phase"
    # Had the trained norms been lost, the loss would have jumped back.
    begin, end, again = (history[i]["train_loss"] for i in (0, 4, 5))
    assert again < end + 0.25 * (begin - end)
    assert all(value.abs().max() > 0 for name, value in state.items() if "lora_B" in name)


def test_the_whole_model_does_not_go_into_four_bits(training: Maker) -> None:
    with pytest.raises(ConfigError, match="cannot be trained in nf4"):
        training("llama").phases.enter(("all",), "nf4")
    case = training("llama")
    case.phases.enter(("all",), "fp32")
    with pytest.raises(ConfigError, match="nor kept by a later phase in nf4"):
        case.phases.enter(("tokenizer",), "nf4")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_phase_in_bf16_keeps_what_it_trains_in_fp32(training: Maker, tmp_path: Path, family: str) -> None:
    case = training(family, precision="bf16")
    history = case.fit([schedule(("tokenizer", "norms"), 10, "bf16")], tmp_path / "half")
    exact = training(family).fit([schedule(("tokenizer", "norms"), 10)], tmp_path / "full")
    for row, wanted in zip(history, exact, strict=True):
        assert row["train_loss"] == pytest.approx(wanted["train_loss"], abs=0.02)
    assert exact[-1]["train_loss"] < exact[0]["train_loss"] - 0.15
    kinds = {name: parameter.dtype for name, parameter in case.model.named_parameters()}
    trained = case.phases.trained_state()
    assert {kinds[name] for name in trained} == {torch.float32}
    assert {kind for name, kind in kinds.items() if name not in trained} == {torch.bfloat16}
    assert torch.isfinite(case.model.nll(case.batch())).all()


def test_a_state_of_another_structure_is_refused(training: Maker) -> None:
    case = training("llama")
    with pytest.raises(ValueError, match=r"tensor tokenizer\.none has shape \(2,\), the model has nothing there"):
        restore(case.model, {"tokenizer.none": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"tensor tokenizer\.first has shape \(2,\), the model has \(4, 3, 16\) there"):
        restore(case.model, {"tokenizer.first": torch.zeros(2)})


def test_running_means_of_a_tokenizer_are_part_of_what_was_trained(training: Maker, tmp_path: Path) -> None:
    class Normed(nn.Module):
        n_tokens = 4

        def __init__(self) -> None:
            super().__init__()
            self.norm, self.map = nn.BatchNorm1d(9), nn.Linear(9, 4 * 32)

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return self.map(self.norm(features[:, 0])).view(-1, 4, 32)

    case = training("gpt2")
    case.model.tokenizer = Normed()
    case.fit([schedule(("tokenizer",))], tmp_path)
    saved = {name: value.clone() for name, value in case.phases.trained_state().items()}
    assert saved["tokenizer.norm.running_mean"].abs().max() > 0
    again = training("gpt2")
    again.model.tokenizer = Normed()
    restore(again.model, saved)
    batch = case.batch()
    assert torch.equal(again.model.eval().nll(batch), case.model.nll(batch))


# From the settings to a file and back --------------------------------------------------------------------------------


def split_of(case: Any) -> Split:
    """Sixteen trials of eight stimuli: six train, one chooses the epoch, one is the test."""
    stimulus = np.repeat(np.arange(8), 2)
    data = case.brains[stimulus, 0] + 0.1 * np.random.default_rng(2).standard_normal((16, 9)).astype(np.float32)
    names = np.array([f"s{i}" for i in stimulus])
    examples = Examples(
        Recording(data, "percent signal change", "beta", np.arange(16), np.zeros(16, int)),
        np.arange(16),
        tuple(Prompt("Describe the following image.", case.captions[i]) for i in stimulus),
        tuple((case.captions[i],) for i in stimulus),
        names,
        names,
        np.array([f"t{i}" for i in range(16)]),
    )
    return Split(examples, np.arange(12), np.arange(12, 14), np.arange(14, 16))


def windows_of(case: Any) -> Split:
    """Windows of three stories of 20 volumes, four volumes each: two train, half the third chooses the epoch and is the test."""
    rng = np.random.default_rng(2)
    recording = Recording(
        rng.standard_normal((60, 9)).astype(np.float32), "z", "bold", np.tile(np.arange(20.0), 3), np.repeat([0, 1, 2], 20)
    )
    first = np.arange(0, 60, 4)
    n = len(first)
    texts = [case.captions[i % 8] for i in range(n)]
    names = np.array([f"story{i // 5}/{i % 5}" for i in range(n)])
    examples = Examples(
        recording,
        first[:, None] + np.arange(4),
        tuple(Prompt(texts[i - 1], text) for i, text in enumerate(texts)),
        tuple((text,) for text in texts),
        np.array(["a"] * 5 + ["b"] * 5 + ["c"] * 2 + ["d"] * 3),
        names,
        names,
    )
    return Split(examples, np.arange(10), np.arange(10, 12), np.arange(13, 15))


def settings(
    folder: Path, second: str, tokenizer: str = "parcelwise", components: int = 0, dropout: float = 0.2, **model: Any
) -> config.Config:
    phase = {"epochs": 2, "learning_rate": 1e-2, "batch_size": 4}
    return config.build(
        {
            "model": {
                "llm": str(folder),
                "tokenizer": tokenizer,
                "components": components,
                "lora_rank": 4,
                "vertex_dropout": dropout,
                **model,
            },
            "run": {"device": "cpu"},
            "phases": [
                {**phase, "name": "one", "train": ["tokenizer", "norms"]},
                {**phase, "name": "two", "train": ["tokenizer", "lora"], "precision": second},
            ],
        }
    )


@pytest.mark.parametrize(
    ("family", "second", "tokenizer", "components"),
    [
        ("llama", "nf4", "parcelwise", 0),
        ("gemma3", "bf16", "parcelwise", 0),
        ("gpt2", "fp32", "mlp", 5),
        ("gpt2", "nf4", "mlp", 0),
        ("gpt2", "fp32", "windows", 5),
    ],
)
def test_a_decoder_comes_back_from_its_file(
    llm_files: Maker, training: Maker, tmp_path: Path, family: str, second: str, tokenizer: str, components: int
) -> None:
    windows = tokenizer == "windows"
    split = (windows_of if windows else split_of)(training(family))
    more = {"markers": True, "options": {"kind": "separate", "hidden": 8}} if windows else {}
    chosen = settings(llm_files(family), second, "mlp" if windows else tokenizer, components, **more)
    labels = np.array([1, 1, 2, 0, 3, 3, 3, 2, 4], np.int32)
    trained, parts = decoder.train(split, labels, chosen, folder=tmp_path / "checkpoints", key="k", label="test")
    checkpoint.save(tmp_path / "model.safetensors", **parts)
    torch.manual_seed(99)
    again = decoder.load(tmp_path / "model.safetensors", chosen)
    assert again.history == trained.history
    assert again.padding_waste == trained.padding_waste
    corpus = decoder.corpus(split.examples, split.test, trained.text, trained.model.n_tokens, chosen)
    (batch,) = corpus.in_order(8)
    assert torch.equal(again.model.nll(batch), trained.model.nll(batch))
    one, two = (dict(each.model.named_parameters()) for each in (trained, again))
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[name]) and value.dtype == two[name].dtype for name, value in one.items())


class Counted:
    """Rows that count how often they are read."""

    def __init__(self, data: np.ndarray) -> None:
        self.data, self.shape, self.rows = data, data.shape, 0

    def __getitem__(self, index: Any) -> np.ndarray:
        out = self.data[index]
        self.rows += len(out)
        return out


@pytest.mark.parametrize("kind", ["", "shared", "joint"], ids=["trials", "windows", "windows-joint"])
def test_training_on_scores_equals_training_from_vertices(
    llm_files: Maker, training: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    case = training("gpt2")
    split = windows_of(case) if kind else split_of(case)
    more = {"markers": True, "style": "continuation", "options": {"kind": kind, "hidden": 8}} if kind else {}
    chosen = settings(llm_files("gpt2"), "fp32", "mlp", 5, dropout=0.0, **more)
    found, read = [], []
    for name in ("scores", "vertices"):
        if name == "vertices":
            monkeypatch.setattr(decoder, "_scores_once", lambda *_: contextlib.nullcontext(lambda corpus: corpus))
        counted = Counted(split.examples.recording.data)
        examples = dataclasses.replace(split.examples, recording=dataclasses.replace(split.examples.recording, data=counted))
        own = dataclasses.replace(split, examples=examples)
        labels = np.zeros(9, np.int32)
        found.append(decoder.train(own, labels, chosen, folder=tmp_path / name, key="k", label="test")[0])
        read.append(counted.rows)
    scores, vertices = found
    assert len(scores.history) == 4
    for one, two in zip(scores.history, vertices.history, strict=True):
        assert one["train_loss"] == pytest.approx(two["train_loss"], rel=1e-4)
        assert one["validation_loss"] == pytest.approx(two["validation_loss"], rel=1e-4)
    # Afterwards the model takes vertices again, as interventions need it.
    corpus = decoder.corpus(split.examples, split.test, scores.text, scores.model.n_tokens, chosen)
    (batch,) = corpus.in_order(8)
    torch.testing.assert_close(scores.model.nll(batch), vertices.model.nll(batch), rtol=1e-3, atol=1e-3)
    # Four epochs would read the rows of every example four times; once is enough, beside what the components are fitted on.
    assert read[1] - read[0] == 3 * split.examples.rows[np.concatenate([split.train, split.validation])].size


def test_markers_start_at_the_mean_token(llm_files: Maker, training: Maker, tmp_path: Path) -> None:
    chosen = settings(llm_files("gemma3"), "fp32", "mlp", markers=True)
    llm = decoder.open_llm(chosen, "fp32").model
    ids = torch.arange(llm.get_input_embeddings().num_embeddings)
    split = split_of(training("gemma3"))
    affine = fit_affine(split.examples.recording, split.train)
    model = decoder.assemble(llm, affine, np.zeros(9, np.int32), None, 1, chosen)
    assert model.n_tokens == 3
    torch.testing.assert_close(model.tokenizer.markers.detach(), embed(llm, ids).detach().mean(0).expand(2, -1))


def test_the_warm_up_is_padded_where_the_released_code_is_to_be_matched() -> None:
    for padded, wanted in (("false", "context_mean_mse"), ("true", "context_mean_mse_padded")):
        chosen = config.load("brainllm", overrides={"compat.padded_warmup": padded})
        schedules = [decoder.schedule_of(phase, "cpu", chosen.compat.padded_warmup) for phase in chosen.phases]
        assert [item.objective for item in schedules] == [wanted, "cross_entropy"]
