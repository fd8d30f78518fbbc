"""A wrong participant: the texts of one under the responses of another to the same stimuli.

Three conditions on the weights of the one whose decoder it is: ``true``; ``wrong_participant``, the response of the other to the
same stimulus (one of them, drawn, where it was shown several times); and ``wrong_participant_permuted``, a response of the other
to another stimulus, a partner by the rules of `bids_brainlm.core.interventions`. What is lost between the first two says how much
the decoder is one person's. What is lost between the last two says how much of what it reads another head has too.

Only held-out examples whose stimulus the other saw are scored. Responses of the other are taken as they are, in their own units.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bids_brainlm.core.interventions import partners
from bids_brainlm.core.types import Examples, Ints
from bids_brainlm.errors import InputError
from bids_brainlm.evaluation.controls import CONTROLS_COLUMNS, Array, Condition, control_table
from bids_brainlm.evaluation.likelihood import nll_matrix
from bids_brainlm.insilico.participant import Participant
from bids_brainlm.io.files import write_tsv
from bids_brainlm.stages import decoder
from bids_brainlm.stages.outputs import beh_path, describe, warning_marks

WRONG, PERMUTED = "wrong_participant", "wrong_participant_permuted"


def crossed(own: Participant, other: Participant, seed: int = 0) -> pd.DataFrame:
    """Score the held-out texts of one participant under the responses of another.

    Parameters
    ----------
    own : Participant
        Whose decoders and texts are used.
    other : Participant
        Whose responses; of the same space.
    seed : int
        Draws the response where a stimulus was shown several times, and the partners.

    Returns
    -------
    DataFrame
        Columns `CONTROLS_COLUMNS`, one row a condition, folds pooled.

    Raises
    ------
    InputError
        When responses lie on other vertices, examples have other numbers of rows, or no held-out stimulus was shown to both.
    """
    _refuse_unlike(own, other)
    folds, groups = [], []
    for fold in range(len(own.folds)):
        test = own.test(fold)
        same = responses_of(test, other.examples, seed + fold)
        if (same >= 0).any():
            kept = test.take(np.flatnonzero(same >= 0))
            folds.append(_scored(own, kept, lent(kept, other.examples, same[same >= 0]), fold, seed + fold))
            groups.append(kept.group)
    if not folds:
        raise InputError(
            f"no held-out stimulus of sub-{own.label} was shown to sub-{other.label}", own.trials.path, expected="shared stimuli"
        )
    return control_table(folds, groups, seed=seed)


def responses_of(test: Examples, others: Examples, seed: int) -> Ints:
    """(n,) for each example one of the others of the same stimulus, drawn; -1 where there is none."""
    rng, out = np.random.default_rng(seed), np.full(len(test), -1, dtype=np.int64)
    for i, stimulus in enumerate(test.stimulus):
        shown = np.flatnonzero(others.stimulus == stimulus)
        if shown.size:
            out[i] = rng.choice(shown)
    return out


def lent(test: Examples, others: Examples, which: Ints) -> Examples:
    """Examples with the responses of others: ``which`` (n,) of these each gets."""
    return dataclasses.replace(test, recording=others.recording, rows=others.rows[which])


def _scored(own: Participant, test: Examples, wrong: Examples, fold: int, seed: int) -> dict[Condition, Array]:
    fitted, config = own.decoder(fold), own.request.config
    rendered = decoder.rendered(fitted, test, config)
    everyone, weights = np.arange(len(test)), own.digest(fold)
    try:
        moved = partners(wrong, 1, seed)[0]
    except ValueError as error:
        what = f"the responses of the other participant cannot be permuted: {error}"
        raise InputError(what, own.trials.path, expected="several stimuli that both saw") from error
    brains: dict[str, tuple[Examples, Ints]] = {"true": (test, everyone), WRONG: (wrong, everyone), PERMUTED: (wrong, moved)}
    return {
        Condition(name, seed, weights): nll_matrix(
            fitted.model, examples, rendered, everyone, brain[:, None], config.decode.batch_size
        )[:, 0]
        for name, (examples, brain) in brains.items()
    }


def _refuse_unlike(own: Participant, other: Participant) -> None:
    for what, left, right in (
        ("space", own.trials.geometry.entities, other.trials.geometry.entities),
        ("number of vertices", own.trials.data.shape[1], other.trials.data.shape[1]),
        ("rows of an example", own.examples.rows.shape[1], other.examples.rows.shape[1]),
    ):
        if left != right:
            raise InputError(f"another {what} than that of sub-{own.label}: {right}", other.trials.path, expected=str(left))


def write(table: pd.DataFrame, own: Participant, others: Sequence[Participant], seed: int) -> list[Path]:
    """Write the table beside the other outputs of the participant."""
    path = beh_path(own.request, own.label, own.trials.task, "crossed")
    text = "The right texts under the responses of other participants to the same stimuli, on the participant's own weights."
    tree = {"Others": [f"sub-{other.label}" for other in others], "Seed": seed, **warning_marks(own.request.config)}
    columns = {"other": "Whose responses.", **CONTROLS_COLUMNS}
    return [write_tsv(path, table), describe(path, text, columns, tree)]
