"""Two or more output folders on the same test items: tables of theirs joined, differences written.

The first folder is the *baseline*, and every other one is compared with it. Items are joined by their ids within a participant;
those that only one of both has, or that have another right text there, are counted and left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.evaluation.cider import Frequencies
from bids_brainlm.evaluation.metrics import chosen
from bids_brainlm.evaluation.paired import COMPARE_COLUMNS, Key, category_scores, item_scores, over_participants, paired
from bids_brainlm.evaluation.resources import available
from bids_brainlm.evaluation.table import Predictions, Sampling
from bids_brainlm.evaluation.zero_shot import Category
from bids_brainlm.io.files import read_tsv, write_tsv
from bids_brainlm.stages.facts import read_facts
from bids_brainlm.stages.outputs import describe

DECODED = "_desc-decoded_beh.tsv"
EVIDENCE = {"specificity": "specificity", "information": "information_bits"}
"""Column of the table of evidence -> what it is called among the metrics."""


@dataclass(frozen=True)
class Joined:
    """How many items two outputs of a participant have in common, and what was left out.

    Parameters
    ----------
    participant, output : str
    both, only_baseline, only_output, other_text : int
        Items of both that are compared, those that one alone has, and those whose right texts differ.
    """

    participant: str
    output: str
    both: int
    only_baseline: int
    only_output: int
    other_text: int

    def __str__(self) -> str:
        only = f"left out: {self.only_baseline} of the baseline alone, {self.only_output} of {self.output} alone"
        return f"{self.participant}: {self.both} items of both; {only}, {self.other_text} with another right text"


@dataclass(frozen=True)
class Scoring:
    """What items are scored by.

    Parameters
    ----------
    metrics : tuple of str
        Registered metrics of texts.
    facts : Path, optional
        Table of facts, for the metric ``facts`` and for ``category``.
    category : str
        ``factor=label[,label]`` whose hits and false alarms are counted; none when empty.
    """

    metrics: tuple[str, ...]
    facts: Path | None = None
    category: str = ""

    def of(self, predictions: Predictions, evidence: pd.DataFrame | None) -> dict[Key, NDArray[np.float64]]:
        """(metric, condition) -> (n,) values of the items of the true condition."""
        facts, metrics = None if self.facts is None else read_facts(self.facts), chosen(self.metrics)
        resources = available({name for metric in metrics for name in metric.context})
        resources["frequencies"] = Frequencies.of(predictions.references)
        out = item_scores(predictions, metrics, facts, resources)
        if evidence is not None:
            own = evidence.set_index("trial_id").reindex(predictions.of("true").table["trial_id"])
            out |= {(name, "true"): own[column].to_numpy(float) for column, name in EVIDENCE.items() if column in own}
        if facts is not None and self.category:
            try:
                out |= category_scores(predictions, Category.parsed(self.category, facts))
            except ValueError as error:
                raise InputError(f"no such category: {error}", self.facts or "", expected="factor=label[,label]") from error
        return out


def compare(folders: Sequence[Path], scoring: Scoring, sampling: Sampling) -> tuple[pd.DataFrame, list[Joined], list[str]]:
    """Paired differences of outputs from the first one.

    Parameters
    ----------
    folders : sequence of Path
        Written by ``bids_brainlm``; the first is the baseline.
    scoring : Scoring
    sampling : Sampling

    Returns
    -------
    DataFrame
        Columns `COMPARE_COLUMNS`: participants, then all of them together where there are several.
    list of Joined
        One a participant and output.
    list of str
        Participants and tasks that were left out, and why.

    Raises
    ------
    MissingInputError
        When a folder has no decoded texts.
    InputError
        When a folder is named twice, two outputs have no item in common, or a table cannot be used.
    """
    if len({folder.resolve() for folder in folders}) < max(len(folders), 2):
        raise InputError("an output is compared with itself", folders[0], expected="two or more different output folders")
    names, tables = labels_of(folders), [_decoded(folder) for folder in folders]
    parts: list[pd.DataFrame] = []
    joined: list[Joined] = []
    left_out: list[str] = []
    for name, other in zip(names[1:], tables[1:], strict=True):
        left_out += _alone(tables[0], other, name)
        found = [_pair(who, name, tables[0][who], other[who], scoring, sampling) for who in tables[0] if who in other]
        joined += [item for _, item in found]
        if not any(item.both for _, item in found):
            raise InputError(f"no test item in common with {folders[0]}", folders[names.index(name)], expected=_SAME)
        parts += [table for table, _ in found]
    table = pd.concat(parts, ignore_index=True)
    several = over_participants(table, sampling) if table["participant"].nunique() > 1 else table.iloc[:0]
    return pd.concat([part for part in (table, several) if len(part)], ignore_index=True), joined, left_out


_SAME = "outputs of the same dataset and split, with the same texts"


def labels_of(folders: Sequence[Path]) -> list[str]:
    """What outputs are called: by the parts of their paths from the first one on in which they differ.

    >>> labels_of([Path("runs/a/out"), Path("runs/b/out")]), labels_of([Path("one"), Path("two")])
    (['a/out', 'b/out'], ['one', 'two'])
    """
    parts = [folder.resolve().parts for folder in folders]
    depth = next((k for k in range(1, max(map(len, parts)) + 1) if len({p[-k:] for p in parts}) == len(parts)), 1)
    return ["/".join(part[-depth:]) for part in parts]


def write(path: Path, table: pd.DataFrame, joined: Sequence[Joined], baseline: str) -> list[Path]:
    """The table of differences and its sidecar."""
    counts = {"Baseline": baseline, "Items": [str(item) for item in joined]}
    return [write_tsv(path, table), describe(path, "Paired differences of outputs.", COMPARE_COLUMNS, counts)]


def _decoded(folder: Path) -> dict[str, Path]:
    """``sub-01_task-look`` -> its table of decoded texts."""
    found = {path.name.removesuffix(DECODED): path for path in sorted(folder.glob(f"sub-*/beh/*{DECODED}"))}
    if not found:
        expected = "an output folder of bids_brainlm with sub-*/beh/*_desc-decoded_beh.tsv"
        raise MissingInputError("no decoded texts", folder, expected=expected, remedy="run the participant level first")
    return found


def _alone(first: Mapping[str, Path], second: Mapping[str, Path], name: str) -> Iterator[str]:
    yield from (f"{who}: left out, not in {name}" for who in first if who not in second)
    yield from (f"{who}: left out, in {name} alone" for who in second if who not in first)


def _pair(who: str, name: str, first: Path, second: Path, scoring: Scoring, sampling: Sampling) -> tuple[pd.DataFrame, Joined]:
    """Differences of one participant, from both tables of decoded texts."""
    participant = who.partition("_")[0]
    both = [_predictions(path) for path in (first, second)]
    texts = [part.of("true").table.set_index("trial_id")["text_true"] for part in both]
    common = [item for item in texts[0].index if item in texts[1].index]
    same = [item for item in common if texts[0][item] == texts[1][item]]
    counts = (len(same), len(texts[0]) - len(common), len(texts[1]) - len(common), len(common) - len(same))
    joined = Joined(participant, name, *counts)
    if not same:
        return pd.DataFrame(columns=list(COMPARE_COLUMNS)), joined
    shared = [_shared(part, same) for part in both]
    scores = [scoring.of(part, _evidence(path)) for part, path in zip(shared, (first, second), strict=True)]
    trues = [part.of("true") for part in shared]
    # The coarser grouping: what either of both kept together must not be torn apart.
    groups = min((part.groups for part in trues), key=lambda own: np.unique(own).size)
    n_folds = max(part.table["fold"].nunique() for part in trues)
    table = paired(scores[0], scores[1], groups, sampling, n_folds)
    return table.assign(participant=participant, output=name)[list(COMPARE_COLUMNS)], joined


def _predictions(path: Path) -> Predictions:
    try:
        return Predictions(read_tsv(path))
    except ValueError as error:
        raise InputError(f"the decoded texts cannot be used: {error}", path, remedy="run the participant level again") from error


def _shared(predictions: Predictions, items: Sequence[str]) -> Predictions:
    """Rows of some items, in their order."""
    rank = {item: i for i, item in enumerate(items)}
    table = predictions.table[predictions.table["trial_id"].isin(rank)]
    return Predictions(table.sort_values("trial_id", key=lambda column: column.map(rank), kind="stable"))


def _evidence(decoded: Path) -> pd.DataFrame | None:
    path = decoded.with_name(decoded.name.replace(DECODED, "_desc-evidence_beh.tsv"))
    return read_tsv(path) if path.is_file() else None
