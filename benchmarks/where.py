"""Do figures of *where* point at the parcels and vertices that were driven? Simulated captions, decoded with ``--where``.

A parcel is *driven* when more than a tenth of its vertices respond to some word; the area under the ROC curve (AUC) is that of
driven parcels against all others, or of responding vertices against all others: .5 is chance. Parcels with no responding vertex
are the null: how many of them are found at q <= .05?

    python benchmarks/where.py BIDS OUT [--participant 01]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from bids_brainlm.insilico.participant import open_participant
from bids_brainlm.io.files import read_tsv
from bids_brainlm.io.maps import read_maps
from bids_brainlm.simulation.observer import load_truth

DRIVEN = 0.1
"""Share of vertices above which a parcel is driven."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bids", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--participant", default="01")
    given = parser.parse_args()
    atlas = open_participant(given.out, given.participant).atlas
    responds = np.any([values > 0 for values in load_truth(given.bids, given.participant).maps.values()], axis=0)
    share = np.bincount(atlas.labels, responds)[1:] / np.bincount(atlas.labels)[1:]
    folder = given.out / f"sub-{given.participant}"
    print(f"{(share > DRIVEN).sum()} of {share.size} parcels are driven, {(share == 0).sum()} have no vertex that responds")
    regions = read_tsv(next(folder.glob("beh/*_desc-where_beh.tsv")))
    for way, part in regions[regions["kind"] == "parcel"].groupby("way", sort=False):
        own = part.set_index("region").loc[list(atlas.names)]
        value, q = (pd.to_numeric(own[name], errors="coerce").to_numpy() for name in ("specificity", "q_value"))
        found = f"{(q <= 0.05).sum()} found, {(q[share == 0] <= 0.05).sum()} of them among those without"
        print(f"{way}: AUC {roc_auc_score(share > DRIVEN, value):.2f}; {found}")
    attention: Any = next(folder.glob("beh/*_desc-attention_beh.tsv"), None)
    if attention is not None:
        weights = read_tsv(attention).set_index("token").loc[list(atlas.names), "attention"].astype(float)
        print(f"attention: AUC {roc_auc_score(share > DRIVEN, weights):.2f}")
    maps, _ = read_maps(next(folder.glob("func/*hemi-L*_stat-where*.func.gii")))
    for name in ("contribution", "saliency"):
        known = np.isfinite(maps[name])
        print(f"{name}, by vertex: AUC {roc_auc_score(responds[known], maps[name][known]):.2f}")


if __name__ == "__main__":
    main()
