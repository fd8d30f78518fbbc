"""Corrections against scipy's, and the error rates they promise on simulated nulls."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bids_brainlm.evaluation.multiplicity import false_discovery_q, maximum_p

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("p", [RNG.random(1), RNG.random(40), RNG.random(60) ** 4, np.repeat([0.01, 0.2, 0.2, 1.0], 5)])
def test_q_is_that_of_scipy(p: np.ndarray) -> None:
    np.testing.assert_allclose(false_discovery_q(p), stats.false_discovery_control(p))


def test_tests_that_were_not_made_do_not_count() -> None:
    p = RNG.random(9)
    spaced = np.insert(p, [0, 4, 9], np.nan)
    np.testing.assert_allclose(false_discovery_q(spaced)[np.isfinite(spaced)], false_discovery_q(p))
    assert np.isnan(false_discovery_q([np.nan])).all()
    with pytest.raises(ValueError, match="p values"):
        false_discovery_q([1.2])


def test_the_maximum_keeps_the_chance_of_any_false_finding() -> None:
    """Forty correlated tests on scales that differ: uncorrected, most data sets have a false finding."""
    any_found, any_raw = [], []
    for _ in range(600):
        values = (RNG.standard_normal((100, 40)) + 0.7 * RNG.standard_normal((100, 1))) * np.logspace(-2, 2, 40)
        p = maximum_p(values[0], values[1:])
        any_found.append(p.min() <= 0.05)
        any_raw.append(((values >= values[0]).mean(axis=0) <= 0.05).any())
    assert np.mean(any_found) == pytest.approx(0.05, abs=0.03)
    assert np.mean(any_raw) > 0.3


def test_the_maximum_finds_one_effect_and_is_never_below_the_single_test() -> None:
    null = RNG.standard_normal((999, 20))
    observed = RNG.standard_normal(20)
    observed[3] = 8.0
    p = maximum_p(observed, null)
    single = (1 + (null >= observed).sum(axis=0)) / 1000
    assert p[3] == 1 / 1000
    # Scaling divides by a spread that the observed value is part of: within the rounding of ranks.
    assert (p >= single - 1e-12).all()
    assert (p[np.arange(20) != 3] > 0.05).all()


def test_one_test_alone_is_not_corrected() -> None:
    null = RNG.standard_normal((99, 1))
    assert maximum_p([0.5], null)[0] == pytest.approx((1 + (null >= 0.5).sum()) / 100)
    constant = maximum_p([1.0, 0.5], np.column_stack([np.ones(99), null[:, 0]]))
    assert constant[0] > 0.2


@pytest.mark.parametrize(("observed", "null"), [([1.0], np.ones((3, 2))), ([1.0], np.ones((0, 1))), ([np.nan], np.ones((3, 1)))])
def test_what_does_not_fit_is_refused(observed: list[float], null: np.ndarray) -> None:
    with pytest.raises(ValueError, match="values"):
        maximum_p(observed, null)
