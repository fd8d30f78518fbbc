"""The design of a participant: everything is shown as often as it should be, in runs of one length."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainlm.simulation.trials import LEAD, TAIL, schedule


@pytest.mark.parametrize(("n", "repeats", "runs"), [(266, 3, 10), (40, 2, 8), (24, 3, 3), (13, 4, 6)])
def test_repeats_fall_into_different_runs(n: int, repeats: int, runs: int) -> None:
    design = schedule(n, repeats, runs, 2.0, np.random.default_rng(0))
    counts = np.array([np.bincount(run.stimulus, minlength=n) for run in design])
    assert (counts.sum(axis=0) == repeats).all()
    assert counts.max() == 1
    sizes = counts.sum(axis=1)
    assert sizes.max() - sizes.min() <= repeats


def test_trials_are_spaced_and_fit_the_run() -> None:
    design = schedule(60, 3, 5, 1.7, np.random.default_rng(0), spacing=5.0)
    assert len({run.n_volumes for run in design}) == 1
    for run in design:
        gaps = np.diff(run.onset)
        assert set(np.round(gaps, 6)) <= {4.0, 5.0, 6.0}
        assert run.onset[0] >= LEAD - 1
        assert run.onset[-1] + TAIL <= run.n_volumes * 1.7
        assert (run.duration == 2).all()


def test_more_repeats_than_runs_are_still_all_shown() -> None:
    design = schedule(20, 4, 2, 2.0, np.random.default_rng(0))
    assert (np.bincount(np.concatenate([run.stimulus for run in design])) == 4).all()


def test_empty_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fill"):
        schedule(2, 1, 5, 2.0, np.random.default_rng(0))
