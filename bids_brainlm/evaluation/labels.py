"""Is a share of right labels more than chance? Labels are shuffled within runs.

Shuffling within a run keeps what differs between runs (drift of the scanner, how often a word is said) in the null. All orders of
the labels of a run are drawn with equal probability, the observed one among them, so that the test is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_brainlm.evaluation.resampling import permutation_p

Array = NDArray[np.float64]


@dataclass(frozen=True)
class AccuracyTest:
    """Outcome of `accuracy_permutation`: share of right labels, its mean under permutation, and p."""

    accuracy: float
    null_mean: float
    p_value: float
    n_permutations: int


def accuracy_permutation(predicted: ArrayLike, true: ArrayLike, runs: ArrayLike, n: int = 1000, seed: int = 0) -> AccuracyTest:
    """Accuracy against that of the same predictions shuffled among the trials of their run.

    Shuffling within a run keeps what differs between runs (drift of the scanner, how often a word is said) in the null.

    Parameters
    ----------
    predicted, true : (n_trials,) or (n_trials, f) str
        Labels; with f factors, the labels of a trial stay together and every known label counts alike. A true label ""
        (not known) is left out.
    runs : (n_trials,)
        Within what predictions may be exchanged.
    n : int
        Permutations.
    """
    hits, known = _hits(predicted, true, runs, n, seed)
    return _accuracy_test(hits.sum(axis=1), int(known.sum()))


def factor_permutations(
    predicted: ArrayLike, true: ArrayLike, runs: ArrayLike, n: int = 1000, seed: int = 0
) -> tuple[AccuracyTest | None, ...]:
    """`accuracy_permutation` of each of f factors, on the same permutations; None for a factor of which nothing is known."""
    hits, known = _hits(predicted, true, runs, n, seed)
    return tuple(_accuracy_test(hits[:, i], int(known[i])) if known[i] else None for i in range(known.size))


def _accuracy_test(hits: Array, known: int) -> AccuracyTest:
    """From the number of right labels: observed first, then one a permutation."""
    null = hits[1:] / known
    return AccuracyTest(float(hits[0] / known), float(null.mean()), permutation_p(float(hits[0] / known), null), null.size)


def _hits(predicted: ArrayLike, true: ArrayLike, runs: ArrayLike, n: int, seed: int) -> tuple[Array, NDArray[np.int64]]:
    """Number of right labels of each factor, (1 + n, f) with the observed one first, and number of known labels (f,)."""
    guess, truth, blocks = np.asarray(predicted, dtype=np.str_), np.asarray(true, dtype=np.str_), np.asarray(runs)
    if guess.shape != truth.shape or guess.ndim not in (1, 2) or blocks.shape != guess.shape[:1] or not (truth != "").any():
        raise ValueError(
            f"predicted {guess.shape}, true {truth.shape}, runs {blocks.shape}; expected (n, f), (n, f), (n,), some known"
        )
    guess, truth = (labels.reshape(len(labels), -1) for labels in (guess, truth))
    known = truth != ""
    _, codes = np.unique(np.concatenate([guess, truth]), return_inverse=True)
    guess_codes, truth_codes = codes.reshape(2, *guess.shape)
    rng = np.random.default_rng(seed)
    hits = np.empty((n + 1, guess.shape[1]))
    hits[0] = ((guess_codes == truth_codes) & known).sum(axis=0)
    for k in range(1, n + 1):
        hits[k] = ((guess_codes[_shuffle_within(blocks, rng)] == truth_codes) & known).sum(axis=0)
    return hits, known.sum(axis=0)


def _shuffle_within(blocks: NDArray[np.generic], rng: np.random.Generator) -> NDArray[np.int64]:
    """(n,) indices that exchange rows of one block only."""
    order = np.argsort(blocks, kind="stable")
    shuffled = np.lexsort((rng.random(blocks.size), blocks))
    index = np.empty(blocks.size, dtype=np.int64)
    index[order] = shuffled
    return index
