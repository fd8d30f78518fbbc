"""Stage evaluate: decoded text -> figures of merit, with linear readouts of the same responses beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.config import Request
from bids_brainlm.core.types import Split
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.evaluation.metrics import Facts
from bids_brainlm.evaluation.table import METRICS_COLUMNS, Predictions, Sampling, summary
from bids_brainlm.io.files import read_tsv, write_tsv
from bids_brainlm.stages.examples import examples_of, splits_of
from bids_brainlm.stages.outputs import beh_path, describe, leaky_marks
from bids_brainlm.stages.reliability import write_reliability
from bids_brainlm.stages.responses import load_trials

PANEL_BYTES = 2**27
"""Responses that a readout holds in memory at a time."""

MOST = 2**12
"""Training examples that a readout is fitted to: it holds the inner products of all pairs of them."""


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
        readouts = _read_out(folds, facts, config.evaluate.readout, config.run.random_seed)
    sampling = Sampling(config.evaluate.bootstrap, seed=config.run.random_seed)
    table = summary(predictions, config.evaluate.metrics, nll, facts, scores["run"].to_numpy(str), readouts, sampling)
    path = beh_path(request, participant, trials.task, "metrics")
    primary = f"Primary test, declared beforehand: {table['metric'].iloc[0]}."
    text = f"Figures of merit. {primary} Intervals are 95 % bootstrap over groups."
    written = [write_tsv(path, table), describe(path, text, METRICS_COLUMNS, leaky_marks(config))]
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


def _read_out(folds: Sequence[Split], facts: Facts, kinds: Sequence[str], seed: int) -> dict[str, NDArray[np.str_]]:
    """Kind of readout -> (n, factors) labels that it names from the same responses, in the order of the predictions."""
    # Here, because scikit-learn takes 0.7 s, and every plan imports this module.
    from bids_brainlm.evaluation.readout import kernels, named

    out: dict[str, list[Any]] = {kind: [] for kind in kinds}
    for split in folds:
        labels = facts.labels(split.examples.stimulus[split.train])
        columns: dict[str, list[Any]] = {kind: [] for kind in kinds}
        products: dict[bytes, Any] = {}
        for own in labels.T:
            known = _some(np.flatnonzero(own != ""), seed)
            # Trials without a label differ between factors; mostly there are none.
            if known.tobytes() not in products:
                products = {known.tobytes(): kernels(_panels(split, split.train[known]))}
            groups = np.unique(split.examples.group[split.train[known]], return_inverse=True)[1]
            for kind in kinds:
                columns[kind].append(named(products[known.tobytes()], own[known], kind, groups))
        for kind in kinds:
            out[kind].append(np.stack(columns[kind], axis=1))
    return {kind: np.concatenate(parts) for kind, parts in out.items()}


def _some(index: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """As many as readouts are fitted to, drawn at random where there are more."""
    return index if index.size <= MOST else np.sort(np.random.default_rng(seed).permutation(index)[:MOST])


def _panels(split: Split, train: NDArray[np.int64]) -> Iterator[tuple[Any, Any]]:
    """Responses of training and test examples, some vertices of all of them at a time."""
    n_vertices, n_rows = split.examples.recording.data.shape[1], split.examples.rows.shape[1]
    width = max(1, PANEL_BYTES // (4 * n_rows * max(len(train), len(split.test))))
    for start in range(0, n_vertices, width):
        part = slice(start, start + width)
        own, others = (split.examples.gather(of, part).reshape(len(of), -1) for of in (train, split.test))
        yield own, others
