"""Single-trial betas against nilearn: how much faster, with how much memory, and whether they are equal.

A synthetic session of six runs on fsaverage5 (``--small``: one run of 2,000 vertices): 200 volumes a run (TR 2 s), 60 trials of
1 s at least 2 s apart, cosine drifts at 1/128 Hz, six confounds, and noise with an autocorrelation of 0 to .5. nilearn has no LSA
or LSS of its own; what is compared is what its users write:

- ``FirstLevelModel`` on an image, one contrast a trial (LSA); with OLS it is the measure that all times are given in;
- ``run_glm`` on arrays with one regressor a trial, the betas taken from the fitted models (LSA);
- either of them once a trial (LSS), extrapolated to all trials from a few fits. With AR(1) each of these fits estimates a rho of
  its own; ours takes that of the model of all trials, as nilearn's LSA does, so LSS with AR(1) is compared in time only
  (``tests/core/test_autoregression.py`` holds it equal to nilearn's fits with the same rho).

Designs are made beforehand and timed apart. One thread: CPU seconds, fastest of three rounds. Two threads: wall seconds, and how
much faster that is than one thread.

    OMP_NUM_THREADS=1 python benchmarks/glm.py [--small]
"""

from __future__ import annotations

import argparse
import os
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from nilearn.glm.first_level import FirstLevelModel, compute_regressor, run_glm
from nilearn.maskers import NiftiMasker

from bids_brainlm.core.design import nuisance, trial_design, trial_designs
from bids_brainlm.core.glm import lsa, lss

TR, N_VOLUMES, N_TRIALS, LSS_FITS, ROUNDS = 2.0, 200, 60, 4, 3
FRAMES = TR * np.arange(N_VOLUMES)
ESTIMATORS = {"LSA": lsa, "LSS": lss}
NOISE = {"ols": "", "ar1": " AR(1)"}
MOVED = {"ols": 0.0, "ar1": 2e-3}  # share of units whose rho may be in the next bin


@dataclass
class Session:
    """Series (T, V), trials (T, n), nuisance (T, q) and onsets (n,) of each run, and nilearn's image and design of it."""

    bold: list[Any]
    trials: list[Any]
    nuisance: list[Any]
    onsets: list[Any]
    images: list[Any]
    tables: list[Any]
    mask: Any

    def ours(self, name: str, noise_model: str, threads: int = 1) -> Any:
        runs = zip(self.bold, self.trials, self.nuisance, strict=True)
        return np.vstack([ESTIMATORS[name](*run, noise_model=noise_model, threads=threads) for run in runs])


def noise(rng: Any, n_vertices: int) -> Any:
    """(T, V) AR(1), rho 0 to .5 by vertex."""
    rho = np.linspace(0, 0.5, n_vertices, dtype=np.float32)
    series = rng.standard_normal((N_VOLUMES, n_vertices), dtype=np.float32)
    for before, now in zip(series[:-1], series[1:], strict=True):
        now += rho * before
    return series


def session(n_runs: int, n_vertices: int) -> Session:
    rng = np.random.default_rng(0)
    found = Session([], [], [], [], [], [], None)
    for _ in range(n_runs):
        gaps = rng.uniform(2, 8, N_TRIALS)
        onsets = np.cumsum(gaps) * (FRAMES[-1] - 20) / gaps.sum()
        trials = trial_design(onsets, np.ones(N_TRIALS), FRAMES)
        others = nuisance(FRAMES, 1 / 128, rng.standard_normal((N_VOLUMES, 6)))
        betas = rng.standard_normal((N_TRIALS, n_vertices), dtype=np.float32) + 1
        drift = others.astype(np.float32) @ rng.standard_normal((others.shape[1], n_vertices), dtype=np.float32)
        bold = trials.astype(np.float32) @ betas + drift + noise(rng, n_vertices) + 100
        columns = [f"trial{i}" for i in range(N_TRIALS)] + [f"nuisance{i}" for i in range(others.shape[1])]
        found.bold.append(bold)
        found.trials.append(trials)
        found.nuisance.append(others)
        found.onsets.append(onsets)
        found.images.append(nibabel.Nifti1Image(np.ascontiguousarray(bold.T)[:, None, None], np.eye(4)))
        found.tables.append(pd.DataFrame(np.column_stack([trials, others]), columns=columns, index=FRAMES))
    mask = nibabel.Nifti1Image(np.ones((n_vertices, 1, 1), dtype=np.uint8), np.eye(4))
    found.mask = NiftiMasker(mask, standardize=None).fit()
    return found


