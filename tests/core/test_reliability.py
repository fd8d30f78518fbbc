"""Split-half reliability equals its definition, and the value that theory gives for known noise."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainlm.core import reliability
from bids_brainlm.core.reliability import split_half


def repeats(n_stimuli, n_repeats, noise, n_vertices=400, seed=0):
    rng = np.random.default_rng(seed)
    stimulus = np.tile([f"s{i}" for i in range(n_stimuli)], n_repeats)
    signal = np.tile(rng.standard_normal((n_stimuli, n_vertices)), (n_repeats, 1))
    return (signal + noise * rng.standard_normal(signal.shape)).astype(np.float32), stimulus


def test_two_repeats_equal_the_correlation_of_the_two():
    # Which repeat is in which half differs between stimuli, so the oracle tries every division.
    data, stimulus = repeats(4, 2, 0.7, n_vertices=5)
    divisions = []
    for flips in np.ndindex(2, 2, 2, 2):
        flips = np.array(flips)
        first, second = data[np.arange(4) + 4 * flips], data[np.arange(4) + 4 * (1 - flips)]
        divisions.append([np.corrcoef(first[:, v], second[:, v])[0, 1] for v in range(5)])
    np.testing.assert_allclose(split_half(data, stimulus, n_splits=3000), np.mean(divisions, axis=0), atol=0.03)


@pytest.mark.parametrize(("n_repeats", "noise"), [(2, 1.0), (4, 1.0), (4, 2.0), (2, 0.0)])
def test_reliability_of_known_noise(n_repeats, noise):
    data, stimulus = repeats(60, n_repeats, noise)
    # Signal variance 1; a half is the mean of n_repeats / 2 rows.
    expected = 1 / (1 + noise**2 / (n_repeats / 2))
    assert split_half(data, stimulus, n_splits=5).mean() == pytest.approx(expected, abs=0.02)


def test_noise_alone_is_not_reliable():
    data, stimulus = repeats(60, 3, 1.0)
    noise = np.random.default_rng(9).standard_normal(data.shape)
    assert split_half(noise, stimulus).mean() == pytest.approx(0, abs=0.02)


def test_scale_and_offset_do_not_matter_nor_do_blocks(monkeypatch):
    data, stimulus = repeats(12, 3, 1.0, n_vertices=30)
    whole = split_half(data, stimulus)
    np.testing.assert_allclose(split_half(data * 3 + 5, stimulus), whole, atol=1e-4)
    monkeypatch.setattr(reliability, "BLOCK_BYTES", 8 * 36 * 7)
    np.testing.assert_allclose(split_half(data, stimulus), whole, atol=1e-12)


def test_stimuli_without_a_repeat_are_left_out():
    data, stimulus = repeats(12, 2, 1.0)
    extra = np.full((2, data.shape[1]), 1e6, dtype=np.float32)
    found = split_half(np.vstack([data, extra]), np.append(stimulus, ["x", "y"]))
    np.testing.assert_allclose(found, split_half(data, stimulus), atol=0.1)


def test_nothing_to_tell_is_nan():
    data, stimulus = repeats(12, 2, 1.0, n_vertices=5)
    assert np.isnan(split_half(data, np.arange(24).astype(str))).all()
    assert np.isnan(split_half(data, np.append(["a", "a", "b", "b"], np.arange(20).astype(str)))).all()
    data[:, 1], data[3, 2] = 4, np.nan
    np.testing.assert_array_equal(np.isnan(split_half(data, stimulus)), [False, True, True, False, False])


def test_rows_and_stimuli_must_agree():
    with pytest.raises(ValueError, match="24 rows, but 23 stimuli"):
        split_half(np.ones((24, 2)), ["a"] * 23)
