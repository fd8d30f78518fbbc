"""Sizes of effect cover what they estimate; the ceiling is what the variances of signal and noise say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bids_brainlm.evaluation.effects import (
    EFFECTS_COLUMNS,
    ceiling,
    effects_table,
    standardised_difference,
    stepped_up,
    superiority,
)

RNG = np.random.default_rng(0)


def test_the_interval_of_the_standardised_difference_covers_it() -> None:
    covered, values = 0, []
    for _ in range(300):
        found = standardised_difference(RNG.normal(0.5, 1.0, size=15), np.arange(15))
        assert found.interval is not None
        covered += found.interval[0] <= 0.5 <= found.interval[1]
        values.append(found.value)
    assert covered / 300 == pytest.approx(0.95, abs=0.04)
    assert np.mean(values) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("shift", [0.0, -8.0, 30.0, 300.0])
def test_ends_of_the_interval_are_quantiles_however_large_the_effect(shift: float) -> None:
    """Under either end, what was found is at its quantile of the noncentral t distribution."""
    values = np.random.default_rng(1).standard_normal(8) + shift
    found = standardised_difference(values, np.arange(8))
    assert found.interval is not None
    t = values.mean() / values.std(ddof=1) * 8**0.5
    ends = np.array(found.interval) / (1 - 3 / 27) * 8**0.5
    assert stats.nct.cdf(t, 7, ends) == pytest.approx([0.975, 0.025], abs=1e-6)


def test_units_that_hardly_differ_have_no_interval() -> None:
    assert standardised_difference(1 + 1e-9 * np.arange(8), np.arange(8)).interval is None


def test_texts_of_a_unit_count_once() -> None:
    values = RNG.standard_normal(12) + 1
    alone, thrice = (
        standardised_difference(values, np.arange(12)),
        standardised_difference(np.tile(values, 3), np.arange(36) % 12),
    )
    assert alone.value == pytest.approx(thrice.value)
    assert alone.n_units == thrice.n_units == 12


def test_few_units_have_no_interval_and_equal_ones_no_size() -> None:
    few = standardised_difference([1.0, 2.0, 3.0], [0, 1, 2])
    assert few.interval is None
    assert few.value == pytest.approx(2.0 * (1 - 3 / 7))
    assert np.isnan(standardised_difference(np.ones(8), np.arange(8)).value)


def test_superiority_counts_pairs_and_halves_ties() -> None:
    assert superiority([1.0, 2.0], [[1.0, 3.0], [0.0, 1.0]], [0, 1]).value == (0.5 + 1 + 0 + 1) / 4
    draws = superiority(RNG.normal(1.0, 1.0, 4000), RNG.normal(0.0, 1.0, 4000), np.arange(4000), 100)
    assert draws.value == pytest.approx(0.760, abs=0.02)  # Phi(1 / sqrt 2)
    with pytest.raises(ValueError, match="controls"):
        superiority([1.0], [1.0, 2.0], [0])


def test_the_ceiling_is_the_reliability_of_the_mean_over_repeats() -> None:
    """Variance 1 between stimuli and 2 between repeats: the mean of 4 has the reliability 1 / (1 + 2 / 4)."""
    n, repeats = 3000, 4
    stimuli = np.repeat(np.arange(n), repeats)
    scores = RNG.standard_normal(n)[stimuli] + np.sqrt(2) * RNG.standard_normal(n * repeats)
    found = ceiling(scores, stimuli, n_splits=20)
    assert found.value == pytest.approx(1 / 1.5, abs=0.03)
    assert found.n_units == n
    assert ceiling(RNG.standard_normal(n * repeats), stimuli, n_splits=5).value < 0.08


def test_no_ceiling_without_repeats() -> None:
    assert np.isnan(ceiling(RNG.standard_normal(10), np.arange(10)).value)


def test_stepping_up_is_consistent() -> None:
    r = np.linspace(0, 1, 11)
    np.testing.assert_allclose(stepped_up(stepped_up(r, 3.0), 2.0), stepped_up(r, 6.0))


def test_the_table_puts_the_better_brain_above_zero_and_leaves_unknown_texts_out() -> None:
    groups = np.arange(40) // 2
    base, gain = RNG.standard_normal(40), 1.0 + 0.3 * RNG.standard_normal(40)
    scores = {
        "wer": {"true": base - gain, "permuted": base},
        "bleu1": {"true": base + gain, "permuted": base},
        "judge": {"true": np.where(groups > 9, np.nan, base + gain), "permuted": base},
        "alone": {"true": base},
    }
    table = effects_table(scores, {"wer"}, groups, groups.astype(str), n_samples=200).set_index("metric")
    assert [*table.reset_index()] == list(EFFECTS_COLUMNS)
    assert list(table.index) == ["wer", "bleu1", "judge"]
    expected = standardised_difference(gain, groups)
    assert table.loc["wer", "d"] == pytest.approx(expected.value)
    assert table.loc["bleu1", "d"] == pytest.approx(expected.value)
    assert table.loc["judge", "n_units"] == 10
    assert table.loc["judge", "superiority"] == np.mean(gain[:20] > 0)
    assert np.isfinite(table["ceiling"]).all()
