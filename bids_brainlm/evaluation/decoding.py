"""Text from brains, under three conditions on the same weights.

- ``true``: the response of the trial itself;
- ``permuted``: the response of another test trial or window (`bids_brainlm.core.interventions.partners`);
- ``none``: no brain tokens at all. A response of zeros would not do: it still gives K tokens made of biases.

Nothing here is teacher-forced but the columns that are named likelihood (NLL).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.core.interventions import partners
from bids_brainlm.core.types import DECODED_COLUMNS, Examples
from bids_brainlm.evaluation.likelihood import nll_alone, nll_pairs
from bids_brainlm.language.render import Rendered, render, stop_ids
from bids_brainlm.language.render import decode as text_of
from bids_brainlm.models.fusion import BrainLM, collate


@dataclass(frozen=True)
class Generation:
    """How text is generated; the fields mean what they mean in `bids_brainlm.config.Decode`."""

    style: str
    max_new_tokens: int = 32
    min_new_tokens: int = 0
    beams: int = 1
    repetition_penalty: float = 1.0
    batch_size: int = 50


@dataclass(frozen=True, eq=False)
class Decoded:
    """Predictions of one fold.

    Parameters
    ----------
    table : DataFrame
        Columns `DECODED_COLUMNS`; three rows an example, one a condition.
    nll_permuted : (K, n) float64 array
        NLL in nats of every text under K permuted brains, examples in the order of the table's rows of one condition.
    """

    table: pd.DataFrame
    nll_permuted: NDArray[np.float64]


def decode(
    model: BrainLM, tokenizer: Any, examples: Examples, settings: Generation, *, permutations: int, seed: int, fold: int = 0
) -> Decoded:
    """Decode test examples under every condition.

    Raises
    ------
    ValueError
        When an example has no partner with another stimulus and another text.
    """
    with_brain = [render(p, tokenizer, model.n_tokens, settings.style, with_answer=True) for p in examples.prompts]
    alone = [render(p, tokenizer, 0, settings.style, with_answer=True) for p in examples.prompts]
    others = partners(examples, max(permutations, 1), seed)
    own = np.arange(len(examples))[None]
    nll = nll_pairs(model, examples, with_brain, np.concatenate([own, others]), settings.batch_size)
    scores = {"true": nll[0], "permuted": nll[1], "none": nll_alone(model, alone, settings.batch_size)}
    texts = {
        "true": generate(model, tokenizer, examples, own[0], settings),
        "permuted": generate(model, tokenizer, examples, others[0], settings),
        "none": generate(model, tokenizer, examples, None, settings),
    }
    frames = [_rows(examples, condition, texts[condition], scores[condition], with_brain, fold) for condition in texts]
    return Decoded(pd.concat(frames, ignore_index=True), nll[1:])


def generate(
    model: BrainLM, tokenizer: Any, examples: Examples, brains: NDArray[np.int64] | None, settings: Generation
) -> list[str]:
    """Generate a text for every prompt.

    Parameters
    ----------
    brains : (n,) int64 or None
        Example whose response is used for each prompt; None leaves brain tokens out.
    """
    n_slots = 0 if brains is None else model.n_tokens
    prompts = [render(p, tokenizer, n_slots, settings.style, with_answer=False) for p in examples.prompts]
    stop = stop_ids(tokenizer, settings.style)
    out: list[str] = []
    for start in range(0, len(prompts), settings.batch_size):
        part = slice(start, start + settings.batch_size)
        vertices = None if brains is None else examples.gather(brains[part])
        ids = model.generate(
            collate(prompts[part], vertices, pad_left=True).to(model.device),
            stop=stop,
            max_new_tokens=settings.max_new_tokens,
            min_new_tokens=settings.min_new_tokens,
            beams=settings.beams,
            repetition_penalty=settings.repetition_penalty,
        )
        out += [text_of(row, tokenizer) for row in ids]
    return out


def _rows(
    examples: Examples, condition: str, texts: Sequence[str], nll: NDArray[np.float64], rendered: Sequence[Rendered], fold: int
) -> pd.DataFrame:
    columns = {
        "trial_id": examples.id,
        "stimulus_id": examples.stimulus,
        "fold": fold,
        "group": examples.group,
        "condition": condition,
        "prompt": [prompt.context for prompt in examples.prompts],
        "text_true": [" | ".join(texts) for texts in examples.references],
        "text_pred": list(texts),
        "nll": nll,
        "n_tokens": [int(item.train.sum()) for item in rendered],
    }
    return pd.DataFrame(columns)[list(DECODED_COLUMNS)]
