"""Zero-shot: can a decoder name what no training example was of?

Whole *categories*, values of a factor in the table of facts, are left out of training and validation: every example whose
stimulus has one of them, or whose prompt or texts name one by any of its alternatives (synonyms), whatever its facts say. So the
decoder has never heard the word behind a brain. The test set keeps them.

- A *hit*: the text names a left-out category where one is there. A *false alarm*: it does where none is. Both are counted under
  the true brain, a permuted one and none: a language model that likes the word has many of either.
- *d'* is the difference of both rates after the inverse normal distribution function, half an example added to each of the four
  counts (Hautus 1995, doi:10.3758/BF03203619), so that rates of 0 and 1 have a value. 0 is chance. Its interval resamples groups.
- The *p* of hits shuffles which texts name a category within runs: did the true brains of that category get more of them?

What the category is worth when it is trained on tells the same test set decoded with all data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bids_brainlm.core.types import Examples
from bids_brainlm.evaluation.labels import accuracy_permutation
from bids_brainlm.evaluation.metrics import Facts
from bids_brainlm.evaluation.resampling import bootstrap_interval, interval_of
from bids_brainlm.evaluation.table import METRICS_COLUMNS, Predictions, Sampling
from bids_brainlm.language.stimuli import named

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

HITS, FALSE_ALARMS, D_PRIME = "zero_shot_hits", "zero_shot_false_alarms", "zero_shot_d_prime"


@dataclass(frozen=True)
class Category:
    """Values of a factor, all of which are left out.

    Parameters
    ----------
    facts : Facts
    factor : str
    labels : tuple of str
        First alternatives.

    Raises
    ------
    ValueError
        For an unknown factor or label, or none.

    Examples
    --------
    >>> facts = Facts({"animal": {"1": ("dog", "puppy"), "2": ("cat",)}})
    >>> dogs = Category.parsed("animal=dog", facts)
    >>> dogs.named_by(["two puppies", "a puppy", "a cat"]).tolist(), dogs.has(["1", "2"]).tolist()
    ([False, True, False], [True, False])
    """

    facts: Facts
    factor: str
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.factor not in self.facts.names:
            raise ValueError(f"no factor {self.factor!r}; factors: {', '.join(self.facts.factors)}")
        known = self.facts.vocabulary[self.factor]
        unknown = [label for label in self.labels if label not in known]
        if unknown or not self.labels:
            raise ValueError(f"{self.factor} has no value {', '.join(unknown) or 'named'}; values: {', '.join(sorted(known))}")

    @classmethod
    def parsed(cls, setting: str, facts: Facts) -> Category:
        """From ``factor=label[,label]``."""
        factor, _, labels = setting.partition("=")
        return cls(facts, factor.strip(), tuple(label.strip() for label in labels.split(",") if label.strip()))

    def has(self, stimuli: Sequence[str] | NDArray[np.str_]) -> Bools:
        """(n,) whether stimuli have one of the labels."""
        column = self.facts.factors.index(self.factor)
        return np.isin(self.facts.labels(stimuli)[:, column], self.labels)

    def named_by(self, texts: Sequence[str]) -> Bools:
        """(n,) whether texts name one of the labels, by any alternative."""
        names = self.facts.vocabulary[self.factor]
        return np.array([not named(text, names).isdisjoint(self.labels) for text in texts], dtype=np.bool_)

    def taught_by(self, examples: Examples) -> Bools:
        """(n,) whether an example would teach a category: by its stimulus, or by a word in its prompt or texts."""
        texts = [
            "\n".join((prompt.context, prompt.answer, *references))
            for prompt, references in zip(examples.prompts, examples.references, strict=True)
        ]
        return self.has(examples.stimulus) | self.named_by(texts)


def zero_shot_rows(predictions: Predictions, category: Category, runs: ArrayLike, sampling: Sampling) -> pd.DataFrame:
    """Hits, false alarms and d' under every condition: rows of the metrics table.

    Parameters
    ----------
    predictions : Predictions
    category : Category
        What was left out of training.
    runs : (n,)
        Within what texts are shuffled, in the order of the true condition.
    sampling : Sampling

    Returns
    -------
    DataFrame
        Columns `METRICS_COLUMNS`; none where the test set has no example of the category, or no other one.
    """
    true = predictions.of("true")
    there = category.has(true.stimuli) | category.named_by(["\n".join(texts) for texts in true.references])
    if there.all() or not there.any():
        return pd.DataFrame(columns=list(METRICS_COLUMNS))
    rows: list[tuple[str, str, float, float, float, int, float, float, float]] = []
    for condition in predictions.conditions:
        says = category.named_by(predictions.of(condition).texts)
        rows += _rows_of(condition, says, there, true.groups, np.asarray(runs), sampling)
    return pd.DataFrame(rows, columns=list(METRICS_COLUMNS))


def _rows_of(
    condition: str, says: Bools, there: Bools, groups: NDArray[np.str_], runs: NDArray[np.generic], sampling: Sampling
) -> Iterator[tuple[str, str, float, float, float, int, float, float, float]]:
    test = accuracy_permutation(
        np.where(says, "named", "not"), np.where(there, "named", ""), runs, sampling.permutations, sampling.seed
    )
    for metric, part in ((HITS, there), (FALSE_ALARMS, ~there)):
        low, high = bootstrap_interval(says[part], groups[part], sampling.bootstrap, sampling.seed) or (np.nan, np.nan)
        rest = (test.null_mean, test.p_value) if metric == HITS else (np.nan, np.nan)
        yield metric, condition, float(says[part].mean()), low, high, int(part.sum()), *rest, np.nan
    value, (low, high) = d_prime(says, there, groups, sampling)
    yield D_PRIME, condition, value, low, high, there.size, 0.0, np.nan, np.nan


def d_prime(says: Bools, there: Bools, groups: ArrayLike, sampling: Sampling) -> tuple[float, tuple[float, float]]:
    """Sensitivity, and its 95 % interval over groups: nan below `bids_brainlm.evaluation.resampling.MIN_UNITS` of them.

    Parameters
    ----------
    says : (n,) bool
        Whether each text names the category.
    there : (n,) bool
        Whether it should.
    groups : (n,)
    sampling : Sampling
    """
    counts = np.stack([there & says, there, ~there & says, ~there], axis=1).astype(np.float64)
    value = float(_d_prime(counts.sum(axis=0)[None])[0])
    return value, interval_of(_d_prime, counts, groups, sampling.bootstrap, sampling.seed) or (np.nan, np.nan)


def _d_prime(counts: Array) -> Array:
    """(k,) d' from (k, 4) hits, examples with the category, false alarms, examples without."""
    hits, signal, alarms, noise = counts.T
    return np.asarray(stats.norm.ppf((hits + 0.5) / (signal + 1)) - stats.norm.ppf((alarms + 0.5) / (noise + 1)))
