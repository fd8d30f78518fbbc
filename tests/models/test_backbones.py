"""Language models load as Hugging Face loads them, take vectors for tokens, and are refused where they should be."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPVisionConfig, Gemma3Config, Gemma3TextConfig, T5Config
from transformers.utils import logging as logs

from bids_brainlm.core.types import Prompt
from bids_brainlm.errors import ConfigError, MissingResourceError
from bids_brainlm.language.render import decode, render, stop_ids
from bids_brainlm.models.backbones import add_lora, attention_targets, embed, load_llm, norm_parameters, token_embeddings

WIDTH, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 32, 2, 4, 2, 16
TEXT = "A red bird sits on a fence."
Maker = Callable[..., Path]


def family_of(folder: Path) -> str:
    return str(json.loads((folder / "config.json").read_text())["model_type"]).removesuffix("_text")


def ids_of(tokenizer: Any) -> torch.Tensor:
    return torch.tensor([tokenizer.encode(TEXT, add_special_tokens=False)])


def logits_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits


def reference(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_logits_are_those_of_hugging_face(llm_folder: Path) -> None:
    llm = load_llm(str(llm_folder))
    ids = ids_of(llm.tokenizer)
    assert ids.tolist() == [AutoTokenizer.from_pretrained(llm_folder).encode(TEXT, add_special_tokens=False)]
    assert torch.equal(logits_of(llm.model, ids), logits_of(reference(llm_folder), ids))
    assert not llm.model.training
    assert not any(parameter.requires_grad for parameter in llm.model.parameters())
    assert llm.name == str(llm_folder)


def test_vectors_for_tokens_give_the_logits_of_the_tokens(llm_folder: Path) -> None:
    llm = load_llm(str(llm_folder))
    ids = ids_of(llm.tokenizer)
    vectors = embed(llm.model, ids)
    with torch.no_grad():
        again = llm.model(inputs_embeds=vectors).logits
    torch.testing.assert_close(again, logits_of(llm.model, ids), rtol=0, atol=1e-6)
    table = token_embeddings(llm.model)
    assert table.shape == (len(llm.tokenizer), WIDTH)
    assert not table.requires_grad
    assert torch.equal(table[ids], vectors)


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3"])
def test_gemma_vectors_carry_their_scale(make_llm: Maker, family: str) -> None:
    folder = make_llm(family)
    weight = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    table = token_embeddings(load_llm(str(folder)).model)
    torch.testing.assert_close(table, weight * WIDTH**0.5)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "gemma3"])
@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_may_be_tied_or_not(make_llm: Maker, family: str, tied: bool) -> None:
    llm = load_llm(str(make_llm(family, tied=tied)))
    same = llm.model.get_input_embeddings().weight is llm.model.get_output_embeddings().weight
    assert same == tied


# Closed forms: norms of one layer plus the last, times gain (and bias) of each.
NORMS = {
    "gpt2": (2 * LAYERS + 1) * 2 * WIDTH,
    "gpt_neox": (2 * LAYERS + 1) * 2 * WIDTH,
    "llama": (2 * LAYERS + 1) * WIDTH,
    "qwen2": (2 * LAYERS + 1) * WIDTH,
    "qwen3": (2 * LAYERS + 1) * WIDTH + 2 * LAYERS * HEAD_DIM,
    "gemma": (2 * LAYERS + 1) * WIDTH,
    "gemma2": (4 * LAYERS + 1) * WIDTH,
    "gemma3": (4 * LAYERS + 1) * WIDTH + 2 * LAYERS * HEAD_DIM,
}


def test_norms_are_exactly_the_norms(llm_folder: Path) -> None:
    model = load_llm(str(llm_folder)).model
    norms = norm_parameters(model)
    assert sum(parameter.numel() for parameter in norms.values()) == NORMS[family_of(llm_folder)]
    everything = dict(model.named_parameters())
    assert all(everything[name] is parameter for name, parameter in norms.items())
    # All else that is 1-D is a bias of a linear layer.
    rest = [name for name, parameter in everything.items() if parameter.ndim == 1 and name not in norms]
    assert all(name.endswith("bias") and model.get_submodule(name.removesuffix(".bias")).weight.ndim == 2 for name in rest)


def test_norms_of_a_vision_tower_are_not_of_the_decoder() -> None:
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    config = Gemma3Config(
        text_config=Gemma3TextConfig(vocab_size=32, intermediate_size=16, **text).to_dict(),
        vision_config=CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2).to_dict()
        | {"model_type": "siglip_vision_model"},
    )
    model = AutoModelForCausalLM.from_config(config)
    assert any("vision" in name and "norm" in name for name, _ in model.named_parameters())
    assert not any("vision" in name for name in [*norm_parameters(model), *attention_targets(model, ("q", "v"))])


def test_nf4_on_a_cpu_keeps_everything_but_linear_layers(llm_folder: Path) -> None:
    full, quantised = load_llm(str(llm_folder)), load_llm(str(llm_folder), precision="nf4")
    ids = ids_of(full.tokenizer)
    exact, kept = dict(full.model.named_parameters()), dict(quantised.model.named_parameters())
    packed = {name for name, parameter in kept.items() if parameter.dtype == torch.uint8}
    assert packed
    assert all("norm" not in name and "embed" not in name and "wte" not in name and "lm_head" not in name for name in packed)
    assert all(torch.equal(exact[name], kept[name]) for name in kept.keys() - packed)
    assert norm_parameters(quantised.model).keys() == norm_parameters(full.model).keys()
    near, true = logits_of(quantised.model, ids), logits_of(full.model, ids)
    assert not torch.equal(near, true)
    assert torch.corrcoef(torch.stack([near.flatten(), true.flatten()]))[0, 1] > 0.8


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3"])
def test_trained_norms_outlive_a_change_of_precision(make_llm: Maker, tmp_path: Path, family: str) -> None:
    folder = make_llm(family)
    llm = load_llm(str(folder))
    torch.manual_seed(1)
    trained = {name: parameter.detach() + torch.randn_like(parameter) for name, parameter in norm_parameters(llm.model).items()}
    quantised = load_llm(str(folder), precision="nf4")
    for name, parameter in norm_parameters(quantised.model).items():
        parameter.data.copy_(trained[name])
    # The oracle: a folder whose weights have the trained norms, quantised at load.
    shutil.copytree(folder, tmp_path / "trained")
    weights = load_file(folder / "model.safetensors")
    prefix = "" if set(trained) <= weights.keys() else "transformer."
    weights |= {name.removeprefix(prefix): value for name, value in trained.items()}
    save_file(weights, tmp_path / "trained" / "model.safetensors", {"format": "pt"})
    wanted = load_llm(str(tmp_path / "trained"), precision="nf4")
    ids = ids_of(llm.tokenizer)
    assert torch.equal(logits_of(quantised.model, ids), logits_of(wanted.model, ids))


def gradients(llm: Any) -> list[torch.Tensor]:
    norms = list(norm_parameters(llm.model).values())
    for parameter in norms:
        parameter.requires_grad_(True)
    vectors = embed(llm.model, ids_of(llm.tokenizer)).detach().requires_grad_(True)
    loss = llm.model(inputs_embeds=vectors).logits.logsumexp(-1).sum()
    return list(torch.autograd.grad(loss, [vectors, *norms]))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_gradients_flow_through_nf4_also_after_a_pass_without_them(make_llm: Maker, family: str) -> None:
    # bitsandbytes' fast path for CPUs cuts the gradient once a pass without gradients has been made.
    llm = load_llm(str(make_llm(family)), precision="nf4")
    first = gradients(llm)
    llm.model.requires_grad_(False)
    logits_of(llm.model, ids_of(llm.tokenizer))
    again = gradients(llm)
    assert all(gradient.abs().sum() > 0 for gradient in first)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_bf16(make_llm: Maker) -> None:
    model = load_llm(str(make_llm("qwen3")), precision="bf16").model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


# Inputs and outputs of q and v; where one matrix makes q, k and v, of that matrix.
LORA_SIZES = {
    "gpt2": [(WIDTH, 3 * WIDTH)],
    "gpt_neox": [(WIDTH, 3 * WIDTH)],
    "qwen2": [(WIDTH, WIDTH), (WIDTH, KV_HEADS * WIDTH // HEADS)],
}
GROUPED_SIZES = [(WIDTH, HEADS * HEAD_DIM), (WIDTH, KV_HEADS * HEAD_DIM)]


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_lora_has_its_size_and_starts_as_the_identity(llm_folder: Path, precision: str) -> None:
    llm = load_llm(str(llm_folder), precision=precision)
    ids = ids_of(llm.tokenizer)
    before = logits_of(llm.model, ids)
    norms = set(norm_parameters(llm.model))
    adapters = add_lora(llm.model, rank=3, alpha=6, dropout=0.0, targets=("q", "v"))
    assert torch.equal(logits_of(llm.model, ids), before)
    sizes = LORA_SIZES.get(family_of(llm_folder), GROUPED_SIZES)
    assert sum(p.numel() for p in adapters.values()) == LAYERS * sum(3 * (n_in + n_out) for n_in, n_out in sizes)
    trainable = {name for name, p in llm.model.named_parameters() if p.requires_grad}
    assert trainable == set(adapters)
    assert {p.dtype for p in adapters.values()} == {torch.float32}
    assert set(norm_parameters(llm.model)) == norms
    for name, parameter in adapters.items():
        if "lora_B" in name:
            parameter.data.normal_()
    assert not torch.allclose(logits_of(llm.model, ids), before)


def test_lora_adds_the_scaled_product(make_llm: Maker) -> None:
    llm, plain = (load_llm(str(make_llm("llama"))) for _ in range(2))
    adapters = add_lora(llm.model, rank=2, alpha=8, dropout=0.0, targets=("q",))
    for name, parameter in adapters.items():
        parameter.data.normal_(generator=torch.Generator().manual_seed(len(name)))
    for name, module in plain.model.named_modules():
        if name.endswith("q_proj"):
            a, b = (adapters[f"{name}.lora_{part}.default.weight"] for part in "AB")
            module.weight.data += 8 / 2 * b.detach() @ a.detach()
    ids = ids_of(llm.tokenizer)
    torch.testing.assert_close(logits_of(llm.model, ids), logits_of(plain.model, ids), rtol=1e-4, atol=1e-5)


TARGETS = {
    "gpt2": {"q": ["attn.c_attn"], "o": ["attn.c_proj"]},
    "gpt_neox": {"k": ["attention.query_key_value"], "o": ["attention.dense"]},
    "llama": {"q": ["self_attn.q_proj"], "v": ["self_attn.v_proj"], "gate_proj": ["mlp.gate_proj"]},
}


@pytest.mark.parametrize("family", TARGETS)
def test_targets(make_llm: Maker, family: str) -> None:
    model = load_llm(str(make_llm(family))).model
    for target, ends in TARGETS[family].items():
        found = attention_targets(model, (target,))
        assert len(found) == LAYERS
        assert all(any(name.endswith(f".{end}") for end in ends) for name in found)
    both = attention_targets(model, ("q", "v"))
    assert len(both) == len(set(both)) == (2 * LAYERS if family == "llama" else LAYERS)
    with pytest.raises(ConfigError, match=r"is 'nope' for LoRA; it has: .*(c_attn|query_key_value|q_proj)"):
        attention_targets(model, ("q", "nope"))


def test_prompts_render_and_models_answer(llm_folder: Path) -> None:
    llm = load_llm(str(llm_folder))
    rendered = render(Prompt("What is it?", TEXT), llm.tokenizer, 2, "chat", with_answer=False)
    vectors = embed(llm.model, torch.from_numpy(rendered.ids.copy())[None])
    mask = torch.ones(vectors.shape[:2], dtype=torch.int64)
    stop = list(stop_ids(llm.tokenizer, "chat"))
    out = llm.model.generate(
        inputs_embeds=vectors, attention_mask=mask, max_new_tokens=4, do_sample=False, eos_token_id=stop, pad_token_id=stop[0]
    )
    assert out.shape[1] <= 4
    assert isinstance(decode(out[0].tolist(), llm.tokenizer), str)


def test_the_revision_of_a_folder_is_that_of_its_weights(make_llm: Maker, tmp_path: Path) -> None:
    folder = make_llm("llama")
    shutil.copytree(folder, tmp_path / "copy")
    first, copy = load_llm(str(folder)), load_llm(str(tmp_path / "copy"))
    assert first.revision_hash == copy.revision_hash
    assert first.revision_hash.startswith("sha256:")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] += 1
    save_file(weights, tmp_path / "copy" / "model.safetensors", {"format": "pt"})
    assert load_llm(str(tmp_path / "copy")).revision_hash != first.revision_hash


def test_loading_is_silent_and_leaves_the_settings(make_llm: Maker, capfd: pytest.CaptureFixture[str]) -> None:
    before = logs.get_verbosity(), logs.is_progress_bar_enabled()
    load_llm(str(make_llm("qwen2")), precision="nf4")
    assert capfd.readouterr() == ("", "")
    assert (logs.get_verbosity(), logs.is_progress_bar_enabled()) == before


@pytest.mark.slow
def test_a_fresh_process_is_silent_too(make_llm: Maker) -> None:
    code = (
        "import sys; from bids_brainlm.models.backbones import add_lora, load_llm; assert 'bitsandbytes' not in sys.modules\n"
        "add_lora(load_llm(sys.argv[1], precision='nf4').model, 2, 2, 0.0, ('q', 'v'))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(make_llm("llama"))], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(make_llm: Maker, tmp_path: Path) -> Path:
    return shutil.copytree(make_llm("llama"), tmp_path / "llm")


def refusal(name: Path | str, **options: Any) -> str:
    with pytest.raises(MissingResourceError) as caught:
        load_llm(str(name), **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(name) in message
    assert caught.value.exit_code == 69
    return message


def edit(folder: Path, file: str = "config.json", **values: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "nowhere")
    assert "no config.json" in refusal(tmp_path)
    (tmp_path / "file").touch()
    assert "no such folder" in refusal(tmp_path / "file")


def test_weights_that_are_missing_or_pickled(broken: Path) -> None:
    torch.save({}, broken / "pytorch_model.bin")
    (broken / "model.safetensors").unlink()
    message = refusal(broken)
    assert "pickled" in message
    assert "save_pretrained" in message
    (broken / "pytorch_model.bin").unlink()
    assert "no weights" in refusal(broken)


def test_weights_that_are_damaged_or_incomplete(broken: Path) -> None:
    file = broken / "model.safetensors"
    weights = load_file(file)
    save_file({k: v for k, v in weights.items() if k != "model.layers.1.mlp.up_proj.weight"}, file, {"format": "pt"})
    assert "1 weights are missing and would be random, e.g. model.layers.1.mlp.up_proj.weight" in refusal(broken)
    file.write_bytes(file.read_bytes()[:5000])
    assert "damaged" in refusal(broken)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3", "qwen2"])
def test_a_folder_without_a_tokenizer(make_llm: Maker, tmp_path: Path, family: str) -> None:
    folder = shutil.copytree(make_llm(family), tmp_path / "llm")
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / file).unlink(missing_ok=True)
    assert "tokenizer" in refusal(folder)


def test_a_tokenizer_of_another_model(make_llm: Maker, broken: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(broken)
    tokenizer.add_tokens(["<one>", "<two>"])
    tokenizer.save_pretrained(broken)
    assert "the model embeds" in refusal(broken)


def test_code_of_a_repository_is_never_run(broken: Path) -> None:
    (broken / "modeling_own.py").write_text("raise SystemExit('this code was run')\n")
    edit(broken, model_type="own", auto_map={"AutoConfig": "modeling_own.C", "AutoModelForCausalLM": "modeling_own.M"})
    assert "never run" in refusal(broken)


def test_kinds_of_model_that_do_not_fit(broken: Path) -> None:
    edit(broken, model_type="from_the_future", architectures=["FutureForCausalLM"])
    assert "update transformers" in refusal(broken)
    (broken / "config.json").write_text(json.dumps(T5Config().to_dict()))
    assert "not a causal language model" in refusal(broken)
    edit(broken, model_type="gemma3n_text", hidden_size_per_layer_input=8)
    assert "reads token ids in every layer" in refusal(broken)
    (broken / "config.json").write_text("{")
    assert "does not load" in refusal(broken)


def test_a_model_that_is_not_on_this_machine() -> None:
    message = refusal("brainlm-tests/no-such-model", offline=True)
    assert "not on this machine" in message
    assert "hf download brainlm-tests/no-such-model" in message
    assert "neither a folder nor a name" in refusal("not a name!")


RESPONSE = httpx.Response(401, request=httpx.Request("GET", "https://example.org"))
HUB = [
    (GatedRepoError("gated", response=RESPONSE), "access to the model must be granted.*HF_TOKEN"),
    (RepositoryNotFoundError("401", response=RESPONSE), "no such model"),
    (RevisionNotFoundError("404", response=RESPONSE), "no revision 'v9'"),
    (RemoteEntryNotFoundError("404", response=RESPONSE), "no config.json"),
    (LocalEntryNotFoundError("gone"), "the Hub was not reached"),
    (HfHubHTTPError("503 busy\nlong story", response=RESPONSE), r"the Hub refused \(503 busy\)"),
    (OSError("disk full\nmore"), r"cannot be fetched \(disk full\)"),
]


@pytest.mark.parametrize(("error", "message"), HUB, ids=[type(error).__name__ for error, _ in HUB])
def test_what_the_hub_answers(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", answer)
    assert re.search(message, refusal("org/model", revision="v9"))


def cached(folder: Path, hub: Path, commit: str) -> None:
    """Lay a folder out as the Hub's cache does."""
    snapshot = hub / "models--org--model" / "snapshots" / commit
    shutil.copytree(folder, snapshot)
    refs = hub / "models--org--model" / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)


def test_a_cached_model_is_of_one_commit(make_llm: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    folder, commit = make_llm("qwen2"), "0123456789abcdef0123456789abcdef01234567"
    cached(folder, tmp_path, commit)
    llm = load_llm("org/model", offline=True)
    assert llm.revision_hash == commit
    ids = ids_of(llm.tokenizer)
    assert torch.equal(logits_of(llm.model, ids), logits_of(reference(folder), ids))
    (tmp_path / "models--org--model" / "snapshots" / commit / "model.safetensors").unlink()
    assert "only in part" in refusal("org/model", offline=True)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="expected one of fp32, bf16, nf4"):
        load_llm("org/model", precision="int3")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="sees no GPU"):
            load_llm("org/model", device="cuda")


def test_norms_of_a_bare_module() -> None:
    assert list(norm_parameters(nn.LayerNorm(3))) == ["weight", "bias"]