def fitted(bold: Any, design: Any, noise_model: str) -> Any:
    """(p, V) parameters of nilearn's models."""
    labels, results = run_glm(bold, np.asarray(design), noise_model=noise_model)
    theta = np.empty((design.shape[1], bold.shape[1]))
    for label, result in results.items():
        theta[:, labels == label] = result.theta
    return theta


def contrasts(image: Any, design: Any, mask: Any, noise_model: str, n_contrasts: int) -> Any:
    """(n_contrasts, V) effect sizes of the first columns of a FirstLevelModel."""
    model = FirstLevelModel(mask_img=mask, noise_model=noise_model, signal_scaling=False).fit(image, design_matrices=design)
    each = (model.compute_contrast(row, output_type="effect_size") for row in np.eye(design.shape[1])[:n_contrasts])
    return np.array([contrast.get_fdata(dtype=np.float32).ravel() for contrast in each])


def lss_tables(table: Any) -> Any:
    """Designs of the first trials of a run, each in a model of its own."""
    trials, others = table.iloc[:, :N_TRIALS], table.iloc[:, N_TRIALS:]
    for i in range(LSS_FITS):
        own = pd.DataFrame({"trial": trials.iloc[:, i], "rest": trials.drop(columns=trials.columns[i]).sum(axis=1)})
        yield pd.concat([own, others], axis=1)


def nilearn_arrays(data: Session, name: str, noise_model: str) -> Any:
    if name == "LSS":
        return np.vstack([fitted(data.bold[0], design, noise_model)[:1] for design in lss_tables(data.tables[0])])
    pairs = zip(data.bold, data.tables, strict=True)
    return np.vstack([fitted(bold, design, noise_model)[:N_TRIALS] for bold, design in pairs])


def nilearn_model(data: Session, name: str, noise_model: str) -> Any:
    if name == "LSS":
        designs = lss_tables(data.tables[0])
        return np.vstack([contrasts(data.images[0], design, data.mask, noise_model, 1) for design in designs])
    pairs = zip(data.images, data.tables, strict=True)
    return np.vstack([contrasts(image, design, data.mask, noise_model, N_TRIALS) for image, design in pairs])


def timed(work: Callable[[], Any], clock: Callable[[], float] = time.process_time, rounds: int = 1) -> tuple[float, Any]:
    """Fastest of a few rounds, and the result."""
    seconds = []
    for _ in range(rounds):
        start = clock()
        result = work()
        seconds.append(clock() - start)
    return min(seconds), result


