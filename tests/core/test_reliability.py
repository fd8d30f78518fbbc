"""Split-half reliability equals its definition, and the value that theory gives for known noise."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainlm.core import reliability
from bids_brainlm.core.reliability import ncsnr, noise_ceiling, split_half


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
    monkeypatch.setattr(reliability, "BLOCK_BYTES", 4 * 30 * 7)  # two stimuli
    monkeypatch.setattr(reliability, "TILE_BYTES", 4 * 80 * 7)
    np.testing.assert_allclose(split_half(data, stimulus), whole, atol=1e-5)


def test_stimuli_without_a_repeat_are_left_out():
    data, stimulus = repeats(12, 2, 1.0)
    extra = np.full((2, data.shape[1]), 1e6, dtype=np.float32)
    found = split_half(np.vstack([data, extra]), np.append(stimulus, ["x", "y"]))
    np.testing.assert_allclose(found, split_half(data, stimulus), atol=0.1)


@pytest.mark.filterwarnings("error")
def test_nothing_to_tell_is_nan():
    data, stimulus = repeats(12, 2, 1.0, n_vertices=5)
    assert np.isnan(split_half(data, np.arange(24).astype(str))).all()
    assert np.isnan(split_half(data, np.append(["a", "a", "b", "b"], np.arange(20).astype(str)))).all()
    data[:, 1], data[3, 2], data[5, 4] = 4, np.nan, np.inf
    np.testing.assert_array_equal(np.isnan(split_half(data, stimulus)), [False, True, True, False, True])


def test_rows_and_stimuli_must_agree():
    with pytest.raises(ValueError, match="24 rows, but 23 stimuli"):
        split_half(np.ones((24, 2)), ["a"] * 23)


def sessions(n_stimuli=300, n_repeats=3, signal=1.0, noise=2.0, n_vertices=200, seed=0):
    """Repeats of every stimulus spread at random over 4 sessions, each with a scale and an offset of its own."""
    rng = np.random.default_rng(seed)
    stimulus = rng.permutation(np.repeat(np.arange(n_stimuli), n_repeats))
    session = np.repeat(np.arange(4), len(stimulus) // 4)
    effect = signal * rng.standard_normal((n_stimuli, n_vertices))
    data = effect[stimulus] + noise * rng.standard_normal((len(stimulus), n_vertices))
    scale, offset = rng.uniform(0.5, 8, (4, n_vertices)), 20 * rng.standard_normal((4, n_vertices))
    return (data * scale[session] + offset[session]).astype(np.float32), stimulus.astype(str), session.astype(str)


@pytest.mark.parametrize(("signal", "noise"), [(1.0, 2.0), (1.0, 1.0), (0.5, 2.0), (0.0, 1.0)])
def test_ratio_and_ceiling_of_known_variance_components(signal, noise):
    ratio = ncsnr(*sessions(signal=signal, noise=noise))
    for m in (1, 3):
        # What theory says of the mean of m repeats.
        expected = 100 * signal**2 / (signal**2 + noise**2 / m)
        assert noise_ceiling(ratio, m).mean() == pytest.approx(expected, abs=3 if signal else 6)
    if signal == 1:
        assert ratio.mean() == pytest.approx(signal / noise, abs=0.03)


def test_ratio_equals_the_definition_written_as_loops():
    data, stimulus, session = sessions(n_stimuli=20, n_vertices=4)
    stimulus[:7] = [f"alone {i}" for i in range(7)]
    z = np.empty(data.shape)
    for label in np.unique(session):
        own = session == label
        z[own] = (data[own] - data[own].mean(axis=0)) / data[own].std(axis=0, ddof=1)
    groups = [z[stimulus == name] for name in np.unique(stimulus) if (stimulus == name).sum() > 1]
    noise = sum((len(g) - 1) * g.var(axis=0, ddof=1) for g in groups) / sum(len(g) - 1 for g in groups)
    expected = np.sqrt(np.maximum(1 - noise, 0)) / np.sqrt(noise)
    np.testing.assert_allclose(ncsnr(data, stimulus, session), expected, rtol=1e-4)


def test_ratio_does_not_depend_on_blocks_nor_on_order(monkeypatch):
    data, stimulus, session = sessions(n_stimuli=20, n_vertices=9)
    whole = ncsnr(data, stimulus, session)
    order = np.random.default_rng(1).permutation(len(data))
    monkeypatch.setattr(reliability, "BLOCK_BYTES", 1)  # one stimulus
    np.testing.assert_allclose(ncsnr(data[order], stimulus[order], session[order]), whole, rtol=1e-4)


@pytest.mark.filterwarnings("error")
def test_ratio_without_repeats_or_scale_is_nan():
    data, stimulus, session = sessions(n_stimuli=20, n_vertices=5)
    assert np.isnan(ncsnr(data, np.arange(60).astype(str), session)).all()
    data[session == "2", 1], data[3, 2] = 4, np.inf
    np.testing.assert_array_equal(np.isnan(ncsnr(data, stimulus, session)), [False, True, True, False, False])
    # A row alone in its session says nothing.
    more = np.vstack([data, data[:1]]), np.append(stimulus, stimulus[0]), np.append(session, "other")
    np.testing.assert_array_equal(ncsnr(*more), ncsnr(data, stimulus, session))
    with pytest.raises(ValueError, match="60 rows, but 59 sessions"):
        ncsnr(data, stimulus, session[1:])


def test_repeats_without_noise_have_no_ceiling_below_100():
    data, stimulus, session = sessions(noise=0.0, n_vertices=3)
    one = np.zeros_like(session)
    data = np.random.default_rng(0).standard_normal((300, 3)).astype(np.float32)[stimulus.astype(int)]
    np.testing.assert_allclose(noise_ceiling(ncsnr(data, stimulus, one)), 100, atol=1e-6)
