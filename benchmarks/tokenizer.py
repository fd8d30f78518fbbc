"""One batched product over padded parcels against a Python loop of networks: how much faster, and whether they are equal.

The setting of CorText on fsaverage5: 100 parcels, a hidden layer of 64 units, 921 components, 25 trials a batch. Parcels are of
equal size, or of sizes that vary as those of the Schaefer atlas do, where padding to the largest wastes part of the product
(printed). Forward alone, and forward with backward. Wall seconds of one process, fastest of a few rounds.

    OMP_NUM_THREADS=1 python benchmarks/tokenizer.py [--small]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bids_brainlm.models.tokenizers import Parcelwise, TokenBasis

HIDDEN, BATCH = 64, 25


def labels_of(n_parcels: int, n_vertices: int, varied: bool) -> np.ndarray[Any, Any]:
    """(V,) parcel of each vertex, sizes equal or log-normal with a coefficient of variation of about .4."""
    shares = np.random.default_rng(0).lognormal(0, 0.4, n_parcels) if varied else np.ones(n_parcels)
    edges = np.round(np.cumsum(shares) / shares.sum() * n_vertices).astype(int)
    return (np.searchsorted(edges, np.arange(n_vertices), side="right") + 1).astype(np.int32)


def basis_of(rank: int, width: int) -> TokenBasis:
    return TokenBasis(torch.randn(width), torch.linalg.qr(torch.randn(width, rank))[0].T.contiguous(), torch.rand(rank))


class Loop(nn.Module):
    """The same networks with the same weights, one module a parcel."""

    def __init__(self, batched: Parcelwise, labels: np.ndarray[Any, Any]) -> None:
        super().__init__()
        self.members = [torch.from_numpy(np.flatnonzero(labels == p + 1)) for p in range(batched.n_tokens)]
        self.networks = nn.ModuleList()
        for p, member in enumerate(self.members):
            first, second = nn.Linear(len(member), HIDDEN), nn.Linear(HIDDEN, batched.second.shape[2])
            first.weight.data, first.bias.data = (
                batched.first[p, : len(member)].detach().T.clone(),
                batched.first_bias[p, 0].detach(),
            )
            second.weight.data, second.bias.data = batched.second[p].detach().T.clone(), batched.second_bias[p, 0].detach()
            self.networks.append(nn.Sequential(first, nn.GELU(), second))
        self.lift = batched.lift

    def forward(self, features: Tensor) -> Tensor:
        parts = [net(features[:, 0, member]) for net, member in zip(self.networks, self.members, strict=True)]
        out: Tensor = self.lift(torch.stack(parts, dim=1))
        return out


def seconds(work: Callable[[], Any], rounds: int) -> float:
    """Fastest of some rounds after one to warm up."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def forward(module: nn.Module, features: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = module(features)
    return out


def backward(module: nn.Module, features: Tensor) -> Tensor:
    module.zero_grad()
    inputs = features.clone().requires_grad_(True)
    module(inputs).square().mean().backward()
    assert inputs.grad is not None
    return inputs.grad


def compare(n_parcels: int, n_vertices: int, rank: int, width: int, rounds: int) -> float:
    """Print times and ratios; the largest difference relative to the largest value."""
    worst = 0.0
    for varied in (False, True):
        torch.manual_seed(0)
        labels = labels_of(n_parcels, n_vertices, varied)
        batched = Parcelwise(labels, width, basis_of(rank, width), "mlp", HIDDEN)
        loop, features = Loop(batched, labels), torch.randn(BATCH, 1, n_vertices)
        print(f"parcels of {'varied' if varied else 'equal'} size, padding waste {batched.padding_waste:.0%}")
        for name, work in (("forward", forward), ("forward and backward", backward)):
            ours, theirs = (work(module, features) for module in (batched, loop))
            difference = float((ours - theirs).abs().max() / theirs.abs().max())
            fast, slow = (seconds(partial(work, module, features), rounds) for module in (batched, loop))
            times = f"batched {fast * 1e3:8.2f} ms   loop {slow * 1e3:8.2f} ms   {slow / fast:5.2f}x"
            print(f"  {name:22s} {times}   difference {difference:.1e}")
            worst = max(worst, difference)
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="20 parcels of 2,000 vertices, width 128")
    size = (20, 2000, 64, 128, 5) if parser.parse_args().small else (100, 20484, 921, 1536, 5)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"{size[0]} parcels of {size[1]} vertices, {HIDDEN} hidden units, {size[2]} components, width {size[3]}; ", end="")
    print(f"OMP_NUM_THREADS={threads}")
    worst = compare(*size)
    if worst > 1e-4:
        raise SystemExit(f"tokens or gradients differ by {worst:.1e} of the largest")
    print(f"equal: largest relative difference {worst:.1e}")


if __name__ == "__main__":
    main()
