"""Panels: a figure with what a reader needs beside it (title, alternative text, caption), ready for a page or a file."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from bids_brainlm.core.types import Parcellation
from bids_brainlm.evaluation.statistics import format_p
from bids_brainlm.io.surfaces import Geometry
from bids_brainlm.reports import brains, figures, titles

RELIABILITY, CEILING = "Split-half reliability (r)", "Noise ceiling (% of variance)"
"""Labels of maps of quality."""


@dataclass(frozen=True)
class Panel:
    """One figure.

    Parameters
    ----------
    name : str
        Letters and digits, fit for a ``desc-`` label.
    image : bytes
        Content of an SVG or PNG file.
    extension : {".svg", ".png"}
    width : int
        Pixels it is shown at, where there is room.
    alt : str
        What the figure shows, for those who do not see it, with its main numbers.
    caption : str
    """

    name: str
    image: bytes
    extension: str
    width: int
    alt: str
    caption: str = ""

    @property
    def uri(self) -> str:
        kind = {".svg": "image/svg+xml", ".png": "image/png"}[self.extension]
        return f"data:{kind};base64,{base64.b64encode(self.image).decode()}"


def drawing(name: str, figure: Figure, alt: str, caption: str = "") -> Panel:
    """A chart, as SVG."""
    return Panel(name, figures.as_svg(figure).encode(), ".svg", _width(figure), alt, caption)


def picture(name: str, figure: Figure, alt: str, caption: str = "") -> Panel:
    """A map, as PNG."""
    return Panel(name, figures.as_png(figure, dpi=160), ".png", _width(figure), alt, caption)


def _width(figure: Figure) -> int:
    return round(96 * figure.get_figwidth())


def training(history: pd.DataFrame) -> Panel:
    """Loss curves; see `figures.training_curves` for the columns."""
    last = history.groupby("phase", sort=False)[["train_loss", "validation_loss"]].last()
    numbers = "; ".join(
        f"{phase}: training {row.train_loss:.2f}, validation {row.validation_loss:.2f}" for phase, row in last.iterrows()
    )
    caption = "Loss in each epoch. A ring marks the epoch with the smallest validation loss, whose weights were kept."
    return drawing(
        "training", figures.training_curves(history), f"Loss curves of training. Last epoch, nats a token: {numbers}.", caption
    )


def metrics(summary: pd.DataFrame) -> Panel:
    """Every metric against its controls."""
    rows = summary[~summary["metric"].isin(titles.ELSEWHERE)]
    numbers = "; ".join(
        f"{titles.title(str(metric))}: "
        + ", ".join(f"{titles.SERIES.get(r.condition, (r.condition,))[0]} {r.value:.2f}" for r in part.itertuples())
        for metric, part in rows.groupby("metric", sort=False)
    )
    caption = (
        "Means over test texts with 95 % intervals over groups. Dotted: chance, the mean over permutations (of "
        "labels within runs for facts, of brains for the others)."
    )
    return drawing("metrics", figures.metrics_figure(summary), f"Metrics by condition. {numbers}.", caption)


def surprise(table: pd.DataFrame, summary: pd.DataFrame, trained: bool) -> Panel:
    """Figures of merit as a function of surprise; ``trained`` says whether a part of the language model was."""
    numbers = "; ".join(
        f"{measure}: " + ", ".join(f"{row.value:.2f} at {row.surprise:.1f}" for row in part.itertuples())
        for measure, part in table.groupby("measure", sort=False)
    )
    slopes = summary[summary["metric"].isin(titles.ELSEWHERE) & summary["metric"].str.startswith("surprise")]
    told = [
        f"{row.value:+.3f}" + (f" (p = {format_p(row.p_value)})" if pd.notna(row.p_value) else "") for row in slopes.itertuples()
    ]
    whose = "the language model after training, without a brain" if trained else "the language model alone, nothing of it trained"
    caption = (
        f"Texts in bins by their surprise: NLL under {whose}. Left: share of permuted brains under which they are less likely. "
        "Right: by how much likelier they are given their own brain than given permuted ones. Bars: 95 % intervals over groups."
    ) + (f" Slopes by a nat a token: {' and '.join(told)}." if told else "")
    return drawing("surprise", figures.surprise_figure(table), f"Figures of merit by surprise. {numbers}.", caption)


def reliability(values: ArrayLike, n_left: int | None = None, mask: NDArray[np.bool_] | None = None) -> tuple[Panel, ...]:
    """Split-half reliability: histogram, and map on the cortex (``n_left`` given) or in the volume (``mask`` given).

    Parameters
    ----------
    values : (V,) float
        Correlation of half means over stimuli; nan where not known.
    """
    numbers = np.asarray(values, dtype=np.float64)
    known = numbers[np.isfinite(numbers)]
    middle = f"median {np.median(known):.2f}, 95th percentile {np.quantile(known, 0.95):.2f}" if known.size else "no values"
    label = RELIABILITY
    caption = "Correlation, over stimuli, of the mean response in one half of the repeats with that in the other."
    out = [drawing("reliability", figures.histogram(numbers, label), f"Histogram of split-half reliability: {middle}.", caption)]
    out += value_map("reliabilitymap", numbers, label, n_left, mask, "Where responses are reliable.")
    return tuple(out)


def noise_ceiling(values: ArrayLike, n_left: int | None = None, mask: NDArray[np.bool_] | None = None) -> tuple[Panel, ...]:
    """Noise ceiling of single trials: histogram and map, as in `reliability`.

    Parameters
    ----------
    values : (V,) float
        Percent of variance; nan where not known.
    """
    numbers = np.asarray(values, dtype=np.float64)
    known = numbers[np.isfinite(numbers)]
    above = f"{100 * np.mean(known > 0):.0f} % of vertices are above 0" if known.size else "no values"
    label = CEILING
    caption = (
        "Share of the variance of single trials that repeats of a stimulus have in common, z-scored in each session: no model "
        f"explains more. {above[:1].upper()}{above[1:]}; the histogram is of those."
    )
    # Half of the vertices without any signal are at 0 exactly: one bar that would hide the rest.
    figure = figures.histogram(np.where(numbers > 0, numbers, np.nan), label)
    out = [drawing("noiseceiling", figure, f"Histogram of the noise ceiling: {above}.", caption)]
    out += value_map("noiseceilingmap", numbers, label, n_left, mask, "Where there is something to explain.")
    return tuple(out)


def place_of(geometry: Geometry | None) -> tuple[int | None, NDArray[np.bool_] | None]:
    """What maps are drawn on: vertices of the left hemisphere of fsaverage, or (X, Y, Z) voxels of a volume; else neither."""
    if geometry is None:
        return None, None
    if geometry.volume is not None:
        mask = np.zeros(geometry.volume.shape, dtype=np.bool_)
        mask.flat[geometry.volume.index] = True
        return None, mask
    return (geometry.n_left, None) if geometry.space == "fsaverage" else (None, None)


def value_map(
    name: str,
    values: ArrayLike,
    label: str,
    n_left: int | None = None,
    mask: NDArray[np.bool_] | None = None,
    caption: str = "",
    limits: tuple[float, float] | None = None,
) -> tuple[Panel, ...]:
    """Map of one value a vertex or voxel; nothing where there is neither a surface nor a volume."""
    if n_left is not None:
        alt = f"{label} on four views of the inflated cortex."
        return (picture(name, brains.surface_map(values, n_left, label, limits), alt, caption),)
    if mask is not None:
        figure = brains.volume_map(values, mask, label, limits)
        return (picture(name, figure, f"{label} in slices of the volume.", caption),)
    return ()


def parcels(parcellation: Parcellation, mask: NDArray[np.bool_] | None = None, tokens: bool = True) -> tuple[Panel, ...]:
    """Where the parcels are: on the cortex, or in the volume that ``mask`` (X, Y, Z) describes; ``tokens``: one of each."""
    count = f"{parcellation.n_parcels} parcels of {parcellation.name}"
    caption = f"{count}{'; each becomes one brain token' if tokens else ''}. Vertices in grey belong to none."
    if mask is not None:
        figure = brains.volume_map(np.where(parcellation.labels > 0, parcellation.labels, np.nan), mask, "Parcel")
        return (picture("parcels", figure, f"{count} in slices of the volume.", caption.replace("Vertices", "Voxels")),)
    if 0 < parcellation.n_left < parcellation.labels.size:
        figure = brains.parcel_map(parcellation.labels, parcellation.n_left)
        return (picture("parcels", figure, f"{count} on four views of the inflated cortex.", caption),)
    return ()


def group(
    summaries: Mapping[str, pd.DataFrame], shown: tuple[str, ...] = ("nll_permuted_minus_true", "facts", "rouge_l", "wer")
) -> Panel:
    """Metrics of every participant."""
    bars = "One line a participant; bars are 95 % intervals over groups."
    caption = f"{bars} Gain: nats by which the right texts are likelier given their own brain."
    alt = f"Metrics by condition of {len(summaries)} participants."
    return drawing("group", figures.group_figure(summaries, shown), alt, caption)
