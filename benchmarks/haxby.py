"""Real data: does another estimator make the category of a picture easier to read than LSA does?

One person, 12 runs, 96 blocks of 8 categories, 530 voxels (Haxby et al. 2001), from ``haxby2001`` in the folder of test data.
Betas are centred by run; a linear readout is fitted on eleven runs and names the categories of the twelfth. What is shown is the
difference to LSA on the same trials, with a 95 % bootstrap interval over runs, since trials of a run share its model.

The choices of the tuned estimators see which blocks repeat a category. ``all``: they see the test run too (its responses, never
its captions, but that its blocks are repeats of others); ``train``: they are made anew in every fold, without the test run.

    BRAINLM_TEST_DATA=... OMP_NUM_THREADS=1 python benchmarks/haxby.py
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bids_brainlm.config import Request, load
from bids_brainlm.core.features import center
from bids_brainlm.core.glm import lsa, lss
from bids_brainlm.core.tuning import Options
from bids_brainlm.evaluation.readout import readout
from bids_brainlm.registry import estimators
from bids_brainlm.stages.runs import LoadedRun, load_run, mask_of, runs_of
from bids_brainlm.stages.tune import run_of

READOUTS = ("logistic", "ridge")
STEPS = ("hrf", "denoise", "ridge")
N_SAMPLES = 10_000


def loaded_runs(folder: Path) -> list[LoadedRun]:
    """Series, trials and designs as the command line would make them."""
    settings = load(overrides={"input.space": "T1w", "text.table": "stimuli/captions.tsv", "text.key": "trial_type"})
    with tempfile.TemporaryDirectory() as work:
        out = Path(work)
        request = Request(folder, out / "out", "participant", ("1",), {}, out / "work", settings)
        files = runs_of(request, "1")
        mask = mask_of(files)
        return [load_run(request, item, mask) for item in files]


def per_run(runs: list[LoadedRun], estimator: Any, **options: Any) -> list[Any]:
    """Betas of each run in percent, from an estimator that sees one at a time."""
    return [estimator(run.series, run.design.trials, run.design.nuisance, **options) * run.scale for run in runs]


def tuned(runs: list[LoadedRun], name: str, chosen: list[bool] | None, options: Options) -> tuple[list[Any], Any]:
    estimator, each = estimators.get(name), [run_of(run) for run in runs]
    tuning = estimator.tune(each, options, chosen)
    return [estimator.estimate(run, tuning, i, options) for i, run in enumerate(each)], tuning


def named(betas: list[Any], test: int, labels: list[Any], kind: str) -> Any:
    """Which trials of run ``test`` get their right name."""
    number = np.repeat(np.arange(len(betas)), [len(each) for each in betas])
    data = center(np.nan_to_num(np.concatenate(betas)), number)
    every, held = np.concatenate(labels), number == test
    return readout(data[~held], every[~held], data[held], kind, number[~held]) == every[held]


def line(label: str, right: Any, base: Any, note: str = "") -> None:
    """``right``, ``base`` : (runs, trials) bool"""
    rng = np.random.default_rng(0)
    gains = (right.astype(float) - base).mean(axis=1)
    samples = gains[rng.integers(0, len(gains), (N_SAMPLES, len(gains)))].mean(axis=1)
    low, high = np.quantile(samples, [0.025, 0.975])
    print(f"  {label:24s} {right.mean():.3f}  {gains.mean():+.3f} [{low:+.3f}, {high:+.3f}] {note}", flush=True)


def main() -> None:
    runs = loaded_runs(Path(os.environ["BRAINLM_TEST_DATA"]) / "haxby2001")
    labels = [run.trials["stimulus_id"].to_numpy(str) for run in runs]
    n = len(runs)
    fixed = {
        f"{f.__name__}{', AR(1)' * (m == 'ar1')}": per_run(runs, f, noise_model=m) for f in (lsa, lss) for m in ("ols", "ar1")
    }
    notes: dict[str, str] = {}
    folds: dict[str, list[list[Any]]] = {}
    for step in STEPS:
        for choice in ("auto", "onoff") if step == "hrf" else ("auto",):
            label = step if choice == "auto" else f"{step}, {choice}"
            betas, tuning = tuned(runs, step, None, Options(hrf_choice=choice))
            fixed[f"{label} (all)"] = betas
            notes[f"{label} (all)"] = (
                f"components {tuning.components[0].shape[1]}, median fraction {np.median(tuning.fraction):.2f}"
            )
            folds[f"{label} (train)"] = [
                tuned(runs, step, [i != test for i in range(n)], Options(hrf_choice=choice))[0] for test in range(n)
            ]
    for kind in READOUTS:
        print(f"{kind} readout, {n} runs left out in turn, {sum(map(len, labels))} trials, chance .125: right, difference to lsa")
        base = np.array([named(fixed["lsa"], test, labels, kind) for test in range(n)])
        for label, betas in fixed.items():
            line(label, np.array([named(betas, test, labels, kind) for test in range(n)]), base, notes.get(label, ""))
        for label, each in folds.items():
            line(label, np.array([named(each[test], test, labels, kind) for test in range(n)]), base)


if __name__ == "__main__":
    main()
