"""``bids_brainlm BIDS_DIR OUTPUT_DIR {participant,group}``.

The command line is resolved to one `Request` before anything heavy is imported, so that ``--help``, ``--version`` and a
mistyped option answer at once. What settings mean is written in `bids_brainlm.config`; this module only adds the options that
say where things are and what is done this time.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bids_brainlm import __version__
from bids_brainlm.cli import exits
from bids_brainlm.cli.arguments import LEVELS, AppCommand, assignment, label, named_path, setting_options, unique
from bids_brainlm.cli.environment import environment
from bids_brainlm.cli.request import refuse_overlap, request_from
from bids_brainlm.config import SLOPPY, Request, call_of, level_of, presets, to_toml

NAME = "bids_brainlm"

_EPILOG = "Settings without an option of their own are reached by --set and --config-file. Exit codes: " + "; ".join(
    f"{code} {text.rstrip('.')}" for code, text in exits.CODES.items()
)

_SLOPPY = ", ".join(f"{name}={value}" for name, value in SLOPPY.items())


@click.command(
    NAME,
    cls=AppCommand,
    params=[*setting_options()],
    context_settings={"max_content_width": 110},
    epilog=_EPILOG,
)
@click.argument("bids_dir", type=click.Path(path_type=Path), required=False, metavar="BIDS_DIR")
@click.argument("output_dir", type=click.Path(path_type=Path), required=False, metavar="OUTPUT_DIR")
@click.argument("level", type=click.Choice(LEVELS), required=False, metavar="{participant|group}")
@click.option(
    "--participant-label",
    type=label("sub-"),
    multiple=True,
    help="Participants to process, with or without sub-; all when empty.",
)
@click.option(
    "-d",
    "--derivatives",
    type=named_path,
    metavar="NAME=PATH",
    multiple=True,
    callback=unique,
    help="Folders of derivatives as name=path (fmriprep=..., betas=...); a bare path goes by its folder name. "
    "Without it, derivatives/fmriprep* of the BIDS folder.",
)
@click.option(
    "-w",
    "--work-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for intermediate results and checkpoints; keep it to resume.  [default: work]",
)
@click.option(
    "--recipe",
    default="cortext",
    show_default=True,
    metavar="NAME|FILE",
    help=f"Preset ({', '.join(presets())}) or TOML file to start from.",
)
@click.option(
    "--config-file",
    type=click.Path(path_type=Path),
    help="TOML file of settings; it wins over the recipe. With a table [call], as logs/*.toml of a run have, it stands for the "
    "positionals too.",
)
@click.option(
    "--set",
    "overrides",
    type=assignment,
    metavar="A.B=VALUE",
    multiple=True,
    callback=unique,
    help="Any setting by its dotted name, e.g. split.folds=4 or phases.0.epochs=3; wins over everything.",
)
@click.option(
    "--bids-filter-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON file of entities that input files must have, as fMRIPrep reads it: query -> entity -> value.",
)
@click.option(
    "--bids-database-dir",
    "--database-path",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the index of input files, which several runs may share; the work folder when not given.",
)
@click.option("--clean-workdir", is_flag=True, help="Take away what earlier runs left in the work folder first.")
@click.option("--reports-only", is_flag=True, help="Write the reports again from the outputs that are there.")
@click.option("--boilerplate-only", is_flag=True, help="Write the method text and its references, and nothing else.")
@click.option("--write-graph", is_flag=True, help="Draw the stages and what they wait for.")
@click.option("--dry-run", is_flag=True, help="Print every setting with its origin, and the plan with all its faults; then stop.")
@click.option("--sloppy", is_flag=True, help=f"TESTING ONLY: results mean nothing. Sets {_SLOPPY}, before the flags.")
@click.option(
    "--use-plugin",
    "--nipype-plugin-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="YAML file with a Nipype plugin and its plugin_args.",
)
@click.option(
    "--resource-monitor", is_flag=True, help="Write time and peak memory of every stage that ran to logs/*_resources.tsv."
)
@click.option(
    "--debug",
    type=click.Choice(["pdb", "all"]),
    multiple=True,
    help="pdb: run in one process and stop in the debugger at a failure; all: that, and -v -v.",
)
@click.option("--skip-bids-validation", is_flag=True, help="Accepted: only files that are used are checked in any case.")
@click.option("--md-only-boilerplate", is_flag=True, help="Accepted: the method text is written as Markdown in any case.")
@click.option("--notrack", is_flag=True, help="Accepted: nothing is ever sent anywhere.")
@click.option("-v", "--verbose", count=True, help="Say more; -v -v adds tracebacks.")
@click.option("-q", "--quiet", count=True, help="Say less.")
@click.version_option(__version__, prog_name=NAME, message="%(prog)s v%(version)s")
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> int:
    """Decode text from single-trial fMRI responses of a BIDS dataset with fMRIPrep derivatives.

    The participant level estimates responses, trains a brain-to-language decoder, decodes held-out trials beside controls
    and writes a derivatives dataset with one report a participant; the group level gathers what the participants wrote.
    """
    ending: exits.Ending = ctx.obj
    ending.tracebacks = given["verbose"] >= 2
    log_to_stderr(given["verbose"] - given["quiet"])
    request = request_from(ctx, given)
    ending.tracebacks |= request.verbosity >= 2
    os.environ.update(environment(request.config, _cache_folder(request, given["dry_run"]), os.environ))
    refuse_overlap(request)
    if given["dry_run"]:
        return _dry_run(request)
    ending.crash_dir = request.out_dir / "logs" / "crashes"
    return _run(request)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code (the console script exits with it)."""
    return exits.run(command, NAME, argv)


def log_to_stderr(verbosity: int) -> None:
    """Messages of the package on stderr, fewer or more than usual."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr, level=logging.WARNING)
    logging.getLogger(NAME).setLevel(level_of(verbosity))


def _cache_folder(request: Request, dry_run: bool) -> Path:
    """Where caches go that have no place of their own; a dry run leaves nothing behind."""
    if not dry_run:
        return request.work_dir / "cache"
    folder = exits.temporary() / f"{NAME}-{os.getpid()}"
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _dry_run(request: Request) -> int:
    """The resolved configuration, then the plan as comments, so that the whole can be used as a ``--config-file``."""
    click.echo(to_toml(request.config, request.origins, call_of(request)))
    text, outcomes = _workflows().dry_run(request)
    click.echo("\n".join(f"# {line}".rstrip() for line in text.splitlines()))
    return exits.report(NAME, outcomes)


def _workflows() -> Any:
    # Imported here and by name: everything heavy hangs below it.
    return importlib.import_module("bids_brainlm.workflows.run")


def _run(request: Request) -> int:
    workflows = _workflows()
    tmp = request.work_dir / "cache" / "tmp"
    if os.environ.get("TMPDIR") == str(tmp):
        importlib.import_module("bids_brainlm.io.files").make_folder(tmp)
        tempfile.tempdir = None
    start = workflows.run_group if request.level == "group" else workflows.run_participants
    outcomes = start(request) or []
    code = exits.report(NAME, outcomes)
    if not code:
        done = f"{len(outcomes)} participant(s) done" if outcomes else f"{request.level} level done"
        click.echo(f"{NAME}: {done}; reports in {request.out_dir}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
