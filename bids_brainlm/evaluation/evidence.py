"""Evidence for single texts, what is gained by keeping only those that have it, and doubts in plain words.

The *rank* of a text is that of its own brain among those it may be compared with: 1 of 40 is as good as can be. A rank is no p
value: with one text there is nothing that could be repeated, and ranks of texts of one run depend on each other.

*Confidence* tells a reader when to abstain. It has to be known where the truth is not, so it is made of the generated text alone:
by how many nats the brains of other trials make the generated text less likely than the brain it was decoded from. A sentence
that the model says whatever the brain has none. Texts in the order of their confidence give a risk-coverage curve: how good are
the texts if only the most confident share of them is kept?
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bids_brainlm.evaluation.statistics import ALPHA
from bids_brainlm.evaluation.table import PRIMARY, TEXT_ONLY, Predictions

Array = NDArray[np.float64]

SHARES = tuple(k / 10 for k in range(10, 0, -1))
"""Shares of texts that are kept."""

FEW = 10
"""Fewest texts that are judged by how often one of them comes."""

COMMON, EQUAL, COOLED = 0.5, 0.9, 1.5
"""Share of texts that are one sentence; share of those equal without a brain; temperature: from which on there is a doubt."""

EVIDENCE_COLUMNS = {
    "trial_id": "Example that was decoded.",
    "rank": "Rank of its own brain among itself and those compared with, by how likely they make the right text; not a p value.",
    "n_brains": "Brains that were ranked, the own one included.",
    "specificity": "By how many nats the right text is likelier under its own brain than, in the mean, under the others.",
    "information": "What the brain adds to a text-only model, in bits; n/a unless it is measured (evaluate.information).",
    "confidence": "By how many nats the generated text is likelier under its own brain than, in the mean, under others: needs no "
    "right text.",
}
"""Columns of the table of evidence, in order."""

COVERAGE_COLUMNS = {
    "metric": "What is good or bad in the texts that are kept.",
    "coverage": "Share of texts that are kept: those with the largest confidence.",
    "n": "Number of texts kept.",
    "threshold": "Smallest confidence among them, nats.",
    "value": "Mean of the metric over them.",
}
"""Columns of the risk-coverage table, in order."""


def coverage(confidence: ArrayLike, scores: Mapping[str, ArrayLike]) -> pd.DataFrame:
    """Metrics of the texts that are kept when only the most confident are.

    Parameters
    ----------
    confidence : (n,) float
        Texts without any are the first to go.
    scores : mapping of str to (n,) float
        Metric -> value of each text; nan is left out.

    Returns
    -------
    DataFrame
        Columns `COVERAGE_COLUMNS`.
    """
    sure = np.nan_to_num(np.asarray(confidence, dtype=np.float64), nan=-np.inf)
    order = np.argsort(-sure, kind="stable")
    rows = []
    for metric, values in scores.items():
        known = np.asarray(values, dtype=np.float64)[order]
        for share in SHARES:
            kept = known[: max(round(share * known.size), 1)]
            mean = float(np.nanmean(kept)) if np.isfinite(kept).any() else np.nan
            rows.append((metric, share, kept.size, sure[order[kept.size - 1]], mean))
    table = pd.DataFrame(rows, columns=list(COVERAGE_COLUMNS))
    return table.replace({"threshold": {-np.inf: np.nan}})


def warnings_of(summary: pd.DataFrame, predictions: Predictions) -> tuple[str, ...]:
    """What a reader should doubt, in plain sentences.

    Parameters
    ----------
    summary : DataFrame
        The metrics table, values being numbers.
    predictions : Predictions
    """
    value = summary.set_index(["metric", "condition"])["value"].to_dict()
    p = summary.loc[summary["metric"] == PRIMARY, "p_value"]
    found = [_collapsed(predictions), _unmoved(predictions), _over_confident(value), _without_information(value, p)]
    found.append(_starved(value))
    return tuple(sentence for sentence in found if sentence)


def _collapsed(predictions: Predictions) -> str:
    """One sentence for all, though the right texts differ."""
    true = predictions.of("true")
    said = pd.Series(true.texts).value_counts()
    right = pd.Series([texts[0] for texts in true.references]).value_counts()
    if len(true) < FEW or said.iloc[0] < COMMON * len(true) or said.iloc[0] <= 2 * right.iloc[0]:
        return ""
    several = f", and all together are {len(said)} different ones" if len(said) > 1 else ""
    sentence = f"{said.iloc[0]} of {len(true)} decoded texts are the same sentence (“{said.index[0]}”){several}, while there are "
    return f"{sentence}{len(right)} right ones: the decoder hardly depends on the brain."


def _unmoved(predictions: Predictions) -> str:
    """The same text with the brain and without."""
    if "none" not in predictions.conditions:
        return ""
    pairs = list(zip(predictions.of("true").texts, predictions.of("none").texts, strict=True))
    same = sum(a == b for a, b in pairs)
    if len(pairs) < FEW or same < EQUAL * len(pairs):
        return ""
    return f"{same} of {len(pairs)} texts are the same without any brain: they came from the language model."


def _over_confident(value: Mapping[tuple[str, str], float]) -> str:
    decoder, other = value.get(("temperature", "true"), np.nan), value.get(("temperature", TEXT_ONLY), np.nan)
    if not decoder >= COOLED:
        return ""
    text = f"The decoder is surer than it is right: to be calibrated its logits had to be divided by {decoder:.1f}"
    return f"{text} (those of the text-only model by {other:.1f}). Its specificity is too large for what it knows."


def _without_information(value: Mapping[tuple[str, str], float], p: pd.Series) -> str:
    bits, specificity = value.get(("information_bits", "true"), np.nan), value.get((PRIMARY, "true"), np.nan)
    if not (bits < 0 < specificity and (p <= ALPHA).any()):
        return ""
    text = f"The right texts depend on the brain ({specificity:.2f} nats), but given the brain they are no likelier than for a "
    return (
        f"{text}model that knows texts alone ({bits:.2f} bits): what the decoder says with the brain is wrong more than it helps."
    )


def _starved(value: Mapping[tuple[str, str], float]) -> str:
    """A reference that is no reference."""
    text_only, alone = value.get(("nll_calibrated", TEXT_ONLY), np.nan), value.get(("nll", "none"), np.nan)
    if not text_only > alone:
        return ""
    text = (
        f"The text-only model ({text_only:.2f} nats a text) does worse than the decoder without a brain ({alone:.2f}): it is not "
    )
    return f"{text}trained well, and information is overstated."
