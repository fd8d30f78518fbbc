"""Captions and questions in one run: what is decoded, which of it training asked, and the figures that follow from the texts."""

from __future__ import annotations

import json
import re
from typing import Any

import pandas as pd
import pytest
from safetensors import safe_open


def test_every_held_out_trial_is_asked_everything(questions_done: Any) -> None:
    decoded = questions_done.table("decoded")
    true = decoded[decoded["condition"] == "true"]
    trials = true["trial_id"].str.rpartition("_q-")
    per_trial = true.groupby(trials[0])["prompt"].agg(tuple)
    assert set(per_trial) == {("Describe the following image.", "What colour?", "Which animal?")}
    for row in true.itertuples():
        colour, animal = row.stimulus_id.split("-")
        expected = {"Describe the following image.": f"a {colour} {animal}", "What colour?": colour, "Which animal?": animal}
        assert row.text_true == expected[row.prompt]


def test_nothing_that_is_asked_of_a_held_out_stimulus_is_trained_on(questions_done: Any) -> None:
    path = next((questions_done.out / "sub-01" / "model").glob("*.safetensors"))
    sidecar = json.loads(path.with_suffix(".json").read_text())
    with safe_open(path, "np") as file:
        about = json.loads(file.metadata()["about"])
    events = pd.concat(pd.read_csv(p, sep="\t") for p in sorted((questions_done.out / "sub-01" / "beh").glob("*_events.tsv")))
    stimulus = events.set_index("trial_id")["stim_id"]
    trained = pd.Series(about["training_ids"]).str.rpartition("_q-")
    assert not set(stimulus[trained[0]]) & set(questions_done.table("decoded")["stimulus_id"])
    # The third text of each trial, the animal, is trained on nowhere; captions and colours of all others are.
    assert set(trained[2]) == {"1", "2"}
    assert sidecar["ExamplesLeftOut"] == len(trained) / 2
    assert sidecar["Leakage"]["SharingATargetWithTraining"] == 0


def test_figures_follow_from_the_texts(questions_done: Any) -> None:
    figures, answers, decoded = (questions_done.table(desc) for desc in ("questions", "answers", "decoded"))
    assert set(map(tuple, figures[["category", "asked"]].drop_duplicates().to_numpy())) == {
        *(("all", asked) for asked in ("all", "seen", "unseen")),
        ("animal", "unseen"),
        ("caption", "seen"),
        ("colour", "seen"),
    }
    value = figures.set_index(["category", "asked", "metric", "condition"])["value"]
    nll = decoded.set_index(["condition", "trial_id"])["nll"]
    for condition in ("true", "permuted", "none"):
        for category, which in (("colour", "seen"), ("animal", "unseen"), ("caption", "seen")):
            own = answers[answers["category"] == category]["trial_id"]
            assert value[category, which, "nll", condition] == pytest.approx(nll[condition][own].mean())
    # Animals were never asked for: what is left is the most frequent text of all, a colour.
    said = {"caption": r"an? \w+ \w+", "colour": "blue|green|red", "animal": "blue|green|red"}
    for row in answers.itertuples():
        assert re.fullmatch(said[row.category], row.habit)
    assert answers["contains"].mean() == pytest.approx(value["all", "all", "contains", "true"])
    marks = json.loads(questions_done.beh("questions").with_suffix(".json").read_text())
    assert marks["TextMix"] == {"caption": 1, "question": 1}
    assert marks["QuestionsLeftOut"] == ["Which animal?"]
