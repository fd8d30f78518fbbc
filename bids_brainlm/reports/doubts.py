"""What a reader should know before believing a page, in plain sentences.

*Doubts* concern whether the words came from the brain: a split that leaks, shuffled pairs, one sentence for all, a decoder that
is surer than it is right, a judge that does not agree with itself. They stand at the top of the page. *Notes* concern how it was
made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bids_brainlm import registry
from bids_brainlm.evaluation.evidence import warnings_of
from bids_brainlm.evaluation.metrics import get
from bids_brainlm.evaluation.table import Predictions
from bids_brainlm.reports.titles import title
from bids_brainlm.stages.examples import kept
from bids_brainlm.stages.outputs import MARKS

AGREEMENT = 0.7
"""Share of pairs that a judge gives the same score in both orders, below which its scores are doubted."""

UNPARSABLE = 0.1
"""Share of answers that are no score, from which on they are doubted."""


def doubts_of(summary: pd.DataFrame | None, decoded: pd.DataFrame | None, marks: Mapping[str, Any]) -> tuple[str, ...]:
    """Doubts about one participant.

    Parameters
    ----------
    summary : DataFrame or None
        The metrics table, values being numbers.
    decoded : DataFrame or None
        The table of decoded texts.
    marks : mapping
        Sidecar of the metrics table: ``Judge``, and keys of `bids_brainlm.stages.outputs.MARKS`.
    """
    wrong = [text for key, text in MARKS.items() if marks.get(key)]
    told = () if summary is None or decoded is None else warnings_of(summary, Predictions(decoded))
    return (*wrong, *told, *_judge(marks.get("Judge", {})))


def _judge(report: Mapping[str, Any]) -> tuple[str, ...]:
    """What is wrong with the scores of a language model as a judge."""
    agreement, answers, lost = report.get("Agreement"), report.get("Answers", 0), report.get("Unparsable", 0)
    out = []
    if agreement is not None and agreement < AGREEMENT:
        out.append(
            f"The judge does not agree with itself: it gives only {agreement:.0%} of pairs of texts the same score when their "
            "order is swapped. Its scores are hardly to be trusted."
        )
    if answers and lost >= UNPARSABLE * answers:
        out.append(f"{lost} of {answers} answers of the judge are no score: what is left may not stand for all texts.")
    return tuple(out)


def notes_of(
    estimates: Sequence[Mapping[str, Any]],
    trials: Sequence[pd.DataFrame],
    decoders: Sequence[Mapping[str, Any]],
    marks: Mapping[str, Any],
    summary: pd.DataFrame | None = None,
) -> tuple[str, ...]:
    """Notes on one participant.

    Parameters
    ----------
    estimates, decoders : sequences of mappings
        Sidecars of the responses of each run, and of the decoder of each fold.
    trials : sequence of DataFrame
        Trials of each run.
    marks : mapping
        Sidecar of the metrics table: ``NotRun``.
    summary : DataFrame, optional
        The metrics table, values being numbers.
    """
    better = () if summary is None else _no_better(summary)
    return (*better, *_responses(estimates, trials), *_shared(decoders), *_not_run(marks.get("NotRun", {})))


def _no_better(summary: pd.DataFrame) -> list[str]:
    """Metrics of texts in which the brain brings nothing over the language model alone."""
    value = summary.set_index(["metric", "condition"])["value"]
    worse = []
    for name in dict.fromkeys(summary["metric"]):
        pair = [value.get((name, condition), np.nan) for condition in ("true", "none")]
        if name in registry.metrics.names() and np.isfinite(pair).all():
            sign = -1 if get(name).direction == "lower" else 1
            worse += [title(name)] * bool(sign * (pair[0] - pair[1]) <= 0)
    text = "By these metrics texts generated from the brain are no better than those without any"
    return [f"{text}: {', '.join(worse)}."] if worse else []


def _responses(estimates: Sequence[Mapping[str, Any]], trials: Iterable[pd.DataFrame]) -> list[str]:
    out, tables = [], list(trials)
    rough = sum(bool(item.get("ProjectionApproximate")) for item in estimates)
    if rough:
        out.append(
            f"{rough} of {len(estimates)} runs were read from MNI volumes on the surfaces of the fsaverage template: where a "
            "response lies on the cortex is approximate, since the participant's own folds were not known."
        )
    beyond, total = sum(int((~kept(table)).sum()) for table in tables), sum(map(len, tables))
    if beyond:
        out.append(f"{beyond} of {total} trials lie beyond the limits on motion; they were neither trained on nor decoded.")
    return out


def _shared(decoders: Sequence[Mapping[str, Any]]) -> list[str]:
    shared = sum(item["TestExamplesSharingATextWithTraining"] for item in decoders)
    total = sum(item["NumberOfExamples"]["test"] for item in decoders)
    text = f"{shared} of {total} test examples share a reference text with training: their words, not their brains, were seen."
    return [text] if shared else []


def _not_run(lacking: Mapping[str, str]) -> list[str]:
    return [f"The metric {name} was not run: it {why}." for name, why in lacking.items()]
