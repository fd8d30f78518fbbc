"""A brain tokenizer that pools each parcel to its mean and lets one linear map make K tokens of all means."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Pooled(nn.Module):
    """(B, T, F) features -> (B, K, D) tokens.

    Parameters
    ----------
    labels : (F,) int
        Parcel of each feature, 0 for none.
    width : int
        D, the embedding width of the language model.
    n_tokens : int
        K.
    """

    pool: Tensor

    def __init__(self, n_rows: int, labels: Any, width: int, n_tokens: int) -> None:
        super().__init__()
        member = np.equal.outer(np.unique(labels[labels > 0]), labels).astype(np.float32)
        self.register_buffer("pool", torch.from_numpy(member / member.sum(axis=1, keepdims=True)))
        self.n_tokens, self.width = n_tokens, width
        self.map = nn.Linear(n_rows * len(member), n_tokens * width)

    def forward(self, features: Tensor) -> Tensor:
        means = features @ self.pool.T
        return self.map(means.flatten(1)).reshape(-1, self.n_tokens, self.width)


def pooled(n_rows: int, labels: Any, width: int, basis: Any = None, n_tokens: int = 4, **options: Any) -> Pooled:
    """Factory that bids_brainlm calls; ``n_tokens`` comes from ``model.options``."""
    if options:
        raise TypeError(f"tokenizer 'pooled' has no option {', '.join(options)}; it has n_tokens")
    return Pooled(n_rows, np.asarray(labels), width, n_tokens)
