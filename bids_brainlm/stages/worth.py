"""What a leak is worth: the same model trained under an honest split and under the leaky one, and the figures of both.

Nothing is written but checkpoints, which go when a decoder is trained.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bids_brainlm.config import Request
from bids_brainlm.core.types import Split
from bids_brainlm.evaluation import metrics
from bids_brainlm.evaluation.matrix import Evidence
from bids_brainlm.evaluation.resampling import bootstrap_interval
from bids_brainlm.evaluation.table import Predictions
from bids_brainlm.stages import decoder
from bids_brainlm.stages.comparisons import comparisons_of
from bids_brainlm.stages.decode import decoded
from bids_brainlm.stages.examples import examples_of, splits_of
from bids_brainlm.stages.responses import Trials, atlas_of, load_trials

COLUMNS = {
    "participant": "Label.",
    "split": "How examples were divided.",
    "pairwise": "Pairwise accuracy: share of pairings in which a text is likelier under its own brain than under a permuted one.",
    "low": "Lower end of its 95 % interval over groups.",
    "high": "Upper end.",
    "nll_gain": "NLL under permuted brains minus under the true one, nats a text.",
    "p": "P value of that gain.",
    "bleu1": "BLEU-1 of texts from the true brain.",
    "bleu1_permuted": "BLEU-1 of texts from a permuted brain.",
}
"""Columns of the table that ``brainlm leakage --train`` prints."""


def worth(schemes: Mapping[str, Request], participant: str) -> pd.DataFrame:
    """Train and score one decoder a fold under each split.

    Parameters
    ----------
    schemes : mapping of str to Request
        What a split is called -> the request with it; all of one output folder, where the responses are.
    participant : str

    Returns
    -------
    DataFrame
        Columns `COLUMNS`, one row a split.

    Raises
    ------
    BrainLMError
        When responses are not there, or cannot be divided.
    """
    rows = []
    for name, request in schemes.items():
        trials = load_trials(request, participant)
        rows.append({"participant": participant, "split": name, **_scored(request, participant, trials)})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def as_text(tables: Sequence[pd.DataFrame]) -> str:
    """All participants for a terminal, and the mean difference of leaky and honest split."""
    table = pd.concat(tables, ignore_index=True)
    figures = ["pairwise", "nll_gain", "bleu1"]
    first, last = (np.mean([part[figures].iloc[place].to_numpy(float) for part in tables], axis=0) for place in (0, -1))
    gains = [f"{name} {high - low:+.3f} ({low:.3f} -> {high:.3f})" for name, low, high in zip(figures, first, last, strict=True)]
    explained = [f"{name}: {text}" for name, text in COLUMNS.items()]
    return "\n".join(
        [
            table.to_string(index=False, float_format="{:.3f}".format),
            "",
            *explained,
            "",
            f"What the leak is worth: {', '.join(gains)}",
        ]
    )


def _scored(request: Request, participant: str, trials: Trials) -> dict[str, float]:
    folds = splits_of(request, trials, examples_of(request, trials))
    found = [_fold(request, participant, trials, split, len(folds)) for split in folds]
    predictions = Predictions.concat([Predictions(table) for table, _ in found])
    evidence = Evidence.concat([part for _, part in found])
    true, other = predictions.of("true"), predictions.of("permuted")
    test = evidence.primary(true.nll, true.groups)
    pairwise = evidence.figures["nll_pairwise"].values
    low, high = bootstrap_interval(pairwise, true.groups, request.config.evaluate.bootstrap) or (np.nan, np.nan)
    bleu = [float(metrics.get("bleu1")(part.texts, part.references).mean()) for part in (true, other)]
    values = (float(np.mean(pairwise)), low, high, test.effect, test.p_value, *bleu)
    return dict(zip(list(COLUMNS)[2:], values, strict=True))


def _fold(request: Request, participant: str, trials: Trials, split: Split, n_folds: int) -> tuple[pd.DataFrame, Evidence]:
    config = request.config
    folder = request.work_dir / "checkpoints" / f"sub-{participant}_leakage-{config.split.scheme}-{split.fold}"
    # What an interrupted call left behind may be of other settings.
    shutil.rmtree(folder, ignore_errors=True)
    label = f"sub-{participant} {config.split.scheme} {split.fold + 1}/{n_folds}"
    labels = atlas_of(request, trials.geometry).labels
    fitted, _ = decoder.train(split, labels, config, folder=folder, key="leakage", label=label)
    shutil.rmtree(folder, ignore_errors=True)
    test = split.examples.take(split.test)
    compared = comparisons_of(test, config, split.fold)
    found = decoded(fitted, test, config, compared, split.fold)
    return found.table, Evidence.of(found.matrix, compared, [prompt.context for prompt in test.prompts])
