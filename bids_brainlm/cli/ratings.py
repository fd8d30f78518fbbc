"""``brainlm ratings``: a sheet of decoded texts for people to rate who do not know where they come from, and back."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from bids_brainlm.cli.arguments import AppCommand
from bids_brainlm.config import Evaluate

_SHEET = click.Path(path_type=Path, dir_okay=False)


@click.command("ratings", cls=AppCommand)
@click.argument("output_dir", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--participant-label", "participant", required=True, help="Participant whose texts are rated.")
@click.option("--export", type=_SHEET, metavar="FILE.tsv", help="Write the sheet; its key stays in the output folder.")
@click.option(
    "--import", "sheets", type=_SHEET, multiple=True, metavar="FILE.tsv", help="Read sheets with ratings, one a person."
)
@click.option("--trials", type=click.IntRange(min=0), default=0, help="Trials drawn at random for the sheet; 0 for all.")
@click.option("--bootstrap", type=click.IntRange(min=1), default=Evaluate().bootstrap, help="Bootstrap samples of the intervals.")
@click.option("--seed", type=int, default=0, help="Seed of everything random.")
def command(
    output_dir: Path,
    participant: str,
    export: Path | None,
    sheets: tuple[Path, ...],
    trials: int,
    bootstrap: int,
    seed: int,
) -> None:
    """Have decoded texts rated by people: --export a sheet, and --import it with the ratings.

    The sheet does not tell from which brain a text was decoded. Ratings are whole numbers from 0 (has nothing to do with it) to 4
    (says the same). Their means per condition go to sub-*/beh/*_desc-ratings_beh.tsv.
    """
    if (export is None) == (not sheets):
        raise click.UsageError("either --export or --import")
    stage = importlib.import_module("bids_brainlm.stages.ratings")
    if export is not None:
        for path in stage.export_sheet(output_dir, participant, export, seed, trials):
            click.echo(str(path))
        return
    sampling = importlib.import_module("bids_brainlm.evaluation.table").Sampling(bootstrap, seed=seed)
    table, written = stage.import_sheets(output_dir, participant, sheets, sampling)
    click.echo(table.to_string(index=False, float_format="{:.3f}".format, na_rep="n/a"))
    click.echo(str(written[0]))
