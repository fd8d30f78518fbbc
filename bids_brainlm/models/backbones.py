"""Causal language models of Hugging Face, made ready to be spoken to in vectors.

A *language model* here is any model that ``AutoModelForCausalLM`` loads: it comes frozen, in evaluation mode, with its tokenizer
and with the *revision* it is of (the commit on the Hub; for a folder, the SHA-256 of its weights). Only safetensors are read and
no code of a repository is ever run, so that a model can do no more than compute.

*Precision*: ``fp32``, ``bf16``, or ``nf4``, in which the weights of linear layers are 4-bit normal floats with double
quantisation (QLoRA, Dettmers et al. 2023) and everything else, layer norms included, is bf16 on a GPU and fp32 on a CPU.

Two groups of its parameters can be trained: the gains and biases of its layer norms (`norm_parameters`) and low-rank additions to
its attention projections (`add_lora`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars  # type: ignore[attr-defined]
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as logs

from bids_brainlm.errors import ConfigError, MissingResourceError
from bids_brainlm.models.sources import OWN_NAME, WANTED, Source, find, first_line, refused

PRECISIONS = ("fp32", "bf16", "nf4")

PROJECTIONS = {
    "q": ("q_proj", "q_lin", "query", "wq"),
    "k": ("k_proj", "k_lin", "key", "wk"),
    "v": ("v_proj", "v_lin", "value", "wv"),
    "o": ("o_proj", "out_proj", "out_lin", "c_proj", "dense", "wo"),
}
"""Attention projection -> what modules that compute it are called in one family or another."""

FUSED = ("c_attn", "query_key_value", "qkv_proj", "Wqkv", "qkv")
"""Modules that compute q, k and v in one matrix (GPT-2, GPT-NeoX, Phi-3, MPT ...): LoRA on one of the three is LoRA on all."""


@dataclass(frozen=True, eq=False)
class LLM:
    """A language model that was loaded.

    Parameters
    ----------
    model : PreTrainedModel
        Frozen, in evaluation mode.
    tokenizer : PreTrainedTokenizerBase
    name : str
        As asked for.
    revision_hash : str
        Commit on the Hub, or ``sha256:`` and the digest of a folder's weights.
    """

    model: Any
    tokenizer: Any
    name: str
    revision_hash: str


def load_llm(name: str, *, revision: str = "", precision: str = "fp32", device: str = "cpu", offline: bool = False) -> LLM:
    """Load a causal language model and its tokenizer.

    Parameters
    ----------
    name : str
        Hugging Face name or folder.
    revision : str
        Commit, tag or branch on the Hub; the newest when empty.
    precision : {"fp32", "bf16", "nf4"}
    device : str
        ``cpu``, ``cuda`` or ``cuda:N``.
    offline : bool
        Use only what is on this machine; as does the environment variable ``HF_HUB_OFFLINE``.

    Raises
    ------
    ConfigError
        For an unknown precision, or a GPU that is not there.
    MissingResourceError
        When the model cannot be had, or not safely: unknown, gated, not on this machine while offline, without tokenizer, with
        pickled weights only, with code of its own, or not a causal language model.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device is {device!r}, but torch sees no GPU here; use cpu or auto")
    source = find(name, revision, offline)
    with quiet():
        config = _config(source)
        tokenizer = _tokenizer(source)
        model = _model(source, config, precision, device)
    _refuse_foreign_tokenizer(source, model, tokenizer)
    return LLM(model.requires_grad_(False).eval(), tokenizer, name, source.revision)


