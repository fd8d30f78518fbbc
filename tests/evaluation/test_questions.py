"""Scores by kind of question are those counted by hand, and answers out of habit are told from answers out of the brain."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bids_brainlm.evaluation.matrix import Evidence
from bids_brainlm.evaluation.metrics import chosen, get
from bids_brainlm.evaluation.questions import ANSWERS_COLUMNS, QUESTIONS_COLUMNS, Asked, question_tables
from bids_brainlm.evaluation.table import Predictions, Sampling, text_scores

N = 24
SAMPLING = Sampling(bootstrap=200, permutations=500)
COLOURS = np.array(["red", "red", "blue"])[np.arange(N) % 3]
PLACES = np.array(["the park", "a beach"])[np.arange(N) % 2]


def made(colours: np.ndarray) -> Predictions:
    """Two questions about each of 24 stimuli: colours as told, every place right but in more words."""
    parts = []
    for condition, told in (("true", colours), ("permuted", np.roll(colours, 1)), ("none", np.repeat("red", N))):
        for number, right, said in ((1, COLOURS, told), (2, PLACES, [f"It is in {place}." for place in PLACES])):
            ids = {"trial_id": [f"t{i}_q-{number}" for i in range(N)], "stimulus_id": [f"s{i}" for i in range(N)], "fold": 0}
            rest = {"condition": condition, "prompt": "?", "text_true": right, "text_pred": said, "nll": 1.0, "n_tokens": 1}
            parts.append(pd.DataFrame(ids | {"group": ids["stimulus_id"]} | rest))
    return Predictions(pd.concat(parts, ignore_index=True))


ASKED = Asked(np.repeat(["colour", "place"], N), np.arange(2 * N) < N + 6, ["red"] * N + ["the park"] * N)


def tables(predictions: Predictions, asked: Asked = ASKED) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    lead = np.r_[np.full(N, 2.0), np.zeros(N)] + rng.normal(0, 0.1, 2 * N)
    null = 1.0 + rng.normal(0, 1, (99, 2 * N))
    evidence = Evidence(null, lead, np.full(2 * N, 9), {})
    metrics = chosen(["exact", "rouge_l", "facts", "clipscore"])
    scores = text_scores(predictions, metrics, {})
    return question_tables(predictions, asked, metrics, evidence, {}, SAMPLING, scores)


def test_every_part_is_scored_and_parts_make_up_the_whole() -> None:
    figures, answers = tables(made(COLOURS))
    assert list(figures) == list(QUESTIONS_COLUMNS)
    assert list(answers) == list(ANSWERS_COLUMNS)
    parts = figures[["category", "asked"]].drop_duplicates().to_numpy().tolist()
    place = [["place", "all"], ["place", "seen"], ["place", "unseen"]]
    assert parts == [["all", "all"], ["all", "seen"], ["all", "unseen"], ["colour", "seen"], *place]
    assert set(figures["metric"]) == {"nll_permuted_minus_true", "nll", "nll_per_token", "exact", "contains", "rouge_l"}
    value = figures.set_index(["category", "asked", "metric", "condition"])
    assert value.loc[("colour", "seen", "exact", "true"), "value"] == 1
    assert value.loc[("colour", "seen", "exact", "permuted"), "value"] == pytest.approx(1 / 3)
    assert value.loc[("colour", "seen", "exact", "none"), "value"] == pytest.approx(2 / 3)
    assert value.loc[("place", "all", "exact", "true"), "value"] == 0
    assert value.loc[("place", "all", "contains", "true"), "value"] == 1
    assert value.loc[("place", "all", "contains", "habit"), "value"] == pytest.approx(1 / 2)
    for metric, condition in (
        ("contains", "true"),
        ("rouge_l", "permuted"),
        ("nll_permuted_minus_true", "true"),
        ("exact", "habit"),
    ):
        rows = figures[(figures["metric"] == metric) & (figures["condition"] == condition)].set_index(["category", "asked"])
        total = rows["value"] * rows["n"]
        assert rows.loc[("all", "all"), "n"] == 2 * N
        for whole, pieces in (
            (("all", "all"), [("colour", "seen"), ("place", "all")]),
            (("place", "all"), [("place", "seen"), ("place", "unseen")]),
        ):
            assert total[whole] == pytest.approx(sum(total[piece] for piece in pieces))
            assert rows.loc[whole, "n"] == sum(rows.loc[piece, "n"] for piece in pieces)


def test_habit_is_beaten_by_answers_from_the_brain_alone() -> None:
    """A decoder that always says the most frequent answer has the accuracy of habit, and no difference from it."""
    brain, habit = (
        tables(made(colours))[0].set_index(["category", "asked", "metric", "condition"])
        for colours in (COLOURS, np.repeat("red", N))
    )
    own = ("colour", "seen", "exact")
    for found, right, p in ((brain, 1.0, 0.01), (habit, 2 / 3, None)):
        assert found.loc[(*own, "true"), "value"] == pytest.approx(right)
        assert found.loc[(*own, "habit"), "value"] == pytest.approx(2 / 3)
        assert found.loc[(*own, "true_minus_habit"), "value"] == pytest.approx(right - 2 / 3)
        assert (
            found.loc[(*own, "true_minus_habit"), "p_value"] < p if p else found.loc[(*own, "true_minus_habit"), "p_value"] == 1
        )


def test_the_likelihood_test_is_that_of_the_category() -> None:
    rows = tables(made(COLOURS))[0].set_index(["metric", "category", "asked"]).loc["nll_permuted_minus_true"]
    assert rows.loc[("colour", "seen"), "value"] == pytest.approx(2, abs=0.1)
    assert rows.loc[("place", "all"), "value"] == pytest.approx(0, abs=0.1)
    assert rows.loc[("place", "unseen"), "n"] == N - 6


def test_groups_are_resampled_and_q_values_are_of_the_whole_table() -> None:
    figures, _ = tables(made(COLOURS))
    known = figures["p_value"].notna()
    np.testing.assert_allclose(figures.loc[known, "q_value"], stats.false_discovery_control(figures.loc[known, "p_value"]))
    assert figures.loc[~known, "q_value"].isna().all()
    few = figures[(figures["asked"] == "seen") & (figures["category"] == "place") & (figures["metric"] == "rouge_l")]
    assert few["n"].eq(6).all()
    # Below six units there is no interval, however many texts they have.
    twice = made(COLOURS).table.assign(group="g" + (made(COLOURS).table["stimulus_id"].str[1:].astype(int) // 6).astype(str))
    assert tables(Predictions(twice))[0]["ci_low"].isna().all()


def test_answers_one_by_one() -> None:
    _, answers = tables(made(np.repeat("red", N)))
    assert answers["category"].tolist() == ["colour"] * N + ["place"] * N
    assert answers["asked"].tolist() == ["seen"] * (N + 6) + ["unseen"] * (N - 6)
    assert answers["exact"].tolist() == [*(COLOURS == "red").astype(int), *[0] * N]
    assert answers["contains"].tolist()[N:] == [1] * N
    assert answers["habit"][0] == "red"


def test_contains_takes_whole_words_in_a_row() -> None:
    texts = ["It's in the park, red.", "the red park", "carpark the", "The Park"]
    np.testing.assert_array_equal(get("contains")(texts, [("the park",)] * 4), [1, 0, 0, 1])
    np.testing.assert_array_equal(get("contains")(["", "red"], [("...",), ("!", "RED")]), [0, 1])
