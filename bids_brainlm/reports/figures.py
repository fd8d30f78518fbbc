"""Charts of the reports: arrays and tables in, matplotlib figures out, encoded as SVG or PNG.

Figures are made with the object interface (no pyplot, no global state). Colours are those of Okabe and Ito, which people with
any common form of colour blindness can tell apart; every series has a marker or line style of its own as well
(`bids_brainlm.reports.titles`).

>>> as_svg(histogram(np.array([0.1, 0.2, 0.2, np.nan]), "split-half r"))[:5]
'<?xml'
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from bids_brainlm.reports.titles import BLACK, BLUE, ELSEWHERE, GREY, OPEN_ENDED, SERIES, WITH_CHANCE, title

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelcolor": "#333",
    "axes.edgecolor": "#888",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": "#e9e9e9",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": "#666",
    "ytick.color": "#666",
    "xtick.labelcolor": "#333",
    "ytick.labelcolor": "#333",
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "bids_brainlm",
}

BY_SURPRISE = {"pairwise": ("Pairwise accuracy", 0.5), "specificity": ("Specificity (nats a token)", 0.0)}
"""Measure -> label of its axis, and chance."""


def new_figure(width: float, height: float) -> Figure:
    """Empty figure of that size in inches, drawn by Agg."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def as_svg(figure: Figure) -> str:
    """SVG text; the same figure gives the same text."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        _lay_out(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, dpi=150)
    return buffer.getvalue()


def as_png(figure: Figure, dpi: int = 110) -> bytes:
    """PNG file content; smaller than SVG for what is made of many pixels (brain maps)."""
    buffer = io.BytesIO()
    _lay_out(figure)
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    small = io.BytesIO()
    # A map has few colours: a palette of 256 makes a third of the size.
    Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def _lay_out(figure: Figure) -> None:
    """Fix the places of the axes to a ten-thousandth of the figure.

    The solver of the layout meets its constraints in the order of addresses in memory, so that the last digits, and the names
    that are made of them, would differ from one process to the next.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position().bounds, 4).tolist())


def training_curves(history: pd.DataFrame) -> Figure:
    """Training and validation loss by epoch, one panel a phase.

    Parameters
    ----------
    history : DataFrame
        Columns phase, epoch, train_loss, validation_loss (nats a token; nan without validation) and, with several folds, fold.
        Folds are drawn thin, their mean thick; a ring marks the epoch with the best mean validation loss.
    """
    phases = list(dict.fromkeys(history["phase"]))
    with matplotlib.rc_context(STYLE):
        figure = new_figure(max(4.6, 3.6 * len(phases)), 2.9)
        axes = figure.subplots(1, max(1, len(phases)), squeeze=False, sharey=True)[0]
        for axis, phase in zip(axes, phases, strict=False):
            _curves_of_phase(axis, history[history["phase"] == phase])
            axis.set_title(f"Phase: {phase}")
            axis.set_xlabel("Epoch")
        axes[0].set_ylabel("Loss (nats a token)")
        axes[-1].legend(loc="upper right")
    return figure


def _curves_of_phase(axis: Axes, rows: pd.DataFrame) -> None:
    rows = rows.assign(epoch=rows["epoch"] + 1, fold=rows.get("fold", 0))
    for column, label, colour, style in (
        ("train_loss", "training", GREY, "--"),
        ("validation_loss", "validation", BLUE, "-"),
    ):
        known = rows.dropna(subset=[column])
        if known.empty:
            continue
        if known["fold"].nunique() > 1:
            for _, fold in known.groupby("fold"):
                axis.plot(fold["epoch"], fold[column], style, color=colour, lw=0.7, alpha=0.35)
        mean = known.groupby("epoch")[column].mean()
        axis.plot(mean.index, mean, style, color=colour, lw=1.8, label=label, marker="." if len(mean) < 3 else "")
        if column == "validation_loss":
            axis.plot(mean.idxmin(), mean.min(), "o", mfc="white", mec=colour, mew=1.6, ms=7)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def histogram(values: ArrayLike, label: str, bins: int = 60) -> Figure:
    """How values are spread over vertices, with the median.

    Parameters
    ----------
    values : (V,) float
        Nan is left out.
    label : str
        Of the horizontal axis, with the unit.
    """
    numbers = np.asarray(values, dtype=np.float64)
    known = numbers[np.isfinite(numbers)]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(4.6, 2.9)
        axis = figure.subplots()
        axis.grid(axis="x", visible=False)
        if known.size:
            axis.hist(known, bins=bins, color=BLUE, alpha=0.85)
            axis.axvline(float(np.median(known)), color=BLACK, lw=1.2)
            axis.axvline(0, color=GREY, lw=0.8, ls=":")
        middle = f"median {np.median(known):.2f}, 95th percentile {np.quantile(known, 0.95):.2f}" if known.size else "no values"
        axis.set_title(middle)
        axis.set_xlabel(label)
        axis.set_ylabel(f"Number of {known.size:,}")
    return figure


