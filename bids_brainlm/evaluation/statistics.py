"""The primary test, and what is said of it in words.

The *primary test* is declared before any data are seen: do the right texts have a smaller negative log-likelihood (NLL) with
the brain they belong to than with the brains of other test trials? Its p value counts how many of K random pairings of texts
with brains do as well as the true one; everything else in the reports is secondary.

Its *effect* compares with pairings of partners, who differ in everything (`bids_brainlm.core.interventions.partners`). Its *p*
has to count *exchanges* (`bids_brainlm.core.interventions.exchanges`), which may leave a response where it is: partners never
do, so that their pairings are too much alike, and in a run of eight trials seven tests in a hundred would be significant at .05
by chance.

>>> primary_test(np.array([1.0, 2.0]), np.array([[2.0, 3.0]] * 99)).verdict
'The text depends on the brain: given it, the right texts are 1.00 nats likelier than given permuted brains (p = .010, n = 2).'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_brainlm.evaluation.resampling import bootstrap_interval, permutation_p, sign_flip_p

Array = NDArray[np.float64]

ALPHA = 0.05
"""Level of the primary test."""

TIE = 1e-6
"""Mean NLL (nats) that differ by less are equal: rounding, which batches and padding alter, must not decide a test."""


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
            gain = f"given it, the right texts are {nats(self.effect)} nats likelier than given permuted brains"
            return f"The text depends on the brain: {gain} {numbers}"
        change = f"{nats(abs(self.effect))} nats {'likelier' if self.effect >= 0 else 'less likely'}"
        compared = f"given it, the right texts are {change} than given permuted brains"
        return f"No evidence that the text came from the brain: {compared} {numbers}"


def format_p(p: float) -> str:
    """P value as in print.

    >>> format_p(0.0004), format_p(0.0312), format_p(1.0)
    ('.0004', '.031', '1.000')
    """
    return f"{p:.4f}".lstrip("0") if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 1 else "1.000"


def nats(value: float) -> str:
    """A difference in words: two decimals, or two digits where those would say nothing.

    >>> nats(1.382), nats(-0.00267), nats(0.0)
    ('1.38', '-0.0027', '0.00')
    """
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def primary_test(
    nll_true: ArrayLike,
    nll_permuted: ArrayLike,
    units: ArrayLike | None = None,
    n_samples: int = 2000,
    seed: int = 0,
    *,
    nll_exchanged: ArrayLike | None = None,
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
    nll_exchanged : (E, n) float, optional
        The same texts under exchanges of responses, for p; the permuted ones when absent.

    Returns
    -------
    PrimaryTest
        p = (1 + #{k: mean of exchange k <= true mean}) / (E + 1): small when hardly any pairing is as good as the true one.
        Under the null the true pairing is one exchange like the others.

    Raises
    ------
    ValueError
        When shapes disagree or a value is not finite.
    """
    true = np.asarray(nll_true, dtype=np.float64)
    permuted = _pairings(true, nll_permuted)
    exchanged = permuted if nll_exchanged is None else _pairings(true, nll_exchanged)
    gain = permuted.mean(axis=0) - true
    interval = None if units is None else bootstrap_interval(gain, units, n_samples, seed)
    p = permutation_p(float(true.mean()) + TIE, exchanged.mean(axis=1), "less")
    return PrimaryTest(float(gain.mean()), p, true.size, len(exchanged), interval)


def _pairings(true: Array, nll: ArrayLike) -> Array:
    """(K, n) NLL under other pairings, if it fits the true ones (n,)."""
    others = np.asarray(nll, dtype=np.float64)
    if true.ndim != 1 or not true.size or others.ndim != 2 or others.shape[1] != true.size or not len(others):
        raise ValueError(f"NLL of shape {true.shape} and permuted NLL of shape {others.shape}; expected (n,) and (K, n)")
    if not (np.isfinite(true).all() and np.isfinite(others).all()):
        raise ValueError("NLL values that are not finite")
    return others


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
    over = "" if p is None else f", p = {format_p(p)} over participants"
    mean = f"mean gain {nats(float(np.mean(effects)))} nats a text{over}"
    return f"{start} {count} participant{'s' if len(tests) > 1 else ''} ({mean})."


def pairwise_accuracy(nll: ArrayLike, nll_control: ArrayLike) -> Array:
    """(n,) 1 where a text is likelier than under the control, 0.5 for ties (Ye et al. 2025); the control may be (K, n)."""
    better, control = np.asarray(nll, dtype=np.float64), np.atleast_2d(np.asarray(nll_control, dtype=np.float64))
    return np.asarray(((better < control) + 0.5 * (better == control)).mean(axis=0), dtype=np.float64)
