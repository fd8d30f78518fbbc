"""Decoding under three conditions: what each condition shows to the model, and what the table says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from bids_brainlm.core.interventions import partners
from bids_brainlm.core.types import CONDITIONS, DECODED_COLUMNS, Examples
from bids_brainlm.evaluation.decoding import Decoded, Generation, decode, generate
from bids_brainlm.evaluation.pairs import comparisons
from bids_brainlm.language.render import decode as text_of
from bids_brainlm.language.render import render, stop_ids
from bids_brainlm.models.fusion import Batch, BrainLM, collate

Speaker = Callable[[str], tuple[BrainLM, Any]]
SETTINGS = Generation("chat", max_new_tokens=6, batch_size=5)
K = 4


def decoded(speaker: Speaker, examples: Examples, family: str = "llama", settings: Generation = SETTINGS) -> Decoded:
    model, text = speaker(family)
    return decode(model, text, examples, settings, comparisons(examples, K, 1000, 7), fold=2)


def of(table: pd.DataFrame, condition: str) -> pd.DataFrame:
    return table[table.condition == condition].reset_index(drop=True)


def test_the_table_has_the_one_schema_and_a_row_for_each_condition(speaker: Speaker, examples: Examples) -> None:
    model, text = speaker("llama")
    table = decoded(speaker, examples).table
    assert list(table.columns) == list(DECODED_COLUMNS)
    assert not table.isna().any().any()
    assert set(table.fold) == {2}
    assert tuple(dict.fromkeys(table.condition)) == CONDITIONS
    for condition in CONDITIONS:
        part = of(table, condition)
        assert part.trial_id.tolist() == examples.id.tolist()
        assert part.stimulus_id.tolist() == examples.stimulus.tolist()
        assert part.prompt.tolist() == [prompt.context for prompt in examples.prompts]
        assert part.text_true.tolist() == [" | ".join(texts) for texts in examples.references]
        # The answer is the same tokens with a brain and without.
        for n_slots in (0, 3):
            counts = [int(render(prompt, text, n_slots, "chat").train.sum()) for prompt in examples.prompts]
            assert part.n_tokens.tolist() == counts


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_likelihoods_are_those_of_the_brains_of_the_condition(speaker: Speaker, examples: Examples, family: str) -> None:
    model, text = speaker(family)
    found = decoded(speaker, examples, family)
    others = partners(examples, K, 7)

    def nll(i: int, brain: int | None) -> float:
        item = render(examples.prompts[i], text, 0 if brain is None else 3, "chat")
        return float(model.nll(collate([item], None if brain is None else examples.gather([brain])))[0])

    wanted = {
        "true": [nll(i, i) for i in range(12)],
        "permuted": [nll(i, int(others[0, i])) for i in range(12)],
        "none": [nll(i, None) for i in range(12)],
    }
    for condition, values in wanted.items():
        np.testing.assert_allclose(of(found.table, condition).nll, values, rtol=1e-5, atol=1e-4)
    same_run = examples.run[:, None] == examples.run
    assert found.matrix.brains == found.matrix.texts == tuple(examples.id)
    np.testing.assert_array_equal(np.isfinite(found.matrix.nll), same_run)
    every = [[nll(i, j) if same_run[i, j] else np.nan for j in range(12)] for i in range(12)]
    np.testing.assert_allclose(found.matrix.nll, every, rtol=1e-5, atol=1e-4)


def test_texts_are_generated_from_the_brains_of_the_condition(speaker: Speaker, examples: Examples) -> None:
    model, text = speaker("llama")
    table = decoded(speaker, examples).table
    others = partners(examples, K, 7)[0]
    stop = stop_ids(text, "chat")

    def alone(i: int, brain: int | None) -> str:
        item = render(examples.prompts[i], text, 0 if brain is None else 3, "chat", with_answer=False)
        batch = collate([item], None if brain is None else examples.gather([brain]), pad_left=True)
        return text_of(model.generate(batch, stop=stop, max_new_tokens=6)[0], text)

    assert of(table, "true").text_pred.tolist() == [alone(i, i) for i in range(12)]
    assert of(table, "permuted").text_pred.tolist() == [alone(i, int(others[i])) for i in range(12)]
    assert of(table, "none").text_pred.tolist() == [alone(i, None) for i in range(12)]
    assert (of(table, "true").text_pred != of(table, "permuted").text_pred).any()


def test_the_permuted_brain_shares_nothing_with_the_text(
    speaker: Speaker, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Batch] = []
    original = BrainLM.generate

    def spy(self: BrainLM, batch: Batch, **settings: Any) -> list[list[int]]:
        shown.append(batch)
        return original(self, batch, **settings)

    monkeypatch.setattr(BrainLM, "generate", spy)
    decoded(speaker, examples)
    data = torch.from_numpy(np.array(examples.recording.data))
    true, permuted, none = (shown[k : k + 3] for k in (0, 3, 6))
    assert len(shown) == 9

    def sources(batches: list[Batch]) -> list[int]:
        rows = torch.cat([batch.vertices[:, 0] for batch in batches if batch.vertices is not None])
        return [int((data == row).all(1).nonzero()[0, 0]) for row in rows]

    assert sources(true) == list(range(12))
    for i, j in enumerate(sources(permuted)):
        assert examples.stimulus[i] != examples.stimulus[j]
        assert not set(examples.references[i]) & set(examples.references[j])
        assert examples.run[i] == examples.run[j]
    # No brain is no brain tokens at all, not tokens made of nothing.
    assert all(batch.vertices is None and not batch.slot.any() for batch in none)
    assert all(int(batch.slot.sum()) == 3 * len(batch.ids) for batch in true + permuted)


def test_neither_the_batch_size_nor_a_repetition_matters(speaker: Speaker, examples: Examples) -> None:
    first = decoded(speaker, examples)
    for size in (5, 1, 50):
        again = decoded(speaker, examples, settings=Generation("chat", max_new_tokens=6, batch_size=size))
        pd.testing.assert_frame_equal(again.table, first.table, rtol=1e-5, atol=1e-4)


def test_no_prompt_shows_its_answer(speaker: Speaker, examples: Examples) -> None:
    model, text = speaker("llama")
    shown = generate(model, text, examples, np.arange(12), SETTINGS)
    blind = Examples(
        examples.recording,
        examples.rows,
        tuple(type(prompt)(prompt.context, "nothing of the kind") for prompt in examples.prompts),
        tuple(("other",) for _ in examples.references),
        examples.group,
        examples.stimulus,
        examples.id,
    )
    assert generate(model, text, blind, np.arange(12), SETTINGS) == shown


def test_examples_without_a_partner_are_refused(speaker: Speaker, examples: Examples) -> None:
    with pytest.raises(ValueError, match="a permuted brain needs an example that differs"):
        decoded(speaker, examples.take([0, 7, 9]))
