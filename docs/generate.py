"""Write the parts of the documentation that come from the code, between ``<!-- generated: NAME -->`` and ``<!-- end -->``, and
the Boutiques descriptor.

Usage: python docs/generate.py. The tests fail when a page is not what this would write.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import click

from bids_brainlm.cli import app, boutiques, companion, exits
from bids_brainlm.cli.arguments import option_groups
from bids_brainlm.config import SECTIONS, Phase, as_tree, load
from bids_brainlm.core.types import DECODED_COLUMNS
from bids_brainlm.evaluation.ablation import WHERE_COLUMNS
from bids_brainlm.evaluation.confusion import CONFUSION_COLUMNS
from bids_brainlm.evaluation.controls import CONTROLS_COLUMNS
from bids_brainlm.evaluation.diversity import FIGURES
from bids_brainlm.evaluation.effects import EFFECTS_COLUMNS
from bids_brainlm.evaluation.evidence import COVERAGE_COLUMNS, EVIDENCE_COLUMNS
from bids_brainlm.evaluation.group import GROUP_COLUMNS
from bids_brainlm.evaluation.information import INFORMATION_COLUMNS
from bids_brainlm.evaluation.metrics import get as get_metric
from bids_brainlm.evaluation.paired import COMPARE_COLUMNS
from bids_brainlm.evaluation.questions import ANSWERS_COLUMNS, QUESTIONS_COLUMNS
from bids_brainlm.evaluation.ratings import KEY_COLUMNS, RATINGS_COLUMNS, SHEET_COLUMNS
from bids_brainlm.evaluation.resources import ENABLED_BY
from bids_brainlm.evaluation.story.comparison import STORY_COLUMNS
from bids_brainlm.evaluation.surprise import SURPRISE_COLUMNS
from bids_brainlm.evaluation.table import METRICS_COLUMNS
from bids_brainlm.insilico.answers import ANSWER_COLUMNS
from bids_brainlm.insilico.describe import PARCEL_COLUMNS
from bids_brainlm.insilico.effects import CAPTION_COLUMNS, DOSE_COLUMNS, EFFECT_COLUMNS
from bids_brainlm.io.cleaned import WORD_COLUMNS
from bids_brainlm.registry import metrics, tokenizers
from bids_brainlm.stages.decode import HISTORY_COLUMNS
from bids_brainlm.stages.estimate import TRIAL_COLUMNS
from bids_brainlm.stages.story import RECONSTRUCTION_COLUMNS
from bids_brainlm.stages.where import ATTENTION_COLUMNS

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "bids_brainlm"
GIVEN = ("n_rows", "labels", "width", "basis")
"""What every tokenizer's factory is called with; the rest are options."""

MARKED = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def page(text: str) -> str:
    """The same page with its marked parts written anew."""
    return MARKED.sub(lambda match: match[1] + PARTS[match[2]]() + match[3], text)


def settings() -> str:
    blocks = [f"## `[{name}]`\n\n{cls.__doc__}\n\n{_fields(cls)}" for name, cls in SECTIONS.items()]
    return "\n".join([*blocks, f"## `[[phases]]`\n\n{Phase.__doc__}\n\n{_fields(Phase)}"])


def _fields(cls: Any) -> str:
    hints = get_type_hints(cls)
    rows = []
    for item in dataclasses.fields(cls):
        default = {} if item.default is dataclasses.MISSING else item.default
        kind = " \\| ".join(f"`{choice}`" for choice in item.metadata["choices"]) or _kind(hints[item.name])
        flags = ", ".join(f"`{flag}`" for flag in item.metadata["flags"])
        rows.append((f"`{item.name}`", kind, f"`{json.dumps(default)}`", flags, _cell(item.metadata["help"])))
    return _table(("name", "type", "default", "option", "meaning"), rows)


def _kind(hint: Any) -> str:
    names = {
        tuple[str, ...]: "list of text",
        tuple[int, ...]: "list of whole numbers",
        dict[str, Any]: "table",
        str: "text",
        int: "whole number",
        float: "number",
        bool: "boolean",
    }
    return names[hint]


def command_line() -> str:
    ctx = click.Context(app.command, info_name=app.NAME, **app.command.context_settings)
    usage = f"```\n{app.command.get_usage(ctx).removeprefix('Usage: ')}\n```\n\n"
    return usage + "\n".join(f"### {title}\n\n{_options(rows)}" for title, rows in option_groups(app.command, ctx))


def companion_commands() -> str:
    parent = click.Context(companion.command, info_name=companion.NAME, **companion.command.context_settings)
    blocks = []
    for name in companion.command.list_commands(parent):
        command = companion.command.commands[name]
        ctx = click.Context(command, info_name=name, parent=parent, **command.context_settings)
        rows = [record for group in option_groups(command, ctx) for record in group[1]]
        about = inspect.cleandoc(command.help or "")
        blocks.append(f"### `{command.get_usage(ctx).removeprefix('Usage: ')}`\n\n{about}\n\n{_options(rows)}")
    return "\n".join(blocks)


