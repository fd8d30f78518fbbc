"""Every setting, once: its name, default, meaning and flag.

The tree of frozen dataclasses below is the single source for the TOML files (presets, ``--config-file``), for the command
line options, for ``--set section.name=value`` and for the reference page. Order: preset < file < flags < ``--set``.
Nothing is checked late: `load` builds the whole tree and refuses unknown names (naming the near ones) and wrong types.

>>> config = load(overrides={"split.folds": "4", "split.scheme": "kfold"})
>>> config.split.folds
4
>>> load(overrides={"split.fold": "4"})
Traceback (most recent call last):
...
bids_brainlm.errors.ConfigError: no setting 'split.fold'; did you mean 'split.folds'?
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_brainlm.errors import ConfigError

PRESETS = importlib.resources.files("bids_brainlm") / "data" / "templates" / "presets"


def setting(default: Any, help: str, *flags: str, choices: tuple[str, ...] = (), bears: bool = True) -> Any:
    """A dataclass field with its documentation.

    Parameters
    ----------
    default : Any
    help : str
        One sentence, shown by ``--help`` and in the reference.
    *flags : str
        Command line spellings; a setting without one is reached by ``--set`` and TOML.
    choices : tuple of str
        The values allowed, when they are few.
    bears : bool
        Whether results depend on it; only such settings enter the hashes that decide what is computed again.
    """
    meta = {"help": help, "flags": flags, "choices": choices, "bears": bears}
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class Input:
    """Which recordings are used, and how they are cleaned."""

    space: str = setting(
        "fsaverage", "Space of the BOLD series: fsaverage (any density), T1w, MNI152NLin2009cAsym ...", "--space"
    )
    density: str = setting(
        "", "fsaverage density (3k, 10k, 41k, 164k) to bring surfaces to; empty keeps that of the files.", "--density"
    )
    sessions: tuple[str, ...] = setting((), "Sessions to use; all when empty.", "--session-label", "--session-id")
    tasks: tuple[str, ...] = setting((), "Tasks to use; all that have texts when empty.", "-t", "--task-id", "--task-label")
    runs: tuple[str, ...] = setting((), "Runs to use; all when empty.", "--run-id", "--run-label")
    confounds: tuple[str, ...] = setting(
        ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"),
        "Confound columns to regress out; * and ? are wildcards; a name that matches nothing is an error.",
        "-c", "--confounds",
    )  # fmt: skip
    dummy_scans: int = setting(
        -1, "Volumes to leave out at the start of a run; -1: those fMRIPrep marked non-steady-state.", "--dummy-scans"
    )


@dataclass(frozen=True)
class Estimate:
    """How one response a trial is estimated from the BOLD series of a run."""

    estimator: str = setting("lss", "Single-trial estimator.", "--estimator")
    hrf: str = setting("glover", "Haemodynamic response function.", "--hrf-model", choices=("glover", "spm"))
    high_pass: float = setting(0.0078125, "Cut-off of the cosine drift model in Hz.", "--high-pass")
    center: str = setting(
        "run",
        "Mean removed from every vertex, over all trials of a run or session; uses no labels.",
        choices=("run", "session", "none"),
    )


@dataclass(frozen=True)
class Parcels:
    """Which parcels become brain tokens."""

    atlas: str = setting(
        "Schaefer2018:100:7n",
        "Parcellation: kmeans100 (bundled), a TemplateFlow query Name:scale:segmentation, a file or folder, or blocks:N for a "
        "plain matrix.",
        "--atlas", "--atlases",
    )  # fmt: skip
    min_coverage: float = setting(0.5, "Smallest share of usable vertices for a parcel's mean to be written.", "--min-coverage")


@dataclass(frozen=True)
class Text:
    """Where the texts come from."""

    column: str = setting("", "Column of events.tsv that holds the text itself.", "--text-column")
    key: str = setting("", "Column of events.tsv that names the stimulus (stim_file, trial_type, ...).", "--key-column")
    table: str = setting(
        "", "TSV of texts joined to the key, relative to the BIDS folder; several rows a key are several references.", "--texts"
    )
    answer: str = setting("", "Column of the table that holds the text (caption or answer); discovered when empty.")
    question: str = setting("", "Column of the table that holds a question; none when empty and there is no column 'question'.")
    prompts: tuple[str, ...] = setting(
        ("Describe the following image.",),
        "Instruction(s) for texts that have no question of their own; drawn at random in training.",
        "--prompt",
    )


@dataclass(frozen=True)
class Splits:
    """Which examples are trained on, which choose the epoch, which are decoded."""

    group: str = setting(
        "stimulus", "What must not be shared between parts: stimulus, run, session, or a column of events.tsv.", "--group"
    )
    scheme: str = setting(
        "single",
        "single, kfold (pooled out-of-fold predictions), column, or list.",
        "--split",
        choices=("single", "kfold", "column", "list"),
    )
    folds: int = setting(5, "Number of folds for kfold; 0 leaves one group out at a time.", "--folds")
    test: float = setting(0.2, "Share of groups in the test set of a single split.")
    validation: float = setting(0.1, "Share of the remaining groups kept apart to choose the epoch.")
    source: str = setting(
        "",
        "For scheme column: a column of events.tsv holding train, validation, test. For list: a TSV with columns group, split.",
    )
    average: tuple[str, ...] = setting((), "Parts in which the repeats of a stimulus are averaged: train, validation, test.")


@dataclass(frozen=True)
class Model:
    """The language model, and how brain tokens enter it."""

    llm: str = setting(
        "Qwen/Qwen2.5-1.5B-Instruct",
        "Hugging Face name or folder of a causal language model.",
        "--llm",
        "--model-id",
        "--model-dir",
    )
    revision: str = setting("", "Revision (commit or tag) of the language model; the newest when empty.")
    style: str = setting("chat", "How prompt, brain tokens and answer are laid out.")
    tokenizer: str = setting("parcelwise", "Brain tokenizer.", "--tokenizer")
    options: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Options of the tokenizer.", "flags": (), "choices": (), "bears": True}
    )
    components: int = setting(0, "Principal components kept of the features; 0 keeps every vertex.")
    basis_variance: float = setting(0.97, "Share of variance of the training texts' token embeddings kept in the token basis.")
    basis_components: int = setting(921, "Largest number of components of the token basis.")
    vertex_dropout: float = setting(0.0, "Probability that a vertex is set to its mean in training.")
    vertex_noise: float = setting(0.0, "Standard deviation of Gaussian noise added to z-scored vertices in training.")
    lora_rank: int = setting(16, "Rank of LoRA.")
    lora_alpha: int = setting(16, "Scale of LoRA.")
    lora_dropout: float = setting(0.05, "Dropout of LoRA.")
    lora_targets: tuple[str, ...] = setting(("q", "v"), "Attention projections that get LoRA: q, k, v, o.")


GROUPS = ("tokenizer", "markers", "norms", "lora", "all")


@dataclass(frozen=True)
class Phase:
    """One stage of training: which parameter groups move, for how long, at which precision of the language model."""

    name: str = setting("phase", "Name, shown in curves and checkpoints.")
    train: tuple[str, ...] = setting(("tokenizer",), f"Parameter groups: {', '.join(GROUPS)}.")
    objective: str = setting("cross_entropy", "Objective.")
    epochs: int = setting(20, "Largest number of passes over the training examples.")
    patience: int = setting(0, "Epochs without a better validation loss before the phase ends; 0 never stops early.")
    learning_rate: float = setting(1e-3, "Peak learning rate.")
    schedule: str = setting("cosine", "Learning rate over the phase.", choices=("cosine", "constant"))
    warmup: float = setting(0.0, "Share of steps over which the learning rate rises linearly.")
    l2: float = setting(0.0, "Decoupled weight decay (AdamW) of the tokenizer.")
    batch_size: int = setting(25, "Examples a step.")
    accumulation: int = setting(1, "Batches whose gradients are summed before a step.")
    clip: float = setting(1.0, "Largest norm of the gradient; 0 for none.")
    precision: str = setting(
        "auto", "Precision of the language model: auto is bf16 on a GPU, fp32 on CPU.", choices=("auto", "fp32", "bf16", "nf4")
    )


@dataclass(frozen=True)
class Decode:
    """How text is generated and scored."""

    max_new_tokens: int = setting(32, "Longest generated text, in tokens.")
    beams: int = setting(1, "Beams; 1 is greedy.")
    repetition_penalty: float = setting(1.0, "Penalty on tokens already generated; 1 for none.")
    permutations: int = setting(100, "Permuted brains that each text is scored with.", "--permutations")
    batch_size: int = setting(50, "Examples decoded together.")


@dataclass(frozen=True)
class Evaluate:
    """Which figures are reported."""

    metrics: tuple[str, ...] = setting(
        ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "wer", "facts"), "Metrics of generated text.", "--metrics"
    )
    facts: str = setting(
        "",
        "TSV of facts, relative to the BIDS folder: a key column and one column a factor with the word(s) that name it.",
        "--facts",
    )
    bootstrap: int = setting(2000, "Bootstrap samples behind the 95 % intervals.")
    readout: tuple[str, ...] = setting(("ridge", "logistic"), "Linear readouts of the facts from the same betas, for comparison.")


@dataclass(frozen=True)
class Run:
    """How the work is carried out; nothing here changes a result but the seed."""

    random_seed: int = setting(42, "Seed of everything random.", "--random-seed", "--seed")
    device: str = setting("auto", "Device to train and decode on.", "--device", choices=("auto", "cpu", "cuda"), bears=False)
    offline: bool = setting(False, "Never look for models or templates on the network.", "--offline", bears=False)
    nprocs: int = setting(0, "Processes in all; 0 uses every core.", "--nprocs", "--nthreads", "--n-cpus", bears=False)
    omp_nthreads: int = setting(1, "Threads of one process.", "--omp-nthreads", bears=False)
    memory: float = setting(
        0.0, "Memory in GB that the workflow may plan with; 0 takes 90 % of the machine's.", "--mem", "--mem-gb", bears=False
    )
    stop_on_first_crash: bool = setting(
        False, "Stop at the first failure instead of finishing the other participants.", "--stop-on-first-crash", bears=False
    )


@dataclass(frozen=True)
class Config:
    """The whole tree."""

    input: Input = field(default_factory=Input)
    estimate: Estimate = field(default_factory=Estimate)
    parcels: Parcels = field(default_factory=Parcels)
    text: Text = field(default_factory=Text)
    split: Splits = field(default_factory=Splits)
    model: Model = field(default_factory=Model)
    phases: tuple[Phase, ...] = ()
    decode: Decode = field(default_factory=Decode)
    evaluate: Evaluate = field(default_factory=Evaluate)
    run: Run = field(default_factory=Run)


SECTIONS: dict[str, type[Any]] = {
    "input": Input,
    "estimate": Estimate,
    "parcels": Parcels,
    "text": Text,
    "split": Splits,
    "model": Model,
    "decode": Decode,
    "evaluate": Evaluate,
    "run": Run,
}


@dataclass(frozen=True)
class Request:
    """One call of the command line: what to work on, where, and how.

    Parameters
    ----------
    bids_dir, out_dir, work_dir : Path
        Raw dataset, derivatives dataset that is written, and folder for what may be thrown away; all absolute.
    level : {"participant", "group"}
    participants : tuple of str
        Labels without ``sub-``, as asked for; all of the dataset when empty.
    derivatives : dict of str to Path
        Folders given by ``-d name=path``; empty when none was given.
    config : Config
    verbosity : int
        Number of ``-v`` minus number of ``-q``.
    reports_only : bool
        Write the reports again from the outputs that are there.
    """

    bids_dir: Path
    out_dir: Path
    level: str
    participants: tuple[str, ...]
    derivatives: dict[str, Path]
    work_dir: Path
    config: Config
    verbosity: int = 0
    reports_only: bool = False


@dataclass(frozen=True)
class Outcome:
    """How the work on one participant ended: ``error`` is empty and ``exit_code`` 0 when all is well."""

    participant: str
    error: str = ""
    exit_code: int = 0


def settings() -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """Every setting of every section but the phases: (dotted name, dataclass field, type)."""
    for section, cls in SECTIONS.items():
        hints = typing.get_type_hints(cls)
        for item in dataclasses.fields(cls):
            yield f"{section}.{item.name}", item, hints[item.name]


def presets() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(p.name.removesuffix(".toml") for p in PRESETS.iterdir() if p.name.endswith(".toml"))


def load(
    recipe: str = "cortext",
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Config:
    """Resolve the configuration.

    Parameters
    ----------
    recipe : str
        Name of a preset, or the path of a TOML file that stands in for one.
    file : Path, optional
        TOML file whose values win over the preset's.
    flags : mapping of dotted names to values, optional
    overrides : mapping of dotted names to text, optional
        ``--set``: values in TOML syntax, bare words being strings; ``phases.0.epochs=3`` reaches into the phases.

    Raises
    ------
    ConfigError
        For an unknown name or a value of the wrong type, with the place it came from.
    """
    tree = _read_recipe(recipe)
    _located(tree, f"recipe {recipe}")
    if file is not None:
        values = _read_toml(file)
        _located(values, str(file))
        _merge(tree, values, str(file))
    for name, value in (flags or {}).items():
        _put(tree, name, value)
    for name, text in (overrides or {}).items():
        _put(tree, name, _parse(name, text))
    return build(tree)


def build(tree: Mapping[str, Any]) -> Config:
    """Nested dictionaries, as TOML gives them, -> validated `Config`."""
    config = _assemble(tree)
    _check(config)
    return config


def _assemble(tree: Mapping[str, Any]) -> Config:
    """Names and types are checked here; what settings say of each other in `_check`."""
    known = [*SECTIONS, "phases"]
    for name in tree:
        if name not in known:
            raise ConfigError(f"no section {name!r}{_near(name, known)}")
    parts: dict[str, Any] = {name: _section(name, cls, tree.get(name, {})) for name, cls in SECTIONS.items()}
    phases = tree.get("phases", ())
    if not isinstance(phases, (list, tuple)):
        raise ConfigError(f"phases is {phases!r}; expected a list of tables, [[phases]] in TOML")
    parts["phases"] = tuple(_section(f"phases.{i}", Phase, item) for i, item in enumerate(phases))
    return Config(**parts)


def _located(tree: Mapping[str, Any], where: str) -> None:
    """Refuse wrong names and types of one source by itself, so that the message can say where they stand."""
    try:
        _assemble(tree)
    except ConfigError as error:
        raise ConfigError(f"{error} (in {where})") from error


def as_tree(config: Config) -> dict[str, Any]:
    """The inverse of `build`: plain dictionaries and lists."""
    tree: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return tree


def bearing(config: Config, *sections: str) -> dict[str, Any]:
    """Settings of some sections that bear on results, as plain data to be hashed."""
    tree = as_tree(config)
    for name, item, _ in settings():
        if not item.metadata["bears"]:
            section, _, key = name.partition(".")
            tree[section].pop(key)
    return {section: tree[section] for section in sections}


def to_toml(config: Config) -> str:
    """TOML text that `load` reads back to the same configuration."""
    tree = as_tree(config)
    lines: list[str] = []
    for section in SECTIONS:
        lines += [f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in tree[section].items()), ""]
    for phase in tree["phases"]:
        lines += ["[[phases]]", *(f"{key} = {_toml(value)}" for key, value in phase.items()), ""]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        keys = [key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key) for key in value]
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in zip(keys, value.values(), strict=True)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # JSON and TOML write strings and numbers alike, but for the one control character that JSON leaves bare.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _read_recipe(recipe: str) -> dict[str, Any]:
    if recipe in presets():
        return tomllib.loads((PRESETS / f"{recipe}.toml").read_text("utf-8"))
    if recipe.endswith(".toml"):
        return _read_toml(Path(recipe))
    raise ConfigError(
        f"no recipe {recipe!r}{_near(recipe, presets())}; known: {', '.join(presets())}, or the path of a .toml file"
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {path} is not valid TOML: {error}") from error


def _merge(tree: dict[str, Any], other: Mapping[str, Any], where: str) -> None:
    for section, values in other.items():
        if isinstance(values, dict):
            if not isinstance(tree.setdefault(section, {}), dict):
                raise ConfigError(f"{section!r} in {where} is a table; expected a list of tables")
            tree[section].update(values)
        else:
            tree[section] = values


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
    section, _, key = name.partition(".")
    if section == "phases":
        index, _, key = key.partition(".")
        phases = tree.setdefault("phases", [])
        if not index.isdigit() or int(index) >= len(phases):
            raise ConfigError(f"no setting {name!r}; expected phases.N.name with N from 0 to {len(phases) - 1}")
        phases[int(index)][key] = value
        return
    if section in SECTIONS and key.startswith("options."):
        tree.setdefault(section, {}).setdefault("options", {})[key.removeprefix("options.")] = value
        return
    names = [known for known, _, _ in settings()]
    if name not in names:
        raise ConfigError(f"no setting {name!r}{_near(name, names)}")
    tree.setdefault(section, {})[key] = value


def _parse(name: str, text: str) -> Any:
    """Value of ``--set name=text``; for a setting that is text, only quotes and brackets are syntax (a revision may read 1e5)."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, (str, list, dict)) or not _is_text(name) else text


