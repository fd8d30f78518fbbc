"""What every registered brain tokenizer must do."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from bids_brainlm.models.tokenizers import KINDS, Marked, TokenBasis
from bids_brainlm.registry import tokenizers

WIDTH, B = 6, 32
LABELS = np.array([1, 1, 2, 0, 3, 3, 3, 2, 4], dtype=np.int32)
BASIS = TokenBasis(torch.randn(WIDTH), torch.linalg.qr(torch.randn(WIDTH, 4))[0].T.contiguous(), torch.rand(4) + 0.5)
NAMES = [*tokenizers.names(), *(f"mlp-{kind}" for kind in KINDS if kind != "shared"), "mlp-marked", "mlp-lifted"]
"""Those registered, with what else the built-in ones can be: other kinds, and markers around the tokens."""
# A memory that sees one row alone has weights that nothing passes through.
CASES = [(name, n_rows) for name in NAMES for n_rows in (1, 3) if (name, n_rows) != ("mlp-recurrent", 1)]
each = pytest.mark.parametrize(("name", "n_rows"), CASES)


def build(name: str, n_rows: int, seed: int = 0, basis: TokenBasis | None = BASIS) -> Any:
    torch.manual_seed(seed)
    arguments = {"n_rows": n_rows, "labels": LABELS, "width": WIDTH, "basis": basis}
    if name == "mlp-marked":
        return Marked(tokenizers.get("mlp")(**arguments), torch.randn(WIDTH))
    if name == "mlp-lifted":
        return tokenizers.get("mlp")(**{**arguments, "basis": BASIS}, lift=True)
    if name.startswith("mlp-"):
        return tokenizers.get("mlp")(**arguments, kind=name.removeprefix("mlp-"))
    if name == "parcelwise" and n_rows > 1:
        with pytest.raises(ValueError, match="takes one response an example, got 3 rows"):
            tokenizers.get(name)(**arguments)
        pytest.skip(f"{name} takes one response an example")
    return tokenizers.get(name)(**arguments)


def features(n_rows: int) -> torch.Tensor:
    return torch.randn(B, n_rows, len(LABELS), generator=torch.Generator().manual_seed(1))


@each
@pytest.mark.parametrize("basis", [BASIS, None], ids=["basis", "none"])
def test_features_become_tokens(name: str, n_rows: int, basis: TokenBasis | None) -> None:
    module = build(name, n_rows, basis=basis)
    assert isinstance(module.n_tokens, int)
    assert module.n_tokens > 0
    for batch in (features(n_rows), features(n_rows)[:1], torch.zeros(2, n_rows, len(LABELS)), features(n_rows) * 100):
        tokens = module(batch)
        assert tokens.shape == (len(batch), module.n_tokens, WIDTH)
        assert tokens.dtype == torch.float32
        assert torch.isfinite(tokens).all()


@each
def test_gradients_reach_every_parameter_and_the_responses(name: str, n_rows: int) -> None:
    module, inputs = build(name, n_rows).eval(), features(n_rows).requires_grad_(True)
    (module(inputs) * torch.randn(B, module.n_tokens, WIDTH)).sum().backward()
    for label, parameter in module.named_parameters():
        assert parameter.grad is not None, label
        assert torch.isfinite(parameter.grad).all(), label
        assert (parameter.grad != 0).any(), label
    assert (inputs.grad != 0).flatten(1).any(1).all()


@each
def test_the_seed_decides_the_start(name: str, n_rows: int) -> None:
    one, two, three = (build(name, n_rows, seed).state_dict() for seed in (0, 0, 1))
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    assert not all(torch.equal(value, three[key]) for key, value in one.items())


@each
def test_outside_training_nothing_is_random_and_nothing_changes(name: str, n_rows: int) -> None:
    module = build(name, n_rows).eval()
    before = copy.deepcopy(module.state_dict())
    first = module(features(n_rows))
    assert torch.equal(module(features(n_rows)), first)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@each
def test_batch_mates_do_not_matter(name: str, n_rows: int) -> None:
    module = build(name, n_rows).eval()
    whole = module(features(n_rows))
    alone = torch.cat([module(one[None]) for one in features(n_rows)])
    torch.testing.assert_close(alone, whole, rtol=1e-4, atol=1e-5)


@each
def test_its_state_brings_it_back(name: str, n_rows: int) -> None:
    module, other = build(name, n_rows).eval(), build(name, n_rows, 1).eval()
    assert not torch.equal(other(features(n_rows)), module(features(n_rows)))
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(features(n_rows)), module(features(n_rows)))


@each
def test_tokens_tell_responses_apart(name: str, n_rows: int) -> None:
    tokens = build(name, n_rows).eval()(features(n_rows)).flatten(1)
    distance = torch.cdist(tokens, tokens) + torch.eye(B)
    assert distance.min() > 1e-4


@pytest.mark.parametrize("name", tokenizers.names())
def test_an_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(TypeError):
        tokenizers.get(name)(n_rows=1, labels=LABELS, width=WIDTH, basis=BASIS, no_such_option=1)
