"""Surprise: does the brain help more where the language model expects the text less?

The *surprise* of a text is its negative log-likelihood under the language model and the words before it, without a brain (the
condition ``none``), in nats a token. Two figures are looked at as a function of it.

- ``pairwise``: share of the brains it may be compared with under which the text is less likely than under its own (chance .5).
- ``specificity``: by how many nats a token it is likelier under its own brain than, in the mean, under those (chance 0).

Both compare brains with brains, so neither is bound to surprise by arithmetic. The gain over *no* brain would be: surprise is its
first term, and whatever makes a text unlikely by chance would look like a gain.

Bins hold equally many texts. The slope is that of a straight line through all texts; its interval resamples whole groups, its p
value flips the sign of what whole groups add to it, since texts of a story are not independent.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.evaluation.matrix import Evidence
from bids_brainlm.evaluation.resampling import bootstrap_interval, line
from bids_brainlm.evaluation.table import METRICS_COLUMNS, Predictions, Sampling

Array = NDArray[np.float64]

N_BINS = 5

SLOPE = "surprise_slope_"
"""What names of slopes in the metrics table begin with; the measure follows."""

SURPRISE_COLUMNS = {
    "measure": "pairwise: share of other brains under which the text is less likely; specificity: nats a token by which it is "
    "likelier than under them.",
    "bin": "Number of the bin, from 1: texts in the order of their surprise, equally many a bin.",
    "surprise_low": "Least surprise in the bin: NLL of the text without a brain, nats a token.",
    "surprise_high": "Largest surprise in the bin.",
    "surprise": "Mean surprise in the bin.",
    "value": "Mean of the measure over the texts of the bin.",
    "ci_low": "Lower end of its 95 % interval over groups (bootstrap); n/a below 6 groups or where all are equal.",
    "ci_high": "Upper end of that interval.",
    "n": "Number of texts.",
    "n_groups": "Number of groups they belong to.",
}
"""Columns of the table of surprise, in order."""


def surprise_of(predictions: Predictions) -> Array:
    """(n,) nats a token by which each text surprises the language model, in the order of the true condition."""
    part = predictions.of("none")
    return np.asarray(part.nll / part.table["n_tokens"].clip(lower=1), dtype=np.float64)


def measures(predictions: Predictions, evidence: Evidence) -> dict[str, Array]:
    """Measure -> (n,) values, in the order of the true condition."""
    n_tokens = predictions.of("true").table["n_tokens"].clip(lower=1).to_numpy(float)
    return {"pairwise": evidence.figures["nll_pairwise"].values, "specificity": evidence.specificity / n_tokens}


def bins(
    predictions: Predictions,
    evidence: Evidence,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
) -> pd.DataFrame:
    """Both measures in bins of surprise.

    Returns
    -------
    DataFrame
        Columns of `SURPRISE_COLUMNS`.
    """
    surprise, groups = surprise_of(predictions), predictions.of("true").groups
    parts = [part for part in np.array_split(np.argsort(surprise, kind="stable"), N_BINS) if part.size]
    rows = []
    for measure, values in measures(predictions, evidence).items():
        for number, part in enumerate(parts, 1):
            low, high = bootstrap_interval(values[part], groups[part], sampling.bootstrap, sampling.seed) or (np.nan, np.nan)
            own = surprise[part]
            where = (measure, number, own.min(), own.max(), own.mean())
            rows.append((*where, values[part].mean(), low, high, part.size, np.unique(groups[part]).size))
    return pd.DataFrame(rows, columns=list(SURPRISE_COLUMNS))


def slopes(
    predictions: Predictions,
    evidence: Evidence,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
) -> pd.DataFrame:
    """Slope of each measure on surprise, a nat a token: rows of the metrics table."""
    surprise, groups = surprise_of(predictions), predictions.of("true").groups
    n_folds, rows = predictions.table["fold"].nunique(), []
    for measure, values in measures(predictions, evidence).items():
        found = line(surprise, values, groups, sampling.bootstrap, sampling.permutations, sampling.seed, n_folds)
        low, high = found.interval or (np.nan, np.nan)
        p = np.nan if found.p_value is None else found.p_value
        rows.append((f"{SLOPE}{measure}", "true", found.slope, low, high, found.n, 0.0, p, np.nan))
    return pd.DataFrame(rows, columns=list(METRICS_COLUMNS))
