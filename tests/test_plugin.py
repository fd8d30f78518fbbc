"""A plug-in package, installed in a folder of its own, is found by name in a fresh process."""

from __future__ import annotations

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
