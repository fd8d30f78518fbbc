"""Sheets: tables of figures as a page shows them, cells being text already, each with a note that says how to read it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from bids_brainlm.core.types import CONDITIONS
from bids_brainlm.evaluation.baselines import MINUS
from bids_brainlm.evaluation.questions import HABIT
from bids_brainlm.evaluation.statistics import format_p
from bids_brainlm.reports.titles import SERIES, WITH_CHANCE, heading, title


@dataclass(frozen=True)
class Cell:
    """Text of a cell, and what stands below it in small print (an interval)."""

    text: str = ""
    small: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table.

    Parameters
    ----------
    name : str
        What it is, for those who do not see it.
    headings : tuple of str
    rows : tuple of tuple of Cell
        As many cells as headings; the first names the row.
    note : str
    title : str
        Heading above it, where there is one.
    """

    name: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    title: str = ""


METRICS_NOTE = (
    "In small print: 95 % intervals over groups (what training and test never share), given from 6 groups upwards. Chance: mean "
    "over permutations. p: one-sided permutation tests of the true brain. That of the gain is the primary test, declared "
    "beforehand; all others are secondary, and q is their false discovery rate (Benjamini-Hochberg): look at q, not at p, before "
    "believing any of them."
)

BASELINES_NOTE = (
    "By how much the decoder's texts score more than those of decoders without a language model, paired text by text, with 95 % "
    "intervals over groups: nearest text takes the candidate whose embedding is nearest to one told by a linear readout, nearest "
    "response the text of the most similar training response. Of error rates less is better, so that there a difference below 0 "
    "is good. p is one-sided and small when the decoder is the better one."
)

EFFECTS_NOTE = (
    "How large the effects are, whatever the number of texts. d: mean difference between true and permuted brain over groups, in "
    "standard deviations of groups (Hedges). Superiority: how often a text is better with its own brain than with a permuted "
    "one; .5 is chance. Ceiling: reliability of the scores of a stimulus over its repeats, 0 to 1; no model of what is easy "
    "correlates with them more than its square root. Empty where stimuli do not repeat, or too few of them."
)

GROUP_NOTE = (
    "Each participant is one unit. Gain: by how much a figure is better than what it is compared with (chance, permutations, the "
    "permuted brain). p flips the signs of participants, from 6 of them on; p (max) is corrected for all rows by the maximum "
    "statistic, q is the false discovery rate over all rows but the first, which is the primary test."
)

QUESTIONS_NOTE = (
    "Share of answers that hold the right one word for word, by kind of question and by whether training asked it. Habit: the "
    "most frequent answer to that question in training, which needs no brain; an answer that only repeats what is usual is no "
    "better. p and q are of the decoder minus habit, text by text."
)

CONTROLS_NOTE = (
    "The same right texts given other responses. Difference: by how many nats a text is less likely there than given its own "
    "brain, with 95 % intervals over groups; near 0 what was put in place of the brain serves as well as it."
)


def metrics_sheet(summary: pd.DataFrame | None) -> Sheet | None:
    """Rows are metrics, columns the conditions and readouts that occur."""
    return _by_condition(summary, "Metrics", METRICS_NOTE, minus=False)


def baselines_sheet(summary: pd.DataFrame | None) -> Sheet | None:
    """The decoder minus each simple decoder."""
    return _by_condition(summary, "Decoder minus simple decoders", BASELINES_NOTE, minus=True)


def _by_condition(summary: pd.DataFrame | None, name: str, note: str, minus: bool) -> Sheet | None:
    part = None if summary is None else summary[summary["condition"].str.startswith(MINUS) == minus]
    if part is None or part.empty:
        return None
    columns = [name for name in dict.fromkeys([*SERIES, *part["condition"]]) if (part["condition"] == name).any()]
    first = sum(name in CONDITIONS for name in columns)
    rows = []
    for metric, own in part.groupby("metric", sort=False):
        by_name = own.set_index("condition")
        cells = [_valued(by_name.loc[name], tests=minus) if name in by_name.index else Cell() for name in columns]
        # Where there is one condition alone, a readout's, the test is its own.
        tested = by_name.iloc[0] if len(by_name) == 1 else by_name.loc["true"] if "true" in by_name.index else None
        tests = [] if minus else [_chance(str(metric), tested), _p(tested, "p_value"), _p(tested, "q_value")]
        # Behind the conditions and before whatever else names facts: a narrow page still shows them.
        rows.append((Cell(title(str(metric))), *cells[:first], *tests, *cells[first:]))
    named = [heading(column) for column in columns]
    headings = ("Metric", *named[:first], *([] if minus else ["Chance", "p", "q"]), *named[first:])
    return Sheet(name, headings, tuple(rows), note, name * minus)


def _valued(row: pd.Series, tests: bool) -> Cell:
    small = interval(row["ci_low"], row["ci_high"], _digits(row["value"]))
    tested = [
        f"{name} = {_p(row, key).text}" for name, key in (("p", "p_value"), ("q", "q_value")) if tests and _p(row, key).text
    ]
    return Cell(number(row["value"]), "; ".join(filter(None, [small, ", ".join(tested)])))


