"""``brainlm stimulate``: what the decoder says when a pattern is added to held-out responses."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

import click

from bids_brainlm.cli import app
from bids_brainlm.cli.arguments import AppCommand
from bids_brainlm.cli.opened import of_participant, open_participant

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def _doses(ctx: click.Context, param: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        doses = tuple(dict.fromkeys(float(item) for item in value.split(",")))
    except ValueError as error:
        raise click.BadParameter("expected numbers with commas between them, such as -2,-1,0,1,2") from error
    if len(doses) < 2:
        raise click.BadParameter("expected two different doses at least; a slope needs them")
    return doses


@click.command("stimulate", cls=AppCommand)
@of_participant("Participant whose decoder is driven.")
@click.option(
    "--site",
    "asked",
    multiple=True,
    required=True,
    metavar="[NAME=]KIND:WHAT",
    help="What is driven: contrast:FACTOR[=VALUE], parcels:NAME[,NAME] (wildcards), map:FILE or vertices:FILE.",
)
@click.option(
    "--words",
    multiple=True,
    metavar="FACTOR=WORD,WORD",
    help="What is read; other names of a word after |.  [default: all values of the facts]",
)
@click.option("--facts", type=_FILE, help="TSV of facts.  [default: that of the run]")
@click.option("--doses", default="-2,-1,0,1,2", callback=_doses, help="Standard deviations, with commas between them.")
@click.option(
    "--top", type=click.IntRange(min=0), default=0, help="Vertices of a site, the largest of its map; 0 uses --threshold."
)
@click.option(
    "--threshold", type=float, default=3.0, help="Value of a map (t of a contrast) above which a vertex belongs to a site."
)
@click.option("--within", multiple=True, metavar="PARCEL", help="Parcels that sites from maps lie in (wildcards).")
@click.option(
    "--localizer-runs",
    multiple=True,
    metavar="RUN",
    help="Held-out runs of contrasts.  [default: half of the held-out stimuli; the other half is driven]",
)
@click.option("--trials", type=click.IntRange(min=0), default=16, help="Held-out trials that are driven; 0 for all.")
@click.option("--nulls", type=click.IntRange(min=0), default=500, help="Null patches that a site is compared with.")
@click.option("--captions", type=click.IntRange(min=0), default=4, help="Trials that texts are generated of, at every dose.")
@click.option("--reverse", multiple=True, metavar="WORD", help="Find a pattern that makes the model say this word.")
@click.option("--fold", type=click.IntRange(min=0), default=0, help="Fold whose decoder is driven.")
@click.option("--batch-size", type=click.IntRange(min=1), default=16, help="Brains that are computed together.")
@click.option("--seed", type=int, default=0, help="Seed of everything random.")
def command(
    output_dir: Path,
    participant: str,
    asked: tuple[str, ...],
    words: tuple[str, ...],
    facts: Path | None,
    bids_dir: Path | None,
    device: str,
    reverse: tuple[str, ...],
    localizer_runs: tuple[str, ...],
    **given: Any,
) -> None:
    """Drive sites of a trained participant, and read what becomes likelier.

    OUTPUT_DIR is what bids_brainlm wrote. A pattern is added to held-out responses, in standard deviations; what is found are
    effects on the model.
    """
    app.log_to_stderr(0)
    logging.getLogger("bids_brainlm.insilico").setLevel(logging.INFO)
    insilico = {name: importlib.import_module(f"bids_brainlm.insilico.{name}") for name in _MODULES}
    opened = open_participant(output_dir, participant, bids_dir, device)
    known = importlib.import_module("bids_brainlm.stages.facts")
    table = known.read_facts(facts) if facts else known.load_facts(opened.request)
    fold, seed = given["fold"], given["seed"]
    localizer, held = insilico["sites"].independent(opened, localizer_runs, fold, seed)
    if not any("contrast:" in text for text in asked):
        held = None
    cut = insilico["sites"].Cut(given.pop("top"), given.pop("threshold"), given.pop("within"))
    sites = insilico["requested"].sites_from(asked, opened, table, localizer, cut, fold)
    vocabulary = insilico["requested"].vocabulary_from(words, table)
    for word in reverse:
        if not any(word in values for values in vocabulary.values()):
            raise click.UsageError(f"--reverse {word}: no such word")
    read = insilico["stimulation"].words_in(opened, vocabulary, fold)
    how = insilico["stimulation"].Experiment(**given)
    found = insilico["stimulation"].stimulate(opened, sites, read, held, how)
    back = insilico["stimulation"].backwards(opened, [word for word in read if word.label in reverse], held, how)
    for line in found.verdict():
        click.echo(line)
    for path in insilico["stimulated"].write(found, opened, back):
        click.echo(str(path))
    click.echo(str(importlib.import_module("bids_brainlm.reports.insilico").write_page(found, opened, back)))


_MODULES = ("sites", "requested", "stimulation", "stimulated")
