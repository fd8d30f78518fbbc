"""Simple decoders that say a text that exists: what a language model is to be better than.

- ``nearest_text``: ridge regression from the response to the embedding of its text; it says the *candidate* whose embedding is
  the most like the prediction (cosine, relative to the mean of the training texts). Candidates are the distinct training texts,
  or a corpus.
- ``nearest_response``: it says the text of the training example whose response is the most like the test response (cosine of
  z-scored patterns).

Their texts are scored by the metrics of the decoder's, and compared with these text by text. Neither can say what nobody has
written; a decoder that is no better has learned to choose and not to speak. A readout of the facts is no decoder: a template that
names the labels of ``ridge`` would name exactly these, so its facts are the rows of the readout, and its words those of the
template.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bids_brainlm.evaluation.linear import predict
from bids_brainlm.evaluation.metrics import Facts, Metric
from bids_brainlm.evaluation.resampling import bootstrap_interval, sign_flip_p
from bids_brainlm.evaluation.resources import lacking
from bids_brainlm.evaluation.table import METRICS_COLUMNS, Predictions, Sampling

Array = NDArray[np.float64]
Products = tuple[Array, Array]

NEAREST_TEXT, NEAREST_RESPONSE = "nearest_text", "nearest_response"
BASELINES = (NEAREST_TEXT, NEAREST_RESPONSE)
MINUS = "true_minus_"
"""Condition of the rows that compare the decoder with a baseline."""


def nearest_text(
    products: Products, targets: ArrayLike, groups: ArrayLike, candidates: Sequence[str], embedded: ArrayLike
) -> list[str]:
    """Text of the candidate whose embedding is the most like the one predicted from each test response.

    Parameters
    ----------
    products : ((n, n), (m, n)) float64
        What `bids_brainlm.evaluation.readout.kernels` returns.
    targets : (n, D) float
        Embeddings of the training texts.
    groups : (n,)
        Training examples that stay together when the penalty is chosen.
    candidates : sequence (c) of str
    embedded : (c, D) float
        Their embeddings.
    """
    known = np.asarray(targets, dtype=np.float64)
    vectors = np.asarray(embedded, dtype=np.float64) - known.mean(axis=0)
    length = np.linalg.norm(vectors, axis=1)
    vectors = np.divide(vectors, length[:, None], out=np.zeros_like(vectors), where=length[:, None] > 0)
    # The length of a prediction is the same for all candidates.
    return [candidates[i] for i in (predict(products, known, groups) @ vectors.T).argmax(axis=1)]


def nearest_response(products: Products, texts: Sequence[str]) -> list[str]:
    """Text of the training example whose response is the most like each test response.

    Parameters
    ----------
    products : ((n, n), (m, n)) float64
        What `bids_brainlm.evaluation.readout.kernels` returns.
    texts : sequence (n) of str
        Of the training examples.
    """
    kernel, cross = products
    length = np.sqrt(np.diagonal(kernel))
    likeness = np.divide(cross, length, out=np.zeros_like(cross), where=length > 0)
    return [texts[i] for i in likeness.argmax(axis=1)]


def baseline_rows(
    true: Predictions,
    said: Mapping[str, Sequence[str]],
    metrics: Sequence[Metric],
    context: Mapping[str, Any],
    facts: Facts | None,
    sampling: Sampling,
) -> pd.DataFrame:
    """Metrics of the texts of baselines, and of the decoder's minus theirs: rows of the metrics table.

    Parameters
    ----------
    true : Predictions
        Of the true condition.
    said : mapping of baseline to sequence (n) of str
        In the same order.
    metrics : sequence of Metric
        Those that need what is not given are left out.
    context : mapping
        What metrics need, but the facts.
    facts : Facts, optional
    sampling : Sampling

    Returns
    -------
    DataFrame
        Columns `METRICS_COLUMNS`. Rows ``true_minus_<baseline>`` have the mean difference; their p value, one-sided, is small
        when the decoder is the better one, in the direction of the metric.
    """
    given = {**context, **({} if facts is None else {"facts": facts})}
    rows: list[tuple[Any, ...]] = []
    for metric in metrics:
        if lacking([name for name in metric.context if name not in ("facts", "stimuli")], given):
            continue
        if "facts" in metric.context and facts is None:
            continue
        own = metric(true.texts, true.references, stimuli=true.stimuli, **given)
        for name, texts in said.items():
            scores = metric(list(texts), true.references, stimuli=true.stimuli, **given)
            rows += compared_rows(metric, name, own, scores, true, sampling)
    return pd.DataFrame(rows, columns=list(METRICS_COLUMNS))


def compared_rows(
    metric: Metric, name: str, own: Array, scores: Array, true: Predictions, sampling: Sampling
) -> Iterator[tuple[Any, ...]]:
    """Two rows of `METRICS_COLUMNS`: the scores (n,) of a baseline, and those of the decoder minus them."""
    better = (own - scores) * (1 if metric.direction == "higher" else -1)
    p = sign_flip_p(better, true.groups, sampling.permutations, sampling.seed, n_folds=true.table["fold"].nunique())
    for condition, values, rest in (
        (name, scores, (np.nan, np.nan)),
        (MINUS + name, own - scores, (0.0, np.nan if p is None else p)),
    ):
        known = values[np.isfinite(values)]
        low, high = bootstrap_interval(values, true.groups, sampling.bootstrap, sampling.seed) or (np.nan, np.nan)
        yield metric.name, condition, float(known.mean()) if known.size else np.nan, low, high, known.size, *rest, np.nan
