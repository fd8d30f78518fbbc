"""How likely texts are under the brains they belong to, under other brains, and under none.

NLL(i, j) is the negative log-likelihood, in nats, of text i (in its own prompt) given brain j. Only the pairs that are asked
for are computed, each once; what stands before the texts is computed once per brain (`BrainLM.nll_of_pairs`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bids_brainlm.core.types import Examples, Ints
from bids_brainlm.language.render import Rendered
from bids_brainlm.models.fusion import BrainLM, collate

Doubles = NDArray[np.float64]


def nll_matrix(
    model: BrainLM, examples: Examples, rendered: Sequence[Rendered], first: Ints, brain: Ints, batch_size: int
) -> Doubles:
    """NLL of texts under brains.

    Parameters
    ----------
    model : BrainLM
    examples : Examples
        n test examples.
    rendered : sequence (n) of Rendered
        With brain slots and answers.
    first : (m,) int64
        An example with each brain.
    brain : (n, c) int64
        Brain that each entry is computed for, 0 to m - 1; -1 for none.
    batch_size : int
        Brains whose prefix is kept, and texts scored, together.

    Returns
    -------
    (n, c) float64 array, nats
        nan where there is no brain.
    """
    n, m = len(examples), len(first)
    # A sampled brain may come twice in a row.
    codes, where = np.unique(np.where(brain < 0, -1, brain * n + np.arange(n)[:, None]), return_inverse=True)
    brains, texts = codes // n, codes % n
    out = np.full(len(codes), np.nan)
    for start in range(0, m, batch_size):
        place = np.flatnonzero((brains >= start) & (brains < start + batch_size))
        if place.size:
            vertices = torch.from_numpy(examples.gather(first[start : start + batch_size])).to(model.device)
            pairs = np.stack([brains[place] - start, texts[place]], axis=1)
            out[place] = model.nll_of_pairs(vertices, rendered, pairs, batch_size).cpu().double().numpy()
    return np.asarray(out[where.reshape(brain.shape)])


def nll_alone(model: BrainLM, rendered: Sequence[Rendered], batch_size: int) -> Doubles:
    """(n,) NLL in nats of texts in prompts without brain tokens."""
    parts = [
        model.nll(collate(rendered[start : start + batch_size], None).to(model.device)).cpu().double().numpy()
        for start in range(0, len(rendered), batch_size)
    ]
    return np.concatenate(parts)
