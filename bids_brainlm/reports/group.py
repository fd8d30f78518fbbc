"""The group level: what participants wrote, of one output folder or of several, in one table and on one page.

A *member* is a participant of some output folder. Folders beside the own one are those among ``--derivatives`` that this program
wrote; their participants are called by the name of the folder and their own (``second sub-01``). The table in ``phenotype`` is of
the dataset itself and has its participants alone.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bids_brainlm import __version__
from bids_brainlm.config import Request, to_toml
from bids_brainlm.errors import MissingInputError
from bids_brainlm.evaluation.group import GROUP_COLUMNS, over_participants
from bids_brainlm.evaluation.table import phenotype, primary_of
from bids_brainlm.io.files import write_json, write_text, write_tsv
from bids_brainlm.reports import panels
from bids_brainlm.reports.doubts import doubts_of
from bids_brainlm.reports.facts import n_permutations
from bids_brainlm.reports.methods import MethodFacts, method_text
from bids_brainlm.reports.page import GroupContent, group_page
from bids_brainlm.reports.sheets import group_sheet
from bids_brainlm.reports.stories import read_group
from bids_brainlm.reports.tables import as_numbers, dataset_name, metrics_sidecar, read_table
from bids_brainlm.stages.outputs import MARKS, describe, find_beh

STAMPS = "sub-*_evaluate.json"
"""Stamps that tell an output folder of this program, and whose results it holds."""


@dataclass(frozen=True)
class Member:
    """A participant of an output folder.

    Parameters
    ----------
    title : str
        What the participant is called on the page: ``sub-01``, or ``second sub-01`` of another folder.
    label : str
    request : Request
        With that output folder.
    """

    title: str
    label: str
    request: Request

    @property
    def metrics(self) -> pd.DataFrame | None:
        table = read_table(find_beh(self.request, self.label, "metrics"))
        return None if table is None else as_numbers(table)

    @property
    def marks(self) -> dict[str, Any]:
        return metrics_sidecar(self.request, self.label)


def write_group(request: Request, labels: Sequence[str]) -> dict[str, str]:
    """Write ``phenotype/decodingmetrics.tsv``, ``group.tsv`` and ``group.html`` from what the participants wrote.

    Parameters
    ----------
    request : Request
    labels : sequence of str
        Participants that are to be in it.

    Returns
    -------
    dict of str to str
        Participant without results -> what is missing.

    Raises
    ------
    MissingInputError
        When no participant has a metrics table.
    """
    members = [Member(f"sub-{who}", who, request) for who in labels]
    found = {member.title: member.metrics for member in members}
    missing = [title for title, table in found.items() if table is None]
    if len(missing) == len(members):
        raise MissingInputError("no participant has metrics", request.out_dir, remedy="run the participant level first")
    others = other_members(request)
    tables = found | {member.title: member.metrics for member in others}
    summaries = {title: table for title, table in tables.items() if table is not None}
    members = [member for member in (*members, *others) if member.title in summaries]
    wrong = _made_wrong(members)
    marks = {**dict.fromkeys(wrong, True), "Warning": " ".join(wrong.values())} if wrong else {}
    _write_phenotype(request.out_dir, {title: table for title, table in summaries.items() if title in found}, marks)
    together = over_participants(summaries, seed=request.config.run.random_seed)
    write_tsv(request.out_dir / "group.tsv", together)
    tested = f"Figures of {len(summaries)} participants together; tests flip the signs of whole participants."
    folders = {name: str(path) for name, path in _others(request).items()}
    marks |= {"WithoutResults": missing, **({"OtherOutputs": folders} if folders else {})}
    describe(request.out_dir / "group.tsv", tested, GROUP_COLUMNS, marks)
    page = _page(request, members, summaries, together, missing, wrong)
    write_text(request.out_dir / "group.html", group_page(page))
    hint = "remedy: run the participant level for it; its log says how it ended"
    return {who[4:]: f"no results of {who}: {request.out_dir / who} ({hint})" for who in missing}


def other_members(request: Request) -> list[Member]:
    """Participants of the output folders among ``--derivatives`` that have results, by folder and label."""
    out = []
    for name, folder in _others(request).items():
        elsewhere = dataclasses.replace(request, out_dir=folder)
        stamps = sorted((folder / "logs" / "stages").glob(STAMPS))
        labels = [path.name.removeprefix("sub-").removesuffix("_evaluate.json") for path in stamps]
        out += [Member(f"{name} sub-{label}", label, elsewhere) for label in labels]
    return out


def _others(request: Request) -> dict[str, Path]:
    """Name -> other output folder of this program."""
    folders = {name: path for name, path in request.derivatives.items() if path != request.out_dir}
    return {name: path for name, path in folders.items() if any((path / "logs" / "stages").glob(STAMPS))}


def _write_phenotype(out_dir: Path, summaries: Mapping[str, pd.DataFrame], marks: Mapping[str, Any]) -> None:
    table, path = phenotype(summaries), out_dir / "phenotype" / "decodingmetrics.tsv"
    write_tsv(path, table)
    write_json(path.with_suffix(".json"), {**marks, **_phenotype_columns(list(table.columns))})


def _phenotype_columns(columns: list[str]) -> dict[str, Any]:
    tree: dict[str, Any] = {"MeasurementToolMetadata": {"Description": f"bids_brainlm {__version__}"}}
    for name in columns:
        metric, _, condition = name.rpartition("_")
        texts = {"participant_id": "Participant.", "p_value": "p of the primary test.", "n_texts": "Number of decoded texts."}
        tree[name] = {"Description": texts.get(name, f"{metric or name}, condition {condition}.")}
    return tree


def _page(
    request: Request,
    members: Sequence[Member],
    summaries: Mapping[str, pd.DataFrame],
    together: pd.DataFrame,
    missing: Sequence[str],
    wrong: Mapping[str, str],
) -> GroupContent:
    counts = {member.title: n_permutations(member.request, member.label) for member in members}
    tests = {title: primary_of(table, counts[title]) for title, table in summaries.items()}
    outputs = ", ".join([request.out_dir.name, *_others(request)])
    own = [member for member in members if member.request is request]
    return GroupContent(
        title="Group",
        dataset=dataset_name(request.bids_dir),
        version=__version__,
        doubts=(*wrong.values(), *(doubt for member in members for doubt in _doubts(member, summaries[member.title]))),
        warnings=(f"without results: {', '.join(missing)}",) if missing else (),
        overview=(("Participants", str(len(summaries))), ("Output", outputs)),
        metrics=(panels.group(summaries),),
        sheets=tuple(filter(None, (group_sheet(together),))),
        stories=read_group(request, [member.label for member in own]),
        methods=method_text(
            MethodFacts(
                version=__version__, metrics=request.config.evaluate.metrics, n_permutations=request.config.decode.permutations
            )
        ),
        settings=to_toml(request.config),
        tests={title: test for title, test in tests.items() if test is not None},
        pages=_pages(request.out_dir, members),
    )


def _pages(out_dir: Path, members: Sequence[Member]) -> dict[str, str]:
    """Title -> where the report of a member lies, seen from the page of the group."""
    paths = {member.title: member.request.out_dir / f"sub-{member.label}.html" for member in members}
    return {title: Path(os.path.relpath(path, out_dir)).as_posix() for title, path in paths.items() if path.is_file()}


def _made_wrong(members: Sequence[Member]) -> dict[str, str]:
    """What was made wrong on purpose, and whose: key of sidecars -> what it means."""
    marks = {member.title: member.marks for member in members}
    found = {key: [title for title, tree in marks.items() if tree.get(key)] for key in MARKS}
    return {key: f"{', '.join(whose)}: {MARKS[key]}" for key, whose in found.items() if whose}


def _doubts(member: Member, summary: pd.DataFrame) -> list[str]:
    """Doubts about a participant, but for what was made wrong on purpose."""
    decoded, marks = read_table(find_beh(member.request, member.label, "decoded")), member.marks | dict.fromkeys(MARKS, False)
    return [f"{member.title}: {doubt}" for doubt in doubts_of(summary, decoded, marks)]
