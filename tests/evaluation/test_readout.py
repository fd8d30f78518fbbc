"""Readouts equal scikit-learn's fit on all vertices, choose the penalty on training trials alone, and find real categories."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import LeaveOneGroupOut
from sklearn.preprocessing import StandardScaler

from bids_brainlm.evaluation.readout import KINDS, C, kernels, readout, ridge_path


def planted(n: int = 60, n_vertices: int = 150, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    patterns = rng.normal(size=(3, n_vertices))
    data = patterns[labels] + noise * rng.normal(size=(n, n_vertices)) + 40 * rng.normal(size=n_vertices)
    return data.astype(np.float32), np.array(["cat", "dog", "face"])[labels]


@pytest.mark.parametrize("n_vertices", [10, 150])
def test_logistic_equals_the_fit_on_all_vertices(n_vertices: int) -> None:
    x, y = planted(n_vertices=n_vertices, noise=4.0)
    scaler = StandardScaler().fit(x[:40])
    fit = LogisticRegression(C=C, max_iter=2000).fit(scaler.transform(x[:40]), y[:40])
    expected = fit.predict(scaler.transform(x[40:]))
    assert (readout(x[:40], y[:40], x[40:], "logistic") == expected).mean() >= 0.95


@pytest.mark.parametrize("alpha", [0.01, 1.0, 100.0])
def test_ridge_path_equals_scikit_learn(alpha: float) -> None:
    x, y = planted(seed=1)
    targets = (y[:40, None] == np.unique(y)).astype(float)
    z = StandardScaler().fit(x[:40].astype(float))
    train, test = z.transform(x[:40].astype(float)), z.transform(x[40:].astype(float))
    unit = (train**2).sum(axis=1).mean()
    expected = Ridge(alpha * unit).fit(train, targets).predict(test)
    parts = (x[:40].astype(float), x[40:].astype(float))
    # However many vertices there are in memory at a time.
    kernel, cross = kernels((parts[0][:, i : i + 40], parts[1][:, i : i + 40]) for i in range(0, 150, 40))
    np.testing.assert_allclose(ridge_path(kernel, targets, cross, np.array([alpha]))[0], expected, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_planted_classes_are_found_and_noise_is_not(kind: str) -> None:
    x, y = planted(200, noise=3.0)
    assert (readout(x[:150], y[:150], x[150:], kind) == y[150:]).mean() > 0.9
    guess = readout(x[:150], np.random.default_rng(0).permutation(y[:150]), x[150:], kind)
    assert (guess == y[150:]).mean() < 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_bad_vertices_do_not_matter(kind: str) -> None:
    x, y = planted()
    bad = x.copy()
    bad[:, 3] = 7.0
    bad[5, 4] = np.nan
    keep = np.delete(np.arange(x.shape[1]), [3, 4])
    np.testing.assert_array_equal(
        readout(bad[:40], y[:40], bad[40:], kind), readout(x[:40][:, keep], y[:40], x[40:][:, keep], kind)
    )


def test_one_class_and_faults() -> None:
    x, y = planted()
    assert set(readout(x[:5], ["cat"] * 5, x[5:])) == {"cat"}
    with pytest.raises(ValueError, match="lasso"):
        readout(x, y, x, "lasso")
    with pytest.raises(ValueError, match="expected"):
        readout(x, y[:-1], x)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_cortex_takes_seconds(kind: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((640, 20484), dtype=np.float32)
    y = rng.integers(0, 8, 640).astype(str)
    start = time.perf_counter()
    readout(x, y, x[:160], kind, groups_train=np.arange(640) // 3)
    assert time.perf_counter() - start < 15


@pytest.mark.data
def test_categories_of_haxby_are_read_out(real_data: Path) -> None:
    """Eight categories, leave one run out: logistic regression on LSS betas had .57 to .58 elsewhere (standard error .065)."""
    betas, labels, runs = haxby(real_data / "haxby2001")
    splits = list(LeaveOneGroupOut().split(betas, labels, runs))
    for kind, least in (("logistic", 0.5), ("ridge", 0.5)):
        said = np.empty_like(labels)
        for train, test in splits:
            said[test] = readout(betas[train], labels[train], betas[test], kind, runs[train])
        assert (said == labels).mean() >= least


def haxby(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(96, V) LSS betas centred per run, their categories and runs."""
    import nibabel as nib
    import pandas as pd

    from bids_brainlm.core import design, glm

    betas, labels, runs = [], [], []
    for run in range(1, 13):
        stem = f"sub-1_task-objectviewing_run-{run:02d}"
        derived = folder / "derivatives" / "fmriprep" / "sub-1" / "func" / stem
        bold = nib.load(f"{derived}_space-T1w_desc-preproc_bold.nii.gz").get_fdata(dtype=np.float32)
        mask = nib.load(f"{derived}_space-T1w_desc-brain_mask.nii.gz").get_fdata() > 0
        events = pd.read_csv(folder / "sub-1" / "func" / f"{stem}_events.tsv", sep="\t")
        events = events[events["trial_type"] != "rest"]
        confounds = pd.read_csv(f"{derived}_desc-confounds_timeseries.tsv", sep="\t")
        motion = confounds[[f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]].to_numpy()
        times = np.arange(bold.shape[3]) * 2.5
        trials = design.trial_design(events["onset"].to_numpy(), events["duration"].to_numpy(), times, "glover")
        estimate = glm.lss(glm.percent_signal_change(bold[mask].T), trials, design.nuisance(times, 1 / 128, motion))
        betas.append(estimate - estimate.mean(axis=0))
        labels += events["trial_type"].tolist()
        runs += [run] * len(events)
    return np.concatenate(betas), np.array(labels), np.array(runs)
