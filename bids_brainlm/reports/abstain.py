"""Figures of the evidence for texts: how good the most confident ones are, and categories that no training example was of."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from bids_brainlm.evaluation.zero_shot import D_PRIME, FALSE_ALARMS, HITS
from bids_brainlm.reports.figures import STYLE, new_figure
from bids_brainlm.reports.panels import Panel, drawing
from bids_brainlm.reports.titles import BLACK, BLUE, SERIES, title

FIRST = ("facts", "embedding_similarity", "rouge_l", "meteor", "bleu1", "wer")
"""Metrics that a risk-coverage figure takes before others."""

N_PANELS = 4

ZERO_SHOT_TICKS = {HITS: "hits", FALSE_ALARMS: "false\nalarms"}


def coverage_panel(table: pd.DataFrame) -> Panel:
    """What is gained by keeping only the most confident texts.

    Parameters
    ----------
    table : DataFrame
        Columns of `bids_brainlm.evaluation.evidence.COVERAGE_COLUMNS`, with numbers.
    """
    present = list(dict.fromkeys(table["metric"]))
    shown = [m for m in FIRST if m in present] + [m for m in present if m not in FIRST]
    shown = shown[:N_PANELS]
    ends = "; ".join(f"{title(m)}: {_at(table, m, 1.0):.2f} of all, {_at(table, m, 0.1):.2f} of a tenth" for m in shown)
    caption = (
        "Risk and coverage. Texts are kept in the order of the decoder's own confidence, which needs no right text: by how many "
        "nats what it said is likelier under its own brain than under others. From right to left fewer texts are kept. A curve "
        "that gets better to the left says that confident texts may be trusted more, and others abstained from. Dotted: all."
    )
    return drawing("coverage", _coverage(table, shown), f"Metrics by share of texts kept. {ends}.", caption)


def _at(table: pd.DataFrame, metric: str, share: float) -> float:
    rows = table[table["metric"] == metric]
    return float(rows.loc[(rows["coverage"] - share).abs().idxmin(), "value"])


def _coverage(table: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = new_figure(max(3.2, 2.3 * len(metrics)), 2.5)
        axes = figure.subplots(1, max(1, len(metrics)), squeeze=False)[0]
        for axis, metric in zip(axes, metrics, strict=False):
            rows = table[table["metric"] == metric].sort_values("coverage")
            axis.plot(rows["coverage"], rows["value"], "-o", color=BLUE, ms=4, lw=1.4)
            axis.axhline(_at(table, metric, 1.0), color=BLACK, lw=1, ls=":")
            axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axis.set_title(title(metric))
            axis.set_xlabel("Texts kept")
            axis.margins(y=0.25)
    return figure


def zero_shot_panel(summary: pd.DataFrame) -> Panel | None:
    """Hits and false alarms of left-out categories, and d'; None where no category was left out."""
    rows = summary[summary["metric"].isin((HITS, FALSE_ALARMS, D_PRIME)) & summary["condition"].isin(SERIES)]
    if rows.empty:
        return None
    numbers = "; ".join(
        f"{title(str(metric))}: " + ", ".join(f"{SERIES[row.condition][0]} {row.value:.2f}" for row in part.itertuples())
        for metric, part in rows.groupby("metric", sort=False)
    )
    caption = (
        "Categories that no training example was of. Left: share of texts that name one where it is there (hits) and where it is "
        "not (false alarms); a decoder that only likes the word has as many of either. Right: d', 0 by chance. Bars: 95 % "
        "intervals."
    )
    return drawing("zeroshot", _zero_shot(rows), f"Zero-shot. {numbers}.", caption)


def _zero_shot(rows: pd.DataFrame) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = new_figure(6.4, 2.8)
        rates, sensitivity = figure.subplots(1, 2, width_ratios=[2, 1])
        for place, metric in enumerate(ZERO_SHOT_TICKS):
            _conditions(rates, rows[rows["metric"] == metric], place)
        rates.set_xticks(range(len(ZERO_SHOT_TICKS)), list(ZERO_SHOT_TICKS.values()))
        rates.set_ylabel("Share of texts")
        rates.set_ylim(-0.03, 1.03)
        _conditions(sensitivity, rows[rows["metric"] == D_PRIME], 0)
        sensitivity.axhline(0, color=BLACK, lw=1, ls=":")
        sensitivity.set_xticks([0], ["d'"])
        for axis in (rates, sensitivity):
            axis.grid(axis="x", visible=False)
            axis.margins(x=0.3)
        figure.legend(*rates.get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=8.5)
    return figure


def _conditions(axis: Axes, rows: pd.DataFrame, place: int) -> None:
    """The conditions of one figure, side by side."""
    for offset, (name, (label, colour, marker)) in enumerate(SERIES.items()):
        for row in rows[rows["condition"] == name].itertuples():
            x = place + 0.18 * (offset - 1)
            if pd.notna(row.ci_low):
                axis.plot([x, x], [row.ci_low, row.ci_high], color=colour, lw=1.6, alpha=0.75)
            axis.plot(x, row.value, marker, color=colour, ms=6, label=label if place == 0 else None)
