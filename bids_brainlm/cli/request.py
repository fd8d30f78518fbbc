"""The command line as one object: settings resolved, folders made absolute; refused where a run would write into its input."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from bids_brainlm.cli.arguments import LEVELS, TYPED, given_settings, label, typed
from bids_brainlm.config import Config, Request, resolve
from bids_brainlm.errors import ConfigError, InputError, MissingInputError

FOLDERS = ("bids_dir", "output_dir", "work_dir")


def request_from(ctx: click.Context, given: Mapping[str, Any]) -> Request:
    """The whole command line.

    Parameters
    ----------
    ctx : click.Context
    given : mapping
        Values of the options and positionals, by click's names.

    Raises
    ------
    click.UsageError
        When a positional is neither typed nor in the file.
    ConfigError
        For a setting that does not exist or cannot have its value.
    MissingInputError
        For a folder that is not there.
    """
    resolved = resolve(
        given["recipe"],
        given["config_file"],
        given_settings(ctx),
        given["overrides"],
        sloppy=given["sloppy"],
        filter_file=given["bids_filter_file"],
        typed=typed(ctx),
    )
    call, origins = _call(ctx, given, resolved.call)
    deepest = "all" in given["debug"]
    request = Request(
        bids_dir=_whole(call["bids_dir"]),
        out_dir=_whole(call["output_dir"]),
        level=call["level"],
        participants=tuple(dict.fromkeys(map(label("sub-"), call["participant_label"]))),
        derivatives={name: _whole(path) for name, path in call["derivatives"].items()},
        work_dir=_whole(call["work_dir"]),
        config=_located(resolved.config),
        verbosity=max(2 * deepest, given["verbose"] - given["quiet"]),
        reports_only=given["reports_only"],
        boilerplate_only=given["boilerplate_only"],
        clean_workdir=given["clean_workdir"],
        write_graph=given["write_graph"],
        database_dir=_whole(given["bids_database_dir"]) if given["bids_database_dir"] else None,
        plugin_file=_whole(given["use_plugin"]) if given["use_plugin"] else None,
        debug=("pdb",) if given["debug"] else (),
        resource_monitor=given["resource_monitor"],
        command=(str(ctx.info_name), *ctx.meta[TYPED]),
        origins=resolved.origins | origins,
    )
    _refuse_absent(request)
    _refuse_betas_over_time(request)
    return request


def _call(ctx: click.Context, given: Mapping[str, Any], filed: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """What is typed, else what the file holds, else the default; and which of them it was."""
    names = {name: given[name] for name in (*FOLDERS, "level", "participant_label", "derivatives")}
    if given["bids_dir"] in map(Path, LEVELS) and given["output_dir"] is None:
        # The level alone, with the folders from the file.
        names |= {"bids_dir": None, "level": str(given["bids_dir"])}
    typed_ = {name: value for name, value in names.items() if value}
    call = {"participant_label": (), "derivatives": {}, "work_dir": "work", **filed, **typed_}
    for param in ctx.command.params:
        if isinstance(param, click.Argument) and param.name not in call:
            hint = "A --config-file with a table [call] may stand for it."
            raise click.UsageError(f"Missing argument {param.make_metavar(ctx)}. {hint}", ctx)
    if call["level"] not in LEVELS:
        raise ConfigError(f"call.level is {call['level']!r}; expected one of {', '.join(LEVELS)}")
    origins = {f"call.{name}": "default" for name in call}
    origins |= {f"call.{name}": str(given["config_file"]) for name in filed}
    return call, origins | {f"call.{name}": "command line" for name in typed_}


def _whole(path: str | Path) -> Path:
    """Absolute, links followed."""
    try:
        return Path(path).expanduser().resolve()
    except (OSError, RuntimeError) as error:
        raise InputError("symbolic links lead in a circle", path, expected="a folder") from error


def _located(config: Config) -> Config:
    """Make paths absolute that may also be names: Nipype's nodes run in folders of their own."""
    model = dataclasses.replace(config.model, llm=_absolute(config.model.llm))
    parcels = dataclasses.replace(config.parcels, atlas=_absolute(config.parcels.atlas))
    estimate = dataclasses.replace(config.estimate, hrf_library=_absolute(config.estimate.hrf_library))
    models = ("embeddings", "bertscore", "clip", "judge")
    folders: dict[str, Any] = {name: _absolute(getattr(config.evaluate, name)) for name in models}
    evaluate = dataclasses.replace(config.evaluate, **folders)
    return dataclasses.replace(config, estimate=estimate, model=model, parcels=parcels, evaluate=evaluate)


def _absolute(name: str) -> str:
    path = Path(name).expanduser()
    return str(path.resolve()) if name and path.exists() else name


def _refuse_absent(request: Request) -> None:
    if not request.bids_dir.is_dir():
        raise _missing("the BIDS folder", request.bids_dir, "a dataset with dataset_description.json and sub-* folders")
    for name, path in request.derivatives.items():
        if not path.exists():
            raise _missing(f"what --derivatives calls {name!r}", path, "a folder of derivatives, or a file of betas")
    if request.plugin_file and not request.plugin_file.is_file():
        raise _missing("the plugin file", request.plugin_file, "a YAML file with plugin and plugin_args")


def _refuse_betas_over_time(request: Request) -> None:
    if "betas" in request.derivatives and request.config.window.words:
        remedy = 'leave it out, or take the texts of trials: --words ""'
        raise ConfigError(f"-d betas= holds single trials, but words with times are decoded from successive volumes; {remedy}")


def _missing(what: str, path: Path, expected: str) -> MissingInputError:
    remedy = "check the spelling; in a container, bind-mount it"
    return MissingInputError(f"{what} does not exist", path, expected=expected, remedy=remedy)


def refuse_overlap(request: Request) -> None:
    """Nothing may be written into an input, and nothing that is needed cleaned away.

    Raises
    ------
    ConfigError
        Naming both folders.
    """
    # Imported late: numpy hangs below it, which reads the environment when it is imported.
    from bids_brainlm.io.derivatives import check_output
    from bids_brainlm.io.layout import default_derivatives

    derivatives = request.derivatives or default_derivatives(request.bids_dir)
    check_output(request.out_dir, request.bids_dir, derivatives)
    # Betas may be read from the output itself, where an earlier run put them.
    read = {name: path for name, path in derivatives.items() if not request.out_dir.is_relative_to(path)}
    inputs = {"BIDS folder": request.bids_dir, **read}
    written = {"work folder": ("-w", request.work_dir), "database folder": ("--bids-database-dir", request.database_dir)}
    for what, (flag, folder) in written.items():
        for name, root in inputs.items():
            if folder and folder.is_relative_to(root):
                raise ConfigError(f"the {what} {folder} is inside the {name} {root}; choose another one with {flag}")
    if request.clean_workdir:
        for name, root in {**inputs, "output folder": request.out_dir}.items():
            if root.is_relative_to(request.work_dir):
                raise ConfigError(f"--clean-workdir would take away the {name} {root}; choose another work folder with -w")