def _is_text(name: str) -> bool:
    section, _, key = name.partition(".")
    kinds = {"phases": Phase, **SECTIONS}.get(section)
    return kinds is not None and typing.get_type_hints(kinds).get(key.rpartition(".")[2]) in (str, tuple[str, ...])


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _section(name: str, cls: type[Any], values: Any) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{name} is {values!r}; expected a table of settings")
    hints, fields = typing.get_type_hints(cls), {item.name: item for item in dataclasses.fields(cls)}
    out = {}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=2)
            hint = f"; did you mean {' or '.join(repr(f'{name}.{item}') for item in near)}?" if near else ""
            raise ConfigError(f"no setting '{name}.{key}'{hint}")
        out[key] = _coerce(f"{name}.{key}", value, hints[key])
        choices = fields[key].metadata["choices"]
        if choices and out[key] not in choices:
            raise ConfigError(f"{name}.{key} is {out[key]!r}; expected one of {', '.join(choices)}")
    return cls(**out)


def _coerce(name: str, value: Any, kind: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_coerce(name, item, typing.get_args(kind)[0]) for item in items)
    if origin is dict:
        if isinstance(value, Mapping) and _is_plain(value):
            return dict(value)
    elif kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ConfigError(f"{name} is {value}; expected a finite number")
        return float(value)
    elif kind is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    elif isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
        return value
    label = kind.__name__ if isinstance(kind, type) and not isinstance(kind, types.GenericAlias) else str(kind)
    raise ConfigError(f"{name} is {value!r}; expected {label}")


