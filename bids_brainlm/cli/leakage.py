"""``brainlm leakage``: what a split lets through from training to test, and what that is worth.

It takes the settings of ``bids_brainlm``, so that a command that is to be run, or was, can be asked about. Counting reads names
and tables alone; ``--train`` needs responses, which are made, where they are not there yet, in the output folder.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from pathlib import Path
from typing import Any

import click

from bids_brainlm.cli import app, exits
from bids_brainlm.cli.arguments import AppCommand
from bids_brainlm.cli.environment import environment
from bids_brainlm.cli.request import refuse_overlap, request_from
from bids_brainlm.config import Request

SHARED = (
    "participant_label",
    "derivatives",
    "work_dir",
    "recipe",
    "config_file",
    "overrides",
    "bids_filter_file",
    "bids_database_dir",
    "sloppy",
    "verbose",
    "quiet",
)
"""Options of ``bids_brainlm`` that are no settings and mean the same here."""

ABSENT = ("reports_only", "boilerplate_only", "clean_workdir", "write_graph", "resource_monitor", "use_plugin", "debug")
"""Options that mean nothing here."""


@click.command(
    "leakage", cls=AppCommand, params=[item for item in app.command.params if item.name in SHARED or "__" in (item.name or "")]
)
@click.argument("bids_dir", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Output folder whose responses --train reads, made where they lack.  [default: leakage in the work folder]",
)
@click.option("--train", is_flag=True, help="Train the same model under the configured split and under the leaky one.")
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> int:
    """Count what the split of a dataset lets through from training to test, beside other splits of it.

    Options are those of bids_brainlm.
    """
    # How many windows are used would be told once a split.
    app.log_to_stderr(given["verbose"] - given["quiet"] - 1)
    out = given.pop("out") or Path(given["work_dir"] or "work") / "leakage"
    absent = dict.fromkeys(ABSENT, ()) | {"level": "participant", "output_dir": out}
    request = request_from(ctx, given | absent)
    os.environ.update(environment(request.config, request.work_dir / "cache", os.environ))
    refuse_overlap(request)
    stage = importlib.import_module("bids_brainlm.stages.leakage")
    participants = request.participants or tuple(importlib.import_module("bids_brainlm.io.layout").participants(request.bids_dir))
    table, without = stage.leakage(request, participants)
    # What is wrong with the configured split comes last, as an error.
    own = next(iter(stage.schemes(request)))
    click.echo(stage.as_text(table, {name: why for name, why in without.items() if name != own}))
    if own in without:
        raise without[own]
    return _train(request, participants, stage.honest_and_leaky(request)) if given["train"] else 0


def _train(request: Request, participants: tuple[str, ...], schemes: dict[str, Request]) -> int:
    if "betas" not in request.derivatives:
        run = dataclasses.replace(request.config.run, skip=("train", "reports"))
        prepared = dataclasses.replace(request, config=dataclasses.replace(request.config, run=run), participants=participants)
        code = exits.report("brainlm leakage", importlib.import_module("bids_brainlm.workflows.run").run_participants(prepared))
        if code:
            return code
    stage = importlib.import_module("bids_brainlm.stages.worth")
    click.echo("")
    click.echo(stage.as_text([stage.worth(schemes, who) for who in participants]))
    return 0
