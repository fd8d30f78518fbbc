"""Figures of evidence: a curve through its values, and each condition at its rate."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bids_brainlm.evaluation.evidence import coverage
from bids_brainlm.evaluation.table import METRICS_COLUMNS
from bids_brainlm.evaluation.zero_shot import D_PRIME, FALSE_ALARMS, HITS
from bids_brainlm.reports import abstain
from bids_brainlm.reports.figures import metrics_figure


def test_the_curve_of_a_metric_goes_through_its_values() -> None:
    confidence = np.arange(20.0)
    table = coverage(confidence, {"wer": 1 - confidence / 20, "facts": confidence / 20})
    figure = abstain._coverage(table, ["facts", "wer"])
    for axis, metric in zip(figure.axes, ("facts", "wer"), strict=True):
        curve, every = axis.lines[0].get_xydata(), axis.lines[1].get_ydata()
        own = table[table["metric"] == metric].set_index("coverage")["value"]
        assert np.allclose(curve, own.sort_index().reset_index())
        assert every[0] == own[1.0]
    panel = abstain.coverage_panel(table)
    assert "Word error rate: 0.53 of all, 0.08 of a tenth" in panel.alt


def zero_shot() -> pd.DataFrame:
    rates = {HITS: (0.6, 0.3, 0.1), FALSE_ALARMS: (0.2, 0.25, 0.1), D_PRIME: (1.1, 0.1, 0.0)}
    rows = [
        (metric, condition, value, value - 0.05, value + 0.05, 20, np.nan, np.nan, np.nan)
        for metric, values in rates.items()
        for condition, value in zip(("true", "permuted", "none"), values, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(METRICS_COLUMNS))


def test_hits_and_false_alarms_have_a_figure_of_their_own() -> None:
    panel = abstain.zero_shot_panel(zero_shot())
    assert panel is not None
    assert "named where they are: true brain 0.60, permuted brain 0.30, no brain 0.10" in panel.alt
    rates, sensitivity = abstain._zero_shot(zero_shot()).axes
    points = {round(float(line.get_ydata()[0]), 6) for line in rates.lines if len(line.get_ydata()) == 1}
    assert points == {0.6, 0.3, 0.1, 0.2, 0.25}
    assert {float(line.get_ydata()[0]) for line in sensitivity.lines if len(line.get_ydata()) == 1} == {1.1, 0.1, 0.0}
    # A share of false alarms is not better when higher: it stays out of the figure that says so.
    assert not any(len(axis.lines) for axis in metrics_figure(zero_shot()).axes)
    assert abstain.zero_shot_panel(zero_shot().head(0)) is None
