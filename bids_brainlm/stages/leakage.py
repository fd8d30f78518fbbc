"""How much a split lets through, counted before any response is read, for the configured split and for others beside it.

Others are the split by whole groups, blocks of time where words have times, and the one of BrainLLM's released code. What the
leak is worth in figures of merit needs training: `bids_brainlm.stages.worth`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

import pandas as pd

from bids_brainlm.config import Request
from bids_brainlm.core.leakage import Leakage, count
from bids_brainlm.core.types import Split
from bids_brainlm.errors import BrainLMError, MissingInputError, one_or_all
from bids_brainlm.io.betas import read_trials
from bids_brainlm.io.matrices import find_betas
from bids_brainlm.stages.examples import examples_of, splits_of
from bids_brainlm.stages.plan import before_responses, texted_runs
from bids_brainlm.stages.quality import fit_trials
from bids_brainlm.stages.responses import Trials, completed
from bids_brainlm.stages.runs import over_time, runs_of

COLUMNS = {
    "split": "How examples are divided.",
    "training": "Training examples, of all folds and participants.",
    "purged": "Examples left out because they would tell of a held-out one.",
    "test": "Test examples.",
    "shared_volumes": "% of test examples with a volume or response that a training example has too.",
    "shared_targets": "% whose words are the answer of a training example too.",
    "targets_in_contexts": "% whose words stand in a prompt of training.",
}
"""Columns of the table that ``brainlm leakage`` prints."""


def schemes(request: Request) -> dict[str, Request]:
    """What the split is called -> the request with it: the configured one first, each kind once."""
    own = request.config.split
    story = "story" if over_time(request) else own.group
    kinds: list[dict[str, Any]] = [{"scheme": own.scheme, "group": own.group}, {"scheme": "single", "group": story}]
    kinds += [{"scheme": "blocks", "folds": own.folds if own.scheme == "blocks" else -1}] * over_time(request)
    kinds += [{"scheme": "leaky-random"}]
    found: dict[str, Request] = {}
    for kind in kinds:
        config = dataclasses.replace(request.config, split=dataclasses.replace(own, **kind))
        found.setdefault(_title(config.split), dataclasses.replace(request, config=config))
    return found


def honest_and_leaky(request: Request) -> dict[str, Request]:
    """The configured split, or where that leaks on purpose the one by whole groups, and the leaky one."""
    found = schemes(request)
    leaky = [name for name, other in found.items() if other.config.split.scheme == "leaky-random"]
    honest = [name for name in found if name not in leaky]
    return {name: found[name] for name in (honest[0], leaky[0])}


def _title(split: Any) -> str:
    if split.scheme == "blocks":
        return f"blocks of {split.block:g} s"
    return "leaky-random" if split.scheme == "leaky-random" else f"{split.scheme} by {split.group}"


def leakage(request: Request, participants: Sequence[str]) -> tuple[pd.DataFrame, dict[str, BrainLMError]]:
    """What each split of `schemes` lets through, over participants.

    Returns
    -------
    table : DataFrame
        Columns `COLUMNS`, one row a split that can be made.
    without : dict of str to BrainLMError
        Split that cannot be made, or is refused because it would leak by accident -> why.

    Raises
    ------
    BrainLMError
        For faults of the input, of all participants, and where no split can be made.
    """
    trials = _read(request, participants)
    rows: list[dict[str, Any]] = []
    without: dict[str, BrainLMError] = {}
    for name, other in schemes(request).items():
        try:
            rows.append(_row(name, [split for item in trials for split in splits_of(other, item, examples_of(other, item))]))
        except BrainLMError as error:
            without[name] = error
    if not rows:
        raise next(iter(without.values()))
    return pd.DataFrame(rows, columns=list(COLUMNS)), without


def _read(request: Request, participants: Sequence[str]) -> list[Trials]:
    trials, faults = [], []
    for who in participants:
        try:
            trials.append(unread(request, who))
        except BrainLMError as error:
            faults.append(error)
    if faults or not trials:
        raise (
            one_or_all(faults)
            if faults
            else MissingInputError("no participant", request.bids_dir, expected="folders named sub-...")
        )
    return trials


def unread(request: Request, participant: str) -> Trials:
    """Trials, or volumes and words, of a participant, with nothing in the place of responses.

    Raises
    ------
    BrainLMError
        With every fault of tables and names.
    """
    ready = request.derivatives.get("betas")
    if ready is not None:
        found = find_betas(ready, participant)
        return before_responses([completed(read_trials(item.trials), item.path) for item in found], found[0].trials)
    texted, faults = texted_runs(request, runs_of(request, participant))
    if faults or not texted:
        what, expected = f"no run of sub-{participant} has texts", "texts, or words with times, of one run at least"
        raise one_or_all(faults) if faults else MissingInputError(what, request.bids_dir, expected=expected)
    if over_time(request):
        heard = [item.heard for item in texted if item.heard is not None]
        return before_responses([item.table for item in texted], texted[0].run.place, heard)
    return before_responses([fit_trials(request.config.estimate, run, table) for run, table, _ in texted], texted[0].run.place)


def _row(name: str, splits: Sequence[Split]) -> dict[str, Any]:
    total = reduce(add, map(count, splits), Leakage(0, 0, 0, 0))
    return {
        "split": name,
        "training": sum(len(split.train) for split in splits),
        "purged": sum(split.purged for split in splits),
        "test": total.n_test,
        "shared_volumes": _share(total.shared_rows, total),
        "shared_targets": _share(total.shared_targets, total),
        "targets_in_contexts": _share(total.targets_in_contexts, total),
    }


def _share(number: int, total: Leakage) -> float:
    return 100 * number / total.n_test if total.n_test else float("nan")


def as_text(table: pd.DataFrame, without: Mapping[str, object]) -> str:
    """The table for a terminal, its columns explained."""
    shown = table.to_string(index=False, float_format="{:.0f} %".format)
    return "\n".join([shown, "", *(f"{name}: {text}" for name, text in COLUMNS.items()), *_lines(without)])


def _lines(without: Mapping[str, object]) -> list[str]:
    return ["", *(f"{name} cannot be made: {why}" for name, why in without.items())] if without else []
