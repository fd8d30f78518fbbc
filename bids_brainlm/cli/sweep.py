"""``brainlm sweep``: the same analysis under many settings; one command line each, run here or printed for a scheduler.

A *point* is one value of every setting that is swept: it has a name, a command line of ``bids_brainlm`` and an output folder of
its own below the folder of the sweep. All points share a work folder. Where none of them changes what responses are made of, a
line before them makes the responses once, and every point reads these.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bids_brainlm.cli import app, exits
from bids_brainlm.cli.arguments import AppCommand, unique
from bids_brainlm.cli.request import request_from
from bids_brainlm.config import Config, Request, settings
from bids_brainlm.errors import ConfigError, InputError, MissingInputError

RESPONSES = "responses"
"""Name of the output folder that holds what all points share."""

_OF_RESPONSES = ("input", "estimate", "text")
"""Sections of the settings that bear on responses."""


@dataclass(frozen=True)
class Point:
    """One value of every setting that is swept.

    Parameters
    ----------
    name : str
        Of its output folder.
    values : dict of str to str
        Setting -> value, as typed.
    flags : tuple of str
        The same as arguments of ``bids_brainlm``.
    """

    name: str
    values: dict[str, str]
    flags: tuple[str, ...]


def varied(text: str) -> tuple[str, tuple[str, ...]]:
    """``name=value,value``.

    >>> varied("split.amount=0.5,1")
    ('split.amount', ('0.5', '1'))
    """
    name, _, values = text.partition("=")
    found = tuple(value.strip() for value in values.split(",") if value.strip())
    if not name.strip() or not found:
        raise click.BadParameter(f"{text!r}; expected setting=value,value.")
    return name.strip().removeprefix("--"), found


def points(grid: dict[str, tuple[str, ...]]) -> list[Point]:
    """Every combination of the values, the last setting changing fastest.

    Raises
    ------
    ConfigError
        For a setting that does not exist, or two points that would have one name.

    Examples
    --------
    >>> [point.name for point in points({"atlas": ("Schaefer2018:100:7n", "kmeans100"), "split.amount": ("0.5",)})]
    ['atlas-Schaefer2018-100-7n_amount-0.5', 'atlas-kmeans100_amount-0.5']
    """
    if not grid:
        raise ConfigError("nothing is swept; give --vary setting=value,value, or --grid")
    out = []
    for combination in itertools.product(*grid.values()):
        values = dict(zip(grid, combination, strict=True))
        name = "_".join(f"{key.rpartition('.')[2]}-{_label(value)}" for key, value in values.items())
        out.append(Point(name, values, tuple(_flag(key, value) for key, value in values.items())))
    names = [point.name for point in out]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two points of the sweep would be called {name}; give their files different names")
    return out


def _label(value: str) -> str:
    """Last part of a path, with what file names may hold."""
    return re.sub(r"[^A-Za-z0-9.+]+", "-", value.rstrip("/").rpartition("/")[2]).strip("-.") or "none"


def _flag(name: str, value: str) -> str:
    flags = {flag for param in app.command.params if isinstance(param, click.Option) and not param.is_flag for flag in param.opts}
    if f"--{name}" in flags:
        return f"--{name}={value}"
    if name in {key for key, _, _ in settings()} or name.startswith(("phases.", "model.options.")):
        return f"--set={name}={value}"
    raise ConfigError(f"no setting {name!r} to be swept; expected an option with a value (atlas, llm ...), or a dotted name")


def read_grid(path: Path) -> dict[str, tuple[str, ...]]:
    """A TOML file of lists: setting -> values.

    Raises
    ------
    InputError
        When it is no TOML, or a value is no list.
    """
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"the grid cannot be read ({exits.one_line(error)})", path, expected="TOML") from error
    for name, values in tree.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{name} of the grid is no list of values", path, expected='"split.amount" = [0.5, 1.0]')
    return {name: tuple(value if isinstance(value, str) else json.dumps(value) for value in tree[name]) for name in tree}


def lines(sweep: Path, chosen: Sequence[Point], common: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Name and command line of every point, first that of the responses where points share them.

    Parameters
    ----------
    sweep : Path
        Below it are the output folders and the work folder.
    chosen : sequence of Point
    common : sequence of str
        The BIDS folder, then options of ``bids_brainlm``.

    Raises
    ------
    BrainLMError, click.UsageError
        For a command line that ``bids_brainlm`` would refuse.
    """
    requests = [_request(_line(sweep, point.name, common, point.flags)) for point in chosen]
    if not _share(requests):
        return [(point.name, _line(sweep, point.name, common, point.flags)) for point in chosen]
    read = ("-d", f"betas={sweep.resolve() / RESPONSES}")
    first = (RESPONSES, _line(sweep, RESPONSES, common, (*chosen[0].flags, "--skip", "train", "reports")))
    return [first, *((point.name, _line(sweep, point.name, common, (*point.flags, *read))) for point in chosen)]


def _line(sweep: Path, name: str, common: Sequence[str], more: Sequence[str]) -> list[str]:
    if not common or common[0].startswith("-"):
        raise click.UsageError("after -- there must be the BIDS folder, then options of bids_brainlm")
    named = any(word.startswith(("-w", "--work-dir", "--work_dir")) for word in common)
    work = () if named else ("-w", str(sweep.resolve() / "work"))
    return [app.NAME, common[0], str(sweep.resolve() / name), "participant", *work, *common[1:], *more]


