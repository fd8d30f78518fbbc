"""Brain tokens in prompts: every shortcut (batches, caches, search) gives what the plain model gives, in every family."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from bids_brainlm.core.types import Affine, Prompt
from bids_brainlm.language.render import Rendered, render
from bids_brainlm.models.backbones import LLM, embed, load_llm, norm_parameters
from bids_brainlm.models.fusion import BrainLM, Features, collate, splice
from bids_brainlm.models.tokenizers import Marked

Maker = Callable[..., Path]
K, WIDTH = 4, 32
PROMPTS = [
    Prompt("Describe the following image.", "A red bird sits on a fence."),
    Prompt("", "Two dogs."),
    Prompt("What colour is the animal?", "Red, and it sits in the park while the sun sets."),
]
# Family, tied embeddings, a beginning-of-text token, chat template; beside the usual forms of `llm_folder`.
VARIANTS = [
    ("gpt2", False, False, None),
    ("gpt2", True, True, "chatml"),
    ("llama", True, True, "dated"),
    ("llama", False, False, None),
    ("qwen2", True, False, "chatml"),
    ("qwen3", False, True, "thinking"),
    ("gemma", False, True, "gemma"),
    ("gemma3", True, False, None),
]


class Given(nn.Module):
    """Responses that are brain tokens already."""

    def __init__(self, n_tokens: int = K) -> None:
        super().__init__()
        self.n_tokens = n_tokens

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def identity(width: int = WIDTH) -> Affine:
    return Affine(np.zeros(width, np.float32), np.ones(width, np.float32), None, np.arange(2))


def brain_lm(llm: LLM, n_tokens: int = K) -> BrainLM:
    return BrainLM(llm.model, Features(identity()), Given(n_tokens)).eval()


def style_of(llm: LLM) -> str:
    return "chat" if llm.tokenizer.chat_template else "continuation"


def rendered(llm: LLM, n_slots: int, prompts: Sequence[Prompt] = PROMPTS, with_answer: bool = True) -> list[Rendered]:
    return [render(prompt, llm.tokenizer, n_slots, style_of(llm), with_answer) for prompt in prompts]


def brains(n: int = len(PROMPTS), seed: int = 0, n_tokens: int = K) -> torch.Tensor:
    return torch.randn(n, n_tokens, WIDTH, generator=torch.Generator().manual_seed(seed))


def plain_nll(logits: torch.Tensor, item: Rendered) -> torch.Tensor:
    """Of the trained tokens, from (L, vocabulary) logits of the whole prompt."""
    log_p = logits.log_softmax(-1)
    return -sum((log_p[i - 1, int(item.ids[i])] for i in np.flatnonzero(item.train)), torch.zeros(()))


def plain_vectors(llm: LLM, item: Rendered, tokens: torch.Tensor) -> torch.Tensor:
    """(1, L, D): embeddings with brain tokens put in by a loop."""
    vectors = embed(llm.model, torch.from_numpy(item.ids.copy())[None]).detach().clone()
    for k, place in enumerate(np.flatnonzero(item.slot)):
        vectors[0, place] = tokens[k]
    return vectors


@pytest.fixture(params=VARIANTS, ids=lambda v: "-".join(map(str, v)))
def variant(request: pytest.FixtureRequest, make_llm: Maker) -> LLM:
    family, tied, bos, chat = request.param
    return load_llm(str(make_llm(family, tied=tied, bos=bos, chat=chat)))


@pytest.fixture(scope="module")
def llm(llm_folder: Path) -> LLM:
    return load_llm(str(llm_folder))


# Splicing -------------------------------------------------------------------------------------------------------------


def test_splice_is_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    embeddings, brain = torch.randn(3, 8, 5), torch.randn(3, 4, 5)
    slot = np.stack([rng.permutation(np.arange(8) < 4) for _ in range(3)])
    wanted = embeddings.clone()
    for b in range(3):
        for k, place in enumerate(np.flatnonzero(slot[b])):
            wanted[b, place] = brain[b, k]
    before = embeddings.clone()
    assert torch.equal(splice(embeddings, torch.from_numpy(slot), brain), wanted)
    assert torch.equal(embeddings, before)


@pytest.mark.parametrize("counts", [(3, 3), (4, 5), (0, 4)])
def test_a_wrong_number_of_slots_is_refused(counts: tuple[int, int]) -> None:
    slot = torch.stack([torch.arange(8) < count for count in counts])
    with pytest.raises(ValueError, match=r"4 brain tokens for prompts with \[.*\] slots"):
        splice(torch.zeros(2, 8, 5), slot, torch.zeros(2, 4, 5))


def test_gradients_reach_every_brain_token_and_no_embedding_under_it() -> None:
    embeddings, brain = torch.randn(2, 6, 3, requires_grad=True), torch.randn(2, 2, 3, requires_grad=True)
    slot = torch.tensor([[0, 1, 1, 0, 0, 0], [0, 0, 1, 0, 1, 0]]).bool()
    splice(embeddings, slot, brain).pow(2).sum().backward()
    torch.testing.assert_close(brain.grad, 2 * brain.detach())
    assert (embeddings.grad[slot] == 0).all()
    torch.testing.assert_close(embeddings.grad[~slot], 2 * embeddings.detach()[~slot])


def test_slots_without_responses_are_refused(make_llm: Maker) -> None:
    llm = load_llm(str(make_llm("gpt2")))
    with pytest.raises(ValueError, match="brain slots, but there are no responses"):
        brain_lm(llm).nll(collate(rendered(llm, K), None))
    with pytest.raises(ValueError, match="no brain tokenizer"):
        BrainLM(llm.model).nll(collate(rendered(llm, K), brains().numpy()))


# Features -------------------------------------------------------------------------------------------------------------


def affine(components: bool) -> Affine:
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.5, 2, 9).astype(np.float32)
    scale[3] = 0
    axes = rng.standard_normal((9, 4)).astype(np.float32) if components else None
    return Affine(rng.standard_normal(9).astype(np.float32), scale, axes, np.arange(5))


@pytest.mark.parametrize("components", [False, True])
def test_features_are_the_affine_map(components: bool) -> None:
    fixed, data = affine(components), np.random.default_rng(1).standard_normal((2, 3, 9)).astype(np.float32)
    data[0, 1, 5], data[1, 2, 6] = np.nan, np.inf
    module = Features(fixed, dropout=0.5, noise=1.0).eval()
    ours = module(torch.from_numpy(data)).numpy()
    np.testing.assert_allclose(ours, fixed(data), rtol=1e-5, atol=1e-6)
    assert np.isfinite(ours).all()
    assert list(module.parameters()) == []


def test_features_are_corrupted_in_training_as_said() -> None:
    torch.manual_seed(0)
    fixed, data = affine(False), torch.randn(1, 1, 9).expand(20000, 1, 9)
    clean = Features(fixed).eval()(data[:1])[0, 0]
    usable = clean != 0
    assert usable.tolist() == [i != 3 for i in range(9)]
    noisy = Features(fixed, noise=0.7).train()(data)[:, 0] - clean
    torch.testing.assert_close(noisy[:, usable].std(0), torch.full((8,), 0.7), rtol=0.03, atol=0)
    assert (noisy[:, 3] == 0).all()
    dropped = Features(fixed, dropout=0.4).train()(data)[:, 0]
    torch.testing.assert_close((dropped[:, usable] == 0).float().mean(0), torch.full((8,), 0.4), rtol=0.05, atol=0)
    kept = dropped[:, usable] != 0
    torch.testing.assert_close(dropped[:, usable][kept], (clean[usable] / 0.6).expand(20000, 8)[kept])


# Likelihood -----------------------------------------------------------------------------------------------------------


def check_against_hugging_face(llm: LLM) -> None:
    items = rendered(llm, 0)
    model = BrainLM(llm.model).eval()
    with torch.no_grad():
        wanted = [llm.model(input_ids=torch.from_numpy(item.ids.copy())[None]).logits[0] for item in items]
        logits, targets, row = model(collate(items, None))
    places = [np.flatnonzero(item.train) for item in items]
    torch.testing.assert_close(logits, torch.cat([w[p - 1] for w, p in zip(wanted, places, strict=True)]), rtol=1e-4, atol=1e-4)
    assert targets.tolist() == [int(i) for item in items for i in item.ids[item.train]]
    assert row.tolist() == [i for i, item in enumerate(items) for _ in range(int(item.train.sum()))]
    nll = torch.stack([plain_nll(w, item) for w, item in zip(wanted, items, strict=True)])
    torch.testing.assert_close(model.nll(collate(items, None)), nll, rtol=1e-5, atol=1e-4)


def test_without_brain_logits_are_those_of_hugging_face(llm: LLM) -> None:
    check_against_hugging_face(llm)


def test_without_brain_logits_are_those_of_hugging_face_in_every_form(variant: LLM) -> None:
    check_against_hugging_face(variant)


def test_a_loaded_model_is_the_one_on_disk(llm_folder: Path, llm: LLM) -> None:
    reference = AutoModelForCausalLM.from_pretrained(llm_folder, dtype=torch.float32).eval()
    item = rendered(llm, 0)[0]
    with torch.no_grad():
        nll = plain_nll(reference(input_ids=torch.from_numpy(item.ids.copy())[None]).logits[0], item)
    torch.testing.assert_close(BrainLM(llm.model).nll(collate([item], None))[0], nll, rtol=1e-5, atol=1e-4)


def check_own_embeddings(llm: LLM) -> None:
    items = rendered(llm, K)
    ids = torch.randint(20, len(llm.tokenizer) - 5, (len(items), K), generator=torch.Generator().manual_seed(1))
    vectors = embed(llm.model, ids).detach()
    ours = brain_lm(llm).nll(collate(items, vectors.numpy()))
    for b, item in enumerate(items):
        full = torch.from_numpy(item.ids.copy())
        full[torch.from_numpy(item.slot.copy())] = ids[b]
        with torch.no_grad():
            wanted = plain_nll(llm.model(input_ids=full[None]).logits[0], item)
        torch.testing.assert_close(ours[b], wanted, rtol=1e-5, atol=1e-4)


def test_a_models_own_embeddings_are_as_good_as_ids(llm: LLM) -> None:
    check_own_embeddings(llm)


def test_a_models_own_embeddings_are_as_good_as_ids_in_every_form(variant: LLM) -> None:
    check_own_embeddings(variant)


def test_neither_padding_nor_batch_mates_matter(llm: LLM) -> None:
    model, items, tokens = brain_lm(llm), rendered(llm, K), brains()
    assert len({len(item.ids) for item in items}) == 3
    alone = torch.cat([model.nll(collate([item], tokens[b : b + 1].numpy())) for b, item in enumerate(items)])
    right, left = (model.nll(collate(items, tokens.numpy(), pad_left=side)) for side in (False, True))
    torch.testing.assert_close(right, alone, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(left, alone, rtol=1e-5, atol=1e-4)
    plain = [
        plain_nll(llm.model(inputs_embeds=plain_vectors(llm, item, tokens[b])).logits[0], item) for b, item in enumerate(items)
    ]
    torch.testing.assert_close(alone, torch.stack(plain).detach(), rtol=1e-5, atol=1e-4)
    assert model.nll(collate(items, brains(seed=1).numpy())).sub(alone).abs().min() > 1e-3


def check_shared_prefix(llm: LLM, n_tokens: int = K) -> None:
    prompts = [*PROMPTS, Prompt("What is it?", "A wooden fence in the park."), Prompt("Describe.", "The beach.")]
    items = rendered(llm, n_tokens, prompts)
    model, tokens = brain_lm(llm, n_tokens), brains(2, n_tokens=n_tokens)
    # Texts of one prompt agree beyond the brain.
    for some in (items, items[:1], [items[0], items[0]]):
        pairs = np.array([(b, t) for t in range(len(some)) for b in ((0, 1) if t != 1 else (1,))])
        wanted = [model.nll(collate([some[t]], tokens[b : b + 1].numpy()))[0] for b, t in pairs]
        for batch_size in (1, 4, 50):
            shared = model.nll_of_pairs(tokens, some, pairs, batch_size)
            torch.testing.assert_close(shared, torch.stack(wanted), rtol=1e-5, atol=1e-4)


def test_a_shared_prefix_changes_no_likelihood(llm: LLM) -> None:
    check_shared_prefix(llm)


def test_a_shared_prefix_changes_no_likelihood_in_any_form(variant: LLM) -> None:
    check_shared_prefix(variant)


@pytest.mark.parametrize("n_tokens", [1, 3, 12])
@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_a_sliding_window_does_not_lose_the_prefix(make_llm: Maker, tmp_path: Path, family: str, n_tokens: int) -> None:
    folder = shutil.copytree(make_llm(family), tmp_path / "llm")
    config = json.loads((folder / "config.json").read_text())
    config |= {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
    (folder / "config.json").write_text(json.dumps(config))
    narrow = load_llm(str(folder))
    check_shared_prefix(narrow, n_tokens)
    check_generation(narrow, n_tokens)
    # The window is felt at all: the oracle would pass with a window that is ignored.
    item = rendered(narrow, 0)[2]
    wide = BrainLM(load_llm(str(make_llm(family))).model).nll(collate([item], None))
    assert abs(float(wide - BrainLM(narrow.model).nll(collate([item], None)))) > 1e-3


def test_one_brain_token_at_the_very_start(make_llm: Maker) -> None:
    llm = load_llm(str(make_llm("gpt2", bos=False, chat=None)))
    assert rendered(llm, 1)[0].slot[0]
    check_shared_prefix(llm, 1)


def test_prompts_that_differ_before_the_brain_are_refused(make_llm: Maker) -> None:
    llm = load_llm(str(make_llm("gpt2")))
    items = rendered(llm, K)
    ids = items[1].ids.copy()
    ids[0] += 1
    with pytest.raises(ValueError, match="prompts differ before their last brain slot"):
        brain_lm(llm).nll_of_pairs(brains(1), [items[0], Rendered(ids, items[1].train, items[1].slot)], np.array([[0, 0]]))


# Generation -----------------------------------------------------------------------------------------------------------


def step_by_step(
    llm: LLM, vectors: torch.Tensor, n: int, stop: Sequence[int], penalty: float = 1.0, at_least: int = 0
) -> list[int]:
    """The most likely token, n times over, from the whole sequence each time."""
    out: list[int] = []
    for _ in range(n):
        with torch.no_grad():
            logits = llm.model(inputs_embeds=vectors).logits[0, -1]
        for token in set(out):
            logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
        if len(out) < at_least:
            logits[list(stop)] = -torch.inf
        token = int(logits.argmax())
        if token in stop:
            break
        out.append(token)
        vectors = torch.cat([vectors, embed(llm.model, torch.tensor([[token]]))], dim=1)
    return out


def check_generation(llm: LLM, n_tokens: int = K, penalty: float = 1.0) -> None:
    model, tokens = brain_lm(llm, n_tokens), brains(n_tokens=n_tokens)
    items = rendered(llm, n_tokens, with_answer=False)
    batch = collate(items, tokens.numpy(), pad_left=True)
    vectors = [plain_vectors(llm, item, tokens[b]) for b, item in enumerate(items)]
    free = [step_by_step(llm, v, 8, (), penalty) for v in vectors]
    never = next(i for i in range(len(llm.tokenizer)) if not any(i in row for row in free))
    settings = {"max_new_tokens": 8, "repetition_penalty": penalty}
    assert model.generate(batch, stop=[never], **settings) == free
    # Row 0 ends at its third token; the others where they come upon that token, too.
    stop = [never, free[0][2]]
    assert model.generate(batch, stop=stop, **settings) == [step_by_step(llm, v, 8, stop, penalty) for v in vectors]
    single = collate(items[1:2], tokens[1:2].numpy(), pad_left=True)
    assert model.generate(single, stop=[never], **settings) == free[1:2]


def test_generation_takes_the_most_likely_token_at_each_step(llm: LLM) -> None:
    check_generation(llm)


def test_generation_takes_the_most_likely_token_at_each_step_in_every_form(variant: LLM) -> None:
    check_generation(variant)


def test_generation_without_brain(llm: LLM) -> None:
    items = rendered(llm, 0, with_answer=False)
    ours = BrainLM(llm.model).generate(collate(items, None, pad_left=True), stop=[0], max_new_tokens=6)
    vectors = [embed(llm.model, torch.from_numpy(item.ids.copy())[None]) for item in items]
    assert ours == [step_by_step(llm, v, 6, [0]) for v in vectors]


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_a_repetition_penalty_counts_generated_tokens(make_llm: Maker, family: str) -> None:
    llm = load_llm(str(make_llm(family)))
    check_generation(llm, penalty=1.7)


def test_enough_beams_find_the_most_likely_sequence(make_llm: Maker) -> None:
    llm = load_llm(str(make_llm("llama", chat=None)))
    model, item, token = brain_lm(llm), rendered(llm, K, with_answer=False)[0], brains(1)
    vectors, n = plain_vectors(llm, item, token[0]), len(llm.tokenizer)
    with torch.no_grad():
        first = llm.model(inputs_embeds=vectors).logits[0, -1].log_softmax(-1)
        longer = torch.cat([vectors.expand(n, -1, -1), embed(llm.model, torch.arange(n))[:, None]], dim=1)
        both = first[:, None] + llm.model(inputs_embeds=longer).logits[:, -1].log_softmax(-1)
    stop = int(first.argmin())
    both[stop], both[:, stop] = -torch.inf, -torch.inf
    best = divmod(int(both.argmax()), n)
    batch = collate([item], token.numpy(), pad_left=True)
    assert model.generate(batch, stop=[stop], max_new_tokens=2, beams=n) == [list(best)]


def test_the_models_own_settings_of_generation_do_not_apply(make_llm: Maker, capfd: pytest.CaptureFixture[str]) -> None:
    llm = load_llm(str(make_llm("llama")))
    for name, value in {
        "do_sample": True, "temperature": 0.6, "top_k": 3, "top_p": 0.9, "repetition_penalty": 1.9, "no_repeat_ngram_size": 1,
        "min_new_tokens": 7, "num_beams": 3, "max_length": 30, "length_penalty": 4.0, "suppress_tokens": list(range(200)),
    }.items():  # fmt: skip
        setattr(llm.model.generation_config, name, value)
    check_generation(llm)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_a_shortest_length_bans_the_end_until_then_and_no_longer(make_llm: Maker, beams: int, penalty: float) -> None:
    llm = load_llm(str(make_llm("llama", chat=None)))
    model, tokens, items = brain_lm(llm), brains(), rendered(llm, K, with_answer=False)
    batch = collate(items, tokens.numpy(), pad_left=True)
    free = model.generate(batch, stop=[0], max_new_tokens=8, beams=beams, repetition_penalty=penalty)
    # Every token that was said ends it: without a shortest length (almost) nothing would be said.
    stop = sorted({token for row in free for token in row})
    settings = {"stop": stop, "max_new_tokens": 8, "beams": beams, "repetition_penalty": penalty}
    assert max(len(row) for row in model.generate(batch, **settings)) <= 1
    lengths = [len(row) for row in model.generate(batch, min_new_tokens=5, **settings)]
    assert 5 <= min(lengths) < 8
    if beams == 1:
        vectors = [plain_vectors(llm, item, tokens[b]) for b, item in enumerate(items)]
        assert model.generate(batch, min_new_tokens=3, **settings) == [
            step_by_step(llm, v, 8, stop, penalty, at_least=3) for v in vectors
        ]


# Precision ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gemma3"])
def test_in_bf16_trained_parts_stay_fp32_and_everything_runs(make_llm: Maker, family: str) -> None:
    folder = make_llm(family)
    exact, half = load_llm(str(folder)), load_llm(str(folder), precision="bf16")
    for parameter in norm_parameters(half.model).values():
        parameter.data = parameter.data.float()
    items, tokens = rendered(half, K), brains()
    batch, model = collate(items, tokens.numpy()), brain_lm(half)
    near, true = model.nll(batch), brain_lm(exact).nll(batch)
    torch.testing.assert_close(near, true, rtol=0.03, atol=0.3)
    pairs = np.repeat(np.arange(len(items))[:, None], 2, axis=1)
    torch.testing.assert_close(model.nll_of_pairs(tokens, items, pairs), near, rtol=0.01, atol=0.1)
    start = collate(rendered(half, K, with_answer=False), tokens.numpy(), pad_left=True)
    assert [len(row) for row in model.generate(start, stop=[0], max_new_tokens=3)] == [3, 3, 3]


def test_collate_pads_on_the_side_asked_for() -> None:
    items = [Rendered(np.array([5, 6, 7]), np.array([0, 0, 1]), np.array([0, 1, 0])), Rendered(np.array([8]), [0], [0])]
    right, left = collate(items, None), collate(items, None, pad_left=True)
    assert right.ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert left.ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert right.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert left.mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert right.slot.tolist() == [[False, True, False], [False] * 3]
    assert right.train.tolist() == [[False, False, True], [False] * 3]
    with_brain = collate(items, np.ones((2, 1, 3)))
    assert with_brain.vertices is not None
    assert with_brain.vertices.dtype == torch.float32


def test_the_context_is_what_stands_between_brain_and_answer() -> None:
    one = Rendered(np.arange(7), [0, 0, 0, 0, 0, 1, 1], [0, 1, 1, 0, 0, 0, 0])
    two = Rendered(np.arange(5), [0, 0, 0, 1, 1], [0, 1, 1, 0, 0])
    for left in (False, True):
        batch = collate([one, two], None, pad_left=left)
        assert [batch.ids[i][batch.context[i]].tolist() for i in (0, 1)] == [[3, 4], []]


def test_in_the_style_continuation_the_context_is_the_text_so_far(make_llm: Maker) -> None:
    llm = load_llm(str(make_llm("llama", chat=None)))
    items = [render(prompt, llm.tokenizer, K, "continuation") for prompt in PROMPTS]
    batch = collate(items, None)
    found = [llm.tokenizer.decode(batch.ids[i][batch.context[i]]).strip() for i in range(3)]
    assert found == [prompt.context for prompt in PROMPTS]


@pytest.mark.parametrize("family", ["gpt2", "gemma3"])
def test_tokens_without_markers_are_those_of_the_tokenizer(make_llm: Maker, family: str) -> None:
    llm = load_llm(str(make_llm(family)))
    bare, model = brain_lm(llm), brain_lm(llm)
    model.tokenizer = Marked(Given(), torch.randn(WIDTH))
    assert model.n_tokens == K + 2
    assert torch.equal(model.bare_tokens(brains()), bare.brain_tokens(brains()))
    assert torch.equal(model.brain_tokens(brains())[:, 1:-1], bare.brain_tokens(brains()))
    # In a prompt the two vectors are two more brain tokens.
    own = model.brain_tokens(brains())
    wanted = brain_lm(llm, K + 2).nll(collate(rendered(llm, K + 2), own.detach().numpy()))
    torch.testing.assert_close(model.nll(collate(rendered(llm, K + 2), brains().numpy())), wanted)


def test_logits_where_they_are_asked_for_give_the_gradients_of_all_logits(llm: LLM) -> None:
    items, model = rendered(llm, K), brain_lm(llm)
    found = []
    for everywhere in (False, True):
        vertices = brains().requires_grad_(True)
        batch = dataclasses.replace(collate(items, brains().numpy()), vertices=vertices)
        if everywhere:
            logits = llm.model(inputs_embeds=model.embed(batch), attention_mask=batch.mask).logits[:, :-1]
            targets = torch.where(batch.train, batch.ids, -100)[:, 1:]
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        else:
            logits, targets, _ = model(batch)
            torch.nn.functional.cross_entropy(logits, targets).backward()
        found.append(vertices.grad)
    # Gradients of Gemma's brain tokens are small, since it reads them scaled up.
    size = found[1].abs().max()
    assert size > 1e-5
    torch.testing.assert_close(found[0] / size, found[1] / size, rtol=1e-4, atol=1e-5)
