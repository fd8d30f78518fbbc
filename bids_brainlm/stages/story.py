"""Stage story: responses of test stories -> their text from beginning to end, and how good it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bids_brainlm.config import Config, Request, Window
from bids_brainlm.core.types import Split
from bids_brainlm.core.windows import rows_of, texts_of, window_of
from bids_brainlm.errors import InputError
from bids_brainlm.evaluation.metrics import Metric, get
from bids_brainlm.evaluation.resources import available, lacking
from bids_brainlm.evaluation.story.comparison import STORY_COLUMNS, figures
from bids_brainlm.evaluation.story.decoders import Material
from bids_brainlm.evaluation.story.rate import word_rates
from bids_brainlm.evaluation.story.reading import Reader
from bids_brainlm.evaluation.story.search import Search, sample, shares, window_texts
from bids_brainlm.evaluation.story.tellings import Stretch, Telling, divided, held_rows, stretches
from bids_brainlm.io.files import write_tsv
from bids_brainlm.registry import story_decoders
from bids_brainlm.stages import decoder
from bids_brainlm.stages.evaluate import not_run
from bids_brainlm.stages.examples import examples_of, splits_of
from bids_brainlm.stages.outputs import beh_path, describe, model_path, warning_marks
from bids_brainlm.stages.responses import Trials, load_trials
from bids_brainlm.stages.windows import overlap, stimulus_of, stories_of

METRICS = ("wer", "bleu1", "meteor", "bertscore")
"""Metrics of long windows; the last two where their resources are (`bids_brainlm.evaluation.resources`)."""

RECONSTRUCTION_COLUMNS = {
    "story": "Story.",
    "run": "Run in which it was heard.",
    "fold": "Fold in which the window was held out, from 0.",
    "decoder": "Story decoder; n/a for a text by the language model alone.",
    "draw": "0 for a decoder; number of a text by the language model alone, from 1.",
    "window": "Number of the window of the story, from 0.",
    "onset": "Start of the window, s from the start of the story.",
    "words_pred": "Number of words expected from the response.",
    "text_true": "What was said; n/a where nobody spoke.",
    "text_pred": "Reconstructed text; n/a where it is empty.",
}
"""Columns of the table of reconstructed text."""


def reconstruct(request: Request, *, participant: str) -> list[Path]:
    """Stage: reconstruct the test stories of every fold, and compare the text with what was said.

    Raises
    ------
    InputError
        When no test window of a story has all its volumes, or there is nothing to learn the word rate from.
    """
    config, trials = request.config, load_trials(request, participant)
    frames = []
    for split in splits_of(request, trials, examples_of(request, trials)):
        fitted = decoder.load(model_path(request, participant, trials.task, split.fold), config)
        material = _material(fitted, split, trials, config)
        frames += [frame.assign(fold=split.fold) for frame in _told(material, trials, config, split.fold)]
    if not frames:
        remedy = "let whole stories be test (--group story), or blocks of them (--split blocks)"
        raise InputError("no window of a story is held out with all its volumes", trials.path, remedy=remedy)
    told = pd.concat(frames, ignore_index=True)
    window, settings = config.window, config.story
    metrics, resources = story_metrics(config)
    table = figures(
        told,
        [metric for metric in metrics if not lacking(metric.context, resources)],
        resources=resources,
        seconds=window.seconds,
        longer=settings.seconds,
        overlap=overlap(window),
        permutations=settings.permutations,
        seed=config.run.random_seed,
    )
    texts, scores = (beh_path(request, participant, trials.task, desc) for desc in ("reconstruction", "story"))
    about = "Stories reconstructed from the responses to their windows, and texts by the language model alone."
    leaky = warning_marks(config)
    marks = {**leaky, "NotRun": not_run(metrics, resources)}
    return [
        write_tsv(texts, told[list(RECONSTRUCTION_COLUMNS)]),
        describe(texts, about, RECONSTRUCTION_COLUMNS, leaky),
        write_tsv(scores, table),
        describe(scores, f"Reconstructed stories in windows of {settings.seconds:g} s.", STORY_COLUMNS, marks),
    ]


def story_metrics(config: Config) -> tuple[list[Metric], dict[str, Any]]:
    """Metrics that long windows are scored with, and what there is of the resources that they need."""
    metrics = [get(name) for name in METRICS]
    return metrics, available({name for metric in metrics for name in metric.context}, config.evaluate.bertscore)


def tellings_of(trials: Trials, settings: Window) -> Iterator[Telling]:
    """Every story of every run, not divided into parts yet."""
    for run, own, times, stories in stories_of(trials, settings):
        for start, transcript in stories:
            texts = texts_of(transcript, settings.seconds)
            rows = rows_of(times, start, len(texts), settings.seconds, settings.lag, settings.rows)
            rows = np.where(rows >= 0, rows + own[0], -1)
            taken = window_of(times - start, settings.seconds)
            part = np.full(len(texts), "", dtype="<U10")
            yield Telling(transcript.name, run, tuple(texts), rows, own, taken, part)


def _material(fitted: decoder.Decoder, split: Split, trials: Trials, config: Config) -> Material:
    tellings = []
    for telling in tellings_of(trials, config.window):
        stimuli = [stimulus_of(telling.story, k) for k in range(len(telling.texts))]
        tellings.append(divided(telling, split, stimuli, int(split.examples.recording.run[telling.volumes[0]])))
    settings = config.story
    return Material(
        Reader(fitted.model, fitted.text, config.model.style),
        split.examples.recording,
        tuple(tellings),
        held_rows(split),
        Search(settings.beams, settings.extensions, settings.lm_context),
        config.window.seconds,
    )


def _told(material: Material, trials: Trials, config: Config, fold: int) -> Iterator[pd.DataFrame]:
    """Windows with the text of every decoder and of the language model alone."""
    parts = [stretch for telling in material.tellings for stretch in stretches(telling)]
    if not parts:
        return
    seed = config.run.random_seed + fold
    try:
        rates = word_rates(
            material.recording, material.tellings, material.held, np.concatenate([part.rows for part in parts]), seed
        )
        decoders = {name: story_decoders.get(name)(material) for name in config.story.decoders}
    except ValueError as error:
        remedy = "train on more stories (split.test, split.folds)"
        raise InputError(f"stories of fold {fold} cannot be reconstructed: {error}", trials.path, remedy=remedy) from error
    text, tokens_per_word = material.reader.tokenizer, material.tokens_per_word
    for number, (stretch, own) in enumerate(zip(parts, _cut(rates, parts), strict=True)):
        counts = [int(n) for n in shares(own * tokens_per_word)]
        for name, decode in decoders.items():
            yield _frame(stretch, name, 0, own, window_texts(decode(stretch, counts), counts, text), config)
        drawn = sample(material.reader, counts, material.settings, config.story.null_texts, seed + number)
        for draw, tokens in enumerate(drawn):
            yield _frame(stretch, "", draw + 1, own, window_texts(tokens, counts, text), config)


def _cut(values: Any, parts: Sequence[Stretch]) -> list[Any]:
    return np.split(values, np.cumsum([len(part.windows) for part in parts])[:-1])


def _frame(stretch: Stretch, name: str, draw: int, rates: Any, texts: Sequence[str], config: Config) -> pd.DataFrame:
    columns = {
        "story": stretch.telling.story,
        "run": stretch.telling.run,
        "decoder": name,
        "draw": draw,
        "window": list(stretch.windows),
        "onset": [k * config.window.seconds for k in stretch.windows],
        "words_pred": rates,
        "text_true": list(stretch.texts),
        "text_pred": list(texts),
    }
    return pd.DataFrame(columns)
