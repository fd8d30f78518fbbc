"""Responses of all runs one after the other, in memory or in scratch: the same values, and no file of the user's is touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.config import Request
from bids_brainlm.core.features import center, fit_affine
from bids_brainlm.errors import ConfigError
from bids_brainlm.stages.examples import recording_of
from bids_brainlm.stages.resources import IN_MEMORY
from bids_brainlm.stages.responses import atlas_of, load_trials

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


@pytest.mark.parametrize("low_mem", ["false", "true"])
@pytest.mark.parametrize("name", ["", "sub-1_run-0_betas.npy"], ids=["two", "one"])
def test_vertices_of_other_parcels_are_in_nothing(
    betas: tuple[Path, np.ndarray], make_request: Callable[..., Request], low_mem: str, name: str
) -> None:
    folder, data = betas
    before = (folder / "sub-1_run-0_betas.npy").read_bytes()
    settings = ("run.low_mem", low_mem, "parcels.atlas", "blocks:10", "parcels.only", "['*2', '*7']")
    request = make_request(*settings, derivatives={"betas": folder / name})
    trials = load_trials(request, "1")
    atlas = atlas_of(request, trials.geometry)
    assert len(atlas.names) == 2
    (own,) = np.nonzero(atlas.labels)
    assert own.size == 2 * V // 10
    wanted = np.full_like(data, np.nan)
    wanted[:, own] = data[:, own]
    np.testing.assert_array_equal(trials.data, wanted[: len(trials.data)])
    assert (folder / "sub-1_run-0_betas.npy").read_bytes() == before
    # What is not finite is in no feature: the map of all rows has weight on no other vertex.
    affine = fit_affine(recording_of(trials, request.config), np.arange(len(trials.data)), 3)
    assert np.flatnonzero(affine.scale).tolist() == own.tolist()
    assert affine.components is not None
    assert set(np.flatnonzero(affine.components.any(axis=1))) <= set(own)


def test_a_parcel_that_is_not_there_is_named(betas: tuple[Path, np.ndarray], make_request: Callable[..., Request]) -> None:
    request = make_request("parcels.atlas", "blocks:12", "parcels.only", "['visual']", derivatives={"betas": betas[0]})
    with pytest.raises(ConfigError, match=r"parcels\.only: no parcel of .* is named 'visual'; there are .* and 2 more$"):
        load_trials(request, "1")
