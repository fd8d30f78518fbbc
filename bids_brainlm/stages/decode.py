"""Stages train and decode: responses and texts -> decoders -> decoded text."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bids_brainlm import __version__
from bids_brainlm.config import Config, Request
from bids_brainlm.core.leakage import count
from bids_brainlm.core.types import DECODED_COLUMNS, Examples, Split
from bids_brainlm.errors import InputError
from bids_brainlm.evaluation.controls import CONTROLS_COLUMNS, Condition, control_nll, control_table
from bids_brainlm.evaluation.decoding import Decoded, Generation
from bids_brainlm.evaluation.decoding import decode as decode_texts
from bids_brainlm.evaluation.matrix import LIKELIHOOD_COLUMNS
from bids_brainlm.evaluation.pairs import Comparisons
from bids_brainlm.evaluation.table import Predictions
from bids_brainlm.io.files import write_json, write_tsv
from bids_brainlm.models import checkpoint
from bids_brainlm.stages import decoder
from bids_brainlm.stages.comparisons import comparisons_of
from bids_brainlm.stages.examples import examples_of, splits_of
from bids_brainlm.stages.outputs import beh_path, describe, model_path, warning_marks
from bids_brainlm.stages.responses import Trials, atlas_of, load_trials
from bids_brainlm.stages.windows import left_out_of

LOGGER = logging.getLogger(__name__)

_SOFTWARE = ("torch", "transformers", "peft", "bitsandbytes", "numpy")
"""What the weights of a decoder depend on."""

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

    Checkpoints live in ``<work>/checkpoints``, which no Nipype node owns, so that a rerun finds them, in a folder of this key,
    so that two runs with other settings may share the work folder. They go when every fold is done.
    """
    trials = load_trials(request, participant)
    examples = examples_of(request, trials)
    config, atlas = request.config, atlas_of(request, trials.geometry)
    folds = splits_of(request, trials, examples)
    marks = warning_marks(config)
    if marks:
        LOGGER.warning("sub-%s: %s", participant, marks["Warning"])
    written = []
    windows = {} if trials.heard is None else {"Windows": dataclasses.asdict(left_out_of(trials, config.window))}
    checkpoints = request.work_dir / "checkpoints" / f"sub-{participant}_{key[:12]}"
    for split in folds:
        folder = checkpoints / f"fold-{split.fold}"
        label = f"sub-{participant} fold {split.fold + 1}/{len(folds)}"
        fitted, parts = decoder.train(split, atlas.labels, config, folder=folder, key=f"{key}-{split.fold}", label=label)
        about = {
            **parts["about"],
            "fold": split.fold,
            "shared_texts": split.shared_texts,
            "padding_waste": fitted.padding_waste,
            "atlas": atlas.title,
        }
        path = model_path(request, participant, trials.task, split.fold)
        checkpoint.save(path, parts["tensors"], about)
        written += [path, write_json(path.with_suffix(".json"), _sidecar(split, about) | windows)]
    shutil.rmtree(checkpoints)
    history = [{"fold": k, **row} for k, path in enumerate(written[::2]) for row in checkpoint.load(path)[1]["history"]]
    curves = beh_path(request, participant, trials.task, "training")
    written += [write_tsv(curves, pd.DataFrame(history)[list(HISTORY_COLUMNS)])]
    return [*written, describe(curves, "Training curves.", HISTORY_COLUMNS, marks)]


def decode(request: Request, *, participant: str) -> list[Path]:
    """Stage: decode the test examples of every fold under every condition, and score them under every brain."""
    trials = load_trials(request, participant)
    config = request.config
    tables, scored, controls = [], [], []
    for split in splits_of(request, trials, examples_of(request, trials)):
        path = model_path(request, participant, trials.task, split.fold)
        fitted = decoder.load(path, config)
        test = split.examples.take(split.test)
        try:
            compared = comparisons_of(test, config, split.fold)
        except ValueError as error:
            remedy = "put several different texts into the test set (split.group, split.folds)"
            raise InputError(f"no permuted brains in fold {split.fold}: {error}", trials.path, remedy=remedy) from error
        found = decoded(fitted, test, config, compared, split.fold)
        tables.append(found.table)
        controls.append(_controlled(fitted, test, config, found.table, checkpoint.digest(path), split.fold))
        scored.append((found.matrix.to_frame(_runs(test, trials), found.confidence), compared.n_sampled))
    predictions = Predictions(pd.concat(tables, ignore_index=True))
    texts, scores = (beh_path(request, participant, trials.task, desc) for desc in ("decoded", "likelihood"))
    n_sampled = max(sampled for _, sampled in scored)
    marks = warning_marks(config)
    return [
        write_tsv(texts, predictions.table),
        describe(texts, "Text decoded from held-out trials under three conditions on the same weights.", DECODED_COLUMNS, marks),
        write_tsv(scores, pd.concat([frame for frame, _ in scored], ignore_index=True)),
        _describe_likelihoods(scores, n_sampled, marks),
        *_write_controls(request, participant, trials.task, controls, predictions.of("true").groups),
    ]


