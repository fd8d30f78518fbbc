"""Epochs: every item once, in an order that follows from the seed, whole among several processes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_brainlm.language.render import Rendered
from bids_brainlm.models.fusion import Batch
from bids_brainlm.training.batches import Corpus, n_steps


def corpus(n: int, n_renderings: int = 1) -> Corpus:
    """Item i is the text (1, i, its rendering) and has the response i."""

    def one(i: int, j: int) -> Rendered:
        return Rendered(np.array([1, i, j]), np.array([False, True, True]), np.array([True, False, False]))

    items = tuple(tuple(one(i, j) for j in range(n_renderings)) for i in range(n))
    return Corpus(items, lambda index: np.asarray(index, np.float32)[:, None, None])


def items(batches: list[Batch]) -> list[int]:
    return [int(i) for batch in batches for i in batch.ids[:, 1]]


def test_a_pool_is_one_item_of_which_an_epoch_draws_one() -> None:
    """Drawn as often as their chances say; the response is that of the first of the pool."""
    whole = corpus(5, 2)
    pool, chance = np.array([0, 1, 0, 1, 1]), np.array([0.9, 0.5, 0.1, 0.5, 0.0])
    pooled = whole.pooled(pool, chance)
    assert len(pooled) == 2
    assert pooled.gather is not None
    assert pooled.gather(np.array([1, 0])).ravel().tolist() == [1.0, 0.0]
    place = {id(one): i for i, item in enumerate(whole.renderings) for one in item}
    drawn = np.zeros((2, 5))
    for draw in (np.arange(1000) + 0.5) / 1000:
        for item in range(2):
            drawn[item, place[id(pooled._draw(item, draw))]] += 1
    np.testing.assert_allclose(drawn / 1000, [[0.9, 0, 0.1, 0, 0], [0, 0.5, 0, 0.5, 0.0]])
    assert len(list(pooled.epoch(1, (0, 0, 0)))) == 2
    assert pooled._draw(1, 1 - 1e-12) in pooled.renderings[1]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 99))
def test_an_epoch_has_each_item_once_with_its_own_response(n: int, size: int, seed: int) -> None:
    batches = list(corpus(n).epoch(size, (seed, 0, 0)))
    assert len(batches) == n_steps(n, size) == -(-n // size)
    assert sorted(items(batches)) == list(range(n))
    assert all(len(batch.ids) == size for batch in batches[:-1])
    for batch in batches:
        assert batch.vertices is not None
        assert batch.vertices[:, 0, 0].tolist() == batch.ids[:, 1].tolist()


def test_the_order_follows_from_the_seed() -> None:
    whole = corpus(30, 5)
    first, again, other = (list(whole.epoch(4, seed)) for seed in ((0, 1, 2), (0, 1, 2), (0, 1, 3)))
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(first, again, strict=True))
    assert items(first) != items(other)
    assert items(first) != sorted(items(first))
    # Nothing of it depends on the batch size, so that accumulation is the same training.
    assert items(list(whole.epoch(8, (0, 1, 2)))) == items(first)


@given(st.integers(1, 40), st.integers(1, 6), st.integers(2, 4))
def test_shares_of_several_processes_make_up_the_epoch(n: int, size: int, world: int) -> None:
    whole = corpus(n)
    shares = [list(whole.epoch(size, (7,), (rank, world))) for rank in range(world)]
    assert {len(share) for share in shares} == {n_steps(n, size, world)}
    drawn = [items([batch]) for share in shares for batch in share]
    alone = [items([batch]) for batch in whole.epoch(size, (7,))]
    # A last round that is not full is filled up with the first batch, so that no process waits for ever.
    surplus = n_steps(n, size, world) * world - len(alone)
    assert sorted(drawn) == sorted(alone + [alone[0]] * surplus)


def test_every_rendering_is_drawn_about_as_often() -> None:
    counts = np.zeros(3)
    whole = corpus(100, 3)
    for epoch in range(30):
        for batch in whole.epoch(25, (0, epoch)):
            counts += np.bincount(batch.ids[:, 2], minlength=3)
    # Binomial(3000, 1/3) has a standard deviation of 26.
    assert np.abs(counts - 1000).max() < 110


def test_validation_goes_in_order_by_the_first_rendering() -> None:
    batches = list(corpus(7, 3).in_order(3))
    assert items(batches) == list(range(7))
    assert [len(batch.ids) for batch in batches] == [3, 3, 1]
    assert all((batch.ids[:, 2] == 0).all() for batch in batches)


def test_a_corpus_of_text_alone_has_no_responses() -> None:
    text = Corpus(corpus(3).renderings)
    assert [batch.vertices for batch in text.epoch(2, (0,))] == [None, None]
    assert list(Corpus(()).in_order(4)) == []


@pytest.mark.parametrize(
    ("n", "size", "world", "steps"), [(10, 3, 1, 4), (10, 3, 2, 2), (9, 3, 2, 2), (1, 8, 4, 1), (0, 3, 1, 0)]
)
def test_steps_of_a_process(n: int, size: int, world: int, steps: int) -> None:
    assert n_steps(n, size, world) == steps


@pytest.mark.parametrize("size", [1, 7, 100])
def test_responses_are_mapped_once_and_in_blocks(size: int) -> None:
    whole, asked = corpus(10), []

    def doubled(data: np.ndarray) -> np.ndarray:
        asked.append(len(data))
        return np.concatenate([data, 2 * data], axis=2)

    mapped = whole.mapped(doubled, size)
    (batch,) = mapped.in_order(10)
    for _ in range(3):
        list(mapped.epoch(4, (0,)))
    assert batch.vertices is not None
    assert batch.vertices[:, 0].tolist() == [[i, 2 * i] for i in range(10)]
    assert sum(asked) == 10
    assert max(asked) <= size
    text = Corpus(whole.renderings)
    assert text.mapped(doubled) is text
    assert len(Corpus((), whole.gather).mapped(doubled)) == 0
