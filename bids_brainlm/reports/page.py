"""Pages of the report: content in, one self-contained HTML file out.

A page loads nothing: style, pictures (as data URIs) and the ten lines of script that filter a table are inside, and its content
security policy forbids the rest, so that text from a dataset or a language model stays text. Its first line is what went
wrong (``failed: ...``), else the verdict of the primary test. A section whose content is absent is left out.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from bids_brainlm.core.types import CONDITIONS
from bids_brainlm.evaluation.statistics import PrimaryTest, format_p, group_verdict
from bids_brainlm.evaluation.table import PRIMARY, Predictions
from bids_brainlm.language.stimuli import words
from bids_brainlm.reports.heard import RUN_HEADINGS
from bids_brainlm.reports.panels import Panel
from bids_brainlm.reports.stories import StoryContent
from bids_brainlm.reports.titles import SERIES, title

MAX_ROWS = 60
"""Decoded texts shown on a page; the file has all."""

FUNCTION_WORDS = frozenset(
    words(
        "a an the and or of in on at to by with from for near under over into is are was were be it its his her their this that"
    )
)

HEADINGS = {"true": "From the true brain", "permuted": "From a permuted brain", "none": "Without a brain"}


@dataclass(frozen=True, eq=False)
class _Common:
    """What both kinds of page have.

    Parameters
    ----------
    title : str
        E.g. the participant, ``sub-01``.
    errors : tuple of str
        What failed; the first line of the first one becomes the first line of the page. Tracebacks may follow in it.
    warnings : tuple of str
        What the reader should know but did not stop anything.
    overview, provenance : tuple of (name, value)
    metrics : tuple of Panel
    methods : str
        Markdown of `bids_brainlm.reports.methods.method_text`.
    settings : str
        TOML.
    stories : StoryContent or None
        Whole stories that were reconstructed.
    """

    title: str
    dataset: str = ""
    version: str = ""
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    overview: tuple[tuple[str, str], ...] = ()
    metrics: tuple[Panel, ...] = ()
    methods: str = ""
    settings: str = ""
    provenance: tuple[tuple[str, str], ...] = ()
    stories: StoryContent | None = None


@dataclass(frozen=True, eq=False)
class PageContent(_Common):
    """A participant's page.

    Parameters
    ----------
    test : PrimaryTest or None
    predictions : Predictions or None
    runs : tuple of tuple of str
        Words and windows of each run: rows of `bids_brainlm.reports.heard.RUN_HEADINGS`.
    decoded_file : str
        Path of the decoded-text table relative to the page.
    summary : DataFrame or None
        Metrics table (`bids_brainlm.evaluation.table.summary`).
    estimation_text : tuple of str
        Sentences on how the responses were estimated.
    estimation, quality, parcels, training : tuples of Panel
    """

    test: PrimaryTest | None = None
    predictions: Predictions | None = None
    runs: tuple[tuple[str, ...], ...] = ()
    decoded_file: str = ""
    summary: pd.DataFrame | None = None
    estimation_text: tuple[str, ...] = ()
    estimation: tuple[Panel, ...] = ()
    quality: tuple[Panel, ...] = ()
    parcels: tuple[Panel, ...] = ()
    training: tuple[Panel, ...] = ()


@dataclass(frozen=True, eq=False)
class GroupContent(_Common):
    """The page of all participants.

    Parameters
    ----------
    tests : mapping of participant to PrimaryTest
    pages : mapping of participant to the path of their page, relative to this one
    """

    tests: Mapping[str, PrimaryTest] = field(default_factory=dict)
    pages: Mapping[str, str] = field(default_factory=dict)


def participant_page(page: PageContent) -> str:
    """HTML of a participant's report."""
    groups = [
        ("training", "Training", "", page.training),
        ("estimation", "Estimation of the responses", " ".join(page.estimation_text), page.estimation),
        ("quality", "Quality of the responses", "", page.quality),
        ("parcels", "Parcels", "", page.parcels),
    ]
    table = _metrics_table(page.summary)
    cards = _cards(page.summary)
    sections = [("summary", "Summary")] * bool(cards or page.overview or page.warnings or (page.errors and page.test))
    sections += [("texts", "Decoded text")] * (page.predictions is not None)
    sections += [("metrics", "Metrics")] * bool(page.metrics or table["rows"])
    sections += [("stories", "Stories")] * (page.stories is not None)
    sections += [(anchor, name.partition(" ")[0]) for anchor, name, intro, items in groups if items or intro]
    decoded = {} if page.predictions is None else _decoded(page.predictions)
    first = _first_line(page.errors, page.test.verdict if page.test else "", bool(page.test and page.test.significant))
    context = {"groups": groups, "table": table, "decoded": decoded, "cards": cards, "run_headings": RUN_HEADINGS}
    return _render("participant", page, first, sections, **context)


