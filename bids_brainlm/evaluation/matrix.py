"""The likelihood matrix: every text under every brain it may be compared with.

L[i, j] is the negative log-likelihood (NLL, nats) of text i, in its own prompt, given brain j; a *brain* is a distinct response,
which several texts may have. A brain is *allowed* for a text by the rule of `bids_brainlm.core.interventions.partners`: it tells
nothing about it. The *own* brain is never allowed, nor is a duplicate.

*Row-wise* figures fix the text and compare brains. Whatever makes a text likely in itself (its length, how often it was trained
on) is the same for all brains and drops out. *Column-wise* figures fix the brain and compare texts, as a reader would who has the
candidates. There it does not drop out: a text that is likely under every brain looks identified. They are therefore computed from
what is left of L[i, j] after the mean of row i over all other brains is taken off, and only among texts that have one prompt.

- ``nll_pairwise``, row-wise: share of allowed brains under which the text is less likely than under its own, ties counting half.
  It is the pairwise accuracy of BrainLLM, the 2-way identification of the brain, and the percentile of its rank in one.
- ``nll_top1``, ``nll_top10``, row-wise: whether the own brain has rank 1, or at most 10, among itself and the allowed ones;
  nothing for a text with fewer than 11 brains, say.
- ``nll_identification``, column-wise: share of the other texts that are less likely under the brain than its own text.

The null distribution of a figure is the same figure with columns exchanged (`bids_brainlm.core.interventions.exchanges`): read
from the same matrix, without a further pass of the model. Which columns there are is said by `bids_brainlm.evaluation.pairs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bids_brainlm.core.types import Bools, Ints
from bids_brainlm.evaluation.pairs import Comparisons
from bids_brainlm.evaluation.resampling import of_folds
from bids_brainlm.evaluation.statistics import PrimaryTest, primary_test

Array = NDArray[np.float64]

DIGITS = 4
"""Decimals (nats) that are compared: rounding of the computation must not break ties."""

TOPS = (1, 10)
"""Ranks within which the own brain is looked for."""

LIKELIHOOD_COLUMNS = {
    "trial_id": "Example whose text is scored.",
    "run": "Run of the trial, mixed where repeats of several runs are averaged.",
    "own": "Its own brain, called by the first example that has it.",
    "confidence": "By how many nats the generated text is likelier under its own brain than, in the mean, under others.",
}
"""First columns of the table of likelihoods."""


@dataclass(frozen=True, eq=False)
class LikelihoodMatrix:
    """Texts under brains, for the test set of one fold.

    Parameters
    ----------
    nll : (n, m) float64
        Nats; nan where not computed.
    own : (n,) int64
        Column of each text's own brain.
    allowed : (n, m) bool
        Other columns that each text is compared with.
    texts, brains : tuple of str
        Names of rows and columns.
    n_tokens : (n,) int64
        Tokens of each text.

    Raises
    ------
    ValueError
        When shapes disagree, the own brain of a text is not computed or counts as another one, or an allowed pair is missing.
    """

    nll: Array
    own: Ints
    allowed: Bools
    texts: tuple[str, ...]
    brains: tuple[str, ...]
    n_tokens: Ints

    def __post_init__(self) -> None:
        n, m = len(self.texts), len(self.brains)
        shapes = (self.nll.shape, self.allowed.shape, self.own.shape, self.n_tokens.shape)
        if shapes != ((n, m), (n, m), (n,), (n,)):
            raise ValueError(f"nll, allowed, own and n_tokens have the shapes {shapes}; expected those of {n} texts, {m} brains")
        if n and (self.own.min() < 0 or self.own.max() >= m):
            raise ValueError(f"own brains {self.own.min()} to {self.own.max()} of {m}")
        missing = np.flatnonzero(~np.isfinite(self.own_nll))
        if missing.size:
            raise ValueError(f"{missing.size} text(s) are not scored under their own brain, e.g. {self.texts[missing[0]]}")
        if self.allowed[np.arange(n), self.own].any():
            raise ValueError("the own brain of a text is not one it may be compared with")
        if not np.isfinite(self.nll[self.allowed]).all():
            raise ValueError("pairs that are allowed were not computed")

    @property
    def own_nll(self) -> Array:
        """(n,) NLL under the own brain."""
        return self.given(self.own)

    @property
    def specificity(self) -> Array:
        """(n,) mean NLL under allowed brains minus that under the own one, nats; nan where none is allowed."""
        return np.asarray(mean_known(np.where(self.allowed, self.nll, np.nan)) - self.own_nll)

    def given(self, columns: Ints) -> Array:
        """(..., n) NLL of the texts under the brains in some columns (..., n)."""
        return np.asarray(self.nll[np.arange(self.own.size), columns])

    def row_wise(self) -> dict[str, Array]:
        """Metric -> (n,) figure of each text: pairwise accuracy, and whether the own brain is among the first."""
        return _row_wise(_comparable(self.nll), self.own, self.allowed)

    def identification(self, prompts: Sequence[str]) -> Array:
        """(n,) share of other texts with the same prompt that are less likely under the brain than its own text; nan without any.

        Each text's mean over the other brains it is compared with is taken off first.
        """
        return _identification(_comparable(self.nll), self.own, self.allowed, self.candidates(prompts))

    def candidates(self, prompts: Sequence[str]) -> Bools:
        """(n, n) bool: texts i that are compared with text j under its brain: those with its prompt, and no own text."""
        _, group = np.unique(np.asarray(prompts, dtype=np.str_), return_inverse=True)
        return np.asarray(self.allowed[:, self.own] & (group[:, None] == group))

    def to_frame(self, run: Sequence[str], confidence: Array) -> pd.DataFrame:
        """`LIKELIHOOD_COLUMNS`, then one column a brain or pairing."""
        known = (self.texts, run, [self.brains[j] for j in self.own], confidence.astype(np.float32))
        about = dict(zip(LIKELIHOOD_COLUMNS, known, strict=True))
        # What the model computed has single precision, and takes half the digits.
        values = pd.DataFrame(self.nll.astype(np.float32), columns=list(self.brains))
        return pd.concat([pd.DataFrame(about), values], axis=1)

    @classmethod
    def from_frame(
        cls, table: pd.DataFrame, compared: Comparisons, texts: Sequence[str], n_tokens: ArrayLike
    ) -> LikelihoodMatrix:
        """What `to_frame` wrote, for the texts of a fold, in their order.

        Raises
        ------
        ValueError
            When the table does not have them, or was made for other comparisons.
        """
        names, brains = [str(text) for text in texts], compared.names(texts)
        rows = table.set_index(table["trial_id"].astype(str))
        lost = sorted(set(names) - set(rows.index)) + sorted(set(brains) - set(rows.columns))
        if lost:
            raise ValueError(f"{len(lost)} text(s) or brain(s) have no likelihoods, e.g. {lost[0]}")
        nll = rows.loc[names, list(brains)].to_numpy(np.float64)
        return cls(nll, compared.own, compared.allowed, tuple(names), brains, np.asarray(n_tokens, dtype=np.int64))


def mean_known(values: Array) -> Array:
    """(n,) mean of each row without nan; nan for a row without any value."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    return np.asarray(
        np.divide(np.where(known, values, 0.0).sum(axis=1), count, out=np.full(count.size, np.nan), where=count > 0)
    )


