"""Arguments as people type them, against argparse wherever argparse can read them at all."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm import config
from bids_brainlm.cli import exits
from bids_brainlm.cli.app import command
from bids_brainlm.cli.arguments import (
    LEVELS,
    AppCommand,
    given_settings,
    named_path,
    option_groups,
    parameter,
    rewrite,
    setting_options,
    typed,
)

SMALL = AppCommand(
    "small",
    params=[
        click.Argument(["bids_dir"]),
        click.Argument(["output_dir"]),
        click.Argument(["level"], type=click.Choice(LEVELS)),
        click.Option(["--label"], multiple=True),
        click.Option(["-d", "--derivatives"], multiple=True),
        click.Option(["-w", "--work-dir"]),
        click.Option(["--dummy-scans"], type=int),
        click.Option(["--offline"], is_flag=True),
        click.Option(["-v", "--verbose"], count=True),
    ],
)


class _Refused(Exception):
    pass


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Refused(message)


def _argparse(argv: list[str]) -> dict[str, Any]:
    parser = _Parser(allow_abbrev=False, add_help=False)
    parser.add_argument("bids_dir")
    parser.add_argument("output_dir")
    parser.add_argument("level", choices=LEVELS)
    parser.add_argument("--label", nargs="+", action="extend", default=[])
    parser.add_argument("-d", "--derivatives", nargs="+", action="extend", default=[])
    parser.add_argument("-w", "--work-dir", "--work_dir")
    parser.add_argument("--dummy-scans", "--dummy_scans", type=int)
    parser.add_argument("--offline", action="store_true")
    parser.add_argument("-v", "--verbose", action="count", default=0)
    return vars(parser.parse_args(argv))


def _click(argv: list[str]) -> dict[str, Any]:
    given = SMALL.make_context("small", list(argv)).params
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


WORDS = st.sampled_from(["01", "participant", "group", "/bids", "out", "a=b", "-3", "1"])
GREEDY = st.tuples(st.sampled_from(["--label", "-d", "--derivatives"]), st.lists(WORDS, min_size=1, max_size=3)).map(
    lambda pair: [pair[0], *pair[1]]
)
CLOSED = st.sampled_from(
    [
        *(["--offline"], ["-v"], ["-vv"], ["--verbose"], ["--label=07"], ["-dx=/y"], ["-vw/tmp"], ["--work-dir=/w"]),
        *(["--dummy_scans=-1"], ["-w", "/w"], ["--work_dir", "participant"], ["--dummy-scans", "-2"]),
    ]
)
POSITIONALS = st.tuples(st.sampled_from(["/bids", "b"]), st.sampled_from(["/out", "o"]), st.sampled_from(LEVELS)).map(list)
CHAOS = st.lists(st.one_of(WORDS.map(lambda word: [word]), GREEDY, CLOSED), max_size=8)


@st.composite
def orderly(draw: st.DrawFn) -> list[list[str]]:
    """Options in any order, the three positionals in one or two places where argparse can see them."""
    positionals, cut = draw(POSITIONALS), draw(st.integers(0, 3))
    first = [positionals[:cut]] if draw(st.booleans()) else [*draw(st.lists(GREEDY, max_size=2)), draw(CLOSED), positionals[:cut]]
    return [
        *first,
        *draw(st.lists(GREEDY, max_size=2)),
        draw(CLOSED),
        positionals[cut:],
        *draw(st.lists(GREEDY | CLOSED, max_size=2)),
    ]


def argument_lists() -> st.SearchStrategy[list[str]]:
    return st.one_of(orderly(), orderly(), CHAOS).map(lambda pieces: [token for piece in pieces for token in piece])


@settings(max_examples=600, deadline=None)
@given(argument_lists())
def test_reads_what_argparse_reads(argv: list[str]) -> None:
    try:
        expected = _argparse(argv)
    except _Refused:
        return
    assert _click(argv) == expected


def test_the_property_is_not_empty() -> None:
    accepted = []

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(argument_lists())
    def count(argv: list[str]) -> None:
        try:
            accepted.append(_argparse(argv))
        except _Refused:
            return

    count()
    assert sum(len(item["label"]) > 1 for item in accepted) > 30


OPTIONS = [item for item in command.params if isinstance(item, click.Option) and item.name != "version"]
"""Of the command itself, all but those that end it at once."""

LOOSE = AppCommand(
    "loose",
    params=[
        *SMALL.params[:3],
        *(
            click.Option([*item.opts, str(item.name)], multiple=item.multiple, is_flag=item.is_flag or None, count=item.count)
            for item in OPTIONS
        ),
    ],
)
"""The command with any text for a value: only how arguments are read is compared."""


def _spellings(flag: str) -> list[str]:
    return [flag, flag.replace("-", "_").replace("__", "--", 1)] if flag.startswith("--") else [flag]


def _argparse_of_all(argv: list[str]) -> dict[str, Any]:
    parser = _Parser(allow_abbrev=False, add_help=False)
    for name in ("bids_dir", "output_dir"):
        parser.add_argument(name)
    parser.add_argument("level", choices=LEVELS)
    for item in OPTIONS:
        flags = list(dict.fromkeys(spelling for flag in item.opts for spelling in _spellings(flag)))
        if item.count:
            parser.add_argument(*flags, dest=item.name, action="count", default=0)
        elif item.is_flag:
            parser.add_argument(*flags, dest=item.name, action="store_true")
        elif item.multiple:
            parser.add_argument(*flags, dest=item.name, nargs="+", action="extend", default=[])
        else:
            parser.add_argument(*flags, dest=item.name)
    return vars(parser.parse_args(argv))


@st.composite
def used(draw: st.DrawFn) -> list[str]:
    """One option of the command in one of its spellings, its values apart, behind "=" or glued to a letter."""
    item = draw(st.sampled_from(OPTIONS))
    flag = draw(st.sampled_from([spelling for flag in item.opts for spelling in _spellings(flag)]))
    if item.is_flag or item.count:
        return [flag]
    values = draw(st.lists(WORDS, min_size=1, max_size=3 if item.multiple else 1))
    form = draw(st.sampled_from(["apart", "glued"]))
    return [flag, *values] if form == "apart" else [f"{flag}={values[0]}" if flag.startswith("--") else flag + values[0]]


@st.composite
def calls(draw: st.DrawFn) -> list[str]:
    """Options of the command before, between and after the positionals, often where argparse can see them."""
    positionals, cut = draw(POSITIONALS), draw(st.integers(0, 3))
    fence = st.sampled_from([["--offline"], ["-v"], ["--low_mem"], ["-w", "x"], ["--folds=-2"], ["--mem-gb", "4"], []])
    pieces = [draw(st.lists(used(), max_size=2)) for _ in range(3)]
    first, between, last = ([token for piece in part for token in piece] for part in pieces)
    return [*first, *draw(fence), *positionals[:cut], *between, *draw(fence), *positionals[cut:], *last]


def _click_of_all(argv: list[str]) -> dict[str, Any]:
    given = LOOSE.make_context("loose", list(argv)).params
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


@settings(max_examples=400, deadline=None)
@given(calls())
def test_every_option_is_read_as_argparse_reads_it(argv: list[str]) -> None:
    try:
        expected = _argparse_of_all(argv)
    except _Refused:
        return
    assert _click_of_all(argv) == expected


def test_most_options_are_met_on_the_way() -> None:
    met: set[str] = set()

    @settings(max_examples=400, deadline=None, derandomize=True)
    @given(calls())
    def count(argv: list[str]) -> None:
        try:
            met.update(name for name, value in _argparse_of_all(argv).items() if value)
        except _Refused:
            return

    count()
    assert len(met) > 0.7 * len(OPTIONS)


MANY = [item for item in OPTIONS if item.multiple]


@given(st.sampled_from(MANY), st.data(), POSITIONALS)
def test_positionals_after_any_option_of_several_values_are_found(
    option: click.Option, data: st.DataObject, positionals: list[str]
) -> None:
    flag = data.draw(st.sampled_from([spelling for flag in option.opts for spelling in _spellings(flag)]))
    values = data.draw(st.lists(st.sampled_from(["01", "02", "participant", "-3", "a=b"]), min_size=1, max_size=3))
    assert _click_of_all([flag, *values, *positionals]) == _click_of_all([*positionals, flag, *values])
    assert _click_of_all([flag, *values, *positionals])[str(option.name)] == values


def test_spellings_are_remembered_as_typed() -> None:
    argv = ["b", "o", "group", "-t", "x", "--task_label=y", "--mem_gb", "3", "-vvcz", "--llm", "q", "--llm=r"]
    context = command.make_context("x", argv, obj=exits.Ending())
    assert typed(context) == {
        "input.tasks": "--task-label",
        "run.memory": "--mem-gb",
        "input.confounds": "-c",
        "model.llm": "--llm",
    }
    assert given_settings(context) == {
        "input.tasks": ("x", "y"),
        "run.memory": "3G",
        "input.confounds": ("z",),
        "model.llm": "r",
    }


@given(st.lists(st.sampled_from(["01", "02", "participant", "group"]), min_size=1, max_size=4), POSITIONALS, st.booleans())
def test_positionals_after_a_greedy_option_are_found(labels: list[str], positionals: list[str], verbose: bool) -> None:
    argv = ["--label", *labels, *positionals, *["-v"] * verbose]
    with pytest.raises(_Refused):
        _argparse(argv)
    assert _click(argv) == _click([*positionals, "--label", *labels, *["-v"] * verbose])


@pytest.mark.parametrize(
    "argv",
    [
        ["/bids", "/out", "--label", "01", "02", "participant"],
        ["/bids", "--label", "01", "02", "/out", "participant"],
        ["--label", "01", "02", "--", "/bids", "/out", "participant"],
        ["--offline", "/bids", "--label=01", "/out", "--label", "02", "participant"],
    ],
)
def test_owed_positionals(argv: list[str]) -> None:
    got = _click(argv)
    assert (got["bids_dir"], got["output_dir"], got["level"], got["label"]) == ("/bids", "/out", "participant", ["01", "02"])


def test_unknown_options_and_missing_values_are_usage_errors() -> None:
    positionals = ["/bids", "/out", "participant"]
    with pytest.raises(click.NoSuchOption, match="--lable"):
        _click([*positionals, "--lable", "01"])
    for argv in (["--label"], ["-w"], ["--work-dir", "--offline"]):
        with pytest.raises(click.UsageError, match=argv[0]):
            _click([*positionals, *argv])


def test_rewriting_twice_changes_nothing() -> None:
    once = rewrite(["--label", "01", "02", "-vvw", "x", "b", "o", "group"], SMALL.params)
    assert rewrite(once, SMALL.params) == once


def test_every_flag_of_every_setting_is_an_option_with_its_help() -> None:
    options = {item.name: item for item in setting_options()}
    for name, item, _ in config.settings():
        if not item.metadata["flags"]:
            assert parameter(name) not in options
            continue
        option = options[parameter(name)]
        more = [options[parameter(name, unit)] for unit in item.metadata["units"].values()]
        assert (*option.opts, *(flag for other in more for flag in other.opts)) == item.metadata["flags"]
        assert option.help is not None
        assert option.help.startswith(item.metadata["help"])
        assert str(option.type) == f"Choice({list(item.metadata['choices'])})" or not item.metadata["choices"]


def test_no_flag_is_taken_twice() -> None:
    flags = [flag for item in command.params if isinstance(item, click.Option) for flag in item.opts]
    assert len(flags) == len(set(flags))


def test_help_lists_every_option_once() -> None:
    rows = [row for _, group in option_groups(command, click.Context(command)) for row, _ in group]
    for item in command.params:
        if isinstance(item, click.Option):
            assert sum(item.opts[0] in row.replace(",", " ").split() for row in rows) == 1


def test_a_bare_path_goes_by_its_folder(tmp_path: Path) -> None:
    assert named_path(str(tmp_path / "smriprep")) == ("smriprep", tmp_path / "smriprep")
    assert named_path(f"{tmp_path}/a=b") == ("a=b", tmp_path / "a=b")
    with pytest.raises(click.BadParameter):
        named_path("name=")
