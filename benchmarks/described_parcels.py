"""Are parcels described by words of what is there? On simulated data, where the patch of each factor is known.

A parcel is *driven* when a share of its vertices lies in the patch of one factor, *described* when it has a name that is a word
of this factor. Printed are, for several shares, how many parcels are driven, how many of them are described, of how many the best
word has q <= .05 (*sure*), and how many of these words are of the factor; then the names of parcels in which there is no patch.

    OMP_NUM_THREADS=1 python benchmarks/described_parcels.py BIDS OUT [--participants 01 02] [--pattern main|uniform]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.core.types import Parcellation
from bids_brainlm.evaluation.statistics import ALPHA
from bids_brainlm.insilico.describe import Settings, describe
from bids_brainlm.insilico.described import verdict
from bids_brainlm.insilico.participant import open_participant
from bids_brainlm.simulation.observer import load_truth

SHARES = (0.2, 0.3, 0.5)


def shares(bids: Path, label: str, atlas: Parcellation) -> tuple[NDArray[np.str_], NDArray[np.float64]]:
    """Factors (f,), and share (P, f) of the vertices of each parcel that answer to a word of each factor."""
    maps = load_truth(bids, label).maps
    factors = list(dict.fromkeys(factor for factor, _ in maps))
    size, out = np.bincount(atlas.labels, minlength=atlas.n_parcels + 1)[1:], []
    for factor in factors:
        patch = np.any([weights > 0 for (own, _), weights in maps.items() if own == factor], axis=0)
        out.append(np.bincount(atlas.labels[patch], minlength=atlas.n_parcels + 1)[1:] / size)
    return np.array(factors), np.stack(out, axis=1)


def described(table: pd.DataFrame, factors: NDArray[np.str_], held: NDArray[np.float64]) -> pd.DataFrame:
    """One row a share."""
    right = (table["factor"].to_numpy() == factors[held.argmax(axis=1)]) & table["name"].notna().to_numpy()
    sure, rows = table["q_value"].to_numpy(np.float64) <= ALPHA, []
    for share in SHARES:
        driven = held.max(axis=1) >= share
        counts = (driven.sum(), (driven & right).sum(), (driven & sure).sum(), (driven & sure & right).sum())
        rows.append((f">= {share:.0%}", *map(int, counts)))
    return pd.DataFrame(rows, columns=["vertices in a patch", "driven", "described", "sure", "sure and right"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bids", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--participants", nargs="+", default=["01", "02"])
    parser.add_argument("--pattern", choices=["main", "uniform"], default="main")
    given = parser.parse_args()
    for label in given.participants:
        participant = open_participant(given.out, label, bids_dir=given.bids)
        start = time.process_time()
        found = describe(participant, Settings(pattern=given.pattern))
        print(f"sub-{label}, pattern {given.pattern}, {time.process_time() - start:.0f} s of one processor")
        print(*verdict(found), sep="\n")
        factors, held = shares(given.bids, label, participant.atlas)
        print(described(found.table, factors, held).to_string(index=False))
        outside = found.table[found.named & (held.max(axis=1) == 0)]
        print(f"{len(outside)} parcel(s) without any patch have a name: {', '.join(outside['name']) or 'none'}")


if __name__ == "__main__":
    main()
