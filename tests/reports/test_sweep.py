"""The figure of a sweep shows every value at its place."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bids_brainlm.reports.sweep import figure


def test_one_line_a_participant_and_one_panel_a_combination() -> None:
    rows = pd.DataFrame(
        [
            (a, b, who, v, v - 0.5, v + 1)
            for v, (a, b, who) in enumerate((a, b, w) for a in "xy" for b in "12" for w in ("s1", "s2"))
        ],
        columns=["atlas", "amount", "participant", "value", "ci_low", "ci_high"],
    )
    rows.loc[rows["participant"] == "s2", ["ci_low", "ci_high"]] = np.nan
    axes = figure(rows, ["atlas", "amount"], "bleu1").axes
    assert [axis.get_title(loc="left") for axis in axes] == ["amount 1", "amount 2"]
    for axis, own in zip(axes, ("1", "2"), strict=True):
        lines = {line.get_label(): line for line in axis.lines}
        for who in ("s1", "s2"):
            part = rows[(rows["amount"] == own) & (rows["participant"] == who)]
            assert np.asarray(lines[who].get_ydata()).tolist() == part["value"].tolist()
            assert np.round(np.asarray(lines[who].get_xdata())).tolist() == [0, 1]
        segments = [segment for bars in axis.collections for segment in bars.get_segments()]
        assert sorted(segment[:, 1].tolist() for segment in segments) == sorted(
            [v - 0.5, v + 1.0] for v in rows[(rows["amount"] == own) & (rows["participant"] == "s1")]["value"]
        )
