"""Stages train, decode and evaluate: responses and texts -> decoders, decoded text, figures of merit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.config import Request
from bids_brainlm.core.reliability import split_half
from bids_brainlm.core.types import DECODED_COLUMNS, Examples, Split
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.evaluation.decoding import Generation
from bids_brainlm.evaluation.decoding import decode as decode_texts
from bids_brainlm.evaluation.metrics import Facts
from bids_brainlm.evaluation.readout import readout
from bids_brainlm.evaluation.table import METRICS_COLUMNS, Predictions, Sampling, summary
from bids_brainlm.io.files import read_tsv, write_json, write_tsv
from bids_brainlm.models import checkpoint
from bids_brainlm.stages import decoder
from bids_brainlm.stages.examples import examples_of, splits_of
from bids_brainlm.stages.responses import Trials, atlas_of, load_trials

HISTORY_COLUMNS = {
    "fold": "Fold, from 0.",
    "phase": "Phase of training.",
    "epoch": "Epoch of the phase, from 0.",
    "train_loss": "Mean training loss, nats per token.",
    "validation_loss": "Mean validation loss, nats per token; n/a without a validation set.",
    "learning_rate": "Learning rate at the end of the epoch.",
}


def train(request: Request, *, participant: str, key: str) -> list[Path]:
    """Stage: train one decoder a fold.

    Checkpoints live in ``<work>/checkpoints``, which no Nipype node owns, so that a rerun finds them.
    """
    trials = load_trials(request, participant)
    examples = examples_of(request, trials)
    config, atlas = request.config, atlas_of(request, trials.geometry)
    folds = splits_of(request, trials, examples)
    written = []
    for split in folds:
        folder = request.work_dir / "checkpoints" / f"sub-{participant}_fold-{split.fold}"
        label = f"sub-{participant} fold {split.fold + 1}/{len(folds)}"
        fitted, parts = decoder.train(split, atlas.labels, config, folder=folder, key=f"{key}-{split.fold}", label=label)
        about = {**parts["about"], "fold": split.fold, "shared_texts": split.shared_texts, "padding_waste": fitted.padding_waste, "atlas": atlas.name}
        path = model_path(request, participant, split.fold)
        checkpoint.save(path, parts["tensors"], about)
        written += [path, write_json(path.with_suffix(".json"), _sidecar(split, about))]
    history = [{"fold": k, **row} for k, path in enumerate(written[::2]) for row in checkpoint.load(path)[1]["history"]]
    curves = beh_path(request, participant, "training")
    written += [write_tsv(curves, pd.DataFrame(history)[list(HISTORY_COLUMNS)])]
    return [*written, _columns(curves, "Training curves.", HISTORY_COLUMNS)]


def decode(request: Request, *, participant: str) -> list[Path]:
    """Stage: decode the test examples of every fold under every condition."""
    trials = load_trials(request, participant)
    settings, config = request.config.decode, request.config
    tables, permuted = [], []
    for split in splits_of(request, trials, examples_of(request, trials)):
        fitted = decoder.load(model_path(request, participant, split.fold), config)
        generation = Generation(
            config.model.style, settings.max_new_tokens, settings.beams, settings.repetition_penalty, settings.batch_size
        )
        test = split.examples.take(split.test)
        try:
            found = decode_texts(
                fitted.model,
                fitted.text,
                test,
                generation,
                permutations=settings.permutations,
                seed=config.run.random_seed + split.fold,
                fold=split.fold,
            )
        except ValueError as error:
            remedy = "put several different texts into the test set (split.group, split.folds)"
            raise InputError(f"no permuted brains in fold {split.fold}: {error}", trials.path, remedy=remedy) from error
        tables.append(found.table)
        names = {f"permutation_{k + 1:04d}": row for k, row in enumerate(found.nll_permuted)}
        permuted.append(pd.DataFrame({"trial_id": test.id, "run": _runs(test, trials), **names}))
    predictions = Predictions(pd.concat(tables, ignore_index=True))
    texts, scores = beh_path(request, participant, "decoded"), beh_path(request, participant, "permuted")
    about = {"trial_id": DECODED_COLUMNS["trial_id"], "run": "Run of the trial, mixed where repeats of several runs are averaged."}
    return [
        write_tsv(texts, predictions.table),
        _columns(texts, "Text decoded from held-out trials under three conditions on the same weights.", DECODED_COLUMNS),
        write_tsv(scores, pd.concat(permuted, ignore_index=True)),
        _columns(scores, "NLL (nats) of every text under permuted brains, one column a permutation.", about),
    ]


def evaluate(request: Request, *, participant: str) -> list[Path]:
    """Stage: figures of merit of the pooled out-of-fold predictions, with linear readouts beside them."""
    config = request.config
    predictions = Predictions(read_tsv(beh_path(request, participant, "decoded")))
    scores = read_tsv(beh_path(request, participant, "permuted"))
    nll = scores.drop(columns=["trial_id", "run"]).to_numpy(float).T
    facts = load_facts(request)
    readouts: dict[str, NDArray[np.str_]] = {}
    trials = load_trials(request, participant)
    examples = examples_of(request, trials)
    if facts is not None:
        folds = splits_of(request, trials, examples)
        readouts = {kind: _read_out(folds, facts, kind) for kind in config.evaluate.readout}
    sampling = Sampling(config.evaluate.bootstrap, seed=config.run.random_seed)
    table = summary(predictions, config.evaluate.metrics, nll, facts, scores["run"].to_numpy(str), readouts, sampling)
    path = beh_path(request, participant, "metrics")
    text = f"Figures of merit. Primary test, declared beforehand: {table['metric'].iloc[0]}. Intervals are 95 % bootstrap over stimuli."
    responses = examples.recording.data[examples.rows[:, 0, 0]]
    reliability = pd.DataFrame({"reliability": split_half(responses, examples.stimulus, config.run.random_seed)})
    quality = reliability_path(request, participant)
    return [write_tsv(path, table), _columns(path, text, METRICS_COLUMNS), write_tsv(quality, reliability)]


def load_facts(request: Request) -> Facts | None:
    """The table of facts that the configuration names.

    Raises
    ------
    InputError
        When it is not there, leaves the dataset, or is ambiguous.
    """
    setting = request.config.evaluate.facts
    if not setting:
        return None
    path = (request.bids_dir / setting).resolve()
    if not path.is_file():
        raise MissingInputError("the table of facts is not there", path, expected="a TSV: a key column, one column a factor", remedy="check --facts")
    table = read_tsv(path)
    try:
        return Facts.from_frame(table, str(table.columns[0]))
    except ValueError as error:
        raise InputError(f"the facts cannot be used: {error}", path) from error


def beh_path(request: Request, participant: str, desc: str) -> Path:
    """``sub-01/beh/sub-01_desc-<desc>_beh.tsv``."""
    return request.out_dir / f"sub-{participant}" / "beh" / f"sub-{participant}_desc-{desc}_beh.tsv"


def reliability_path(request: Request, participant: str) -> Path:
    """``sub-01/func/sub-01_stat-reliability_desc-LSS_statmap.tsv``: split-half reliability, one row a vertex."""
    name = f"sub-{participant}_stat-reliability_desc-{request.config.estimate.estimator.upper()}_statmap.tsv"
    return request.out_dir / f"sub-{participant}" / "func" / name


def model_path(request: Request, participant: str, fold: int) -> Path:
    """``sub-01/model/sub-01_desc-fold0decoder_model.safetensors``."""
    return request.out_dir / f"sub-{participant}" / "model" / f"sub-{participant}_desc-fold{fold}decoder_model.safetensors"


def _sidecar(split: Split, about: dict[str, Any]) -> dict[str, Any]:
    return {
        "Description": "Decoder: fixed features, brain tokenizer and the trained part of the language model.",
        "LanguageModel": about["llm"],
        "Fold": split.fold,
        "Atlas": about["atlas"],
        "NumberOfExamples": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
        "TestExamplesSharingATextWithTraining": split.shared_texts,
        "PaddingWaste": about["padding_waste"],
        "Configuration": about["config"],
    }


def _columns(table: Path, description: str, columns: dict[str, str]) -> Path:
    tree = {"Description": description, **{name: {"Description": text} for name, text in columns.items()}}
    return write_json(table.with_suffix(".json"), tree)


def _runs(test: Examples, trials: Trials) -> list[str]:
    names = dict(enumerate(pd.factorize(trials.table["run"].astype(str))[1]))
    return [names.get(int(run), "mixed") for run in test.run]


def _read_out(folds: Sequence[Split], facts: Facts, kind: str) -> NDArray[np.str_]:
    """(n, factors) labels that a linear readout of the same responses names, in the order of the predictions."""
    out = []
    for split in folds:
        train, test = split.examples.take(split.train), split.examples.take(split.test)
        x, y = (np.nan_to_num(part.gather(np.arange(len(part))).reshape(len(part), -1)) for part in (train, test))
        labels = facts.labels(train.stimulus)
        groups = split.examples.group[split.train]
        named = [readout(x[labels[:, f] != ""], labels[labels[:, f] != "", f], y, kind, groups[labels[:, f] != ""]) for f in range(labels.shape[1])]
        out.append(np.stack(named, axis=1))
    return np.concatenate(out)
