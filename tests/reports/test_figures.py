"""Figures show what they are given: marks at the values, a ring at the best epoch, the same bytes each time."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from bids_brainlm.evaluation.surprise import SURPRISE_COLUMNS
from bids_brainlm.reports import figures, panels


def rows() -> pd.DataFrame:
    table = [
        ("nll_permuted_minus_true", "true", 1.5, 1.0, 2.0, 9.0),
        ("facts", "true", 0.6, 0.5, 0.7, 0.2),
        ("facts", "permuted", 0.2, 0.1, 0.3, np.nan),
        ("facts", "ridge", 0.4, np.nan, np.nan, np.nan),
        ("wer", "true", 0.5, 0.4, 0.6, np.nan),
        ("wer", "permuted", 1.4, 1.3, 1.5, np.nan),
    ]
    frame = pd.DataFrame(table, columns=["metric", "condition", "value", "ci_low", "ci_high", "null_mean"])
    return frame.assign(n=20, p_value=0.01)


def drawn(figure: Figure) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for axis in figure.axes for line in axis.lines]


def test_metrics_figure_has_a_mark_an_interval_and_chance_for_each_value() -> None:
    figure = figures.metrics_figure(rows())
    xs = [x for x, _ in drawn(figure)]
    for value in (0.6, 0.2, 0.4, 0.5, 1.4):
        assert [value] in xs
    assert [0.5, 0.7] in xs  # an interval
    assert [0.2, 0.2] in xs  # chance
    assert len(xs) == 5 + 4 + 1  # ridge has no interval; the primary test is not in this figure
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["true brain", "permuted brain", "ridge readout", "chance"]


def test_group_figure_has_a_line_a_participant() -> None:
    figure = figures.group_figure({"sub-01": rows(), "sub-02": rows()}, ("nll_permuted_minus_true", "facts", "absent"))
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["Gain from the brain (nats a text)", "Facts named"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["sub-01", "sub-02"]


def test_group_figure_leaves_a_participant_without_a_metric_out_of_its_panel() -> None:
    table = rows()
    figure = figures.group_figure({"sub-01": table[table["metric"] != "facts"], "sub-02": table}, ("facts",))
    (axis,) = figure.axes
    heights = [float(np.mean(line.get_ydata())) for line in axis.get_lines()]
    assert heights
    assert all(0.5 < height < 1.5 for height in heights)


def test_training_curves_mark_the_best_epoch() -> None:
    history = pd.DataFrame(
        {
            "phase": ["a"] * 3 + ["b"],
            "epoch": [0, 1, 2, 0],
            "train_loss": [3.0, 2.0, 1.0, 1.0],
            "validation_loss": [3.0, 2.0, 2.5, np.nan],
        }
    )
    figure = figures.training_curves(history)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["Phase: a", "Phase: b"]
    assert ([2], [2.0]) in drawn(figure)
    assert ([1, 2, 3], [3.0, 2.0, 1.0]) in drawn(figure)
    folds = pd.concat([history.assign(fold=0), history.assign(fold=1, validation_loss=history["validation_loss"] + 1)])
    assert ([2], [2.5]) in drawn(figures.training_curves(folds))


def test_histogram_counts_known_values_and_survives_none() -> None:
    figure = figures.histogram(np.r_[np.linspace(-1, 1, 101), np.nan], "r", bins=10)
    assert sum(patch.get_height() for patch in figure.axes[0].patches) == 101
    assert figures.histogram(np.full(5, np.nan), "r").axes[0].get_title(loc="left") == "no values"


def test_encodings_are_valid_not_empty_and_repeatable() -> None:
    svg = figures.as_svg(figures.metrics_figure(rows()))
    assert svg == figures.as_svg(figures.metrics_figure(rows()))
    root = ET.fromstring(svg)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 50
    assert figures.as_png(figures.metrics_figure(rows())).startswith(b"\x89PNG")


def test_panels_say_their_numbers_in_words() -> None:
    panel = panels.metrics(rows())
    assert "Facts named: true brain 0.60, permuted brain 0.20, ridge readout 0.40" in panel.alt
    assert panel.uri.startswith("data:image/svg+xml;base64,")
    history = pd.DataFrame({"phase": ["a"], "epoch": [0], "train_loss": [3.0], "validation_loss": [2.0]})
    assert "a: training 3.00, validation 2.00" in panels.training(history).alt
    assert panels.group({"sub-01": rows()}).image


def test_figures_by_surprise_show_every_bin_and_chance() -> None:
    rows = [
        (measure, i, i, i + 1, i + 0.5, 0.1 * i, np.nan if i == 3 else 0.0, np.nan if i == 3 else 0.1 * i + 0.1, 9, 9)
        for measure in ("pairwise", "specificity")
        for i in range(1, 6)
    ]
    table = pd.DataFrame(rows, columns=list(SURPRISE_COLUMNS))
    figure = figures.surprise_figure(table)
    for axis, chance in zip(figure.axes, (0.5, 0.0), strict=True):
        heights = [line.get_ydata()[0] for line in axis.lines if line.get_marker() == "o"]
        assert heights == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
        assert len(axis.lines) == 1 + 1 + 5 + 4  # chance, path, points, the intervals there are
        assert set(axis.lines[0].get_ydata()) == {chance}
    names = [f"surprise_slope_{measure}" for measure in ("pairwise", "specificity")]
    slopes = pd.DataFrame({"metric": names, "condition": "true", "value": [0.02, 0.1], "p_value": [0.03, np.nan]})
    panel = panels.surprise(table, slopes, trained=False)
    assert "nothing of it trained" in panel.caption
    assert "+0.020 (p = .030) and +0.100" in panel.caption
    assert "after training" in panels.surprise(table, slopes, trained=True).caption
