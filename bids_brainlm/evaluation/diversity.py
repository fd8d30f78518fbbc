"""How decoded texts are, and not how good: varied or always the same, long or short, made anew or learned by heart.

A *figure* here is of all decoded texts of a condition together: one row of the table, without an interval and without a test,
because texts count through their neighbours. None is better for being higher or lower; they are read beside those of the
references and of other conditions. A decoder that always says one thing has few distinct texts whatever its metrics are.

- ``distinct_1``, ``distinct_2`` (Li et al. 2016): distinct words, pairs of words, by the number of them in all texts. It falls
  with the number of texts: compare equal numbers only.
- ``distinct_texts``: distinct texts by the number of texts.
- ``length_ratio``: words of all texts by words of their references, of several the one nearest in length.
- ``copied``: share of texts that equal a text of their fold's training set word for word. An empty text copies nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bids_brainlm.evaluation.table import METRICS_COLUMNS, Predictions
from bids_brainlm.language.stimuli import words

Words = tuple[str, ...]

FIGURES = {
    "distinct_1": "Distinct words by words of all texts (Li et al. 2016)",
    "distinct_2": "Distinct pairs of words by pairs of words of all texts (Li et al. 2016)",
    "distinct_texts": "Distinct texts by texts",
    "length_ratio": "Words of all texts by words of their references",
    "copied": "Share of texts that equal a training text word for word",
}
"""Figure -> what it is."""


@dataclass(frozen=True)
class Told:
    """A text as words, the references of it, and the texts that its decoder was trained on."""

    text: Words
    references: tuple[Words, ...]
    training: Collection[Words]


def diversity_rows(predictions: Predictions, training: Mapping[int, Sequence[str]]) -> pd.DataFrame:
    """Figures of the texts of every condition.

    Parameters
    ----------
    predictions : Predictions
        Pooled over folds.
    training : mapping of int to sequence of str
        Fold -> texts of its training set.

    Returns
    -------
    DataFrame
        Columns of `bids_brainlm.evaluation.table.METRICS_COLUMNS`, one row a figure and condition.
    """
    learned = {fold: {_worded(text) for text in texts} for fold, texts in training.items()}
    rows = []
    for condition in predictions.conditions:
        part = predictions.of(condition)
        listed = zip(part.texts, part.references, part.table["fold"], strict=True)
        told = [Told(_worded(text), tuple(map(_worded, right)), learned[fold]) for text, right, fold in listed]
        rows += [
            {"metric": name, "condition": condition, "value": value, "n": len(told)} for name, value in figures(told).items()
        ]
    return pd.DataFrame(rows).reindex(columns=list(METRICS_COLUMNS))


def figures(told: Sequence[Told]) -> dict[str, float]:
    """Each of `FIGURES`; nan where nothing is there to be counted."""
    texts = [one.text for one in told]
    nearest = [min((len(right) for right in one.references), key=lambda n: (abs(n - len(one.text)), n)) for one in told]
    return {
        "distinct_1": _distinct([word for text in texts for word in text]),
        "distinct_2": _distinct([pair for text in texts for pair in zip(text, text[1:], strict=False)]),
        "distinct_texts": _distinct(texts),
        "length_ratio": sum(map(len, texts)) / sum(nearest) if sum(nearest) else np.nan,
        "copied": float(np.mean([bool(one.text) and one.text in one.training for one in told])) if told else np.nan,
    }


def _worded(text: str) -> Words:
    return tuple(words(text))


def _distinct(items: Sequence[object]) -> float:
    return len(set(items)) / len(items) if items else np.nan
