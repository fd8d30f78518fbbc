"""Text from brains, under three conditions on the same weights.

- ``true``: the response of the trial itself;
- ``permuted``: the response of another test trial or window (`bids_brainlm.core.interventions.partners`);
- ``none``: no brain tokens at all. A response of zeros would not do: it still gives K tokens made of biases.

Nothing here is teacher-forced but the columns that are named likelihood (NLL).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.core.types import DECODED_COLUMNS, Examples, Ints
from bids_brainlm.evaluation.likelihood import nll_alone, nll_matrix
from bids_brainlm.evaluation.matrix import LikelihoodMatrix, mean_known
from bids_brainlm.evaluation.pairs import Comparisons
from bids_brainlm.language.render import decode as text_of
from bids_brainlm.language.render import render, stop_ids
from bids_brainlm.models.fusion import BrainLM, collate

N_OTHERS = 19
"""Most brains that a generated text is compared with."""


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
    matrix : LikelihoodMatrix
        Texts in the order of the table's rows of one condition.
    confidence : (n,) float64
        Of the texts from true brains, nats (`confidence_of`).
    """

    table: pd.DataFrame
    matrix: LikelihoodMatrix
    confidence: NDArray[np.float64]


def decode(
    model: BrainLM, tokenizer: Any, examples: Examples, settings: Generation, compared: Comparisons, *, fold: int = 0
) -> Decoded:
    """Decode test examples under every condition, and score them as ``compared`` (`evaluation.pairs.comparisons`) has it."""
    with_brain = [render(p, tokenizer, model.n_tokens, settings.style, with_answer=True) for p in examples.prompts]
    alone = [render(p, tokenizer, 0, settings.style, with_answer=True) for p in examples.prompts]
    nll = nll_matrix(model, examples, with_brain, compared.first, compared.brain, settings.batch_size)
    n_tokens = np.array([int(item.train.sum()) for item in with_brain], dtype=np.int64)
    ids = tuple(map(str, examples.id))
    matrix = LikelihoodMatrix(nll, compared.own, compared.allowed, ids, compared.names(ids), n_tokens)
    columns = {"true": compared.own, "permuted": compared.partner}
    scores = {name: matrix.given(column) for name, column in columns.items()}
    texts = {name: generate(model, tokenizer, examples, compared.of(column), settings) for name, column in columns.items()}
    scores["none"] = nll_alone(model, alone, settings.batch_size)
    texts["none"] = generate(model, tokenizer, examples, None, settings)
    frames = [_rows(examples, condition, texts[condition], scores[condition], n_tokens, fold) for condition in texts]
    confidence = confidence_of(model, tokenizer, examples, texts["true"], settings, compared)
    return Decoded(pd.concat(frames, ignore_index=True), matrix, confidence)


def confidence_of(
    model: BrainLM, tokenizer: Any, examples: Examples, texts: Sequence[str], settings: Generation, compared: Comparisons
) -> NDArray[np.float64]:
    """(n,) by how many nats generated texts are likelier under their own brains than, in the mean, under up to `N_OTHERS` others.

    nan for a text that can be compared with none.
    """
    prompts = [dataclasses.replace(prompt, answer=text) for prompt, text in zip(examples.prompts, texts, strict=True)]
    rendered = [render(prompt, tokenizer, model.n_tokens, settings.style, with_answer=True) for prompt in prompts]
    brain = np.full((len(examples), 1 + N_OTHERS), -1, dtype=np.int64)
    brain[:, 0] = compared.brain[np.arange(len(examples)), compared.own]
    for i, may in enumerate(compared.allowed):
        some = evenly(compared.brain[i, may], N_OTHERS)
        brain[i, 1 : 1 + some.size] = some
    nll = nll_matrix(model, examples, rendered, compared.first, brain, settings.batch_size)
    return np.asarray(mean_known(nll[:, 1:]) - nll[:, 0])


def evenly(values: Ints, most: int) -> Ints:
    """No more than so many values, evenly spaced from the first to the last.

    >>> evenly(np.arange(10), 4).tolist(), evenly(np.arange(3), 4).tolist(), evenly(np.arange(0), 4).tolist()
    ([0, 3, 6, 9], [0, 1, 2], [])
    """
    places = np.unique(np.linspace(0, max(values.size - 1, 0), most).round().astype(np.int64))
    return np.asarray(values[places[: values.size]])


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
    examples: Examples,
    condition: str,
    texts: Sequence[str],
    nll: NDArray[np.float64],
    n_tokens: NDArray[np.int64],
    fold: int,
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
        "n_tokens": n_tokens,
    }
    return pd.DataFrame(columns)[list(DECODED_COLUMNS)]