def metrics_figure(summary: pd.DataFrame) -> Figure:
    """Every metric of one participant: true brain against controls and readouts, with 95 % intervals.

    Parameters
    ----------
    summary : DataFrame
        Columns of `bids_brainlm.evaluation.table.METRICS_COLUMNS`. A tick marks the mean of permutations of facts (chance).
    """
    # A difference from a baseline is on another scale than what it is a difference of.
    summary = summary[~summary["condition"].str.startswith("true_minus_")]
    shown = [m for m in dict.fromkeys(summary["metric"]) if m not in ELSEWHERE]
    shared = sorted((m for m in shown if m not in OPEN_ENDED), key=lambda m: not m.startswith("facts"))
    panels = [shared] * bool(shared) + [[m] for m in shown if m in OPEN_ENDED]
    with matplotlib.rc_context(STYLE):
        heights = [max(1, len(panel)) + 0.7 for panel in panels] or [1.0]
        figure = new_figure(8.2, 0.5 * sum(heights) + 0.8)
        axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axis, panel in zip(axes, panels, strict=False):
            _points(axis, summary, panel)
            axis.set_yticks(range(len(panel)), [title(m) for m in panel])
            axis.set_ylim(len(panel) - 0.4, -0.6)
            axis.set_xlabel(
                "share or score, 0 to 1: higher is better" if panel is shared else OPEN_ENDED[panel[0]], color="#666", fontsize=8
            )
        if panels and panels[0] is shared:
            top = float(np.nanmax([*summary[summary["metric"].isin(shared)][["value", "ci_high"]].max(), 0.05]))
            axes[0].set_xlim(-0.02, min(1.02, max(top * 1.08, 0.1)))
        _legend(figure, axes, "outside upper left")
    return figure


def _legend(figure: Figure, axes: Iterable[Axes], place: Any) -> None:
    handles: dict[str, Any] = {}
    for axis in axes:
        found, labels = axis.get_legend_handles_labels()
        handles = dict(zip(labels, found, strict=True)) | handles
    figure.legend(
        handles.values(),
        handles.keys(),
        loc=place,
        ncols=max(1, len(handles)),
        handletextpad=0.2,
        columnspacing=1.2,
        fontsize=8.5,
    )


def _points(axis: Axes, summary: pd.DataFrame, metrics: Sequence[str]) -> None:
    axis.grid(axis="y", visible=False)
    for i, metric in enumerate(metrics):
        rows = summary[summary["metric"] == metric]
        _spread(axis, rows, i, 0.28)
        chance = rows[rows["condition"] == "true"]["null_mean"]
        if metric.startswith("readout"):
            chance = rows["null_mean"]
        if metric.startswith(WITH_CHANCE) and chance.notna().any():
            axis.plot([chance.iloc[0]] * 2, [i - 0.4, i + 0.4], color=BLACK, lw=1.2, ls=":", label="chance")


def _spread(axis: Axes, rows: pd.DataFrame, height: float, half: float) -> None:
    """The conditions of one metric, one above the other around a height."""
    series = [name for name in dict.fromkeys([*SERIES, *rows["condition"]]) if (rows["condition"] == name).any()]
    offsets = np.linspace(-half, half, len(series)) if len(series) > 1 else [0.0] * len(series)
    for offset, name in zip(offsets, series, strict=True):
        _point(axis, rows[rows["condition"] == name], height + float(offset), name)


