"""The loop: it learns what is there to be learned, ends alike however often it was stopped, and keeps the best epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bids_brainlm.core.types import Prompt
from bids_brainlm.errors import BrainLMError
from bids_brainlm.language.render import Rendered, decode, render, stop_ids
from bids_brainlm.models import checkpoint
from bids_brainlm.models.fusion import BrainLM, collate
from bids_brainlm.registry import objectives
from bids_brainlm.training import loop
from bids_brainlm.training.batches import Corpus
from bids_brainlm.training.loop import Schedule

Maker = Callable[..., Any]


def schedule(**options: Any) -> Schedule:
    return Schedule(
        **{"name": "one", "train": ("tokenizer", "norms"), "epochs": 3, "learning_rate": 1e-2, "batch_size": 3, **options}
    )


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


# Schedule -------------------------------------------------------------------------------------------------------------


def test_cosine_with_warmup_has_a_closed_form() -> None:
    plan = schedule(learning_rate=2.0, warmup=0.25)
    rates = [plan.rate(step, 20) for step in range(20)]
    np.testing.assert_allclose(rates[:5], 2 * np.arange(1, 6) / 5)
    np.testing.assert_allclose(rates[5:], 1 + np.cos(np.pi * np.arange(15) / 15))
    assert max(rates) == 2
    assert min(rates) > 0
    # The mean of a cosine from 1 to 0 is a half, give or take half a step.
    assert np.mean([schedule(learning_rate=1.0).rate(i, 1000) for i in range(1000)]) == pytest.approx(0.5, abs=1e-3)


def test_a_constant_rate_is_constant() -> None:
    plan = schedule(learning_rate=0.3, schedule="constant", warmup=0.1)
    assert [plan.rate(step, 30) for step in range(30)] == pytest.approx([0.1, 0.2] + [0.3] * 28)
    assert schedule(epochs=1).rate(0, 1) == 1e-2


def test_decay_pulls_the_tokenizer_and_nothing_else(training: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(model: BrainLM, batch: Any) -> torch.Tensor:
        return 0.0 * sum(p.sum() for p in model.parameters() if p.requires_grad)

    monkeypatch.setitem(objectives._objects, "nothing", nothing)
    case = training()
    before = case.state()
    plan = schedule(objective="nothing", l2=0.5, warmup=0.2, batch_size=2, epochs=3)
    history = case.fit([plan], tmp_path)
    # Without a gradient AdamW multiplies by 1 - rate * decay at each of the 4 steps of 3 epochs.
    shrunk = math.prod(1 - plan.rate(step, 12) * 0.5 for step in range(12))
    for name, value in case.state().items():
        wanted = before[name] * shrunk if name.startswith("tokenizer.") else before[name]
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-7)
    assert [row["learning_rate"] for row in history] == [plan.rate(step, 12) for step in (3, 7, 11)]


# Learning -------------------------------------------------------------------------------------------------------------


def spoken(case: Any, index: Any) -> list[str]:
    prompts = [render(Prompt("Describe.", ""), case.text, 4, "continuation", False)] * 8
    batch = collate(prompts, case.brains[index], pad_left=True)
    ids = case.model.generate(batch, stop=stop_ids(case.text, "continuation"), max_new_tokens=30)
    return [decode(row, case.text) for row in ids]


def test_a_random_model_recites_captions_from_brains_and_loses_them_under_permutation(training: Maker, tmp_path: Path) -> None:
    case = training("gpt2")
    plan = schedule(train=("tokenizer", "all"), epochs=60, batch_size=8, warmup=0.1)
    history = case.fit([plan], tmp_path)
    assert history[-1]["train_loss"] < 0.05
    own, other = np.arange(8), np.roll(np.arange(8), 3)
    assert spoken(case, own) == case.captions
    assert spoken(case, other) == [case.captions[i] for i in other]
    assert (case.model.nll(case.batch(other)) - case.model.nll(case.batch(own))).min() > 3


def test_the_training_loss_is_the_mean_over_the_batches_of_the_epoch(training: Maker, tmp_path: Path) -> None:
    case = training()
    frozen = training()
    history = case.fit([schedule(learning_rate=1e-12, epochs=1, batch_size=3)], tmp_path)
    with torch.no_grad():
        losses = [objectives.get("cross_entropy")(frozen.model.eval(), batch) for batch in frozen.corpus.epoch(3, (3, 0, 0))]
    assert history[0]["train_loss"] == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


@pytest.mark.parametrize("optimised", [("tokenizer",), ("tokenizer", "norms")])
def test_accumulated_halves_are_a_whole_batch(training: Maker, tmp_path: Path, optimised: tuple[str, ...]) -> None:
    def run(batch_size: int, accumulation: int) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
        case = training()
        case.corpus = Corpus(equally_long(len(case.text)), lambda index: case.brains[index])
        plan = schedule(train=optimised, batch_size=batch_size, accumulation=accumulation, epochs=4, learning_rate=1e-3)
        history = case.fit([plan], tmp_path / f"{batch_size}")
        return case.state(), history

    (whole, one), (halves, two) = run(4, 1), run(2, 2)
    assert [row["learning_rate"] for row in one] == [row["learning_rate"] for row in two]
    assert [row["train_loss"] for row in one] == pytest.approx([row["train_loss"] for row in two], rel=1e-5)
    for name, value in whole.items():
        torch.testing.assert_close(value, halves[name], rtol=0, atol=2e-5)


def equally_long(n_vocabulary: int) -> tuple[tuple[Rendered], ...]:
    """Eight random texts of equally many tokens, so that means over batches and over halves of them agree."""
    place = np.arange(10)
    ids = np.random.default_rng(5).integers(n_vocabulary, size=(8, 10))
    return tuple((Rendered(row, place >= 6, (place > 0) & (place < 5)),) for row in ids)


def test_gradients_are_clipped_at_the_norm_asked_for(training: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    original = torch.optim.AdamW.step

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        gradients = [p.grad for g in self.param_groups for p in g["params"]]
        norms.append(float(torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    training().fit([schedule(clip=0.01)], tmp_path / "a")
    assert norms == pytest.approx([0.01] * 9, rel=1e-3)
    norms.clear()
    training().fit([schedule(clip=0)], tmp_path / "b")
    assert min(norms) > 0.02


# Validation -----------------------------------------------------------------------------------------------------------


def held_out(case: Any) -> Corpus:
    """The same brains with each other's texts: what is learned of the training texts makes these unlikely."""
    return Corpus(case.renderings, lambda index: case.brains[(np.asarray(index) + 1) % 8])


