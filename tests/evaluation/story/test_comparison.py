"""Windows in which texts are compared, null texts, and circular shifts, against loops and known distributions."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bids_brainlm.evaluation.metrics import get
from bids_brainlm.evaluation.story.comparison import (
    ALL,
    RATE,
    STORY_COLUMNS,
    Pairing,
    figures,
    long_windows,
    rate_pairs,
    score_pairs,
    shift_test,
)

OPTIONS = {"seconds": 2.0, "longer": 20.0, "overlap": 16.0, "permutations": 500, "seed": 0}


def test_a_perfect_text_is_better_than_every_shift() -> None:
    test = shift_test([Pairing("a", np.eye(12), 2)], "higher", 1000, 0)
    assert test.value == 1.0
    assert test.shifted == 0.0
    assert test.n_shifts == 11  # the small ones count, too
    assert test.p == 1 / (test.n_shifts + 1)
    lower = shift_test([Pairing("a", 1 - np.eye(12), 2)], "lower", 1000, 0)
    assert (lower.value, lower.shifted, lower.p) == (0.0, 1.0, test.p)


def test_shifts_are_circular_and_no_smaller_than_the_lag() -> None:
    scores = np.random.default_rng(0).random((9, 9))
    expected = [
        np.mean([scores[i, (i + shift) % 9] for i in range(9)]) for shift in range(9) if min(shift, 9 - shift) >= 3
    ]  # fmt: skip
    np.testing.assert_allclose(np.sort(Pairing("a", scores, 3).shifted() / 9), np.sort(expected))


def test_few_combinations_are_all_used_and_many_are_drawn() -> None:
    rng = np.random.default_rng(1)
    pairings = [Pairing(name, rng.random((n, n)), 1) for name, n in (("a", 4), ("b", 6))]
    test = shift_test(pairings, "higher", 1000, 0)
    sums = [sum(pair) / 10 for pair in itertools.product(*(p.turned() for p in pairings))]
    observed = sum(np.trace(p.scores) for p in pairings) / 10
    assert test.n_shifts == 4 * 6 - 1
    assert test.value == pytest.approx(observed)
    assert test.p == pytest.approx(sum(value >= observed - 1e-6 for value in sums) / 24)
    assert shift_test(pairings, "higher", 10, 0).n_shifts == 10


def test_a_story_too_short_to_shift_has_a_value_and_no_p() -> None:
    short, long = Pairing("a", np.eye(3), 2), Pairing("b", np.eye(8), 2)
    alone = shift_test([short], "higher", 100, 0)
    assert alone.value == 1.0
    assert np.isnan(alone.p)
    both = shift_test([short, long], "higher", 100, 0)
    assert (both.n_windows, both.n_shifts) == (11, 7)
    assert both.p == 1 / 8


def test_the_start_of_a_story_is_scored_and_not_tested() -> None:
    """What is right there alone, as a language model that knows how stories begin will be, is no evidence."""
    scores = np.full((9, 9), 0.5)
    scores[0] = [1.0] + [0.0] * 8
    scores[1:, 0] = 0.0
    test = shift_test([Pairing("a", scores, 1, untested=1)], "higher", 100, 0)
    assert test.value == pytest.approx((1.0 + 8 * 0.5) / 9)
    assert (test.p, test.n_shifts) == (1.0, 7)
    assert shift_test([Pairing("a", scores, 1)], "higher", 100, 0).p == 1 / 9


def test_windows_of_which_a_part_is_missing_are_not_compared() -> None:
    """In another length they would tell which text belongs to which."""
    assert long_windows(range(25), ["w"] * 25, 2.0, 20.0) == {0: "w " * 9 + "w", 1: "w " * 9 + "w"}
    assert set(long_windows([*range(3, 12), *range(13, 30)], ["w"] * 26, 2.0, 10.0)) == {1, 3, 4, 5}
    # Windows of 3 s in ones of 10 s: 4 begin in the first, 3 in the second and in the third.
    assert [len(text.split()) for text in long_windows(range(10), ["w"] * 10, 3.0, 10.0).values()] == [4, 3, 3]


def test_all_scores_equal_is_no_evidence() -> None:
    assert shift_test([Pairing("a", np.full((9, 9), 0.1), 1)], "higher", 100, 0).p == 1.0
    assert shift_test([Pairing("a", np.full((9, 9), 0.1), 1)], "lower", 100, 0).p == 1.0


def test_p_is_uniform_where_text_and_truth_drift_without_each_other() -> None:
    """Both sides are autocorrelated, as stories and what is decoded from slow responses are."""
    rng = np.random.default_rng(2)

    def drift(n: int) -> np.ndarray:
        series = rng.standard_normal(3 * n)
        for i in range(1, series.size):
            series[i] += 0.7 * series[i - 1]
        return series[-n:]

    p = [
        shift_test([Pairing(s, np.outer(drift(40), drift(40)), 1) for s in "ab"], "higher", 99, seed).p for seed in range(300)
    ]  # fmt: skip
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_the_score_of_the_rate_is_the_correlation() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(30), rng.random(30)
    assert np.diag(rate_pairs(a, b)).mean() == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert not rate_pairs(np.ones(30), b).any()


def test_every_text_is_scored_for_every_window() -> None:
    texts, said = ["a hare ran", "an owl", ""], ["a hare", "the owl flew", "an owl"]
    scores = score_pairs(get("wer"), texts, said)
    for i, j in itertools.product(range(3), repeat=2):
        assert scores[i, j] == get("wer")([texts[i]], [(said[j],)])[0]


def _told(n_windows: int = 120) -> pd.DataFrame:
    """`right` says what was said, `wrong` what was said in other windows; two null texts; one of two stories is silent late."""
    rng = np.random.default_rng(4)
    rows = []
    for story in ("fox", "hare"):
        said = [" ".join(rng.choice([f"w{i}" for i in range(500)], 3)) for _ in range(n_windows)]
        if story == "hare":
            said[100:] = [""] * (n_windows - 100)
        texts = {"right": said, "wrong": [said[i] for i in rng.permutation(n_windows)]}
        nulls = {f"{k}": [" ".join(rng.choice([f"w{i}" for i in range(500)], 3)) for _ in said] for k in (1, 2)}
        for k in range(n_windows):
            for name, own in (*texts.items(), *nulls.items()):
                draw = int(name) if name.isdigit() else 0
                rows.append((story, "r1", "" if draw else name, draw, k, len(said[k].split()) + 0.1 * (k % 3), said[k], own[k]))
    columns = ["story", "run", "decoder", "draw", "window", "words_pred", "text_true", "text_pred"]
    return pd.DataFrame(rows, columns=columns).sample(frac=1, random_state=0)


def test_the_table_says_who_is_right() -> None:
    table = figures(_told(), [get("wer"), get("bleu1")], **OPTIONS)
    assert list(table.columns) == list(STORY_COLUMNS)
    assert set(table["decoder"]) == {"right", "wrong", RATE}
    assert set(table["story"]) == {"fox", "hare", ALL}
    one = table.set_index(["story", "decoder", "metric"]).sort_index()
    assert one.loc[(ALL, "right", "wer"), "value"] == 0.0
    assert one.loc[(ALL, "right", "bleu1"), "value"] == pytest.approx(1.0)
    assert one.loc[("fox", "right", "bleu1"), "p"] == 1 / 11  # 12 long windows, all but the first shifted by 1, ..., 10
    assert one.loc[(ALL, "right", "bleu1"), "p"] <= 0.05
    assert one.loc[(ALL, "wrong", "bleu1"), "p"] > 0.05
    assert (one.loc[(ALL, "right"), "z"] > 10).all()
    # Long windows in which nobody speaks are not compared.
    assert one.loc[("hare", "right", "wer"), "n_windows"] == 10
    assert one.loc[(ALL, "right", "wer"), "n_windows"] == 22
    assert one.loc[("hare", RATE, "correlation"), "value"] > 0.9
    assert one.loc[("hare", RATE, "correlation"), "p"] < 0.05
    assert one.loc[("hare", RATE, "correlation"), "n_windows"] == 120


def test_null_texts_are_scored_like_those_of_a_decoder() -> None:
    told = _told()
    table = figures(told, [get("bleu1")], **OPTIONS).set_index(["story", "decoder"])
    as_decoders = told[told["draw"] > 0].assign(decoder=lambda t: "null" + t["draw"].astype(str), draw=0)
    other = figures(as_decoders, [get("bleu1")], **OPTIONS).set_index(["story", "decoder"])
    for story in ("fox", "hare", ALL):
        draws = other.loc[[(story, "null1"), (story, "null2")], "value"].to_numpy(float)
        row = table.loc[(story, "wrong")]
        assert row["null"] == pytest.approx(draws.mean())
        assert row["z"] == pytest.approx((row["value"] - draws.mean()) / draws.std(ddof=1))
    assert other["null"].isna().all()


def test_stories_shorter_than_a_long_window_have_a_word_rate_alone() -> None:
    columns = ["story", "run", "decoder", "draw", "window", "text_true", "text_pred", "words_pred"]
    rows = [("a", "r", d, n, k, "the hare", "a", k) for d, n in (("generate", 0), ("", 1), ("", 2)) for k in range(5)]
    table = figures(pd.DataFrame(rows, columns=columns), [get("wer")], **OPTIONS)
    assert table[["story", "decoder"]].to_numpy().tolist() == [["a", RATE], [ALL, RATE]]
