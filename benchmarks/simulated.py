"""Simulated captions through the whole pipe: do figures rise with the signal, and is there nothing where there is none?

``rise``: for every SNR a dataset is simulated, decoded with ``--information`` and compared with an observer: ridge regression
from the betas of the training trials to the words of every factor, one temperature a factor chosen on the validation trials. The
observer knows what captions are made of, and needs no language. It gives a probability to every word of every factor, hence

- information: sum over factors of log2(words) + log2 p(the right word), in bits, beside the decoder's over a text-only model;
- pairwise accuracy: how often its log-probability of a text is higher given the own brain than given another of the run, beside
  the decoder's.

``nulls``: many small datasets without signal, each simulated and decoded by itself. How often is p <= .05, for every test of the
report? Fewer than a hundred datasets show gross faults only; the level itself is measured by ``nulls.py``.

One language model serves all. On two busy cores a participant of ``rise`` takes some three minutes, a null one minute.

    OMP_NUM_THREADS=1 python benchmarks/simulated.py rise FOLDER [--snr 0 0.25 0.5 1 2] [--participants 2] [--figure FILE.svg]
    OMP_NUM_THREADS=1 python benchmarks/simulated.py nulls FOLDER [--nulls 20]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import RidgeCV

from bids_brainlm.core.features import center
from bids_brainlm.io.betas import read_betas, read_trials
from bids_brainlm.io.files import read_tsv, write_tsv
from bids_brainlm.io.matrices import find_betas
from bids_brainlm.simulation.observer import load_truth

ROWS = {
    "information": ("information_bits", "true"),
    "pairwise": ("nll_pairwise", "true"),
    "facts": ("facts", "true"),
    "ridge_facts": ("facts", "ridge"),
    "primary": ("nll_permuted_minus_true", "true"),
}


ALPHA = 0.05


def call(*words: Any) -> None:
    subprocess.run([sys.executable, "-m", *map(str, words)], check=True)


def decoded(here: Path, llm: Path, seed: int, simulated: Sequence[Any], settings: Sequence[Any]) -> tuple[Path, Path]:
    """Simulate and decode, unless it was done; the language model is taught with the first dataset's texts."""
    bids, out = here / "bids", here / "out"
    if not bids.exists():
        call("bids_brainlm.cli.companion", "simulate", bids, "--seed", seed, *simulated)
    if not llm.exists():
        corpus = bids / "derivatives" / "simulation" / "corpus.tsv"
        call("bids_brainlm.cli.companion", "make-lm", corpus, llm)
    if not (out / "sub-01.html").exists():
        options: list[Any] = ["--texts", "stimuli/captions.tsv", "--key-column", "stim_id", "--recipe", "cortext-small"]
        options += [
            "--facts",
            "derivatives/simulation/stimuli.tsv",
            "--split",
            "column",
            "--set",
            "split.source=split",
            "--offline",
        ]
        options += ["--llm", llm, "--random-seed", seed, "--nprocs", 1, "-w", here / "work", *settings]
        call("bids_brainlm.cli.app", bids, out, "participant", *options)
    return bids, out


def observer(bids: Path, out: Path, participant: str) -> dict[str, float]:
    """Information in bits and pairwise accuracy of the ridge observer on the single test trials."""
    truth, files = load_truth(bids, participant), find_betas(out, participant)
    trials = pd.concat([read_trials(item.trials) for item in files], ignore_index=True)
    run, stimulus = trials["run"].to_numpy(str), trials["stimulus_id"].to_numpy(str)
    betas = np.nan_to_num(center(np.concatenate([read_betas(item.path).data for item in files]), run))
    part = np.array([truth.split[name] for name in stimulus])
    bits, given = 0.0, 0.0
    for words in truth.facts.values():
        said = np.array([words[name] for name in stimulus])
        logp, names = probabilities(betas, said, part)
        columns = np.searchsorted(names, said[part == "test"])
        # (text, brain): log-probability of the text's word given each brain.
        table = logp[:, columns].T
        bits += float(np.log2(len(names)) + np.diag(table).mean() / np.log(2))
        given = given + table
    return {"observer_information": bits, "observer_pairwise": pairwise(given, run[part == "test"], stimulus[part == "test"])}


def probabilities(betas: Any, said: Any, part: Any) -> tuple[Any, Any]:
    """(test trials, words) log-probabilities of a factor, and its words in order."""
    names = np.unique(said)
    ridge = RidgeCV(np.logspace(1, 7, 13)).fit(betas[part == "train"], (said[part == "train", None] == names).astype(float))
    scores = {name: ridge.predict(betas[part == name]) for name in ("validation", "test")}
    right = np.searchsorted(names, said[part == "validation"])

    def loss(log_scale: float) -> float:
        logp = log_softmax(np.exp(log_scale) * scores["validation"], axis=1)
        return -float(logp[np.arange(len(right)), right].mean())

    best = minimize_scalar(loss, bounds=(-6, 6), method="bounded").x
    return log_softmax(np.exp(best) * scores["test"], axis=1), names


