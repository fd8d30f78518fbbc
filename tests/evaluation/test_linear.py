"""The linear readout against scikit-learn and plain loops; what is right by construction is found, noise is at chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from bids_brainlm.evaluation.embeddings import bag_of_words
from bids_brainlm.evaluation.linear import Identified, identify, predict
from bids_brainlm.evaluation.readout import ALPHAS, kernels

RNG = np.random.default_rng(0)
N, M, V, D = 90, 40, 25, 6


def data(noise: float) -> tuple[np.ndarray, ...]:
    """Responses that are a linear map of embeddings, and noise."""
    rng = np.random.default_rng(1)
    embedding = rng.standard_normal((N + M, D)) + 3
    x = embedding @ rng.standard_normal((D, V)) + noise * rng.standard_normal((N + M, V))
    return x[:N].astype(np.float32), embedding[:N], x[N:].astype(np.float32), embedding[N:]


def test_predictions_are_those_of_a_ridge_whose_penalty_is_one_of_those_tried() -> None:
    x_train, y_train, x_test, _ = data(5.0)
    found = predict(kernels([(x_train, x_test)]), y_train, np.arange(N) // 3)
    z_train, z_test = ((x - x_train.mean(0)) / x_train.std(0) for x in (x_train, x_test))
    unit = np.trace(z_train @ z_train.T) / N
    expected = [Ridge(alpha=a * unit).fit(z_train, y_train).predict(z_test) - y_train.mean(0) for a in ALPHAS]
    assert min(np.abs(one - found).max() for one in expected) < 1e-3


def plain(predicted: np.ndarray, targets: np.ndarray, texts: list[str], groups: list[str], brains: np.ndarray) -> np.ndarray:
    """(m, 3) cosine, identification and top 10 of each text, one after the other."""
    out = []
    for i, brain in enumerate(brains):
        p = predicted[brain]
        like = [p @ t / np.linalg.norm(p) / np.linalg.norm(t) for t in targets]
        own = next(like[j] for j in range(len(texts)) if texts[j] == texts[i])
        distinct = {texts[j]: like[j] for j in reversed(range(len(texts)))}
        inside = {texts[j] for j in range(len(texts)) if groups[j] == groups[i]}
        others = [value for text, value in distinct.items() if text not in inside]
        wins = [float(own > value) if own != value else 0.5 for value in others]
        nearer = sum(value > own for value in distinct.values())
        out.append((own, np.mean(wins) if wins else np.nan, float(nearer < 10)))
    return np.array(out)


def test_figures_are_those_of_plain_loops() -> None:
    m = 30
    predicted, targets = RNG.standard_normal((m, D)), RNG.standard_normal((m, D))
    texts = [f"text {i % 22}" for i in range(m)]
    targets = targets[np.arange(m) % 22]
    groups = [f"g{i % 7}" for i in range(m)]
    partners = np.stack([np.roll(np.arange(m), k) for k in (1, 5)])
    found = identify(predicted, targets, texts, groups, partners)
    for k, brains in enumerate([np.arange(m), *partners]):
        expected = plain(predicted, targets, texts, groups, brains)
        measures = (found.cosine, found.identification, found.top)
        for column, measure in zip(expected.T, measures, strict=True):
            np.testing.assert_allclose(measure.values if k == 0 else measure.null[k - 1], column)
    wins = [found.cosine.values > found.cosine.null[k] for k in range(2)]
    np.testing.assert_allclose(found.pairwise, np.mean(wins, axis=0))


def test_what_is_in_the_responses_is_found_and_what_is_not_is_at_chance() -> None:
    partners = np.stack([RNG.permutation(M) for _ in range(40)])
    for noise, low, high in ((0.5, 0.99, 1.0), (1e6, 0.38, 0.62)):
        x_train, y_train, x_test, y_test = data(noise)
        predicted = predict(kernels([(x_train, x_test)]), y_train, np.arange(N))
        texts = [f"t{i}" for i in range(M)]
        found = identify(predicted, y_test - y_train.mean(0), texts, texts, partners)
        assert low <= found.identification.values.mean() <= high
        assert low - 0.05 <= found.pairwise.mean() <= high
        assert abs(found.identification.null.mean() - 0.5) < 0.02


def test_one_group_has_nobody_to_be_told_from_and_folds_are_joined() -> None:
    vectors = RNG.standard_normal((5, D))
    alone = identify(vectors, vectors, list("abcde"), ["g"] * 5, np.zeros((3, 5), int))
    assert np.isnan(alone.identification.values).all()
    other = identify(vectors, vectors, list("abcde"), list("vwxyz"), np.zeros((2, 5), int))
    both = Identified.concat([alone, other])
    assert (both.cosine.null.shape, both.top.values.tolist()) == ((2, 10), [1.0] * 10)


@pytest.mark.data
def test_sentences_that_were_read_are_told_from_those_of_other_passages(real_data: Path) -> None:
    """Pereira et al. 2018, bags of words: .67 of pairs, shuffled rows .5. With sentence embeddings: benchmarks/pereira.py."""
    x = np.load(real_data / "pereira2018" / "features.npy")
    rows = (real_data / "pereira2018" / "sentences.tsv").read_text("utf-8").splitlines()[1:]
    passage = np.array([int(row.split("\t")[0]) for row in rows])
    texts = [row.split("\t")[2] for row in rows]
    test = passage % 5 == 0
    known = [text for text, held in zip(texts, test, strict=True) if not held]
    bags = bag_of_words(texts, known)
    for order, low, high in ((np.arange((~test).sum()), 0.60, 0.75), (RNG.permutation((~test).sum()), 0.45, 0.55)):
        predicted = predict(kernels([(x[~test][order], x[test])]), bags[~test], passage[~test])
        own = [text for text, held in zip(texts, test, strict=True) if held]
        partners = np.roll(np.arange(len(own)), 9)[None]
        found = identify(predicted, bags[test] - bags[~test].mean(0), own, passage[test], partners)
        assert low < found.identification.values.mean() < high


def test_p_counts_exchanges_where_they_are_given() -> None:
    """Two texts: partners always change places, exchanges every other time, and so cannot reach significance."""
    vectors, others = np.eye(4), np.array([[1, 0, 3, 2]] * 99)
    stay = np.where(np.arange(100)[:, None] % 2, np.arange(4), others[0])
    found = identify(vectors, vectors, list("abcd"), list("abcd"), others, stay)
    assert found.identification.null.shape == (99, 4)
    assert found.identification.p_value == pytest.approx(51 / 101)
    assert identify(vectors, vectors, list("abcd"), list("abcd"), others).identification.p_value == 1 / 100
    both = Identified.concat([found, found])
    assert both.top.exchanged is not None
    assert both.top.exchanged.shape == (100, 8)
