"""Brain tokenizers: features of a response -> K vectors of the language model's width.

A *tokenizer* is a module (B, T, F) -> (B, K, D) with an attribute ``n_tokens`` (K). What is registered is a *factory* called as
``factory(n_rows=T, labels=(F,), width=D, basis=TokenBasis | None, **options)``; the options come from ``model.options``.

- ``parcelwise`` (CorText): one small network per parcel makes one token (K = P), all of them computed as one batched matrix
  product over parcels padded to the largest (`Parcelwise.padding_waste` says what the padding costs). It ends in the
  coordinates of a *token basis*: principal components of the token embeddings of the training texts, whose frozen inverse
  leads to the width of the language model.
- ``mlp`` (BrainLLM): each of the T rows makes one token (K = T), through one network that they share or in one of the other
  ways that BrainLLM was compared with (`KINDS`).

*Markers* are two learned vectors, one before and one after the brain tokens, which tell the language model where they begin and
end. They are put around any tokenizer (`Marked`); its tokens without them are its *bare* tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bids_brainlm.registry import tokenizers

START = 0.1
"""Scale of the last layer at the start, so that every token begins near the mean token: parcels without signal then stay
quiet, where at scale 1 their noise drowned the others (facts right on held-out captions .42 against .62 in the simulation)."""


@dataclass(frozen=True, eq=False)
class TokenBasis:
    """Principal components of token embeddings.

    Parameters
    ----------
    mean : (D,) Tensor
    components : (r, D) Tensor
        Orthonormal rows.
    scale : (r,) Tensor
        Standard deviation along each component.
    """

    mean: Tensor
    components: Tensor
    scale: Tensor

    @property
    def rank(self) -> int:
        return len(self.components)


def fit_basis(embeddings: Tensor, variance: float, limit: int) -> TokenBasis:
    """Principal components of (N, D) token embeddings that hold a share of their variance.

    Parameters
    ----------
    embeddings : (N, D) Tensor
        One row per token of the training texts (tokens weigh as often as they occur).
    variance : float
        Share of the variance to keep, in (0, 1].
    limit : int
        Largest number of components.
    """
    data = embeddings.double()
    mean = data.mean(0)
    covariance = (data - mean).T @ (data - mean) / len(data)
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    rank = int((values.cumsum(0) < variance * values.sum() * (1 - 1e-12)).sum()) + 1
    rank = min(rank, limit, int((values > 1e-12 * values[0]).sum()) or 1)
    # The sign of an eigenvector is arbitrary; fix it so that machines agree.
    rows = vectors[:, :rank].T
    rows = rows * torch.sign(rows.gather(1, rows.abs().argmax(1, keepdim=True)))
    return TokenBasis(mean.float(), rows.float().contiguous(), values[:rank].sqrt().float())


class FromBasis(nn.Module):
    """Frozen inverse of a token basis, (..., r) -> (..., D); coordinates are in standard deviations of the basis."""

    mean: Tensor
    lift: Tensor

    def __init__(self, basis: TokenBasis) -> None:
        super().__init__()
        self.register_buffer("mean", basis.mean.clone())
        self.register_buffer("lift", basis.components * basis.scale[:, None])

    def forward(self, coordinates: Tensor) -> Tensor:
        return coordinates @ self.lift + self.mean


class Parcelwise(nn.Module):
    """One network per parcel, (B, 1, F) -> (B, P, D), as batched matrix products.

    Parameters
    ----------
    labels : (F,) int array
        Parcel 1..P of each feature, 0 for none.
    width : int
        D.
    basis : TokenBasis or None
        Where the networks end; None lets them end in D itself.
    kind : {"mlp", "linear"}
    hidden : int
        Units of the hidden layer.
    dropout : float
        Dropout on the hidden layer.
    """

    index: Tensor

    def __init__(
        self,
        labels: NDArray[np.int32],
        width: int,
        basis: TokenBasis | None,
        kind: str = "mlp",
        hidden: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = np.bincount(labels)[1:]
        self.n_tokens = len(sizes)
        self.padding_waste = float(self.n_tokens * sizes.max() / sizes.sum() - 1)
        # Column F is a zero that pads every parcel to the largest.
        index = np.full((self.n_tokens, sizes.max()), len(labels))
        for parcel in range(self.n_tokens):
            index[parcel, : sizes[parcel]] = np.flatnonzero(labels == parcel + 1)
        self.register_buffer("index", torch.from_numpy(index.reshape(-1)), persistent=False)
        rank = width if basis is None else basis.rank
        widths = {"mlp": (hidden, rank), "linear": (rank,)}[kind]
        fan_in = torch.from_numpy(sizes).float()[:, None, None]
        last = START / fan_in.sqrt() if kind == "linear" else 1 / fan_in.sqrt()
        self.first = _weights(self.n_tokens, int(sizes.max()), widths[0], last)
        self.first_bias = nn.Parameter(torch.zeros(self.n_tokens, 1, widths[0]))
        self.second = _weights(self.n_tokens, hidden, rank, torch.tensor(START / hidden**0.5)) if kind == "mlp" else None
        self.second_bias = nn.Parameter(torch.zeros(self.n_tokens, 1, rank)) if kind == "mlp" else None
        self.drop = nn.Dropout(dropout)
        self.lift = FromBasis(basis) if basis is not None else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        flat = nn.functional.pad(features.flatten(0, 1), (0, 1))
        packed = flat[:, self.index].view(len(flat), self.n_tokens, -1).transpose(0, 1)
        out = torch.baddbmm(self.first_bias, packed, self.first)
        if self.second is not None and self.second_bias is not None:
            out = torch.baddbmm(self.second_bias, self.drop(nn.functional.gelu(out)), self.second)
        tokens: Tensor = self.lift(out.transpose(0, 1))
        return tokens


def _weights(parcels: int, rows: int, columns: int, scale: Tensor) -> nn.Parameter:
    return nn.Parameter(torch.randn(parcels, rows, columns) * scale)


def _dense(n_in: int, n_out: int, layers: int, hidden: int, dropout: float, bias: bool) -> nn.Sequential:
    """Hidden layers with ReLU and dropout, then a linear one; a bias in the first layer at most, as in BrainLLM."""
    hidden = hidden or n_in
    blocks: list[nn.Module] = []
    for i in range(layers):
        blocks += [nn.Linear(hidden if i else n_in, hidden, bias=bias and not i), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*blocks, nn.Linear(hidden if layers else n_in, n_out, bias=bias and not layers))


class FrameMLP(nn.Module):
    """One network shared by the T rows, (B, T, F) -> (B, T, D).

    Parameters
    ----------
    n_rows, n_features, width : int
        T, F and D.
    layers : int
        Hidden layers, each of `hidden` units with ReLU and dropout; 0 makes it linear.
    hidden : int
        0 takes F, as in BrainLLM.
    dropout : float
    positions : bool
        Learned vector added to each row before the network; the first layer then has no bias of its own.
    """

    def __init__(
        self,
        n_rows: int,
        n_features: int,
        width: int,
        layers: int = 2,
        hidden: int = 0,
        dropout: float = 0.5,
        positions: bool = True,
    ) -> None:
        super().__init__()
        self.n_tokens = n_rows
        placed = positions and n_rows > 1
        self.positions = nn.Parameter(torch.empty(n_rows, n_features).uniform_(-1, 1)) if placed else None
        self.network = _dense(n_features, width, layers, hidden, dropout, bias=not placed)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.network(features if self.positions is None else features + self.positions)
        return out


class JointMLP(nn.Module):
    """One network from all T rows to all T tokens, (B, T, F) -> (B, T, D); parameters as in `FrameMLP`, hidden 0 takes T F."""

    def __init__(self, n_rows: int, n_features: int, width: int, layers: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.n_tokens = n_rows
        self.network = _dense(n_rows * n_features, n_rows * width, layers, hidden, dropout, bias=True)

    @property
    def linear(self) -> nn.Linear | None:
        """The only layer, if there is only one."""
        only = self.network[0]
        return only if len(self.network) == 1 and isinstance(only, nn.Linear) else None

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.network(features.flatten(1))
        return out.view(len(out), self.n_tokens, -1)


class SeparateMLP(nn.Module):
    """A network of its own for each of the T rows, (B, T, F) -> (B, T, D); parameters as in `FrameMLP`."""

    def __init__(self, n_rows: int, n_features: int, width: int, layers: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.n_tokens = n_rows
        self.networks = nn.ModuleList(_dense(n_features, width, layers, hidden, dropout, bias=True) for _ in range(n_rows))

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([network(features[:, t]) for t, network in enumerate(self.networks)], dim=1)


class Recurrent(nn.Module):
    """One recurrent layer over the rows, (B, T, F) -> (B, T, D): a token knows its row and those before; hidden 0 takes F."""

    def __init__(self, n_rows: int, n_features: int, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.n_tokens = n_rows
        self.memory = nn.RNN(n_features, hidden or n_features, batch_first=True)
        self.drop = nn.Dropout(dropout)
        self.last = nn.Linear(hidden or n_features, width, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.last(self.drop(self.memory(features)[0]))
        return out


class Lifted(nn.Module):
    """Tokens of a tokenizer that ends in coordinates of a token basis, (B, T, F) -> (B, K, r) -> (B, K, D)."""

    def __init__(self, coordinates: nn.Module, basis: TokenBasis) -> None:
        super().__init__()
        self.coordinates, self.lift = coordinates, FromBasis(basis)
        self.n_tokens = coordinates.n_tokens

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.lift(self.coordinates(features))
        return out


class Marked(nn.Module):
    """Two learned vectors around the tokens of another tokenizer, (B, T, F) -> (B, K + 2, D).

    Parameters
    ----------
    bare : nn.Module
        The tokenizer, (B, T, F) -> (B, K, D).
    start : (D,) Tensor
        What both markers begin as, such as the mean token embedding.
    """

    def __init__(self, bare: nn.Module, start: Tensor) -> None:
        super().__init__()
        self.bare = bare
        self.n_tokens = bare.n_tokens + 2  # type: ignore[operator]
        self.markers = nn.Parameter(start.detach().float().cpu().repeat(2, 1))

    @property
    def padding_waste(self) -> float | None:
        return getattr(self.bare, "padding_waste", None)

    def forward(self, features: Tensor) -> Tensor:
        tokens = self.bare(features)
        before, after = (self.markers[i].to(tokens.dtype).expand(len(tokens), 1, -1) for i in (0, 1))
        return torch.cat([before, tokens, after], dim=1)


@tokenizers.register("parcelwise")
def parcelwise(
    *,
    n_rows: int,
    labels: NDArray[np.int32],
    width: int,
    basis: TokenBasis | None,
    kind: str = "mlp",
    hidden: int = 64,
    dropout: float = 0.0,
) -> Parcelwise:
    """CorText's tokenizers (Bosch et al. 2025); T must be 1.

    Raises
    ------
    ValueError
        For several rows an example, an unknown `kind`, or no parcel at all.
    """
    if n_rows != 1:
        raise ValueError(f"parcelwise takes one response an example, got {n_rows} rows; use the tokenizer 'mlp'")
    if kind not in ("mlp", "linear"):
        raise ValueError(f"model.options.kind is {kind!r}; expected 'mlp' or 'linear'")
    if not (labels > 0).any():
        raise ValueError("parcelwise needs parcels, but no feature has a label; set model.components = 0 and an atlas")
    return Parcelwise(labels, width, basis, kind, hidden, dropout)


KINDS = ("shared", "joint", "separate", "recurrent")
"""What makes a token of each row: one network that they share, one from all rows to all tokens, one a row, one with memory."""


@tokenizers.register("mlp")
def frame_mlp(
    *,
    n_rows: int,
    labels: NDArray[np.int32],
    width: int,
    basis: TokenBasis | None,
    kind: str = "shared",
    layers: int = 2,
    hidden: int = 0,
    dropout: float = 0.5,
    positions: bool = True,
    deviation: float = 0.0,
    lift: bool = False,
) -> nn.Module:
    """BrainLLM's adapter (Ye et al. 2025) and the variants they compared it with.

    `layers` does not bear on kind recurrent, nor `positions` on any but shared. `deviation` is the standard deviation of the
    normal distribution that weight matrices start from; 0 leaves them as torch starts them. With `lift` tokens end in coordinates
    of the token basis, as those of `parcelwise` do; otherwise the basis is not used.

    Raises
    ------
    ValueError
        For an unknown kind, or a lift without a basis.
    """
    end = basis if lift else None
    if lift and end is None:
        raise ValueError("model.options.lift needs a token basis")
    n_features, ends = len(labels), width if end is None else end.rank
    if kind == "shared":
        module: nn.Module = FrameMLP(n_rows, n_features, ends, layers, hidden, dropout, positions)
    elif kind == "joint":
        module = JointMLP(n_rows, n_features, ends, layers, hidden, dropout)
    elif kind == "separate":
        module = SeparateMLP(n_rows, n_features, ends, layers, hidden, dropout)
    elif kind == "recurrent":
        module = Recurrent(n_rows, n_features, ends, hidden, dropout)
    else:
        raise ValueError(f"model.options.kind is {kind!r}; expected one of {', '.join(KINDS)}")
    for name, parameter in module.named_parameters():
        if deviation and parameter.ndim == 2 and name != "positions":
            nn.init.normal_(parameter, std=deviation)
    return module if end is None else Lifted(module, end)