def pairwise(given: Any, run: Any, stimulus: Any) -> float:
    """Over texts, the share of other brains of the run, of another stimulus, that the own brain is better than; ties half."""
    own = np.diag(given)[:, None]
    other = (run[:, None] == run) & (stimulus[:, None] != stimulus)
    better = (own > given) + 0.5 * (own == given)
    kept = other.any(axis=1)
    return float((np.where(other, better, 0).sum(axis=1)[kept] / other.sum(axis=1)[kept]).mean())


def metrics(out: Path, participant: str) -> pd.DataFrame:
    (path,) = (out / f"sub-{participant}" / "beh").glob("*_desc-metrics_beh.tsv")
    return read_tsv(path)


def rows_of(bids: Path, out: Path, snr: float, participant: str) -> dict[str, Any]:
    table = metrics(out, participant).set_index(["metric", "condition"])
    row: dict[str, Any] = {"snr": snr, "participant": f"sub-{participant}"}
    for name, key in ROWS.items():
        row[name] = float(table.loc[key, "value"])
    for name in ("information", "pairwise"):
        row[f"{name}_low"], row[f"{name}_high"] = (float(table.loc[ROWS[name], column]) for column in ("ci_low", "ci_high"))
    return row | {"p": float(table.loc[ROWS["primary"], "p_value"])} | observer(bids, out, participant)


def figure(table: pd.DataFrame, path: Path) -> None:
    fig, axes = plt.subplots(1, 2, figsize=(7.5, 3.2), layout="constrained")
    panels = (("information", "information (bits)", 0.0), ("pairwise", "pairwise accuracy", 0.5))
    for axis, (name, label, chance) in zip(axes, panels, strict=True):
        at = table["snr"].rank(method="dense").to_numpy() - 1 + (table["participant"] != "sub-01") * 0.12
        spread = [table[name] - table[f"{name}_low"], table[f"{name}_high"] - table[name]]
        axis.errorbar(at, table[name], spread, fmt="o", color="#0072b2", label="decoder, 95 %", markersize=4)
        axis.plot(at, table[f"observer_{name}"], "x", color="#d55e00", label="ridge observer")
        axis.axhline(chance, color="0.5", linewidth=0.8, linestyle=":")
        axis.set_xticks(range(table["snr"].nunique()), [f"{snr:g}" for snr in sorted(table["snr"].unique())])
        axis.set(xlabel="SNR", ylabel=label)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    fig.savefig(path)


def rise(given: argparse.Namespace) -> None:
    rows = []
    for snr in given.snr:
        simulated = ["--participants", given.participants, "--snr", snr]
        bids, out = decoded(given.folder / f"snr-{snr:g}", given.folder / "llm", given.seed, simulated, ["--information"])
        rows += [rows_of(bids, out, snr, f"{i + 1:02d}") for i in range(given.participants)]
        print(pd.DataFrame(rows).round(3).to_string(index=False), flush=True)
    table = pd.DataFrame(rows).sort_values(["snr", "participant"])
    write_tsv(given.folder / "snr.tsv", table)
    if given.figure:
        figure(table, given.figure)


def nulls(given: argparse.Namespace) -> None:
    small = ["--participants", 1, "--runs", 4, "--trials", 45, "--repeats", 2, "--space", "T1w", "--snr", 0]
    found = []
    for seed in range(given.seed, given.seed + given.nulls):
        here = given.folder / f"null-{seed}"
        atlas = here / "bids" / "derivatives" / "simulation" / "atlas" / "space-T1w_atlas-cubes_dseg.nii.gz"
        _, out = decoded(here, given.folder / "llm", seed, small, ["--space", "T1w", "--atlas", atlas])
        p = metrics(out, "01").set_index(["metric", "condition"])["p_value"]
        found.append(pd.to_numeric(p.replace("n/a", np.nan)).dropna().rename(seed))
        print(f"seed {seed}: p of the primary test {found[-1].iloc[0]:.3f}", flush=True)
    every = pd.concat(found, axis=1)
    # A test that cannot be made of one dataset is counted where it can.
    summary = pd.DataFrame(
        {"n": every.notna().sum(axis=1), "at_05": (every <= ALPHA).sum(axis=1), "median": every.median(axis=1)}
    )
    write_tsv(given.folder / "nulls.tsv", every.reset_index())
    print(summary.round(2).to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run in (("rise", rise), ("nulls", nulls)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("folder", type=Path)
        command.add_argument("--seed", type=int, default=0)
        if run is nulls:
            command.add_argument("--nulls", type=int, default=20)
            continue
        command.add_argument("--snr", type=float, nargs="+", default=[0.0, 0.25, 0.5, 1.0, 2.0])
        command.add_argument("--participants", type=int, default=2)
        command.add_argument("--figure", type=Path)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
