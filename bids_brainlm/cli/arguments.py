"""What people type, made into what click reads, and options made from the configuration.

BIDS Apps grew up on argparse, whose options take several values after one flag (``--participant-label 01 02``); click's do
not. `rewrite` bridges the two, in these terms:

- A *bare word* is a token that is neither an option nor the value of one that takes a single value.
- A *greedy* option takes every bare word up to the next option.
- The three *positionals* are the BIDS folder, the output folder and the level. Where argparse would lose them to a greedy
  option (``--participant-label 01 /bids /out participant``), the level that closes a run of bare words *anchors* the
  words before it that are still owed. Where argparse succeeds nothing is owed, so both read the same.

Long options may be written with dashes or underscores.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

import click

from bids_brainlm.config import SECTIONS, settings

LEVELS = ("participant", "group")

PREFIXES = {"input.sessions": "ses-", "input.tasks": "task-", "input.runs": "run-"}
"""BIDS entities that users paste with their key."""


@dataclass
class _Run:
    """One option as typed (or none), its glued value, and the bare words up to the next option."""

    flag: str = ""
    option: click.Option | None = None
    value: str | None = None
    words: list[str] = field(default_factory=list)

    @property
    def greedy(self) -> bool:
        return self.option is not None and self.option.multiple and self.value is None

    @property
    def single(self) -> bool:
        return self.option is not None and _takes_value(self.option) and not self.option.multiple and self.value is None


def rewrite(args: Sequence[str], params: Sequence[click.Parameter]) -> list[str]:
    """Arguments as typed -> ``--name=value`` once a value, then ``--`` and the positionals.

    Parameters
    ----------
    args : sequence of str
    params : sequence of click.Parameter
        Those of the command; options with ``multiple=True`` are greedy.

    Raises
    ------
    click.UsageError
        For an option without its value.

    Examples
    --------
    >>> params = [click.Option(["--label"], multiple=True), *(click.Argument([name]) for name in "abc")]
    >>> rewrite(["--label", "01", "02", "/bids", "/out", "participant"], params)
    ['--label=01', '--label=02', '--', '/bids', '/out', 'participant']
    """
    runs = list(_split(args, _by_flag(params)))
    _anchor(runs, sum(isinstance(item, click.Argument) for item in params))
    named: list[str] = []
    positionals: list[str] = []
    for run in runs:
        values, rest = _values(run)
        named += [f"{_long(run)}={value}" for value in values] if values else [run.flag] * bool(run.flag)
        positionals += rest
    return [*named, "--", *positionals]


def spellings(args: Sequence[str], params: Sequence[click.Parameter]) -> dict[str, str]:
    """Name of an option -> its flag as typed, dashed; the last one where there are several.

    >>> spellings(["-l", "01", "--label", "02", "-l3"], [click.Option(["-l", "--label"], multiple=True)])
    {'label': '-l'}
    """
    return {run.option.name: run.flag for run in _split(args, _by_flag(params)) if run.option and run.option.name}


def _by_flag(params: Sequence[click.Parameter]) -> dict[str, click.Option]:
    return {name: item for item in params if isinstance(item, click.Option) for name in item.opts}


def _split(args: Sequence[str], options: Mapping[str, click.Option]) -> Iterator[_Run]:
    run = _Run()
    for i, token in enumerate(args):
        if token == "--":
            yield run
            run = _Run(words=list(args[i + 1 :]))
            break
        if not _is_option(token, options):
            run.words.append(token)
            continue
        yield run
        *done, run = _read_option(token, options)
        yield from done
    yield run


def _is_option(token: str, options: Mapping[str, click.Option]) -> bool:
    # A negative number is a value, and so is a text that happens to begin with a dash.
    name = token.partition("=")[0]
    return re.match(r"--?[A-Za-z]", token) is not None and (" " not in name or token[:2] in options)


def _read_option(token: str, options: Mapping[str, click.Option]) -> list[_Run]:
    """One token -> its options; the last run takes the bare words that follow."""
    if not token.startswith("--"):
        return _read_cluster(token, options)
    typed, glue, value = token.partition("=")
    dashed = typed.replace("_", "-")
    option = options.get(dashed)
    if glue:
        return [_Run(dashed if option else typed, option, value), _Run()]
    return [_Run(dashed if option else typed, option)]


def _read_cluster(token: str, options: Mapping[str, click.Option]) -> list[_Run]:
    """``-vvw/tmp`` -> ``-v``, ``-v``, ``-w`` with the value ``/tmp``."""
    runs: list[_Run] = []
    rest = token[1:]
    while rest:
        flag, rest = f"-{rest[0]}", rest[1:]
        option = options.get(flag)
        if option is None:
            return [_Run(token)]
        if _takes_value(option):
            return [*runs, _Run(flag, option, rest.removeprefix("=")), _Run()] if rest else [*runs, _Run(flag, option)]
        runs.append(_Run(flag, option))
    return runs


def _takes_value(option: click.Option) -> bool:
    return not (option.is_flag or option.count)


def _anchor(runs: list[_Run], n_positionals: int) -> None:
    """Give back the positionals that a greedy option would swallow, when the level closes its words."""
    owed = n_positionals - sum(len(run.words) - run.single for run in runs if not run.greedy)
    for i, run in enumerate(runs):
        if run.greedy and run.words and run.words[-1] in LEVELS and 0 < owed < len(run.words):
            runs.insert(i + 1, _Run(words=run.words[-owed:]))
            del run.words[-owed:]
            return


def _values(run: _Run) -> tuple[list[str], list[str]]:
    """(values of the option, positionals) of one run."""
    if run.value is not None:
        return [run.value], run.words
    if not (run.greedy or run.single):
        return [], run.words
    if not run.words:
        raise click.UsageError(f"Option {run.flag!r} requires a value.")
    n = len(run.words) if run.greedy else 1
    return run.words[:n], run.words[n:]


def _long(run: _Run) -> str:
    return max(run.option.opts, key=len) if run.option else run.flag


def label(prefix: str) -> Callable[[str], str]:
    """Reader of a BIDS label with or without its key: ``sub-01`` and ``01`` are the same.

    >>> label("sub-")("sub-01")
    '01'
    """

    def label(text: str) -> str:
        bare = text.removeprefix(prefix)
        if not re.fullmatch(r"[A-Za-z0-9+]+", bare):
            raise click.BadParameter(f"{text!r} is no BIDS label: letters and digits only, after an optional {prefix!r}.")
        return bare

    return label


def named_path(text: str) -> tuple[str, Path]:
    """``name=path``, or a path alone, which then goes by the name of its folder.

    >>> named_path("fmriprep=/data/derivatives")
    ('fmriprep', PosixPath('/data/derivatives'))
    >>> named_path("/data/betas")
    ('betas', PosixPath('/data/betas'))
    """
    name, equals, path = text.partition("=")
    if not equals or "/" in name:
        name, path = Path(text).absolute().name, text
    if not name or not path:
        raise click.BadParameter(f"{text!r}; expected name=path or a path.")
    return name, Path(path).absolute()


def assignment(text: str) -> tuple[str, str]:
    """``section.name=value``.

    >>> assignment("split.folds=4")
    ('split.folds', '4')
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise click.BadParameter(f"{text!r}; expected section.name=value.")
    return name.strip(), value.strip()


