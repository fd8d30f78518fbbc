"""A plug-in package, installed in a folder of its own, is found by name in a fresh process."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "plugin"


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the example plug-in installed (its files and its metadata), to be put on ``PYTHONPATH``."""
    target = tmp_path_factory.mktemp("plugin")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--disable-pip-version-check", "--target", target, PACKAGE], check=True, stdin=subprocess.DEVNULL)
    return target


def _python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


METRIC = """
from bids_brainlm import registry
from bids_brainlm.evaluation import metrics
assert "word_overlap" in registry.metrics.names()
print(*metrics.get("word_overlap")(["a dog runs", "cat"], [("the dog sits", "a dog"), ("dog",)]))
"""

TOKENIZER = """
import numpy as np, torch
from bids_brainlm import registry
tokenizer = registry.tokenizers.get("pooled")(n_rows=2, labels=np.array([0, 1, 1, 3]), width=5, basis=None, n_tokens=3)
features = torch.tensor([[[9.0, 1.0, 3.0, 4.0]] * 2, [[-9.0, 2.0, 2.0, 4.0]] * 2])
tokens = tokenizer(features)
assert tokens.shape == (2, tokenizer.n_tokens, 5), tokens.shape
assert torch.equal(tokens[0], tokens[1])
print(*registry.tokenizers.names())
"""


def test_a_metric_of_the_plug_in_scores_texts(plugin: Path) -> None:
    done = _python(METRIC, plugin)
    assert done.returncode == 0, done.stderr
    assert [float(value) for value in done.stdout.split()] == pytest.approx([2 / 3, 0.0])


def test_a_tokenizer_of_the_plug_in_makes_tokens(plugin: Path) -> None:
    done = _python(TOKENIZER, plugin)
    assert done.returncode == 0, done.stderr
    assert {"pooled", "parcelwise", "mlp"} <= set(done.stdout.split())


def test_without_the_plug_in_its_names_are_unknown() -> None:
    done = _python(METRIC)
    assert done.returncode != 0
    assert "word_overlap" not in done.stdout


def _run(command: str, *args: object, plugin: Path, folder: Path) -> str:
    code = f"import sys; from bids_brainlm.cli.{command} import main; sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"PYTHONPATH": str(plugin), "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(
        argv, capture_output=True, text=True, env=environment, cwd=folder, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_command_line_trains_and_judges_with_the_plug_in(plugin: Path, tmp_path: Path) -> None:
    simulated = "simulate bids --participants 1 --runs 3 --trials 45 --repeats 1 --space T1w"
    _run("companion", *simulated.split(), plugin=plugin, folder=tmp_path)
    corpus = "make-lm bids/derivatives/simulation/corpus.tsv llm --steps 5 --width 32 --layers 1"
    _run("companion", *corpus.split(), plugin=plugin, folder=tmp_path)
    command = (
        "bids out participant --llm llm --offline --texts stimuli/captions.tsv --key-column stim_id --split column --space T1w "
        "--atlas bids/derivatives/simulation/atlas/space-T1w_atlas-cubes_dseg.nii.gz --nprocs 1 --tokenizer pooled "
        "--metrics bleu1 word_overlap --set split.source=split model.options={n_tokens=3} phases.0.epochs=1 phases.1.epochs=1 "
        "decode.permutations=3 decode.max_new_tokens=4"
    )
    _run("app", *command.split(), plugin=plugin, folder=tmp_path)
    with next((tmp_path / "out" / "sub-01" / "beh").glob("*_desc-metrics_beh.tsv")).open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["metric"] == "word_overlap"]
    assert {row["condition"] for row in rows} == {"true", "permuted", "none"}
    assert all(0 <= float(row["value"]) <= 1 for row in rows)
    assert "pooled" in next((tmp_path / "out" / "sub-01" / "model").glob("*.json")).read_text("utf-8")
