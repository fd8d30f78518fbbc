"""Made-up responses keep what they promise to keep, by closed forms, and lose what they are to lose."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainlm.core import surrogates
from bids_brainlm.core.types import Examples, Floats, Prompt, Recording
from bids_brainlm.registry import interventions


def windows(n: int, t: int, n_vertices: int, runs: int = 1, seed: int = 0) -> Examples:
    """Windows of t volumes each that overlap by all but one, in runs of n; every run has t - 1 volumes more."""
    rng = np.random.default_rng(seed)
    length = n + t - 1
    mixing = rng.standard_normal((n_vertices, n_vertices))
    series = np.cumsum(rng.standard_normal((runs * length, n_vertices)), axis=0) @ mixing + 100
    rows = np.concatenate([run * length + np.arange(n)[:, None] + np.arange(t) for run in range(runs)])
    recording = Recording(
        series.astype(np.float32), "z", "bold", np.tile(np.arange(length), runs), np.repeat(np.arange(runs), length)
    )
    names = np.array([f"s{i}" for i in range(runs * n)])
    texts = tuple((f"text {i}",) for i in range(runs * n))
    return Examples(recording, rows, (Prompt("", "x"),) * (runs * n), texts, names, names, names)


def rows_of(examples: Examples, run: int) -> Floats:
    return np.asarray(examples.recording.data[np.flatnonzero(examples.recording.run == run)], dtype=np.float64)


@pytest.mark.parametrize("n", [8, 9])
def test_shuffled_phases_keep_every_spectrum_and_every_lagged_covariance_of_a_run(n: int) -> None:
    before = windows(n, 3, 4, runs=2)
    after = interventions.get("phase_shuffled")(before, 1)
    np.testing.assert_array_equal(after.rows, before.rows)
    for run in (0, 1):
        x, y = rows_of(before, run), rows_of(after, run)
        np.testing.assert_allclose(np.abs(np.fft.rfft(y, axis=0)), np.abs(np.fft.rfft(x, axis=0)), rtol=1e-4, atol=1e-2)
        for lag in range(len(x)):
            # Not only autocovariances: all pairs of vertices.
            np.testing.assert_allclose(np.roll(y, lag, axis=0).T @ y, np.roll(x, lag, axis=0).T @ x, rtol=1e-4)
        assert np.abs(y - x).max() > 0.5
    # Runs have phases of their own: in units of the series, their filters differ.
    filters = [np.fft.rfft(rows_of(after, run)[:, 0]) / np.fft.rfft(rows_of(before, run)[:, 0]) for run in (0, 1)]
    assert np.abs(filters[0] - filters[1]).max() > 0.5


def test_shuffled_phases_tell_nothing_of_when_something_was() -> None:
    impulse = np.zeros((64, 1), np.float32)
    impulse[20] = 1
    before = windows(64, 1, 1)
    recording = Recording(impulse, "z", "bold", np.arange(64.0), np.zeros(64, np.int64))
    names = before.id
    examples = Examples(recording, np.arange(64), before.prompts, before.references, names, names, names)
    found = np.stack([interventions.get("phase_shuffled")(examples, seed).gather(np.arange(64))[:, 0, 0] for seed in range(200)])
    # The energy of the impulse spreads evenly: its own place has 1/64 of it, within four standard errors.
    energy = (found**2).mean(axis=0)
    assert np.abs(energy - 1 / 64).max() < 4 * (found**2).std(axis=0).max() / np.sqrt(200)


def test_rows_that_no_example_has_stay_as_they_are() -> None:
    before = windows(10, 2, 3)
    part = before.take([0, 3, 5, 8])
    after = interventions.get("phase_shuffled")(part, 0)
    used = np.unique(part.rows)
    others = np.setdiff1d(np.arange(11), used)
    np.testing.assert_array_equal(after.recording.data[others], before.recording.data[others])
    assert np.abs(after.recording.data[used] - before.recording.data[used]).max() > 0.5


def test_a_run_with_two_rows_has_no_phases() -> None:
    with pytest.raises(ValueError, match="a run has 2 test row"):
        interventions.get("phase_shuffled")(windows(6, 1, 2).take([0, 4]), 0)


def test_mixtures_have_the_mean_and_the_covariance_of_the_examples_over_rows_too() -> None:
    before = windows(12, 2, 3)
    own = before.gather(np.arange(12)).reshape(12, -1).astype(np.float64)
    drawn = np.concatenate(
        [interventions.get("noise_covariance")(before, seed).gather(np.arange(12)).reshape(12, -1) for seed in range(500)]
    )
    wanted = np.cov(own.T, bias=True)
    # 6,000 draws: standard errors of a few percent of the largest variance.
    assert np.abs(np.cov(drawn.T) - wanted).max() < 0.07 * wanted.max()
    assert np.abs(drawn.mean(axis=0) - own.mean(axis=0)).max() < 5 * np.sqrt(wanted.max() / 6000)
    assert np.abs(np.corrcoef(own.T)).min() > 0.2  # independent noise would not pass


def test_mixtures_of_some_responses_have_the_covariance_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surrogates, "MIXED", 5)
    before = windows(40, 1, 3)
    own = before.gather(np.arange(40))[:, 0].astype(np.float64)
    drawn = np.concatenate(
        [interventions.get("noise_covariance")(before, seed).gather(np.arange(40))[:, 0] for seed in range(150)]
    )
    wanted = np.cov(own.T, bias=True)
    assert np.abs(np.cov(drawn.T) - wanted).max() < 0.1 * wanted.max()


def test_mixtures_of_one_response_are_refused() -> None:
    with pytest.raises(ValueError, match="two different responses"):
        interventions.get("noise_covariance")(windows(5, 1, 2).take([2]), 0)


def test_across_runs_partners_are_of_other_runs_and_tell_nothing() -> None:
    before = windows(5, 1, 2, runs=3)
    after = interventions.get("permuted_across")(before, 0)
    assert (before.recording.run[after.rows[:, 0, 0]] != before.run).all()
    draws = np.stack([interventions.get("permuted_across")(before, seed).rows[:, 0, 0] for seed in range(300)])
    # Ten are of another run; each is drawn 30 times of 300 (standard deviation 5.2).
    counts = np.stack([np.bincount(column, minlength=15) for column in draws.T])
    assert (counts[before.run[:, None] == before.run] == 0).all()
    assert np.abs(counts[before.run[:, None] != before.run] - 30).max() < 27


def test_a_text_that_other_runs_have_too_is_no_partner_across_runs() -> None:
    names = np.array(["a", "b", "c", "a", "b", "a"])
    recording = Recording(np.eye(6, dtype=np.float32), "z", "beta", np.tile(np.arange(3), 2), np.repeat([0, 1], 3))
    texts = tuple((name,) for name in names)
    examples = Examples(
        recording, np.arange(6), (Prompt("", "x"),) * 6, texts, names, names, np.array([f"t{i}" for i in range(6)])
    )
    draws = np.stack([interventions.get("permuted_across")(examples, seed).rows[:, 0, 0] for seed in range(40)])
    assert [set(column) for column in draws.T] == [{4}, {3, 5}, {3, 4, 5}, {1, 2}, {0, 2}, {1, 2}]
