"""Pages of the report: content in, one self-contained HTML file out.

A page loads nothing: style, pictures (as data URIs) and the script that searches and sorts a table and turns a brain are inside,
and its content security policy forbids the rest, so that text from a dataset or a language model stays text. Its first line is
what went wrong (``failed: ...``), else the verdict of the primary test, and below it stands why to doubt it. A section whose
content is absent is left out, and all but search, order and turning works without script.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from bids_brainlm.evaluation.statistics import PrimaryTest, format_p, group_verdict
from bids_brainlm.evaluation.table import PRIMARY, Predictions
from bids_brainlm.reports.decoded import decoded_table, marked
from bids_brainlm.reports.heard import RUN_HEADINGS
from bids_brainlm.reports.panels import Panel
from bids_brainlm.reports.sheets import Sheet, baselines_sheet, interval, metrics_sheet
from bids_brainlm.reports.stories import StoryContent
from bids_brainlm.reports.titles import SERIES, title
from bids_brainlm.reports.turning import Turning


@dataclass(frozen=True, eq=False)
class _Common:
    """What both kinds of page have.

    Parameters
    ----------
    title : str
        E.g. the participant, ``sub-01``.
    doubts : tuple of str
        Why not to believe the verdict: right below it.
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
    doubts: tuple[str, ...] = ()
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
    evidence : DataFrame or None
        For each text (`bids_brainlm.evaluation.evidence.EVIDENCE_COLUMNS`), with numbers.
    runs : tuple of tuple of str
        Words and windows of each run: rows of `bids_brainlm.reports.heard.RUN_HEADINGS`.
    decoded_file : str
        Path of the decoded-text table relative to the page.
    summary : DataFrame or None
        Metrics table (`bids_brainlm.evaluation.table.summary`).
    sheets : tuple of Sheet
        More tables below that of metrics: simple decoders, sizes of effects, controls.
    estimation_text : tuple of str
        Sentences on how the responses were estimated.
    abstain, estimation, quality, where, parcels, training : tuples of Panel
    turning : Turning or None
        Maps on a brain that turns.
    """

    test: PrimaryTest | None = None
    predictions: Predictions | None = None
    evidence: pd.DataFrame | None = None
    runs: tuple[tuple[str, ...], ...] = ()
    decoded_file: str = ""
    summary: pd.DataFrame | None = None
    sheets: tuple[Sheet, ...] = ()
    estimation_text: tuple[str, ...] = ()
    abstain: tuple[Panel, ...] = ()
    estimation: tuple[Panel, ...] = ()
    quality: tuple[Panel, ...] = ()
    where: tuple[Panel, ...] = ()
    turning: Turning | None = None
    parcels: tuple[Panel, ...] = ()
    training: tuple[Panel, ...] = ()


@dataclass(frozen=True, eq=False)
class GroupContent(_Common):
    """The page of all participants.

    Parameters
    ----------
    tests : mapping of participant to PrimaryTest
    pages : mapping of participant to the path of their page, relative to this one
    sheets : tuple of Sheet
        Figures over participants.
    """

    tests: Mapping[str, PrimaryTest] = field(default_factory=dict)
    pages: Mapping[str, str] = field(default_factory=dict)
    sheets: tuple[Sheet, ...] = ()


def participant_page(page: PageContent) -> str:
    """HTML of a participant's report."""
    groups = [
        ("trust", "Which texts to trust", "", page.abstain),
        ("training", "Training", "", page.training),
        ("where", "Where in the brain", "", page.where),
        ("estimation", "Estimation of the responses", " ".join(page.estimation_text), page.estimation),
        ("quality", "Quality of the responses", "", page.quality),
        ("parcels", "Parcels", "", page.parcels),
    ]
    sheets = [sheet for sheet in (metrics_sheet(page.summary), baselines_sheet(page.summary), *page.sheets) if sheet is not None]
    cards = _cards(page.summary)
    sections = [("summary", "Summary")] * bool(cards or page.overview or page.warnings or (page.errors and page.test))
    sections += [("texts", "Decoded text")] * (page.predictions is not None)
    sections += [("metrics", "Metrics")] * bool(page.metrics or sheets)
    sections += [("stories", "Stories")] * (page.stories is not None)
    names = {"trust": "Trust", "where": "Where"}
    sections += [(anchor, names.get(anchor, name.partition(" ")[0])) for anchor, name, intro, items in groups if items or intro]
    decoded = None if page.predictions is None else decoded_table(page.predictions, page.evidence)
    first = _first_line(page, page.test.verdict if page.test else "", bool(page.test and page.test.significant))
    context = {"groups": groups, "sheets": sheets, "decoded": decoded, "cards": cards, "run_headings": RUN_HEADINGS}
    return _render("participant", page, first, sections, **context)


