"""What every registered objective must do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from bids_brainlm.core.types import Affine
from bids_brainlm.language.render import Rendered
from bids_brainlm.models.fusion import Batch, BrainLM, Features, collate
from bids_brainlm.models.tokenizers import Marked
from bids_brainlm.registry import objectives, tokenizers

N_VOCABULARY, WIDTH, N_VERTICES = 40, 16, 9
LABELS = np.array([1, 1, 2, 0, 3, 3, 3, 2, 1], dtype=np.int32)
RARITY = torch.arange(N_VOCABULARY) % 5 / 4
"""Every fifth token counts nothing where rarity does."""

each = pytest.mark.parametrize("name", objectives.names())


def model() -> BrainLM:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=N_VOCABULARY, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=32, initializer_range=0.3, eos_token_id=1
    )
    llm = GPT2LMHeadModel(config).requires_grad_(False).eval()
    tokenizer = tokenizers.get("parcelwise")(n_rows=1, labels=LABELS, width=WIDTH, basis=None, hidden=8)
    affine = Affine(np.zeros(N_VERTICES, np.float32), np.ones(N_VERTICES, np.float32), None, np.arange(2))
    return BrainLM(llm, Features(affine), tokenizer, RARITY).eval()


def texts(n: int = 6) -> list[Rendered]:
    """Prompts of different lengths: a start, three slots, some context, and an answer of two tokens or more."""
    rng = np.random.default_rng(0)
    out = []
    for i in range(n):
        length = 8 + i
        place = np.arange(length)
        out.append(Rendered(rng.integers(2, N_VOCABULARY, length), place >= 6, (place >= 1) & (place < 4)))
    return out


def brains(n: int = 6) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).standard_normal((n, 1, N_VERTICES)).astype(np.float32)


def loss(name: str, batch: Batch, of: BrainLM | None = None) -> torch.Tensor:
    out: torch.Tensor = objectives.get(name)(of or model(), batch)
    return out


@each
def test_the_loss_is_one_finite_number(name: str) -> None:
    value = loss(name, collate(texts(), brains()))
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert value > 0


@each
def test_gradients_reach_the_tokenizer_and_every_brain_and_nothing_frozen(name: str) -> None:
    whole, batch = model(), collate(texts(), brains())
    vertices = batch.vertices.clone().requires_grad_(True)
    loss(name, replace(batch, vertices=vertices), whole).backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in whole.tokenizer.parameters())
    assert all(p.grad is None for p in whole.llm.parameters())
    assert (vertices.grad != 0).flatten(1).any(1).all()
    # Vertex 3 is in no parcel.
    assert (vertices.grad[:, :, 3] == 0).all()


@each
def test_steps_downhill_go_down(name: str) -> None:
    whole, batch = model(), collate(texts(), brains())
    optimiser = torch.optim.AdamW(whole.tokenizer.parameters(), lr=5e-2)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        value = loss(name, batch, whole)
        value.backward()
        optimiser.step()
        losses.append(float(value.detach()))
    assert losses[-1] < 0.98 * losses[0]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


@each
def test_neither_order_nor_padding_matters(name: str) -> None:
    plain = loss(name, collate(texts(), brains()))
    order = [3, 0, 5, 1, 4, 2]
    shuffled = loss(name, collate([texts()[i] for i in order], brains()[order]))
    torch.testing.assert_close(shuffled, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss(name, collate(texts(), brains(), pad_left=True)), plain, rtol=1e-4, atol=1e-4)
    batch = collate(texts(), brains())
    junk = replace(batch, ids=torch.where(batch.mask == 1, batch.ids, torch.tensor(7)))
    torch.testing.assert_close(loss(name, junk), plain)


@each
def test_a_batch_of_one_is_of_the_same_size(name: str) -> None:
    """The last batch of an epoch may hold one item; it must not outweigh all others."""
    whole = float(loss(name, collate(texts(), brains())).detach())
    for item, brain in zip(texts(), brains(), strict=True):
        alone = float(loss(name, collate([item], brain[None])).detach())
        assert whole / 20 < alone < 20 * whole


@each
def test_nothing_but_the_batch_bears_on_the_loss(name: str) -> None:
    whole = model()
    torch.manual_seed(1)
    first = loss(name, collate(texts(), brains()), whole)
    before = {key: value.clone() for key, value in whole.state_dict().items()}
    loss(name, collate(texts(3), brains(3) + 1), whole)
    torch.manual_seed(2)
    assert torch.equal(loss(name, collate(texts(), brains()), whole), first)
    assert all(torch.equal(value, before[key]) for key, value in whole.state_dict().items())


def marked() -> BrainLM:
    whole = model()
    whole.tokenizer = Marked(whole.tokenizer, torch.randn(WIDTH))
    return whole


def wider(item: Rendered) -> Rendered:
    """Two more slots, for markers."""
    return Rendered(np.insert(item.ids, 1, [3, 3]), np.insert(item.train, 1, [False] * 2), np.insert(item.slot, 1, [True] * 2))


@each
def test_markers_are_trained_by_the_language_model_alone(name: str) -> None:
    whole, batch = marked(), collate([wider(item) for item in texts()], brains())
    loss(name, batch, whole).backward()
    gradient = whole.tokenizer.markers.grad
    if name == "cross_entropy":
        assert (gradient != 0).any(1).all()
    else:
        # A warm-up moves tokens towards text; markers are no text, and the loss is that of the tokens without them.
        assert gradient is None
        torch.testing.assert_close(loss(name, batch, whole), loss(name, collate(texts(), brains())))


# The warm-ups, by hand -----------------------------------------------------------------------------------------------


def by_hand(items: list[Rendered], targets: list[torch.Tensor]) -> torch.Tensor:
    """Mean squared distance of every token from its prompt's target, over the mean square of the targets; a plain loop."""
    tokens = model().bare_tokens(torch.from_numpy(brains(len(items))))
    apart = [(token - target).square().sum() for own, target in zip(tokens, targets, strict=True) for token in own]
    return (sum(apart) / len(apart)) / (sum(target.square().sum() for target in targets) / len(targets))


