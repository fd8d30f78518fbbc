"""Tables that the settings name: where they are, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

from bids_brainlm.config import Request
from bids_brainlm.errors import BrainLMError, MissingInputError, collecting
from bids_brainlm.io.texts import inside
from bids_brainlm.stages.baselines import corpus
from bids_brainlm.stages.evaluate import text_models
from bids_brainlm.stages.facts import facts_path
from bids_brainlm.stages.runs import over_time


def table_faults(request: Request) -> list[BrainLMError]:
    """What is wrong with the tables that the settings name, wherever they are used."""
    faults: list[BrainLMError] = []
    for name in _named_tables(request):
        with collecting(faults):
            _inside(request, name)
    with collecting(faults):
        if request.config.evaluate.facts:
            facts_path(request)
    with collecting(faults):
        text_models(request)
    with collecting(faults):
        corpus(request)
    return faults


def _named_tables(request: Request) -> list[str]:
    return [name for name in (*request.config.text.table, request.config.split.source) if name.endswith(".tsv")]


def tables_of(request: Request) -> list[Path]:
    """Tables of texts and of splits, and facts by which examples are left out: their content bears on what is trained."""
    named = [_inside(request, name) for name in _named_tables(request)]
    named += [facts_path(request)] if request.config.split.leave_out else []
    if over_time(request):
        return named
    # A table of texts that is not named is looked for among these.
    return named if request.config.text.table else [*named, *sorted((request.bids_dir / "stimuli").glob("*.tsv"))]


def _inside(request: Request, name: str) -> Path:
    path = inside(request.bids_dir, Path(name))
    if not path.is_file() and not path.is_dir():
        raise MissingInputError(
            "a table that the settings name is not there", path, remedy="check --texts, --facts and split.source"
        )
    return path
