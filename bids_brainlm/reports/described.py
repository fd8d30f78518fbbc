"""The page of parcels in words: the names, what driving each parcel does to each word, and where names and fits are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.evaluation.statistics import ALPHA
from bids_brainlm.insilico.describe import Description
from bids_brainlm.insilico.described import SHOWN, verdict
from bids_brainlm.io.files import write_text
from bids_brainlm.io.surfaces import Geometry
from bids_brainlm.reports import brains
from bids_brainlm.reports.figures import STYLE, new_figure
from bids_brainlm.reports.page import environment
from bids_brainlm.reports.panels import Panel, drawing, place_of, value_map

MOST_PARCELS, MOST_WORDS = 60, 40
"""Rows and columns of the figure of words: parcels with the best fit, words that stand out most."""

MAPS = {
    "fit_r": ("r", "How well texts predict held-out responses of each parcel; those with a name stand in the table."),
    "difference": ("nats", "What driving each parcel by its pattern does to the word that names it, in parcels with a name."),
}
"""Map that is shown -> unit, caption."""


def write_page(found: Description, folder: Path, label: str, geometry: Geometry) -> Path:
    """Write the page beside the reports of the participant: ``sub-01_parcels.html``."""
    return write_text(folder / f"sub-{label}_parcels.html", page(found, label, geometry))


def page(found: Description, label: str, geometry: Geometry) -> str:
    """One self-contained HTML file."""
    maps = [_map(name, found, geometry) for name in MAPS]
    rows = found.table.loc[found.named, list(SHOWN)].sort_values("fit_q", kind="stable")
    note = f"Parcels whose held-out responses are predicted by texts (fit_q <= {ALPHA:g}); the file of the table has all of them."
    return (
        environment()
        .get_template("stimulation.html.j2")
        .render(
            title=f"sub-{label}: parcels in words",
            verdict=verdict(found),
            found=bool(found.named.any()),
            groups=[
                ("Words", (_words(found),) if found.named.any() else ()),
                ("On the cortex", [panel for panel in maps if panel is not None]),
            ],
            tables=[("Names", note, SHOWN, [list(map(_cell, row)) for row in rows.itertuples(index=False)])],
        )
    )


def _words(found: Description) -> Panel:
    """Standing of words in parcels with a name; the name of each is marked."""
    chosen = np.flatnonzero(found.named)
    chosen = chosen[np.argsort(-found.table["fit_r"].to_numpy()[chosen], kind="stable")][:MOST_PARCELS]
    best = found.driven[chosen].argmax(axis=1)
    columns = np.sort(np.argsort(-found.driven[chosen].max(axis=0), kind="stable")[:MOST_WORDS])
    values, place = found.driven[np.ix_(chosen, columns)], {int(word): i for i, word in enumerate(columns)}
    limit = float(np.abs(values).max()) or 1.0
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = new_figure(max(4.0, 0.3 * columns.size + 2.6), max(2.0, 0.22 * chosen.size + 1.2))
        axis = figure.subplots()
        image = axis.imshow(values, cmap=brains.DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
        axis.set_xticks(range(columns.size), [found.vocabulary.words[i] for i in columns], rotation=60, ha="right")
        axis.set_yticks(range(chosen.size), list(found.table["parcel"].iloc[chosen]))
        marked = [(place[int(word)], row) for row, word in enumerate(best) if int(word) in place]
        axis.plot(*np.array(marked).T, ".", color="black", ms=3)
        figure.colorbar(image, ax=axis, label="standing (SD over reference parcels)")
    caption = "How far words stand out when a parcel is driven by its pattern, parcels with the best fit first. Dots: the names."
    return drawing("words", figure, f"Standing of {columns.size} words in {chosen.size} parcels.", caption)


def _map(name: str, found: Description, geometry: Geometry) -> Panel | None:
    """A column of the table on the cortex or in slices; None where nobody knows where the vertices are, or none has a value."""
    values: NDArray[np.float64] = found.maps()[name].astype(np.float64)
    unit, caption = MAPS[name]
    if name == "difference":
        values = np.where(np.concatenate([[False], found.named])[found.atlas.labels], values, np.nan)
    known = values[np.isfinite(values)]
    if not known.size:
        return None
    alt = f"{name}: up to {known.max():.2f} {unit}."
    panels = value_map(name.replace("_", ""), values, unit, *place_of(geometry), caption)
    return dataclasses.replace(panels[0], alt=alt) if panels else None


def _cell(value: object) -> str:
    return "n/a" if pd.isna(value) else f"{value:.3g}" if isinstance(value, float) else str(value)
