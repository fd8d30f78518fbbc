"""Sheets show every figure in its place, with chance, p and q where there are any."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bids_brainlm.evaluation.controls import CONTROLS_COLUMNS
from bids_brainlm.evaluation.effects import EFFECTS_COLUMNS
from bids_brainlm.evaluation.group import GROUP_COLUMNS
from bids_brainlm.evaluation.questions import QUESTIONS_COLUMNS
from bids_brainlm.evaluation.table import METRICS_COLUMNS, PRIMARY
from bids_brainlm.reports.sheets import (
    Sheet,
    baselines_sheet,
    controls_sheet,
    effects_sheet,
    group_sheet,
    metrics_sheet,
    questions_sheet,
)

NAN = np.nan


def summary() -> pd.DataFrame:
    rows = [
        (PRIMARY, "true", 1.5, 1.0, 2.0, 9, 8.0, 0.01, NAN),
        ("nll_top1", "true", 0.4, NAN, NAN, 9, 0.125, 0.02, 0.03),
        ("wer", "true", 0.25, 0.2, 0.3, 9, 0.75, 0.04, 0.05),
        ("wer", "permuted", 0.75, 0.7, 0.8, 9, NAN, NAN, NAN),
        ("wer", "nearest_text", 0.5, NAN, NAN, 9, NAN, NAN, NAN),
        ("wer", "true_minus_nearest_text", -0.25, -0.3, -0.2, 9, 0.0, 0.006, 0.007),
        ("facts", "ridge", 0.6, NAN, NAN, 9, 0.2, 0.008, 0.009),
    ]
    return pd.DataFrame(rows, columns=list(METRICS_COLUMNS))


def read(sheet: Sheet | None) -> dict[str, dict[str, str]]:
    """Row -> heading -> text and small print."""
    assert sheet is not None
    assert all(len(row) == len(sheet.headings) for row in sheet.rows)
    return {
        row[0].text: {h: f"{c.text} {c.small}".strip() for h, c in zip(sheet.headings, row, strict=True)} for row in sheet.rows
    }


def test_metrics_stand_by_condition_with_chance_p_and_q() -> None:
    found = read(metrics_sheet(summary()))
    assert found["Gain from the brain (nats a text)"]["True brain"] == "1.500 1.000 to 2.000"
    # The mean NLL under permuted brains is no chance level of the gain, nor the permuted condition one of an error rate.
    assert found["Gain from the brain (nats a text)"]["Chance"] == found["Word error rate"]["Chance"] == ""
    assert (
        found["Own brain is the likeliest"] | {"True brain": "0.400", "Chance": "0.125", "p": ".020", "q": ".030"}
        == found["Own brain is the likeliest"]
    )
    assert found["Word error rate"]["Permuted brain"] == "0.750 0.700 to 0.800"
    assert found["Facts named"]["q"] == ".009"
    assert not any("minus" in heading for heading in found["Word error rate"])


def test_differences_from_simple_decoders_have_a_table_with_a_caption() -> None:
    sheet = baselines_sheet(summary())
    assert read(sheet) == {
        "Word error rate": {
            "Metric": "Word error rate",
            "Decoder minus nearest text": "-0.250 -0.300 to -0.200; p = .006, q = .007",
        }
    }
    assert sheet is not None
    assert "difference below 0 is good" in sheet.note
    assert baselines_sheet(summary().head(4)) is None


def test_effects_controls_and_group() -> None:
    effects = pd.DataFrame([("wer", 0.8, 0.2, 1.4, 0.9, 0.8, 1.0, 12, NAN)], columns=list(EFFECTS_COLUMNS))
    assert read(effects_sheet(effects))["Word error rate"] == {
        "Metric": "Word error rate",
        "d": "0.800 0.200 to 1.400",
        "Superiority": "0.900 0.800 to 1.000",
        "Groups": "12",
        "Ceiling": "",
    }
    rows = [
        ("true", NAN, "abc", 9, 5.0, NAN, NAN, NAN, NAN, NAN),
        ("phase_shuffled", "3", "abc", 9, 6.0, 1.0, 0.5, 1.5, 0.01, 0.02),
    ]
    controls = read(controls_sheet(pd.DataFrame(rows, columns=list(CONTROLS_COLUMNS))))
    assert controls["True brain"]["Difference"] == ""
    assert controls["Phase shuffled"] | {"Difference": "1.000 0.500 to 1.500", "q": ".020"} == controls["Phase shuffled"]
    rows = [
        ("colour", "seen", "contains", name, value, NAN, NAN, 9, NAN, p, p)
        for name, value, p in (("true", 0.8, NAN), ("habit", 0.3, NAN), ("true_minus_habit", 0.5, 0.01))
    ]
    answers = read(questions_sheet(pd.DataFrame(rows, columns=list(QUESTIONS_COLUMNS))))["colour"]
    assert answers | {"True brain": "0.800", "No brain": "", "Habit": "0.300", "p": ".010"} == answers
    group = pd.DataFrame([("wer", "true", 0.1, NAN, NAN, 7, 0.01, 0.03, 0.02)], columns=list(GROUP_COLUMNS))
    assert read(group_sheet(group))["Word error rate"]["p (max)"] == ".030"


def test_nothing_makes_no_sheet() -> None:
    for make in (metrics_sheet, baselines_sheet, effects_sheet, controls_sheet, group_sheet, questions_sheet):
        assert make(None) is None
        assert make(pd.DataFrame(columns=["condition"])) is None
