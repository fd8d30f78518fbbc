"""Figures of several participants together: is the brain used in the population they come from?

A participant is one unit. What is tested of each is a *gain*: by how much a figure is better than what it is compared with
(chance, permutations, the permuted brain), in the direction in which the metric is better. Signs of whole participants are
flipped, of all metrics together, so that the maximum over metrics can be taken under the same flips
(`bids_brainlm.evaluation.multiplicity`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm import registry
from bids_brainlm.evaluation.metrics import get
from bids_brainlm.evaluation.multiplicity import false_discovery_q, maximum_p
from bids_brainlm.evaluation.resampling import MIN_UNITS, bootstrap_interval, permutation_p
from bids_brainlm.evaluation.table import PRIMARY

Array = NDArray[np.float64]

GROUP_COLUMNS = {
    "metric": "What was measured.",
    "condition": "Brain the text was decoded from, or what else named the facts.",
    "gain": "Mean over participants of how much better the figure is than what it is compared with.",
    "ci_low": "Lower end of the 95 % interval over participants (bootstrap); n/a below 6 participants or where all are equal.",
    "ci_high": "Upper end of that interval.",
    "n": "Number of participants that have the figure.",
    "p_value": "One-sided p value by flipping the signs of participants; n/a below 6.",
    "p_max": "The same against the largest of all rows (maximum statistic), corrected for their number; n/a for figures that "
    "some participants lack.",
    "q_value": "False discovery rate (Benjamini-Hochberg) over the p values but that of the primary test, which is declared.",
}
"""Columns of the table of figures over participants, in order."""


def gains(summaries: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """(participants, figures) gain of every figure that is compared with something; nan where a participant lacks it.

    Parameters
    ----------
    summaries : mapping of participant to DataFrame
        Columns `bids_brainlm.evaluation.table.METRICS_COLUMNS`.
    """
    lower = {name for name in registry.metrics.names() if get(name).direction == "lower"}
    rows = {}
    for participant, table in summaries.items():
        compared = table[table["null_mean"].notna()]
        sign = np.where(compared["metric"].str.removesuffix("_truncated").isin(lower), -1.0, 1.0)
        # The primary figure is a difference as it stands; its comparison is an NLL.
        chance = compared["null_mean"].where(compared["metric"] != PRIMARY, 0.0)
        values = sign * (compared["value"] - chance)
        rows[participant] = dict(zip(zip(compared["metric"], compared["condition"], strict=True), values, strict=True))
    return pd.DataFrame.from_dict(rows, orient="index")


def over_participants(
    summaries: Mapping[str, pd.DataFrame], n_flips: int = 10000, seed: int = 0, n_samples: int = 2000
) -> pd.DataFrame:
    """Every gain, over participants.

    Parameters
    ----------
    summaries : mapping of participant to DataFrame
    n_flips, n_samples : int
        Random signs, and bootstrap samples.

    Returns
    -------
    DataFrame
        Columns `GROUP_COLUMNS`, in the order of the first participant's table.
    """
    table = gains(summaries)
    values = table.to_numpy(np.float64)
    known = np.isfinite(values)
    p, p_max = _tested(np.where(known, values, 0.0), known, n_flips, seed)
    secondary = np.where([metric == PRIMARY for metric, _ in table.columns], np.nan, p)
    rows = []
    for k, (metric, condition) in enumerate(table.columns):
        own = values[known[:, k], k]
        low, high = bootstrap_interval(own, np.arange(own.size), n_samples, seed) or (np.nan, np.nan)
        rows.append((metric, condition, own.mean() if own.size else np.nan, low, high, own.size, p[k], p_max[k]))
    out = pd.DataFrame(rows, columns=list(GROUP_COLUMNS)[:-1])
    return out.assign(q_value=false_discovery_q(secondary))


def _tested(values: Array, known: NDArray[np.bool_], n_flips: int, seed: int) -> tuple[Array, Array]:
    """(t,) p value of each column alone, and against the largest of all of them."""
    p, p_max = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    flips = np.random.default_rng(seed).choice([-1.0, 1.0], size=(n_flips, len(values)))
    # Sums in another order differ in their last bits; equal ones must count as equally extreme.
    null, observed = np.round(flips @ values, 12), np.round(values.sum(axis=0), 12)
    for k in np.flatnonzero(known.sum(axis=0) >= MIN_UNITS):
        p[k] = permutation_p(float(observed[k]), null[:, k])
    whole = np.flatnonzero(known.all(axis=0))
    if len(values) >= MIN_UNITS and whole.size:
        p_max[whole] = maximum_p(observed[whole], null[:, whole])
    return p, p_max
