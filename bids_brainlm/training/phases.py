"""Phases: which parameter groups move, at which precision of the language model.

Groups: ``tokenizer`` (the brain tokenizer), ``markers`` (the learned vectors around the brain tokens, where there are any),
``norms`` (every layer norm of the language model), ``lora`` (added when a phase first names it) and ``all`` (the whole language
model).
What was ever trained is the *trained state*; the rest of the language model is reloaded, never saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bids_brainlm.errors import ConfigError
from bids_brainlm.models.backbones import add_lora, norm_parameters
from bids_brainlm.models.fusion import BrainLM
from bids_brainlm.models.tokenizers import Marked


@dataclass(frozen=True)
class LoRA:
    """Settings of LoRA (Hu et al. 2022)."""

    rank: int = 16
    alpha: int = 16
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q", "v")


class Phases:
    """Moves a model from phase to phase.

    Parameters
    ----------
    model : BrainLM
    load : callable
        Precision -> language model, fresh from its files.
    lora : LoRA
    precision : str
        That the model's language model has now.
    """

    def __init__(self, model: BrainLM, load: Callable[[str], Any], lora: LoRA, precision: str) -> None:
        self.model, self.load, self.lora, self.precision = model, load, lora, precision
        self.has_lora = False
        self.ever: set[str] = {"tokenizer"}

    def enter(self, groups: Iterable[str], precision: str) -> dict[str, list[nn.Parameter]]:
        """Make the model ready for a phase.

        Parameters
        ----------
        groups : names of the groups that move
        precision : {"fp32", "bf16", "nf4"}
            A change reloads the language model and carries over what was trained of it.

        Returns
        -------
        dict of group -> parameters that require gradients; all others do not. One that is in several groups counts in the first.

        Raises
        ------
        ConfigError
            For 4 bits when this phase or one before trains the whole language model, which they cannot hold.
        """
        groups = tuple(dict.fromkeys(groups))
        if precision == "nf4" and "all" in {*self.ever, *groups}:
            raise ConfigError(
                "the group all cannot be trained in nf4, nor kept by a later phase in nf4; train norms and lora instead"
            )
        if precision != self.precision:
            self._reload(precision)
        if "lora" in groups and not self.has_lora:
            self._add_lora()
        self.ever |= set(groups)
        self.model.requires_grad_(False)
        members: dict[str, list[nn.Parameter]] = {}
        for group in groups:
            members[group] = [p for p in self._members(group).values() if not p.requires_grad]
            for parameter in members[group]:
                # Steps of a small learning rate vanish in bf16.
                parameter.data = parameter.data.float()
                parameter.requires_grad_(True)
        return {group: parameters for group, parameters in members.items() if parameters}

    def trained_state(self) -> dict[str, Tensor]:
        """Name -> tensor of all that any phase so far has trained, and of what else the tokenizer keeps (running means ...)."""
        tokenizer = self.model.tokenizer
        out = {} if tokenizer is None else {f"tokenizer.{name}": value for name, value in tokenizer.state_dict().items()}
        for group in sorted(self.ever):
            out |= {name: parameter.detach() for name, parameter in self._members(group).items()}
        return out

    def _members(self, group: str) -> dict[str, nn.Parameter]:
        llm = self.model.llm
        if group in ("tokenizer", "markers"):
            own = {} if self.model.tokenizer is None else dict(self.model.tokenizer.named_parameters())
            markers = {"markers"} if isinstance(self.model.tokenizer, Marked) else set()
            return {f"tokenizer.{k}": v for k, v in own.items() if (k in markers) == (group == "markers")}
        if group == "norms":
            return {f"llm.{name}": parameter for name, parameter in norm_parameters(llm).items()}
        if group == "lora":
            return {f"llm.{name}": parameter for name, parameter in llm.named_parameters() if "lora_" in name}
        if group == "all":
            return {f"llm.{name}": parameter for name, parameter in llm.named_parameters()}
        return {}

    def _reload(self, precision: str) -> None:
        trained = {name: value.clone() for name, value in self.trained_state().items() if name.startswith("llm.")}
        self.model.llm = None
        self.model.llm = self.load(precision)
        self.precision = precision
        if self.has_lora:
            self._add_lora()
        restore(self.model, trained)

    def _add_lora(self) -> None:
        add_lora(self.model.llm, self.lora.rank, self.lora.alpha, self.lora.dropout, self.lora.targets)
        self.has_lora = True


def restore(model: BrainLM, state: dict[str, Tensor]) -> None:
    """Put a trained state, as it is and in its precision, into a model of the same structure.

    Raises
    ------
    ValueError
        When the model lacks one of the tensors or it has another shape.
    """
    own: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, value in state.items():
        if name not in own or own[name].shape != value.shape:
            have = tuple(own[name].shape) if name in own else "nothing"
            raise ValueError(f"checkpoint tensor {name} has shape {tuple(value.shape)}, the model has {have} there")
        own[name].data = value.to(own[name].device)
