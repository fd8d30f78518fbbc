"""What was decoded from a simulated dataset beside what could have been: controls, linear readouts, and the observer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bids_brainlm.core.features import center
from bids_brainlm.errors import MissingInputError
from bids_brainlm.io.betas import read_betas, read_trials
from bids_brainlm.io.files import read_tsv
from bids_brainlm.io.matrices import find_betas
from bids_brainlm.simulation.observer import facts_right, load_truth, observe


def observer_accuracy(bids_dir: Path, out_dir: Path, participant: str) -> float:
    """Share of facts that an observer who knows the true patch maps names rightly, from the responses that were written.

    Parameters
    ----------
    bids_dir : Path
        Made by ``brainlm simulate``.
    out_dir : Path
        Written by ``bids_brainlm`` from it.
    participant : str
        Label without ``sub-``.

    Returns
    -------
    float
        Over single test trials; responses are centred per run.
    """
    truth = load_truth(bids_dir, participant)
    files = find_betas(out_dir, participant)
    betas = np.concatenate([read_betas(item.path).data for item in files])
    table = pd.concat([read_trials(item.trials) for item in files], ignore_index=True)
    stimulus = table["stimulus_id"].to_numpy(str)
    part = np.array([truth.split[name] for name in stimulus])
    named = observe(center(betas, table["run"].to_numpy(str)), truth.maps, part == "train")
    return float(np.mean([right[part == "test"].mean() for right in facts_right(named, truth.facts, stimulus).values()]))


def compare(bids_dir: Path, out_dir: Path) -> pd.DataFrame:
    """One row a participant: facts right by condition (true, permuted, none), linear readout and observer.

    Raises
    ------
    MissingInputError
        When nothing was decoded yet, or the dataset was not simulated.
    """
    rows = []
    for path in sorted(out_dir.glob("sub-*/beh/*_desc-metrics_beh.tsv")):
        table = read_tsv(path)
        facts = table[table["metric"] == "facts"]
        who = path.name.split("_")[0]
        found = dict(zip(facts["condition"], facts["value"].astype(float), strict=True))
        rows.append({"participant": who, **found, "observer": observer_accuracy(bids_dir, out_dir, who.removeprefix("sub-"))})
    if not rows:
        raise MissingInputError("no metrics of any participant", out_dir, remedy="run bids_brainlm with --facts first")
    return pd.DataFrame(rows)
