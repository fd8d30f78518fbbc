"""Stage information: a text-only model of every fold, and what the brain adds to it, in bits.

Costs as much as training again, so there is such a stage only where ``evaluate.information`` asks for it.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.config import Config, Request
from bids_brainlm.core.surrogates import constant
from bids_brainlm.core.types import Examples, Split
from bids_brainlm.evaluation.information import INFORMATION_COLUMNS, bits, fit_temperature, nll_at
from bids_brainlm.io.files import write_json, write_tsv
from bids_brainlm.models import checkpoint
from bids_brainlm.stages import decoder
from bids_brainlm.stages.examples import examples_of, splits_of
from bids_brainlm.stages.outputs import beh_path, describe, model_path, warning_marks
from bids_brainlm.stages.responses import atlas_of, load_trials

TEXT = "Information that the brain adds to a model of the same texts without it; both calibrated on validation examples."


def measure(request: Request, *, participant: str, key: str) -> list[Path]:
    """Stage: train a text-only model a fold, calibrate it and the decoder, and score the test texts with both."""
    config, trials = request.config, load_trials(request, participant)
    labels = atlas_of(request, trials.geometry).labels
    checkpoints = request.work_dir / "checkpoints" / f"sub-{participant}_information_{key[:12]}"
    written: list[Path] = []
    tables, fits = [], []
    folds = splits_of(request, trials, examples_of(request, trials))
    for split in folds:
        name = f"fold-{split.fold}"
        affine = decoder.affine_of(split, config)
        # A real response and not their mean, which would be zero after z-scoring: only biases would learn from it.
        plain = dataclasses.replace(split, examples=constant(split.examples, split.examples.gather(split.train[:1])[0, 0]))
        settings = {"folder": checkpoints / name, "key": f"{key}-{split.fold}", "label": f"sub-{participant} text only {name}"}
        fitted, parts = decoder.train(plain, labels, config, affine=affine, **settings)  # type: ignore[arg-type]
        path = model_path(request, participant, trials.task, split.fold, "textonly")
        checkpoint.save(path, parts["tensors"], {**parts["about"], "fold": split.fold})
        sidecar = {
            "Description": "Text-only model: the decoder's recipe with one response for all.",
            "Fold": split.fold,
        }
        written += [path, write_json(path.with_suffix(".json"), sidecar)]
        text_only, of_text = _calibrated(fitted, plain, config)
        del fitted
        true, of_brain = _calibrated(
            decoder.load(model_path(request, participant, trials.task, split.fold), config), split, config
        )
        values = (split.examples.id[split.test], split.fold, true, text_only, bits(text_only, true))
        tables.append(pd.DataFrame(dict(zip(INFORMATION_COLUMNS, values, strict=True))))
        fits.append({"decoder": of_brain, "text_only": of_text, "examples": len(split.validation)})
    shutil.rmtree(checkpoints)
    path = beh_path(request, participant, trials.task, "information")
    written += [write_tsv(path, pd.concat(tables, ignore_index=True))]
    return [*written, describe(path, TEXT, INFORMATION_COLUMNS, _marks(config, fits))]


def _calibrated(fitted: decoder.Decoder, split: Split, config: Config) -> tuple[NDArray[np.float64], float]:
    """(n,) NLL of the test texts at the temperature that suits the validation texts best, and that temperature."""
    taken = (split.examples.take(part) for part in (split.validation, split.test))
    validation, test = (decoder.within_limits(examples, fitted.text, config) for examples in taken)
    temperature = 1.0
    if len(validation):
        temperature = fit_temperature(lambda tried: _scored(fitted, validation, config, tried).sum(axis=0))
    return _scored(fitted, test, config, np.array([temperature]))[:, 0], temperature


def _scored(
    fitted: decoder.Decoder, examples: Examples, config: Config, temperatures: NDArray[np.float64]
) -> NDArray[np.float64]:
    rendered = decoder.rendered(fitted, examples, config)
    return nll_at(fitted.model.eval(), examples, rendered, temperatures, config.decode.batch_size)


def _marks(config: Config, fits: list[dict[str, Any]]) -> Mapping[str, Any]:
    return {
        **warning_marks(config),
        "Temperatures": {which: [fit[which] for fit in fits] for which in ("decoder", "text_only")},
        "ValidationExamples": [fit["examples"] for fit in fits],
    }
