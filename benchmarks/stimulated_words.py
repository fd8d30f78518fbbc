"""Does driving the patch of a word raise that word in the model, and nothing else? On simulated data, whose patches are known.

Every word's true map is a site: its tuning over the cortex, 1 at the peak, dose in standard deviations. Beside the model stands a
ridge readout of the same responses (`bids_brainlm.evaluation.readout`), stimulated in the same way: it *finds* a word whose score
rises more than that of any other word of the factor. Printed are, of the words that ridge finds, how many the model raises (slope
above that of every null patch, and q <= .05) while it lowers their rivals; and how often words of other factors leave their null.

    OMP_NUM_THREADS=1 python benchmarks/stimulated_words.py BIDS OUT [--participants 01 02] [--nulls 500] [--trials 16]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from bids_brainlm.core.types import Floats
from bids_brainlm.evaluation.metrics import Facts
from bids_brainlm.evaluation.readout import choose_alpha, kernels, ridge_path
from bids_brainlm.insilico.participant import Participant, open_participant
from bids_brainlm.insilico.sites import Site
from bids_brainlm.insilico.stimulation import Experiment, Stimulation, stimulate, words_in
from bids_brainlm.simulation.observer import load_truth
from bids_brainlm.simulation.world import FACTORS
from bids_brainlm.stages.facts import read_facts

Owned = list[tuple[str, Site]]


def word_sites(bids: Path, label: str) -> Owned:
    """Factor of every word, and its true map as a site; called as the facts call the word."""
    maps = load_truth(bids, label).maps
    return [(factor, Site(FACTORS[factor][word][0], values)) for (factor, word), values in maps.items()]


def ridge_finds(participant: Participant, facts: Facts, sites: Owned) -> set[str]:
    """Words whose ridge score rises most of their factor when their patch is driven."""
    split, scale = participant.folds[0], participant.scale()
    train = split.examples.take(split.train)
    responses = train.gather(np.arange(len(train)))[:, 0]
    patterns = np.stack([site.pattern for _, site in sites])
    driven: Floats = responses.mean(axis=0) + np.concatenate([np.zeros_like(patterns[:1]), patterns]) * scale
    kernel, cross = kernels([(responses, driven)])
    groups = np.unique(train.group, return_inverse=True)[1]
    found = set()
    for i, factor in enumerate(facts.factors):
        labels = facts.labels(train.stimulus)[:, i]
        names, codes = np.unique(labels, return_inverse=True)
        targets = np.eye(names.size)[codes]
        scores = ridge_path(kernel, targets, cross, np.array([choose_alpha(kernel, targets, groups)]))[0]
        gains = scores[1:] - scores[0]
        found |= {
            site.name
            for (own, site), gain in zip(sites, gains, strict=True)
            if own == factor and names[gain.argmax()] == site.name
        }
    return found


def told(found: Stimulation, sites: Owned, ridge: set[str]) -> dict[str, object]:
    """Figures of one participant."""
    table = found.effects.merge(
        pd.DataFrame({"site": [site.name for _, site in sites], "driven": [factor for factor, _ in sites]})
    )
    own = table[table["site"] == table["word"]].set_index("site")
    above = own["p_raised"] <= 1 / (1 + own["n_null"]) + 1e-12
    raised = above & (own["q_raised"] <= 0.05)
    lowered = (own["rivals_slope"] < 0) & (own["q_rivals"] <= 0.05)
    kept = own.index.isin(ridge)
    others = table[table["driven"] != table["factor"]]
    away = (others[["q_raised", "q_lowered"]] <= 0.05).any(axis=1)
    return {
        "ridge finds": f"{kept.sum()} of {len(own)}",
        "raised": f"{(raised & kept).sum()}",
        "rivals lowered": f"{(lowered & kept).sum()}",
        "both": f"{(raised & lowered & kept).sum()}",
        "both, of those ridge finds": (raised & lowered & kept).sum() / max(kept.sum(), 1),
        "not raised": ", ".join(own.index[kept & ~raised]) or "none",
        "own slope, median nats": own["slope"].median(),
        "other factors, median |slope|": others["slope"].abs().median(),
        "other factors, p <= .05 raised": (others["p_raised"] <= 0.05).mean(),
        "other factors, q <= .05 either way": f"{away.sum()} of {len(others)}",
        "fewest null patches": int(table["n_null"].min()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bids", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--participants", nargs="+", default=["01"])
    parser.add_argument("--nulls", type=int, default=500)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--table", type=Path, help="write the effects here")
    given = parser.parse_args()
    facts = read_facts(given.bids / "derivatives" / "simulation" / "stimuli.tsv")
    for label in given.participants:
        participant = open_participant(given.out, label, bids_dir=given.bids, device="cpu")
        sites = word_sites(given.bids, label)
        start = time.perf_counter()
        how = Experiment(trials=given.trials, nulls=given.nulls, captions=0)
        found = stimulate(participant, [site for _, site in sites], words_in(participant, facts.vocabulary), None, how)
        print(f"sub-{label}, {time.perf_counter() - start:.0f} s: {found.verdict()[0]}")
        for name, value in told(found, sites, ridge_finds(participant, facts, sites)).items():
            print(f"  {name}: {value:.3f}" if isinstance(value, float) else f"  {name}: {value}", flush=True)
        if given.table:
            found.effects.to_csv(given.table.with_suffix(f".{label}.tsv"), sep="\t", index=False)


if __name__ == "__main__":
    main()
