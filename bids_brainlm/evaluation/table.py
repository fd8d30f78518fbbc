"""The decoded-text table and the figures made from it.

*Predictions* are one row a test trial and condition, with the columns of `bids_brainlm.core.types.DECODED_COLUMNS` and no others.
The *summary* is a long table of figures, one row a metric and condition (`METRICS_COLUMNS`). Its first row is the primary test,
``nll_permuted_minus_true``; other p values are secondary: pairings of texts with other brains for figures of the likelihood
matrix, label permutation within runs for facts, flips of the sign of whole groups (true against permuted brain) for every other
metric.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bids_brainlm.core.types import CONDITIONS, DECODED_COLUMNS
from bids_brainlm.evaluation.labels import AccuracyTest, accuracy_permutation, factor_permutations
from bids_brainlm.evaluation.linear import TOP, Identified
from bids_brainlm.evaluation.matrix import Evidence
from bids_brainlm.evaluation.metrics import Facts, Metric, mean_known
from bids_brainlm.evaluation.multiplicity import false_discovery_q
from bids_brainlm.evaluation.resampling import bootstrap_interval, permutation_p, sign_flip_p
from bids_brainlm.evaluation.resources import lacking
from bids_brainlm.evaluation.statistics import PrimaryTest

TextScores = Mapping[str, Mapping[str, NDArray[np.float64]]]
"""Metric -> condition -> (n,) values."""

EMPTY = "n/a"
SEPARATOR = " | "
PRIMARY = "nll_permuted_minus_true"
TEXT_ONLY = "text_only"

METRICS_COLUMNS = {
    "metric": "What was measured.",
    "condition": "Brain the text was decoded from (true, permuted, none), text_only for the text-only model, or what else named"
    " the facts.",
    "value": "Mean over texts.",
    "ci_low": "Lower end of the 95 % interval over groups (bootstrap); n/a below 6 groups or where all are equal.",
    "ci_high": "Upper end of that interval.",
    "n": "Number of texts.",
    "null_mean": "Mean of the comparison: of the permutations for facts and the primary test, else of the permuted condition.",
    "p_value": "One-sided permutation p value against that comparison; n/a where none is made.",
    "q_value": "False discovery rate (Benjamini-Hochberg) over the p values of the table but the primary one, which is declared.",
}
"""Columns of the metrics table, in order."""

_TEXT = [name for name in DECODED_COLUMNS if name not in ("fold", "nll", "n_tokens")]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Decoded texts and their likelihoods.

    Parameters
    ----------
    table : DataFrame
        Columns of `DECODED_COLUMNS`, in any order; copied, put in order and given their types. Texts lose tabs and line ends,
        which a TSV cannot hold, and are ``n/a`` where they are empty.

    Raises
    ------
    ValueError
        For a missing or unknown column or condition, a trial that occurs twice in a condition, an NLL that is not finite.
    """

    table: pd.DataFrame

    def __post_init__(self) -> None:
        columns = list(self.table.columns)
        missing, unknown = [c for c in DECODED_COLUMNS if c not in columns], [c for c in columns if c not in DECODED_COLUMNS]
        if missing or unknown:
            raise ValueError(f"decoded texts lack the columns {missing} and have the unknown columns {unknown}")
        table = self.table[list(DECODED_COLUMNS)].reset_index(drop=True)
        table = table.astype({"fold": int, "nll": float, "n_tokens": int})
        for name in _TEXT:
            table[name] = table[name].fillna("").astype(str).map(_clean)
        wrong = sorted(set(table["condition"]) - set(CONDITIONS))
        if wrong:
            raise ValueError(f"unknown condition {', '.join(wrong)}; expected {', '.join(CONDITIONS)}")
        if table.duplicated(["trial_id", "condition"]).any():
            row = table[table.duplicated(["trial_id", "condition"])].iloc[0]
            raise ValueError(f"trial {row['trial_id']} occurs twice in the condition {row['condition']}")
        if not np.isfinite(table["nll"]).all():
            raise ValueError(f"NLL of {int((~np.isfinite(table['nll'])).sum())} rows is not finite")
        object.__setattr__(self, "table", table)

    @classmethod
    def concat(cls, parts: Sequence[Predictions]) -> Predictions:
        """Conditions and folds in one table."""
        return cls(pd.concat([part.table for part in parts], ignore_index=True))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def conditions(self) -> tuple[str, ...]:
        """Those present, in the usual order."""
        return tuple(name for name in CONDITIONS if (self.table["condition"] == name).any())

    def of(self, condition: str) -> Predictions:
        """The rows of one condition, in the order in which the true condition (else the table) has the trials."""
        rows = self.table[self.table["condition"] == condition]
        order = list(dict.fromkeys(self.table.loc[self.table["condition"] == CONDITIONS[0], "trial_id"]))
        rank = {trial: i for i, trial in enumerate(order)}
        return Predictions(rows.sort_values("trial_id", key=lambda t: t.map(lambda x: rank.get(x, len(rank))), kind="stable"))

    def take(self, trials: Collection[str]) -> Predictions:
        """The rows of some trials, under every condition."""
        return Predictions(self.table[self.table["trial_id"].isin(trials)])

    @property
    def texts(self) -> list[str]:
        """(n,) generated texts."""
        return [_unescape(text) for text in self.table["text_pred"]]

    @property
    def references(self) -> list[tuple[str, ...]]:
        """(n,) texts that count as right."""
        return [tuple(_unescape(text).split(SEPARATOR)) for text in self.table["text_true"]]

    @property
    def groups(self) -> NDArray[np.str_]:
        """(n,) what is never shared between training and test: the units of intervals and tests."""
        return np.asarray(self.table["group"], dtype=np.str_)

    @property
    def stimuli(self) -> NDArray[np.str_]:
        return np.asarray(self.table["stimulus_id"], dtype=np.str_)

    @property
    def nll(self) -> NDArray[np.float64]:
        return np.asarray(self.table["nll"], dtype=np.float64)


