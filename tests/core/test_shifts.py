"""Circular shifts keep order and distance, never pair what overlaps, and hold their level where neighbours are alike."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bids_brainlm.core.interventions import exchanges, partners
from bids_brainlm.core.shifts import least_lag, refuse_few, sequences
from bids_brainlm.core.types import Examples, Prompt, Recording
from bids_brainlm.evaluation.resampling import permutation_p


def windows(numbers, n_rows=4, contexts=(1, 2, 3), run=0, story="hare", volume=0):
    """(story, window, context, rows, run) of examples whose window k is decoded from the volumes k, k + 1, ... of a run."""
    return [(story, k, range(k - n, k), np.arange(k, k + n_rows) + volume, run) for k in numbers for n in contexts if k >= n]


def examples_of(found, n_volumes=400, n_runs=3):
    recording = Recording(
        np.zeros((n_volumes * n_runs, 1), np.float32),
        "standard deviations",
        "bold",
        np.tile(np.arange(n_volumes), n_runs),
        np.repeat(np.arange(n_runs), n_volumes),
    )
    stimulus = [f"{story}/{k:04d}" for story, k, *_ in found]
    return Examples(
        recording,
        np.array([rows + run * n_volumes for *_, rows, run in found]),
        tuple(Prompt("", "x") for _ in found),
        (("x",),) * len(found),
        np.array([story for story, *_ in found]),
        np.array(stimulus),
        np.array([f"run-{f[4]}_{name}_{len(f[2])}_{f[3][0]}" for f, name in zip(found, stimulus, strict=True)]),
        tuple(tuple(f"{f[0]}/{j:04d}" for j in f[2]) for f in found),
    )


def overlap(examples, i, j):
    """Whether two examples share a volume, or a window in prompt or answer."""
    texts = [{str(examples.stimulus[k]), *examples.heard[k]} for k in (i, j)]
    return bool(set(examples.rows[i].ravel()) & set(examples.rows[j].ravel()) or texts[0] & texts[1])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.sampled_from([(0,), (1,), (1, 2, 3)]), st.integers(24, 60), st.integers(0, 9), st.data())
def test_every_partner_is_the_window_some_places_later_and_never_overlaps(n_rows, contexts, n_windows, seed, data):
    silent = data.draw(st.sets(st.integers(3, n_windows - 1), max_size=4))
    spoken = [k for k in range(3, n_windows + 3) if k not in silent]
    examples = examples_of(windows(spoken, n_rows, contexts) + windows(spoken[:-1], n_rows, contexts, run=2, story="owl"))
    drawn = partners(examples, 50, seed)
    run = examples.run
    for row in drawn:
        assert (run[row] == run).all()
        assert not any(overlap(examples, i, j) for i, j in enumerate(row))
        for value in np.unique(run):
            stimuli = np.unique(examples.stimulus[run == value])
            place = {str(name): k for k, name in enumerate(stimuli)}
            steps = {
                (place[str(examples.stimulus[j])] - place[str(examples.stimulus[i])]) % len(stimuli)
                for i, j in enumerate(row)
                if run[i] == value
            }
            assert len(steps) == 1
        window = np.array([int(name.split("/")[1]) for name in examples.stimulus])
        assert (np.abs(window[row] - window) >= n_rows + max(contexts)).all()


def test_the_least_lag_is_the_volumes_and_the_longest_context():
    examples = examples_of(windows(range(3, 33)))
    assert least_lag(examples) == 4 + 3
    np.testing.assert_array_equal(sequences(examples)[0].shifts, np.arange(7, 24))
    # Two volumes a window: four volumes are two windows, and three windows of context are six volumes.
    twice = [(story, k, context, np.arange(2 * k, 2 * k + 4), run) for story, k, context, _, run in windows(range(3, 33))]
    assert least_lag(examples_of(twice)) == 4 + 6
    np.testing.assert_array_equal(sequences(examples_of(twice))[0].shifts, np.arange(5, 26))


def test_windows_that_lie_far_apart_need_fewer_places_between():
    examples = examples_of(windows([*range(3, 8), *range(107, 112), *range(207, 212)]))
    assert least_lag(examples) == 7
    np.testing.assert_array_equal(sequences(examples)[0].shifts, np.arange(5, 11))


def test_no_shift_counts_twice_and_all_of_them_come():
    examples = examples_of(windows(range(3, 33)))
    drawn = partners(examples, 100, 0)
    assert len(drawn) == len(np.unique(drawn, axis=0)) == 30 - 2 * 7 + 1
    two = examples_of(windows(range(3, 23)) + windows(range(3, 20), run=1))
    assert len(np.unique(partners(two, 1000, 0), axis=0)) == len(partners(two, 1000, 0)) == 7 * 4


def test_the_first_shifts_do_not_depend_on_how_many_are_drawn():
    examples = examples_of(windows(range(3, 60)) + windows(range(3, 50), run=1))
    np.testing.assert_array_equal(partners(examples, 5, 3), partners(examples, 40, 3)[:5])
    assert partners(examples, 0, 3).shape == (0, len(examples))
    assert (partners(examples, 5, 3) != partners(examples, 5, 4)).any()


def test_a_story_that_is_heard_again_in_the_run_is_never_paired_with_itself():
    again = windows(range(3, 33)) + windows(range(3, 33), volume=200)
    examples = examples_of(again)
    assert 30 not in sequences(examples)[0].shifts
    for row in partners(examples, 100, 0):
        assert not any(overlap(examples, i, j) for i, j in enumerate(row))


def test_a_run_with_too_few_windows_is_named():
    examples = examples_of(windows(range(3, 40)) + windows(range(3, 16), run=1))
    with pytest.raises(ValueError, match=r"13 test window\(s\) in the run of run-1_hare/0003.* move each by 7 s"):
        partners(examples, 10, 0)
    refuse_few(examples_of(windows(range(3, 17))))


def test_averages_over_runs_stay_in_the_order_of_the_story():
    one = examples_of(windows(range(40), contexts=(0,)))
    rows = np.stack([one.rows[:, :, 0], one.rows[:, :, 0] + 400], axis=2)
    averaged = dataclasses.replace(one, rows=rows)
    np.testing.assert_array_equal(partners(averaged, 20, 1), partners(one, 20, 1))


def autocorrelated(rng, n, memory):
    series = np.empty(n)
    series[0] = rng.standard_normal()
    for k in range(1, n):
        series[k] = memory * series[k - 1] + np.sqrt(1 - memory**2) * rng.standard_normal()
    return series


def test_shifts_keep_their_level_where_free_pairings_do_not():
    """Brain and text are independent slow series; a text's NLL under a brain is minus their product."""
    rng = np.random.default_rng(0)
    n, p_shifted, p_free = 150, [], []
    examples = examples_of(windows(range(n), n_rows=2, contexts=(0,)))
    for _ in range(300):
        brain, text = autocorrelated(rng, n, 0.9), autocorrelated(rng, n, 0.9)
        true = -(brain * text).mean()
        shifts = partners(examples, 99, int(rng.integers(2**31)))
        free = np.stack([rng.permutation(n) for _ in range(99)])
        p_shifted.append(permutation_p(true, -(brain[shifts] * text).mean(axis=1), "less"))
        p_free.append(permutation_p(true, -(brain[free] * text).mean(axis=1), "less"))
    # Binomial(300, 0.05) has a standard deviation of 0.013.
    assert np.mean(np.array(p_shifted) <= 0.05) == pytest.approx(0.05, abs=0.04)
    assert np.mean(np.array(p_shifted) <= 0.5) == pytest.approx(0.5, abs=0.09)
    assert np.mean(np.array(p_free) <= 0.05) > 0.2


def test_exchanges_shift_every_run_by_any_number_of_places():
    examples = examples_of(windows(range(3, 33)) + windows(range(3, 23), run=2, story="owl"))
    drawn = exchanges(examples, 3000, 0)
    for item in sequences(examples):
        place = np.full(len(examples), -1)
        place[item.members] = item.position
        steps = (place[drawn[:, item.members]] - item.position) % item.windows.size
        assert (steps == steps[:, :1]).all()
        found, counts = np.unique(steps[:, 0], return_counts=True)
        np.testing.assert_array_equal(found, np.arange(item.windows.size))
        assert stats.chisquare(counts).pvalue > 0.001
