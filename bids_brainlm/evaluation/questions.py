"""Answers to questions: right or wrong by kind of question, and whether they are better than what is answered out of habit.

*Category*, *seen* and *habit* are those of `bids_brainlm.core.questions`. A figure is given of all texts, of each category, and
where a category has both, of questions that training asked (``seen``) and did not ask (``unseen``), each with every metric. The
accuracies ``exact`` and ``contains`` are always among these. Rows ``habit`` are the scores of habits, which know no brain, and
``true_minus_habit`` those of the decoder minus them: a decoder whose answers are no better has learned what is usually answered.
Intervals and tests resample groups (stimuli), with all questions about one. The likelihood test of a category exchanges brains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.core.types import Bools, Ints
from bids_brainlm.evaluation.baselines import compared_rows
from bids_brainlm.evaluation.matrix import Evidence
from bids_brainlm.evaluation.metrics import Metric, get
from bids_brainlm.evaluation.multiplicity import false_discovery_q
from bids_brainlm.evaluation.resources import lacking
from bids_brainlm.evaluation.table import METRICS_COLUMNS, Predictions, Sampling, TextScores, summary, text_scores

HABIT = "habit"
ACCURACIES = ("exact", "contains")
EVERY = "all"

QUESTIONS_COLUMNS = {
    "category": "Kind of question, caption for texts without one; all for all texts.",
    "asked": "Questions that training asked (seen), those that it did not (unseen), or all where there are both.",
    **METRICS_COLUMNS,
    "condition": "Brain the text was decoded from (true, permuted, none); habit for the most frequent answer in training, which"
    " needs no brain, and true_minus_habit for the difference, text by text.",
    "null_mean": "Mean of the comparison: of the permutations for likelihoods, 0 for the difference from habit, else of the"
    " permuted condition.",
    "q_value": "False discovery rate (Benjamini-Hochberg) over the p values of the table.",
}
"""Columns of the table of questions, in order."""

ANSWERS_COLUMNS = {
    "trial_id": "Example that was decoded.",
    "category": "Kind of its question; caption for a text without one.",
    "asked": "Whether training asked the question, in any wording of it: seen or unseen.",
    "habit": "Its most frequent answer in training; of an unseen question, that of its category, else of all texts.",
    "exact": "1 where the text from the true brain is the right answer, word for word, else 0.",
    "contains": "1 where all words of the right answer stand in it in a row, else 0.",
}
"""Columns of the table of answers, in order."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What is known of the question of each text, in the order of the true condition.

    Parameters
    ----------
    category : (n,) str
    seen : (n,) bool
    habit : sequence (n) of str
    """

    category: NDArray[np.str_]
    seen: Bools
    habit: Sequence[str]

    def parts(self) -> Iterator[tuple[str, str, Ints]]:
        """Category, which of its questions, and their indices (m,); all texts first."""
        for category in (EVERY, *np.unique(self.category)):
            own = np.flatnonzero((self.category == category) | (category == EVERY))
            found = {name: own[self.seen[own] == seen] for name, seen in (("seen", True), ("unseen", False))}
            some = {name: index for name, index in found.items() if index.size}
            yield from ((str(category), name, index) for name, index in ({EVERY: own, **some} if len(some) > 1 else some).items())


def question_tables(
    predictions: Predictions,
    asked: Asked,
    metrics: Sequence[Metric],
    evidence: Evidence,
    resources: Mapping[str, Any],
    sampling: Sampling,
    scores: TextScores,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Figures by category, and the answers one by one.

    Parameters
    ----------
    predictions : Predictions
    asked : Asked
    metrics : sequence of Metric
        The accuracies are added; those that need what is not there are left out.
    evidence : Evidence
        In the order of the true condition.
    resources : mapping
        What metrics need, but facts.
    sampling : Sampling
    scores : mapping
        `text_scores` of the metrics, the accuracies left out.

    Returns
    -------
    figures, answers : DataFrame
        Columns `QUESTIONS_COLUMNS` and `ANSWERS_COLUMNS`.
    """
    added = [get(name) for name in ACCURACIES if name not in {metric.name for metric in metrics}]
    used = [m for m in (*added, *metrics) if "facts" not in m.context and not lacking(m.context, resources)]
    known = {**scores, **text_scores(predictions, added, resources)}
    true = predictions.of("true")
    usual = {m.name: m(asked.habit, true.references, stimuli=true.stimuli, **resources) for m in used}
    trials = true.table["trial_id"].to_numpy()
    tables = []
    for category, which, index in asked.parts():
        part = predictions.take(set(trials[index]))
        own = {name: {condition: values[index] for condition, values in known[name].items()} for name in usual}
        rows = summary(part, used, evidence.take(index), sampling=sampling, scores=own)
        pairs = ((m, HABIT, own[m.name]["true"], usual[m.name][index], part.of("true"), sampling) for m in used)
        compared = pd.DataFrame([row for pair in pairs for row in compared_rows(*pair)], columns=list(METRICS_COLUMNS))
        tables.append(pd.concat([rows, compared], ignore_index=True).assign(category=category, asked=which))
    figures = pd.concat(tables, ignore_index=True)[list(QUESTIONS_COLUMNS)]
    figures["q_value"] = false_discovery_q(figures["p_value"].to_numpy(float))
    return figures, _answers(asked, trials, known)


def _answers(asked: Asked, trials: NDArray[Any], scores: TextScores) -> pd.DataFrame:
    which = np.where(asked.seen, "seen", "unseen")
    columns = (trials, asked.category, which, list(asked.habit), *(scores[name]["true"].astype(int) for name in ACCURACIES))
    return pd.DataFrame(dict(zip(ANSWERS_COLUMNS, columns, strict=True)))
