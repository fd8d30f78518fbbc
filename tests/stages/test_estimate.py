"""From events to a design: what is a trial, what is modelled beside the trials, what is left out."""

from __future__ import annotations

import dataclasses
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bids_brainlm.core.design import nuisance, trial_design
from bids_brainlm.errors import InputError
from bids_brainlm.stages.runs import load_run, make_design, mask_of, trials_of

EVENTS = """onset\tduration\ttrial_type\ttext
4\t1\tpicture\ta dog
10\t1\tpicture\ta cat
13\t0.5\tpress\tn/a
20\t1\tpicture\ta cow
25\t0.5\tpress\tn/a
30\t1\tfixation\tn/a
"""
TIMES = 2.0 * np.arange(30)


def _design(request: Any, run: Any, start: float = 0.0) -> Any:
    return make_design(request, run, trials_of(request, run), start + TIMES)


def test_the_design_follows_the_clock_where_volumes_are_unevenly_spaced(make_request: Any, make_run: Any) -> None:
    run, request = make_run(EVENTS), make_request()
    sparse = np.cumsum(np.tile([1.0, 1.0, 5.5], 10))
    found = make_design(request, run, trials_of(request, run), sparse)
    np.testing.assert_array_equal(found.trials, trial_design([4, 10, 20], [1, 1, 1], sparse))
    assert found.about["VolumeTimingOfSeries"] == sparse.tolist()
    even = _design(request, run, 0.7)
    assert even.about["RepetitionTimeOfSeries"] == 2.0
    assert "VolumeTimingOfSeries" not in even.about


def test_trials_are_the_events_with_a_text(make_request: Any, make_run: Any) -> None:
    table = trials_of(make_request(), make_run(EVENTS))
    assert list(table["keep"]) == [True, True, False, True, False, False]
    assert list(table["trial_id"]) == [f"sub-01_task-x_run-2_trial-{i:04d}" for i in range(1, 7)]
    assert list(table["stimulus_id"]) == ["a dog", "a cat", "", "a cow", "", ""]
    assert set(table["run"]) == {"sub-01_task-x_run-2"}


def test_a_trial_id_of_the_users_own_gives_way(make_request: Any, make_run: Any) -> None:
    rows = EVENTS.splitlines()
    own = "\n".join([rows[0] + "\ttrial_id", *(f"{row}\tmine" for row in rows[1:])])
    table = trials_of(make_request(), make_run(own))
    assert table["trial_id"].nunique() == 6


def test_two_texts_at_once_are_refused(make_request: Any, make_run: Any) -> None:
    with pytest.raises(InputError, match=r"two trials with texts begin at 10 s.*events\.tsv"):
        trials_of(make_request(), make_run(EVENTS.replace("\n4\t", "\n10\t")))
    # A button may be pressed at any time.
    trials_of(make_request(), make_run(EVENTS.replace("\n13\t", "\n10\t")))


def test_other_events_are_modelled_one_regressor_a_kind(make_request: Any, make_run: Any) -> None:
    design = _design(make_request(), make_run(EVENTS))
    assert np.array_equal(design.trials, trial_design([4.0, 10.0, 20.0], [1.0] * 3, TIMES))
    presses = trial_design([13.0, 25.0], [0.5, 0.5], TIMES).sum(axis=1)
    fixation = trial_design([30.0], [1.0], TIMES)[:, 0]
    base = nuisance(TIMES, 0.0078125, np.zeros((30, 0)))
    assert np.allclose(design.nuisance, np.column_stack([base, fixation, presses]))


def test_what_the_trials_explain_is_not_modelled_again(make_request: Any, make_run: Any) -> None:
    both = EVENTS + "4\t1\tshown\tn/a\n10\t1\tshown\tn/a\n20\t1\tshown\tn/a\n"
    plain, design = (_design(make_request(), make_run(text)) for text in (EVENTS, both))
    assert np.allclose(design.nuisance, plain.nuisance)


def test_times_count_from_the_first_volume(make_request: Any, make_run: Any) -> None:
    design = _design(make_request(), make_run(EVENTS), start=1.0)
    assert np.array_equal(design.trials, trial_design([4.0, 10.0, 20.0], [1.0] * 3, TIMES + 1))


def _confounds(n: int, **columns: Any) -> str:
    rows = zip(*columns.values(), strict=True)
    return "\n".join(["\t".join(columns), *("\t".join(map(str, row)) for row in rows)][: n + 1]) + "\n"


def test_the_first_volumes_are_left_out(make_request: Any, make_run: Any) -> None:
    rng = np.random.default_rng(0)
    steady = {f"non_steady_state_outlier{i:02d}": np.arange(30) == i for i in range(2)}
    table = _confounds(30, trans_x=rng.normal(size=30), still=np.zeros(30), **{k: v.astype(int) for k, v in steady.items()})
    names = ("input.confounds", '["trans_x", "still"]')
    marked = _design(make_request(*names), make_run(EVENTS, table))
    told = _design(make_request(*names, "input.dummy_scans", "3"), make_run(EVENTS, table))
    for design, n in ((marked, 2), (told, 3)):
        assert design.n_dummy == n
        assert np.array_equal(design.trials, trial_design([4.0, 10.0, 20.0], [1.0] * 3, TIMES[n:]))
        assert design.about["NumberOfVolumesDiscarded"] == n
        # A column that does not vary says nothing, and would make the design singular.
        assert design.about["Confounds"] == ["trans_x"]


def test_an_event_outside_the_series_is_an_error_only_with_a_text(make_request: Any, make_run: Any) -> None:
    _design(make_request(), make_run(EVENTS.replace("30\t1\tfixation", "300\t1\tfixation")))
    with pytest.raises(InputError, match="expected: events between 0 and 60 s"):
        _design(make_request(), make_run(EVENTS.replace("20\t1\tpicture", "300\t1\tpicture")))


def _volume(make_run: Any, tmp_path: Any, series: np.ndarray) -> Any:
    """A run whose BOLD series (T, V) is one row of voxels."""
    run = make_run(EVENTS)
    mask = tmp_path / "mask.nii.gz"
    image: Any = nib.Nifti1Image
    nib.save(image(np.ones((1, 1, series.shape[1]), np.uint8), np.eye(4)), mask)
    nib.save(image(series.T[None, None].astype(np.float32), np.eye(4)), run.bold[0])
    return dataclasses.replace(run, mask=mask)


def test_values_that_are_missing_in_a_series_are_refused_with_their_place(
    make_request: Any, make_run: Any, tmp_path: Any
) -> None:
    series = 100 + np.random.default_rng(0).standard_normal((30, 5))
    series[:, 0], series[:, 1] = np.nan, 7.0
    run = _volume(make_run, tmp_path, series)
    loaded = load_run(make_request(), run, mask_of([run]))
    # Without any value, or constant, a voxel is masked and counted.
    assert list(loaded.usable) == [False, False, True, True, True]
    series[12, 3] = np.inf
    with pytest.raises(InputError, match=r"volume 12 of unit 3 is inf.*bold\.nii\.gz"):
        load_run(make_request(), _volume(make_run, tmp_path, series), mask_of([run]))


def test_a_series_without_a_voxel_that_varies_is_refused(make_request: Any, make_run: Any, tmp_path: Any) -> None:
    run = _volume(make_run, tmp_path, np.zeros((30, 5)))
    with pytest.raises(InputError, match=r"no vertex varies in time.*bold\.nii\.gz"):
        load_run(make_request(), run, mask_of([run]))
