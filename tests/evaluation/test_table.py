"""The table refuses what does not fit its schema; figures made from it are those counted by hand."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bids_brainlm.core.types import DECODED_COLUMNS
from bids_brainlm.evaluation.linear import Identified, Measure
from bids_brainlm.evaluation.matrix import Evidence, Figure
from bids_brainlm.evaluation.metrics import Facts, chosen
from bids_brainlm.evaluation.table import METRICS_COLUMNS, PRIMARY, Predictions, Sampling, phenotype, primary_of, summary, with_q

N = 24
ANIMALS = np.array(["dog", "cat", "bird"])[np.arange(N) % 3]
QUICK = Sampling(bootstrap=200, permutations=200)


def frame() -> pd.DataFrame:
    """The true brain names every animal, a permuted brain that of the next trial, no brain always the dog."""
    said = {"true": ANIMALS, "permuted": np.roll(ANIMALS, 1), "none": np.repeat("dog", N)}
    nll = {"true": 2.0, "permuted": 5.0, "none": 4.0}
    parts = []
    for condition, names in said.items():
        part = {"trial_id": [f"t{i}" for i in range(N)], "stimulus_id": [f"s{i}" for i in range(N)], "fold": 0}
        part["group"] = part["stimulus_id"]
        part |= {"condition": condition, "prompt": "What?", "text_true": [f"a {a} | the {a}" for a in ANIMALS]}
        part |= {"text_pred": [f"a {a}" for a in names], "nll": nll[condition] + np.arange(N) / 10, "n_tokens": 4}
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def evidence_of(made: Predictions) -> Evidence:
    """All permuted brains are alike, and none does as well as the own one."""
    permuted, nothing = made.of("permuted").nll, np.full(N, np.nan)
    figures = {"nll_pairwise": Figure(np.ones(N), np.full(99, 0.5)), "nll_identification": Figure(nothing, np.full(99, np.nan))}
    return Evidence(np.tile(permuted, (99, 1)), permuted - made.of("true").nll, np.full(N, 9), figures)


@pytest.fixture
def facts() -> Facts:
    return Facts({"animal": {f"s{i}": (str(a),) for i, a in enumerate(ANIMALS)}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="nll"), "lack the columns"),
        (lambda t: t.assign(extra=1), "unknown columns"),
        (lambda t: t.assign(condition="shuffled"), "unknown condition shuffled"),
        (lambda t: pd.concat([t, t.head(1)]), "occurs twice"),
        (lambda t: t.assign(nll=np.nan), "not finite"),
    ],
)
def test_what_does_not_fit_is_refused(change: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Predictions(change(frame()))  # type: ignore[operator]


def test_texts_survive_a_tsv_and_conditions_share_their_order() -> None:
    table = frame()
    table.loc[0, "text_pred"] = "a\tdog\nruns"
    table.loc[1, "text_pred"] = ""
    table = pd.concat([table[table["condition"] != "permuted"], table[table["condition"] == "permuted"][::-1]])
    made = Predictions(table[list(table.columns[::-1])])
    assert list(made.table.columns) == list(DECODED_COLUMNS)
    assert made.of("true").texts[:3] == ["a dog runs", "", "a bird"]
    assert list(made.of("permuted").table["trial_id"]) == list(made.of("true").table["trial_id"])
    assert made.of("true").references[0] == ("a dog", "the dog")
    again = Predictions(pd.read_csv(io.StringIO(made.table.to_csv(sep="\t", index=False)), sep="\t"))
    pd.testing.assert_frame_equal(again.table, made.table)


def test_summary_by_hand(facts: Facts) -> None:
    made = Predictions(frame())
    table = summary(
        made,
        chosen(["exact", "wer", "facts"]),
        evidence_of(made),
        facts,
        readouts={"ridge": facts.labels(made.of("true").stimuli)},
        sampling=QUICK,
    )
    assert list(table.columns) == list(METRICS_COLUMNS)
    rows = table.set_index(["metric", "condition"])
    assert table.loc[0, "metric"] == PRIMARY
    assert rows.loc[(PRIMARY, "true"), "value"] == pytest.approx(3.0)
    assert rows.loc[(PRIMARY, "true"), "p_value"] == 1 / 100
    assert rows.loc[("nll_pairwise", "true"), ["value", "null_mean", "p_value"]].tolist() == [1.0, 0.5, 1 / 100]
    assert "nll_identification" not in table["metric"].to_numpy()
    assert rows.loc[("nll_per_token", "none"), "value"] == pytest.approx((4 + 1.15) / 4)
    assert rows.loc[("facts", "true"), "value"] == rows.loc[("facts", "ridge"), "value"] == 1.0
    assert rows.loc[("facts", "permuted"), "value"] == 0.0
    assert rows.loc[("facts", "none"), "value"] == pytest.approx(1 / 3)
    assert rows.loc[("facts", "true"), "null_mean"] == pytest.approx(1 / 3, abs=0.05)
    assert rows.loc[("facts", "true"), "p_value"] == 1 / 201
    assert rows.loc[("facts", "none"), "p_value"] == 1.0
    assert rows.loc[("wer", "true"), "p_value"] == 1 / 201
    assert rows.loc[("wer", "permuted"), "value"] == pytest.approx(0.5)
    assert (table["n"] == N).all()
    found = primary_of(table, 99)
    assert found is not None
    assert found.significant


def test_summary_without_controls_facts_or_units(facts: Facts) -> None:
    few = frame()
    few = few[(few["condition"] == "true") & few["trial_id"].isin(["t0", "t1", "t2"])]
    table = summary(Predictions(few), chosen(["bleu1", "facts"]), sampling=QUICK)
    assert set(table["metric"]) == {"nll", "nll_per_token", "bleu1"}
    assert table[["ci_low", "ci_high", "p_value", "null_mean"]].isna().all().all()
    assert primary_of(table, 99) is None


def test_texts_told_by_a_readout_have_rows_with_their_chance() -> None:
    """Own brains tell every text; in 3 of 99 permutations the others do as well."""
    made, null = Predictions(frame()), np.zeros((99, N))
    null[:3] = 1.0
    measure = Measure(np.ones(N), null)
    partly = Measure(np.where(np.arange(N) == 0, np.nan, 1.0), null)
    table = summary(made, [], identified={"ridge": Identified(measure, partly, measure)}, sampling=QUICK)
    rows = table.set_index("metric")
    assert (rows.loc[["readout_pairwise", "readout_identification", "readout_top10"], "condition"] == "ridge").all()
    assert rows.loc["readout_pairwise", ["value", "null_mean"]].tolist() == pytest.approx([(96 + 1.5) / 99, 0.5])
    assert rows.loc["readout_identification", ["value", "null_mean"]].tolist() == pytest.approx([1.0, 3 / 99])
    assert rows.loc["readout_identification", "n"] == N - 1
    assert (rows.loc[["readout_pairwise", "readout_identification", "readout_top10"], "p_value"] == 4 / 100).all()


def test_metrics_that_lack_something_are_left_out_and_others_use_what_is_there(resources: Mapping[str, Any]) -> None:
    made, both = Predictions(frame()), chosen(["meteor", "bertscore", "exact"])
    assert set(summary(made, both, sampling=QUICK)["metric"]) == {"nll", "nll_per_token", "exact"}
    rows = summary(made, both, resources=resources, sampling=QUICK).set_index(["metric", "condition"])["value"]
    assert rows["bertscore", "true"] == pytest.approx(1.0)
    assert rows["meteor", "true"] > rows["meteor", "permuted"]


def test_units_are_groups() -> None:
    """Two groups are too few for an interval, however many stimuli there are."""
    table = frame()
    assert summary(Predictions(table), [], sampling=QUICK)["ci_low"].notna().all()
    table["group"] = np.where(np.arange(len(table)) % 2, "story a", "story b")
    assert summary(Predictions(table), [], sampling=QUICK)["ci_low"].isna().all()


def test_several_factors_have_a_row_each() -> None:
    made = Predictions(frame())
    both = Facts({"animal": {f"s{i}": (str(a),) for i, a in enumerate(ANIMALS)}, "article": {f"s{i}": ("a",) for i in range(N)}})
    rows = summary(made, chosen(["facts"]), facts=both, sampling=QUICK).set_index(["metric", "condition"])["value"]
    assert rows["facts", "permuted"] == pytest.approx((rows["facts_animal", "permuted"] + rows["facts_article", "permuted"]) / 2)
    assert rows["facts_article", "none"] == 1.0


def test_facts_are_those_of_the_texts_that_are_to_tell_them(facts: Facts) -> None:
    """Every second text answers a question; what it says of the animal counts for nothing, whoever says it."""
    telling = np.arange(N) % 2 == 0
    table = frame()
    table.loc[table["trial_id"].isin([f"t{i}" for i in np.flatnonzero(~telling)]), "text_pred"] = "red"
    named = np.where(telling[:, None], ANIMALS[:, None], "red")
    settled = {"readouts": {"ridge": named}, "telling": telling, "sampling": QUICK}
    rows = summary(Predictions(table), chosen(["facts"]), facts=facts, **settled).set_index(["metric", "condition"])
    assert rows["value"]["facts", "true"] == rows["value"]["facts", "ridge"] == 1.0
    assert rows["n"]["facts", "true"] == telling.sum()
    assert rows["value"]["facts", "none"] == np.mean(ANIMALS[telling] == "dog")


def test_phenotype_is_one_row_a_participant() -> None:
    made = Predictions(frame())
    one = summary(made, chosen(["exact"]), evidence_of(made), sampling=QUICK)
    table = phenotype({"sub-01": one, "sub-02": one})
    assert list(table["participant_id"]) == ["sub-01", "sub-02"]
    assert table[PRIMARY].tolist() == pytest.approx([3.0, 3.0])
    assert {"p_value", "n_texts", "exact_true", "exact_none", "nll_permuted"} <= set(table.columns)


def test_q_is_over_every_p_but_the_primary_one() -> None:
    made = Predictions(frame())
    table = summary(made, chosen(["exact", "bleu1", "wer"]), evidence_of(made), sampling=QUICK)
    tested = table[table["p_value"].notna()]
    assert table.loc[0, "metric"] == PRIMARY
    assert np.isnan(table.loc[0, "q_value"])
    assert len(tested) == 5
    expected = stats.false_discovery_control(tested["p_value"][1:])
    np.testing.assert_allclose(tested["q_value"][1:], expected)
    assert table["q_value"].notna().sum() == 4
    more = with_q(pd.concat([table, table.iloc[[1]].assign(metric="slope", p_value=1.0)], ignore_index=True))
    np.testing.assert_allclose(more["q_value"].dropna(), [*(expected * 5 / 4), 1.0])
