"""Figures of the likelihood matrix against plain loops; permutations of it hold their level; text priors fool no figure."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from bids_brainlm.core.interventions import allowed, brains_of, partners
from bids_brainlm.core.types import Examples, Prompt, Recording
from bids_brainlm.evaluation.confusion import confusion, pooled
from bids_brainlm.evaluation.matrix import Evidence, Figure, LikelihoodMatrix, column_wise
from bids_brainlm.evaluation.pairs import LEAST, Comparisons, comparisons
from bids_brainlm.evaluation.resampling import of_folds, permutation_p

PROMPT = "What is it?"


def trials(texts: list[str], runs: Any = 0, rows: Any = None, kind: str = "beta", contexts: Any = None) -> Examples:
    """Examples of a stimulus each, which may share texts and rows."""
    n = len(texts)
    rows = np.arange(n) if rows is None else np.asarray(rows)
    n_rows = int(rows.max()) + 1
    of_rows = np.zeros(n_rows, np.int64)
    of_rows[rows] = runs
    recording = Recording(np.zeros((n_rows, 1), np.float32), "standard deviations", kind, np.arange(n_rows), of_rows)
    ids = np.array([f"t{i}" for i in range(n)])
    stimulus = np.array([f"s{i}" for i in rows])
    prompts = tuple(Prompt(PROMPT if contexts is None else contexts[i], text) for i, text in enumerate(texts))
    return Examples(recording, rows, prompts, tuple((text,) for text in texts), stimulus, stimulus, ids)


def matrix_of(nll: Any, compared: Comparisons, ids: Any) -> LikelihoodMatrix:
    known = np.where(compared.brain >= 0, nll, np.nan)
    ids = tuple(map(str, ids))
    return LikelihoodMatrix(known, compared.own, compared.allowed, ids, compared.names(ids), np.full(len(ids), 4))


def told(n: int = 12, gain: float = 0.0, seed: int = 0, **settings: Any) -> tuple[LikelihoodMatrix, Comparisons, Examples]:
    """NLL of n texts, some of them alike, under brains of which the own one is worth ``gain`` nats."""
    examples = trials([f"text {i % (n - 3)}" for i in range(n)], np.repeat([0, 1], [n // 3, n - n // 3]), **settings)
    compared = comparisons(examples, 99, 10**6, seed)
    rng = np.random.default_rng(seed)
    nll = rng.normal(20, 3, (n, 1)) + rng.normal(0, 1, (1, len(compared.first))) + rng.normal(0, 1, compared.brain.shape)
    nll[np.arange(n), compared.own] -= gain
    return matrix_of(nll, compared, examples.id), compared, examples


def test_figures_are_those_of_plain_loops() -> None:
    matrix, compared, examples = told(gain=0.5)
    rows, columns = matrix.row_wise(), matrix.identification([PROMPT] * 12)
    nll = matrix.nll
    for i in range(12):
        others = [j for j in range(12) if examples.run[j] == examples.run[i] and examples.references[i] != examples.references[j]]
        assert others == np.flatnonzero(compared.allowed[i]).tolist()
        assert rows["nll_pairwise"][i] == pytest.approx(np.mean([nll[i, j] > nll[i, i] for j in others]))
        assert rows["nll_top1"][i] == all(nll[i, j] > nll[i, i] for j in others)
        assert matrix.specificity[i] == pytest.approx(np.mean([nll[i, j] - nll[i, i] for j in others]))

        def beyond(text: int, brain: int) -> float:
            scored = [j for j in range(12) if compared.allowed[text, j] or j == text]
            return float(nll[text, brain] - np.mean([nll[text, j] for j in scored if j != brain]))

        assert columns[i] == pytest.approx(np.mean([beyond(j, i) > beyond(i, i) for j in others]))


def test_ties_count_half_and_a_decoder_that_ignores_the_brain_finds_nothing() -> None:
    matrix, compared, _ = told()
    flat = dataclasses.replace(matrix, nll=np.where(np.isfinite(matrix.nll), np.arange(12.0)[:, None], np.nan))
    found = Evidence.of(flat, compared, [PROMPT] * 12)
    # Nobody has more than ten brains to be ranked.
    assert np.isnan(found.figures.pop("nll_top10").values).all()
    assert {name: figure.values.mean() for name, figure in found.figures.items()} == {
        "nll_pairwise": 0.5, "nll_top1": 0.0, "nll_identification": 0.5
    }  # fmt: skip
    for figure in found.figures.values():
        assert permutation_p(figure.values.mean(), figure.null) == 1.0
    assert found.primary(flat.own_nll, np.arange(12)).p_value == 1.0


def test_an_exchange_is_the_matrix_with_its_brains_moved() -> None:
    matrix, compared, examples = told(gain=1.0)
    found = Evidence.of(matrix, compared, [PROMPT] * 12)
    assert found.exchanged.shape == (99, 12)
    for k in (0, 50):
        brain = compared.drawn[k]
        assert sorted(brain) == list(range(12))
        assert (examples.run[brain] == examples.run).all()
        np.testing.assert_array_equal(found.exchanged[k], matrix.nll[np.arange(12), brain])
        # Had the responses been recorded in this order, this would have been the matrix.
        other = matrix_of(matrix.nll[:, brain], compared, examples.id)
        for name, values in [*other.row_wise().items(), ("nll_identification", other.identification([PROMPT] * 12))]:
            assert found.figures[name].null[k] == pytest.approx(values.mean(), nan_ok=True)
    assert found.figures["nll_pairwise"].values.mean() > 0.6
    better = [
        [nll < matrix.nll[i, i] for nll, may in zip(matrix.nll[i], compared.allowed[i], strict=True) if may] for i in range(12)
    ]
    assert found.rank.tolist() == [1 + sum(row) for row in better]


def test_permutations_hold_their_level_though_texts_are_repeated() -> None:
    p: dict[str, list[float]] = {}
    for seed in range(150):
        matrix, compared, _ = told(9, seed=seed)
        compared = dataclasses.replace(compared, drawn=compared.drawn[:39])
        found = Evidence.of(matrix, compared, [PROMPT] * 9)
        for name, figure in found.figures.items():
            if name != "nll_top10":
                p.setdefault(name, []).append(permutation_p(figure.values.mean(), figure.null))
        p.setdefault("primary", []).append(found.primary(matrix.own_nll, np.arange(9)).p_value)
    for name, values in p.items():
        # 150 draws of .05: more than 15 in one of a thousand cases.
        assert np.sum(np.array(values) <= 0.05) <= 15, name
    assert 0.4 < np.mean(p["primary"]) < 0.6


def test_a_text_that_is_always_likely_fools_raw_columns_alone() -> None:
    """Half of the trials have one common text, which the decoder finds likely whatever the brain."""
    n = 200
    examples = trials(["a person" if i % 2 else f"text {i}" for i in range(n)])
    compared = comparisons(examples, 50, 10**6, 0)
    rng = np.random.default_rng(0)
    nll = rng.normal(0, 1, (n, n)) + np.where(np.arange(n) % 2, 5.0, 15.0)[:, None]
    matrix = matrix_of(nll, compared, examples.id)
    raw = column_wise(nll[:, compared.own], compared.allowed[:, compared.own])
    assert raw.mean() == pytest.approx((1 + 0.25) / 2, abs=0.01)
    assert matrix.identification([PROMPT] * n).mean() == pytest.approx(0.5, abs=0.05)
    assert matrix.row_wise()["nll_pairwise"].mean() == pytest.approx(0.5, abs=0.05)


def test_texts_are_compared_under_a_brain_only_where_they_have_one_prompt() -> None:
    matrix, _, examples = told(gain=3.0)
    assert np.isnan(matrix.identification([f"context {i}" for i in range(12)])).all()
    prompts = [f"question {i % 2}" for i in range(12)]
    found = matrix.identification(prompts)
    scored = np.where(matrix.allowed | np.eye(12, dtype=bool), matrix.nll, np.nan)
    rest = matrix.nll - np.array([[np.nanmean(np.delete(row, j)) for j in range(12)] for row in scored])
    for i in range(12):
        others = [j for j in np.flatnonzero(matrix.allowed[:, i]) if prompts[j] == prompts[i]]
        assert found[i] == pytest.approx(np.mean([rest[j, i] > rest[i, i] for j in others]))
    assert examples.id[0] == matrix.brains[0]


def test_sampled_permutations_hold_their_level_though_brains_are_sampled_again_and_again() -> None:
    """Runs of five have fewer brains than there are samples."""
    p: dict[str, list[float]] = {"nll_pairwise": [], "nll_top1": []}
    examples = trials([f"text {i}" for i in range(20)], np.repeat([0, 1, 2, 3], 5))
    for seed in range(150):
        compared = comparisons(examples, 39, 1, seed)
        rng = np.random.default_rng(seed)
        whole = rng.normal(0, 1, (20, 20)) + rng.normal(0, 1, 20)
        matrix = matrix_of(np.take_along_axis(whole, compared.brain, axis=1), compared, examples.id)
        found = Evidence.of(matrix, compared, [PROMPT] * 20)
        for name, values in p.items():
            values.append(permutation_p(found.figures[name].values.mean(), found.figures[name].null))
    for name, values in p.items():
        assert np.sum(np.array(values) <= 0.05) <= 15, name
        assert 0.4 < np.mean(values) < 0.62, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nll": np.zeros((2, 2))}, "expected those of 3 texts, 3 brains"),
        ({"own": np.array([0, 1, 3])}, "own brains 0 to 3 of 3"),
        ({"nll": np.full((3, 3), np.nan)}, "3 text.s. are not scored under their own brain"),
        ({"allowed": np.ones((3, 3), bool)}, "not one it may be compared with"),
        ({"nll": np.where(np.eye(3), 1.0, np.nan)}, "pairs that are allowed were not computed"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    names = ("a", "b", "c")
    matrix = LikelihoodMatrix(np.ones((3, 3)), np.arange(3), ~np.eye(3, dtype=bool), names, names, np.ones(3, np.int64))
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(matrix, **change)


def test_a_table_gives_the_matrix_back() -> None:
    matrix, compared, examples = told()
    table = matrix.to_frame(["1"] * 12, np.arange(12.0))
    assert list(table.columns) == ["trial_id", "run", "own", "confidence", *matrix.brains]
    shuffled = table.iloc[::-1].astype(object).where(table.iloc[::-1].notna(), None)
    again = LikelihoodMatrix.from_frame(shuffled, compared, list(examples.id), matrix.n_tokens)
    np.testing.assert_allclose(again.nll, matrix.nll, rtol=1e-6)
    assert (again.texts, again.brains) == (matrix.texts, matrix.brains)
    with pytest.raises(ValueError, match=r"1 text.* have no likelihoods, e\.g\. t5"):
        LikelihoodMatrix.from_frame(table.drop(index=5), compared, list(examples.id), matrix.n_tokens)


def test_which_categories_are_confused() -> None:
    """Brains tell birds from dogs, and nothing of which dog."""
    kinds = np.array(["dog", "bird"] * 6)
    examples = trials([f"{kind} {i}" for i, kind in enumerate(kinds)])
    compared = comparisons(examples, 5, 10**6, 0)
    nll = np.where(kinds[:, None] == kinds, 1.0, 3.0)
    table = confusion(matrix_of(nll, compared, examples.id), "kind", kinds, kinds)
    figures = ["chosen", "pairwise", "n_texts", "n_pairs"]
    rows = table.set_index(["category", "other"])[figures]
    assert rows.loc["dog", "dog"].tolist() == pytest.approx([1.0, 0.5, 6, 30])
    assert rows.loc["dog", "bird"].tolist() == [0.0, 1.0, 6, 36]
    # Another fold, of twice the texts, that tells nothing apart.
    other = table.assign(chosen=0.5, pairwise=0.5, n_texts=12, n_pairs=72)
    both = pooled([table, other]).set_index(["category", "other"])[figures]
    assert both.loc["dog", "bird"].tolist() == pytest.approx([1 / 3, (1 + 2 * 0.5) / 3, 18, 108])


def test_texts_of_one_response_have_one_brain() -> None:
    """Three contexts of each window, in two runs."""
    examples = trials([f"word {i}" for i in range(30)], 0, np.repeat(np.arange(10), 3), "bold")
    first, own = brains_of(examples)
    assert first.tolist() == list(range(0, 30, 3))
    assert own.tolist() == np.repeat(np.arange(10), 3).tolist()
    may = allowed(examples, own)
    assert may.shape == (30, 10)
    # Windows of one volume: neighbours may stand in for each other, a window's own contexts not.
    np.testing.assert_array_equal(may, np.arange(10) != own[:, None])
    for row in partners(examples, 20, 0):
        assert may[np.arange(30), own[row]].all()


def test_with_too_many_pairs_the_brains_of_exchanges_are_scored() -> None:
    examples = trials([f"text {i % 77}" for i in range(80)], np.repeat([0, 1], 40))
    compared = comparisons(examples, 200, 80 * 27, 3)
    assert compared.n_sampled == 25
    assert comparisons(examples, 200, 5, 3).n_sampled == LEAST
    assert compared.brain.shape == (80, 27)
    np.testing.assert_array_equal(compared.brain[:, 0], np.arange(80))
    np.testing.assert_array_equal(compared.brain[:, 1], partners(examples, 1, 3)[0])
    for column in compared.brain.T:
        assert sorted(column) == list(range(80))
        assert (examples.run[column] == examples.run).all()
    texts = np.array([text for (text,) in examples.references])
    np.testing.assert_array_equal(compared.allowed[:, 2:], (texts[compared.brain] != texts[:, None])[:, 2:])
    assert not compared.allowed[:, :2].any()
    # Runs are exchanged by themselves, so there are more permutations than sampled columns.
    assert compared.drawn.shape == (200, 80)
    for half in (compared.drawn[:, :40], compared.drawn[:, 40:]):
        assert (half == half[:, :1]).all()
        assert set(half[:, 0]) <= {0, *range(2, 27)}
    assert len(np.unique(compared.drawn, axis=0)) > 150


def test_a_sampled_matrix_says_what_the_whole_one_does() -> None:
    examples = trials([f"text {i}" for i in range(60)], np.repeat([0, 1, 2], 20))
    rng = np.random.default_rng(0)
    whole = rng.normal(20, 3, (60, 1)) + rng.normal(0, 1, (60, 60)) - 1.0 * np.eye(60)
    found = {}
    for limit in (10**6, 60 * 17):
        compared = comparisons(examples, 300, limit, 0)
        nll = np.take_along_axis(whole, np.maximum(compared.brain, 0), axis=1)
        found[limit] = Evidence.of(matrix_of(nll, compared, examples.id), compared, [PROMPT] * 60)
    full, sampled = found.values()
    assert sampled.specificity.mean() == pytest.approx(full.specificity.mean(), abs=0.15)
    name = "nll_pairwise"
    assert sampled.figures[name].values.mean() == pytest.approx(full.figures[name].values.mean(), abs=0.05)
    for one in (full, sampled):
        assert permutation_p(one.figures[name].values.mean(), one.figures[name].null) < 0.02
        assert one.figures[name].null.mean() == pytest.approx(0.5, abs=0.03)
        assert one.primary(np.diag(whole), np.arange(60)).p_value < 0.02
    assert np.isnan(sampled.figures["nll_identification"].values).all()


def test_folds_are_pooled_by_their_numbers_of_texts() -> None:
    parts = [Figure(np.array([1.0, 0.0, np.nan]), np.array([0.5, 0.25])), Figure(np.ones(4), np.array([0.75, 0.0, 0.1]))]
    both = Figure.concat(parts)
    np.testing.assert_array_equal(both.values, [1, 0, np.nan, 1, 1, 1, 1])
    np.testing.assert_allclose(both.null, of_folds([(2 * 0.5 + 4 * 0.75) / 6, 2 * 0.25 / 6], 2))
    nothing = Figure(np.full(2, np.nan), np.full(2, np.nan))
    np.testing.assert_array_equal(Figure.concat([nothing, parts[0]]).null, parts[0].null)