def _point(axis: Axes, rows: pd.DataFrame, height: float, name: str) -> None:
    label, colour, marker = SERIES.get(name, (name, BLACK, "X"))
    for row in rows.itertuples():
        if pd.notna(row.ci_low):
            axis.plot([row.ci_low, row.ci_high], [height, height], color=colour, lw=1.6, alpha=0.75, solid_capstyle="round")
        axis.plot(row.value, height, marker, color=colour, ms=8 if marker == "*" else 5.5, ls="none", label=label)


def surprise_figure(table: pd.DataFrame) -> Figure:
    """How well brains are told apart, by how much a text surprises the language model.

    Parameters
    ----------
    table : DataFrame
        Columns of `bids_brainlm.evaluation.surprise.SURPRISE_COLUMNS`. Dotted: chance.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.6, 3.0)
        axes = figure.subplots(1, len(BY_SURPRISE), squeeze=False)[0]
        for axis, (measure, (label, chance)) in zip(axes, BY_SURPRISE.items(), strict=True):
            rows = table[table["measure"] == measure]
            axis.axhline(chance, color=BLACK, lw=1, ls=":")
            axis.plot(rows["surprise"], rows["value"], "-", color=BLUE, lw=1, alpha=0.5)
            for row in rows.itertuples():
                if pd.notna(row.ci_low):
                    axis.plot([row.surprise] * 2, [row.ci_low, row.ci_high], color=BLUE, lw=1.6, alpha=0.75)
                axis.plot(row.surprise, row.value, "o", color=BLUE, ms=5.5)
            axis.set_xlabel("Surprise (nats a token)")
            axis.set_ylabel(label)
    return figure


@dataclass(frozen=True, eq=False)
class Course:
    """Scores of a decoder over the long windows of a story.

    Parameters
    ----------
    scores : (n,) float64
    low, high : (n,) float64
        Range of the shifts; nan where there is none.
    alone : (n,) float64
        Mean of texts by the language model alone.
    """

    scores: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    alone: NDArray[np.float64]


def story_figure(seconds: NDArray[np.float64], courses: Mapping[str, Course], label: str) -> Figure:
    """A metric over the time of a story, one panel a decoder.

    Parameters
    ----------
    seconds : (n,) float64
        Middle of each window, from the start of the story.
    courses : mapping of decoder to Course
    label : str
        Of the metric.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(8.2, 2.9)
        axes = figure.subplots(1, max(1, len(courses)), squeeze=False, sharey=True)[0]
        for axis, (name, course) in zip(axes, courses.items(), strict=False):
            axis.fill_between(seconds, course.low, course.high, color=GREY, alpha=0.3, lw=0, label="shifts")
            axis.plot(seconds, course.alone, ":", color=BLACK, lw=1.2, label="null texts")
            axis.plot(seconds, course.scores, "-o", color=BLUE, lw=1.4, ms=4, label="decoder")
            axis.set_title(name)
            axis.set_xlabel("Time in the story (s)")
        axes[0].set_ylabel(label)
        _legend(figure, axes, "outside lower left")
    return figure


def group_figure(summaries: Mapping[str, pd.DataFrame], metrics: Sequence[str]) -> Figure:
    """One panel a metric, one line a participant.

    Parameters
    ----------
    summaries : mapping of participant label to summary
    metrics : sequence of str
        Those shown, where any participant has them.
    """
    present = {metric for table in summaries.values() for metric in table["metric"]}
    panels = [metric for metric in metrics if metric in present]
    names = list(summaries)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(max(4.0, 2.9 * len(panels)), 0.3 * len(names) + 1.5)
        axes = figure.subplots(1, max(1, len(panels)), squeeze=False, sharey=True)[0]
        for axis, metric in zip(axes, panels, strict=False):
            _participants(axis, summaries, metric)
            axis.set_title(title(metric))
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        _legend(figure, axes, "outside lower left")
    return figure


def _participants(axis: Axes, summaries: Mapping[str, pd.DataFrame], metric: str) -> None:
    axis.grid(axis="y", visible=False)
    for i, table in enumerate(summaries.values()):
        _spread(axis, table[table["metric"] == metric], i, 0.2)
    if metric == "nll_permuted_minus_true":
        axis.axvline(0, color=BLACK, lw=1, ls=":")
