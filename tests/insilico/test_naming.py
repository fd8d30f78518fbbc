"""Words, their effects and standings against closed forms and other libraries."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from bids_brainlm.evaluation.metrics import Facts
from bids_brainlm.insilico import naming
from bids_brainlm.insilico.naming import Vocabulary, vocabulary_of

FACTS = Facts({"animal": {"1": ("dog", "puppy"), "2": ("cat",), "3": ("hot dog",)}, "colour": {"1": ("red",), "2": ("blue",)}})


def test_values_of_facts_are_used_as_whole_words_of_their_own_factor() -> None:
    texts = [("a red puppy", "the red dog"), ("a blue cat",), ("a hot dog, red",), ("nothing",)]
    found = vocabulary_of(texts, FACTS.vocabulary, least=1)
    assert found.words == ("dog", "cat", "hot dog", "red", "blue")
    assert found.factors == ("animal",) * 3 + ("colour",) * 2
    assert found.uses(["a red puppy", "a hot dog", "blue cats and a cat"]).tolist() == [
        [1, 0, 0, 1, 0],
        [0, 0, 1, 0, 0],
        [0, 1, 0, 0, 1],
    ]
    assert found.shares([("a puppy", "a cat"), ("red",)]).tolist() == [[0.5, 0.5, 0, 0, 0], [0, 0, 0, 1, 0]]


def test_words_of_texts_that_come_together_are_one_and_rare_or_common_ones_none() -> None:
    texts = [
        ("a dog by the river",),
        ("a cat by the river",),
        ("a dog in the park",),
        ("a cat in the park",),
        ("a newt in the park",),
    ]
    found = vocabulary_of(texts, least=2)
    assert found.words == ("dog", "by river", "cat", "in park")
    assert found.uses(["By the river!", "a dog"]).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize("texts", [[("a dog",)] * 9, [("a dog",), ("a cat",)]])
def test_two_words_are_needed(texts: list[tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match="two are needed"):
        vocabulary_of(texts, least=2)


def test_chosen_texts_use_words_equally_often_and_do_not_repeat() -> None:
    # Forty texts have one word, four the other.
    uses = np.eye(2)[[0] * 40 + [1] * 4]
    found = naming.chosen(uses, 8, seed=1)
    assert uses[found].sum(axis=0).tolist() == [4, 4]
    assert len(set(found)) == 8
    assert naming.chosen(uses, 99).tolist() == list(range(44))


def test_effects_are_those_of_least_squares_and_weights_those_of_repeated_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "PRIOR", 1e-9)
    rng = np.random.default_rng(0)
    uses, values = rng.integers(2, size=(40, 3)).astype(float), rng.standard_normal((40, 2))
    weights = rng.integers(3, size=40).astype(float)
    wanted = [
        np.linalg.lstsq(np.column_stack([uses[i], np.ones(len(i))]), values[i], rcond=None)[0][:-1].T
        for i in (np.arange(40), np.repeat(np.arange(40), weights.astype(int)))
    ]
    np.testing.assert_allclose(naming.effects(uses, values), wanted[0], atol=1e-6)
    np.testing.assert_allclose(naming.effects(uses, values, weights), wanted[1], atol=1e-6)


def test_values_of_a_factor_that_every_text_has_are_told_from_each_other() -> None:
    uses = np.eye(3)[np.repeat(np.arange(3), 20)]
    found = naming.effects(uses, (uses @ [3.0, 0.0, 0.0])[:, None])
    np.testing.assert_allclose(found[0], [2, -1, -1], atol=0.02)


def test_standing_is_in_deviations_of_the_reference() -> None:
    rng = np.random.default_rng(1)
    found = rng.standard_normal((30, 4)) * [1, 2, 3, 4] + 5
    reference = np.arange(30) < 20
    high = naming.standing(found, reference)
    np.testing.assert_allclose(high[:20].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(high[:20].std(axis=0), 1)
    np.testing.assert_allclose(naming.standing(found, np.arange(30) < 9).std(axis=0), 1)
    assert not naming.standing(np.ones((30, 4)), reference).any()


def test_p_is_the_rank_among_the_standings_of_reference_places() -> None:
    high = np.array([[k, 0.5] for k in range(10)] + [[9.5, 7.0]])
    reference = np.arange(11) < 10
    # Of 20 standings none reaches 9.5, and 7, 8 and 9 reach 7.
    assert naming.standing_p(high, reference)[-1].tolist() == [1 / 21, 4 / 21]
    assert np.isnan(naming.standing_p(high, np.arange(11) < 9)).all()


def test_stability_counts_samples_and_draws_keep_groups_whole() -> None:
    samples = [np.array([[1.0, 0], [0, 1]]), np.array([[0, 1.0], [0, 1]])]
    assert naming.stability(np.array([0, 1]), samples).tolist() == [0.5, 1]
    drawn = naming.draws(np.array(["b", "a", "b", "c"]), 50, 0)
    assert (drawn[:, 0] == drawn[:, 2]).all()
    assert (drawn[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert np.ptp(drawn) > 1


def test_agreement_is_spearman_s() -> None:
    left, right = np.random.default_rng(2).integers(5, size=(2, 3, 9)).astype(float)
    wanted = [spearmanr(*pair).statistic for pair in zip(left, right, strict=True)]
    np.testing.assert_allclose(naming.agreement(left, right), wanted)
    assert np.isnan(naming.agreement(np.ones((1, 4)), right[:1, :4])).all()


def test_words_of_users_and_texts_do_not_mix() -> None:
    mixed = Vocabulary(("dog", "red"), ("animal", ""), (("dog", "puppy"), ("red",)))
    assert mixed.uses(["a red puppy"]).tolist() == [[1, 1]]
