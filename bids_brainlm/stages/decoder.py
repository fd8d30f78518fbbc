"""Building, training and reloading a decoder for one fold.

What is saved is what cannot be had again: the fixed feature map, the token basis, the labels, and the trained state. The
language model is named (with its revision or the hash of its files) and loaded afresh.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from bids_brainlm.config import Config, as_tree, build
from bids_brainlm.core.features import fit_affine
from bids_brainlm.core.questions import pools
from bids_brainlm.core.types import Affine, Examples, Prompt, Split
from bids_brainlm.errors import ConfigError
from bids_brainlm.language.limits import Limits, shortened
from bids_brainlm.language.render import Rendered, render
from bids_brainlm.language.stimuli import rarity
from bids_brainlm.models import checkpoint
from bids_brainlm.models.backbones import LLM, embed, load_llm, token_embeddings
from bids_brainlm.models.fusion import BrainLM, Features
from bids_brainlm.models.tokenizers import Marked, TokenBasis, fit_basis
from bids_brainlm.registry import tokenizers
from bids_brainlm.training.batches import Corpus
from bids_brainlm.training.loop import Schedule, fit
from bids_brainlm.training.phases import LoRA, Phases, restore


@dataclass(frozen=True, eq=False)
class Decoder:
    """A trained model with what surrounds it.

    Parameters
    ----------
    model : BrainLM
    text : Any
        Tokenizer of the language model.
    history : list of dict
        Training curve, one row an epoch.
    padding_waste : float or None
        Share by which padding enlarges the parcel product; None for other tokenizers.
    """

    model: BrainLM
    text: Any
    history: list[dict[str, Any]]
    padding_waste: float | None


def precision_of(setting: str, device: str) -> str:
    """``auto`` is bf16 on a GPU and fp32 on CPU."""
    return setting if setting != "auto" else ("fp32" if device == "cpu" else "bf16")


def device_of(config: Config) -> str:
    """The device that training runs on.

    Raises
    ------
    ConfigError
        When a GPU is asked for and there is none.
    """
    if config.run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "run.device is cuda, but torch finds no GPU; use --device cpu, or pass the GPU into the container (--nv, --gpus all)"
        )
    return "cuda" if torch.cuda.is_available() and config.run.device != "cpu" else "cpu"


def open_llm(config: Config, precision: str) -> LLM:
    """The configured language model at a precision."""
    return load_llm(
        config.model.llm,
        revision=config.model.revision,
        precision=precision,
        device=device_of(config),
        offline=config.run.offline,
    )


def spare_memory(llm: Any, config: Config) -> Any:
    """With ``--low-mem``, let a language model forget what its layers computed and compute it again for the gradient.

    Random numbers of dropout are drawn again as they were, so results are the same to the bit. The re-entrant kind would
    give no gradient to brain tokens whenever nothing below them is trained.
    """
    if config.run.low_mem and llm.supports_gradient_checkpointing:
        # The later releases of transformers 5 have another name for it.
        enable = getattr(llm, "activation_checkpointing_enable", None) or llm.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return llm


def affine_of(split: Split, config: Config) -> Affine:
    """Features fitted on the training rows of a fold."""
    rows = np.unique(split.examples.rows[split.train])
    return fit_affine(split.examples.recording, rows[rows >= 0], config.model.components)


def train(
    split: Split,
    labels: NDArray[np.int32],
    config: Config,
    *,
    folder: Path,
    key: str,
    label: str,
    affine: Affine | None = None,
) -> tuple[Decoder, dict[str, Any]]:
    """Train the decoder of one fold, going on from its checkpoint if there is one.

    Parameters
    ----------
    split : Split
    labels : (V,) int32
        Parcel of each vertex.
    config : Config
    folder : Path
        Of the checkpoints.
    key : str
        Hash of all that bears on the result.
    label : str
        Shown by the progress bar.
    affine : Affine, optional
        Features, where they are not fitted on the responses that are trained with.

    Returns
    -------
    decoder : Decoder
    parts : dict
        Tensors and description for `save`.
    """
    examples = split.examples
    affine = affine_of(split, config) if affine is None else affine
    affine.refuse_leak(split)
    device = device_of(config)
    llm = open_llm(config, precision_of(config.phases[0].precision, device))
    said = _answers(examples, split.train, llm, config)
    basis = _basis(said, llm, config)
    labels = labels if affine.components is None else np.zeros(affine.n_features, np.int32)
    # Dropped vertices (constant or not finite in training) keep their place as zeros; an all-dropped parcel has only its bias.
    model = assemble(llm.model, affine, labels, basis, examples.rows.shape[1], config)
    model.rarity = _rarity(said, model.llm)
    # Not before the basis is fitted: from here on, token embeddings ask for gradients.
    spare_memory(llm.model, config)
    phases = Phases(
        model,
        lambda precision: spare_memory(open_llm(config, precision).model, config),
        lora_of(config),
        precision_of(config.phases[0].precision, device),
    )
    corpora = [corpus(examples, part, llm.tokenizer, model.n_tokens, config) for part in (split.train, split.validation)]
    if config.text.mix:
        corpora[0] = corpora[0].pooled(*pools(examples.take(split.train), config.text.mix))
    with _scores_once(model, affine, config) as once:
        history = fit(
            model,
            phases,
            [schedule_of(phase, device, config.compat.padded_warmup) for phase in config.phases],
            *map(once, corpora),
            seed=config.run.random_seed,
            folder=folder,
            key=key,
            accelerator=Accelerator(cpu=device == "cpu"),
            label=label,
        )
    tensors = {**phases.trained_state(), **_fixed(affine, labels, basis)}
    about = {
        "config": as_tree(config),
        "llm": {"name": llm.name, "revision": llm.revision_hash},
        "n_rows": int(examples.rows.shape[1]),
        "history": history,
        "training_ids": [str(x) for x in examples.id[split.train]],
        "test_ids": [str(x) for x in examples.id[split.test]],
    }
    waste = getattr(model.tokenizer, "padding_waste", None)
    return Decoder(model, llm.tokenizer, history, waste), {"tensors": tensors, "about": about}


@contextmanager
def _scores_once(model: BrainLM, affine: Affine, config: Config) -> Iterator[Callable[[Corpus], Corpus]]:
    """Train on component scores that are computed once, where there are components and nothing is done to vertices in training.

    Meanwhile the model takes scores and not vertices. Otherwise everything stays as it is: batches gather their rows.
    """
    if affine.components is None or config.model.vertex_dropout or config.model.vertex_noise:
        yield lambda corpus: corpus
        return
    from_vertices, model.features = model.features, torch.nn.Identity()
    try:
        yield lambda corpus: corpus.mapped(affine)
    finally:
        model.features = None if from_vertices is None else from_vertices.to(model.device)


def load(path: Path, config: Config) -> Decoder:
    """Rebuild a decoder from its file.

    Parameters
    ----------
    path : Path
    config : Config
        Only device and network settings are taken from it; the rest stands in the file.
    """
    tensors, about = checkpoint.load(path)
    own = build({**about["config"], "run": as_tree(config)["run"]})
    device = device_of(own)
    precision = precision_of(own.phases[0].precision, device)
    llm = open_llm(own, precision)
    affine, labels, basis = _unfixed(tensors)
    model = assemble(llm.model, affine, labels, basis, about["n_rows"], own)
    phases = Phases(model, lambda p: open_llm(own, p).model, lora_of(own), precision)
    for phase in own.phases:
        phases.enter(phase.train, precision_of(phase.precision, device))
    restore(model, {name: value for name, value in tensors.items() if not name.startswith("fixed.")})
    model.to(device).eval()
    return Decoder(model, llm.tokenizer, about["history"], getattr(model.tokenizer, "padding_waste", None))


def assemble(
    llm: Any, affine: Affine, labels: NDArray[np.int32], basis: TokenBasis | None, n_rows: int, config: Config
) -> BrainLM:
    """Features, tokenizer and language model as one module, its random start decided by the seed."""
    torch.manual_seed(config.run.random_seed)
    width = llm.get_input_embeddings().weight.shape[1]
    factory = tokenizers.get(config.model.tokenizer)
    given = {"n_rows": n_rows, "labels": labels, "width": width, "basis": basis}
    try:
        tokenizer = factory(**given, **config.model.options)
    except (TypeError, ValueError) as error:
        known = ", ".join(name for name in inspect.signature(factory).parameters if name not in given)
        what = f"the tokenizer {config.model.tokenizer!r} cannot be built with model.options {config.model.options}: {error}"
        raise ConfigError(f"{what}; its options: {known}") from error
    if config.model.markers:
        tokenizer = Marked(tokenizer, token_embeddings(llm).float().mean(0))
    return BrainLM(llm, Features(affine, config.model.vertex_dropout, config.model.vertex_noise), tokenizer)


def corpus(examples: Examples, part: NDArray[np.int64], tokenizer: Any, n_slots: int, config: Config) -> Corpus:
    """Every way to ask for and to tell the text of each example, rendered."""
    chosen, limits = examples.take(part), limits_of(config)

    def rendered(prompt: Prompt) -> Rendered:
        return render(shortened(prompt, limits, tokenizer), tokenizer, n_slots, config.model.style, with_answer=True)

    renderings = tuple(
        tuple(map(rendered, _variants(own, texts))) for own, texts in zip(chosen.prompts, chosen.references, strict=True)
    )
    return Corpus(renderings, chosen.gather)


def within_limits(examples: Examples, tokenizer: Any, config: Config) -> Examples:
    """Examples whose prompts and answers are as short as those that are trained on."""
    limits = limits_of(config)
    return dataclasses.replace(examples, prompts=tuple(shortened(prompt, limits, tokenizer) for prompt in examples.prompts))


def rendered(fitted: Decoder, examples: Examples, config: Config) -> list[Rendered]:
    """Prompts with brain slots and answers, as they are scored."""
    n_slots, style = fitted.model.n_tokens, config.model.style
    return [render(prompt, fitted.text, n_slots, style, with_answer=True) for prompt in examples.prompts]


def schedule_of(phase: Any, device: str, padded_warmup: bool = False) -> Schedule:
    fields = {name: getattr(phase, name) for name in Schedule.__dataclass_fields__}
    objective = "context_mean_mse_padded" if padded_warmup and phase.objective == "context_mean_mse" else phase.objective
    return Schedule(**{**fields, "precision": precision_of(phase.precision, device), "objective": objective})


def limits_of(config: Config) -> Limits:
    return Limits(config.model.max_prompt_tokens, config.model.max_answer_tokens, config.compat.oldest_prompt)


def lora_of(config: Config) -> LoRA:
    return LoRA(config.model.lora_rank, config.model.lora_alpha, config.model.lora_dropout, config.model.lora_targets)


def _variants(own: Prompt, references: Sequence[str]) -> list[Prompt]:
    return [Prompt(context, answer) for answer in references for context in own.wordings]


def _answers(examples: Examples, train: NDArray[np.int64], llm: LLM, config: Config) -> list[NDArray[np.int64]]:
    """Token ids of every training text, its end included."""
    texts = sorted(text for i in train for text in examples.references[i])
    rendered = [render(Prompt("", text), llm.tokenizer, 0, config.model.style, with_answer=True) for text in texts]
    return [item.ids[item.train] for item in rendered]


def _basis(said: Sequence[NDArray[np.int64]], llm: LLM, config: Config) -> TokenBasis:
    unique, counts = np.unique(np.concatenate(said), return_counts=True)
    with torch.no_grad():
        table = embed(llm.model, torch.from_numpy(unique)[None].to(llm.model.device))[0].float().cpu()
    return fit_basis(
        table.repeat_interleave(torch.from_numpy(counts), 0), config.model.basis_variance, config.model.basis_components
    )


def _rarity(said: Sequence[NDArray[np.int64]], llm: Any) -> torch.Tensor:
    """(vocabulary,) weight of each token for objectives; that of a token that no training text has is never asked for."""
    weights = rarity([ids.tolist() for ids in said])
    out = torch.zeros(llm.get_input_embeddings().num_embeddings)
    out[list(weights)] = torch.tensor(list(weights.values()))
    return out


def _fixed(affine: Affine, labels: NDArray[np.int32], basis: TokenBasis) -> dict[str, torch.Tensor]:
    out = {
        "mean": torch.from_numpy(np.array(affine.mean)),
        "scale": torch.from_numpy(np.array(affine.scale)),
        "rows": torch.from_numpy(np.array(affine.fitted_rows)),
        "labels": torch.from_numpy(np.array(labels)),
        "basis_mean": basis.mean,
        "basis_components": basis.components,
        "basis_scale": basis.scale,
    }
    if affine.components is not None:
        out["components"] = torch.from_numpy(np.array(affine.components))
    return {f"fixed.{name}": value for name, value in out.items()}


def _unfixed(tensors: dict[str, torch.Tensor]) -> tuple[Affine, NDArray[np.int32], TokenBasis]:
    part = {name.removeprefix("fixed."): value for name, value in tensors.items() if name.startswith("fixed.")}
    components = part["components"].numpy() if "components" in part else None
    affine = Affine(part["mean"].numpy(), part["scale"].numpy(), components, part["rows"].numpy())
    return affine, part["labels"].numpy(), TokenBasis(part["basis_mean"], part["basis_components"], part["basis_scale"])