def group_page(page: GroupContent) -> str:
    """HTML of the group report."""
    verdict = group_verdict(page.tests)
    rows = [
        {
            "name": name,
            "link": page.pages.get(name, ""),
            "gain": f"{test.effect:.2f}",
            "interval": _interval(*test.interval) if test.interval else "",
            "p": format_p(test.p_value),
            "n": test.n,
            "verdict": test.verdict.partition(":")[0],
        }
        for name, test in page.tests.items()
    ]
    first = _first_line(page.errors, verdict, any(test.significant for test in page.tests.values()))
    sections = [("summary", "Summary")] * bool(page.overview or page.warnings or (page.errors and rows))
    sections += [("participants", "Participants")] * bool(rows) + [("metrics", "Metrics")] * bool(page.metrics)
    sections += [("stories", "Stories")] * (page.stories is not None)
    return _render("group", page, first, sections, verdict=verdict, participants=rows)


def _render(template: str, page: _Common, first: dict[str, str], sections: list[tuple[str, str]], **context: Any) -> str:
    sections = sections + [("methods", "Methods")] * bool(page.methods)
    sections += [("provenance", "Provenance")] * bool(page.provenance or page.settings) + [("errors", "Errors")]
    script, digest = _script()
    environment = _environment()
    return environment.get_template(f"{template}.html.j2").render(
        page=page, first=first, sections=sections, script=script, script_hash=digest, **context
    )


@cache
def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("bids_brainlm", "data/templates/reports")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"markdown": markdown, "first_line": _line, "marked": marked}
    return environment


@cache
def _script() -> tuple[Markup, str]:
    """The script of the page, and the hash that lets the content security policy run it and no other."""
    loader = jinja2.PackageLoader("bids_brainlm", "data/templates/reports")
    text = "\n" + loader.get_source(jinja2.Environment(), "finder.js")[0]  # noqa: S701 - only read, not rendered
    return Markup(text), "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _first_line(errors: Sequence[str], verdict: str, found: bool) -> dict[str, str]:
    if errors:
        more = f" (and {len(errors) - 1} more, see Errors)" if len(errors) > 1 else ""
        return {"kind": "failed", "text": f"failed: {_line(errors[0])}{more}"}
    if not verdict:
        return {"kind": "no", "text": "No primary test: the text was not compared with that of permuted brains."}
    return {"kind": "yes" if found else "no", "text": verdict}


def _interval(low: float, high: float, digits: int = 2) -> str:
    return f"{low:.{digits}f} to {high:.{digits}f}"


def _cards(summary: pd.DataFrame | None) -> list[dict[str, str]]:
    """The few figures that say most, each beside its controls."""
    if summary is None or summary.empty:
        return []
    value = summary.set_index(["metric", "condition"])["value"].to_dict()
    cards = []
    for row in summary[summary["metric"] == PRIMARY].itertuples():
        beside = f"nats a text; 95 % interval {_interval(row.ci_low, row.ci_high)}" if pd.notna(row.ci_low) else "nats a text"
        cards.append({"name": "Gain from the brain", "value": f"{row.value:.2f}", "beside": beside})
    for metric in ("facts", "rouge_l", "bleu1", "wer"):
        if (metric, "true") in value and len(cards) < 4:
            others = [(name, value[metric, name]) for name in SERIES if name != "true" and (metric, name) in value]
            beside = ", ".join(f"{name} {_share(metric, number)}" for name, number in others)
            cards.append({"name": title(metric), "value": _share(metric, value[metric, "true"]), "beside": beside})
    return cards


def _share(metric: str, number: float) -> str:
    return f"{number:.0%}" if metric.startswith("facts") or metric == "exact" else f"{number:.2f}"


