"""The table of decoded texts on a page: each trial's right text beside what came from its brain and from the controls.

Words that the right text has too are marked, but for function words. Where evidence for single texts is known, every row has bars
for it: rank of the own brain, specificity, information, confidence (`bids_brainlm.evaluation.evidence`). Rows are all there is,
or evenly spaced ones where there are more than `MAX_ROWS`; never chosen by how good they are. On paper there are
`ON_PAPER`.
"""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from bids_brainlm.core.types import CONDITIONS
from bids_brainlm.evaluation.table import Predictions
from bids_brainlm.language.stimuli import words

MAX_ROWS = 300
"""Decoded texts shown on a page; the file has all."""

ON_PAPER = 30
"""Of these, those that are printed."""

FUNCTION_WORDS = frozenset(
    words(
        "a an the and or of in on at to by with from for near under over into is are was were be it its his her their this that"
    )
)

HEADINGS = {"true": "From the true brain", "permuted": "From a permuted brain", "none": "Without a brain"}

MEASURES = {"specificity": "Specificity", "information": "Information", "confidence": "Confidence"}
"""Column of the table of evidence -> heading."""


@dataclass(frozen=True)
class Told:
    """A text of one condition, and the NLL of the right one below it."""

    text: Markup
    nll: str


@dataclass(frozen=True)
class Bar:
    """A measure of evidence: what is read, percent of the largest one, whether it speaks against the text, value to sort by."""

    text: str
    percent: int
    against: bool
    value: float


@dataclass(frozen=True)
class Row:
    """A trial; ``paper`` says whether it is printed."""

    stimulus: str
    trial: str
    right: str
    more: str
    prompt: str
    told: tuple[Told, ...]
    bars: tuple[Bar, ...]
    paper: bool


@dataclass(frozen=True)
class DecodedTable:
    """What a page shows of decoded texts.

    Parameters
    ----------
    conditions, measures : tuple of str
        Headings.
    rows : tuple of Row
    total : int
        Trials that there are.
    prompt : str
        The one that all have.
    """

    conditions: tuple[str, ...]
    measures: tuple[str, ...]
    rows: tuple[Row, ...]
    total: int
    prompt: str

    @property
    def n_paper(self) -> int:
        return sum(row.paper for row in self.rows)


def decoded_table(predictions: Predictions, evidence: pd.DataFrame | None = None, max_rows: int = MAX_ROWS) -> DecodedTable:
    """Trials side by side in every condition.

    Parameters
    ----------
    predictions : Predictions
    evidence : DataFrame, optional
        Columns of `bids_brainlm.evaluation.evidence.EVIDENCE_COLUMNS`, with numbers.
    """
    parts = {name: predictions.of(name).table.set_index("trial_id") for name in CONDITIONS if name in predictions.conditions}
    base = next(iter(parts.values()), predictions.table.set_index("trial_id"))
    chosen = _spaced(len(base), max_rows)
    paper = set(chosen[_spaced(len(chosen), ON_PAPER)].tolist())
    one_prompt = base["prompt"].nunique() == 1
    names = _short(list(map(str, base.index))) if base["stimulus_id"].duplicated().any() else [""] * len(base)
    measures, bars = _bars(base.index, evidence)
    rows = []
    for i in chosen:
        trial, row = base.index[i], base.iloc[i]
        right, *more = row["text_true"].split(" | ")
        told = tuple(_told(part.loc[trial] if trial in part.index else None, row["text_true"]) for part in parts.values())
        prompt = "" if one_prompt else row["prompt"]
        rows.append(Row(row["stimulus_id"], names[i], right, " / ".join(more), prompt, told, bars[i], i in paper))
    prompt = base["prompt"].iloc[0] if one_prompt and len(base) else ""
    return DecodedTable(tuple(HEADINGS[n] for n in parts), measures, tuple(rows), len(base), "" if prompt == "n/a" else prompt)


def _spaced(n: int, most: int) -> NDArray[np.int64]:
    return np.asarray(np.unique(np.linspace(0, n - 1, min(most, n)).round()), dtype=np.int64)


def _short(names: list[str]) -> list[str]:
    """Names without what they begin with alike, up to a mark.

    >>> _short(["sub-01_run-1_trial-2", "sub-01_run-2_trial-1"])
    ['run-1_trial-2', 'run-2_trial-1']
    """
    same = os.path.commonprefix(names)
    return [name[same.rfind("_") + 1 :] for name in names]


def _told(row: pd.Series | None, right: str) -> Told:
    return Told(Markup(), "") if row is None else Told(marked(row["text_pred"], right), f"NLL {row['nll']:.1f}")


def _bars(trials: pd.Index, evidence: pd.DataFrame | None) -> tuple[tuple[str, ...], list[tuple[Bar, ...]]]:
    """Headings, and the bars of each trial."""
    if evidence is None or not set(trials) <= set(evidence["trial_id"]):
        return (), [()] * len(trials)
    table = evidence.set_index("trial_id").loc[list(trials)]
    known = {name: text for name, text in MEASURES.items() if np.isfinite(table[name]).any()}
    columns = [[_rank_bar(r, n) for r, n in zip(table["rank"], table["n_brains"], strict=True)]]
    for name in known:
        top = float(np.nanmax(np.abs(table[name]))) or 1.0
        columns.append([_bar(value, top, "bits" if name == "information" else "nats") for value in table[name]])
    return ("Rank", *known.values()), list(zip(*columns, strict=True))


def _rank_bar(rank: float, n: float) -> Bar:
    if not np.isfinite(rank):
        return Bar("", 0, False, np.inf)
    better = (n - rank) / (n - 1) if n > 1 else 0.0
    return Bar(f"{rank:g} of {n:.0f}", round(100 * better), better < 0.5, float(rank / n))


def _bar(value: float, top: float, unit: str) -> Bar:
    if not np.isfinite(value):
        return Bar("", 0, False, -np.inf)
    return Bar(f"{value:.1f} {unit}", round(100 * abs(value) / top), value < 0, float(value))


def marked(text: str, right: str) -> Markup:
    """Escaped text with the words that the right text has too in ``<mark>``; function words are not marked.

    >>> marked("a <b>bird</b> sings", "the Bird flies")
    Markup('a &lt;b&gt;<mark>bird</mark>&lt;/b&gt; sings')
    """
    shared = set(words(right)) - FUNCTION_WORDS
    parts = re.split(r"([\w']+)", text)
    return Markup("").join(Markup("<mark>{}</mark>").format(part) if part.lower() in shared else part for part in parts)
