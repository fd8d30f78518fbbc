"""Stage evaluate: decoded text -> figures of merit, with linear readouts of the same responses beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.config import Request
from bids_brainlm.core.types import Split
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.evaluation.metrics import Facts
from bids_brainlm.evaluation.table import METRICS_COLUMNS, Predictions, Sampling, summary
from bids_brainlm.io.files import read_tsv, write_tsv
from bids_brainlm.stages.examples import examples_of, splits_of
from bids_brainlm.stages.outputs import beh_path, describe
from bids_brainlm.stages.reliability import write_reliability
from bids_brainlm.stages.responses import load_trials


def evaluate(request: Request, *, participant: str) -> list[Path]:
    """Stage: figures of merit of the pooled out-of-fold predictions, with linear readouts beside them."""
    config = request.config
    trials = load_trials(request, participant)
    predictions = Predictions(read_tsv(beh_path(request, participant, trials.task, "decoded")))
    scores = read_tsv(beh_path(request, participant, trials.task, "permuted"))
    nll = scores.drop(columns=["trial_id", "run"]).to_numpy(float).T
    facts = load_facts(request)
    readouts: dict[str, NDArray[np.str_]] = {}
    examples = examples_of(request, trials)
    if facts is not None:
        folds = splits_of(request, trials, examples)
        readouts = {kind: _read_out(folds, facts, kind) for kind in config.evaluate.readout}
    sampling = Sampling(config.evaluate.bootstrap, seed=config.run.random_seed)
    table = summary(predictions, config.evaluate.metrics, nll, facts, scores["run"].to_numpy(str), readouts, sampling)
    path = beh_path(request, participant, trials.task, "metrics")
    primary = f"Primary test, declared beforehand: {table['metric'].iloc[0]}."
    text = f"Figures of merit. {primary} Intervals are 95 % bootstrap over stimuli."
    written = [write_tsv(path, table), describe(path, text, METRICS_COLUMNS)]
    return [*written, *write_reliability(request, participant, trials, examples)]


def load_facts(request: Request) -> Facts | None:
    """The table of facts that the configuration names.

    Raises
    ------
    InputError
        When it is not there or is ambiguous.
    """
    if not request.config.evaluate.facts:
        return None
    path = facts_path(request)
    table = read_tsv(path)
    try:
        return Facts.from_frame(table, str(table.columns[0]))
    except ValueError as error:
        expected = "a TSV: a key column, then one column a factor"
        raise InputError(f"the facts cannot be used: {error}", path, expected=expected) from error


def facts_path(request: Request) -> Path:
    """The table of facts: a path below the dataset, or an absolute one."""
    path = (request.bids_dir / request.config.evaluate.facts).resolve()
    if not path.is_file():
        expected = "a TSV: a key column, then one column a factor"
        raise MissingInputError("the table of facts is not there", path, expected=expected, remedy="check --facts")
    return path


def _read_out(folds: Sequence[Split], facts: Facts, kind: str) -> NDArray[np.str_]:
    """(n, factors) labels that a linear readout of the same responses names, in the order of the predictions."""
    # Here, because scikit-learn takes 0.7 s, and every plan imports this module.
    from bids_brainlm.evaluation.readout import readout

    out = []
    for split in folds:
        train, test = split.examples.take(split.train), split.examples.take(split.test)
        x, y = (np.nan_to_num(part.gather(np.arange(len(part))).reshape(len(part), -1)) for part in (train, test))
        labels = facts.labels(train.stimulus)
        groups = split.examples.group[split.train]
        named = [
            readout(x[labels[:, f] != ""], labels[labels[:, f] != "", f], y, kind, groups[labels[:, f] != ""])
            for f in range(labels.shape[1])
        ]
        out.append(np.stack(named, axis=1))
    return np.concatenate(out)
