"""How likely a text is under the brain it belongs to, under other brains, and under none.

NLL(i, j) is the negative log-likelihood, in nats, of text i (in its own prompt) given brain j. Only the pairs that are asked
for are computed, each once; what stands before the text is computed once per brain (`BrainLM.nll_of_texts`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bids_brainlm.core.types import Examples
from bids_brainlm.language.render import Rendered
from bids_brainlm.models.fusion import BrainLM, collate

Doubles = NDArray[np.float64]


def nll_pairs(
    model: BrainLM, examples: Examples, rendered: Sequence[Rendered], partners: NDArray[np.int64], batch_size: int
) -> Doubles:
    """NLL of every text under the brains that it is paired with.

    Parameters
    ----------
    model : BrainLM
    examples : Examples
        n test examples.
    rendered : sequence (n) of Rendered
        With brain slots and answers.
    partners : (K, n) int64
        ``partners[k, i]`` is the example whose brain text i is scored with.
    batch_size : int
        Brains scored together.

    Returns
    -------
    (K, n) float64 array, nats
    """
    n = len(examples)
    codes, inverse = np.unique(partners * n + np.arange(n), return_inverse=True)
    brains, texts = codes // n, codes % n
    out = np.full(len(codes), np.nan)
    wanted = np.unique(brains)
    for start in range(0, len(wanted), batch_size):
        some = wanted[start : start + batch_size]
        places = [np.flatnonzero(brains == brain) for brain in some]
        rounds = max(map(len, places))
        # Brains with fewer texts repeat their last one; the result is written twice, which is harmless.
        table = np.stack([np.pad(place, (0, rounds - len(place)), mode="edge") for place in places], axis=1)
        vertices = torch.from_numpy(examples.gather(some)).to(model.device)
        scored = model.nll_of_texts(vertices, [[rendered[texts[p]] for p in row] for row in table])
        out[table] = scored.cpu().double().numpy()
    return np.asarray(out[inverse.reshape(partners.shape)])


def nll_alone(model: BrainLM, rendered: Sequence[Rendered], batch_size: int) -> Doubles:
    """(n,) NLL in nats of texts in prompts without brain tokens."""
    parts = [
        model.nll(collate(rendered[start : start + batch_size], None).to(model.device)).cpu().double().numpy()
        for start in range(0, len(rendered), batch_size)
    ]
    return np.concatenate(parts)