def _metrics_table(summary: pd.DataFrame | None) -> dict[str, Any]:
    """Rows are metrics, columns the conditions and readouts that occur."""
    if summary is None or summary.empty:
        return {"columns": [], "rows": []}
    columns = [name for name in dict.fromkeys([*SERIES, *summary["condition"]]) if (summary["condition"] == name).any()]
    rows = []
    for metric, part in summary.groupby("metric", sort=False):
        by_name = part.set_index("condition")
        cells = [_metric_cell(by_name.loc[name]) if name in by_name.index else {"value": "", "interval": ""} for name in columns]
        # Where there is one condition alone, a readout's, the test is its own.
        p = by_name["p_value"].iloc[0] if len(by_name) == 1 else by_name["p_value"].get("true", np.nan)
        rows.append({"name": title(str(metric)), "cells": cells, "p": "" if pd.isna(p) else format_p(p)})
    return {"columns": [SERIES[name][0].capitalize() if name in SERIES else name for name in columns], "rows": rows}


def _metric_cell(row: pd.Series) -> dict[str, str]:
    digits = 3 if abs(row["value"]) < 10 else 1
    interval = "" if pd.isna(row["ci_low"]) else _interval(row["ci_low"], row["ci_high"], digits)
    return {"value": f"{row['value']:.{digits}f}", "interval": interval}


def _decoded(predictions: Predictions, max_rows: int = MAX_ROWS) -> dict[str, Any]:
    """Trials side by side in every condition; evenly spaced ones where there are many."""
    parts = {name: predictions.of(name).table.set_index("trial_id") for name in CONDITIONS if name in predictions.conditions}
    base = next(iter(parts.values()), predictions.table.set_index("trial_id"))
    chosen = np.unique(np.linspace(0, len(base) - 1, min(max_rows, len(base))).round().astype(int))
    one_prompt = base["prompt"].nunique() == 1
    rows = []
    for trial, row in base.iloc[chosen].iterrows():
        right, *more = row["text_true"].split(" | ")
        cells = [_text_cell(part.loc[trial] if trial in part.index else None, row["text_true"]) for part in parts.values()]
        prompt = "" if one_prompt else row["prompt"]
        rows.append({"stimulus": row["stimulus_id"], "right": right, "more": " / ".join(more), "prompt": prompt, "cells": cells})
    headings = [HEADINGS[name] for name in parts]
    prompt = base["prompt"].iloc[0] if one_prompt and len(base) else ""
    return {
        "conditions": headings,
        "rows": rows,
        "shown": len(rows),
        "total": len(base),
        "prompt": "" if prompt == "n/a" else prompt,
    }


def _text_cell(row: pd.Series | None, right: str) -> dict[str, Any]:
    if row is None:
        return {"text": "", "nll": ""}
    return {"text": marked(row["text_pred"], right), "nll": f"NLL {row['nll']:.1f}"}


def marked(text: str, right: str) -> Markup:
    """Escaped text with the words that the right text has too in ``<mark>``; function words are not marked.

    >>> marked("a <b>bird</b> sings", "the Bird flies")
    Markup('a &lt;b&gt;<mark>bird</mark>&lt;/b&gt; sings')
    """
    shared = set(words(right)) - FUNCTION_WORDS
    parts = re.split(r"([\w']+)", text)
    return Markup("").join(Markup("<mark>{}</mark>").format(part) if part.lower() in shared else part for part in parts)


def markdown(text: str) -> Markup:
    """HTML of the little Markdown that method texts use: headings, paragraphs, bullets and links in angle brackets.

    >>> markdown("### Data\\n\\nFrom <https://a.org> & others.")
    Markup('<h3>Data</h3>\\n<p>From <a href="https://a.org">https://a.org</a> &amp; others.</p>')
    """
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip()):
        if block.startswith("#"):
            blocks.append(Markup("<h3>{}</h3>").format(block.lstrip("# ")))
        elif block.startswith("- "):
            items = [Markup("<li>{}</li>").format(_links(line[2:])) for line in block.splitlines()]
            blocks.append(Markup("<ul>{}</ul>").format(Markup("").join(items)))
        else:
            blocks.append(Markup("<p>{}</p>").format(_links(block)))
    return Markup("\n").join(blocks)


def _links(text: str) -> Markup:
    return Markup(re.sub(r"&lt;(https://[^\s&]+)&gt;", r'<a href="\1">\1</a>', str(escape(text))))
