"""``brainlm cross``: a participant's texts under the responses of other participants to the same stimuli."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from bids_brainlm.cli.arguments import AppCommand
from bids_brainlm.cli.opened import of_participant, open_participant


@click.command("cross", cls=AppCommand)
@of_participant("Participant whose decoder and texts are used.")
@click.option("--others", multiple=True, required=True, metavar="LABEL", help="Participants whose responses are read.")
@click.option("--seed", type=int, default=0, help="Draws responses to stimuli that were shown several times, and partners.")
def command(output_dir: Path, participant: str, others: tuple[str, ...], bids_dir: Path | None, seed: int, device: str) -> None:
    """Score the held-out texts of a participant under the wrong participant's responses.

    OUTPUT_DIR is what bids_brainlm wrote of all of them. Only held-out stimuli that both saw are scored.
    """
    cross = importlib.import_module("bids_brainlm.insilico.cross")
    pandas = importlib.import_module("pandas")
    own = open_participant(output_dir, participant, bids_dir, device)
    lenders = [open_participant(output_dir, label, bids_dir, device) for label in others]
    tables = []
    for other in lenders:
        found = cross.crossed(own, other, seed)
        found.insert(0, "other", f"sub-{other.label}")
        tables.append(found)
    table = pandas.concat(tables, ignore_index=True)
    click.echo(table.drop(columns="weights").to_string(index=False, float_format="{:.3f}".format, na_rep="n/a"))
    for path in cross.write(table, own, lenders, seed):
        click.echo(str(path))
