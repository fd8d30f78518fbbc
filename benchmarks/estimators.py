"""The whole chain of single-trial estimation: how near to the truth each step comes, how fast, and with how much memory.

Synthetic sessions (`session`): 20,484 vertices (``--vertices``), 6 runs of 200 volumes (TR 2 s), 60 trials of 2 s a run, 120
stimuli three times, in other runs where possible. 40 % of the vertices respond, with one of 64 double gammas that are in no
library here (peak 4 to 8 s); a response is the mean response, a stimulus pattern of which part is shared over cortex, and a
random part of the trial. Noise: drifts, AR(1), and six courses that vertices share. ``hard`` has low contrast and strong shared
noise, ``moderate`` 2.5 times the contrast and half the shared noise, ``alone`` no shared noise; ``zero`` is ``moderate`` with a
mean response of 0.

    OMP_NUM_THREADS=1 python benchmarks/estimators.py accuracy [--vertices N] [--seeds 3] [--choices]
    OMP_NUM_THREADS=1 python benchmarks/estimators.py speed

*accuracy*: r with the true amplitudes (mean over vertices that respond), top-1 identification of a stimulus among 120 between two
repeats from 200 vertices (chance .008), and the correlation of the errors of neighbouring trials; mean over seeds, with the
standard deviation. The choices see all repeats, so identification flatters whatever is chosen on them; r does not.
*speed*: CPU and wall seconds and peak memory, each in a process of its own, from onsets to betas; beside nilearn FirstLevelModel
with OLS and one contrast a trial (LSA), from events and (``designs``) with its designs made beforehand.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import gamma

from bids_brainlm.core.design import nuisance, trial_design
from bids_brainlm.core.glm import lsa, lss, percent_scale
from bids_brainlm.core.tuning import HRF_CHOICES, Options, Run
from bids_brainlm.registry import estimators

TR, N_RUNS, N_VOLUMES, N_TRIALS, N_STIMULI, DURATION = 2.0, 6, 200, 60, 120, 2.0
FRAMES = TR * np.arange(N_VOLUMES)
STEPS = ("hrf", "denoise", "ridge")
ROUNDS = 4


@dataclass(frozen=True)
class Kind:
    """Contrast to noise, size of the shared noise, mean response."""

    contrast: float
    shared: float
    mean: float = 1.0


KINDS = {"hard": Kind(0.6, 0.8), "moderate": Kind(1.5, 0.4), "alone": Kind(1.5, 0.0), "zero": Kind(1.5, 0.4, 0.0)}


@dataclass(frozen=True, eq=False)
class Session:
    """Runs, true betas (N, V), stimulus of each trial (N,), and the vertices that respond (V,)."""

    runs: list[Run]
    truth: Any
    stimulus: Any
    responds: Any


def session(kind: Kind, n_vertices: int, seed: int) -> Session:
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(N_STIMULI) for _ in range(N_RUNS * N_TRIALS // N_STIMULI)]).reshape(N_RUNS, N_TRIALS)
    shapes = _shapes(rng)
    shape = rng.integers(0, len(shapes), n_vertices)
    responds = np.arange(n_vertices) < 0.4 * n_vertices
    size = np.where(responds, rng.gamma(3.0, kind.contrast / 3.0, n_vertices), 0.0).astype(np.float32)
    common = rng.standard_normal((N_STIMULI, 20)) @ rng.standard_normal((20, n_vertices)) / np.sqrt(20)
    pattern = kind.mean + 0.7 * common + 0.4 * rng.standard_normal((N_STIMULI, n_vertices))
    loads = rng.standard_normal((6, n_vertices)) * np.linspace(1.5, 0.5, 6)[:, None] * kind.shared
    base, rho, spread = rng.uniform(600, 1400, n_vertices), rng.uniform(0.1, 0.5, n_vertices), rng.uniform(0.7, 1.3, n_vertices)
    runs, truth = [], []
    for stimuli in order:
        onsets = TR * _onsets(rng)
        betas = ((pattern[stimuli] + 0.6 * rng.standard_normal((N_TRIALS, n_vertices))) * size).astype(np.float32)
        series = _noise(rng, rho, spread) + (_courses(rng) @ loads).astype(np.float32)
        for h, response in enumerate(shapes):
            mine = np.flatnonzero(shape == h)
            series[:, mine] += _convolved(onsets, response) @ betas[:, mine]
        series = (base * (1 + 0.01 * series)).astype(np.float32)
        durations = np.full(N_TRIALS, DURATION)
        others = nuisance(FRAMES, 1 / 128, np.zeros((N_VOLUMES, 0)))
        runs.append(Run(series, onsets, durations, FRAMES, others, stimuli.astype(str), "1"))
        truth.append(betas)
    return Session(runs, np.concatenate(truth), order.ravel(), responds)


def _shapes(rng: np.random.Generator) -> Any:
    """(64, 320) responses to an event of `DURATION`, every .1 s, peak 1."""
    times, out = np.arange(0, 32, 0.1), []
    for peak, width, fall in zip(rng.uniform(4, 8, 64), rng.uniform(0.8, 1.25, 64), rng.uniform(0.05, 0.35, 64), strict=True):
        response = gamma.pdf(times, peak / width, scale=width) - fall * gamma.pdf(times, (peak + 10) / width, scale=width)
        out.append(np.convolve(response, np.ones(round(DURATION / 0.1)))[: times.size])
    return np.array([each / each.max() for each in out])


def _onsets(rng: np.random.Generator) -> Any:
    """(n,) volumes at which trials begin: 4, 6 or 8 s apart, squeezed to leave 20 s at the end."""
    gaps = rng.choice([2, 3, 4], N_TRIALS, p=[0.3, 0.4, 0.3])
    places = 3 + np.concatenate([[0], np.cumsum(gaps[:-1])])
    places = np.round(3 + (places - 3) * min(1.0, (N_VOLUMES - 13) / (places[-1] - 3))).astype(int)
    for i in range(1, N_TRIALS):
        places[i] = max(places[i], places[i - 1] + 2)
    return places.astype(float)


def _convolved(onsets: Any, response: Any) -> Any:
    """(T, n) float32"""
    design = np.zeros((N_VOLUMES + 32, N_TRIALS), np.float32)
    sampled = response[:: round(TR / 0.1)]
    for i, start in enumerate((onsets / TR).astype(int)):
        design[start : start + sampled.size, i] = sampled
    return design[:N_VOLUMES]


def _courses(rng: np.random.Generator) -> Any:
    """(T, 6) shared noise."""
    courses = rng.standard_normal((N_VOLUMES, 6))
    for t in range(1, N_VOLUMES):
        courses[t] += 0.7 * courses[t - 1]
    return courses / courses.std(axis=0)


def _noise(rng: np.random.Generator, rho: Any, spread: Any) -> Any:
    """(T, V) float32 AR(1) noise and drifts."""
    noise = rng.standard_normal((N_VOLUMES, rho.size), dtype=np.float32)
    for t in range(1, N_VOLUMES):
        noise[t] = rho * noise[t - 1] + np.sqrt(1 - rho**2) * noise[t]
    time_ = np.linspace(-1, 1, N_VOLUMES)
    drifts = np.stack([time_, time_**2, np.sin(1.5 * np.pi * (time_ + 1))], axis=1)
    return noise * spread.astype(np.float32) + (drifts @ rng.standard_normal((3, rho.size))).astype(np.float32)


def per_run(estimator: Any, runs: list[Run], **options: Any) -> Any:
    """(N, V) betas of an estimator that sees one run at a time, in percent."""
    designs = (trial_design(run.onsets, run.durations, run.frame_times) for run in runs)
    each = zip(runs, designs, strict=True)
    return np.concatenate([estimator(run.bold, x, run.nuisance, **options) * percent_scale(run.bold) for run, x in each])


def tuned(name: str, runs: list[Run], options: Options) -> Any:
    """(N, V) betas of an estimator that chooses on all runs."""
    estimator = estimators.get(name)
    tuning = estimator.tune(runs, options)
    return np.concatenate([estimator.estimate(run, tuning, i, options) for i, run in enumerate(runs)])


def scores(betas: Any, truth: Session) -> tuple[float, float, float]:
    """r with the truth, identification, correlation of neighbouring errors."""
    found, true = betas[:, truth.responds], truth.truth[:, truth.responds]
    z, wanted = _z(found), _z(true)
    some = np.random.default_rng(0).choice(z.shape[1], min(200, z.shape[1]), replace=False)
    repeats = np.array([np.flatnonzero(truth.stimulus == s) for s in range(N_STIMULI)]).T
    hits = []
    for first, second in itertools.permutations(range(len(repeats)), 2):
        left, right = (_z(z[repeats[i]][:, some].T).T for i in (first, second))
        hits.append(((left @ right.T).argmax(axis=1) == np.arange(N_STIMULI)).mean())
    error = (found - true).reshape(N_RUNS, N_TRIALS, -1)
    error = error - error.mean(axis=(0, 1))
    return float((z * wanted).mean()), float(np.mean(hits)), float((error[:, 1:] * error[:, :-1]).mean() / (error**2).mean())


def _z(array: Any) -> Any:
    return (array - array.mean(axis=0)) / array.std(axis=0)


def accuracy(n_vertices: int, seeds: int, choices: bool) -> None:
    """Print the table; with ``choices`` also every criterion for shapes."""
    for name, kind in KINDS.items():
        table: dict[str, list[tuple[float, ...]]] = {}
        for seed in range(seeds):
            truth = session(kind, n_vertices, seed)
            rows = {"lsa": per_run(lsa, truth.runs), "lss": per_run(lss, truth.runs)}
            rows["lsa, AR(1)"] = per_run(lsa, truth.runs, noise_model="ar1")
            for label, betas in rows.items():
                table.setdefault(label, []).append(scores(betas, truth))
            wanted = [(step, "auto") for step in STEPS]
            if choices:
                wanted += [(step, choice) for choice in HRF_CHOICES if choice != "auto" for step in STEPS]
            for step, choice in wanted:
                betas = tuned(step, truth.runs, Options(hrf_choice=choice))
                table.setdefault(step if choice == "auto" else f"{step}, {choice}", []).append(scores(betas, truth))
        base = np.array(table["lsa"])[:, 0]
        print(f"{name}: {kind}, {n_vertices} vertices, {seeds} seeds")
        print(f"{'':18s} r                gain over lsa    identified       errors")
        for label, found in table.items():
            values = np.array(found)
            columns = [values[:, 0], values[:, 0] - base, values[:, 1], values[:, 2]]
            print(f"{label:18s} " + "   ".join(f"{column.mean():6.3f} +- {column.std():.3f}" for column in columns), flush=True)


def nilearn_lsa(runs: list[Run], given: bool) -> Any:
    """(N, V) betas of one FirstLevelModel a run, one contrast a trial; from events, or from designs that are made beforehand."""
    # Here, so that the others are not charged for the memory of these.
    import nibabel
    import pandas as pd
    from nilearn.glm.first_level import FirstLevelModel
    from nilearn.maskers import NiftiMasker

    mask = nibabel.Nifti1Image(np.ones((runs[0].bold.shape[1], 1, 1), np.uint8), np.eye(4))
    masker = NiftiMasker(mask, standardize=None).fit()
    betas = []
    for run in runs:
        image = nibabel.Nifti1Image(np.ascontiguousarray(run.bold.T)[:, None, None], np.eye(4))
        names = [f"trial{i:02d}" for i in range(N_TRIALS)]
        if given:
            columns = np.column_stack([trial_design(run.onsets, run.durations, run.frame_times), run.nuisance])
            labels = names + [f"x{i}" for i in range(run.nuisance.shape[1])]
            design = {"design_matrices": pd.DataFrame(columns, columns=labels, index=FRAMES)}
        else:
            design = {"events": pd.DataFrame({"onset": run.onsets, "duration": run.durations, "trial_type": names})}
        model = FirstLevelModel(TR, mask_img=masker, noise_model="ols", high_pass=1 / 128, signal_scaling=0).fit(image, **design)
        betas += [model.compute_contrast(name, output_type="effect_size").get_fdata(dtype=np.float32).ravel() for name in names]
    return np.array(betas)


def measured(work: str, n_vertices: int, threads: int) -> None:
    """Print CPU and wall seconds and peak memory of one piece of work in this process."""
    runs = session(KINDS["hard"], n_vertices, 0).runs
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    jobs = {
        "nilearn": lambda: nilearn_lsa(runs, given=False),
        "designs": lambda: nilearn_lsa(runs, given=True),
        "lsa": lambda: per_run(lsa, runs, threads=threads),
        "lss": lambda: per_run(lss, runs, threads=threads),
        **{step: lambda step=step: tuned(step, runs, Options(threads=threads)) for step in STEPS},
    }
    cpu, wall = [], []
    for _ in range(ROUNDS):
        start, clock = time.process_time(), time.perf_counter()
        jobs[work]()
        cpu.append(time.process_time() - start)
        wall.append(time.perf_counter() - clock)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(min(cpu), min(wall), before / 1024, after / 1024)


def speed(n_vertices: int) -> None:
    """Print a line a job, beside nilearn."""
    print(f"{N_RUNS} runs x {N_VOLUMES} volumes, {N_TRIALS} trials a run, {n_vertices} vertices; fastest of {ROUNDS} rounds")
    print(f"{'':22s} {'CPU s':>8s} {'wall s':>8s} {'ratio':>7s} {'peak MB':>8s}   (data and start included)")
    base, alone = 0.0, {}
    for threads in (1, 2):
        for work in (*(("nilearn", "designs") if threads == 1 else ()), "lsa", "lss", *STEPS):
            command = [sys.executable, __file__, "one", "--work", work, "--vertices", str(n_vertices), "--threads", str(threads)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
            cpu, wall, _, peak = map(float, out.split())
            base = base or wall
            alone.setdefault(work, wall)
            gain = f"  {alone[work] / wall:.2f} times faster than with one" if threads > 1 else ""
            print(f"{work:10s} {threads} thread(s) {cpu:8.2f} {wall:8.2f} {wall / base:7.2f} {peak:8.0f}{gain}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("accuracy", "speed", "one"))
    parser.add_argument("--vertices", type=int, default=20484)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--choices", action="store_true", help="also every criterion for shapes")
    parser.add_argument("--work", help="of 'one', which 'speed' calls: the piece of work")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.what == "accuracy":
        accuracy(given.vertices, given.seeds, given.choices)
    elif given.what == "speed":
        speed(given.vertices)
    else:
        measured(given.work, given.vertices, given.threads)


if __name__ == "__main__":
    main()