def _is_plain(value: Any) -> bool:
    """Whether JSON holds it: no dates, no infinities."""
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))


def _check(config: Config) -> None:
    for i, phase in enumerate(config.phases):
        for group in phase.train:
            if group not in GROUPS:
                raise ConfigError(
                    f"phases.{i}.train names the group {group!r}{_near(group, list(GROUPS))}; known: {', '.join(GROUPS)}"
                )
        if phase.epochs < 1 or phase.batch_size < 1 or phase.accumulation < 1:
            raise ConfigError(f"phases.{i}: epochs, batch_size and accumulation must be at least 1")
    for part in config.split.average:
        if part not in ("train", "validation", "test"):
            raise ConfigError(f"split.average names {part!r}; expected train, validation or test")
    ranges = {
        "split.test": (config.split.test, 0.0, 1.0),
        "split.validation": (config.split.validation, 0.0, 1.0),
        "model.vertex_dropout": (config.model.vertex_dropout, 0.0, 1.0),
        "parcels.min_coverage": (config.parcels.min_coverage, 0.0, 1.0),
    }
    for name, (value, low, high) in ranges.items():
        if not low <= value < high and not (name == "parcels.min_coverage" and value == high):
            raise ConfigError(f"{name} is {value}; expected at least {low} and below {high}")
    if config.input.density not in ("", "3k", "10k", "41k", "164k"):
        raise ConfigError(f"input.density is {config.input.density!r}; expected 3k, 10k, 41k or 164k")
    if config.split.scheme in ("column", "list") and not config.split.source:
        wanted = "column" if config.split.scheme == "column" else "file"
        raise ConfigError(f"split.scheme is {config.split.scheme!r}, but split.source names no {wanted}")
