"""Single-trial betas against nilearn: how much faster, and whether they are equal.

A synthetic session of six runs on fsaverage5 (``--small``: one run of 2,000 vertices): 200 volumes a run (TR 2 s), 60 trials of
1 s at least 2 s apart, cosine drifts at 1/128 Hz and six confounds. nilearn has no LSA or LSS of its own; what is compared is
what its users write:

- ``run_glm`` on arrays with one regressor a trial (LSA), the betas taken from the fitted model;
- ``FirstLevelModel`` on an image, one contrast a trial (LSA);
- either of them once a trial (LSS), extrapolated to all trials from a few fits.

CPU seconds of one process; the design matrices are made beforehand and timed apart.

    OMP_NUM_THREADS=1 python benchmarks/glm.py [--small]
"""

from __future__ import annotations

import argparse
import os
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from nilearn.glm.first_level import FirstLevelModel, compute_regressor, run_glm
from nilearn.maskers import NiftiMasker

from bids_brainlm.core.design import nuisance, trial_design
from bids_brainlm.core.glm import lsa, lss

TR, N_VOLUMES, N_TRIALS, LSS_FITS = 2.0, 200, 60, 4
FRAMES = TR * np.arange(N_VOLUMES)


def session(n_runs: int, n_vertices: int) -> list[tuple[Any, ...]]:
    """For each run: bold (T, V) float32, trials (T, n), nuisance (T, q), onsets (n,)."""
    rng = np.random.default_rng(0)
    runs = []
    for _ in range(n_runs):
        gaps = rng.uniform(2, 8, N_TRIALS)
        onsets = np.cumsum(gaps) * (FRAMES[-1] - 20) / gaps.sum()
        trials = trial_design(onsets, np.ones(N_TRIALS), FRAMES)
        others = nuisance(FRAMES, 1 / 128, rng.standard_normal((N_VOLUMES, 6)))
        betas = rng.standard_normal((N_TRIALS, n_vertices), dtype=np.float32) + 1
        drift = others.astype(np.float32) @ rng.standard_normal((others.shape[1], n_vertices), dtype=np.float32)
        noise = rng.standard_normal((N_VOLUMES, n_vertices), dtype=np.float32)
        runs.append((trials.astype(np.float32) @ betas + drift + noise + 100, trials, others, onsets))
    return runs


