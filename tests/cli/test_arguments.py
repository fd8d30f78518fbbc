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
from bids_brainlm.cli.app import command
from bids_brainlm.cli.arguments import LEVELS, AppCommand, named_path, option_groups, parameter, rewrite, setting_options

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