@torch.no_grad()
def loss_of(case: Any, corpus: Corpus) -> float:
    (batch,) = corpus.in_order(8)
    logits, targets, _ = case.model(batch)
    return float(torch.nn.functional.cross_entropy(logits, targets))


def test_the_best_epoch_is_kept(training: Maker, tmp_path: Path) -> None:
    case = training()
    plan = schedule(train=("tokenizer", "all"), epochs=20, batch_size=4, schedule="constant")
    history = case.fit([plan], tmp_path, validation=held_out(case))
    losses = [row["validation_loss"] for row in history]
    best = int(np.argmin(losses))
    assert 0 < best < 19
    assert loss_of(case, held_out(case)) == pytest.approx(losses[best], rel=1e-5)
    # A plain run that ends after that epoch has the same weights.
    short = training()
    short.fit([replace(plan, epochs=best + 1)], tmp_path / "short")
    assert same(case.state(), short.state())


@pytest.mark.parametrize("patience", [1, 3])
def test_patience_ends_a_phase(training: Maker, tmp_path: Path, patience: int) -> None:
    case = training()
    plan = schedule(train=("tokenizer", "all"), epochs=30, batch_size=4, schedule="constant", patience=patience)
    history = case.fit([plan, schedule(epochs=1)], tmp_path, validation=held_out(case))
    losses = [row["validation_loss"] for row in history[:-1]]
    assert len(losses) == int(np.argmin(losses)) + 1 + patience < 30
    assert history[-1]["phase"] == "one"
    assert history[-1]["epoch"] == 0


def test_without_validation_the_last_epoch_counts(training: Maker, tmp_path: Path) -> None:
    case = training()
    history = case.fit([schedule(patience=1)], tmp_path)
    assert [row["epoch"] for row in history] == [0, 1, 2]
    assert all(math.isnan(row["validation_loss"]) for row in history)
    last, best = (checkpoint.load(tmp_path / f"{name}.safetensors")[0] for name in ("last", "best"))
    assert all(torch.equal(last[name], value) for name, value in best.items())


