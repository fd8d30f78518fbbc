"""What is written of a stimulation: three tables, maps of the sites, and those of words found by going back."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bids_brainlm.insilico.effects import CAPTION_COLUMNS, DOSE_COLUMNS, EFFECT_COLUMNS
from bids_brainlm.insilico.participant import Participant
from bids_brainlm.insilico.reverse import Reversed, likeness
from bids_brainlm.insilico.stimulation import Stimulation
from bids_brainlm.io.files import write_tsv
from bids_brainlm.io.maps import write_maps
from bids_brainlm.stages.outputs import beh_path, describe, warning_marks

NOTE = "Effects on the model, not on the brain."

TABLES = {
    "stimulation": ("What driving each site does to each word, tested against null patches.", EFFECT_COLUMNS),
    "stimulationdoses": ("Log-probability of each word at each dose.", DOSE_COLUMNS),
    "stimulationcaptions": ("What the model says of driven trials, nothing teacher-forced.", CAPTION_COLUMNS),
}
"""``desc-`` label of a table -> what it is, and its columns."""


def write(found: Stimulation, participant: Participant, backwards: Sequence[Reversed] = ()) -> list[Path]:
    """Write tables and maps beside the other outputs of the participant; their paths, the table of effects first."""
    request, trials = participant.request, participant.trials
    tree = _tree(found, participant)
    frames = dict(zip(TABLES, (found.effects, found.doses, found.captions), strict=True))
    written = []
    for desc, (about, columns) in TABLES.items():
        table = write_tsv(beh_path(request, participant.label, trials.task, desc), frames[desc])
        written += [table, describe(table, f"{about} {NOTE}", columns, tree)]
    named = {"sub": participant.label, "task": trials.task}
    sidecar = {"Description": f"Sites: what is added to a response at dose 1, in standard deviations. {NOTE}", **tree}
    maps = {site.name: site.pattern for site in found.sites}
    written += write_maps(request.out_dir, named, trials.geometry, maps, "sites", sidecar)
    if backwards:
        told = f"Patterns that make the model say a word, in standard deviations. {NOTE}"
        maps = {item.word.label: item.pattern for item in backwards}
        sidecar = {"Description": told, **tree, "Words": [_reversed(item, found, participant) for item in backwards]}
        written += write_maps(request.out_dir, named, trials.geometry, maps, "reverse", sidecar)
    return written


def _reversed(item: Reversed, found: Stimulation, participant: Participant) -> dict[str, Any]:
    """How a word was found, and how like the map is to the site of that name."""
    used = participant.scale(found.experiment.fold) > 0
    own = {site.name: site.pattern if site.statistic is None else site.statistic for site in found.sites}
    beside = {"LikenessToSite": likeness(item.pattern, own[item.word.label], used)} if item.word.label in own else {}
    numbers = {"LogProbabilityBefore": item.before, "LogProbabilityAfter": item.after, "MahalanobisLength": item.length}
    return {"Word": item.word.label, **numbers, **beside}


def _tree(found: Stimulation, participant: Participant) -> dict[str, Any]:
    model = participant.models[found.experiment.fold]
    return {
        "Model": model.name,
        "ModelDigest": participant.digest(found.experiment.fold),
        "Settings": dataclasses.asdict(found.experiment),
        "Sites": {site.name: {"About": site.about, "Vertices": int(site.vertices.size)} for site in found.sites},
        "Phrases": {word.label: list(word.phrases) for word in found.words},
        "Trials": list(found.trials),
        **warning_marks(participant.request.config),
    }
