"""``brainlm describe``: every parcel in words, by what the decoder says more often when it is driven."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from bids_brainlm.cli.arguments import AppCommand
from bids_brainlm.cli.opened import of_participant, open_participant


@click.command("describe", cls=AppCommand)
@of_participant("Participant whose parcels are described.")
@click.option(
    "--pattern",
    type=click.Choice(["main", "uniform"]),
    default="main",
    help="What parcels are driven by: what in their responses differs most from word to word, or 1 on all vertices.",
)
@click.option(
    "--dose", type=click.FloatRange(min=0, min_open=True), default=1.0, help="SD that parcels are driven by, both ways."
)
@click.option("--trials", "n_trials", type=click.IntRange(min=1), default=10, help="Held-out trials that are driven.")
@click.option("--texts", "n_texts", type=click.IntRange(min=2), default=96, help="Training texts whose probability is measured.")
@click.option("--least-uses", type=click.IntRange(min=1), default=10, help="Fewest training examples that use a word.")
@click.option(
    "--captions", "n_captions", type=click.IntRange(min=0), default=4, help="Test trials that texts are generated from."
)
@click.option(
    "--embeddings",
    default="",
    metavar="DIR",
    help="Folder of a sentence encoder for the encoding model.  [default: bags of words]",
)
@click.option("--bootstrap", "n_bootstrap", type=click.IntRange(min=1), default=200, help="Samples behind stabilities.")
@click.option("--permutations", "n_permutations", type=click.IntRange(min=1), default=5000, help="Exchanges behind p of fits.")
@click.option("--fold", type=click.IntRange(min=0), default=0, help="Fold whose decoder is driven.")
@click.option("--seed", type=int, default=0, help="Seed of everything random.")
def command(output_dir: Path, participant: str, bids_dir: Path | None, device: str, **settings: Any) -> None:
    """Name every parcel of a trained participant in words.

    OUTPUT_DIR is what bids_brainlm wrote. A parcel has a name where what was said predicts its held-out responses; it is
    the word that driving the parcel makes likelier, more than driving other parcels does. These are effects on the model.
    """
    opened = open_participant(output_dir, participant, bids_dir, device)
    module = importlib.import_module("bids_brainlm.insilico.describe")
    described = importlib.import_module("bids_brainlm.insilico.described")
    given = module.Settings(**settings)
    found = module.describe(opened, given)
    for line in described.verdict(found):
        click.echo(line)
    if found.named.any():
        click.echo(described.listed(found))
    page = importlib.import_module("bids_brainlm.reports.described").write_page
    written = page(found, opened.request.out_dir, opened.label, opened.trials.geometry)
    for path in [*described.write(found, opened, given), written]:
        click.echo(str(path))
