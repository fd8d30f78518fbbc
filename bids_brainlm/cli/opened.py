"""What commands have in common that open a finished participant: the output folder, who, where the dataset lies, the device."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


def of_participant(help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: the parameters of `open_participant`; ``help`` says what for the participant is named."""
    parameters = (
        click.argument("output_dir", type=FOLDER),
        click.option("--participant-label", "participant", required=True, help=help),
        click.option("--bids-dir", type=FOLDER, help="Where the dataset lies now.  [default: where it was]"),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where the model runs."),
    )
    return lambda command: reduce(lambda decorated, parameter: parameter(decorated), reversed(parameters), command)


def open_participant(output_dir: Path, participant: str, bids_dir: Path | None, device: str) -> Any:
    """`bids_brainlm.insilico.participant.open_participant`, imported when it is called."""
    module = importlib.import_module("bids_brainlm.insilico.participant")
    return module.open_participant(output_dir, participant, bids_dir=bids_dir, device=device)
