"""What is written of answers to questions, where there are questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.config import Request
from bids_brainlm.core.questions import habits, seen
from bids_brainlm.core.types import CAPTION, Split
from bids_brainlm.evaluation.matrix import Evidence
from bids_brainlm.evaluation.metrics import Metric
from bids_brainlm.evaluation.questions import ANSWERS_COLUMNS, QUESTIONS_COLUMNS, Asked, question_tables
from bids_brainlm.evaluation.table import Predictions, Sampling, TextScores
from bids_brainlm.io.files import write_tsv
from bids_brainlm.stages.outputs import beh_path, describe, warning_marks


def asked_of(folds: Sequence[Split]) -> Asked:
    """What the decoder of each fold knows of the questions of its test set, in the order of the predictions."""
    category: list[str] = []
    known: list[bool] = []
    usual: list[str] = []
    for split in folds:
        test, trained = ([split.examples.prompts[i] for i in part] for part in (split.test, split.train))
        category += [prompt.category for prompt in test]
        known += seen(test, trained).tolist()
        usual += habits(test, trained)
    return Asked(np.array(category, dtype=np.str_), np.array(known, dtype=np.bool_), usual)


def telling(folds: Sequence[Split]) -> NDArray[np.bool_]:
    """(n,) bool, in the order of the predictions: texts that are to tell all facts, captions where there are any, else all."""
    kinds = np.array([split.examples.prompts[i].category for split in folds for i in split.test], dtype=np.str_)
    captions = np.isin(kinds, ("", CAPTION))
    return captions if captions.any() else np.ones_like(captions)


def write_questions(
    request: Request,
    participant: str,
    task: str,
    folds: Sequence[Split],
    predictions: Predictions,
    metrics: Sequence[Metric],
    evidence: Evidence,
    resources: Mapping[str, Any],
    sampling: Sampling,
    scores: TextScores,
) -> list[Path]:
    """Figures by kind of question, and each answer beside habit; nothing where no text answers a question."""
    asked = asked_of(folds)
    if set(asked.category.tolist()) <= {"", CAPTION}:
        return []
    figures, answers = question_tables(predictions, asked, metrics, evidence, resources, sampling, scores)
    config = request.config
    marks = {**warning_marks(config), "TextMix": config.text.mix, "QuestionsLeftOut": list(config.split.leave_out_questions)}
    paths = [beh_path(request, participant, task, desc) for desc in ("questions", "answers")]
    return [
        write_tsv(paths[0], figures),
        describe(
            paths[0], "Figures of merit by kind of question. Intervals are 95 % bootstrap over groups.", QUESTIONS_COLUMNS, marks
        ),
        write_tsv(paths[1], answers),
        describe(paths[1], "Kind of each question, and whether its answer is right.", ANSWERS_COLUMNS, marks),
    ]
