"""``brainlm``: what one needs around an analysis; a dataset with known truth, a small language model for work offline."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bids_brainlm import __version__
from bids_brainlm.cli import ask, compare, cross, describe, exits, leakage, ratings, stimulate, sweep
from bids_brainlm.cli.arguments import AppCommand

NAME = "brainlm"


@click.group(NAME, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True})
@click.version_option(__version__, prog_name=NAME, message="%(prog)s v%(version)s")
@click.option("-v", "--verbose", count=True, help="-v -v shows tracebacks.")
@click.pass_obj
def command(ending: exits.Ending, verbose: int) -> None:
    """Make what a decoding study needs before there are data."""
    ending.tracebacks = verbose >= 2


PARADIGMS = {
    "picture": "bids_brainlm.simulation.dataset",
    "story": "bids_brainlm.simulation.story",
    "reading": "bids_brainlm.simulation.reading",
}
"""What people do in the scanner -> where it is simulated."""


@command.command("simulate", cls=AppCommand)
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--paradigm",
    type=click.Choice(list(PARADIGMS)),
    default="picture",
    help="People look at pictures, hear stories, or read sentences.",
)
@click.option("--participants", type=click.IntRange(min=1), default=2, help="Number of participants.")
@click.option(
    "--runs", type=click.IntRange(min=1), default=None, help="Runs of each participant.", show_default="10; story: one a story"
)
@click.option(
    "--trials", type=click.IntRange(min=1), default=None, help="Trials of each run; not for stories.", show_default="80"
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=None,
    help="Times each stimulus is shown; not for stories.",
    show_default="3; reading: 2",
)
@click.option("--stories", type=click.IntRange(min=3), default=None, help="Number of stories.", show_default="20")
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), default=None, help="Length of a story.", show_default="2.5"
)
@click.option(
    "--surprise",
    type=click.FloatRange(min=0, max=1),
    default=None,
    help="How often a word that could be expected is another one; not for pictures.",
    show_default="0.2",
)
@click.option("--tr", type=click.FloatRange(min=0, min_open=True), default=2.0, help="Repetition time in s.")
@click.option("--snr", type=click.FloatRange(min=0), default=1.0, help="Signal relative to the default; 0 leaves noise alone.")
@click.option("--hrf-variability", type=click.FloatRange(min=0), default=0.1, help="Spread of the HRF's stretch over cortex.")
@click.option("--seed", type=int, default=0, help="Seed of everything random.")
@click.option(
    "--space", type=click.Choice(["fsaverage", "T1w"]), default="fsaverage", help="fsaverage5 surfaces, or a small volume."
)
def simulate(out: Path, paradigm: str, **options: Any) -> None:
    """Write a BIDS dataset OUT with fMRIPrep-style derivatives, texts and known truth."""
    function = importlib.import_module(PARADIGMS[paradigm]).simulate
    given = {name: value for name, value in options.items() if value is not None}
    for name in given.keys() - inspect.signature(function).parameters.keys():
        raise click.UsageError(f"--{name} does not go with --paradigm {paradigm}")
    click.echo(str(function(out, **given)))


@command.command("make-lm", cls=AppCommand)
@click.argument("texts", type=click.Path(path_type=Path, exists=True, dir_okay=False), nargs=-1, required=True)
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--style",
    type=click.Choice(["chat", "continuation"]),
    default="chat",
    help="What is asked of the model: whole texts, or the next words of long ones.",
)
@click.option(
    "--steps", type=click.IntRange(min=1), default=None, help="Training steps.", show_default="2000; continuation: 7200"
)
@click.option("--width", type=click.IntRange(min=4), default=128, help="Embedding width.")
@click.option("--layers", type=click.IntRange(min=1), default=4, help="Layers.")
@click.option("--vocabulary", type=click.IntRange(min=260), default=1200, help="Largest number of tokens.")
@click.option("--seed", type=int, default=0, help="Seed of everything random.")
def make_lm(texts: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Train a small causal language model on TEXTS and write it to the folder OUT, for work without a network.

    TEXTS are TSV files (column text, caption, answer or sentence; optional column question) or files with one text a line.
    """
    language_model = importlib.import_module("bids_brainlm.simulation.language_model")
    sources = [language_model.read_texts(path) for path in texts]
    language_model.make_lm(language_model.balanced(sources), out, **options)
    click.echo(f"language model of {sum(map(len, sources))} texts: {out}")


command.add_command(ask.command)
command.add_command(compare.command)
command.add_command(cross.command)
command.add_command(describe.command)
command.add_command(leakage.command)
command.add_command(ratings.command)
command.add_command(stimulate.command)
command.add_command(sweep.command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code (the console script exits with it)."""
    return exits.run(command, NAME, argv)


if __name__ == "__main__":
    sys.exit(main())
