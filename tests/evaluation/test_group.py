"""Gains have the direction of the metric; the group is tested by flips that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.evaluation.group import GROUP_COLUMNS, gains, over_participants
from bids_brainlm.evaluation.table import METRICS_COLUMNS, PRIMARY


def table(**values: float) -> pd.DataFrame:
    """One row a metric, compared with 0.5; the primary test, whose comparison is an NLL; and a row without comparison."""
    rows = [(PRIMARY, "true", values.pop("primary", 1.0), np.nan, np.nan, 30, 40.0, 0.01, np.nan)]
    rows += [("nll", "true", 39.0, np.nan, np.nan, 30, np.nan, np.nan, np.nan)]
    rows += [(name, "true", value, np.nan, np.nan, 30, 0.5, 0.2, np.nan) for name, value in values.items()]
    return pd.DataFrame(rows, columns=list(METRICS_COLUMNS))


def test_gains_point_the_way_in_which_the_metric_is_better() -> None:
    found = gains({"a": table(facts=0.75, wer=0.25, wer_truncated=0.25, readout_pairwise=0.4)}).loc["a"]
    assert found.to_dict() == pytest.approx(
        {(PRIMARY, "true"): 1.0}
        | {(n, "true"): 0.25 for n in ("facts", "wer", "wer_truncated")}
        | {("readout_pairwise", "true"): -0.1}
    )


def test_eight_participants_of_one_mind() -> None:
    """All gains are positive: one flip in 2^8 is as good."""
    found = over_participants({f"p{i}": table(primary=1 + i / 10, facts=0.6 + i / 100) for i in range(8)}, 40000).set_index(
        "metric"
    )
    assert list(found.reset_index().columns) == list(GROUP_COLUMNS)
    assert found["p_value"].to_numpy() == pytest.approx(2**-8, abs=0.001)
    assert found["p_max"].to_numpy() == pytest.approx(2**-8, abs=0.001)  # their signs are flipped together
    assert np.isnan(found.loc[PRIMARY, "q_value"])
    assert found.loc["facts", "q_value"] == found.loc["facts", "p_value"]
    assert found.loc["facts", "ci_low"] > 0


def test_few_participants_and_figures_that_some_lack() -> None:
    few = over_participants({f"p{i}": table(facts=0.6) for i in range(5)})
    assert few[["p_value", "p_max", "ci_low"]].isna().all().all()
    tables = {f"p{i}": table(facts=0.6 + i / 100) if i else table() for i in range(8)}
    found = over_participants(tables).set_index("metric")
    assert found.loc["facts", "n"] == 7
    assert found.loc["facts", "p_value"] < 0.02
    assert np.isnan(found.loc["facts", "p_max"])
    assert found.loc[PRIMARY, "p_max"] == found.loc[PRIMARY, "p_value"]
    assert over_participants({}).empty