def _clean(text: str) -> str:
    return " ".join(text.split()) or EMPTY


def _unescape(text: str) -> str:
    return "" if text == EMPTY else text


@dataclass(frozen=True)
class _Row:
    metric: str
    condition: str
    value: float
    ci_low: float = np.nan
    ci_high: float = np.nan
    n: int = 0
    null_mean: float = np.nan
    p_value: float = np.nan
    q_value: float = np.nan


@dataclass(frozen=True, eq=False)
class Informed:
    """What the brain adds to a text-only model (`bids_brainlm.evaluation.information`).

    Parameters
    ----------
    bits : (n,) float64
    nll_decoder, nll_text_only : (n,) float64
        Calibrated, nats.
    temperatures : two sequences of float
        Of decoder and text-only model, one a fold.
    """

    bits: NDArray[np.float64]
    nll_decoder: NDArray[np.float64]
    nll_text_only: NDArray[np.float64]
    temperatures: tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Sampling:
    """How intervals and permutation tests are drawn: bootstrap samples, permutations, seed."""

    bootstrap: int = 2000
    permutations: int = 5000
    seed: int = 0


def summary(
    predictions: Predictions,
    metrics: Sequence[Metric],
    evidence: Evidence | None = None,
    facts: Facts | None = None,
    runs: ArrayLike | None = None,
    readouts: Mapping[str, NDArray[np.str_]] | None = None,
    identified: Mapping[str, Identified] | None = None,
    informed: Informed | None = None,
    resources: Mapping[str, Any] | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    scores: TextScores | None = None,
    telling: NDArray[np.bool_] | None = None,
) -> pd.DataFrame:
    """Every figure of one participant.

    Parameters
    ----------
    predictions : Predictions
        Pooled over folds.
    metrics : sequence of Metric
        Those that need facts, or something that ``resources`` lack, are left out.
    evidence : Evidence, optional
        Of the likelihood matrices, texts in the order of the true condition; gives the primary test.
    facts : Facts, optional
    runs : (n,), optional
        Within what labels are permuted, in the order of the true condition; the fold when absent.
    readouts : mapping of name to (n, f) str, optional
        Labels of each factor named by something else than the text: ``ridge``, ``logistic``, ``observer``.
    identified : mapping of name to Identified, optional
        Texts told by a linear readout (``ridge``), in the order of the true condition.
    informed : Informed, optional
        Information in bits, in the order of the true condition.
    resources : mapping, optional
        What `bids_brainlm.evaluation.resources.available` finds.
    sampling : Sampling
    scores : mapping, optional
        `text_scores` of the same, where they are known already: some metrics ask a language model.
    telling : (n,) bool, optional
        Texts that are to tell every fact: captions, and not the answer to one question. All when absent.

    Returns
    -------
    DataFrame
        Columns of `METRICS_COLUMNS`.
    """
    true = predictions.of("true")
    blocks = true.table["fold"].to_numpy() if runs is None else np.asarray(runs)
    rows = list(_likelihood_rows(predictions, evidence, sampling))
    rows += [] if informed is None else _information_rows(informed, true, sampling)
    for name, found in (identified or {}).items():
        rows += _identified_rows(name, found, true, sampling)
    known = text_scores(predictions, metrics, resources or {}) if scores is None else scores
    for metric in metrics:
        if metric.name in known:
            rows += _metric_rows(metric, predictions, known[metric.name], sampling)
    if facts is not None and any("facts" in metric.context for metric in metrics):
        whole = np.ones(len(true), dtype=np.bool_) if telling is None else telling
        part = predictions.take(true.table["trial_id"][whole])
        named = {name: facts.read(part.of(name).texts) for name in part.conditions}
        named |= {name: labels[whole] for name, labels in (readouts or {}).items()}
        rows += _facts_rows(facts, part, named, blocks[whole], sampling)
    return with_q(pd.DataFrame([dataclasses.asdict(row) for row in rows], columns=list(METRICS_COLUMNS)))


