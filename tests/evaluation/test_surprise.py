"""Bins hold what they say; lines through clustered values against least squares, with tests that hold their level."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.evaluation.matrix import Evidence, Figure
from bids_brainlm.evaluation.resampling import line
from bids_brainlm.evaluation.surprise import SURPRISE_COLUMNS, bins, measures, slopes, surprise_of
from bids_brainlm.evaluation.table import METRICS_COLUMNS, Predictions, Sampling

N, K = 60, 20
QUICK = Sampling(bootstrap=200, permutations=200)


def told(effect: float) -> tuple[Predictions, Evidence]:
    """Texts of 2 to 5 tokens in 12 groups; the brain is worth ``effect`` nats a token for every nat of surprise above 2."""
    rng = np.random.default_rng(0)
    n_tokens, surprise = rng.integers(2, 6, N), rng.uniform(2, 6, N)
    nll = {"none": surprise * n_tokens, "permuted": (surprise + 0.1) * n_tokens}
    permuted = nll["permuted"] + rng.normal(0, 0.05, (K, N)) * n_tokens
    nll["true"] = nll["permuted"] - effect * (surprise - 2) * n_tokens
    frame = pd.DataFrame({"trial_id": [f"t{i}" for i in range(N)], "stimulus_id": [f"s{i}" for i in range(N)], "fold": 0})
    frame = frame.assign(group=[f"g{i % 12}" for i in range(N)], prompt="", text_true="a", text_pred="b", n_tokens=n_tokens)
    parts = [frame.assign(condition=name, nll=values) for name, values in nll.items()]
    pairwise = (permuted > nll["true"]).mean(axis=0)
    evidence = Evidence(
        permuted, permuted.mean(axis=0) - nll["true"], np.full(N, K), {"nll_pairwise": Figure(pairwise, np.zeros(K))}
    )
    return Predictions(pd.concat([parts[2], *parts[:2]], ignore_index=True)), evidence


def test_surprise_and_measures_by_hand() -> None:
    predictions, evidence = told(0.2)
    none, true = predictions.of("none"), predictions.of("true")
    n_tokens = true.table["n_tokens"].to_numpy()
    np.testing.assert_allclose(surprise_of(predictions), none.nll / n_tokens)
    found = measures(predictions, evidence)
    for i in range(N):
        others = evidence.exchanged[:, i]
        assert found["pairwise"][i] == np.mean([nll > true.nll[i] for nll in others])
        assert found["specificity"][i] == pytest.approx((others.mean() - true.nll[i]) / n_tokens[i])


def test_bins_hold_equally_many_texts_in_order() -> None:
    predictions, evidence = told(0.2)
    table = bins(predictions, evidence, QUICK)
    assert list(table.columns) == list(SURPRISE_COLUMNS)
    assert list(table["measure"].unique()) == ["pairwise", "specificity"]
    for measure, values in measures(predictions, evidence).items():
        rows = table[table["measure"] == measure]
        assert list(rows["bin"]) == [1, 2, 3, 4, 5]
        assert list(rows["n"]) == [N // 5] * 5
        assert (rows["surprise_high"].to_numpy()[:-1] <= rows["surprise_low"].to_numpy()[1:]).all()
        assert np.average(rows["value"], weights=rows["n"]) == pytest.approx(values.mean())
        assert rows["surprise"].mean() == pytest.approx(surprise_of(predictions).mean())
    assert ((table["ci_low"] <= table["value"]) & (table["value"] <= table["ci_high"]))[table["ci_low"].notna()].all()


def test_a_gain_that_grows_with_surprise_is_found_and_its_slope_is_right() -> None:
    predictions, evidence = told(0.2)
    table = slopes(predictions, evidence, QUICK).set_index("metric")
    assert list(table.reset_index()[list(METRICS_COLUMNS)].columns) == list(METRICS_COLUMNS)
    row = table.loc["surprise_slope_specificity"]
    assert row["value"] == pytest.approx(0.2, abs=0.01)
    assert row["ci_low"] < row["value"] < row["ci_high"]
    assert row["p_value"] < 0.01
    table = slopes(*told(0.0), QUICK).set_index("metric")
    assert abs(table.loc["surprise_slope_specificity", "value"]) < 0.01
    assert table.loc["surprise_slope_specificity", "p_value"] > 0.01


def test_fewer_texts_than_bins() -> None:
    predictions, evidence = told(0.2)
    few = predictions.table[predictions.table["trial_id"].isin(["t0", "t1", "t2"])]
    pairwise = Figure(evidence.figures["nll_pairwise"].values[:3], np.zeros(K))
    table = bins(
        Predictions(few),
        Evidence(evidence.exchanged[:, :3], evidence.specificity[:3], np.full(3, K), {"nll_pairwise": pairwise}),
        QUICK,
    )
    assert list(table["n"]) == [1, 1, 1] * 2
    assert table["ci_low"].isna().all()


def clustered(rng: np.random.Generator, slope: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """20 units of 5 values; both x and y have a part that a unit shares."""
    units = np.repeat(np.arange(20), 5)
    x = rng.standard_normal(20)[units] + rng.standard_normal(100)
    return x, slope * x + rng.standard_normal(20)[units] + rng.standard_normal(100), units


def test_a_line_is_that_of_least_squares() -> None:
    x, y, units = clustered(np.random.default_rng(0), 0.7)
    found = line(x, y, units, 500, 500)
    assert found.slope == pytest.approx(np.polyfit(x, y, 1)[0])
    assert found.n == 100
    few = line(x, y, units // 5)
    assert (few.interval, few.p_value) == (None, None)
    assert np.isnan(line(np.ones(100), y, units).slope)
    with pytest.raises(ValueError, match="expected"):
        line(x, y[1:], units)


def test_the_tests_of_a_line_hold_their_level_though_values_of_a_unit_are_alike() -> None:
    """An ordinary test would reject more than twice as often here."""
    rng = np.random.default_rng(1)
    found = [line(*clustered(rng), 300, 300) for _ in range(400)]
    assert 0.02 < np.mean([one.p_value <= 0.05 for one in found]) < 0.08
    covered = [one.interval[0] <= 0 <= one.interval[1] for one in found]
    assert 0.90 < np.mean(covered) < 0.98
    strong = [line(*clustered(rng, 1.0), 300, 300) for _ in range(20)]
    assert np.mean([one.p_value <= 0.05 for one in strong]) > 0.9
