"""Two decoders on the same test items: paired differences.

An *item* is a test example that both have, with the same right text. What differs between two decoders is taken item by item, so
that what makes an item easy or hard for both drops out. Items of a group are not independent: intervals resample whole groups
and p values flip the signs of whole groups; over participants, a participant is one unit. p values are two-sided: either of two
decoders may be the better one.

Of every metric of texts two *conditions* are compared: ``true``, the text from the brain, and ``true_minus_permuted``, its value
there minus that of the text from a permuted brain. A language model that writes better gains in the first one alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm import registry
from bids_brainlm.evaluation.metrics import Facts, Metric, get
from bids_brainlm.evaluation.multiplicity import false_discovery_q
from bids_brainlm.evaluation.resampling import bootstrap_interval, sign_flip_p
from bids_brainlm.evaluation.resources import lacking
from bids_brainlm.evaluation.table import Predictions, Sampling
from bids_brainlm.evaluation.zero_shot import FALSE_ALARMS, HITS, Category

Array = NDArray[np.float64]
Key = tuple[str, str]

TRUE, GAIN = "true", "true_minus_permuted"
ALL = "all"
LOWER = ("nll", "bits_per_character", FALSE_ALARMS)
"""What is better when it is smaller, beside the metrics of texts that say so themselves."""

COMPARE_COLUMNS = {
    "participant": "Label with sub-; all for the mean over participants.",
    "output": "What is compared with the baseline.",
    "metric": "What was measured.",
    "condition": "true: from the brain; true_minus_permuted: by how much that is more than from a permuted brain.",
    "better": "Whether higher or lower values are better.",
    "baseline": "Mean of the first output over the items of both.",
    "value": "Mean of the other output over the same items.",
    "difference": "value minus baseline.",
    "ci_low": "Lower end of the 95 % interval of the difference, over groups (all: over participants); n/a below 6 of them.",
    "ci_high": "Upper end of that interval.",
    "n": "Number of items of both; of participants where participant is all.",
    "p_value": "Two-sided p value by flipping the signs of groups (all: of participants); n/a below 6 of them.",
    "q_value": "False discovery rate (Benjamini-Hochberg) over the metrics of the same output and participant.",
}
"""Columns of the table of paired differences, in order."""


def item_scores(
    predictions: Predictions, metrics: Sequence[Metric], facts: Facts | None = None, resources: Mapping[str, Any] | None = None
) -> dict[Key, Array]:
    """(n,) value of each item of the true condition under every metric.

    Parameters
    ----------
    predictions : Predictions
        Of one participant.
    metrics : sequence of Metric
        Those that need what is not given are left out.
    facts : Facts, optional
    resources : mapping, optional
        As `bids_brainlm.evaluation.resources.available` finds them.

    Returns
    -------
    dict of (metric, condition) to (n,) float64
        ``nll`` in nats a text, and the same as ``bits_per_character`` of the first right text, which does not depend on how a
        language model cuts texts into tokens.
    """
    true = predictions.of(TRUE)
    characters = np.array([max(len(texts[0]), 1) for texts in true.references])
    out = {("nll", TRUE): true.nll, ("bits_per_character", TRUE): true.nll / np.log(2) / characters}
    given = {**(resources or {}), **({} if facts is None else {"facts": facts})}
    for metric in metrics:
        if ("facts" in metric.context and facts is None) or lacking([n for n in metric.context if n != "facts"], given):
            continue
        scores = {name: _scored(metric, predictions.of(name), given) for name in (TRUE, "permuted")}
        out[metric.name, TRUE] = scores[TRUE]
        if scores["permuted"].shape == scores[TRUE].shape:
            out[metric.name, GAIN] = scores[TRUE] - scores["permuted"]
    return out


def _scored(metric: Metric, part: Predictions, given: Mapping[str, Any]) -> Array:
    return metric(part.texts, part.references, stimuli=part.stimuli, **given) if len(part) else np.empty(0)


def category_scores(predictions: Predictions, category: Category) -> dict[Key, Array]:
    """Whether texts name a category: hits where it is there, false alarms where it is not; nan in the other items.

    With one output that was trained without the category and one that was trained with it: what zero-shot costs.
    """
    true = predictions.of(TRUE)
    there = category.has(true.stimuli) | category.named_by(["\n".join(texts) for texts in true.references])
    says = category.named_by(true.texts).astype(np.float64)
    return {(HITS, TRUE): np.where(there, says, np.nan), (FALSE_ALARMS, TRUE): np.where(there, np.nan, says)}


def paired(
    first: Mapping[Key, Array], second: Mapping[Key, Array], groups: NDArray[np.str_], sampling: Sampling, n_folds: int = 1
) -> pd.DataFrame:
    """Differences of two outputs, second minus first, under every metric that both have.

    Parameters
    ----------
    first, second : mapping of (metric, condition) to (n,) float
        The same items in the same order; nan is left out.
    groups : (n,) str
        What was sampled.
    sampling : Sampling
    n_folds : int
        Folds that the items were pooled over.

    Returns
    -------
    DataFrame
        Columns `COMPARE_COLUMNS` from ``metric`` on.
    """
    rows = list(_rows(first, second, groups, sampling, n_folds))
    table = pd.DataFrame(rows, columns=list(COMPARE_COLUMNS)[2:-1])
    return table.assign(q_value=false_discovery_q(table["p_value"].to_numpy(float)))


def _rows(
    first: Mapping[Key, Array], second: Mapping[Key, Array], groups: NDArray[np.str_], sampling: Sampling, n_folds: int
) -> Iterator[tuple[Any, ...]]:
    for metric, condition in first:
        if (metric, condition) not in second:
            continue
        a, b = first[metric, condition], second[metric, condition]
        both = np.isfinite(a) & np.isfinite(b)
        if both.any():
            means = (float(a[both].mean()), float(b[both].mean()))
            tested = _tested(b[both] - a[both], groups[both], sampling, n_folds)
            yield metric, condition, direction(metric), *means, *tested


def _tested(differences: Array, units: NDArray[Any], sampling: Sampling, n_folds: int) -> tuple[Any, ...]:
    """Mean, interval, number and p value of paired differences."""
    low, high = bootstrap_interval(differences, units, sampling.bootstrap, sampling.seed) or (np.nan, np.nan)
    p = sign_flip_p(differences, units, sampling.permutations, sampling.seed, "two-sided", n_folds)
    return float(differences.mean()), low, high, differences.size, np.nan if p is None else p


def direction(metric: str) -> str:
    """``higher`` or ``lower``: which values of a metric are better."""
    known = metric in registry.metrics.names()
    return get(metric).direction if known else "lower" if metric in LOWER else "higher"


def over_participants(table: pd.DataFrame, sampling: Sampling) -> pd.DataFrame:
    """The same differences over participants, each of whom is one unit.

    Parameters
    ----------
    table : DataFrame
        Columns `COMPARE_COLUMNS`, of several participants and outputs.
    sampling : Sampling

    Returns
    -------
    DataFrame
        Columns `COMPARE_COLUMNS`, participant ``all``; figures that one participant alone has are left out.
    """
    parts = []
    for output, own in table.groupby("output", sort=False):
        rows = []
        for (metric, condition), part in own.groupby(["metric", "condition"], sort=False):
            if len(part) > 1:
                tested = _tested(part["difference"].to_numpy(float), part["participant"].to_numpy(str), sampling, 1)
                means = part["baseline"].mean(), part["value"].mean()
                rows.append((ALL, output, metric, condition, part["better"].iloc[0], *means, *tested))
        found = pd.DataFrame(rows, columns=list(COMPARE_COLUMNS)[:-1])
        parts.append(found.assign(q_value=false_discovery_q(found["p_value"].to_numpy(float))))
    return pd.concat(parts, ignore_index=True)
