"""The figure of a sweep: a metric against the setting that was swept, one line a participant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bids_brainlm.io.files import write_text
from bids_brainlm.reports.figures import STYLE, as_svg, new_figure
from bids_brainlm.reports.titles import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, title

_COLOURS, _MARKERS = (BLUE, ORANGE, GREEN, PURPLE, BLACK, GREY), "os^vD*"


def write_figure(path: Path, table: pd.DataFrame, swept: Sequence[str], metric: str) -> Path | None:
    """Draw one metric of a sweep; None where no participant has it under the true brain.

    Parameters
    ----------
    path : Path
        SVG file.
    table : DataFrame
        Columns `bids_brainlm.stages.sweep.SWEEP_COLUMNS` and the settings that are swept, with numbers.
    swept : sequence of str
        The first is the horizontal axis; there is one panel for each combination of the others.
    metric : str
    """
    rows = table[(table["metric"] == metric) & (table["condition"] == "true")]
    return None if rows.empty else write_text(path, as_svg(figure(rows, swept, metric)))


def figure(rows: pd.DataFrame, swept: Sequence[str], metric: str) -> Figure:
    """One panel a combination of all settings but the first, one line a participant, with 95 % intervals where there are any."""
    across, others = swept[0], list(swept[1:])
    panels = list(rows.groupby(others, sort=False)) if others else [((), rows)]
    people = sorted(rows["participant"].unique())
    ticks = list(dict.fromkeys(rows[across]))
    with matplotlib.rc_context(STYLE):
        drawn = new_figure(max(4.0, 3.2 * len(panels)), 3.2)
        axes = drawn.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axis, (values, own) in zip(axes, panels, strict=True):
            for i, who in enumerate(people):
                _line(axis, own[own["participant"] == who], across, ticks, i, len(people))
            axis.set_xticks(range(len(ticks)), [tick.rpartition("/")[2] for tick in ticks], rotation=20, ha="right")
            axis.set_xlabel(across)
            axis.set_title(", ".join(f"{name} {value}" for name, value in zip(others, values, strict=True)))
        axes[0].set_ylabel(title(metric))
        drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    return drawn


def _line(axis: Axes, rows: pd.DataFrame, across: str, ticks: Sequence[str], number: int, n_people: int) -> None:
    # Participants stand side by side, so that intervals do not hide each other.
    place = np.array([ticks.index(value) for value in rows[across]]) + 0.3 * ((number + 0.5) / n_people - 0.5)
    value = rows["value"].to_numpy(float)
    below, above = value - rows["ci_low"].to_numpy(float), rows["ci_high"].to_numpy(float) - value
    known = np.isfinite(below) & np.isfinite(above)
    colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
    who = rows["participant"].iloc[0] if len(rows) else ""
    axis.plot(place, value, color=colour, marker=marker, lw=1.2, ms=4, label=who)
    spread = np.stack([below[known], above[known]]).clip(min=0)
    axis.errorbar(place[known], value[known], yerr=spread, fmt="none", ecolor=colour, elinewidth=0.9)
