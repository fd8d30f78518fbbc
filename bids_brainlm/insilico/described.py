"""What is written of parcels in words: a table, maps, and a few lines that say what was found."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from bids_brainlm.evaluation.statistics import ALPHA
from bids_brainlm.insilico import naming
from bids_brainlm.insilico.describe import PARCEL_COLUMNS, Description, Settings
from bids_brainlm.insilico.participant import Participant
from bids_brainlm.io.files import write_tsv
from bids_brainlm.io.maps import write_maps
from bids_brainlm.stages.outputs import beh_path, describe, warning_marks

SHOWN = ("parcel", "name", "difference", "q_value", "stability", "said", "fit_r", "fit_q", "measured_word", "agreement")
"""Columns that are printed."""

ABOUT = (
    "Parcels in words: what the decoder says more often when the parcel is driven, and whether measured responses know of texts. "
    "Effects on the model, not on the brain."
)

MAPS = (
    "Figures of the table of parcels, laid on their vertices. word: number, from 1, of the parcel's name among Words; 0 where it "
    "has none. Effects on the model, not on the brain."
)


def verdict(found: Description) -> list[str]:
    """What was found, in plain lines."""
    table, n = found.table, len(found.table)
    if not found.named.any():
        return [
            f"none of {n} parcels has a name: what was said does not predict held-out responses of any "
            f"(smallest q {table['fit_q'].min():.2g})",
            "what driving them does to words is the noise of the decoder",
        ]
    lines = [f"{found.named.sum()} of {n} parcels have a name: what was said predicts their held-out responses (q <= {ALPHA:g})"]
    n_reference = int((table["fit_p"] > ALPHA).sum())
    if n_reference < naming.FEWEST:
        return [*lines, f"words are not tested: {n_reference} reference parcels, {naming.FEWEST} are needed"]
    sure, same = (table["q_value"] <= ALPHA).sum(), (found.named & (table["same_word"] == "true")).sum()
    lines.append(f"{sure} of these words stand out from those of {n_reference} parcels without such responses (q <= {ALPHA:g})")
    return [*lines, f"{same} are the word whose texts raise test responses along the pattern most; all are effects on the model"]


def listed(found: Description) -> str:
    """The parcels with a name, the surest first."""
    table = found.table.loc[found.named, list(SHOWN)].sort_values("fit_q", kind="stable")
    return str(table.to_string(index=False, float_format="{:.3f}".format, na_rep="n/a"))


def write(found: Description, participant: Participant, settings: Settings) -> list[Path]:
    """Write table and maps beside the other outputs of the participant; their paths, those of data first."""
    request, trials = participant.request, participant.trials
    tree = _tree(found, participant, settings)
    table = write_tsv(beh_path(request, participant.label, trials.task, "parcels"), found.table)
    sidecar = describe(table, ABOUT, PARCEL_COLUMNS, tree)
    named = {"sub": participant.label, "task": trials.task}
    described = {"Description": MAPS, "Atlas": participant.atlas.title, **tree}
    return [table, sidecar, *write_maps(request.out_dir, named, trials.geometry, found.maps(), "parcels", described)]


def _tree(found: Description, participant: Participant, settings: Settings) -> dict[str, Any]:
    model = participant.models[settings.fold]
    reference = np.array(participant.atlas.names)[(found.table["fit_p"] > ALPHA).to_numpy()]
    return {
        "Model": model.name,
        "ModelDigest": participant.digest(settings.fold),
        "Settings": dataclasses.asdict(settings),
        "Words": list(found.vocabulary.words),
        "Factors": list(found.vocabulary.factors),
        "ReferenceParcels": reference.tolist(),
        **warning_marks(participant.request.config),
    }
