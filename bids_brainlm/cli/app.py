"""``bids_brainlm BIDS_DIR OUTPUT_DIR {participant,group}``.

The command line is resolved to one `Request` before anything heavy is imported, so that ``--help``, ``--version`` and a
mistyped option answer at once. What the options mean is written in `bids_brainlm.config`; this module only adds those that
say where things are and how much is shown.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bids_brainlm import __version__
from bids_brainlm.cli import exits
from bids_brainlm.cli.arguments import LEVELS, AppCommand, assignment, given_settings, label, named_path, setting_options, unique
from bids_brainlm.config import Config, Request, load, presets, to_toml
from bids_brainlm.errors import MissingInputError

NAME = "bids_brainlm"

_EPILOG = "Settings without an option of their own are reached by --set and --config-file. Exit codes: " + "; ".join(
    f"{code} {text.rstrip('.')}" for code, text in exits.CODES.items()
)


@click.command(
    NAME,
    cls=AppCommand,
    params=[*setting_options()],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=_EPILOG,
)
@click.argument("bids_dir", type=click.Path(path_type=Path))
@click.argument("output_dir", type=click.Path(path_type=Path))
@click.argument("level", type=click.Choice(LEVELS))
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
    default=Path("work"),
    show_default=True,
    help="Folder for intermediate results and checkpoints; keep it to resume.",
)
@click.option(
    "--recipe",
    default="cortext",
    show_default=True,
    metavar="NAME|FILE",
    help=f"Preset ({', '.join(presets())}) or TOML file to start from.",
)
@click.option("--config-file", type=click.Path(path_type=Path), help="TOML file of settings; it wins over the recipe.")
@click.option(
    "--set",
    "overrides",
    type=assignment,
    metavar="A.B=VALUE",
    multiple=True,
    callback=unique,
    help="Any setting by its dotted name, e.g. split.folds=4 or phases.0.epochs=3; wins over everything.",
)
@click.option("--reports-only", is_flag=True, help="Write the reports again from the outputs that are there.")
@click.option("--dry-run", is_flag=True, help="Print the resolved configuration as TOML and stop.")
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
    request = request_from(ctx, given)
    if given["dry_run"]:
        click.echo(to_toml(request.config))
        return 0
    ending.crash_dir = request.out_dir / "logs" / "crashes"
    _prepare_process(request)
    return _run(request)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code (the console script exits with it)."""
    return exits.run(command, NAME, argv)


def request_from(ctx: click.Context, given: dict[str, Any]) -> Request:
    """The whole command line as one object.

    Raises
    ------
    click.UsageError
        When the output or work folder would write into the input.
    MissingInputError
        For a folder that is not there.
    ConfigError
        For a setting that does not exist or cannot have its value.
    """
    config = _located(load(given["recipe"], given["config_file"], given_settings(ctx), given["overrides"]))
    bids_dir, out_dir, work_dir = (given[name].resolve() for name in ("bids_dir", "output_dir", "work_dir"))
    _refuse_writing_into_input(bids_dir, out_dir, work_dir)
    if not bids_dir.is_dir():
        raise _missing("the BIDS folder", bids_dir, "a dataset with dataset_description.json and sub-* folders")
    for name, path in given["derivatives"].items():
        if not path.exists():
            raise _missing(f"what --derivatives calls {name!r}", path, "a folder of derivatives, or a file of betas")
    return Request(
        bids_dir=bids_dir,
        out_dir=out_dir,
        level=given["level"],
        participants=tuple(dict.fromkeys(given["participant_label"])),
        derivatives=given["derivatives"],
        work_dir=work_dir,
        config=config,
        verbosity=given["verbose"] - given["quiet"],
        reports_only=given["reports_only"],
    )


def _located(config: Config) -> Config:
    """Make paths absolute that may also be names: Nipype's nodes run in folders of their own."""
    model = dataclasses.replace(config.model, llm=_absolute(config.model.llm))
    parcels = dataclasses.replace(config.parcels, atlas=_absolute(config.parcels.atlas))
    return dataclasses.replace(config, model=model, parcels=parcels)


def _absolute(name: str) -> str:
    path = Path(name).expanduser()
    return str(path.resolve()) if name and path.exists() else name


def _refuse_writing_into_input(bids_dir: Path, out_dir: Path, work_dir: Path) -> None:
    if out_dir == bids_dir:
        better = bids_dir / "derivatives" / NAME
        raise click.UsageError(f"The output folder is the BIDS folder {bids_dir}; choose another one, e.g. {better}.")
    if work_dir.is_relative_to(bids_dir):
        raise click.UsageError(f"The work folder {work_dir} is inside the BIDS folder {bids_dir}; choose another one with -w.")


def _missing(what: str, path: Path, expected: str) -> MissingInputError:
    remedy = "check the spelling; in a container, bind-mount it"
    return MissingInputError(f"{what} does not exist", path, expected=expected, remedy=remedy)


def _prepare_process(request: Request) -> None:
    """Logging, and the variables that numpy, transformers and templateflow read when they are imported."""
    level = {-2: logging.ERROR, -1: logging.WARNING, 0: logging.INFO}.get(max(request.verbosity, -2), logging.DEBUG)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr, level=logging.WARNING)
    logging.getLogger(NAME).setLevel(level)
    os.environ.update(_environment(request.config))


def _environment(config: Config) -> dict[str, str]:
    threads = {name: str(config.run.omp_nthreads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TEMPLATEFLOW_AUTOUPDATE": "off"}
    return threads | (offline if config.run.offline else {})


def _run(request: Request) -> int:
    # Imported here and by name: everything heavy hangs below it.
    workflows = importlib.import_module("bids_brainlm.workflows.run")
    start = workflows.run_group if request.level == "group" else workflows.run_participants
    outcomes = start(request) or []
    code = exits.report(NAME, outcomes)
    if not code:
        done = f"{len(outcomes)} participant(s) done" if outcomes else f"{request.level} level done"
        click.echo(f"{NAME}: {done}; reports in {request.out_dir}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
