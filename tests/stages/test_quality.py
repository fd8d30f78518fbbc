"""Motion and limits, against tables whose answer is plain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.config.tree import Estimate
from bids_brainlm.errors import InputError
from bids_brainlm.stages.examples import kept
from bids_brainlm.stages.quality import diagnosed, fit_trials, motion_of, within_limits

EVENTS = "onset\tduration\ttext\n0\t0\ta\n20\t0\tb\n40\t0\tc\n"
TRIALS = pd.DataFrame({"onset": [0.0, 20.0, 40.0], "duration": [0.0, 0.0, 0.0], "keep": [True, False, True]})


def _confounds(n: int = 30, **columns: Any) -> str:
    lines = ["\t".join(columns), *("\t".join(str(values[i]) for values in columns.values()) for i in range(n))]
    return "\n".join(lines) + "\n"


def test_motion_is_that_of_the_response(make_run: Callable[..., Any]) -> None:
    """Volumes lie 2 s apart; the response of a trial at 20 s lies in volumes 11 to 15."""
    moved = np.where(np.arange(30) == 12, 1.1, 0.1)
    outliers = (np.arange(30) == 12).astype(int)
    run = make_run(EVENTS, _confounds(framewise_displacement=["n/a", *moved[1:]], motion_outlier00=outliers))
    found = motion_of(run, TRIALS)
    np.testing.assert_allclose(found["fd_mean"], [0.1, (4 * 0.1 + 1.1) / 5, 0.1])
    np.testing.assert_allclose(found["outlier_share"], [0, 0.2, 0])
    assert list(within_limits(Estimate(max_fd=0.2), run, TRIALS)) == [True, False, True]
    assert list(within_limits(Estimate(max_outliers=0.3), run, TRIALS)) == [True, True, True]
    assert list(within_limits(Estimate(max_outliers=0.1), run, TRIALS)) == [True, False, True]


def test_a_limit_on_what_nobody_knows_is_refused(make_run: Callable[..., Any]) -> None:
    still = make_run(EVENTS, _confounds(trans_x=np.zeros(30)))
    assert within_limits(Estimate(max_outliers=0.1), still, TRIALS).all()
    with pytest.raises(InputError, match=r"fd_mean is not known.*confounds\.tsv"):
        within_limits(Estimate(max_fd=0.1), still, TRIALS)
    with pytest.raises(InputError, match="outlier_share is not known"):
        within_limits(Estimate(max_outliers=0.1), make_run(EVENTS), TRIALS)


def test_events_without_a_text_are_no_trials(make_run: Callable[..., Any]) -> None:
    trials = fit_trials(Estimate(), make_run(EVENTS), TRIALS)
    assert list(trials["onset"]) == [0.0, 40.0]
    assert trials["keep"].all()


def test_trials_apart_are_not_inflated(make_run: Callable[..., Any]) -> None:
    design = np.kron(np.eye(3), np.ones((10, 1)))
    found = diagnosed(make_run(EVENTS), TRIALS, design, np.zeros((30, 0)))
    np.testing.assert_allclose(found["vif"], 1)
    np.testing.assert_allclose(found["leverage"], 0.1)
    assert found["fd_mean"].isna().all()


def test_a_table_may_take_trials_back() -> None:
    assert list(kept(pd.DataFrame({"keep": ["true", "false", None, "n/a", True, False]}))) == [
        True,
        False,
        True,
        True,
        True,
        False,
    ]
    assert kept(pd.DataFrame({"onset": [1, 2]})).all()