def norm_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Gains and biases of every layer norm of the text decoder, of whatever kind (LayerNorm, RMSNorm, on queries and keys).

    Returns
    -------
    dict of str to Parameter
        Name within ``model`` -> 1-D parameter.
    """
    return {
        f"{name}.{own}" if name else own: parameter
        for name, module in _decoder_modules(model)
        if "norm" in type(module).__name__.lower()
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == 1
    }


def attention_targets(model: nn.Module, targets: Sequence[str] = ("q", "v")) -> list[str]:
    """Names of the modules that compute attention projections.

    Parameters
    ----------
    model : PreTrainedModel
    targets : sequence of {"q", "k", "v", "o"} or str
        Anything else is taken as what an odd family calls its module, in or out of attention.

    Returns
    -------
    list of str
        Names within ``model``. In a family that computes q, k and v in one matrix (`FUSED`), that matrix stands for each of them.

    Raises
    ------
    ConfigError
        When a target matches no module; the message lists what there is.
    """
    modules = [name for name, module in _decoder_modules(model) if _is_linear(module)]
    found = {target: _projection(modules, target) for target in targets}
    for target, names in found.items():
        if not names:
            known = sorted({name.rpartition(".")[2] for name in modules})
            raise ConfigError(f"no module of {type(model).__name__} is {target!r} for LoRA; it has: {', '.join(known)}")
    return [name for name in modules if any(name in names for names in found.values())]


def add_lora(
    model: nn.Module, rank: int = 16, alpha: float = 16, dropout: float = 0.05, targets: Sequence[str] = ("q", "v")
) -> dict[str, nn.Parameter]:
    """Put low-rank adapters (Hu et al. 2021) on attention projections, in place.

    They start as the identity, in float32 whatever the precision of the model, and are all that is trainable afterwards.

    Parameters
    ----------
    model : PreTrainedModel
    rank : int
    alpha : float
        The adapters' output is scaled by alpha / rank.
    dropout : float
        On their input, in training.
    targets : sequence of str
        See `attention_targets`.

    Returns
    -------
    dict of str to Parameter
        Name within ``model`` -> (rank, in) and (out, rank) matrices.
    """
    with quiet():
        # Here, because it brings bitsandbytes along, which takes seconds.
        from peft import LoraConfig, inject_adapter_in_model

    names = attention_targets(model, targets)
    transposed = {isinstance(model.get_submodule(name), Conv1D) for name in names}
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules=names,
        fan_in_fan_out=True in transposed,
        bias="none",
    )
    inject_adapter_in_model(config, model)
    return {name: parameter for name, parameter in model.named_parameters() if "lora_" in name}


def embed(model: Any, ids: Tensor) -> Tensor:
    """Token ids -> the vectors that the model takes as ``inputs_embeds``.

    Gemma multiplies embeddings by sqrt(D). Its embedding module does so itself for Gemma 3 in all of transformers 5 and for
    Gemma 1 and 2 in its later releases (in 5.0 they did so behind ``inputs_embeds``). Either way the vectors returned here,
    passed as ``inputs_embeds``, give the same logits as the ids, and are what a brain token should resemble in scale.

    Parameters
    ----------
    model : PreTrainedModel
    ids : (..., L) int64 Tensor

    Returns
    -------
    (..., L, D) Tensor
    """
    out: Tensor = model.get_input_embeddings()(ids)
    return out


def token_embeddings(model: Any) -> Tensor:
    """(vocabulary, D) input vector of every token, as `embed` gives it; without gradient."""
    table: Any = model.get_input_embeddings()
    if type(table) is nn.Embedding:
        return table.weight.detach()
    with torch.no_grad():
        return embed(model, torch.arange(table.num_embeddings, device=table.weight.device))


def _decoder_modules(model: Any) -> Iterator[tuple[str, nn.Module]]:
    # A model that also sees has norms and projections in its vision tower, which no text passes through.
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    inside = {id(module) for module in decoder.modules()}
    return ((name, module) for name, module in model.named_modules() if id(module) in inside)


def _is_linear(module: nn.Module) -> bool:
    # bitsandbytes' layers are Linear too; a layer that wears an adapter is not, its base layer is.
    return isinstance(module, (nn.Linear, Conv1D))


def _projection(modules: list[str], target: str) -> list[str]:
    leaves = PROJECTIONS.get(target, (target,))
    if target in ("q", "k", "v"):
        leaves += FUSED
    return [name for name in modules if _leaf(name) in leaves and (target not in PROJECTIONS or "att" in _parents(name))]


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _parents(name: str) -> str:
    # The two innermost: BERT-like families keep the output projection in attention.output.dense.
    return ".".join(name.lower().split(".")[-3:-1])


def _config(source: Source) -> Any:
    try:
        config = AutoConfig.from_pretrained(**source.arguments)
    except (OSError, ValueError, KeyError) as error:
        raise refused(source, error) from error
    if getattr(config.get_text_config(), "hidden_size_per_layer_input", 0):
        # Gemma 3n and 4: every layer looks token ids up again, and a brain token has none.
        raise MissingResourceError(f"a {config.model_type} model reads token ids in every layer", source.name, remedy=OWN_NAME)
    return config


def _tokenizer(source: Source) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(**source.arguments)
        # Some classes make an empty tokenizer when its files are missing.
        speaks = bool(str(tokenizer.decode(tokenizer.encode("a", add_special_tokens=False), skip_special_tokens=True)).strip())
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        if "trust_remote_code" in str(error):
            raise refused(source, error) from error
        raise MissingResourceError(
            f"the tokenizer does not load ({first_line(error)})",
            source.name,
            expected=WANTED,
            remedy="save the tokenizer there too",
        ) from error
    if not speaks:
        raise MissingResourceError("there is no tokenizer", source.name, expected=WANTED, remedy="save the tokenizer there too")
    return tokenizer


def _model(source: Source, config: Any, precision: str, device: str) -> Any:
    full = torch.float32 if precision == "fp32" or (precision == "nf4" and device == "cpu") else torch.bfloat16
    options: dict[str, Any] = {"dtype": full}
    if precision == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=full
        )
        # Weights are quantised where they will stay.
        options["device_map"] = {"": device}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            **source.arguments, config=config, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError) as error:
        raise refused(source, error) from error
    except SafetensorError as error:
        what = f"the weights are damaged ({first_line(error)})"
        raise MissingResourceError(what, source.name, expected=WANTED, remedy="fetch or save the model again") from error
    model, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        what = f"{len(missing)} weights are missing and would be random, e.g. {missing[0]}"
        raise MissingResourceError(what, source.name, expected=WANTED, remedy="fetch or save the model again")
    if precision != "nf4":
        return model.to(device)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # On CPUs with AVX512-BF16 a forward pass without gradients would repack the weights for good, into a layout that
            # rounds to bf16, wants sizes that are multiples of 64 and through which later gradients silently do not flow.
            module.support_avx512bf16_for_cpu = False
    return model


def _refuse_foreign_tokenizer(source: Source, model: Any, tokenizer: Any) -> None:
    n_rows = model.get_input_embeddings().weight.shape[0]
    highest = max(tokenizer.get_vocab().values())
    if highest >= n_rows:
        what = f"the tokenizer has token {highest}, but the model embeds {n_rows}"
        raise MissingResourceError(what, source.name, expected="the tokenizer that the model was trained with")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep advice and progress bars of transformers and bitsandbytes back; what matters of it is checked and raised here.

    The Hub's bars stay: a long download should show.
    """
    quantiser = logging.getLogger("bitsandbytes")
    quantiser_level = quantiser.level
    quantiser.setLevel(logging.CRITICAL)
    level, bars, hub_bars = logs.get_verbosity(), logs.is_progress_bar_enabled(), not are_progress_bars_disabled()
    logs.set_verbosity(logging.CRITICAL)
    if bars:
        logs.disable_progress_bar()  # type: ignore[no-untyped-call]
        if hub_bars:
            enable_progress_bars()
    try:
        yield
    finally:
        quantiser.setLevel(quantiser_level)
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()  # type: ignore[no-untyped-call]
            if not hub_bars:
                disable_progress_bars()