def column_wise(nll: Array, candidates: Bools) -> Array:
    """Identification of texts by one brain each.

    Parameters
    ----------
    nll : (n, n) float64
        Of text i under the own brain of text j.
    candidates : (n, n) bool
        Texts i that text j is compared with.

    Returns
    -------
    (n,) float64
        Share of its candidates that are less likely than text j, ties counting half; nan without any.
    """
    own, count = np.diag(nll), candidates.sum(axis=0)
    less = (candidates & (nll > own)).sum(axis=0) + 0.5 * (candidates & (nll == own)).sum(axis=0)
    return np.asarray(np.divide(less, count, out=np.full(count.size, np.nan), where=count > 0))


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure of every text, and its mean in every permutation.

    Parameters
    ----------
    values : (n,) float64
        nan where there is nothing to compare with.
    null : (K,) float64
        Mean over texts.
    """

    values: Array
    null: Array

    @classmethod
    def concat(cls, parts: Sequence[Figure]) -> Figure:
        """Several test sets, one after the other; permutations that all of them have."""
        least = min(part.null.size for part in parts)
        weights = np.array([np.isfinite(part.values).sum() for part in parts], dtype=np.float64)
        nulls = np.stack([part.null[:least] for part in parts])
        total = np.where(weights[:, None] > 0, weights[:, None] * nulls, 0.0).sum(axis=0)
        null = total / weights.sum() if weights.any() else np.full(least, np.nan)
        return cls(np.concatenate([part.values for part in parts]), of_folds(null, int((weights > 0).sum())))


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the matrices of all folds say of every text.

    Parameters
    ----------
    exchanged : (K, n) float64
        NLL in K permutations: the null distribution of the primary test. Of several folds: `of_folds`.
    specificity : (n,) float64
        Nats.
    n_compared : (n,) int64
        Brains that each text is compared with.
    figures : dict of str to Figure
        Metric -> figure.
    """

    exchanged: Array
    specificity: Array
    n_compared: Ints
    figures: dict[str, Figure]

    @classmethod
    def of(cls, matrix: LikelihoodMatrix, compared: Comparisons, prompts: Sequence[str]) -> Evidence:
        """Of one fold."""
        values = _comparable(matrix.nll)
        candidates = None if compared.n_sampled else matrix.candidates(prompts)
        true = _figures(values, matrix.own, matrix.allowed, candidates)
        drawn = [_figures(values, row, _moved(matrix, row, compared), candidates) for row in compared.drawn]
        figures = {name: Figure(own, mean_known(np.stack([found[name] for found in drawn]))) for name, own in true.items()}
        return cls(matrix.given(compared.drawn), matrix.specificity, matrix.allowed.sum(axis=1), figures)

    @property
    def rank(self) -> Array:
        """(n,) rank of the own brain of each text, from 1; each brain that ties adds a half."""
        # In halves: a share that was multiplied again differs in its last digits.
        return np.asarray(np.round(2 + 2 * self.n_compared * (1 - self.figures["nll_pairwise"].values)) / 2)

    def primary(self, nll_true: Array, units: ArrayLike, n_samples: int = 2000, seed: int = 0) -> PrimaryTest:
        """The primary test: its effect is the mean specificity, its p counts exchanges."""
        # One pairing that stands for the mean over all allowed ones.
        others = (nll_true + self.specificity)[None]
        return primary_test(nll_true, others, units, n_samples, seed, nll_exchanged=self.exchanged)

    def take(self, index: Ints) -> Evidence:
        """Of some of the texts, without figures: their permutations are known as means over all texts."""
        return Evidence(self.exchanged[:, index], self.specificity[index], self.n_compared[index], {})

    @classmethod
    def concat(cls, parts: Sequence[Evidence]) -> Evidence:
        """Folds one after the other; permutations that all of them have."""
        least = min(len(part.exchanged) for part in parts)
        figures = {name: Figure.concat([part.figures[name] for part in parts]) for name in parts[0].figures}
        exchanged = of_folds(np.concatenate([part.exchanged[:least] for part in parts], axis=1), len(parts))
        specificity, n_compared = (np.concatenate([getattr(p, name) for p in parts]) for name in ("specificity", "n_compared"))
        return cls(exchanged, specificity, n_compared, figures)