def text_scores(predictions: Predictions, metrics: Sequence[Metric], resources: Mapping[str, Any]) -> TextScores:
    """Metric -> condition -> (n,) value of each text; metrics that need facts, or what ``resources`` lack, are left out."""
    return {
        metric.name: {
            name: metric(part.texts, part.references, stimuli=part.stimuli, **resources) for name, part in _parts(predictions)
        }
        for metric in metrics
        if "facts" not in metric.context and not lacking(metric.context, resources)
    }


def with_q(table: pd.DataFrame) -> pd.DataFrame:
    """The metrics table with ``q_value`` over every p value but that of the primary test."""
    secondary = table["p_value"].to_numpy(float).copy()
    secondary[table["metric"].to_numpy() == PRIMARY] = np.nan
    return table.assign(q_value=false_discovery_q(secondary))


def primary_of(summary_table: pd.DataFrame, n_permutations: int) -> PrimaryTest | None:
    """The primary test, read back from a summary; None where there is none."""
    rows = summary_table[summary_table["metric"] == PRIMARY]
    if rows.empty:
        return None
    row = rows.iloc[0]
    interval = None if pd.isna(row["ci_low"]) else (float(row["ci_low"]), float(row["ci_high"]))
    return PrimaryTest(float(row["value"]), float(row["p_value"]), int(row["n"]), n_permutations, interval)


def _estimate(metric: str, condition: str, values: ArrayLike, units: ArrayLike, sampling: Sampling, **rest: Any) -> _Row:
    numbers = np.asarray(values, dtype=np.float64)
    low, high = bootstrap_interval(numbers, units, sampling.bootstrap, sampling.seed) or (np.nan, np.nan)
    known = np.isfinite(numbers)
    mean = float(numbers[known].mean()) if known.any() else np.nan
    return _Row(metric, condition, mean, low, high, int(known.sum()), **rest)


def _likelihood_rows(predictions: Predictions, evidence: Evidence | None, sampling: Sampling) -> Iterator[_Row]:
    true = predictions.of("true")
    if evidence is not None and len(true):
        test = evidence.primary(true.nll, true.groups, sampling.bootstrap, sampling.seed)
        low, high = test.interval or (np.nan, np.nan)
        null_mean = float(true.nll.mean() + test.effect)
        yield _Row(PRIMARY, "true", test.effect, low, high, test.n, null_mean, test.p_value)
        for name, found in evidence.figures.items():
            if np.isfinite(found.values).any():
                rest = {"null_mean": float(found.null.mean()), "p_value": permutation_p(_mean(found.values), found.null)}
                yield _estimate(name, "true", found.values, true.groups, sampling, **rest)
    for condition in predictions.conditions:
        part = predictions.of(condition)
        yield _estimate("nll", condition, part.nll, part.groups, sampling)
        yield _estimate("nll_per_token", condition, part.nll / part.table["n_tokens"].clip(lower=1), part.groups, sampling)


