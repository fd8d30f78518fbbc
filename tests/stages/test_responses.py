"""Responses of all runs one after the other, in memory or in scratch: the same values, and no file of the user's is touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.config import Request
from bids_brainlm.core.features import center
from bids_brainlm.stages.examples import recording_of
from bids_brainlm.stages.resources import IN_MEMORY
from bids_brainlm.stages.responses import load_trials

N, V = 40, 3000
MEGABYTES = 4 * 2 * N * V / 2**20 / IN_MEMORY
"""Memory of which two runs take just the share that may stay there."""


@pytest.fixture
def betas(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Two runs of a participant, the second saved in double precision."""
    folder, data = tmp_path / "betas", np.random.default_rng(0).standard_normal((2 * N, V), dtype=np.float32)
    folder.mkdir()
    for run, dtype in enumerate((np.float32, np.float64)):
        np.save(folder / f"sub-1_run-{run}_betas.npy", data[run * N : (run + 1) * N].astype(dtype))
        table = pd.DataFrame({"onset": np.arange(N) * 4, "stimulus": np.arange(N) % 5})
        table.to_csv(folder / f"sub-1_run-{run}_trials.tsv", sep="\t", index=False)
    return folder, data


@pytest.mark.parametrize(
    ("memory", "low_mem", "mapped"),
    [(1.01 * MEGABYTES, "false", False), (0.99 * MEGABYTES, "false", True), (2 * MEGABYTES, "true", True)],
    ids=["small", "large", "low-mem"],
)
def test_large_responses_lie_in_scratch(
    betas: tuple[Path, np.ndarray], make_request: Callable[..., Request], memory: float, low_mem: str, mapped: bool
) -> None:
    folder, data = betas
    settings = ("run.memory", f"{memory:.4f}", "run.low_mem", low_mem, "estimate.center", "run")
    request = make_request(*settings, derivatives={"betas": folder})
    trials = load_trials(request, "1")
    assert isinstance(trials.data, np.memmap) == mapped
    assert (trials.scratch is not None) == mapped
    assert trials.data.dtype == np.float32
    np.testing.assert_array_equal(trials.data, data)
    centred = recording_of(trials, request.config).data
    assert isinstance(centred, np.memmap) == mapped
    # In scratch nothing as large is made beside it.
    assert np.shares_memory(centred, trials.data) == mapped
    np.testing.assert_array_equal(centred, center(data, np.repeat([0, 1], N)))
    assert not mapped or list((request.work_dir / "low-mem").iterdir()) == []


def test_a_matrix_of_the_user_is_neither_copied_nor_changed(
    betas: tuple[Path, np.ndarray], make_request: Callable[..., Request]
) -> None:
    folder, data = betas
    path = folder / "sub-1_run-0_betas.npy"
    before = path.read_bytes()
    request = make_request("run.low_mem", "true", "estimate.center", "run", derivatives={"betas": path})
    trials: Any = load_trials(request, "1")
    assert trials.data.filename == path
    centred = recording_of(trials, request.config).data
    np.testing.assert_array_equal(centred, center(data[:N], np.zeros(N)))
    assert path.read_bytes() == before