def _options(rows: Iterable[tuple[str, str]]) -> str:
    return _table(("option", "meaning"), [(f"`{_bar(spelling)}`", _cell(text)) for spelling, text in rows])


def exit_codes() -> str:
    return _table(("code", "meaning"), [(str(code), text) for code, text in exits.CODES.items()])


def layers() -> str:
    """The import contract as it stands in pyproject.toml, highest layer first."""
    contracts = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    found = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return "```\n" + "\n".join(layer.replace("bids_brainlm.", "").replace("*", "") for layer in found) + "\n```\n"


def modules() -> str:
    """Every module with the first sentence of its docstring, read without importing it."""
    paths = sorted(PACKAGE.rglob("*.py"), key=lambda path: (len(path.parts) > len(PACKAGE.parts) + 1, path))
    rows = [(path.relative_to(PACKAGE).as_posix(), _says(path)) for path in paths if path.name != "__init__.py"]
    return _table(("module", "what it is"), [(f"`{name}`", _cell(text)) for name, text in rows])


def _says(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    sentence = re.split(r"(?<=[a-z)`}])\. ", paragraph)[0]
    # Emphasis would be escaped, and means nothing in a single sentence.
    return re.sub(r"\*(\w+)\*", r"\1", sentence.replace("``", "`")).rstrip(".")


def api() -> str:
    """Public names of every room, with their signatures and the first paragraphs of their docstrings, read from the source."""
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if not {"data", "__init__.py"} & {*path.parts, path.name}]
    rooms: dict[str, list[str]] = {}
    for path in paths:
        name = path.relative_to(PACKAGE).as_posix()
        listed = [line for node in ast.parse(path.read_text("utf-8")).body for line in _public(node)]
        head = f"### [`{name}`](../../bids_brainlm/{name})\n\n{_escaped(_says(path))}.\n\n"
        rooms.setdefault(name.partition("/")[0] if "/" in name else "", []).append(head + "".join(listed) + "\n" * bool(listed))
    order = sorted(rooms, key=lambda room: ROOM_ORDER.index(room))
    return "\n".join(f"## {f'`{room}`' if room else 'Beside the rooms'}\n\n" + "".join(rooms[room]) for room in order)


ROOM_ORDER = (
    *(
        "insilico",
        "stages",
        "core",
        "io",
        "language",
        "models",
        "training",
        "evaluation",
        "simulation",
        "reports",
        "workflows",
        "cli",
    ),
    *("config", ""),
)
"""What a reader who wants to call something looks for first."""


def _public(node: ast.stmt, indent: str = "") -> list[str]:
    """Lines for a function or a class with its methods; none for anything else, or what is private."""
    if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
        return []
    text = " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
    told = f": {_escaped(text.replace('``', '`'))}" if text else ""
    if isinstance(node, ast.FunctionDef):
        return [f"{indent}- `{node.name}{_signature(node, method=bool(indent))}`{told}\n"]
    methods = [line for item in node.body for line in _public(item, f"{indent}  ")]
    return [f"{indent}- class `{node.name}{_fields_of(node)}`{told}\n", *methods]


def _signature(node: ast.FunctionDef, method: bool = False) -> str:
    kinds = {name.id for name in node.decorator_list if isinstance(name, ast.Name)}
    if "property" in kinds or "cached_property" in kinds:
        return f": {ast.unparse(node.returns)}" if node.returns else ""
    if method and "staticmethod" not in kinds:
        # The instance or class stands before the dot of the call.
        node.args.args = node.args.args[1:]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){returns}"


