"""Reconstructed stories against what was said, against texts by the language model alone, and against other times of the story.

- Texts are compared in *long windows* (20 s): everything reconstructed for them with everything said in them. Those of which a
  part was not reconstructed are left out: their length would tell which belong together.
- A *null text* is drawn from the language model alone, with as many tokens in every window. It has the word rate that was read
  from the brain, but no word of it: z says by how many standard deviations of the null texts a decoder is better.
- A *circular shift* pairs each window with what was said some windows later, the last with the first. It keeps everything but the
  pairing: the rate, the style, and how words go on from window to window. The mean over shifts leaves out those smaller than a
  *minimum lag*, since responses and contexts of neighbours overlap. p counts all shifts that do as well as no shift: without the
  small ones, which are most like it, a test would find too much. Stories are shifted independently of each other for the test
  over all of them; where few combinations exist, each is used once. The first long window of a story is scored and not tested:
  how stories begin is known without a brain.

A search for the best text and a draw differ in style, so a decoder may beat null texts without a brain. The shifts tell.
"""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.core.windows import TOLERANCE
from bids_brainlm.evaluation.metrics import Metric
from bids_brainlm.evaluation.resampling import bootstrap_interval, permutation_p
from bids_brainlm.evaluation.statistics import TIE

Array = NDArray[np.float64]

ALL = "all"
"""Stands for every story of the participant in the table."""

NOTHING: Mapping[str, Any] = types.MappingProxyType({})

RATE = "word rate"
"""Stands in the place of a decoder where the number of words is scored."""

STORY_COLUMNS = {
    "story": f"Story; {ALL} for all of the participant's.",
    "decoder": f"Story decoder, or {RATE}: how many words each short window has.",
    "metric": "Metric, in long windows; correlation (Pearson, over short windows within a story) for the word rate.",
    "value": "Mean over windows.",
    "low": "Lower end of the 95 % bootstrap interval over stories; n/a for fewer than six.",
    "high": "Upper end of it.",
    "null": "Mean over texts by the language model alone, with as many tokens in every window; n/a for the word rate.",
    "z": "By how many standard deviations of these texts the value is better than their mean.",
    "shifted": "Mean over circular shifts of the windows that are far enough.",
    "p": "Share of shifts that do as well as no shift (one-sided, the true pairing counted); n/a where no shift is far enough.",
    "n_windows": "Windows compared.",
    "n_shifts": "Shifts, or combinations of shifts of several stories, that p counts.",
}
"""Columns of the table of reconstructed stories."""


@dataclass(frozen=True, eq=False)
class Pairing:
    """Scores of every window of a telling against every other.

    Parameters
    ----------
    story : str
    scores : (n, n) float64
        ``scores[i, j]`` is that of the text of window i for what was said in window j.
    lag : int
        Smallest shift, in windows; at least 1.
    untested : int
        Windows at the start that are scored and not shifted.
    """

    story: str
    scores: Array
    lag: int
    untested: int = 0

    @property
    def tested(self) -> Array:
        """(m, m) scores of the windows that are shifted."""
        return self.scores[self.untested :, self.untested :]

    def turned(self) -> Array:
        """(m,) sum of scores for every shift, from 0."""
        scores = self.tested
        rows = np.arange(len(scores))
        return np.array([scores[rows, (rows + k) % len(scores)].sum() for k in rows])

    def shifted(self) -> Array:
        """(s,) sum of scores for each shift of at least the lag; none where the telling is too short."""
        return self.turned()[self.lag : max(len(self.tested) - self.lag + 1, 0)]


@dataclass(frozen=True)
class ShiftTest:
    """Outcome of `shift_test`; ``shifted`` and ``p`` are nan where no shift is allowed."""

    value: float
    shifted: float
    p: float
    n_windows: int
    n_shifts: int


