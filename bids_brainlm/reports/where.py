"""Where in the brain, on the pages of reports: regions alone and left out, and the vertices that a likelihood leans on."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from bids_brainlm.reports.figures import STYLE, new_figure
from bids_brainlm.reports.panels import Panel, drawing, value_map
from bids_brainlm.reports.titles import BLUE, GREY

SHOWN = 12
"""Best regions that the figure has; the table has all."""

FOUND = 0.05
"""False discovery rate up to which a region counts as found."""

TITLES = {"alone": "Alone", "left_out": "Left out"}

CONTRIBUTION = "Contribution of vertices (nats)"
"""Label of the map of gradient x input, with its unit."""


def where_panels(
    table: pd.DataFrame, maps: Mapping[str, ArrayLike], n_left: int | None = None, mask: NDArray[np.bool_] | None = None
) -> tuple[Panel, ...]:
    """Best regions, and maps on the cortex (``n_left`` given) or in the volume (``mask`` given).

    Parameters
    ----------
    table : DataFrame
        Columns `bids_brainlm.evaluation.ablation.WHERE_COLUMNS`, with numbers.
    maps : mapping of str to (V,) float
        Those of `bids_brainlm.stages.where.MAPS`.
    """
    out = [_regions(table)]
    for way, heading in TITLES.items():
        values, q = (np.asarray(maps[name], dtype=np.float64) for name in (way, f"{way}_q"))
        tested = bool(np.isfinite(q).any())
        told = (
            f"Parcels with a false discovery rate of at most {FOUND:g}; others in grey." if tested else "All parcels, not tested."
        )
        shown = np.where(q <= FOUND, values, np.nan) if tested else values
        # A map without a value would show nothing but an empty brain.
        if np.isfinite(shown).any():
            out += value_map(f"where{way.replace('_', '')}", shown, f"{heading}: specificity (nats)", n_left, mask, told)
    about = (
        "Gradient x input of the likelihood of the right texts, mean over them: positive where the response of a vertex made "
        "them likelier, to first order. It shows what this decoder leans on, and is not tested."
    )
    return (*out, *value_map("wherecontribution", maps["contribution"], CONTRIBUTION, n_left, mask, about))


def _regions(table: pd.DataFrame) -> Panel:
    parcels = table[table["kind"] == "parcel"]
    best = {way: parcels[parcels["way"] == way].nlargest(SHOWN, "specificity") for way in TITLES}
    numbers = "; ".join(
        f"{TITLES[way]}: " + ", ".join(f"{row.region} {row.specificity:.2f}" for row in rows.itertuples())
        for way, rows in best.items()
    )
    found = " and ".join(
        f"{int((parcels.loc[parcels['way'] == way, 'q_value'] <= FOUND).sum())} {TITLES[way].lower()}" for way in TITLES
    )
    caption = (
        f"The {len(best['alone'])} best parcels each way. Nats by which right texts are likelier given the parcel's own response "
        "than a permuted one. Alone: everything else is masked (set to its mean). Left out: everything else is as it was. "
        f"Bars: 95 % intervals over groups. Filled: false discovery rate of at most {FOUND:g} ({found}). Effects on "
        "this decoder, which was not trained again."
    )
    return drawing("where", _figure(best), f"Specificity of the best parcels, nats a text. {numbers}.", caption)


def _figure(best: Mapping[str, pd.DataFrame]) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = new_figure(8.0, 0.8 + 0.2 * max(len(rows) for rows in best.values()))
        axes = figure.subplots(1, len(best), squeeze=False)[0]
        for axis, (way, rows) in zip(axes, best.items(), strict=True):
            _points(axis, rows)
            axis.set_title(TITLES[way])
            axis.set_xlabel("Specificity (nats a text)")
    return figure


def _points(axis: Axes, rows: pd.DataFrame) -> None:
    heights = np.arange(len(rows))[::-1]
    axis.hlines(heights, rows["ci_low"], rows["ci_high"], color=BLUE, lw=1.4)
    filled = np.where(rows["q_value"] <= FOUND, BLUE, "white")
    axis.scatter(rows["specificity"], heights, c=filled, edgecolors=BLUE, s=24, zorder=3)
    axis.axvline(0.0, color=GREY, lw=1)
    axis.set_yticks(heights, list(rows["region"]))
    axis.set_ylim(-0.7, len(rows) - 0.3)
