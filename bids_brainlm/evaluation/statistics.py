"""Intervals and tests, with what they assume.

A *unit* is what was sampled: for a participant's figures, what training and test never share (a stimulus, passage, block of
a story ...); for those of a group, a participant. Texts of a unit are not independent, so intervals draw whole units (cluster
bootstrap) and paired tests flip whole units.

The *primary test* is declared before any data are seen: do the right texts have a smaller negative log-likelihood (NLL) with
the brain they belong to than with the brains of other test trials? Its p value counts how many of K random pairings of texts
with brains do as well as the true one; everything else in the reports is secondary.

>>> primary_test(np.array([1.0, 2.0]), np.array([[2.0, 3.0]] * 99)).verdict
'The text depends on the brain: given it, the right texts are 1.00 nats likelier than given permuted brains (p = .010, n = 2).'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]

MIN_UNITS = 6
"""Fewest units an interval is given for; below, points are shown."""

ALPHA = 0.05
"""Level of the primary test."""

TIE = 1e-6
"""Mean NLL (nats) that differ by less are equal: rounding, which batches and padding alter, must not decide a test."""


def bootstrap_interval(
    values: ArrayLike, units: ArrayLike, n_samples: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float] | None:
    """Interval of the mean by resampling whole units (expanded percentile bootstrap).

    Parameters
    ----------
    values : (n,) float
        One a text; nan is left out.
    units : (n,)
        What was sampled, e.g. the group of each text.
    n_samples : int
        Bootstrap samples.
    level : float
        Coverage.

    Returns
    -------
    tuple of float or None
        None below `MIN_UNITS` units, and where all units have one value (resampling such data says nothing).

    Notes
    -----
    With few units the plain percentile interval is too narrow; its tails are taken further out so that it agrees with the t
    interval for a mean (Hesterberg 2015, doi:10.1080/00031305.2015.1089789, section 5.3).
    """
    sums, counts = _per_unit(values, units)
    n = sums.size
    if n < MIN_UNITS or np.ptp(sums / counts) == 0:
        return None
    weights = _weights(n, n_samples, seed)
    return _between_tails((weights @ sums) / (weights @ counts), n, level)


def _weights(n_units: int, n_samples: int, seed: int) -> NDArray[np.int64]:
    """(n_samples, n_units) how often each unit is drawn in each sample."""
    return np.random.default_rng(seed).multinomial(n_units, np.full(n_units, 1 / n_units), size=n_samples)


def _between_tails(estimates: Array, n_units: int, level: float) -> tuple[float, float]:
    """Expanded percentile interval from the estimates of bootstrap samples."""
    tail = stats.norm.cdf(np.sqrt(n_units / (n_units - 1)) * stats.t.ppf((1 - level) / 2, n_units - 1))
    low, high = np.quantile(estimates, [tail, 1 - tail])
    return float(low), float(high)


def _per_unit(values: ArrayLike, units: ArrayLike) -> tuple[Array, Array]:
    numbers, labels = np.asarray(values, dtype=np.float64), np.asarray(units)
    if numbers.shape != labels.shape or numbers.ndim != 1:
        raise ValueError(f"values {numbers.shape} and units {labels.shape}; expected (n,) both")
    known = np.isfinite(numbers)
    _, index = np.unique(labels[known], return_inverse=True)
    sums: Array = np.bincount(index, weights=numbers[known]).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def permutation_p(observed: float, null: ArrayLike, alternative: str = "greater") -> float:
    """P value of a permutation test, never zero: (1 + as extreme) / (K + 1) (Phipson & Smyth 2010, doi:10.2202/1544-6115.1585).

    Parameters
    ----------
    observed : float
    null : (K,) float
        The statistic under K permutations.
    alternative : {"greater", "less", "two-sided"}
        Which observed values speak against the null; two-sided doubles the smaller tail.

    Raises
    ------
    ValueError
        For an unknown alternative, no permutation, or values that are not finite.

    Examples
    --------
    >>> permutation_p(3.0, [0.0, 1.0, 2.0])
    0.25
    """
    draws = np.asarray(null, dtype=np.float64)
    if draws.ndim != 1 or not draws.size or not np.isfinite(draws).all() or not np.isfinite(observed):
        raise ValueError(
            f"permutation test of {observed} against values of shape {draws.shape}; expected finite numbers, at least one"
        )
    greater = (1 + int((draws >= observed).sum())) / (draws.size + 1)
    less = (1 + int((draws <= observed).sum())) / (draws.size + 1)
    tails = {"greater": greater, "less": less, "two-sided": min(1.0, 2 * min(greater, less))}
    if alternative not in tails:
        raise ValueError(f"alternative {alternative!r}; expected one of {', '.join(tails)}")
    return tails[alternative]


@dataclass(frozen=True)
class PrimaryTest:
    """Outcome of the primary test.

    Attributes
    ----------
    effect : float
        Mean NLL under permuted brains minus under the true ones, nats a text; positive where the brain helps.
    p_value : float
    n : int
        Texts.
    n_permutations : int
        Pairings the true one was compared with.
    interval : tuple of float or None
        95 % interval of the effect over units.
    """

    effect: float
    p_value: float
    n: int
    n_permutations: int
    interval: tuple[float, float] | None = None

    @property
    def significant(self) -> bool:
        return self.p_value <= ALPHA

    @property
    def conclusive(self) -> bool:
        """Whether enough permutations were made for any result to be significant."""
        return 1 / (self.n_permutations + 1) <= ALPHA

    @property
    def verdict(self) -> str:
        """One sentence in plain words."""
        numbers = f"(p = {format_p(self.p_value)}, n = {self.n})."
        if not self.conclusive:
            return f"{self.n_permutations} permutations are too few to tell whether the text came from the brain {numbers}"
        if self.significant:
            gain = f"given it, the right texts are {self.effect:.2f} nats likelier than given permuted brains"
            return f"The text depends on the brain: {gain} {numbers}"
        change = f"{abs(self.effect):.2f} nats {'likelier' if self.effect >= 0 else 'less likely'}"
        compared = f"given it, the right texts are {change} than given permuted brains"
        return f"No evidence that the text came from the brain: {compared} {numbers}"


def format_p(p: float) -> str:
    """P value as in print.

    >>> format_p(0.0004), format_p(0.0312), format_p(1.0)
    ('.0004', '.031', '1.000')
    """
    return f"{p:.4f}".lstrip("0") if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 1 else "1.000"


def primary_test(
    nll_true: ArrayLike, nll_permuted: ArrayLike, units: ArrayLike | None = None, n_samples: int = 2000, seed: int = 0
) -> PrimaryTest:
    """Is the right text likelier with its own brain than with other trials' brains?

    Parameters
    ----------
    nll_true : (n,) float
        NLL of each right text given its own brain, nats.
    nll_permuted : (K, n) float
        The same texts given the brain of the partner that permutation k assigns.
    units : (n,), optional
        Unit of each text, for the interval of the effect.

    Returns
    -------
    PrimaryTest
        p = (1 + #{k: mean of permutation k <= true mean}) / (K + 1): small when hardly any pairing is as good as the true one.
        Under the null the true pairing is one pairing like the others.

    Raises
    ------
    ValueError
        When shapes disagree or a value is not finite.
    """
    true, permuted = np.asarray(nll_true, dtype=np.float64), np.asarray(nll_permuted, dtype=np.float64)
    if true.ndim != 1 or not true.size or permuted.ndim != 2 or permuted.shape[1] != true.size or not len(permuted):
        raise ValueError(f"NLL of shape {true.shape} and permuted NLL of shape {permuted.shape}; expected (n,) and (K, n)")
    if not (np.isfinite(true).all() and np.isfinite(permuted).all()):
        raise ValueError("NLL values that are not finite")
    gain = permuted.mean(axis=0) - true
    interval = None if units is None else bootstrap_interval(gain, units, n_samples, seed)
    p = permutation_p(float(true.mean()) + TIE, permuted.mean(axis=1), "less")
    return PrimaryTest(float(gain.mean()), p, true.size, len(permuted), interval)


def group_verdict(tests: Mapping[str, PrimaryTest], seed: int = 0) -> str:
    """One sentence on several participants: in how many the text depends on the brain and, from 6 on, a test over them.

    Parameters
    ----------
    tests : mapping of participant to PrimaryTest
        The test over participants flips the sign of their effects; it asks about the population, theirs about each alone.
    """
    found = sum(test.significant for test in tests.values())
    if not tests:
        return "No participant has a result of the primary test."
    start = "The text depends on the brain in" if found else "No evidence that the text came from the brain in any of"
    count = f"{found} of {len(tests)}" if found else str(len(tests))
    effects = [test.effect for test in tests.values()]
    p = sign_flip_p(effects, np.arange(len(effects)), seed=seed)
    mean = f"mean gain {np.mean(effects):.2f} nats a text" + ("" if p is None else f", p = {format_p(p)} over participants")
    return f"{start} {count} participant{'s' if len(tests) > 1 else ''} ({mean})."


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


def sign_flip_p(
    differences: ArrayLike, units: ArrayLike, n: int = 10000, seed: int = 0, alternative: str = "greater"
) -> float | None:
    """P value of a mean paired difference, by flipping the sign of whole units.

    Parameters
    ----------
    differences : (n,) float
        E.g. a metric of the text from the true brain minus from a permuted one; nan is left out.
    units : (n,)
        What was sampled.
    n : int
        Random flips.

    Returns
    -------
    float or None
        None below `MIN_UNITS` units, where no flip could reach significance.
    """
    sums, _ = _per_unit(differences, units)
    if sums.size < MIN_UNITS:
        return None
    rng = np.random.default_rng(seed)
    null, observed = rng.choice([-1.0, 1.0], size=(n, sums.size)) @ sums, float(sums.sum())
    # Equal sums in another order differ in the last bits; they must count as equally extreme.
    null = np.where(np.isclose(null, observed, rtol=0, atol=1e-12 * np.abs(sums).sum()), observed, null)
    return permutation_p(observed, null, alternative)


@dataclass(frozen=True)
class Line:
    """Slope of y on x over n texts, with a 95 % interval over units and a one-sided p value (that it is above 0)."""

    slope: float
    n: int
    interval: tuple[float, float] | None = None
    p_value: float | None = None


def line(x: ArrayLike, y: ArrayLike, units: ArrayLike, n_samples: int = 2000, n_flips: int = 10000, seed: int = 0) -> Line:
    """Straight line through values that come in units.

    Parameters
    ----------
    x, y : (n,) float
    units : (n,)
        What was sampled.
    n_samples, n_flips : int
        Bootstrap samples of whole units, and random signs of what they add to the slope.

    Returns
    -------
    Line
        Slope nan where x does not vary; no interval and no p below `MIN_UNITS` units.

    Notes
    -----
    A unit adds the sum of (x - mean x)(y - mean y) over its values to the numerator of the slope. Where y does not depend on x
    these sums are as often negative as positive, whatever the values of a unit have in common (wild bootstrap of the score).
    """
    across, up = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    _, index = np.unique(np.asarray(units), return_inverse=True)
    if not across.shape == up.shape == index.shape or across.ndim != 1:
        raise ValueError(f"x {across.shape}, y {up.shape} and units {index.shape}; expected (n,) all")
    centred, rest = across - across.mean(), up - up.mean()
    if not (centred**2).any():
        return Line(np.nan, across.size)
    slope = float(centred @ rest / (centred @ centred))
    sums = np.stack([np.bincount(index, values) for values in (np.ones(index.size), centred, rest, centred**2, centred * rest)])
    if sums.shape[1] < MIN_UNITS:
        return Line(slope, across.size)
    n, sx, sy, sxx, sxy = sums @ _weights(sums.shape[1], n_samples, seed).T
    spread = n * sxx - sx**2
    slopes = (n * sxy - sx * sy)[spread > 0] / spread[spread > 0]
    return Line(
        slope, across.size, _between_tails(slopes, sums.shape[1], 0.95), sign_flip_p(centred * rest, index, n_flips, seed)
    )


def pairwise_accuracy(nll: ArrayLike, nll_control: ArrayLike) -> Array:
    """(n,) 1 where a text is likelier than under the control, 0.5 for ties (Ye et al. 2025); the control may be (K, n)."""
    better, control = np.asarray(nll, dtype=np.float64), np.atleast_2d(np.asarray(nll_control, dtype=np.float64))
    return np.asarray(((better < control) + 0.5 * (better == control)).mean(axis=0), dtype=np.float64)