def decoded(fitted: decoder.Decoder, test: Examples, config: Config, compared: Comparisons, fold: int) -> Decoded:
    """Texts and likelihoods of the test examples of a fold, as the configuration has them generated."""
    limited = decoder.within_limits(test, fitted.text, config)
    return decode_texts(fitted.model, fitted.text, limited, generation_of(config), compared, fold=fold)


def generation_of(config: Config) -> Generation:
    """How texts are generated."""
    fields = ("max_new_tokens", "min_new_tokens", "beams", "repetition_penalty", "batch_size")
    return Generation(config.model.style, **{name: getattr(config.decode, name) for name in fields})


def _controlled(
    fitted: decoder.Decoder, test: Examples, config: Config, table: pd.DataFrame, weights: str, fold: int
) -> tuple[dict[Condition, Any], dict[str, str]]:
    """NLL of the test texts of a fold under every condition, and what could not be done."""
    seed = config.run.random_seed + fold
    out: dict[Condition, Any] = {
        Condition(str(name), seed, weights): part["nll"].to_numpy() for name, part in table.groupby("condition", sort=False)
    }
    limited = decoder.within_limits(test, fitted.text, config)
    wanted = [Condition(name, seed, weights) for name in config.decode.controls if name != "permuted"]
    found, lacking = control_nll(
        fitted.model, limited, decoder.rendered(fitted, limited, config), wanted, config.decode.batch_size
    )
    return out | found, lacking


def _write_controls(request: Request, participant: str, task: str, controls: Sequence[Any], groups: Any) -> list[Path]:
    """The table of controls; ``groups`` are those of the texts of all folds."""
    folds, lacking = [nll for nll, _ in controls], {name: why for _, some in controls for name, why in some.items()}
    ends = np.cumsum([len(next(iter(fold.values()))) for fold in folds])[:-1]
    settings = request.config
    table = control_table(folds, np.split(groups, ends), seed=settings.run.random_seed)
    path, marks = beh_path(request, participant, task, "controls"), {**warning_marks(settings), "NotRun": lacking}
    text = "The right texts under brains that are not theirs, on the same weights."
    return [write_tsv(path, table), describe(path, text, CONTROLS_COLUMNS, marks)]


def _describe_likelihoods(table: Path, n_sampled: int, marks: Mapping[str, Any]) -> Path:
    """Sidecar of the likelihood matrix: its design, and what its columns are."""
    text = "NLL (nats) of every text under brains, one column a brain, called by the first example that has it."
    design = "all brains that are exchanged with that of a text; n/a for others"
    if n_sampled:
        text = "NLL (nats) of every text under brains: its own, its partner's, and those of random exchanges, one column each."
        design = f"own brain, that of a partner, and those of {n_sampled} random exchanges"
    return describe(table, text, LIKELIHOOD_COLUMNS, {**marks, "SamplingDesign": design})


def _sidecar(split: Split, about: dict[str, Any]) -> dict[str, Any]:
    return {
        "Description": "Decoder: fixed features, brain tokenizer and the trained part of the language model.",
        "LanguageModel": about["llm"],
        "Fold": split.fold,
        "Atlas": about["atlas"],
        "NumberOfExamples": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
        "TestExamplesSharingATextWithTraining": split.shared_texts,
        "ExamplesPurged": split.purged,
        "ExamplesLeftOut": split.left_out,
        "LeakySplit": split.leaky,
        "ShuffledPairs": about["config"]["split"]["shuffle_pairs"],
        "Leakage": {_CAMEL[name]: n for name, n in dataclasses.asdict(count(split)).items()},
        "PaddingWaste": about["padding_waste"],
        "Seed": about["config"]["run"]["random_seed"],
        "SoftwareVersions": {"bids_brainlm": __version__, **{name: metadata.version(name) for name in _SOFTWARE}},
        "Configuration": about["config"],
    }


_CAMEL = {
    "n_test": "TestExamples",
    "shared_rows": "SharingARowWithTraining",
    "shared_targets": "SharingATargetWithTraining",
    "targets_in_contexts": "TargetInATrainingPrompt",
}
"""Fields of `Leakage` as sidecars call them."""


def _runs(test: Examples, trials: Trials) -> list[str]:
    names = dict(enumerate(pd.factorize(trials.table["run"].astype(str))[1]))
    return [names.get(int(run), "mixed") for run in test.run]