def cpu_seconds(work: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Fastest of a few rounds, and the result."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return min(seconds), result


def fitted(bold: Any, design: Any) -> Any:
    """(p, V) parameters of nilearn's OLS model."""
    _, results = run_glm(bold, design, noise_model="ols")
    (model,) = results.values()
    return model.theta


def nilearn_designs(runs: list[tuple[Any, ...]]) -> Any:
    return [
        np.hstack([compute_regressor(np.array([[onset], [1.0], [1.0]]), "glover", FRAMES)[0] for onset in onsets])
        for *_, onsets in runs
    ]


def nilearn_lsa(runs: list[tuple[Any, ...]]) -> Any:
    return np.vstack([fitted(bold, np.column_stack([trials, others]))[:N_TRIALS] for bold, trials, others, _ in runs])


def nilearn_lss(runs: list[tuple[Any, ...]], n_fits: int) -> Any:
    """The first trials of the first run, each in a model of its own."""
    bold, trials, others, _ = runs[0]
    designs = (np.column_stack([trials[:, i], trials.sum(axis=1) - trials[:, i], others]) for i in range(n_fits))
    return np.vstack([fitted(bold, design)[:1] for design in designs])


def model_betas(image: Any, design: Any, mask: Any, n_contrasts: int) -> Any:
    """(n_contrasts, V) effect sizes of the first columns of a FirstLevelModel."""
    model = FirstLevelModel(mask_img=mask, noise_model="ols", signal_scaling=False).fit(image, design_matrices=design)
    contrasts = (model.compute_contrast(row, output_type="effect_size") for row in np.eye(design.shape[1])[:n_contrasts])
    return np.array([contrast.get_fdata(dtype=np.float32).ravel() for contrast in contrasts])


def nilearn_model_lsa(images: list[tuple[Any, Any]], mask: Any) -> Any:
    """One FirstLevelModel a run and one contrast a trial; images and designs are made beforehand."""
    return np.vstack([model_betas(image, design, mask, N_TRIALS) for image, design in images])


def nilearn_model_lss(images: list[tuple[Any, Any]], mask: Any, n_fits: int) -> Any:
    """One FirstLevelModel a trial, for the first trials of the first run."""
    image, design = images[0]
    betas = []
    for i in range(n_fits):
        trials, others = design.iloc[:, :N_TRIALS], design.iloc[:, N_TRIALS:]
        own = pd.DataFrame({"trial": trials.iloc[:, i], "rest": trials.drop(columns=trials.columns[i]).sum(axis=1)})
        betas.append(model_betas(image, pd.concat([own, others], axis=1), mask, 1))
    return np.vstack(betas)


def as_images(runs: list[tuple[Any, ...]]) -> tuple[list[tuple[Any, Any]], Any]:
    """The series of each run as a NIfTI image (V, 1, 1, T) with its design as a table, and a mask of all vertices."""
    images = []
    for bold, trials, others, _ in runs:
        columns = [f"trial{i}" for i in range(trials.shape[1])] + [f"nuisance{i}" for i in range(others.shape[1])]
        table = pd.DataFrame(np.column_stack([trials, others]), columns=columns, index=FRAMES)
        images.append((nibabel.Nifti1Image(np.ascontiguousarray(bold.T)[:, None, None], np.eye(4)), table))
    mask = nibabel.Nifti1Image(np.ones((runs[0][0].shape[1], 1, 1), dtype=np.uint8), np.eye(4))
    return images, NiftiMasker(mask, standardize=None).fit()


def extra_memory(work: Callable[[], Any]) -> tuple[float, float]:
    """MB of the result, and of everything else that was held at the worst moment."""
    tracemalloc.start()
    result = work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result.nbytes / 1e6, (peak - result.nbytes) / 1e6


def line(name: str, seconds: float, base: float, difference: float | None = None) -> None:
    equal = "" if difference is None else f"  largest difference {difference:.1e}"
    print(f"{name:60s} {seconds:9.3f} s  {seconds / base:7.1f}x{equal}")


def compare(n_runs: int, n_vertices: int) -> None:
    """Time, compare and print; SystemExit where betas differ by more than rounding."""
    runs = session(n_runs, n_vertices)
    images, mask = as_images(runs)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"{n_runs} run(s) x {N_VOLUMES} volumes, {N_TRIALS} trials a run, {n_vertices} vertices; OMP_NUM_THREADS={threads}")

    base, designs = cpu_seconds(lambda: [trial_design(onsets, np.ones(N_TRIALS), FRAMES) for *_, onsets in runs], 5)
    seconds, reference = cpu_seconds(lambda: nilearn_designs(runs))
    differences = [np.abs(np.array(designs) - np.array(reference)).max()]
    line("trial_design", base, base)
    line("nilearn compute_regressor, one a trial", seconds, base, differences[-1])

    base, betas = cpu_seconds(lambda: np.vstack([lsa(bold, trials, others) for bold, trials, others, _ in runs]), 5)
    line("lsa", base, base)
    for name, work in (
        ("nilearn run_glm, LSA", lambda: nilearn_lsa(runs)),
        (f"nilearn FirstLevelModel, {len(betas)} contrasts", lambda: nilearn_model_lsa(images, mask)),
    ):
        seconds, reference = cpu_seconds(work)
        differences.append(np.abs(betas - reference).max())
        line(name, seconds, base, differences[-1])

    base, betas = cpu_seconds(lambda: np.vstack([lss(bold, trials, others) for bold, trials, others, _ in runs]), 5)
    line("lss", base, base)
    for name, work in (
        ("run_glm", lambda: nilearn_lss(runs, LSS_FITS)),
        ("FirstLevelModel", lambda: nilearn_model_lss(images, mask, LSS_FITS)),
    ):
        seconds, reference = cpu_seconds(work)
        differences.append(np.abs(betas[:LSS_FITS] - reference).max())
        label = f"nilearn {name} loop, EXTRAPOLATED from {LSS_FITS} fits"
        line(label, seconds * len(betas) / LSS_FITS, base, differences[-1])

    bold, trials, others, _ = runs[0]
    own, extra = extra_memory(lambda: lss(bold, trials, others))
    print(f"memory of lss for one run: series {bold.nbytes / 1e6:.1f} MB, betas {own:.1f} MB, everything else {extra:.1f} MB")
    if max(differences) > 1e-3:
        raise SystemExit(f"betas differ by {max(differences):.1e}")
    print(f"equal: largest difference {max(differences):.1e} where betas have a standard deviation of {betas.std():.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="one run of 2,000 vertices")
    compare(*((1, 2000) if parser.parse_args().small else (6, 20484)))


if __name__ == "__main__":
    main()