def _chance(metric: str, row: pd.Series | None) -> Cell:
    """Mean over permutations; of other metrics the comparison is the permuted brain, which has a column of its own."""
    return Cell(number(row["null_mean"])) if row is not None and metric.startswith(WITH_CHANCE) else Cell()


def _p(row: pd.Series | None, column: str) -> Cell:
    known = row is not None and column in row.index and pd.notna(row[column])
    return Cell(format_p(float(row[column]))) if known and row is not None else Cell()


def number(value: float) -> str:
    """A figure of merit as it is read; empty where it is not known.

    >>> number(0.12345), number(123.45), number(float("nan"))
    ('0.123', '123.5', '')
    """
    return "" if pd.isna(value) else f"{value:.{_digits(value)}f}"


def _digits(value: float) -> int:
    return 3 if abs(value) < 10 else 1


def interval(low: float, high: float, digits: int = 2) -> str:
    """Both ends; empty where there is no interval."""
    return "" if pd.isna(low) else f"{low:.{digits}f} to {high:.{digits}f}"


def group_sheet(table: pd.DataFrame | None) -> Sheet | None:
    """Figures over participants: columns of `bids_brainlm.evaluation.group.GROUP_COLUMNS`."""
    if table is None or table.empty:
        return None
    headings = ("Metric", "Condition", "Gain", "Participants", "p", "p (max)", "q")
    rows = []
    for _, row in table.iterrows():
        named = (Cell(title(str(row["metric"]))), Cell(heading(str(row["condition"]))))
        gain = Cell(number(row["gain"]), interval(row["ci_low"], row["ci_high"], _digits(row["gain"])))
        rows.append((*named, gain, Cell(f"{row['n']:.0f}"), *(_p(row, name) for name in ("p_value", "p_max", "q_value"))))
    return Sheet("All participants together", headings, tuple(rows), GROUP_NOTE, "All participants together")


def effects_sheet(table: pd.DataFrame | None) -> Sheet | None:
    """Sizes of effects and noise ceilings: columns of `bids_brainlm.evaluation.effects.EFFECTS_COLUMNS`."""
    if table is None or table.empty:
        return None
    rows = []
    for _, row in table.iterrows():
        cells = [Cell(title(str(row["metric"])))]
        for name in ("d", "superiority"):
            cells.append(Cell(number(row[name]), interval(row[f"{name}_low"], row[f"{name}_high"], 3)))
        rows.append((*cells, Cell(f"{row['n_units']:.0f}"), Cell(number(row["ceiling"]))))
    headings = ("Metric", "d", "Superiority", "Groups", "Ceiling")
    return Sheet(
        "Sizes of effects and noise ceilings", headings, tuple(rows), EFFECTS_NOTE, "Sizes of effects and noise ceilings"
    )


def controls_sheet(table: pd.DataFrame | None) -> Sheet | None:
    """The right texts under further interventions: columns of `bids_brainlm.evaluation.controls.CONTROLS_COLUMNS`."""
    if table is None or table.empty:
        return None
    rows = []
    for _, row in table.iterrows():
        difference = Cell(number(row["difference"]), interval(row["ci_low"], row["ci_high"], 3))
        drawn = "" if pd.isna(row["seed"]) else str(row["seed"]).removesuffix(".0")
        named = (Cell(heading(str(row["condition"])).replace("_", " ").capitalize()), Cell(number(row["nll"])), difference)
        rows.append(
            (
                *named,
                _p(row, "p_value"),
                _p(row, "q_value"),
                Cell(f"{row['n']:.0f}"),
                Cell(_of_folds(drawn)),
                Cell(_of_folds(str(row["weights"]))),
            )
        )
    headings = ("Brains", "NLL (nats a text)", "Difference", "p", "q", "Texts", "Seed", "Weights")
    return Sheet("More controls", headings, tuple(rows), CONTROLS_NOTE, "More controls")


def _of_folds(joined: str) -> str:
    """What every fold has of its own, as far as a page has room for it; the file has all.

    >>> _of_folds("42"), _of_folds("1+2"), _of_folds("1+2+3+4")
    ('42', '1+2', '1 and 3 more')
    """
    parts = joined.split("+")
    return joined if len(parts) < 3 else f"{parts[0]} and {len(parts) - 1} more"


def questions_sheet(table: pd.DataFrame | None) -> Sheet | None:
    """Right answers by kind of question: columns of `bids_brainlm.evaluation.questions.QUESTIONS_COLUMNS`."""
    part = None if table is None or table.empty else table[table["metric"] == "contains"]
    if part is None or part.empty:
        return None
    shown, against = [*CONDITIONS, HABIT], MINUS + HABIT
    rows = []
    for (category, asked), own in part.groupby(["category", "asked"], sort=False):
        by_name = own.set_index("condition")
        found = {name: by_name.loc[name] if name in by_name.index else None for name in (*shown, against)}
        cells = [Cell() if found[name] is None else _valued(found[name], tests=False) for name in shown]
        tests = (_p(found[against], "p_value"), _p(found[against], "q_value"))
        rows.append((Cell(str(category)), Cell(str(asked)), *cells, *tests))
    headings = ("Kind of question", "Asked in training", *(heading(name).capitalize() for name in shown), "p", "q")
    return Sheet("Questions", headings, tuple(rows), QUESTIONS_NOTE, "Answers by kind of question")
