"""Trials, responses and texts of one participant -> examples and splits.

An *example* is a trial and one text item (a caption with its references, or one question), a chunk of the text of a trial, or a
window of a story (`bids_brainlm.stages.windows`). What must not be shared between parts is its *group*.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.config import Config, Request
from bids_brainlm.core.features import center
from bids_brainlm.core.questions import held_out, unmixed
from bids_brainlm.core.shifts import refuse_few
from bids_brainlm.core.splits import average, make_splits, shuffled, without
from bids_brainlm.core.types import CAPTION, QUESTION, Examples, Prompt, Recording, Split
from bids_brainlm.errors import InputError, LeakageError, MissingInputError
from bids_brainlm.io.files import read_tsv
from bids_brainlm.io.texts import Item, load_texts
from bids_brainlm.stages.facts import left_out_of
from bids_brainlm.stages.responses import Trials, scratch
from bids_brainlm.stages.windows import Chunk, chunks_of, column_of, window_examples

LOGGER = logging.getLogger(__name__)

FEWEST = 4
"""Examples below which there is nothing to split."""


def recording_of(trials: Trials, config: Config) -> Recording:
    """One matrix, centred per run or session (a property of the recording that uses no labels)."""
    data = trials.data
    if config.estimate.center != "none":
        labels = trials.table[config.estimate.center].to_numpy(str)
        try:
            data = center(data, labels, _beside(trials))
        except ValueError as error:
            remedy = "set estimate.center to session or none, or leave the run out"
            raise InputError(f"responses cannot be centred: {error}", trials.path, remedy=remedy) from error
    runs = pd.factorize(trials.table["run"].astype(str))[0]
    return Recording(data, "percent signal change", "beta", trials.table["onset"].to_numpy(float), runs, trials.sources)


def _beside(trials: Trials) -> Any:
    """Where the centred responses go: over themselves in scratch, which nobody else reads; not over a file of the user's."""
    if trials.scratch is None:
        return None
    return trials.data if trials.data.flags.writeable else scratch(trials.scratch, trials.data.shape)


def examples_of(request: Request, trials: Trials) -> Examples:
    """One example a trial and text item, or chunk of a text; of words with times, one a window and length of context.

    Raises
    ------
    InputError
        When there is no text, no such group column, too few examples, or the table of trials makes no sense.
    """
    config = request.config
    if trials.heard is not None:
        return window_examples(trials, config)
    texts = load_texts(request.bids_dir, config.text, trials.table, trials.path)
    keep = kept(trials.table) & np.asarray(texts.keep)
    names = trials.table["trial_id"].astype(str).tolist()
    texted = [row for row, items in enumerate(texts.items) if keep[row] and items]
    found = [(row, item) for row in texted for item in _asked(names[row], texts.stimulus[row], texts.items[row], config)]
    rows, items = [row for row, _ in found], [item for _, item in found]
    if config.window.chunks and len(set(rows)) < len(texted):
        n_short = len(texted) - len(set(rows))
        LOGGER.info("%d of %d texts are too short to be cut into chunks and are left out: %s", n_short, len(texted), trials.path)
    if len(rows) < FEWEST:
        remedy = "check tasks, runs and the text settings"
        raise InputError(f"{len(rows)} trial(s) with a text", trials.path, expected=f"at least {FEWEST}", remedy=remedy)
    try:
        return Examples(
            recording_of(trials, config),
            np.array(rows),
            tuple(item.prompt for item in items),
            tuple(item.references for item in items),
            _groups(trials, texts.stimulus, config.split.group)[rows],
            np.array([item.stimulus for item in items]),
            np.array([item.id for item in items]),
            tuple(item.heard for item in items),
        )
    except ValueError as error:
        expected = "ids that differ, and onsets that increase within each run"
        raise InputError(f"the trials cannot be used: {error}", trials.path, expected=expected) from error


@dataclass(frozen=True)
class _Asked:
    """What is asked of the response to a trial."""

    id: str
    stimulus: str
    prompt: Prompt
    references: tuple[str, ...]
    heard: tuple[str, ...] = ()


def _asked(trial: str, stimulus: str, items: Sequence[Item], config: Config) -> list[_Asked]:
    out = []
    for k, item in enumerate(items):
        name = trial + (f"_q-{k + 1}" if len(items) > 1 else "")
        if config.window.chunks:
            out += [_of_chunk(name, stimulus, chunk) for chunk in chunks_of(item.answer, config.window)]
        else:
            out.append(_Asked(name, stimulus, _prompt(item, config.text.prompts), item.references))
    return out


def _prompt(item: Item, instructions: tuple[str, ...]) -> Prompt:
    """A question, or for a text without one an instruction."""
    if item.question:
        return Prompt(item.question, item.answer, item.category or QUESTION, item.phrasings)
    return Prompt(instructions[0] if instructions else "", item.answer, CAPTION, instructions)


def _of_chunk(name: str, stimulus: str, chunk: Chunk) -> _Asked:
    own = f"{name}_chunk-{chunk.number}" + ("" if chunk.context else "_context-0")
    heard = tuple(f"{stimulus}/{number}" for number in chunk.context)
    return _Asked(own, f"{stimulus}/{chunk.number}", chunk.prompt, (chunk.prompt.answer,), heard)