def shift_test(pairings: Sequence[Pairing], direction: str, permutations: int, seed: int) -> ShiftTest:
    """Mean score of the true pairing, and how many circular shifts do as well.

    Parameters
    ----------
    pairings : sequence of Pairing
        One a telling. Those without an allowed shift count for the value and not for the test.
    direction : {"higher", "lower"}
        Which scores are better.
    permutations : int
        Most combinations of shifts.
    seed : int
    """
    value = float(np.concatenate([np.diag(p.scores) for p in pairings]).mean())
    n_windows = sum(len(p.scores) for p in pairings)
    able = [p for p in pairings if p.shifted().size]
    if not able:
        return ShiftTest(value, np.nan, np.nan, n_windows, 0)
    n = sum(len(p.tested) for p in able)
    turned = [p.turned() for p in able]
    null, observed = _combined(turned, permutations, seed) / n, sum(float(sums[0]) for sums in turned) / n
    shifted = sum(float(p.shifted().mean()) for p in able) / n
    better, tie = ("greater", -TIE) if direction == "higher" else ("less", TIE)
    return ShiftTest(value, shifted, permutation_p(observed + tie, null, better), n_windows, null.size)


def _combined(sums: Sequence[Array], most: int, seed: int) -> Array:
    """(c,) sums over tellings of every combination of their shifts but the true one, or of as many as are wanted, at random."""
    if np.prod([float(own.size) for own in sums]) <= most + 1:
        return np.array([sum(values) for values in itertools.product(*sums)][1:], dtype=np.float64)
    rng = np.random.default_rng(seed)
    total: Array = np.sum([own[rng.integers(own.size, size=most)] for own in sums], axis=0)
    return total


def score_pairs(metric: Metric, texts: Sequence[str], said: Sequence[str], resources: Mapping[str, Any] = NOTHING) -> Array:
    """(n, n) score of every text for what was said in every window, by a metric that may need resources."""
    n = len(said)
    scores = metric([text for text in texts for _ in said], [(one,) for _ in texts for one in said], **resources)
    return np.asarray(scores.reshape(n, n))


def rate_pairs(expected: Array, spoken: Array) -> Array:
    """(n, n) products whose mean diagonal is the correlation of two (n,) numbers of words; 0 where one is constant."""
    left, right = (x - x.mean() for x in (expected, spoken))
    size = float(np.sqrt((left**2).mean() * (right**2).mean()))
    return np.outer(left, right) / size if size else np.zeros((left.size, right.size))


def long_windows(windows: Sequence[int], texts: Sequence[str], seconds: float, longer: float) -> dict[int, str]:
    """Texts of short windows joined into long ones, by number of the long window; only those that are complete.

    Parameters
    ----------
    windows : sequence of int
        Numbers of the short windows, in order.
    seconds, longer : float
        Lengths in s.

    Examples
    --------
    >>> long_windows([2, 3, 4, 5, 6], ["a hare", "ran", "", "far", "away"], 2.0, 4.0)
    {1: 'a hare ran', 2: 'far'}
    """
    out: dict[int, list[str]] = {}
    for window, text in zip(windows, texts, strict=True):
        out.setdefault(_long(window, seconds, longer), []).append(text)
    whole = {number: _begin(number + 1, seconds, longer) - _begin(number, seconds, longer) for number in out}
    return {number: " ".join(filter(None, parts)) for number, parts in out.items() if len(parts) == whole[number]}


