"""The page of a stimulation: sites on the cortex, curves over doses, all effects, and captions along the dose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bids_brainlm.core.types import Floats
from bids_brainlm.insilico.participant import Participant
from bids_brainlm.insilico.reverse import Reversed
from bids_brainlm.insilico.stimulation import Stimulation, category_rate
from bids_brainlm.io.files import write_text
from bids_brainlm.io.surfaces import Geometry
from bids_brainlm.reports import brains
from bids_brainlm.reports.figures import STYLE, as_png, as_svg, new_figure
from bids_brainlm.reports.page import environment
from bids_brainlm.reports.panels import Panel, place_of
from bids_brainlm.reports.titles import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE
from bids_brainlm.stages.outputs import beh_path

COLOURS, MARKERS = (BLUE, ORANGE, GREEN, PURPLE, BLACK, GREY), "os^vD*"

SHOWN = 6
"""Words of a figure, sites with a figure of their own beyond the first."""

EFFECTS = (
    "site",
    "factor",
    "word",
    "slope",
    "ci_low",
    "ci_high",
    "rivals_slope",
    "null_mean",
    "null_sd",
    "q_raised",
    "q_lowered",
)
"""Columns of the table on the page."""


def write_page(found: Stimulation, participant: Participant, backwards: Sequence[Reversed] = ()) -> Path:
    """Write the page beside the reports of the participant: ``sub-01_stimulation.html``."""
    path = beh_path(participant.request, participant.label, participant.trials.task, "x").parents[2]
    return write_text(path / f"sub-{participant.label}_stimulation.html", page(found, participant, backwards))


def page(found: Stimulation, participant: Participant, backwards: Sequence[Reversed] = ()) -> str:
    """One self-contained HTML file."""
    geometry = participant.trials.geometry
    sites = [map_panel(f"site{i}", site.pattern, geometry, site.name, site.about) for i, site in enumerate(found.sites)]
    back = [
        map_panel(f"reverse{i}", item.pattern, geometry, f"what says {item.word.label}", _gained(item))
        for i, item in enumerate(backwards)
    ]
    verdict = found.verdict()
    return (
        environment()
        .get_template("stimulation.html.j2")
        .render(
            title=f"sub-{participant.label}: stimulation of the model",
            verdict=verdict,
            found=len(verdict) > 1,
            groups=[
                ("Effects", (effects_panel(found),)),
                ("Sites", [panel for panel in sites if panel is not None]),
                ("Curves", [curves_panel(found, site.name) for site in found.sites]),
                ("Back from words", [panel for panel in back if panel is not None]),
            ],
            tables=[_effects(found), _captions(found), _rates(found)],
        )
    )


def _gained(item: Reversed) -> str:
    return f"Log-probability {item.before:.2f} nats before, {item.after:.2f} after; kept within the length of training responses."


def map_panel(name: str, values: Floats, geometry: Geometry, title: str, caption: str) -> Panel | None:
    """A pattern on the cortex or in slices; None where nobody knows where the columns are."""
    n_left, mask = place_of(geometry)
    if mask is not None:
        figure = brains.volume_map(values, mask, "SD at dose 1")
    elif n_left is not None:
        shown = np.where(values != 0, values, np.nan).astype(np.float64)
        figure = brains.surface_map(shown, n_left, "SD at dose 1")
    else:
        return None
    about = f"{title}: {int((values != 0).sum())} {'vertices' if mask is None else 'voxels'}"
    return Panel(name, as_png(figure), ".png", 900, about, f"{about}. {caption}")


def effects_panel(found: Stimulation) -> Panel:
    """Slopes of all sites and words, those with q <= .05 marked."""
    order = list(dict.fromkeys(found.effects["word"]))
    slopes = found.effects.pivot(index="site", columns="word", values="slope").loc[[site.name for site in found.sites], order]
    sure = found.effects.assign(sure=(found.effects[["q_raised", "q_lowered"]] <= 0.05).any(axis=1))
    marked = sure.pivot(index="site", columns="word", values="sure").loc[slopes.index, order].to_numpy(bool)
    limit = float(np.nanmax(np.abs(slopes.to_numpy()))) or 1.0
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = new_figure(max(4.0, 0.32 * len(order) + 2.2), max(2.0, 0.26 * len(slopes) + 1.2))
        axis = figure.subplots()
        image = axis.imshow(slopes.to_numpy(), cmap=brains.DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
        axis.set_xticks(range(len(order)), order, rotation=60, ha="right")
        axis.set_yticks(range(len(slopes)), list(slopes.index))
        rows, columns = np.nonzero(marked)
        axis.plot(columns, rows, ".", color="black", ms=3)
        figure.colorbar(image, ax=axis, label="nats per unit of dose")
    n = int(marked.sum())
    caption = f"Slope of the log-probability of each word over doses. Dots: q <= .05 against null patches ({n} of {marked.size})."
    return Panel(
        "effects", as_svg(figure).encode(), ".svg", 900, f"Slopes of sites and words; {n} of {marked.size} marked.", caption
    )


def curves_panel(found: Stimulation, site: str) -> Panel:
    """Log-probabilities over doses of the words that a site moves most."""
    own = found.effects[found.effects["site"] == site]
    words = own.reindex(own["slope"].abs().sort_values(ascending=False, kind="stable").index)["word"].head(SHOWN)
    rows = found.doses[(found.doses["site"] == site) & (found.doses["base"] == "trials")]
    with matplotlib.rc_context(STYLE):
        figure = _curves(rows, list(words), site)
    beyond = rows.groupby("dose")["beyond_vertices"].first()
    said = ", ".join(f"{dose:g}: {share:.0%}" for dose, share in beyond.items())
    caption = f"Mean over trials, with standard errors. Driven vertices beyond the training range at each dose: {said}."
    first = own.loc[own["slope"].idxmax()]
    alt = f"Driving {site} raises {first['word']} most, by {first['slope']:.2f} nats per unit of dose."
    return Panel("curves", as_svg(figure).encode(), ".svg", 620, alt, caption)


def _curves(rows: pd.DataFrame, words: Sequence[str], site: str) -> Figure:
    figure = new_figure(5.6, 2.8)
    axis = figure.subplots()
    for i, word in enumerate(words):
        part = rows[rows["word"] == word].sort_values("dose")
        x, y, error = (part[name].to_numpy(float) for name in ("dose", "log_probability", "standard_error"))
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        axis.errorbar(x, y, yerr=error, lw=1.2, ms=4, label=word, elinewidth=0.8, color=colour, marker=marker)
    axis.set_xlabel("dose (SD)")
    axis.set_ylabel("log-probability (nats)")
    axis.set_title(site)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right upper")
    return figure


def _effects(found: Stimulation) -> tuple[str, str, Sequence[str], list[list[str]]]:
    table = found.effects
    sure = table[(table[["q_raised", "q_lowered"]] <= 0.05).any(axis=1)].sort_values("slope", ascending=False, kind="stable")
    note = "Pairs of site and word with q <= .05; all of them stand in the table of effects. Slopes in nats per unit of dose."
    return "Words that stand out", note, EFFECTS, _cells(sure[list(EFFECTS)])


def _captions(found: Stimulation) -> tuple[str, str, Sequence[str], list[list[str]]]:
    note = "What the model says of held-out trials; dose 0 is the trial as it was measured."
    return "Captions along the dose", note, ("site", "dose", "trial", "text", "words"), _cells(found.captions)


def _rates(found: Stimulation) -> tuple[str, str, Sequence[str], list[list[str]]]:
    if found.captions.empty:
        return "", "", (), []
    rates = category_rate(found.captions).reset_index()
    return "Words of these captions", "Share of captions that name a word.", list(rates.columns), _cells(rates)


def _cells(table: pd.DataFrame) -> list[list[str]]:
    return [
        [f"{value:.3g}" if isinstance(value, float) else str(value) for value in row] for row in table.itertuples(index=False)
    ]
