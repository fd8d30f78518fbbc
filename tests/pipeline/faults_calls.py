"""Faults of a call: folders, the language model, settings, plug-ins, the group level."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults_case import CALL, ONE, FaultCase, copy_llm, cut, folder_in_place

WHOLE = "config.json, tokenizer files and *.safetensors"


def _llm(change: Callable[[Path], object]) -> Callable[[Any], list[str]]:
    def damage(study: Any) -> list[str]:
        folder, options = copy_llm(study)
        change(folder)
        return options

    return damage


def _no_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _another_kind(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}))


def _own_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config | own))


def _foreign_tokenizer(folder: Path) -> None:
    config = json.loads((folder / "tokenizer.json").read_text())
    names = [f"<extra{i}>" for i in range(500)]
    config["added_tokens"] += [
        {
            "id": 1000 + i,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, name in enumerate(names)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(config))


MODELS = [
    ("folder that is not there", shutil.rmtree, ("no such folder", "{root}/llm")),
    ("folder without a model", lambda folder: (folder / "config.json").unlink(), ("no config.json", "{root}/llm", WHOLE)),
    ("no weights", lambda folder: (folder / "model.safetensors").unlink(), ("no weights", "{root}/llm", WHOLE)),
    ("pickled weights", _pickled, ("pickled", "{root}/llm", "save_pretrained")),
    ("weights cut short", lambda folder: cut(folder / "model.safetensors"), ("damaged", "model.safetensors", "again")),
    (
        "weights of 0 bytes",
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        ("damaged", "model.safetensors", "again"),
    ),
    ("weights are a folder", lambda folder: folder_in_place(folder / "model.safetensors"), ("model.safetensors",)),
    ("no tokenizer", _no_tokenizer, ("no tokenizer", "{root}/llm", "save the tokenizer there too")),
    ("tokenizer of another model", _foreign_tokenizer, ("the tokenizer has token", "{root}/llm")),
    ("configuration that is not JSON", lambda folder: (folder / "config.json").write_text("{"), ("does not load", "{root}/llm")),
    ("model of another kind", _another_kind, ("not a causal language model", "{root}/llm")),
    ("model with code of its own", _own_code, ("never run", "{root}/llm")),
]


def _toml(text: str) -> Callable[[Any], list[str]]:
    def damage(study: Any) -> list[str]:
        path = study.root / "mine.toml"
        path.write_text(text)
        return ["--config-file", str(path)]

    return damage


SETTINGS: list[tuple[str, Any, tuple[str, ...], tuple[str, ...]]] = [
    ("unknown key in a TOML file", _toml('[input]\nspcae = "T1w"\n'), (), ("spcae", "did you mean 'input.space'?")),
    ("unknown table in a TOML file", _toml('[inputs]\nspace = "T1w"\n'), (), ("inputs", "input")),
    ("value of another type", _toml('[split]\nfolds = "five"\n'), (), ("split.folds", "five")),
    ("TOML that does not parse", _toml("[split\n"), (), ("mine.toml",)),
    ("unknown setting after --set", None, ("--set", "splits.folds=3"), ("splits",)),
    ("unknown option", None, ("--particpant-label", "01"), ("--participant-label",)),
    ("unknown tokenizer", None, ("--tokenizer", "parcelwide"), ("did you mean 'parcelwise'?",)),
    ("unknown metric", None, ("--metrics", "bleu1", "rouge"), ("did you mean 'rouge_l'",)),
    ("unknown estimator", None, ("--estimator", "las"), ("did you mean 'lss' or 'lsa'",)),
    ("unknown objective", None, ("--set", "phases.0.objective=entropy"), ("among the objectives",)),
    ("unknown option of the tokenizer", None, ("--set", "model.options={hiden = 3}"), ("hiden",)),
]


def _module(text: str) -> Callable[[Any], None]:
    """A module on the path, which `test_faults` adds."""

    def damage(study: Any) -> None:
        (study.root / "plugins").mkdir()
        (study.root / "plugins" / "brainlm_faulty.py").write_text(text)

    return damage


def _entry_point(study: Any) -> None:
    _module("import brainlm_needs_this\n")(study)
    about = study.root / "plugins" / "faulty-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[bids_brainlm.metrics]\nfaulty = brainlm_faulty:score\n")


ESTIMATOR = ("--estimator", "brainlm_faulty:estimate")
PLUGINS: list[tuple[str, Any, tuple[str, ...], tuple[str, ...]]] = [
    ("plug-in that is not installed", None, ESTIMATOR, ("brainlm_faulty:estimate", "No module named 'brainlm_faulty'")),
    (
        "plug-in that needs what is not installed",
        _module("import brainlm_needs_this\n"),
        ESTIMATOR,
        ("'brainlm_faulty:estimate'", "ModuleNotFoundError: No module named 'brainlm_needs_this'"),
    ),
    (
        "the same through an entry point",
        _entry_point,
        ("--metrics", "bleu1", "faulty"),
        ("brainlm_faulty:score (bids_brainlm.metrics)", "ModuleNotFoundError: No module named 'brainlm_needs_this'"),
    ),
    ("plug-in that does not parse", _module("def estimate(:\n"), ESTIMATOR, ("SyntaxError", "brainlm_faulty.py, line 1")),
    ("plug-in without that object", _module("def guess(): ...\n"), ESTIMATOR, ("AttributeError", "'estimate'")),
]


def _file_in_place_of_output(study: Any) -> None:
    (study.root / "file").write_text("")


def _read_only(study: Any) -> None:
    for path in sorted(study.bids.rglob("*"), reverse=True):
        path.chmod(0o500 if path.is_dir() else 0o400)


def _writable(study: Any, done: Any, plain: Any) -> None:
    """So that the temporary folder can be removed."""
    for path in [study.bids, *study.bids.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)


def _no_results(study: Any) -> None:
    shutil.rmtree(study.out)


CASES = [
    FaultCase(
        "Folders",
        "dataset that is not there",
        lambda study: shutil.rmtree(study.bids),
        66,
        ("{root}/bids", "bind-mount"),
        whose=CALL,
    ),
    FaultCase("Folders", "participant that is not there", code=66, words=("sub-99", "one of 01, 02"), whose=ONE, who="99"),
    FaultCase("Folders", "output equal to input", None, 2, ("{root}/bids",), whose=CALL, out="bids"),
    FaultCase("Folders", "output inside input", None, 2, ("{root}/bids/sub-01",), whose=CALL, out="bids/sub-01/out"),
    FaultCase(
        "Folders",
        "output inside derivatives that are read",
        None,
        2,
        ("derivatives/fmriprep",),
        whose=CALL,
        out="bids/derivatives/fmriprep",
    ),
    FaultCase("Folders", "work folder inside input", None, 2, ("{root}/bids/work", "-w"), whose=CALL, work="bids/work"),
    FaultCase("Folders", "output is a file", _file_in_place_of_output, 2, ("{root}/file is a file",), whose=CALL, out="file"),
    FaultCase("Folders", "work folder is a file", _file_in_place_of_output, 2, ("{root}/file",), whose=CALL, work="file"),
    FaultCase(
        "Folders",
        "disk full (no file beyond 3 kB)",
        None,
        73,
        ("cannot be written", "free space"),
        whose=CALL,
        out="other",
        work="other-work",
        limit=3_000,
    ),
    FaultCase(
        "Folders",
        "disk full in training (no file beyond 400 kB)",
        None,
        73,
        ("cannot be written", "{root}/work/checkpoints/sub-01_", "free space"),
        ("--set", "model.options={hidden = 4000}"),
        whose=ONE,
        limit=400_000,
    ),
    FaultCase("Folders", "input that nobody may write", _read_only, 0, same=True, check=_writable),
    FaultCase(
        "Folders", "task that is not there", code=66, words=("no task-listen", "look"), options=("--task-id", "listen"), whose=ONE
    ),
    FaultCase("Folders", "run that is not there", code=66, words=("no run-7",), options=("--run-id", "7"), whose=ONE),
    *(FaultCase("Language model", name, _llm(change), 69, words, whose=ONE) for name, change, words in MODELS),
    FaultCase(
        "Language model",
        "not on this machine, and offline",
        code=69,
        options=("--set", "model.llm=nobody/no-such-model"),
        words=("not on this machine", "hf download nobody/no-such-model"),
        whose=ONE,
    ),
    *(FaultCase("Settings", name, damage, 2, words, options, whose=CALL) for name, damage, options, words in SETTINGS),
    FaultCase(
        "Settings",
        "facts that are not there",
        code=66,
        options=("--set", "evaluate.facts=stimuli/none.tsv"),
        words=("none.tsv",),
        whose=ONE,
    ),
    *(FaultCase("Plug-ins", name, damage, 2, words, options, whose=CALL) for name, damage, options, words in PLUGINS),
    FaultCase("Group level", "no results", _no_results, 66, ("run the participant level first",), whose=CALL, level="group"),
]
