"""What concerns choices before and after they are made: the library that is read, and what bears on which key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bids_brainlm.config.tree import Estimate
from bids_brainlm.core.tuning import HRF_CHOICES
from bids_brainlm.errors import InputError
from bids_brainlm.io.runfiles import RunFiles
from bids_brainlm.stages.plan import own_settings
from bids_brainlm.stages.tune import options_of, read_library, tuned


def _table(path: Path, times: Any, **columns: Any) -> Path:
    rows = zip(times, *columns.values(), strict=True)
    path.write_text("\n".join(["\t".join(["time", *columns]), *("\t".join(map(str, row)) for row in rows)]) + "\n")
    return path


def test_a_library_is_scaled_to_sum_one(tmp_path: Path) -> None:
    path = _table(tmp_path / "l.tsv", [0, 0.5, 1.0, 1.5], early=[0, 4, 2, -2], late=[0, 0, 1, 1])
    library, step = read_library(path)
    assert step == 0.5
    np.testing.assert_allclose(library, [[0, 1, 0.5, -0.5], [0, 0, 0.5, 0.5]])


@pytest.mark.parametrize(
    ("times", "columns", "words"),
    [
        ([0, 1, 3], {"a": [0, 1, 1]}, "times 0, 1 ... 3 s"),
        ([1, 2, 3], {"a": [0, 1, 1]}, "times 1, 2 ... 3 s"),
        ([0, 1, 2], {}, "columns time"),
        ([0, 1, 2], {"a": [0, "x", 1]}, "a holds what is no number"),
        ([0, 1, 2], {"a": [0, 1, 1], "b": [1, -2, 0]}, "b has no positive area"),
    ],
)
def test_what_is_no_library_is_refused(tmp_path: Path, times: Any, columns: Any, words: str) -> None:
    with pytest.raises(InputError, match=r"l\.tsv") as caught:
        read_library(_table(tmp_path / "l.tsv", times, **columns))
    assert words in str(caught.value)


def test_options_come_from_the_settings(make_request: Callable[..., Any], tmp_path: Path) -> None:
    path = _table(tmp_path / "l.tsv", [0, 0.2, 0.4], a=[0, 1, 1])
    names = ("estimate.hrf_library", str(path), "estimate.max_components", "3", "run.omp_nthreads", "2")
    options = options_of(make_request(*names))
    assert (options.step, options.max_components, options.threads) == (0.2, 3, 2)
    assert options.shapes.shape == (1, 3)


def test_every_choice_of_the_setting_is_one_of_the_estimators() -> None:
    assert Estimate.__dataclass_fields__["hrf_choice"].metadata["choices"] == HRF_CHOICES


@pytest.mark.parametrize(("name", "expected"), [("lss", False), ("lsa", False), ("hrf", True), ("auto", True), ("nobody", False)])
def test_who_chooses(make_request: Callable[..., Any], name: str, expected: bool) -> None:
    assert tuned(make_request("estimate.estimator", name)) is expected


def _differ(make_request: Callable[..., Any], run: RunFiles, estimator: str, name: str, value: str) -> bool:
    base = ("estimate.estimator", estimator)
    return own_settings(make_request(*base), run) != own_settings(make_request(*base, name, value), run)


@pytest.mark.parametrize(
    ("estimator", "name", "value", "bears"),
    [
        ("lss", "estimate.hrf_choice", "cv", False),
        ("lss", "estimate.tune_on", "train", False),
        ("lss", "estimate.noise_model", "ar1", True),
        ("lss", "input.projection", "none", False),
        ("lss", "input.depths", "3", False),
        ("auto", "estimate.hrf_choice", "cv", True),
        ("auto", "estimate.max_components", "3", True),
        ("auto", "estimate.hrf", "spm", True),
        ("auto", "input.density", "3k", True),
    ],
)
def test_only_what_bears_on_responses_is_in_their_key(
    make_request: Callable[..., Any], make_run: Callable[..., RunFiles], estimator: str, name: str, value: str, bears: bool
) -> None:
    assert _differ(make_request, make_run("onset\tduration\n0\t1\n"), estimator, name, value) is bears
