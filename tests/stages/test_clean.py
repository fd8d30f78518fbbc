"""Cleaning against nilearn called at once on the whole series, and least squares; what cannot be used is masked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.signal import clean as nilearn_clean

from bids_brainlm.core.design import nuisance
from bids_brainlm.core.windows import Heard, Transcript
from bids_brainlm.errors import InputError
from bids_brainlm.io.cleaned import read_cleaned, read_words
from bids_brainlm.io.runfiles import RunFiles
from bids_brainlm.io.texts import NoTextError
from bids_brainlm.stages.clean import clean_run, standardise
from bids_brainlm.stages.heard import dropped, heard_of, listened
from bids_brainlm.stages.plan import before_responses, divided, texted_runs
from bids_brainlm.stages.responses import heard_in, load_trials
from bids_brainlm.stages.windows import left_out_of, window_examples

N, TR, START, SHAPE = 90, 1.5, 0.75, (4, 4, 3)
HIGH_PASS = 1 / 60
OUTLIERS = 3
"""Volumes at the start that are not in steady state."""

gifti: Any = nib.gifti


def _series(rng: np.random.Generator, confounds: np.ndarray, n: int) -> np.ndarray:
    """(T, n) on a mean of 9000, with drift, confounds and noise."""
    slow = np.cos(np.pi * (np.arange(N) + 0.5) / N)[:, None]
    own = 9000 + 80 * slow * rng.standard_normal(n) + confounds @ rng.standard_normal((2, n)) * 30
    return (own + 20 * rng.standard_normal((N, n))).astype(np.float32)


@pytest.fixture
def run(tmp_path: Path) -> RunFiles:
    """A run in volume space with a story of 40 words, whose first volumes are no steady state."""
    rng = np.random.default_rng(1)
    bids, func = tmp_path / "bids", tmp_path / "func"
    for folder in (bids / "stimuli", func):
        folder.mkdir(parents=True)
    confounds = rng.standard_normal((N, 2))
    table = pd.DataFrame({"trans_x": confounds[:, 0], "rot_z": confounds[:, 1], "csf": 1.0})
    table["non_steady_state_outlier00"] = 1 * (np.arange(N) < OUTLIERS)
    table.to_csv(func / "confounds.tsv", sep="\t", index=False)
    data = _series(rng, confounds, int(np.prod(SHAPE)))
    data[:OUTLIERS] += 5000
    data[:, 5], data[:, 9] = np.nan, 1000.0
    nib.save(nib.Nifti1Image(data.T.reshape(*SHAPE, N), np.eye(4)), func / "bold.nii.gz")
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), np.eye(4)), func / "mask.nii.gz")
    words = pd.DataFrame({"onset": 2.5 * np.arange(40) + 0.2, "duration": 0.3, "word": [f"w{i}" for i in range(40)]})
    words.to_csv(bids / "stimuli" / "hare.tsv", sep="\t", index=False)
    events = func / "events.tsv"
    events.write_text("onset\tduration\tstim_file\tpart\tword\n9\t110\thare.wav\ttrain\tn/a\n", encoding="utf-8")
    entities = {"sub": "01", "task": "x", "run": "2"}
    bold, sidecar = (func / "bold.nii.gz",), {"RepetitionTime": TR, "StartTime": START}
    return RunFiles(
        "01", "", "x", "2", entities, bold, func / "mask.nii.gz", func / "confounds.tsv", events, sidecar, ("bids:x:bold",), "T1w"
    )


@pytest.fixture
def listening(make_request: Callable[..., Any]) -> Callable[..., Any]:
    """A request that reads words from tables."""

    def make(*pairs: str) -> Any:
        usual = ("window.words", "table", "estimate.high_pass", str(HIGH_PASS), "input.confounds", '["trans_x", "rot_z"]')
        return make_request(*usual, "split.group", "story", "window.rows", "2", "window.context", "1", *pairs)

    return make


def test_cleaning_is_that_of_nilearn_on_the_volumes_in_steady_state(run: RunFiles, listening: Any) -> None:
    found = clean_run(listening(), run, None, {"Sources": ["bids:x:bold"]})
    raw = np.asarray(nib.load(run.bold[0]).dataobj).reshape(-1, N).T[OUTLIERS:]  # type: ignore[attr-defined]
    confounds = pd.read_csv(run.confounds, sep="\t")[["trans_x", "rot_z"]].to_numpy()[OUTLIERS:]
    usable = np.delete(np.arange(raw.shape[1]), [5, 9])
    wanted = nilearn_clean(
        raw[:, usable].astype(float), confounds=confounds, filter="cosine", high_pass=HIGH_PASS, t_r=TR, detrend=False
    )
    np.testing.assert_allclose(found.data[:, usable], wanted, atol=2e-5)
    assert np.isnan(found.data[:, [5, 9]]).all()
    np.testing.assert_allclose(found.times, START + TR * np.arange(OUTLIERS, N))
    about = found.sidecar
    assert (about["NumberOfUnusableVertices"], about["NumberOfVolumesDiscarded"], about["Units"]) == (2, OUTLIERS, "z")
    assert (about["Confounds"], about["HighPassCutoff"]) == (["trans_x", "rot_z"], pytest.approx(HIGH_PASS))


@pytest.mark.parametrize("threads", [1, 2])
def test_chunks_and_threads_leave_the_least_squares_residual(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bids_brainlm.core.chunks.CHUNK_BYTES", 4 * N * 7)
    rng = np.random.default_rng(0)
    confounds = rng.standard_normal((N, 2))
    series = _series(rng, confounds, 30)
    # Uneven times: drifts follow the clock.
    regressors = nuisance(np.cumsum(np.tile([1.0, 1.0, 5.0], N // 3)), 1 / 128, confounds)
    residual = series - regressors @ np.linalg.lstsq(regressors, series.astype(float), rcond=None)[0]
    assert standardise(series, regressors[:, :-1], threads).all()
    np.testing.assert_allclose(series, residual / residual.std(axis=0, ddof=1), atol=2e-5)


def test_a_vertex_that_is_all_nuisance_cannot_be_used() -> None:
    rng = np.random.default_rng(0)
    confounds = rng.standard_normal((N, 2))
    series = _series(rng, confounds, 4)
    series[:, 1] = 9000 + 40 * confounds[:, 0]
    assert standardise(series, nuisance(TR * np.arange(N), 0.0, confounds)[:, :-1]).tolist() == [True, False, True, True]


def test_without_anything_to_take_out_a_series_is_z_scored() -> None:
    series = _series(np.random.default_rng(0), np.zeros((N, 2)), 3)
    wanted = (series - series.mean(axis=0, dtype=float)) / series.std(axis=0, ddof=1, dtype=float)
    assert standardise(series, np.zeros((N, 0))).all()
    np.testing.assert_allclose(series, wanted, atol=2e-5)


def test_too_many_regressors_are_one_clear_line(run: RunFiles, listening: Any) -> None:
    with pytest.raises(
        InputError, match=r"87 volumes for 8\d regressors: .*bold.nii.gz \(expected: at least 3 volumes more; rem"
    ):
        clean_run(listening("estimate.high_pass", "0.32"), run, None, {})


def test_volumes_and_words_are_known_from_headers_and_tables(run: RunFiles, listening: Any, tmp_path: Path) -> None:
    words, volumes = listened(listening(), run)
    assert len(volumes) == N - OUTLIERS
    np.testing.assert_allclose(volumes["onset"], START + TR * np.arange(OUTLIERS, N))
    assert volumes["trial_id"].iloc[0] == "sub-01_task-x_run-2_vol-0001"
    np.testing.assert_allclose(words["onset"], 2.5 * np.arange(40) + 0.2)
    assert set(words["story"]) == {"hare"}
    assert set(words["start"]) == {9.0}
    assert set(words["part"]) == {"train"}
    assert "stim_file" not in words


def test_words_take_the_columns_of_the_last_event_that_had_begun(run: RunFiles, listening: Any) -> None:
    assert run.events is not None
    rows = ["9\t110\thare.wav\ttrain", "9\t110\tn/a\tnow", "34.2\t1\tn/a\tlater"]
    run.events.write_text("\n".join(["onset\tduration\tstim_file\tpart", *rows]) + "\n", encoding="utf-8")
    words, _ = heard_of(listening(), run)
    # The word at 25.2 s of the story begins with the event.
    assert words["part"].tolist() == ["now" if onset < 25 else "later" for onset in words["onset"]]


def test_what_is_dropped_or_out_of_reach_is_counted() -> None:
    onsets = np.array([0.0, 1.0, 2.0, 9.0, 10.0])
    transcript = Transcript("hare", ("the",) * 5, onsets, onsets + 0.5, n_marks=3, n_untimed=2)
    # Volumes from 12 to 20 s; told at 11 s, two words come too early or too late, at 18 s all after the third do.
    found = dropped([Heard(transcript, 11.0), Heard(transcript, 18.0)], np.arange(12.0, 21.0))
    assert found == {"NumberOfMarksDropped": 6, "NumberOfWordsWithoutTime": 4, "NumberOfWordsOutsideSeries": 2 + 2}


def test_a_story_far_from_the_series_is_one_clear_line(run: RunFiles, listening: Any) -> None:
    assert run.events is not None
    run.events.write_text("onset\tduration\tstim_file\n900\t110\thare.wav\n", encoding="utf-8")
    with pytest.raises(
        InputError, match=r"words of hare lie between 900\.2 and 997\.7 s: .*events.tsv \(expected: words between 5"
    ):
        listened(listening(), run)


def test_a_run_without_events_has_the_words_of_its_task(run: RunFiles, listening: Any, tmp_path: Path) -> None:
    silent = dataclasses.replace(run, events=None, entities=run.entities | {"task": "rest"}, task="rest")
    with pytest.raises(NoTextError):
        listened(listening(), silent)
    (tmp_path / "bids" / "stimuli" / "fox.tsv").write_text("onset\tduration\tword\n1\t0.3\thi\n", encoding="utf-8")
    told = dataclasses.replace(run, events=None, entities=run.entities | {"task": "fox"}, task="fox")
    words, _ = listened(listening("window.start", "12"), told)
    assert words[["story", "start", "word"]].to_numpy().tolist() == [["fox", 12.0, "hi"]]
    found, faults = texted_runs(listening(), [run, silent])
    assert ([item.run for item in found], faults) == ([run], [])


def test_what_was_written_divides_as_what_was_planned(run: RunFiles, listening: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    request = listening("split.scheme", "blocks", "split.block", "10")
    for module in ("clean", "responses"):
        monkeypatch.setattr(f"bids_brainlm.stages.{module}.runs_of", lambda request, participant: [run])
    from bids_brainlm.stages.clean import clean

    paths = clean(request, participant="01", run="sub-01_task-x_run-2", sources={"bids:x:bold": "0"})
    stamp = request.out_dir / "logs" / "stages" / "sub-01_task-x_run-2_clean.json"
    stamp.parent.mkdir(parents=True)
    outputs = {str(path.relative_to(request.out_dir)): path.stat().st_size for path in paths}
    stamp.write_text(json.dumps({"key": "k", "outputs": outputs}))
    trials = load_trials(request, "01")
    np.testing.assert_array_equal(trials.data, read_cleaned(paths[0]).data)
    assert trials.heard is not None
    pd.testing.assert_frame_equal(trials.heard, read_words(paths[-2], "sub-01_task-x_run-2"))
    examples, (fold,) = divided(request, *_planned(request, run))
    written = window_examples(trials, request.config)
    np.testing.assert_array_equal(written.id, examples.id)
    np.testing.assert_array_equal(written.rows, examples.rows)
    np.testing.assert_array_equal(written.group, examples.group)
    assert written.prompts == examples.prompts
    assert len(fold.test)
    counts = left_out_of(before_responses(*_planned(request, run)), request.config.window)
    afterwards = heard_in(request, "01")
    assert afterwards is not None
    assert left_out_of(afterwards, request.config.window) == counts
    assert counts.silent + counts.outside + counts.used + counts.early == 49


def _planned(request: Any, run: RunFiles) -> Any:
    words, volumes = listened(request, run)
    return [volumes], run.place, [words]
