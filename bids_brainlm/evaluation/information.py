"""Information: by how many bits a text is likelier given the brain than given everything that texts alone can teach.

*Specificity* compares brains with brains: it tests, and has no upper bound. *Information* compares the decoder with a model that
had the same texts, as many tokens in the place of the brain, the same parts of the language model trained in the same phases, and
no brain: every response is one and the same (that of the first training example), so that its brain tokens are learned constants,
a soft prompt. Whatever can be learned from texts alone (style, words, how often which category occurs) is in it. The decoder's
weights without brain tokens would not do: they were never trained without them, and may be bad at it for that reason alone. Nor
would the mean response: z-scored it is zero, nothing but biases of the tokenizer would learn, and a starved reference flatters.

    information(i) = (NLL of text i by the text-only model  -  NLL of text i by the decoder, given the true brain) / ln 2

Both are *calibrated* first. An over-confident decoder bets everything on what it takes for right: it has large specificity, and
loses more bits where it is wrong than it wins where it is right. One *temperature* for each model divides its logits; it is the
one with the least NLL on the validation examples. What is negative after that, the decoder got wrong.

Information may be negative for a text and in the mean. Its mean cannot exceed what brain and texts share, and about which of n
texts it was nobody can learn more than log2 n bits.

>>> float(round(fit_temperature(lambda t: (np.log(t) - np.log(1.5)) ** 2), 1))
1.5
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bids_brainlm.core.types import Examples
from bids_brainlm.language.render import Rendered
from bids_brainlm.models.fusion import BrainLM, collate

Array = NDArray[np.float64]

RANGE, STEPS = (0.25, 4.0), 17
"""Least and largest temperature, and how many are tried at once."""

INFORMATION_COLUMNS = {
    "trial_id": "Example whose text is scored.",
    "fold": "Fold in which it was in the test set, from 0.",
    "nll_decoder": "NLL (nats) of the text by the calibrated decoder, given the true brain.",
    "nll_text_only": "NLL (nats) of the text by the calibrated text-only model.",
    "information": "What the brain adds, in bits: the second less the first, divided by ln 2. May be negative.",
}
"""Columns of the table of information, in order."""


def fit_temperature(total: Callable[[Array], Array]) -> float:
    """The temperature with the least NLL, to about 1 %.

    Parameters
    ----------
    total : callable
        (S,) temperatures -> (S,) NLL; a convex function of 1 / temperature.
    """
    low, high = RANGE
    for _ in range(2):
        tried = np.geomspace(low, high, STEPS)
        best = int(np.argmin(total(tried)))
        low, high = tried[max(best - 1, 0)], tried[min(best + 1, STEPS - 1)]
    return float(tried[best])


def nll_at(model: BrainLM, examples: Examples, rendered: Sequence[Rendered], temperatures: Array, batch_size: int) -> Array:
    """(n, S) NLL in nats of texts given their own responses, at each temperature."""
    tried = torch.from_numpy(np.asarray(temperatures, dtype=np.float32)).to(model.device)
    parts = []
    for start in range(0, len(rendered), batch_size):
        part = slice(start, start + batch_size)
        batch = collate(rendered[part], examples.gather(np.arange(len(rendered))[part]))
        parts.append(model.nll_at(batch.to(model.device), tried).cpu().double().numpy())
    return np.concatenate(parts)


def bits(nll_text_only: Array, nll_decoder: Array) -> Array:
    """(n,) information in bits, from NLL in nats."""
    return np.asarray((nll_text_only - nll_decoder) / np.log(2))