def unique(ctx: click.Context, param: click.Parameter, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Callback that makes a dictionary of ``name=value`` options and refuses a name given twice."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise click.BadParameter(f"the name {name!r} is given twice.", ctx=ctx, param=param)
    return dict(pairs)


def setting_options() -> list[click.Option]:
    """Click options of every setting that has a flag; help, default, choices and type are those of the configuration."""
    return [option for name, item, kind in settings() if item.metadata["flags"] for option in _options(name, item, kind)]


def given_settings(ctx: click.Context) -> dict[str, Any]:
    """Dotted names and values of the settings that stood on the command line.

    Raises
    ------
    click.UsageError
        When one stood there twice, in different units.
    """
    given: dict[str, Any] = {}
    for name, key in _keys():
        if ctx.get_parameter_source(key) is click.core.ParameterSource.COMMANDLINE:
            if name in given:
                raise click.UsageError(f"{typed(ctx)[name]} and another flag of {name} are both given; one is enough.", ctx)
            given[name] = ctx.params[key]
    return given


def typed(ctx: click.Context) -> dict[str, str]:
    """Dotted names of settings that stood on the command line -> the flag as typed."""
    return {name: ctx.meta[SPELLINGS][key] for name, key in _keys() if key in ctx.meta[SPELLINGS]}


def parameter(name: str, unit: str = "") -> str:
    """``input.space`` -> the name click knows the option by."""
    return name.replace(".", "__") + (f"__{unit}" if unit else "")


def _keys() -> Iterator[tuple[str, str]]:
    """(dotted name, name of the option) of every option of a setting."""
    for name, item, _ in settings():
        if item.metadata["flags"]:
            yield from ((name, parameter(name, unit)) for unit in ("", *item.metadata["units"].values()))


def _options(name: str, item: Any, kind: Any) -> Iterator[click.Option]:
    """The option of a setting, and one more for every flag with a unit of its own."""
    many, units = get_origin(kind) is tuple, item.metadata["units"]
    base = get_args(kind)[0] if many else kind
    choices = item.metadata["choices"]
    type_: Any = click.Choice(choices) if choices else label(PREFIXES[name]) if name in PREFIXES else base
    text = item.metadata["help"] + _default_text(item.default)
    flags = [flag for flag in item.metadata["flags"] if flag not in units]
    if base is bool:
        yield click.Option([*flags, parameter(name)], is_flag=True, help=text)
    else:
        yield click.Option([*flags, parameter(name)], type=type_, multiple=many, help=text)
    for flag, unit in units.items():
        same = f"The same as {flags[0]}, a bare number being of {unit}B."
        yield click.Option([flag, parameter(name, unit)], type=amount(unit), help=same)


def amount(unit: str) -> Callable[[str], str]:
    """Reader of an amount whose unit may be left out.

    >>> amount("G")("1.5"), amount("G")("500M")
    ('1.5G', '500M')
    """

    def amount(text: str) -> str:
        return f"{text}{unit}" if re.fullmatch(r"[0-9.]+", text) else text

    return amount


def _default_text(default: Any) -> str:
    if default in ("", ()) or isinstance(default, bool):
        return ""
    shown = ", ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"  [default: {shown}]"


SPELLINGS, TYPED = f"{__name__}.spellings", f"{__name__}.typed"
"""Where the context keeps how options were spelt, and all arguments as typed."""


class AppCommand(click.Command):
    """A command that reads its arguments through `rewrite` and lists its options by section of the configuration."""

    def __init__(self, name: str | None, **given: Any) -> None:
        # click keeps the help option as it was first asked for: with -h whether or not there is a group around the command.
        context = {"help_option_names": ["-h", "--help"], **given.pop("context_settings", {})}
        super().__init__(name, context_settings=context, **given)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[TYPED], ctx.meta[SPELLINGS] = tuple(args), spellings(args, self.get_params(ctx))
        return super().parse_args(ctx, rewrite(args, self.get_params(ctx)))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, rows in option_groups(self, ctx):
            with formatter.section(title):
                formatter.write_dl(rows)


def option_groups(command: click.Command, ctx: click.Context) -> list[tuple[str, list[tuple[str, str]]]]:
    """(title, (spelling, help) of each option), general options first, then one group a section of the configuration."""
    groups: dict[str, list[tuple[str, str]]] = {"Options": []}
    for item in command.get_params(ctx):
        record = item.get_help_record(ctx) if isinstance(item, click.Option) else None
        section = (item.name or "").partition("__")[0]
        title = (SECTIONS[section].__doc__ or "").rstrip(".") if "__" in (item.name or "") else "Options"
        if record:
            groups.setdefault(title, []).append(record)
    return list(groups.items())
