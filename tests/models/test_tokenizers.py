"""The batched parcel product is a plain loop of per-parcel networks; the token basis is a principal component analysis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bids_brainlm.models.tokenizers import KINDS, FrameMLP, FromBasis, Marked, Parcelwise, TokenBasis, fit_basis
from bids_brainlm.registry import tokenizers

# Four vertices on the left and five on the right, so that exchanging hemispheres cannot pass; one belongs to no parcel.
LABELS = np.array([1, 1, 2, 0, 3, 3, 3, 2, 4], dtype=np.int32)
N_PARCELS, N_VERTICES, WIDTH = 4, 9, 7
MEMBER = np.equal.outer(np.arange(1, 5), LABELS)
SIZES = [2, 2, 3, 1]


def features(n: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 1, N_VERTICES, generator=torch.Generator().manual_seed(seed))


def basis(rank: int = 3) -> TokenBasis:
    rng = np.random.default_rng(0)
    rows = np.linalg.qr(rng.standard_normal((WIDTH, rank)))[0].T
    parts = (rng.standard_normal(WIDTH), rows, rng.uniform(0.5, 2, rank))
    return TokenBasis(*(torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32)) for part in parts))


def build(kind: str = "mlp", with_basis: bool = True, **options: Any) -> Parcelwise:
    torch.manual_seed(1)
    module = tokenizers.get("parcelwise")(
        n_rows=1, labels=LABELS, width=WIDTH, basis=basis() if with_basis else None, kind=kind, hidden=6, **options
    )
    with torch.no_grad():
        for parameter in module.parameters():
            # Biases start at 0, where a forgotten one could not be seen.
            parameter.add_(torch.randn_like(parameter))
    return module


def loop_of(module: Parcelwise) -> list[nn.Module]:
    """One plain network a parcel, with copies of the same weights."""
    out: list[nn.Module] = []
    for parcel in range(N_PARCELS):
        size = SIZES[parcel]
        layers = [_linear(module.first[parcel, :size], module.first_bias[parcel, 0])]
        if module.second is not None and module.second_bias is not None:
            layers += [nn.GELU(), _linear(module.second[parcel], module.second_bias[parcel, 0])]
        out.append(nn.Sequential(*layers))
    return out


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(*weight.shape)
    layer.weight.data, layer.bias.data = weight.detach().T.clone(), bias.detach().clone()
    return layer


def looped(loop: list[nn.Module], inputs: torch.Tensor, with_basis: bool) -> torch.Tensor:
    tokens = torch.stack([net(inputs[:, 0, torch.from_numpy(MEMBER[p])]) for p, net in enumerate(loop)], dim=1)
    if not with_basis:
        return tokens
    end = basis()
    return (tokens * end.scale) @ end.components + end.mean


@pytest.mark.parametrize("with_basis", [True, False])
@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_parcelwise_is_a_loop_of_networks_and_so_are_its_gradients(kind: str, with_basis: bool) -> None:
    module = build(kind, with_basis)
    loop = loop_of(module)
    one, two = features().requires_grad_(True), features().requires_grad_(True)
    ours, theirs = module(one), looped(loop, two, with_basis)
    assert ours.shape == (5, N_PARCELS, WIDTH)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(ours)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-4)
    for parcel, net in enumerate(loop):
        size = SIZES[parcel]
        pairs = [(module.first.grad[parcel, :size], net[0].weight.grad.T), (module.first_bias.grad[parcel, 0], net[0].bias.grad)]
        if kind == "mlp":
            pairs += [(module.second.grad[parcel], net[2].weight.grad.T), (module.second_bias.grad[parcel, 0], net[2].bias.grad)]
        for mine, plain in pairs:
            torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-4)


def test_a_token_depends_on_its_own_vertices_and_no_other() -> None:
    module = build()
    reach = torch.autograd.functional.jacobian(module, features(1))[0, :, :, 0, 0].abs().sum(1)
    np.testing.assert_array_equal(reach.numpy() > 0, MEMBER)


def test_padding_has_no_influence_and_no_gradient() -> None:
    module = build()
    before = module(features())
    before.square().sum().backward()
    gradient = module.first.grad.clone()
    with torch.no_grad():
        for parcel in range(N_PARCELS):
            size = SIZES[parcel]
            assert (gradient[parcel, :size] != 0).all()
            assert (gradient[parcel, size:] == 0).all()
            module.first[parcel, size:] = 1e6
        assert torch.equal(module(features()), before)


def test_padding_waste_is_what_the_padded_product_has_too_much() -> None:
    # Parcels of 2, 2, 3 and 1 vertices, each padded to 3.
    assert build().padding_waste == pytest.approx(4 * 3 / 8 - 1)
    even = tokenizers.get("parcelwise")(n_rows=1, labels=np.repeat([1, 2], 5), width=2, basis=None)
    assert even.padding_waste == 0


def test_dropout_is_for_training_alone() -> None:
    module = build(dropout=0.5).train()
    assert not torch.equal(module(features()), module(features()))
    module.eval()
    assert torch.equal(module(features()), module(features()))


def test_tokens_begin_near_the_mean_token() -> None:
    torch.manual_seed(0)
    end = basis()
    for kind in ("mlp", "linear"):
        module = tokenizers.get("parcelwise")(n_rows=1, labels=LABELS, width=WIDTH, basis=end, kind=kind)
        apart = (module(features(200)) - end.mean).square().mean().sqrt()
        spread = (end.scale**2).sum().div(WIDTH).sqrt()
        assert apart < 0.3 * spread


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_rows": 2}, "one response an example, got 2 rows; use the tokenizer 'mlp'"),
        ({"kind": "conv"}, "model.options.kind is 'conv'; expected 'mlp' or 'linear'"),
        ({"labels": np.zeros(9, np.int32)}, "no feature has a label"),
    ],
)
def test_parcelwise_refuses(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"n_rows": 1, "labels": LABELS, "width": WIDTH, "basis": None, **change}
    with pytest.raises(ValueError, match=message):
        tokenizers.get("parcelwise")(**arguments)


def test_frame_mlp_makes_one_token_of_each_row() -> None:
    torch.manual_seed(0)
    module = FrameMLP(n_rows=3, n_features=5, width=WIDTH, layers=2, hidden=4, dropout=0.0)
    with torch.no_grad():
        module.positions.copy_(torch.randn(3, 5))
    rows = torch.randn(2, 3, 5)
    first, second, last = (layer for layer in module.network if isinstance(layer, nn.Linear))
    for t in range(3):
        hidden = torch.relu(first(rows[:, t] + module.positions[t]))
        torch.testing.assert_close(module(rows)[:, t], torch.relu(second(hidden)) @ last.weight.T)
    assert module.n_tokens == 3


def test_frame_mlp_takes_its_width_from_the_features() -> None:
    module = tokenizers.get("mlp")(n_rows=1, labels=LABELS, width=WIDTH, basis=None)
    sizes = [tuple(layer.weight.shape) for layer in module.network if isinstance(layer, nn.Linear)]
    assert sizes == [(9, 9), (9, 9), (WIDTH, 9)]
    linear = tokenizers.get("mlp")(n_rows=2, labels=LABELS, width=WIDTH, basis=None, layers=0, positions=False)
    assert [tuple(parameter.shape) for parameter in linear.parameters()] == [(WIDTH, 9), (WIDTH,)]


def rows_to_tokens(kind: str, n_rows: int = 3, **options: Any) -> Any:
    torch.manual_seed(2)
    arguments = {"hidden": 4, "dropout": 0.0, "layers": 1, "basis": None, **options}
    return tokenizers.get("mlp")(n_rows=n_rows, labels=LABELS, width=WIDTH, kind=kind, **arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_which_row_bears_on_which_token(kind: str) -> None:
    """Of its own alone, of all, or of those up to it."""
    rows = torch.randn(1, 3, N_VERTICES)
    reach = torch.autograd.functional.jacobian(rows_to_tokens(kind), rows)[0, :, :, 0].abs().sum((1, 3)) > 0
    alone, everything = torch.eye(3).bool(), torch.ones(3, 3).bool()
    wanted = {"shared": alone, "separate": alone, "joint": everything, "recurrent": everything.tril()}
    assert torch.equal(reach, wanted[kind])


def test_rows_share_a_network_or_have_one_each() -> None:
    rows = torch.randn(1, 1, N_VERTICES).expand(1, 3, -1)
    shared, separate = rows_to_tokens("shared", positions=False)(rows)[0], rows_to_tokens("separate")(rows)[0]
    torch.testing.assert_close(shared, shared[:1].expand(3, -1))
    assert torch.pdist(separate).min() > 0.01


def test_a_joint_network_is_a_plain_one_of_the_rows_side_by_side() -> None:
    module, rows = rows_to_tokens("joint"), torch.randn(2, 3, N_VERTICES)
    first, last = (layer for layer in module.network if isinstance(layer, nn.Linear))
    wanted = torch.relu(rows.reshape(2, -1) @ first.weight.T + first.bias) @ last.weight.T
    torch.testing.assert_close(module(rows), wanted.reshape(2, 3, WIDTH))


def test_a_recurrent_one_is_a_plain_loop() -> None:
    module, rows = rows_to_tokens("recurrent"), torch.randn(2, 3, N_VERTICES)
    memory, state = module.memory, torch.zeros(2, 4)
    for t in range(3):
        state = torch.tanh(
            rows[:, t] @ memory.weight_ih_l0.T + memory.bias_ih_l0 + state @ memory.weight_hh_l0.T + memory.bias_hh_l0
        )
        torch.testing.assert_close(module(rows)[:, t], state @ module.last.weight.T)


def test_biases_are_where_the_released_code_has_them() -> None:
    """In the first layer, unless learned positions are added before it; nowhere else."""

    def biases(**options: Any) -> list[bool]:
        module = rows_to_tokens("shared", layers=2, **options)
        return [layer.bias is not None for layer in module.network if isinstance(layer, nn.Linear)]

    assert biases(positions=True) == [False, False, False]
    assert biases(positions=False) == [True, False, False]
    assert biases(positions=True, n_rows=1) == [True, False, False]


def test_weights_start_as_asked_for() -> None:
    module = rows_to_tokens("shared", hidden=300, layers=2, deviation=0.01)
    for name, parameter in module.named_parameters():
        value = parameter.detach()
        if name == "positions":
            assert value.abs().max() <= 1
            assert value.std() == pytest.approx(3**-0.5, rel=0.3)
        else:
            assert value.std() == pytest.approx(0.01, rel=0.1)
    assert rows_to_tokens("shared", hidden=300, layers=2).network[0].weight.detach().std() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_lifted_tokens_are_coordinates_of_the_basis(kind: str) -> None:
    end, rows = basis(), torch.randn(2, 3, N_VERTICES)
    module = rows_to_tokens(kind, basis=end, lift=True)
    coordinates = module.coordinates(rows)
    assert coordinates.shape == (2, 3, end.rank)
    torch.testing.assert_close(module(rows), (coordinates * end.scale) @ end.components + end.mean)
    with pytest.raises(ValueError, match="needs a token basis"):
        rows_to_tokens(kind, lift=True)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.options\.kind is 'conv'; expected one of shared, joint, separate, recurrent"):
        rows_to_tokens("conv")


def test_markers_stand_around_tokens_and_change_none() -> None:
    bare, start = rows_to_tokens("shared"), torch.randn(WIDTH)
    module, rows = Marked(bare, start), torch.randn(2, 3, N_VERTICES)
    assert module.n_tokens == 5
    with torch.no_grad():
        assert torch.equal(module(rows)[:, [0, -1]], start.expand(2, 2, -1))
        module.markers[1] += 1
        assert torch.equal(module(rows)[:, -1], start.add(1).expand(2, -1))
        assert torch.equal(module(rows)[:, 1:-1], bare(rows))
    assert Marked(build(), start).padding_waste == build().padding_waste
    assert module.padding_waste is None


# Token basis ----------------------------------------------------------------------------------------------------------


def embeddings() -> torch.Tensor:
    rng = np.random.default_rng(3)
    mixed = rng.standard_normal((60, WIDTH)) * 2.0 ** -np.arange(WIDTH) @ rng.standard_normal((WIDTH, WIDTH)) + 5
    return torch.from_numpy(mixed).float()


def test_basis_is_the_singular_value_decomposition() -> None:
    data = embeddings().numpy().astype(np.float64)
    _, sizes, rows = np.linalg.svd(data - data.mean(axis=0), full_matrices=False)
    found = fit_basis(embeddings(), 1.0, 100)
    assert found.rank == WIDTH
    np.testing.assert_allclose(found.mean, data.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.scale, sizes / np.sqrt(60), rtol=1e-4)
    cosine = (found.components.numpy() * rows).sum(axis=1)
    np.testing.assert_allclose(np.abs(cosine), 1, atol=1e-4)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.97, 0.999])
def test_basis_is_the_smallest_that_holds_the_share(share: float) -> None:
    data = embeddings().double()
    found = fit_basis(embeddings(), share, 100)
    centred = data - data.mean(0)
    total = centred.square().sum()
    held = [(centred @ found.components[:r].double().T).square().sum() / total for r in range(1, found.rank + 1)]
    assert held[-1] >= share - 1e-6
    assert found.rank == 1 or held[-2] < share


def test_basis_has_a_limit_and_never_an_empty_direction() -> None:
    assert fit_basis(embeddings(), 1.0, 2).rank == 2
    few = embeddings()[:3]
    assert fit_basis(few, 1.0, 100).rank == 2
    assert fit_basis(torch.ones(4, 3), 0.97, 100).rank == 1


def test_basis_does_not_depend_on_the_order_of_tokens() -> None:
    one, two = fit_basis(embeddings(), 0.9, 100), fit_basis(embeddings().flip(0), 0.9, 100)
    torch.testing.assert_close(one.components, two.components, rtol=1e-4, atol=1e-4)


def test_lift_of_coordinates_gives_the_tokens_back() -> None:
    data = embeddings()
    found = fit_basis(data, 1.0, 100)
    lift = FromBasis(found)
    coordinates = (data - found.mean) @ found.components.T / found.scale
    torch.testing.assert_close(lift(coordinates), data, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(coordinates.square().mean(0), torch.ones(WIDTH), rtol=1e-3, atol=1e-3)
    assert list(lift.parameters()) == []
    module = build()
    assert all("lift" not in name and "mean" not in name for name, _ in module.named_parameters())
