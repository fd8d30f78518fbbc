"""``brainlm compare``: outputs of two or more runs on the same test items, or one output beside what simulated data hold."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from bids_brainlm.cli.arguments import AppCommand
from bids_brainlm.cli.opened import FOLDER
from bids_brainlm.config import Evaluate

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("compare", cls=AppCommand)
@click.argument("folders", type=FOLDER, nargs=-1, required=True, metavar="OUTPUT_DIR OUTPUT_DIR... | BIDS_DIR OUTPUT_DIR")
@click.option("--table", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.tsv", help="Write the table, too.")
@click.option("--metrics", multiple=True, default=Evaluate().metrics, help="Metrics of generated text.")
@click.option("--facts", type=_FILE, help="TSV of facts, for the metric facts and for --category.")
@click.option(
    "--category",
    default="",
    metavar="FACTOR=LABEL[,LABEL]",
    help="Count how often texts name a category, with it and without it: what an output that was trained without it lacks.",
)
@click.option("--bootstrap", type=click.IntRange(min=1), default=Evaluate().bootstrap, help="Bootstrap samples of the intervals.")
@click.option("--seed", type=int, default=0, help="Seed of everything random.")
def command(
    folders: tuple[Path, ...],
    table: Path | None,
    metrics: tuple[str, ...],
    facts: Path | None,
    category: str,
    bootstrap: int,
    seed: int,
) -> None:
    """Paired differences of outputs on the same test items; the first one is the baseline.

    With a dataset of brainlm simulate as the first folder: facts decoded from it beside linear readouts and an observer that
    knows the true patch maps.
    """
    if len(folders) < 2:
        raise click.UsageError("two folders at least")
    if (folders[0] / "derivatives" / "simulation").is_dir():
        return _beside_the_observer(folders)
    if category and facts is None:
        raise click.UsageError("--category needs --facts")
    stage = importlib.import_module("bids_brainlm.stages.compare")
    sampling = importlib.import_module("bids_brainlm.evaluation.table").Sampling(bootstrap, seed=seed)
    found, joined, left_out = stage.compare(folders, stage.Scoring(metrics, facts, category), sampling)
    baseline = stage.labels_of(folders)[0]
    for line in [f"baseline: {baseline}", *map(str, joined), *left_out]:
        click.echo(line)
    click.echo(found.to_string(index=False, float_format="{:.3f}".format, na_rep="n/a"))
    if table is not None:
        stage.write(table, found, [*joined, *left_out], baseline)
    return None


def _beside_the_observer(folders: tuple[Path, ...]) -> None:
    if len(folders) > 2:
        raise click.UsageError("a simulated dataset is followed by one output folder")
    table = importlib.import_module("bids_brainlm.simulation.comparison").compare(*folders)
    click.echo("Share of facts right on held-out trials (chance 1/6):")
    click.echo(table.to_string(index=False, float_format="{:.2f}".format))
