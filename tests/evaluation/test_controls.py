"""Controls are scored as a plain loop would, and compared text by text with the true brain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bids_brainlm.core.types import Examples
from bids_brainlm.evaluation.controls import CONTROLS_COLUMNS, Condition, control_nll, control_table
from bids_brainlm.language.render import render
from bids_brainlm.models.fusion import BrainLM, collate
from bids_brainlm.registry import interventions

Speaker = Callable[[str], tuple[BrainLM, Any]]


def test_every_control_is_scored_with_its_own_brains(speaker: Speaker, examples: Examples) -> None:
    model, text = speaker("gpt2")
    rendered = [render(prompt, text, 3, "chat") for prompt in examples.prompts]
    conditions = [Condition(name, 3, "abc") for name in interventions.names()]
    found, lacking = control_nll(model, examples, rendered, conditions, 5)
    assert lacking == {}
    for condition in conditions:
        moved = interventions.get(condition.name)(examples, 3)
        wanted = [float(model.nll(collate([item], moved.gather([i])))[0]) for i, item in enumerate(rendered)]
        np.testing.assert_allclose(found[condition], wanted, rtol=1e-5, atol=1e-4)


def test_what_cannot_be_done_is_told_and_the_rest_is_done(speaker: Speaker, examples: Examples) -> None:
    model, text = speaker("gpt2")
    some = examples.take([0, 1, 4, 5])
    rendered = [render(prompt, text, 3, "chat") for prompt in some.prompts]
    found, lacking = control_nll(model, some, rendered, [Condition(n, 0, "a") for n in ("phase_shuffled", "mean")], 5)
    assert [condition.name for condition in found] == ["mean"]
    assert "a run has 2 test row(s)" in lacking["phase_shuffled"]


def test_the_table_pools_folds_and_tests_by_whole_groups() -> None:
    rng = np.random.default_rng(0)
    units = [np.repeat([f"g{k}{i}" for i in range(10)], 2) for k in (0, 1)]
    folds = []
    for k in (0, 1):
        true = rng.uniform(5, 9, 20)
        values = {"true": true, "mean": true + rng.normal(1.0, 0.3, 20), "noise": true + np.resize([0.5, -0.5], 20), "odd": true}
        folds.append({Condition(name, 42 + k, f"{k}" * 20): nll for name, nll in values.items() if k == 0 or name != "odd"})
    table = control_table(folds, units, 500)
    assert list(table) == list(CONTROLS_COLUMNS)
    assert table["condition"].tolist() == ["true", "mean", "noise"]  # what one fold lacks cannot be pooled
    assert table["seed"].tolist() == ["", "42+43", "42+43"]
    assert set(table["weights"]) == {"0" * 12 + "+" + "1" * 12}
    rows = table.set_index("condition")
    true, mean = (
        np.concatenate([values for fold in folds for c, values in fold.items() if c.name == n]) for n in ("true", "mean")
    )
    assert rows.loc["mean", "difference"] == pytest.approx((mean - true).mean())
    assert rows.loc["mean", "nll"] == pytest.approx(mean.mean())
    assert rows.loc["mean", "ci_low"] < rows.loc["mean", "difference"] < rows.loc["mean", "ci_high"]
    assert rows.loc["mean", "p_value"] < 0.001
    # Within each group +.5 and -.5 cancel: text by text one could think otherwise.
    assert rows.loc["noise", "p_value"] == 1.0
    assert np.isnan(rows.loc["true", ["difference", "p_value", "q_value"]].astype(float)).all()


@pytest.mark.parametrize("fields", [("", 0, "a"), ("mean", -1, "a"), ("mean", 0, "")])
def test_a_condition_lacks_nothing(fields: tuple[str, int, str]) -> None:
    with pytest.raises(ValueError, match="a condition has a name"):
        Condition(*fields)
