"""Stage where: which regions, vertices and brain tokens a decoder reads, as tables and maps.

Nothing is trained: everything is about the decoders as they are. There is such a stage only where ``evaluate.where`` asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.config import Config, Request
from bids_brainlm.core.interventions import partners
from bids_brainlm.core.types import Parcellation, Split
from bids_brainlm.evaluation.ablation import WAYS, WHERE_COLUMNS, Masked, masked_nll, regions_of, where_table
from bids_brainlm.evaluation.attribution import Contributions, attention_to_brain, contributions
from bids_brainlm.io.files import write_tsv
from bids_brainlm.io.maps import write_maps
from bids_brainlm.models.tokenizers import Marked
from bids_brainlm.stages import decoder
from bids_brainlm.stages.examples import examples_of, splits_of
from bids_brainlm.stages.outputs import beh_path, describe, estimator_label, model_path, warning_marks
from bids_brainlm.stages.responses import Trials, atlas_of, load_trials

AT_ONCE = 8
"""Most texts at a time where gradients or attention weights are kept."""

MAPS = {
    "contribution": "Gradient x input: mean nats of log-likelihood of the right texts that a vertex adds, to first order.",
    "saliency": "Mean absolute contribution: how much the decoder listens, whether it helps or not.",
    "alone": "Nats a text that are lost when the response of the parcel is permuted, all else being masked.",
    "alone_q": "False discovery rate of that over parcels; n/a below 6 groups.",
    "left_out": "Nats a text that are lost when a permuted response of the parcel stands in an otherwise whole brain.",
    "left_out_q": "False discovery rate of that over parcels; n/a below 6 groups.",
}
"""Map -> what it shows; all are effects on the model."""

ATTENTION_COLUMNS = {
    "token": "Brain token: parcel, number of the row, or marker.",
    "attention": "Mean attention weight on it, over texts, layers, heads and the positions that predict the text.",
}
"""Columns of the table of attention, in order."""


@dataclass(frozen=True, eq=False)
class _Fold:
    """What is found in a fold: ``groups`` (n,) of its texts, ``attention`` (K,), and the names of the K brain tokens."""

    masked: Masked
    contributions: Contributions
    groups: NDArray[np.str_]
    attention: NDArray[np.float64] | None
    tokens: tuple[str, ...]


def locate(request: Request, *, participant: str) -> list[Path]:
    """Stage: mask regions, attribute likelihoods to vertices, and average attention, for test texts of every fold."""
    config, trials = request.config, load_trials(request, participant)
    atlas, marks = atlas_of(request, trials.geometry), warning_marks(config)
    folds = []
    for split in splits_of(request, trials, examples_of(request, trials)):
        fitted = decoder.load(model_path(request, participant, trials.task, split.fold), config)
        folds.append(_of_fold(fitted, split, atlas, config))
    total = sum((fold.contributions for fold in folds[1:]), folds[0].contributions)
    groups = np.concatenate([fold.groups for fold in folds])
    masked = Masked.concat([fold.masked for fold in folds])
    table = where_table(masked, regions_of(atlas), total.used, groups, len(folds), seed=config.run.random_seed)
    path = beh_path(request, participant, trials.task, "where")
    text = "Regions of the brain alone, and left out: effects on the decoder, without training again."
    written = [write_tsv(path, table), describe(path, text, WHERE_COLUMNS, {**marks, "Atlas": atlas.title})]
    return [
        *written,
        *_write_attention(request, participant, trials.task, folds),
        *_write_maps(request, participant, trials, total.maps() | _painted(table, atlas)),
    ]


def _of_fold(fitted: decoder.Decoder, split: Split, atlas: Parcellation, config: Config) -> _Fold:
    test, model = decoder.within_limits(split.examples.take(split.test), fitted.text, config), fitted.model
    rendered = decoder.rendered(fitted, test, config)
    seed, most = config.run.random_seed + split.fold, config.evaluate.where_texts
    chosen = np.sort(np.random.default_rng(seed).permutation(len(test))[:most])
    partner, size = partners(test, 1, seed)[0], config.decode.batch_size
    masked = masked_nll(model, test, rendered, partner, regions_of(atlas), size, chosen)
    given = (model, test, rendered, chosen, min(size, AT_ONCE))
    return _Fold(masked, contributions(*given), test.group[chosen], attention_to_brain(*given), _tokens(model, atlas))


def _tokens(model: Any, atlas: Parcellation) -> tuple[str, ...]:
    """Names of the brain tokens: parcels where there is one of each, else rows."""
    marked = isinstance(model.tokenizer, Marked)
    bare = model.n_tokens - 2 * marked
    parcelwise = hasattr(model.tokenizer.bare if marked else model.tokenizer, "padding_waste") and bare == atlas.n_parcels
    names = atlas.names if parcelwise else tuple(f"row {i + 1}" for i in range(bare))
    return ("marker before", *names, "marker after") if marked else names


def _write_attention(request: Request, participant: str, task: str, folds: Sequence[_Fold]) -> list[Path]:
    """Nothing where the language model does not tell."""
    found = [(fold.attention, len(fold.groups)) for fold in folds if fold.attention is not None]
    if not found:
        return []
    mean = sum(weights * n for weights, n in found) / sum(n for _, n in found)
    path = beh_path(request, participant, task, "attention")
    text = "Attention of the language model to brain tokens: where is looked, not what is made of it."
    table = pd.DataFrame({"token": folds[0].tokens, "attention": mean})
    return [write_tsv(path, table), describe(path, text, ATTENTION_COLUMNS, warning_marks(request.config))]


def _painted(table: pd.DataFrame, atlas: Parcellation) -> dict[str, NDArray[np.float64]]:
    """Map -> (V,) value of the parcel of each vertex; nan in none."""
    out = {}
    for way in WAYS:
        own = table[(table["kind"] == "parcel") & (table["way"] == way)]
        for name, column in ((way, "specificity"), (f"{way}_q", "q_value")):
            out[name] = np.concatenate([[np.nan], own[column].to_numpy(np.float64)])[atlas.labels]
    return out


def _write_maps(request: Request, participant: str, trials: Trials, maps: dict[str, NDArray[np.float64]]) -> list[Path]:
    about = {
        "Description": "Where in the brain: effects on the decoder, which are no claims on the brain.",
        "MapDescriptions": MAPS,
        "Sources": list(trials.sources),
        **warning_marks(request.config),
    }
    ordered, entities = {name: maps[name] for name in MAPS}, {"sub": participant, "task": trials.task}
    return write_maps(request.out_dir, entities, trials.geometry, ordered, estimator_label(request), about, stat="where")
