"""The only training loop: phases over batches, on accelerate, resumable to the bit on CPU.

After every epoch two files in the checkpoint folder are brought up to date: ``best.safetensors`` (trained state of the best
validation loss of the phase) and ``last.safetensors`` (trained state, optimiser moments, position, history). Randomness is
drawn anew for every step from (seed, phase, step), so a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from bids_brainlm.errors import BrainLMError
from bids_brainlm.models import checkpoint
from bids_brainlm.models.fusion import Batch, BrainLM
from bids_brainlm.registry import objectives
from bids_brainlm.training.batches import Corpus, n_steps
from bids_brainlm.training.closed_form import solve
from bids_brainlm.training.phases import Phases, restore

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """What the loop needs to know of a phase; the fields mean what they mean in `bids_brainlm.config.Phase`."""

    name: str
    train: tuple[str, ...]
    epochs: int
    learning_rate: float
    batch_size: int
    objective: str = "cross_entropy"
    solver: str = "adamw"
    patience: int = 0
    schedule: str = "cosine"
    warmup: float = 0.0
    l2: float = 0.0
    accumulation: int = 1
    clip: float = 1.0
    precision: str = "fp32"

    def rate(self, step: int, n: int) -> float:
        """Learning rate of step 0..n-1."""
        n_warm = int(self.warmup * n)
        if step < n_warm:
            return self.learning_rate * (step + 1) / n_warm
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - n_warm) / max(n - n_warm, 1)))


@dataclass
class Position:
    """Where training stands; saved with every checkpoint."""

    phase: int = 0
    epoch: int = 0
    best: float = math.inf
    best_epoch: int = -1
    history: list[dict[str, Any]] = field(default_factory=list)


def fit(
    model: BrainLM,
    phases: Phases,
    schedules: Sequence[Schedule],
    train: Corpus,
    validation: Corpus,
    *,
    seed: int,
    folder: Path,
    key: str,
    accelerator: Accelerator,
    label: str = "training",
) -> list[dict[str, Any]]:
    """Train through all phases, going on from a checkpoint of the same key if there is one.

    Parameters
    ----------
    model : BrainLM
        Changed in place; ends with the best weights of the last phase.
    phases : Phases
    schedules : sequence of Schedule
    train, validation : Corpus
        With an empty validation corpus the last epoch is the best one.
    seed : int
    folder : Path
        Of the checkpoints.
    key : str
        Hash of all that bears on the result; a checkpoint of another key is ignored.
    accelerator : Accelerator
    label : str
        Shown by the progress bar.

    Returns
    -------
    list of dict
        One row an epoch: phase, epoch, train_loss, validation_loss (nats per token), learning_rate.
    """
    place, optimiser_state = _resume(phases, schedules, folder, key)
    while place.phase < len(schedules):
        schedule = schedules[place.phase]
        # LoRA begins at random, and alike whether or not training was interrupted before.
        torch.manual_seed(_number(seed, place.phase))
        groups = phases.enter(schedule.train, schedule.precision)
        model.to(accelerator.device)
        optimiser = _optimiser(groups, schedule)
        _load_moments(optimiser, optimiser_state)
        wrapped, optimiser = accelerator.prepare(model, optimiser)
        run = _Phase(
            wrapped, optimiser, schedule, train, validation, accelerator, (seed, place.phase), f"{label}: {schedule.name}"
        )
        n_epochs = schedule.epochs if schedule.solver == "adamw" else 1
        while place.epoch < n_epochs and not _exhausted(place, schedule):
            loss, rate = run.epoch(place.epoch) if schedule.solver == "adamw" else run.solve()
            held_out = run.validate() if len(validation) else math.nan
            row = {
                "phase": schedule.name,
                "epoch": place.epoch,
                "train_loss": loss,
                "validation_loss": held_out,
                "learning_rate": rate,
            }
            place.history.append(row)
            place.epoch += 1
            _refuse_divergence(row, ("train_loss", "validation_loss") if len(validation) else ("train_loss",))
            if not len(validation) or held_out < place.best:
                place.best, place.best_epoch = held_out if len(validation) else math.inf, place.epoch - 1
                _save(folder / "best.safetensors", phases, None, place, key, accelerator)
            _save(folder / "last.safetensors", phases, optimiser, place, key, accelerator)
        accelerator.wait_for_everyone()
        restore(model, checkpoint.load(folder / "best.safetensors")[0])
        accelerator.free_memory()
        place.phase, place.epoch, place.best, place.best_epoch, optimiser_state = place.phase + 1, 0, math.inf, -1, {}
        _save(folder / "last.safetensors", phases, None, place, key, accelerator)
    model.eval()
    return place.history


class _Phase:
    """One phase of `fit`: an epoch of steps, and the validation loss."""

    def __init__(
        self,
        model: Any,
        optimiser: Any,
        schedule: Schedule,
        train: Corpus,
        validation: Corpus,
        accelerator: Accelerator,
        seed: tuple[int, int],
        label: str,
    ) -> None:
        self.model, self.optimiser, self.schedule = model, optimiser, schedule
        self.train, self.held_out, self.accelerator, self.seed, self.label = train, validation, accelerator, seed, label
        self.inner = getattr(model, "module", model)
        self.objective = objectives.get(schedule.objective)
        self.n_batches = n_steps(len(train), schedule.batch_size, accelerator.num_processes)
        self.per_epoch = -(-self.n_batches // schedule.accumulation)

    def epoch(self, epoch: int) -> tuple[float, float]:
        """Mean training loss (nats per token) and the last learning rate."""
        rate, total = 0.0, torch.zeros(())
        share = (self.accelerator.process_index, self.accelerator.num_processes)
        batches = self.train.epoch(self.schedule.batch_size, (*self.seed, epoch), share)
        self.model.train()
        for k, batch in enumerate(self._progress(batches, epoch)):
            step = epoch * self.per_epoch + k // self.schedule.accumulation
            rate = self.schedule.rate(step, self.schedule.epochs * self.per_epoch)
            # Drawn anew at each step: dropout of a resumed run equals that of an uninterrupted one.
            torch.manual_seed(_number(*self.seed, epoch, k, share[0]))
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            last = (k + 1) % self.schedule.accumulation == 0 or k + 1 == self.n_batches
            total += self._step(batch.to(self.accelerator.device), last).cpu()
        return float(total) / self.n_batches, rate

    def solve(self) -> tuple[float, float]:
        """Mean training loss at the ridge solution, and no learning rate."""
        penalty = solve(self.inner, self.objective, self.train, self.held_out, self.schedule.batch_size)
        LOGGER.info("%s: ridge penalty %.3g", self.label, penalty)
        return self.mean_loss(self.train), 0.0

    def _step(self, batch: Batch, last: bool) -> Tensor:
        with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
            loss = self.objective(self.model, batch)
            self.accelerator.backward(loss / self.schedule.accumulation)
        if last:
            if self.schedule.clip:
                self.accelerator.clip_grad_norm_(
                    [p for g in self.optimiser.param_groups for p in g["params"]], self.schedule.clip
                )
            self.optimiser.step()
            self.optimiser.zero_grad()
        out: Tensor = loss.detach()
        return out

    def _progress(self, batches: Iterator[Batch], epoch: int) -> Iterator[Batch]:
        hidden = None if self.accelerator.is_main_process else True
        text = f"{self.label}, epoch {epoch + 1}/{self.schedule.epochs}"
        return iter(tqdm(batches, text, self.n_batches, leave=False, disable=hidden, mininterval=2.0))

    def validate(self) -> float:
        """Mean of the objective over the validation items."""
        return self.mean_loss(self.held_out)

    @torch.no_grad()
    def mean_loss(self, corpus: Corpus) -> float:
        """Mean of the objective over items in order, weighted by trained tokens."""
        self.model.eval()
        total, count = 0.0, 0
        for batch in corpus.in_order(self.schedule.batch_size):
            n = int(batch.train.sum())
            total += n * float(self.objective(self.model, batch.to(self.accelerator.device)))
            count += n
        return total / max(count, 1)


def _number(*parts: int) -> int:
    """Seed of torch's generator, from whole numbers."""
    return hash(parts) % 2**63