def _long(window: int, seconds: float, longer: float) -> int:
    """Number of the long window in which a short one begins."""
    return int((window * seconds + TOLERANCE) // longer)


def _begin(number: int, seconds: float, longer: float) -> int:
    """First short window that begins in a long one, or after it."""
    return int(np.ceil((number * longer - TOLERANCE) / seconds))


def figures(
    told: pd.DataFrame,
    metrics: Sequence[Metric],
    *,
    seconds: float,
    longer: float,
    overlap: float,
    permutations: int,
    seed: int,
    resources: Mapping[str, Any] = NOTHING,
) -> pd.DataFrame:
    """The table of reconstructed stories.

    Parameters
    ----------
    told : DataFrame
        Columns story, run, decoder, draw (0 for a decoder, 1, 2, ... for null texts, whose decoder is empty), window, text_true,
        text_pred, words_pred (expected number of words): a row a window.
    metrics : sequence of Metric
    seconds, longer : float
        Length of the windows of the table, and of those in which texts are compared, in s.
    overlap : float
        Seconds within which responses and contexts of two windows overlap: shifts are longer.
    permutations, seed : int
    resources : mapping of str to Any
        What metrics need besides the texts (`bids_brainlm.evaluation.resources.available`).

    Returns
    -------
    DataFrame
        Columns `STORY_COLUMNS`.
    """
    lag = smallest_shift(overlap, longer)
    draws = list(told[told["draw"] > 0].groupby("draw"))
    # They are the same whatever decoder they stand beside.
    nulls = {
        metric.name: [list(_pairings(part, partial(_score_own, metric, resources), seconds, longer, lag)) for _, part in draws]
        for metric in metrics
    }
    rows: list[dict[str, Any]] = []
    for decoder, own in told[told["draw"] == 0].groupby("decoder", sort=False):
        for metric in metrics:
            pairings = list(_pairings(own, partial(score_pairs, metric, resources=resources), seconds, longer, lag))
            names = {"decoder": decoder, "metric": metric.name}
            rows += _rows(names, pairings, nulls[metric.name], metric.direction, permutations, seed)
    first = told[told["decoder"] == told.loc[told["draw"] == 0, "decoder"].iloc[0]]
    rates = list(_rate_pairings(first, smallest_shift(overlap, seconds)))
    rows += _rows({"decoder": RATE, "metric": "correlation"}, rates, [], "higher", permutations, seed)
    return pd.DataFrame(rows)[list(STORY_COLUMNS)]


def smallest_shift(overlap: float, seconds: float) -> int:
    """Windows of some length that lie so far apart that they share nothing; at least 1."""
    return max(1, int(np.ceil(overlap / seconds)))


def _rate_pairings(told: pd.DataFrame, lag: int) -> Iterator[Pairing]:
    for (story, _), part in told.groupby(["story", "run"], sort=False):
        part = part.sort_values("window")
        spoken = np.array([len(str(text).split()) for text in part["text_true"]], dtype=np.float64)
        yield Pairing(str(story), rate_pairs(part["words_pred"].to_numpy(float), spoken), lag)


def _score_own(metric: Metric, resources: Mapping[str, Any], texts: Sequence[str], said: Sequence[str]) -> Array:
    """As `score_pairs` for the diagonal, which is all that null texts are asked for; 0 elsewhere."""
    return np.diag(metric(texts, [(one,) for one in said], **resources))


def _pairings(
    told: pd.DataFrame, score: Callable[[list[str], list[str]], Array], seconds: float, longer: float, lag: int
) -> Iterator[Pairing]:
    """One a telling; long windows in which nobody speaks, and those that are not complete, are left out."""
    for (story, _), part in told.groupby(["story", "run"], sort=False):
        part = part.sort_values("window")
        windows = part["window"].tolist()
        said = long_windows(windows, part["text_true"].tolist(), seconds, longer)
        texts = long_windows(windows, part["text_pred"].tolist(), seconds, longer)
        spoken = [number for number, text in said.items() if text]
        if spoken:
            yield Pairing(str(story), score([texts[k] for k in spoken], [said[k] for k in spoken]), lag, int(spoken[0] == 0))


def _rows(
    names: Mapping[str, Any], pairings: list[Pairing], nulls: list[list[Pairing]], direction: str, permutations: int, seed: int
) -> Iterator[dict[str, Any]]:
    """One row a story, then one for all; none where no long window is complete."""
    stories = list(dict.fromkeys(p.story for p in pairings))
    for story in [*stories, ALL] if stories else []:
        own = [p for p in pairings if story in (p.story, ALL)]
        test = shift_test(own, direction, permutations, seed)
        draws = np.array([_mean([p for p in null if story in (p.story, ALL)]) for null in nulls])
        spread = draws.std(ddof=1) if draws.size > 1 else 0.0
        sign = 1 if direction == "higher" else -1
        interval = _interval(own, seed) or (np.nan, np.nan)
        yield {
            "story": story,
            **names,
            "value": test.value,
            "low": interval[0],
            "high": interval[1],
            "null": draws.mean() if draws.size else np.nan,
            "z": sign * (test.value - draws.mean()) / spread if spread else np.nan,
            "shifted": test.shifted,
            "p": test.p,
            "n_windows": test.n_windows,
            "n_shifts": test.n_shifts,
        }


def _mean(pairings: Sequence[Pairing]) -> float:
    return float(np.concatenate([np.diag(p.scores) for p in pairings]).mean())


def _interval(pairings: Sequence[Pairing], seed: int) -> tuple[float, float] | None:
    values = np.concatenate([np.diag(p.scores) for p in pairings])
    stories = np.concatenate([np.repeat(p.story, len(p.scores)) for p in pairings])
    return bootstrap_interval(values, stories, seed=seed)