def peak_memory(work: Callable[[], Any]) -> float:
    """MB that were held at the worst moment beside the input."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def apart(ours: Any, theirs: Any) -> tuple[float, float]:
    """Largest difference in units that agree to 1e-3, and the share of units that do not (rho in the next bin)."""
    difference = np.abs(ours[: len(theirs)] - theirs).max(axis=0)
    equal = difference <= 1e-3
    return float(difference[equal].max(initial=0.0)), float(1 - equal.mean())


def designs(data: Session) -> None:
    """Print what the regressors take."""
    durations = np.ones(N_TRIALS)
    kernels = np.random.default_rng(1).uniform(size=(20, 321))
    ours, found = timed(lambda: [trial_design(onsets, durations, FRAMES) for onsets in data.onsets], rounds=ROUNDS)
    many, _ = timed(lambda: [trial_designs(onsets, durations, FRAMES, kernels) for onsets in data.onsets], rounds=ROUNDS)
    columns = [
        [compute_regressor(np.array([[t], [1.0], [1.0]]), "glover", FRAMES)[0] for t in times] for times in data.onsets[:1]
    ]
    theirs, _ = timed(lambda: [compute_regressor(np.array([[t], [1.0], [1.0]]), "glover", FRAMES) for t in data.onsets[0]])
    difference = np.abs(found[0] - np.hstack(columns[0])).max()
    if difference > 1e-9:
        raise SystemExit(f"designs differ by {difference:.1e}")
    print(
        f"designs: ours {ours:.4f} s, under 20 responses {many:.4f} s; nilearn {theirs * len(data.onsets):.3f} s (from one run)"
    )


def row(data: Session, name: str, noise_model: str, measure: float) -> bool:
    """Print one estimator beside its peers; whether its betas are theirs."""
    ours, betas = timed(lambda: data.ours(name, noise_model), rounds=ROUNDS)
    one, two = (timed(lambda n=n: data.ours(name, noise_model, n), time.perf_counter, ROUNDS)[0] for n in (1, 2))
    scale = len(betas) / LSS_FITS if name == "LSS" else 1
    times, differences = [], []
    for peer in (nilearn_model, nilearn_arrays):
        seconds, theirs = timed(lambda peer=peer: peer(data, name, noise_model))
        times.append(f"{seconds * scale:9.2f} s {seconds * scale / ours:5.0f} x")
        differences.append(apart(betas, theirs))
    compared = name == "LSA" or noise_model == "ols"
    difference, moved = max(differences)
    shown = f"{difference:.0e}  {moved:.1e}" if compared else "(another rho)"
    print(
        f"{name + NOISE[noise_model]:10s}{ours:8.3f} s {ours / measure:6.3f} x{two:10.3f} s {one / two:5.2f} x"
        f"{times[0]:>20s}{times[1]:>20s}  {shown}"
    )
    return not compared or moved <= MOVED[noise_model]


def memory(data: Session) -> None:
    """Print the peak for one run."""
    bold, series = data.bold[0], data.bold[0].nbytes / 1e6
    for noise_model, label in NOISE.items():
        ours = peak_memory(lambda model=noise_model: lsa(bold, data.trials[0], data.nuisance[0], noise_model=model))
        theirs = peak_memory(lambda model=noise_model: fitted(bold, data.tables[0], model))
        print(
            f"memory beside the {series:.0f} MB of one run, betas included, LSA{label}: {ours:.0f} MB; run_glm: {theirs:.0f} MB"
        )


def compare(n_runs: int, n_vertices: int) -> None:
    """Time, compare and print; SystemExit where betas differ by more than rounding."""
    data = session(n_runs, n_vertices)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"{n_runs} run(s) x {N_VOLUMES} volumes, {N_TRIALS} trials a run, {n_vertices} vertices; OMP_NUM_THREADS={threads}")
    designs(data)
    measure, reference = timed(lambda: nilearn_model(data, "LSA", "ols"), rounds=ROUNDS)
    print(f"measure: nilearn FirstLevelModel, LSA, OLS, {len(reference)} contrasts: {measure:.2f} s")
    print(f"{'':10s}{'one thread':>19s}{'two threads, wall':>20s}{'FirstLevelModel':>20s}{'run_glm':>20s}  differs  other bin")
    equal = {name + NOISE[model]: row(data, name, model, measure) for model in NOISE for name in ESTIMATORS}
    memory(data)
    if not all(equal.values()):
        raise SystemExit(f"betas differ: {', '.join(name for name, same in equal.items() if not same)}")
    print(f"equal; betas have a standard deviation of {reference.std():.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="one run of 2,000 vertices")
    compare(*((1, 2000) if parser.parse_args().small else (6, 20484)))


if __name__ == "__main__":
    main()
