"""Readouts go through the responses some vertices at a time, and name what they would name with all in memory."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.core.types import Examples, Prompt, Recording, Split
from bids_brainlm.evaluation.metrics import Facts
from bids_brainlm.evaluation.readout import readout
from bids_brainlm.stages import evaluate

N, V = 48, 37


def split() -> tuple[Split, Facts]:
    """Two rows of three repeats each; a fact that all stimuli have and one that some lack."""
    rng = np.random.default_rng(0)
    names = np.array([f"s{i}" for i in range(N)])
    facts = pd.DataFrame({"key": names, "kind": np.where(np.arange(N) % 2, "cat", "dog"), "size": np.arange(N) % 3})
    facts["size"] = np.where(np.arange(N) % 5 == 0, "", facts["size"].astype(str))
    data = rng.standard_normal((6 * N, V), dtype=np.float32)
    data += np.repeat(np.arange(N) % 2, 6)[:, None] * rng.standard_normal(V) + 3
    data[7, 3] = np.nan
    recording = Recording(data, "percent signal change", "beta", np.arange(6 * N), np.zeros(6 * N))
    rows = np.arange(6 * N).reshape(N, 2, 3)
    rows[::2, :, 2] = -1
    examples = Examples(recording, rows, (Prompt("", "x"),) * N, (("x",),) * N, names, names, names)
    return Split(examples, np.arange(30), np.arange(0), np.arange(30, N)), Facts.from_frame(facts, "key")


@pytest.mark.parametrize("panel_bytes", [4 * 2 * 30 * 5, 2**28])
def test_readouts_in_panels_equal_readouts_in_memory(panel_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fold, facts = split()
    monkeypatch.setattr(evaluate, "PANEL_BYTES", panel_bytes)
    found = evaluate._read_out([fold], facts, ("ridge", "logistic"), 0)
    x, labels = fold.examples.gather(np.arange(N)).reshape(N, -1), facts.labels(fold.examples.stimulus)
    for kind, columns in found.items():
        for own, said in zip(labels.T, columns.T, strict=True):
            known = fold.train[own[fold.train] != ""]
            expected = readout(x[known], own[known], x[fold.test], kind, fold.examples.group[known])
            np.testing.assert_array_equal(said, expected)
        assert (columns[:, 0] == labels[fold.test, 0]).mean() > 0.9


def test_readouts_are_fitted_to_a_bounded_number_of_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    fold, facts = split()
    monkeypatch.setattr(evaluate, "MOST", 20)
    assert evaluate._some(np.arange(20), 0).tolist() == list(range(20))
    some = evaluate._some(fold.train, 0)
    assert (some.size, np.unique(some).size) == (20, 20)
    assert evaluate._read_out([fold], facts, ("ridge",), 0)["ridge"].shape == (18, 2)