def _moved(matrix: LikelihoodMatrix, column: Ints, compared: Comparisons) -> Bools:
    """(n, m) bool: allowed columns when the response of each text is the one in ``column``, and all others move with it."""
    if compared.n_sampled:
        # Two brains change places in each row, in whatever columns they are.
        texts, brain = np.arange(column.size), compared.brain
        was, now = (brain == brain[texts, place][:, None] for place in (matrix.own, column))
        out = np.where(was, matrix.allowed[texts, column][:, None], matrix.allowed) & ~now
        return np.where(was[texts, column][:, None], matrix.allowed, out)
    back = np.arange(len(matrix.brains))
    back[column] = matrix.own
    return np.asarray(matrix.allowed[:, back])


def _figures(values: Array, own: Ints, may: Bools, candidates: Bools | None) -> dict[str, Array]:
    """Metric -> (n,) figure of each text."""
    columns = np.full(own.size, np.nan)
    # Running text now and then has one prompt twice; a figure of a few texts would stand for all of them.
    if candidates is not None and candidates.any(axis=0).mean() >= 0.5:
        columns = _identification(values, own, may, candidates)
    return _row_wise(values, own, may) | {"nll_identification": columns}


def _comparable(nll: Array) -> Array:
    """(n, m) NLL to `DIGITS`; what was not computed is larger than all."""
    return np.asarray(np.round(np.where(np.isfinite(nll), nll, np.inf), DIGITS))


def _row_wise(values: Array, own: Ints, may: Bools) -> dict[str, Array]:
    true, count = values[np.arange(own.size), own][:, None], np.count_nonzero(may, axis=1)
    less, ties = (np.count_nonzero(may & found, axis=1) for found in (values < true, values == true))
    before = np.where(count > 0, less + 0.5 * ties, np.nan)
    pairwise = 1 - np.divide(before, count, out=np.full(count.size, np.nan), where=count > 0)
    tops = {f"nll_top{k}": np.where(count >= k, (before < k).astype(np.float64), np.nan) for k in TOPS}
    return {"nll_pairwise": pairwise, **tops}


def _identification(values: Array, own: Ints, may: Bools, candidates: Bools) -> Array:
    true, count = values[np.arange(own.size), own][:, None], np.count_nonzero(may, axis=1)[:, None]
    total = np.einsum("ij,ij->i", np.where(np.isfinite(values), values, 0.0), may)[:, None] + true
    each = np.divide(1.0, count, out=np.full(count.shape, np.nan), where=count > 0)
    beyond = values[:, own] * (1 + each) - total * each
    return column_wise(np.round(beyond, DIGITS), candidates)