def _information_rows(informed: Informed, true: Predictions, sampling: Sampling) -> Iterator[_Row]:
    yield _estimate("information_bits", "true", informed.bits, true.groups, sampling)
    for condition, nll in (("true", informed.nll_decoder), (TEXT_ONLY, informed.nll_text_only)):
        yield _estimate("nll_calibrated", condition, nll, true.groups, sampling)
    for condition, found in (("true", informed.temperatures[0]), (TEXT_ONLY, informed.temperatures[1])):
        yield _Row("temperature", condition, float(np.mean(found)), n=len(found))


def _identified_rows(name: str, found: Identified, true: Predictions, sampling: Sampling) -> Iterator[_Row]:
    """Pairwise accuracy, 2-way identification and top 10; each p counts permutations whose mean is as good as the true one."""
    rest: dict[str, Any] = {"null_mean": 0.5, "p_value": found.cosine.p_value}
    yield _estimate("readout_pairwise", name, found.pairwise, true.groups, sampling, **rest)
    for key, metric in (("identification", "readout_identification"), ("top", f"readout_top{TOP}")):
        measure = getattr(found, key)
        rest = {"null_mean": _mean(measure.null), "p_value": measure.p_value}
        yield _estimate(metric, name, measure.values, true.groups, sampling, **rest)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else np.nan


def _metric_rows(
    metric: Metric, predictions: Predictions, scores: Mapping[str, NDArray[np.float64]], sampling: Sampling
) -> Iterator[_Row]:
    for condition, part in _parts(predictions):
        rest: dict[str, float] = {}
        if condition == "true" and "permuted" in scores and scores["permuted"].shape == scores["true"].shape:
            gain = (scores["true"] - scores["permuted"]) * (1 if metric.direction == "higher" else -1)
            n_folds = part.table["fold"].nunique()
            p = sign_flip_p(gain, part.groups, sampling.permutations, sampling.seed, n_folds=n_folds)
            rest = {"null_mean": _mean(scores["permuted"]), "p_value": np.nan if p is None else p}
        yield _estimate(metric.name, condition, scores[condition], part.groups, sampling, **rest)


def _parts(predictions: Predictions) -> list[tuple[str, Predictions]]:
    return [(name, predictions.of(name)) for name in predictions.conditions]


def _facts_rows(
    facts: Facts, predictions: Predictions, named: Mapping[str, NDArray[np.str_]], blocks: NDArray[Any], sampling: Sampling
) -> Iterator[_Row]:
    """The mean over factors, and each factor where there are several; the text's conditions, then readouts."""
    for condition, labels in named.items():
        part = predictions.of(condition if condition in predictions.conditions else "true")
        truth, hits = facts.labels(part.stimuli), facts.hits(labels, part.stimuli)
        columns = [("facts", mean_known(hits)), *((f"facts_{name}", hits[:, i]) for i, name in enumerate(facts.factors))]
        tests = _facts_tests(labels, truth, blocks, sampling)
        for (name, values), test in list(zip(columns, tests, strict=True))[: None if len(facts.factors) > 1 else 1]:
            rest = {} if test is None else {"null_mean": test.null_mean, "p_value": test.p_value}
            yield _estimate(name, condition, values, part.groups, sampling, **rest)


def _facts_tests(
    labels: NDArray[np.str_], truth: NDArray[np.str_], blocks: NDArray[Any], sampling: Sampling
) -> tuple[AccuracyTest | None, ...]:
    """Of all factors together, then of each."""
    if len(labels) != len(blocks) or not (truth != "").any():
        return tuple(None for _ in range(1 + int(truth.shape[1])))
    settings = (blocks, sampling.permutations, sampling.seed)
    together: list[AccuracyTest | None] = [accuracy_permutation(labels, truth, *settings)]
    return tuple(together + list(factor_permutations(labels, truth, *settings)))


def phenotype(summaries: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a participant, one column a metric and condition (``facts_true``): what ``group`` writes.

    Parameters
    ----------
    summaries : mapping of participant label (``sub-01``) to its summary

    Returns
    -------
    DataFrame
        ``participant_id`` first; the primary test as ``nll_permuted_minus_true`` and its p value as ``p_value``.
    """
    rows = []
    for participant, table in summaries.items():
        row: dict[str, Any] = {"participant_id": participant}
        for item in table.to_dict("records"):
            if item["metric"] == PRIMARY:
                row |= {PRIMARY: item["value"], "p_value": item["p_value"], "n_texts": item["n"]}
            else:
                row[f"{item['metric']}_{item['condition']}"] = item["value"]
        rows.append(row)
    return pd.DataFrame(rows)