def _request(line: Sequence[str]) -> Request:
    context = app.command.make_context(app.NAME, list(line[1:]), obj=exits.Ending())
    return request_from(context, context.params)


def _share(requests: Sequence[Request]) -> bool:
    """Whether the responses of all points are the same, and there are any to be made."""
    parts = [_responses(request.config) for request in requests]
    given = any("betas" in request.derivatives or request.config.window.words for request in requests)
    return len(requests) > 1 and not given and all(part == parts[0] for part in parts)


def _responses(config: Config) -> tuple[Any, ...]:
    # Estimators may choose by trials that are trained on, however many of those are trained on in the end.
    split = dataclasses.replace(config.split, amount=1.0)
    return (*(getattr(config, name) for name in _OF_RESPONSES), split, config.run.random_seed)


@click.command("sweep", cls=AppCommand)
@click.argument("sweep_dir", type=click.Path(path_type=Path, file_okay=False))
@click.argument("common", nargs=-1, metavar="-- BIDS_DIR [OPTIONS OF bids_brainlm]")
@click.option(
    "--vary",
    type=varied,
    multiple=True,
    callback=unique,
    metavar="SETTING=VALUE,VALUE",
    help="What is swept: an option of bids_brainlm without its dashes (atlas, llm, recipe) or a dotted setting (split.amount).",
)
@click.option(
    "--grid",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="TOML file of the same: setting = [value, value].",
)
@click.option("--print", "printed", is_flag=True, help="Print the command lines, one each, for a scheduler; the default.")
@click.option("--run", "here", is_flag=True, help="Run them here, one after the other, then collect.")
@click.option("--collect", is_flag=True, help="Gather what the points have written in sweep.tsv, and draw sweep.svg.")
@click.option("--metric", default="nll_permuted_minus_true", help="Metric that is drawn.")
def command(
    sweep_dir: Path,
    common: tuple[str, ...],
    vary: dict[str, tuple[str, ...]],
    grid: Path | None,
    printed: bool,
    here: bool,
    collect: bool,
    metric: str,
) -> int:
    """Run bids_brainlm under every combination of some settings, each in a folder of its own below SWEEP_DIR.

    Where points differ in nothing that responses are made of, the first line makes these and must be done before the others.
    """
    if printed + here + collect > 1:
        raise click.UsageError("one of --print, --run and --collect is enough")
    if collect:
        return _collect(sweep_dir, metric)
    chosen = points({**(read_grid(grid) if grid else {}), **vary})
    found = lines(sweep_dir, chosen, common)
    _remember(sweep_dir, chosen)
    if here:
        code = _run(found)
        return code if code not in (0, 75) else _collect(sweep_dir, metric) or code
    for _, line in found:
        click.echo(shlex.join(line))
    return 0


def _remember(sweep: Path, chosen: Sequence[Point]) -> None:
    """Which point has which values: ``--collect`` reads it."""
    files = importlib.import_module("bids_brainlm.io.files")
    files.make_folder(sweep)
    files.write_json(sweep / "points.json", {point.name: point.values for point in chosen})


def _run(found: Sequence[tuple[str, list[str]]]) -> int:
    """Exit code of all lines: that of the failures if every one failed alike, 75 where some went well, else 1."""
    codes = {}
    for name, line in found:
        click.echo(shlex.join(line), err=True)
        codes[name] = subprocess.run([sys.executable, "-m", "bids_brainlm.cli.app", *line[1:]], check=False).returncode
        if codes[name] in (130, 143) or (name == RESPONSES and codes[name] not in (0, 75)):
            click.echo(f"brainlm sweep: {name} ended with {codes[name]}, so the rest was not run", err=True)
            return codes[name]
    failed = {name: code for name, code in codes.items() if code}
    for name, code in failed.items():
        click.echo(f"brainlm sweep: {name} failed [exit code {code}]", err=True)
    if not failed:
        return 0
    return 75 if len(failed) < len(codes) else failed.popitem()[1] if len(set(failed.values())) == 1 else 1


def _collect(sweep: Path, metric: str) -> int:
    stage = importlib.import_module("bids_brainlm.stages.sweep")
    path = sweep / "points.json"
    if not path.is_file():
        raise MissingInputError("no sweep was begun there", sweep, remedy="brainlm sweep SWEEP_DIR --vary ... -- BIDS_DIR ...")
    chosen = importlib.import_module("bids_brainlm.io.files").read_json(path)
    table, missing = stage.collect(sweep, chosen)
    for path in stage.write(sweep, table, missing):
        click.echo(str(path))
    reports = importlib.import_module("bids_brainlm.reports.sweep")
    drawn = reports.write_figure(sweep / "sweep.svg", table, list(next(iter(chosen.values()))), metric)
    click.echo(str(drawn) if drawn else f"nothing drawn: no point has {metric}")
    for line in _named(missing):
        click.echo(f"brainlm sweep: {line}", err=True)
    return 75 if missing else 0


def _named(missing: dict[str, str]) -> Iterator[str]:
    yield from (f"{what}: {why}" for what, why in missing.items())