def kept(table: pd.DataFrame) -> NDArray[np.bool_]:
    """(R,) bool: trials that their table does not take back (column ``keep``)."""
    if "keep" not in table:
        return np.ones(len(table), dtype=np.bool_)
    return np.asarray(table["keep"].map(lambda value: str(value).lower() not in ("false", "0")), dtype=np.bool_)


def splits_of(request: Request, trials: Trials, examples: Examples) -> tuple[Split, ...]:
    """The folds; repeats averaged, categories or questions not trained on, and training pairs shuffled where that is configured.

    Raises
    ------
    InputError
        When the trials cannot be divided as asked.
    LeakageError
        When a column or list would put one group on both sides.
    """
    settings = request.config.split
    labels, untrained = _labels(request, trials, examples), _untrained(examples, request.config, trials.path)
    try:
        shares = (settings.folds, settings.test, settings.validation)
        folds = make_splits(examples, settings.scheme, *shares, labels, request.config.run.random_seed, amount=settings.amount)
        category = left_out_of(request)
        if category is not None:
            folds = tuple(without(fold, category.taught_by(examples)) for fold in folds)
        if untrained.any():
            folds = tuple(without(fold, untrained) for fold in folds)
        averaged = tuple(average(fold, settings.average) for fold in folds)
        if settings.shuffle_pairs:
            averaged = tuple(shuffled(fold, request.config.run.random_seed) for fold in averaged)
    except LeakageError as error:
        over_time = request.config.window.words
        remedy = "set --group story or --split blocks" if over_time else f"correct {settings.source}, or set --group"
        raise LeakageError(f"{error}: {trials.path} (expected: each {settings.group} in one part; remedy: {remedy})") from error
    except ValueError as error:
        remedy = "change split.group, split.scheme or split.folds, or add trials"
        if request.config.window.words and settings.group == "story" and len(np.unique(examples.group)) == 1:
            remedy = "use --split blocks, which divides one story in time"
        raise InputError(f"the trials cannot be split: {error}", trials.path, remedy=remedy) from error
    if examples.recording.kind == "bold":
        _refuse_few_shifts(averaged, trials.path)
    return averaged


def _untrained(examples: Examples, config: Config, path: Path) -> NDArray[np.bool_]:
    """(n,) texts of kinds that are not trained on, and questions that are left out of training."""
    try:
        return unmixed(examples.prompts, config.text.mix) | held_out(examples.prompts, config.split.leave_out_questions)
    except ValueError as error:
        raise InputError(str(error), path, remedy="name what stands in the table of texts, letter by letter") from error


def _refuse_few_shifts(folds: Sequence[Split], path: Path) -> None:
    """Tell now, and not after training, of test sets whose windows cannot be permuted."""
    for fold in folds:
        try:
            refuse_few(fold.examples.take(fold.test))
        except ValueError as error:
            remedy = "test longer stretches (split.test, split.block), or ask for fewer volumes or shorter contexts"
            raise InputError(f"no permuted brains in fold {fold.fold}: {error}", path, remedy=remedy) from error


def _groups(trials: Trials, stimulus: tuple[str, ...], group: str) -> NDArray[np.str_]:
    if group == "stimulus":
        return np.array(stimulus, dtype=str)
    if group not in trials.table:
        columns = ", ".join(map(str, trials.table.columns))
        raise InputError(
            f"no column {group!r} to group by", trials.path, expected=f"one of stimulus, {columns}", remedy="set --group"
        )
    return np.asarray(trials.table[group].astype(str), dtype=np.str_)


def _labels(request: Request, trials: Trials, examples: Examples) -> NDArray[np.str_] | None:
    settings = request.config.split
    if settings.scheme == "column":
        if trials.heard is not None:
            return column_of(trials, examples.stimulus, examples.rows[:, 0, 0], settings.source, request.config.window.seconds)
        return _column(trials, examples, settings.source)
    if settings.scheme == "list":
        return _listed(request.bids_dir / settings.source, examples)
    return None


def _column(trials: Trials, examples: Examples, source: str) -> NDArray[np.str_]:
    if source not in trials.table:
        raise InputError(
            f"no column {source!r} with the split", trials.path, expected=f"one of {', '.join(map(str, trials.table.columns))}"
        )
    values: Any = trials.table[source].astype(str).to_numpy(str)
    return np.asarray(values[examples.rows[:, 0, 0]])


def _listed(path: Path, examples: Examples) -> NDArray[np.str_]:
    if not path.is_file():
        raise MissingInputError("the list of groups is not there", path, expected="a TSV with columns group and split")
    table = read_tsv(path)
    if not {"group", "split"} <= set(table.columns):
        raise InputError(f"columns {', '.join(table.columns)}", path, expected="columns group and split")
    parts = dict(zip(table["group"].astype(str), table["split"].astype(str), strict=True))
    missing = sorted(set(examples.group) - set(parts))
    if missing:
        raise InputError(f"{len(missing)} group(s) are not in the list, e.g. {missing[0]!r}", path, remedy="add a row for each")
    return np.array([parts[group] for group in examples.group], dtype=str)