def table() -> torch.Tensor:
    weight: torch.Tensor = model().llm.get_input_embeddings().weight.detach()
    return weight


def test_the_answer_is_the_target_of_one_warm_up_and_the_context_of_the_other() -> None:
    items = texts()
    for name, part in (("answer_mean_mse", slice(6, None)), ("context_mean_mse", slice(4, 6))):
        targets = [table()[torch.from_numpy(item.ids[part].copy())].mean(0) for item in items]
        torch.testing.assert_close(loss(name, collate(items, brains())), by_hand(items, targets))


def test_rare_tokens_of_the_answer_are_the_target_of_a_third() -> None:
    items = texts()
    own = [torch.from_numpy(item.ids[6:].copy()) for item in items]
    targets = [(RARITY[ids][:, None] * table()[ids]).sum(0) / RARITY[ids].sum() for ids in own]
    torch.testing.assert_close(loss("answer_rare_mse", collate(items, brains())), by_hand(items, targets))
    common = Rendered(np.where(np.arange(8) >= 6, 5, items[0].ids), items[0].train, items[0].slot)
    without = loss("answer_rare_mse", collate(items[1:], brains()[1:]))
    torch.testing.assert_close(loss("answer_rare_mse", collate([common, *items[1:]], brains())), without)


def test_a_model_that_does_not_know_what_is_rare_says_so() -> None:
    whole = model()
    whole.rarity = None
    with pytest.raises(ValueError, match="how rare tokens are"):
        loss("answer_rare_mse", collate(texts(), brains()), whole)


def test_padding_counts_where_the_released_code_is_to_be_matched() -> None:
    items, end = texts(), 1
    targets = [(table()[torch.from_numpy(item.ids[4:6].copy())].sum(0) + 30 * table()[end]) / 32 for item in items]
    value = loss("context_mean_mse_padded", collate(items, brains()))
    torch.testing.assert_close(value, by_hand(items, targets))
    assert (value - loss("context_mean_mse", collate(items, brains()))).abs() > 0.01


def test_a_long_context_is_cut_at_its_end_where_the_released_code_is_to_be_matched() -> None:
    place = np.arange(28 + 40)
    item = Rendered(np.random.default_rng(3).integers(2, N_VOCABULARY, place.size), place >= 60, (place >= 1) & (place < 4))
    target = table()[torch.from_numpy(item.ids[4:36].copy())].mean(0)
    torch.testing.assert_close(loss("context_mean_mse_padded", collate([item], brains(1))), by_hand([item], [target]))


@pytest.mark.parametrize("name", ["context_mean_mse", "context_mean_mse_padded"])
def test_an_example_without_context_counts_nothing(name: str) -> None:
    items = texts()
    bare = Rendered(items[0].ids, np.arange(8) >= 4, items[0].slot)
    without = loss(name, collate(items[1:], brains()[1:]))
    torch.testing.assert_close(loss(name, collate([bare, *items[1:]], brains())), without)
    nothing = loss(name, collate([bare], brains(1)))
    nothing.backward()
    assert nothing.detach() == 0