def test_a_loss_that_is_not_a_number_stops_and_saves_nothing(
    training: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: BrainLM, batch: Any) -> torch.Tensor:
        return objectives.get("cross_entropy")(model, batch) * math.nan

    monkeypatch.setitem(objectives._objects, "broken", broken)
    with pytest.raises(BrainLMError, match="train_loss became nan in epoch 1 of phase one; lower learning_rate"):
        training().fit([schedule(objective="broken")], tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(loop._Phase, "validate", lambda self: math.nan)
    case = training()
    with pytest.raises(BrainLMError, match="validation_loss became nan in epoch 1 of phase one"):
        case.fit([schedule()], tmp_path, validation=held_out(case))


# Going on -------------------------------------------------------------------------------------------------------------


class Power:
    """The usual objective, until the power goes off at one of its calls in training."""

    def __init__(self) -> None:
        self.left = math.inf

    def __call__(self, model: BrainLM, batch: Any) -> torch.Tensor:
        if model.training:
            self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return objectives.get("cross_entropy")(model, batch)


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> Power:
    out = Power()
    monkeypatch.setitem(objectives._objects, "powered", out)
    return out


def two_phases(precision: str = "fp32") -> list[Schedule]:
    """Three epochs, then two with LoRA; three steps each."""
    return [
        schedule(objective="powered", l2=0.1),
        schedule(
            name="two", objective="powered", epochs=2, train=("tokenizer", "norms", "lora"), precision=precision, accumulation=2
        ),
    ]


def whole_run(training: Maker, folder: Path, plans: list[Schedule], family: str) -> tuple[dict[str, torch.Tensor], Any]:
    case = training(family, dropout=0.3, noise=0.2)
    history = case.fit(plans, folder, validation=held_out(case))
    return case.state(), history


@pytest.mark.parametrize("stops", [(4,), (10,), (4, 2, 4, 1)], ids=str)
def test_an_interrupted_run_ends_with_the_same_bits(
    training: Maker, tmp_path: Path, power: Power, stops: tuple[int, ...]
) -> None:
    wanted, history = whole_run(training, tmp_path / "whole", two_phases(), "gpt2")
    for stop in stops:
        power.left = stop
        with pytest.raises(KeyboardInterrupt):
            whole_run(training, tmp_path / "cut", two_phases(), "gpt2")
        # Another process has drawn other random numbers by then.
        torch.manual_seed(stop + 77)
    power.left = math.inf
    state, again = whole_run(training, tmp_path / "cut", two_phases(), "gpt2")
    assert str(again) == str(history)
    assert same(state, wanted)


@pytest.mark.parametrize("stop", [13])
def test_an_interrupted_run_in_nf4_ends_with_the_same_bits(training: Maker, tmp_path: Path, power: Power, stop: int) -> None:
    wanted, _ = whole_run(training, tmp_path / "whole", two_phases("nf4"), "llama")
    power.left = stop
    with pytest.raises(KeyboardInterrupt):
        whole_run(training, tmp_path / "cut", two_phases("nf4"), "llama")
    power.left = math.inf
    assert same(whole_run(training, tmp_path / "cut", two_phases("nf4"), "llama")[0], wanted)


def test_a_finished_run_is_not_trained_again(training: Maker, tmp_path: Path, power: Power) -> None:
    wanted, history = whole_run(training, tmp_path, two_phases(), "gpt2")
    power.left = 0
    state, again = whole_run(training, tmp_path, two_phases(), "gpt2")
    assert str(again) == str(history)
    assert same(state, wanted)


def test_a_checkpoint_of_another_key_is_left_alone(training: Maker, tmp_path: Path) -> None:
    training().fit([schedule()], tmp_path / "both", key="old")
    case, fresh = training(), training()
    case.fit([schedule(epochs=2)], tmp_path / "both", key="new")
    fresh.fit([schedule(epochs=2)], tmp_path / "new", key="new")
    assert same(case.state(), fresh.state())


def test_the_seed_decides(training: Maker, tmp_path: Path) -> None:
    states = []
    for i, seed in enumerate((3, 3, 4)):
        case = training(dropout=0.3)
        case.fit([schedule(epochs=1)], tmp_path / str(i), seed=seed)
        states.append(case.state())
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_the_model_ends_ready_to_be_used(training: Maker, tmp_path: Path) -> None:
    case = training(dropout=0.5)
    case.fit([schedule(epochs=1)], tmp_path)
    assert not case.model.training
    assert torch.equal(case.model.nll(case.batch()), case.model.nll(case.batch()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "last.safetensors"]
