"""``brainlm``: thin shells whose defaults are those of the functions below them."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from bids_brainlm import __version__
from bids_brainlm.cli import companion
from bids_brainlm.core.types import Prompt
from bids_brainlm.errors import InputError


@pytest.mark.parametrize(
    ("name", "module", "function"),
    [
        *(("simulate", module, "simulate") for module in companion.PARADIGMS.values()),
        ("make-lm", "bids_brainlm.simulation.language_model", "make_lm"),
    ],
)
def test_defaults_are_those_of_the_function(name: str, module: str, function: str) -> None:
    target = getattr(importlib.import_module(module), function)
    defaults = {key: item.default for key, item in inspect.signature(target).parameters.items()}
    options = {option.name: option for option in companion.command.commands[name].params if isinstance(option, click.Option)}
    for key, option in options.items():
        # An option without a default of its own leaves it to the function; its help says so in words.
        if option.default is not None and key != "paradigm":
            assert option.default == defaults[key], key
        elif key in defaults and defaults[key] is not None:
            assert str(defaults[key]) in str(option.show_default), key
    assert set(defaults) - {"out"} <= set(options) or name == "make-lm"


def test_an_option_of_another_paradigm_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert companion.main(["simulate", str(tmp_path / "x"), "--paradigm", "story", "--trials", "5"]) == 2
    assert "--trials does not go with --paradigm story" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_simulate_passes_its_options_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, Any] = {}

    def fake(out: Path, *, snr: float, hrf_variability: float, participants: int, tr: float, seed: int, space: str) -> str:
        seen.update(snr=snr, hrf_variability=hrf_variability, participants=participants, out=out)
        return "split-half reliability 0.3"

    monkeypatch.setitem(sys.modules, "bids_brainlm.simulation.dataset", SimpleNamespace(simulate=fake))
    assert companion.main(["simulate", str(tmp_path / "x"), "--snr", "0", "--hrf_variability", "0.2", "--participants", "3"]) == 0
    assert seen["out"] == tmp_path / "x"
    assert (seen["snr"], seen["hrf_variability"], seen["participants"]) == (0, 0.2, 3)
    assert capsys.readouterr().out == "split-half reliability 0.3\n"


def test_make_lm_takes_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: dict[str, Any] = {}
    texts = {"a.tsv": [Prompt("", "a dog"), Prompt("", "a cat")], "b.txt": [Prompt("", "a bird")]}
    for name in texts:
        (tmp_path / name).touch()
    fake = SimpleNamespace(
        read_texts=lambda path: texts[path.name],
        balanced=lambda sources: [prompt for source in sources for prompt in source],
        make_lm=lambda prompts, out, **options: seen.update(options, prompts=prompts, out=out),
    )
    monkeypatch.setitem(sys.modules, "bids_brainlm.simulation.language_model", fake)
    assert (
        companion.main(["make-lm", str(tmp_path / "a.tsv"), str(tmp_path / "b.txt"), str(tmp_path / "llm"), "--steps", "5"]) == 0
    )
    assert seen["prompts"] == [*texts["a.tsv"], *texts["b.txt"]]
    assert (seen["out"], seen["steps"]) == (tmp_path / "llm", 5)
    assert capsys.readouterr().out == f"language model of 3 texts: {tmp_path / 'llm'}\n"


def test_a_fault_ends_as_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fake(out: Path, participants: int, tr: float, snr: float, hrf_variability: float, seed: int, space: str) -> str:
        raise InputError("the folder is not empty", out, remedy="choose another")

    monkeypatch.setitem(sys.modules, "bids_brainlm.simulation.dataset", SimpleNamespace(simulate=fake))
    assert companion.main(["simulate", str(tmp_path)]) == 65
    assert (
        capsys.readouterr().err.strip() == f"brainlm: the folder is not empty: {tmp_path} (remedy: choose another) [exit code 65]"
    )
    assert companion.main(["-v", "-v", "simulate", str(tmp_path)]) == 65
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [["simulate"], ["simulate", "x", "--snr", "-1"], ["simulate", "x", "--tr", "0"], ["simulat", "x"], ["make-lm", "o"]]
)
def test_bad_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert companion.main(argv) == 2
    assert capsys.readouterr().err.strip()


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys; from bids_brainlm.cli.companion import main; main(['--version']); main(['simulate', '--help']); "
        "assert not {'torch', 'numpy', 'nilearn', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"brainlm v{__version__}\nUsage: brainlm simulate")