def group_page(page: GroupContent) -> str:
    """HTML of the group report."""
    verdict = group_verdict(page.tests)
    rows = [
        {
            "name": name,
            "link": page.pages.get(name, ""),
            "gain": f"{test.effect:.2f}",
            "interval": interval(*test.interval) if test.interval else "",
            "p": format_p(test.p_value),
            "n": test.n,
            "verdict": test.verdict.partition(":")[0],
        }
        for name, test in page.tests.items()
    ]
    first = _first_line(page, verdict, any(test.significant for test in page.tests.values()))
    sections = [("summary", "Summary")] * bool(page.overview or page.warnings or (page.errors and rows))
    sections += [("participants", "Participants")] * bool(rows) + [("metrics", "Metrics")] * bool(page.metrics or page.sheets)
    sections += [("stories", "Stories")] * (page.stories is not None)
    return _render("group", page, first, sections, verdict=verdict, participants=rows)


def _render(template: str, page: _Common, first: dict[str, str], sections: list[tuple[str, str]], **context: Any) -> str:
    sections = sections + [("methods", "Methods")] * bool(page.methods)
    sections += [("provenance", "Provenance")] * bool(page.provenance or page.settings) + [("errors", "Errors")]
    script, digest = _script()
    return (
        environment()
        .get_template(f"{template}.html.j2")
        .render(page=page, first=first, sections=sections, script=script, script_hash=digest, **context)
    )


@cache
def environment() -> jinja2.Environment:
    """Templates of pages: what is put in is escaped, and nothing may be missing."""
    loader = jinja2.PackageLoader("bids_brainlm", "data/templates/reports")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"markdown": markdown, "first_line": _line, "marked": marked}
    return environment


@cache
def _script() -> tuple[Markup, str]:
    """The script of the page, and the hash that lets the content security policy run it and no other."""
    loader = jinja2.PackageLoader("bids_brainlm", "data/templates/reports")
    text = "\n" + "\n".join(loader.get_source(jinja2.Environment(), name)[0] for name in ("tables.js", "turn.js"))  # noqa: S701 - only read, not rendered
    return Markup(text), "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _first_line(page: _Common, verdict: str, found: bool) -> dict[str, str]:
    errors = page.errors
    if errors:
        more = f" (and {len(errors) - 1} more, see Errors)" if len(errors) > 1 else ""
        return {"kind": "failed", "text": f"failed: {_line(errors[0])}{more}"}
    if not verdict:
        return {"kind": "no", "text": "No primary test: the text was not compared with that of permuted brains."}
    if page.doubts:
        return {"kind": "doubt", "text": f"{verdict} But there are doubts:" if found else verdict}
    return {"kind": "yes" if found else "no", "text": verdict}


def _cards(summary: pd.DataFrame | None) -> list[dict[str, str]]:
    """The few figures that say most, each beside its controls."""
    if summary is None or summary.empty:
        return []
    value = summary.set_index(["metric", "condition"])["value"].to_dict()
    cards = []
    for row in summary[summary["metric"] == PRIMARY].itertuples():
        beside = f"nats a text; 95 % interval {interval(row.ci_low, row.ci_high)}" if pd.notna(row.ci_low) else "nats a text"
        cards.append({"name": "Gain from the brain", "value": f"{row.value:.2f}", "beside": beside})
    for row in summary[summary["metric"] == "information_bits"].itertuples():
        beside = f"bits a text beyond a text-only model; {interval(row.ci_low, row.ci_high)}".removesuffix("; ")
        cards.append({"name": "Information from the brain", "value": f"{row.value:.2f}", "beside": beside})
    if ("nll_pairwise", "true") in value:
        beside = "of other brains make the right text less likely than its own; 50% by chance"
        cards.append({"name": "Pairwise accuracy", "value": _share("facts", value["nll_pairwise", "true"]), "beside": beside})
    for metric in ("facts", "rouge_l", "bleu1", "wer"):
        if (metric, "true") in value and len(cards) < 4:
            others = [(name, value[metric, name]) for name in SERIES if name != "true" and (metric, name) in value]
            beside = ", ".join(f"{name} {_share(metric, number)}" for name, number in others)
            cards.append({"name": title(metric), "value": _share(metric, value[metric, "true"]), "beside": beside})
    return cards


def _share(metric: str, number: float) -> str:
    return f"{number:.0%}" if metric.startswith("facts") or metric == "exact" else f"{number:.2f}"


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