def _fields_of(node: ast.ClassDef) -> str:
    """Arguments of a class: those of its ``__init__``, else the fields of a dataclass, else none."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _signature(item, method=True).removesuffix(" -> None")
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
    names = [item.target.id for item in fields if isinstance(item.target, ast.Name) and not item.target.id.startswith("_")]
    return f"({', '.join(names)})" if node.decorator_list and names else ""


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*") if "`" not in text else text


def tokenizer_options() -> str:
    rows = []
    for name in tokenizers.names():
        factory = tokenizers.get(name)
        # A plug-in that happens to be installed is no part of this documentation.
        if factory.__module__.startswith("bids_brainlm."):
            options = inspect.signature(factory).parameters.items()
            rows += [(f"`{name}`", f"`{key}`", f"`{json.dumps(p.default)}`") for key, p in options if key not in GIVEN]
    return _table(("tokenizer", "option", "default"), rows)


def metric_list() -> str:
    rows = []
    for name in metrics.names():
        metric = get_metric(name)
        # As above; and a partial function has no module of its own.
        if getattr(metric.score, "func", metric.score).__module__.startswith("bids_brainlm."):
            needs = " and ".join(CONTEXT[key] for key in metric.context if CONTEXT[key])
            span = f"{metric.low:g} to {metric.high:g}"
            rows.append((f"`{name}`", metric.direction, span, metric.unit or "none", _cell(metric.reference), needs))
    return _table(("metric", "better", "range", "unit", "what it is", "needs"), rows)


CONTEXT = ENABLED_BY | {"stimuli": "", "frequencies": "", "facts": "a table of facts (`--facts`)"}
"""What a metric may need besides texts -> what gives it; empty where nothing has to be given."""


def preset_differences() -> str:
    """Settings in which cortext-small differs from cortext; phases of one name are compared, others shown whole."""
    trees = [as_tree(load(name)) for name in ("cortext", "cortext-small")]
    phases = [{phase["name"]: phase for phase in tree.pop("phases")} for tree in trees]
    shared = [name for name in phases[0] if name in phases[1]]
    flat = [_flat(tree) | _flat({f"phase {name}": own[name] for name in shared}) for tree, own in zip(trees, phases, strict=True)]
    for out, own in zip(flat, phases, strict=True):
        out |= {f"phase {name}": _told(phase) for name, phase in own.items() if name not in shared}
    names = [name for name in flat[0] | flat[1] if flat[0].get(name) != flat[1].get(name)]
    rows = [(f"`{name}`", *(f"`{json.dumps(tree[name])}`" if name in tree else "none" for tree in flat)) for name in names]
    return _table(("setting", "`cortext`", "`cortext-small`"), rows)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out


def _told(phase: Mapping[str, Any]) -> dict[str, Any]:
    """What a phase says beyond the defaults."""
    plain = dataclasses.asdict(Phase())
    return {key: value for key, value in phase.items() if key != "name" and value != json.loads(json.dumps(plain[key]))}


def _columns(columns: Mapping[str, str], head: str = "column") -> str:
    return _table((head, "meaning"), [(f"`{name}`", _cell(text)) for name, text in columns.items()])


def _bar(text: str) -> str:
    return text.replace("|", "\\|")


def _cell(text: str) -> str:
    return _bar(text).replace("*", "\\*").replace("  ", " ")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


PARTS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "command-line": command_line,
    "companion": companion_commands,
    "exit-codes": exit_codes,
    "decoded": partial(_columns, DECODED_COLUMNS),
    "metrics": partial(_columns, METRICS_COLUMNS),
    "surprise": partial(_columns, SURPRISE_COLUMNS),
    "effects": partial(_columns, EFFECTS_COLUMNS),
    "evidence": partial(_columns, EVIDENCE_COLUMNS),
    "confusion": partial(_columns, CONFUSION_COLUMNS),
    "questions": partial(_columns, QUESTIONS_COLUMNS),
    "answers": partial(_columns, ANSWERS_COLUMNS),
    "coverage": partial(_columns, COVERAGE_COLUMNS),
    "compare": partial(_columns, COMPARE_COLUMNS),
    "group": partial(_columns, GROUP_COLUMNS),
    "information": partial(_columns, INFORMATION_COLUMNS),
    "controls": partial(_columns, CONTROLS_COLUMNS),
    "where": partial(_columns, WHERE_COLUMNS),
    "attention": partial(_columns, ATTENTION_COLUMNS),
    "story": partial(_columns, STORY_COLUMNS),
    "reconstruction": partial(_columns, RECONSTRUCTION_COLUMNS),
    "trials": partial(_columns, TRIAL_COLUMNS),
    "words": partial(_columns, WORD_COLUMNS),
    "training": partial(_columns, HISTORY_COLUMNS),
    "layers": layers,
    "modules": modules,
    "api": api,
    "tokenizer-options": tokenizer_options,
    "preset-differences": preset_differences,
    "metric-list": metric_list,
    "asked": partial(_columns, ANSWER_COLUMNS, "name"),
    "parcels": partial(_columns, PARCEL_COLUMNS),
    "stimulation": partial(_columns, EFFECT_COLUMNS),
    "stimulation-doses": partial(_columns, DOSE_COLUMNS),
    "stimulation-captions": partial(_columns, CAPTION_COLUMNS),
    "ratings": partial(_columns, RATINGS_COLUMNS),
    "rating-key": partial(_columns, KEY_COLUMNS),
    "rating-sheet": partial(_columns, SHEET_COLUMNS),
    "text-figures": partial(_columns, FIGURES, "figure"),
}


if __name__ == "__main__":
    boutiques.write(DOCS.parent / "boutiques" / "descriptor.json")
    for path in sorted(DOCS.rglob("*.md")):
        path.write_text(page(path.read_text("utf-8")), "utf-8")
