"""Estimators that choose from all runs, through the command line: what they write, see, leave out, and when they run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

AUTO = ("--estimator", "auto", "--participant-label", "01", "--skip", "train")


@pytest.fixture
def study(tuned_done: Any, tmp_path: Path) -> Any:
    """The finished study, moved to another place."""
    return tuned_done.copy(tmp_path, results=True)


def _tuning(study: Any) -> dict[str, Any]:
    path = study.out / "sub-01" / "func" / "sub-01_task-look_space-T1w_stat-tuning_desc-AUTO_statmap.json"
    tree: dict[str, Any] = json.loads(path.read_text())
    return tree


def _maps(study: Any) -> dict[str, np.ndarray]:
    image: Any = nib.load(study.out / "sub-01" / "func" / "sub-01_task-look_space-T1w_stat-tuning_desc-AUTO_statmap.nii.gz")
    data = np.asarray(image.dataobj)
    return {name: data[..., i] for i, name in enumerate(_tuning(study)["Maps"])}


def _betas(study: Any, run: int) -> tuple[list[str], np.ndarray]:
    """Pictures and responses (n, V) of a run."""
    stem = f"sub-01_task-look_run-{run}"
    image: Any = nib.load(study.out / "sub-01" / "func" / f"{stem}_space-T1w_stat-effect_desc-AUTO_statmap.nii.gz")
    mask: Any = nib.load(study.out / "sub-01" / "func" / f"{stem}_space-T1w_desc-brain_mask.nii.gz")
    table = _trials(study, run)
    return list(table["stimulus_id"]), np.asarray(image.dataobj)[np.asarray(mask.dataobj) > 0].T


def _trials(study: Any, run: int) -> pd.DataFrame:
    return pd.read_csv(study.out / "sub-01" / "beh" / f"sub-01_task-look_run-{run}_desc-trials_events.tsv", sep="\t")


def _report(study: Any) -> str:
    return " ".join((study.out / "sub-01.html").read_text().split())


def test_pictures_are_told_apart_by_what_was_chosen(tuned_done: Any) -> None:
    (names, first), (others, second) = (_betas(tuned_done, run) for run in (1, 2))
    agreement = np.corrcoef(first, second)[: len(names), len(names) :]
    assert [others[i] for i in agreement.argmax(axis=1)] == names


def test_what_was_chosen_is_written_and_told(tuned_done: Any) -> None:
    about, maps = _tuning(tuned_done), _maps(tuned_done)
    assert about["EstimationSteps"] == ["hrf", "denoise", "ridge"]
    assert about["StepsLeftOut"] == {}
    assert len(about["TunedOnRuns"]) == 3
    inside = maps["mask"] > 0
    assert (maps["fraction"][inside] > 0).all()
    assert (maps["fraction"][inside] <= 1).all()
    library = tuned_done.out / "sub-01" / "func" / "sub-01_task-look_desc-AUTOlibrary_timeseries.tsv"
    assert maps["hrf"].max() < len(pd.read_csv(library, sep="\t").columns) - 1
    sidecar = library.with_name("sub-01_task-look_run-2_space-T1w_stat-effect_desc-AUTO_statmap.json")
    said = json.loads(sidecar.read_text())
    assert {key: said[key] for key in ("EstimationSteps", "TuneOn")} == {
        "EstimationSteps": about["EstimationSteps"],
        "TuneOn": "auto",
    }
    assert "Choices were made on all 3 runs, those with test trials among them (transductive); no text was seen." in _report(
        tuned_done
    )
    methods = (tuned_done.out / "logs" / "sub-01_CITATION.md").read_text()
    for work in ("Prince", "Rokem", "Kay, Kendrick N."):
        assert work in methods


def test_a_changed_option_runs_what_depends_on_it(study: Any) -> None:
    study.ok(*AUTO)
    assert study.executed() == []
    before = _maps(study)
    # Which trials are decoded does not bear on choices.
    study.ok(*AUTO, "parcellate", "--set", "estimate.max_outliers=0.5")
    assert study.executed() == ["estimate"] * 3
    study.ok(*AUTO, "parcellate", "--set", "estimate.hrf_choice=insample")
    assert sorted(study.executed()) == ["estimate"] * 3 + ["tune"]
    assert _tuning(study)["HRFChoice"] == "insample"
    assert not np.array_equal(_maps(study)["hrf"], before["hrf"])


def test_series_on_disk_lead_to_the_same_choices(study: Any) -> None:
    before = {name: values.tobytes() for name, values in _maps(study).items()}
    next((study.out / "sub-01" / "func").glob("*_stat-tuning_*.nii.gz")).unlink()
    study.ok(*AUTO, "parcellate", "--low-mem")
    assert "tune" in study.executed()
    assert {name: values.tobytes() for name, values in _maps(study).items()} == before


def test_another_estimator_leaves_no_choices_behind(study: Any) -> None:
    study.ok("--participant-label", "01", "--skip", "parcellate", "train")
    assert sorted(study.executed()) == ["estimate"] * 3
    left = [
        path.name for path in (study.out / "sub-01" / "func").iterdir() if "stat-tuning" in path.name or "library" in path.name
    ]
    assert left == []
    assert "Choices were made" not in _report(study)


def test_choices_can_be_kept_from_test_runs(volume: Any, tmp_path: Path) -> None:
    """The series of the test run may be anything: nothing that was chosen changes with it."""
    study = volume.copy(tmp_path)
    kept = (*AUTO, "parcellate", "--group", "run", "--tune-on", "train")
    study.ok(*kept)
    about, before = _tuning(study), _maps(study)
    (held_out,) = about["OtherRuns"]
    assert len(about["TunedOnRuns"]) == 2
    assert "Choices were made on 2 of 3 runs, those without a test trial" in _report(study)
    path = study.func("space-T1w_desc-preproc_bold.nii.gz", int(held_out[-1]))
    image: Any = nib.load(path)
    data = np.asarray(image.dataobj)
    new: Any = nib.Nifti1Image
    nib.save(new(data[..., np.random.default_rng(0).permutation(data.shape[3])], image.affine, image.header), path)
    study.ok(*kept)
    assert "tune" in study.executed()
    for name, values in _maps(study).items():
        np.testing.assert_array_equal(values, before[name], err_msg=name)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--tune-on", "train"), 65, "every run holds a test trial"),
        (("--tune-on", "train", "--split", "kfold", "--group", "run"), 2, "tests every run in turn"),
        (("--noise-model", "ar1"), 2, "--noise-model ar1 is for lsa and lss"),
        (("--set", "estimate.max_fd=0.5"), 65, "fd_mean is not known"),
    ],
    ids=["stimuli-in-every-run", "folds", "noise", "motion-unknown"],
)
def test_what_cannot_be_is_said_before_any_work(volume: Any, tmp_path: Path, arguments: Any, code: int, words: str) -> None:
    done = volume.run(*AUTO, *arguments, "--dry-run", out=tmp_path / "out", work=tmp_path / "work")
    assert done.code == code, done.err
    assert words in " ".join(done.err.split())


def test_one_run_has_no_repeats_to_validate_on(volume: Any, tmp_path: Path) -> None:
    study = volume.copy(tmp_path)
    study.ok(*AUTO, "parcellate", "--run-label", "1")
    about = _tuning(study)
    assert about["EstimationSteps"] == ["hrf"]
    assert set(about["StepsLeftOut"]) == {"denoise", "ridge"}
    report = _report(study)
    for step in ("nuisance components of a noise pool", "fractional ridge"):
        assert f"Left out: {step}, because no stimulus is repeated in another run." in report
    assert (_maps(study)["fraction"][_maps(study)["mask"] > 0] == 1).all()


def test_trials_beyond_a_limit_are_in_no_part_of_the_split(volume: Any, tmp_path: Path) -> None:
    """The head moves 1 mm in volumes 20 to 22 of run 2 (40 to 44 s): a closed form says whose window that touches."""
    study = volume.copy(tmp_path)
    for run in (1, 2, 3):
        path = study.func("desc-confounds_timeseries.tsv", run)
        table = pd.read_csv(path, sep="\t")
        table["framewise_displacement"] = np.where((run == 2) & np.isin(np.arange(len(table)), (20, 21, 22)), 1.0, 0.1)
        table.to_csv(path, sep="\t", index=False)
    limit = ("--participant-label", "01", "--skip", "parcellate", "decode", "--set", "estimate.max_fd=0.3", "phases.0.epochs=1")
    study.ok(*limit)
    trials = _trials(study, 2)
    times = 2.0 * np.arange(len(pd.read_csv(study.func("desc-confounds_timeseries.tsv", 2), sep="\t")))
    windows = [(times >= onset + 2) & (times <= onset + 11) for onset in trials["onset"]]
    moved = np.isin(np.arange(times.size), (20, 21, 22))
    mean = [np.where(moved, 1.0, 0.1)[window].mean() for window in windows]
    np.testing.assert_allclose(trials["fd_mean"], mean, atol=1e-4)
    assert list(trials["keep"]) == [value <= 0.3 for value in mean]
    n_beyond = int((~trials["keep"]).sum())
    assert 0 < n_beyond < 5
    model = json.loads(next((study.out / "sub-01" / "model").glob("*.json")).read_text())
    assert sum(model["NumberOfExamples"].values()) == 36 - n_beyond
    assert f"{n_beyond} of 36 trials lie beyond the limits on motion" in _report(study)


def test_repeats_that_would_tell_labels_of_test_trials_are_not_compared(volume: Any, tmp_path: Path) -> None:
    """With whole runs held out, training and test share stimuli: by default no step compares their repeats."""
    study = volume.copy(tmp_path)
    apart = (*AUTO, "parcellate", "--group", "run")
    study.ok(*apart)
    about = _tuning(study)
    assert about["EstimationSteps"] == ["hrf"]
    assert about["HRFChoice"] == "onoff"
    assert not about["RepeatsCompared"]
    assert "would use the labels of test trials" in _report(study)
    study.ok(*apart, "--tune-on", "all")
    assert "tune" in study.executed()
    about = _tuning(study)
    assert about["EstimationSteps"] == ["hrf", "denoise", "ridge"]
    assert about["TestLabelsSeen"]
    assert "figures are optimistic" in _report(study)
    done = study.run(*apart, "--estimator", "ridge")
    assert done.code == 65
    assert "training and test share stimuli" in done.lines[-1]
