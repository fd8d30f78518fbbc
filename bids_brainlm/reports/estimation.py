"""What a tuned estimator chose, from the files of stage tune: in words, and as panels.

Nothing here is computed again: the maps, the library, the curve and the reasons are read as they were written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from bids_brainlm.core.types import Floats
from bids_brainlm.io.files import read_json, read_tsv
from bids_brainlm.io.maps import read_maps
from bids_brainlm.io.surfaces import Geometry
from bids_brainlm.reports.figures import STYLE, histogram, new_figure
from bids_brainlm.reports.panels import Panel, drawing, value_map
from bids_brainlm.reports.titles import BLUE, GREY

Doubles = NDArray[np.float64]

STEPS = {
    "hrf": "a haemodynamic response for every vertex",
    "denoise": "nuisance components of a noise pool",
    "ridge": "fractional ridge",
}
"""Step -> what it is called in a sentence."""

CHOICES = {
    "onoff": "by how much variance one regressor for all trials explains",
    "cv": "by how well trials predict repeats of their stimulus in other runs",
    "both": "by the variance that one regressor for all trials explains together with how well trials predict their repeats",
    "insample": "by how much variance the regressors of all trials explain",
}
"""Criterion for the response of a vertex -> how it is said."""

TASK_SHARE = 0.1
"""Share of vertices, those that the task moves most, that figures set apart from the others."""


@dataclass(frozen=True, eq=False)
class Estimation:
    """Choices of a participant.

    Parameters
    ----------
    maps : dict of str to (V,) float32
    geometry : Geometry
    sidecar : dict
    times : (k,) float64
        Seconds after a very short event.
    library : (H, k) float64
        Responses that were chosen from.
    """

    maps: dict[str, Floats]
    geometry: Geometry
    sidecar: dict[str, Any]
    times: Doubles
    library: Doubles

    @property
    def steps(self) -> tuple[str, ...]:
        return tuple(self.sidecar["EstimationSteps"])

    @property
    def task(self) -> NDArray[np.bool_]:
        """(V,) bool: the vertices that the task moves most."""
        r2 = np.nan_to_num(self.maps["r2"])
        return np.asarray((r2 > 0) & (r2 >= np.quantile(r2, 1 - TASK_SHARE)))

    @property
    def peaks(self) -> Doubles:
        """(H,) seconds to the peak of each response of the library."""
        return np.asarray(self.times[self.library.argmax(axis=1)])


def read_estimation(paths: Sequence[Path]) -> Estimation | None:
    """What the files of a stage tune hold; None where there are none."""
    image = next((p for p in paths if "_stat-tuning_" in p.name and p.suffix in (".gii", ".gz", ".tsv")), None)
    table = next((p for p in paths if p.name.endswith("library_timeseries.tsv")), None)
    if image is None or table is None:
        return None
    maps, geometry = read_maps(image)
    sidecar = read_json(next(p for p in paths if p.name.endswith("_statmap.json")))
    shapes = read_tsv(table).apply(pd.to_numeric)
    return Estimation(maps, geometry, sidecar, shapes["time"].to_numpy(float), shapes.drop(columns="time").to_numpy(float).T)


def words(found: Estimation) -> tuple[str, ...]:
    """Sentences: what was done, what was left out and why, and which runs were looked at."""
    about, out = found.sidecar, []
    taken = [STEPS.get(step, step) for step in found.steps]
    out.append(f"The estimator {about['EstimationMethod']} took {_list(taken) or 'no step beyond ordinary least squares'}.")
    if "hrf" in found.steps:
        out.append(f"Each response was chosen from {len(found.library)} {CHOICES.get(about['HRFChoice'], about['HRFChoice'])}.")
    if "denoise" in found.steps:
        n, pool = about["NumberOfComponents"], int((found.maps["pool"] > 0).sum())
        none = f"No nuisance component of a noise pool of {pool:,} vertices made repeats agree better, so none was taken out."
        some = f"{n} nuisance component{'s' * (n != 1)} a run came from a noise pool of {pool:,} vertices."
        out.append(some if n else none)
    if "ridge" in found.steps:
        middle = float(np.median(found.maps["fraction"][found.task])) if found.task.any() else 1.0
        out.append(f"The median fraction is {middle:.2f} where the task moves vertices most (1: ordinary least squares).")
    out += [f"Left out: {STEPS.get(step, step)}, because {why}." for step, why in about["StepsLeftOut"].items()]
    if about["TrialModel"] == "lss":
        out.append("Each trial had a model of its own (least squares separate).")
    out.append(_seen(about))
    return tuple(out)


def _seen(about: dict[str, Any]) -> str:
    """Whether runs with test trials were looked at."""
    chosen, others = about["TunedOnRuns"], about["OtherRuns"]
    if others:
        runs = f"{len(chosen)} of {len(chosen) + len(others)} runs"
        return f"Choices were made on {runs}, those without a test trial; no test response and no text was seen."
    run = "the only run" if len(chosen) == 1 else f"all {len(chosen)} runs"
    seen = f"Choices were made on {run}, those with test trials among them (transductive); no text was seen."
    if about["TestLabelsSeen"]:
        seen += " They compared test trials with training trials of the same stimulus: figures are optimistic."
    return seen


def estimation_panels(found: Estimation, n_left: int | None, mask: NDArray[np.bool_] | None) -> tuple[Panel, ...]:
    """A panel or two for every step that was taken.

    Parameters
    ----------
    found : Estimation
    n_left, mask
        Where the maps lie: on the cortex, or in a volume; see `panels.value_map`.
    """
    out: list[Panel] = []
    if "hrf" in found.steps:
        out += _response_panels(found, n_left, mask)
    if "denoise" in found.steps:
        out += _component_panels(found, n_left, mask)
    if "ridge" in found.steps:
        out += _ridge_panels(found, n_left, mask)
    return tuple(out)


def _response_panels(found: Estimation, n_left: int | None, mask: NDArray[np.bool_] | None) -> list[Panel]:
    peaks = found.peaks[found.maps["hrf"].astype(int)]
    task = peaks[found.task]
    middle = f"median peak {np.median(task):.1f} s, middle half {np.quantile(task, 0.25):.1f} to {np.quantile(task, 0.75):.1f} s"
    caption = (
        "Left: the library; the thicker a line, the more often it was chosen. Right: how often each was chosen, earliest first, "
        f"among all vertices and among the {100 * TASK_SHARE:.0f} % that the task moves most."
    )
    alt = f"Haemodynamic responses of the library and how often each was chosen. Where the task moves most: {middle}."
    out = [drawing("hrf", responses_figure(found), alt, caption)]
    shown = np.where(found.task, peaks, np.nan)
    text = f"When the chosen response peaks, in the {100 * TASK_SHARE:.0f} % of vertices that the task moves most."
    limits = (float(found.peaks.min()) - 0.5, float(found.peaks.max()))
    return out + list(value_map("hrfmap", shown, "Time to peak (s)", n_left, mask, text, limits))


def _component_panels(found: Estimation, n_left: int | None, mask: NDArray[np.bool_] | None) -> list[Panel]:
    curve, chosen = np.asarray(found.sidecar["AgreementByNumberOfComponents"], float), found.sidecar["NumberOfComponents"]
    caption = (
        "How well trials agree with repeats of their stimulus in other runs, by the number of nuisance components taken out. The "
        "ring marks the number that was chosen: the smallest with nearly the largest gain."
    )
    out = []
    if curve.size:
        alt = f"Agreement of repeats by number of components; {chosen} chosen."
        out.append(drawing("components", curve_figure(curve, chosen), alt, caption))
    pool = np.where(found.maps["pool"] > 0, 1.0, np.nan)
    text = f"{int(np.nansum(pool)):,} vertices that the components come from: bright, and hardly moved by the task."
    return out + list(value_map("noisepool", pool, "Noise pool", n_left, mask, text, (0.0, 1.0)))


def _ridge_panels(found: Estimation, n_left: int | None, mask: NDArray[np.bool_] | None) -> list[Panel]:
    fraction = np.asarray(found.maps["fraction"], dtype=np.float64)
    fraction = np.where(np.nan_to_num(found.maps["r2"]) > 0, fraction, np.nan)
    alt = f"Histogram of fractions: median {np.nanmedian(fraction):.2f}."
    caption = (
        "Length of a vertex's ridge responses as a share of those of ordinary least squares, chosen by how well trials predict "
        "repeats of their stimulus. Small fractions shrink a lot; the scale was restored afterwards."
    )
    out = [drawing("fraction", histogram(fraction, "Fraction", 20), alt, caption)]
    return out + list(value_map("fractionmap", fraction, "Fraction", n_left, mask, "Where responses were shrunk.", (0.0, 1.0)))


def responses_figure(found: Estimation) -> Figure:
    """The library, and how often each of its responses was chosen, in the order of their peaks."""
    n = len(found.library)
    order = np.argsort(found.peaks, kind="stable")
    hrf = found.maps["hrf"].astype(int)
    every, task = (np.bincount(some, minlength=n)[order] / max(some.size, 1) for some in (hrf, hrf[found.task]))
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, n))
    with matplotlib.rc_context(STYLE):
        figure = new_figure(8.2, 2.9)
        left, right = figure.subplots(1, 2)
        for place, (row, share) in enumerate(zip(order, task, strict=True)):
            left.plot(found.times, found.library[row] / found.library[row].max(), color=colours[place], lw=0.6 + 6 * share)
        left.set_xlim(0, min(25.0, float(found.times[-1])))
        left.set_xlabel("Time after a short event (s)")
        left.set_ylabel("Response (peak 1)")
        places = np.arange(n)
        right.grid(axis="x", visible=False)
        right.bar(places, task, color=colours, width=0.85, label=f"{100 * TASK_SHARE:.0f} % moved most by the task")
        right.step(np.append(places - 0.5, n - 0.5), np.append(every, every[-1]), where="post", color=GREY, lw=1.4, label="all")
        shown = np.unique(np.linspace(0, n - 1, min(n, 7)).round().astype(int))
        right.set_xticks(shown, [f"{found.peaks[order][i]:.1f}" for i in shown])
        right.set_xlabel("Peak of the response (s)")
        right.set_ylabel("Share of vertices")
        right.set_ylim(0, 1.25 * max(every.max(), task.max(), 1e-6))
        right.legend(fontsize=8, loc="upper right", ncols=2)
    return figure


def curve_figure(curve: Doubles, chosen: int) -> Figure:
    """Agreement (K + 1,) by number of components."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(4.6, 2.9)
        axis = figure.subplots()
        axis.plot(np.arange(curve.size), curve, "-o", color=BLUE, ms=3.5)
        axis.plot(chosen, curve[min(chosen, curve.size - 1)], "o", mfc="white", mec=BLUE, mew=1.8, ms=8)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("Nuisance components")
        axis.set_ylabel("Agreement of repeats")
    return figure


def _list(items: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]])) if items else ""
