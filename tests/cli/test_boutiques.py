"""The Boutiques descriptor: equal to the command, and filled in as platforms do, read back as what was asked for."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm import __version__
from bids_brainlm.cli import exits
from bids_brainlm.cli.app import NAME, command
from bids_brainlm.cli.boutiques import descriptor, write

FILE = Path(__file__).parents[2] / "boutiques" / "descriptor.json"
MADE = descriptor(command)
INPUTS = {item["id"]: item for item in MADE["inputs"]}
OPTIONS = [item for item in command.params if isinstance(item, click.Option) and item.name != "version"]


def _by_flag() -> dict[str, dict[str, Any]]:
    return {item["command-line-flag"]: item for item in INPUTS.values() if "command-line-flag" in item}


def test_the_file_is_what_the_command_gives(tmp_path: Path) -> None:
    assert write(tmp_path / "descriptor.json").read_text("utf-8") == FILE.read_text("utf-8")
    assert json.loads(FILE.read_text("utf-8")) == MADE


def test_every_option_is_there_as_it_is() -> None:
    assert len(INPUTS) == len(MADE["inputs"]) == len(OPTIONS) + 3
    for option in OPTIONS:
        if option.count:
            short = min(option.opts, key=len)
            item = next(item for item in INPUTS.values() if item.get("value-choices", [""])[0] == short)
        else:
            (item,) = (item for flag, item in _by_flag().items() if flag in option.opts)
            kinds = {"integer": ("Number", True), "float": ("Number", False)}
            kind = ("Flag", None) if option.is_flag else kinds.get(option.type.name, ("String", None))
            if option.type.name in ("file", "path"):
                kind = ("File", None)
            assert (item["type"], item.get("integer")) == kind
            assert item.get("value-choices", []) == list(getattr(option.type, "choices", []))
        assert item.get("list", False) == option.multiple
        assert item["optional"]
        assert item["description"].split() == str(option.help).split()
        assert "default-value" not in item


def test_the_rest_of_the_descriptor() -> None:
    assert (MADE["name"], MADE["tool-version"], MADE["schema-version"]) == (NAME, __version__, "0.5")
    assert {item["code"]: item["description"] for item in MADE["error-codes"]} | {0: exits.CODES[0]} == exits.CODES
    keys = [item["value-key"] for item in INPUTS.values()]
    assert MADE["command-line"].split() == [NAME, *keys]
    assert len(set(keys)) == len(keys)
    assert [name for name, item in INPUTS.items() if not item["optional"]] == ["bids_dir", "output_dir", "level"]


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
WORD = st.text("abXY01/._= '\"$*[]", min_size=1, max_size=8)
LABEL = st.text("abXY01", min_size=1, max_size=4) | st.sampled_from(["participant", "group"])
SPECIAL: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(["participant_label", "session_label", "task_id", "run_id"], st.lists(LABEL, min_size=1, max_size=3)),
    "derivatives": st.dictionaries(LABEL, st.sampled_from(["/a", "/b c", "/d=e"]), min_size=1, max_size=2).map(
        lambda pairs: [f"{name}={path}" for name, path in pairs.items()]
    ),
    "set": st.dictionaries(LABEL, st.sampled_from(["1", "b c", "['d']"]), min_size=1, max_size=2).map(
        lambda pairs: [f"a.{name}={value}" for name, value in pairs.items()]
    ),
    "level": st.sampled_from(["participant", "group"]),
    # What stands alone must not look like an option.
    **dict.fromkeys(["bids_dir", "output_dir"], WORD),
    # Whether a file or folder fits is looked up; these are not there.
    **dict.fromkeys(["work_dir", "bids_filter_file", "bids_database_dir", "use_plugin"], LABEL.map("/nowhere at 'all/{}".format)),
    "mem_gb": st.sampled_from(["4", "1.5"]),
}


def _values(name: str, item: dict[str, Any]) -> st.SearchStrategy[Any]:
    if name in SPECIAL:
        return SPECIAL[name]
    if item["type"] == "Flag":
        return st.just(True)
    if item["type"] == "Number":
        return st.integers(-9, 9) if item["integer"] else st.floats(-9, 9)
    one = st.sampled_from(item["value-choices"]) if "value-choices" in item else WORD if item.get("list") else TEXT
    return st.lists(one, min_size=1, max_size=3) if item.get("list") else one


INVOCATIONS = st.fixed_dictionaries(
    {name: _values(name, item) for name, item in INPUTS.items() if not item["optional"]},
    optional={name: _values(name, item) for name, item in INPUTS.items() if item["optional"]},
)


def _fill(invocation: dict[str, Any]) -> str:
    """The command line as Boutiques 0.5 makes it: quoted values behind their flags, keys without a value taken out."""
    filled = {}
    for name, item in INPUTS.items():
        value, flag = invocation.get(name), item.get("command-line-flag", "")
        quoted = " ".join(shlex.quote(str(one)) for one in (value if isinstance(value, list) else [value]))
        glue = item.get("command-line-flag-separator", " ") if flag else ""
        text = flag if item["type"] == "Flag" else f"{flag}{glue}{quoted}"
        filled[item["value-key"]] = "" if value is None else text
    return re.sub(r"\[[A-Z_]+\]", lambda match: filled[match[0]], MADE["command-line"])


def _expected(name: str, value: Any, param: click.Parameter) -> Any:
    if name in ("verbose", "quiet"):
        return len(value) - 1
    if name in ("derivatives", "set"):
        pairs = dict(item.split("=", 1) for item in value)
        return {key: Path(path) for key, path in pairs.items()} if name == "derivatives" else pairs
    if name == "mem_gb":
        return f"{value}G"
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if isinstance(param.type, click.Path) else value


@settings(max_examples=200, deadline=None)
@given(INVOCATIONS)
def test_what_a_platform_fills_in_is_what_the_command_reads(invocation: dict[str, Any]) -> None:
    name, *args = shlex.split(_fill(invocation))
    context = command.make_context(name, args, obj=exits.Ending())
    params = {param.name: param for param in command.params}
    names = {flag.lstrip("-").replace("-", "_"): param.name for param in params.values() for flag in param.opts}
    for key, value in invocation.items():
        assert context.params[names[key]] == _expected(key, value, params[names[key]]), key
    given_names = {names[key] for key in invocation}
    for param in OPTIONS:
        if param.name not in given_names:
            assert context.params[param.name] in (None, (), {}, 0, False, "cortext"), param.name
