"""The table of facts that the settings name, and the categories of it that are left out of training."""

from __future__ import annotations

from pathlib import Path

from bids_brainlm.config import Request
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.evaluation.metrics import Facts
from bids_brainlm.evaluation.zero_shot import Category
from bids_brainlm.io.files import read_tsv

EXPECTED = "a TSV: a key column, then one column a factor"


def load_facts(request: Request) -> Facts | None:
    """The table of facts that the configuration names.

    Raises
    ------
    InputError
        When it is not there or is ambiguous.
    """
    if not request.config.evaluate.facts:
        return None
    return read_facts(facts_path(request))


def read_facts(path: Path) -> Facts:
    """A table of facts: a key column, then one column a factor.

    Raises
    ------
    InputError
        When it cannot be read, or is ambiguous.
    """
    table = read_tsv(path)
    try:
        return Facts.from_frame(table, str(table.columns[0]))
    except ValueError as error:
        raise InputError(f"the facts cannot be used: {error}", path, expected=EXPECTED) from error


def facts_path(request: Request) -> Path:
    """The table of facts: a path below the dataset, or an absolute one."""
    path = (request.bids_dir / request.config.evaluate.facts).resolve()
    if not path.is_file():
        raise MissingInputError("the table of facts is not there", path, expected=EXPECTED, remedy="check --facts")
    return path


def left_out_of(request: Request) -> Category | None:
    """What ``split.leave_out`` names; None where it names nothing.

    Raises
    ------
    InputError
        When the facts have no such factor or value.
    """
    facts = load_facts(request) if request.config.split.leave_out else None
    if facts is None:
        return None
    try:
        return Category.parsed(request.config.split.leave_out, facts)
    except ValueError as error:
        expected = "factor=label[,label], of the first names in the table"
        raise InputError(f"split.leave_out: {error}", facts_path(request), expected=expected) from error
