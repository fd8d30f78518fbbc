"""What every registered intervention must do: move brains, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainlm.core.types import Examples, Prompt, Recording
from bids_brainlm.registry import interventions

each = pytest.mark.parametrize("name", interventions.names())
forms = pytest.mark.parametrize("form", ["single", "windows", "repeats"])
N = 12
FORMS = {
    "single": np.arange(N),
    "windows": np.arange(2 * N).reshape(N, 2),
    "repeats": np.stack([np.arange(N), np.where(np.arange(N) % 3, np.arange(N) + N, -1)], axis=1)[:, None],
}


def examples(form: str, data: np.ndarray | None = None) -> Examples:
    data = np.random.default_rng(0).standard_normal((2 * N, 9)).astype(np.float32) * 3 + 5 if data is None else data
    names = np.array([f"s{i // 2}" for i in range(N)])
    return Examples(
        Recording(data, "percent signal change", "beta", np.arange(2 * N), np.zeros(2 * N, int), ("bids::x",)),
        FORMS[form],
        tuple(Prompt(f"question {i}", f"answer {i}") for i in range(N)),
        tuple((f"reference {i}", "another") if i < 2 else (f"reference {i}",) for i in range(N)),
        names,
        names,
        np.array([f"t{i}" for i in range(N)]),
    )


def responses(of: Examples) -> np.ndarray:
    return of.gather(np.arange(N))


@forms
@each
def test_texts_and_names_stay_and_brains_move(name: str, form: str) -> None:
    before = examples(form)
    original = responses(before)
    after = interventions.get(name)(before, 3)
    assert len(after) == N
    assert after.prompts == before.prompts
    assert after.references == before.references
    for field in ("id", "group", "stimulus"):
        np.testing.assert_array_equal(getattr(after, field), getattr(before, field))
    moved = responses(after)
    assert moved.shape == original.shape
    assert moved.dtype == np.float32
    assert np.isfinite(moved).all()
    assert (moved != original).any(axis=(1, 2)).all()
    # What was given is not touched.
    np.testing.assert_array_equal(responses(before), original)
    assert (after.recording.unit, after.recording.kind, after.recording.sources) == (
        "percent signal change",
        "beta",
        ("bids::x",),
    )


@forms
@each
def test_a_seed_decides_all_and_more_data_than_memory_will_do(name: str, form: str, tmp_path) -> None:
    np.save(tmp_path / "data.npy", examples(form).recording.data)
    mapped = np.load(tmp_path / "data.npy", mmap_mode="r")
    first = responses(interventions.get(name)(examples(form), 5))
    np.testing.assert_array_equal(responses(interventions.get(name)(examples(form, mapped), 5)), first)


@each
def test_parts_can_be_taken_in_any_order(name: str) -> None:
    after = interventions.get(name)(examples("single"), 1)
    np.testing.assert_array_equal(after.gather([7, 2, 7]), responses(after)[[7, 2, 7]])
    np.testing.assert_array_equal(after.take([7, 2]).gather([0, 1]), responses(after)[[7, 2]])


@forms
@each
def test_vertices_keep_their_mean_about(name: str, form: str) -> None:
    moved, original = (responses(of) for of in (interventions.get(name)(examples(form), 2), examples(form)))
    # The standard error of a mean of 12 is .87, the spread 3.
    np.testing.assert_allclose(moved.mean(axis=(0, 1)), original.mean(axis=(0, 1)), atol=3.5)