def _refuse_divergence(row: dict[str, Any], names: Sequence[str]) -> None:
    for name in names:
        if not math.isfinite(row[name]):
            where = f"in epoch {row['epoch'] + 1} of phase {row['phase']}"
            raise BrainLMError(f"{name} became {row[name]} {where}; lower learning_rate")


def _exhausted(place: Position, schedule: Schedule) -> bool:
    return bool(schedule.patience) and place.epoch - 1 - place.best_epoch >= schedule.patience


def _optimiser(groups: dict[str, list[torch.nn.Parameter]], schedule: Schedule) -> torch.optim.AdamW:
    decay = {"tokenizer": schedule.l2}
    parameters = [{"params": members, "weight_decay": decay.get(group, 0.0)} for group, members in groups.items()]
    return torch.optim.AdamW(parameters, lr=schedule.learning_rate)


def _moments(optimiser: Any) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for i, parameter in enumerate(p for g in optimiser.param_groups for p in g["params"]):
        out |= {f"moment.{i}.{name}": value for name, value in optimiser.state.get(parameter, {}).items()}
    return out


def _load_moments(optimiser: torch.optim.AdamW, saved: dict[str, Tensor]) -> None:
    parameters = [p for g in optimiser.param_groups for p in g["params"]]
    for name, value in saved.items():
        _, i, key = name.split(".")
        target = value if key == "step" else value.to(parameters[int(i)].device)
        optimiser.state[parameters[int(i)]][key] = target


def _save(path: Path, phases: Phases, optimiser: Any, place: Position, key: str, accelerator: Accelerator) -> None:
    if not accelerator.is_main_process:
        return
    moments = {} if optimiser is None else _moments(getattr(optimiser, "optimizer", optimiser))
    checkpoint.save(path, {**phases.trained_state(), **moments}, {"key": key, "position": asdict(place)})


def _resume(phases: Phases, schedules: Sequence[Schedule], folder: Path, key: str) -> tuple[Position, dict[str, Tensor]]:
    path = folder / "last.safetensors"
    if not path.exists():
        return Position(), {}
    tensors, about = checkpoint.load(path)
    if about["key"] != key:
        return Position(), {}
    place = Position(**about["position"])
    for schedule in schedules[: place.phase + 1 if place.epoch else place.phase]:
        phases.enter(schedule.train, schedule.precision)
    moments = {name: value for name, value in tensors.items() if name.startswith("moment.")}
    restore(phases.model, {name: value for name, value in tensors.items() if name not in moments})
    return place, moments
