"""Controls: how likely the right texts are under brains that are not theirs, on the same weights.

A *condition* is what a figure was computed under: which brains (an intervention of `bids_brainlm.registry.interventions`, or one
of ``true``, ``permuted``, ``none``), drawn from which seed, and which weights. Every fold has its own. The *difference* of a
condition is by how many nats a text is less likely under it than under its own brain.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.core.types import Examples
from bids_brainlm.evaluation.likelihood import nll_matrix
from bids_brainlm.evaluation.matrix import DIGITS
from bids_brainlm.evaluation.multiplicity import false_discovery_q
from bids_brainlm.evaluation.resampling import bootstrap_interval, sign_flip_p
from bids_brainlm.language.render import Rendered
from bids_brainlm.models.fusion import BrainLM
from bids_brainlm.registry import interventions

LOGGER = logging.getLogger(__name__)

Array = NDArray[np.float64]

CONTROLS_COLUMNS = {
    "condition": "Which brains: true, permuted, none, or an intervention.",
    "seed": "What they were drawn from, one number a fold, joined by +; true and none are not drawn.",
    "weights": "First 12 digits of the SHA-256 of the decoder's weights, one a fold, joined by +.",
    "n": "Number of texts.",
    "nll": "Mean NLL of the right texts, nats a text.",
    "difference": "The same minus that under the true brains; positive where these make texts likelier.",
    "ci_low": "Lower end of its 95 % interval over groups (bootstrap); n/a below 6 groups or where all are equal.",
    "ci_high": "Upper end of that interval.",
    "p_value": "One-sided p value of the difference by flipping the signs of whole groups; n/a below 6 groups.",
    "q_value": "False discovery rate (Benjamini-Hochberg) over the p values of the table.",
}
"""Columns of the table of controls, in order."""


@dataclass(frozen=True)
class Condition:
    """What a figure was computed under.

    Parameters
    ----------
    name : str
        Intervention, or ``true``, ``permuted``, ``none``.
    seed : int
    weights : str
        SHA-256 of the decoder's weights.

    Raises
    ------
    ValueError
        When something of it is missing.
    """

    name: str
    seed: int
    weights: str

    def __post_init__(self) -> None:
        if not self.name or not self.weights or self.seed < 0:
            raise ValueError(f"a condition has a name, a seed from 0 on and weights; got {self}")


def control_nll(
    model: BrainLM, examples: Examples, rendered: Sequence[Rendered], conditions: Sequence[Condition], batch_size: int
) -> tuple[dict[Condition, Array], dict[str, str]]:
    """Score texts under interventions.

    Parameters
    ----------
    model : BrainLM
        With the weights of the conditions.
    examples : Examples
        The n examples of a test set.
    rendered : sequence (n) of Rendered
        With brain slots and answers.
    conditions : sequence of Condition
        Named as interventions.

    Returns
    -------
    nll : dict of Condition to (n,) float64 array, nats
    not_run : dict of str to str
        Intervention that cannot be done to these examples -> why.
    """
    out, lacking, everyone = {}, {}, np.arange(len(examples))
    for condition in conditions:
        try:
            moved = interventions.get(condition.name)(examples, condition.seed)
        except ValueError as error:
            lacking[condition.name] = str(error)
            LOGGER.warning("the control %s is not run: %s", condition.name, error)
            continue
        out[condition] = nll_matrix(model, moved, rendered, everyone, everyone[:, None], batch_size)[:, 0]
    return out, lacking


def control_table(
    folds: Sequence[Mapping[Condition, Array]], units: Sequence[NDArray[np.str_]], n_samples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Every condition beside the true brains, folds pooled.

    Parameters
    ----------
    folds : sequence of mappings of Condition to (n,) float64
        NLL (nats) of the texts of each fold; one condition of each is ``true``. A condition that not every fold has is left out.
    units : sequence of (n,) str
        What was sampled: the group of each text.
    n_samples : int
        Bootstrap samples.

    Returns
    -------
    DataFrame
        Columns `CONTROLS_COLUMNS`.
    """
    named = [{condition.name: (condition, nll) for condition, nll in fold.items()} for fold in folds]
    true, groups = np.concatenate([fold["true"][1] for fold in named]), np.concatenate(units)
    rows = []
    for name in [name for name in named[0] if all(name in fold for fold in named)]:
        conditions = [fold[name][0] for fold in named]
        nll = np.concatenate([fold[name][1] for fold in named])
        drawn = "" if name in ("true", "none") else "+".join(str(condition.seed) for condition in conditions)
        weights = "+".join(condition.weights[:12] for condition in conditions)
        compared = (np.nan,) * 4 if name == "true" else _compared(nll - true, groups, n_samples, seed, len(folds))
        rows.append((name, drawn, weights, nll.size, nll.mean(), *compared))
    table = pd.DataFrame(rows, columns=list(CONTROLS_COLUMNS)[:-1])
    return table.assign(q_value=false_discovery_q(table["p_value"]))


def _compared(
    difference: Array, groups: NDArray[np.str_], n_samples: int, seed: int, n_folds: int
) -> tuple[float, float, float, float]:
    """Mean difference, its interval, and p."""
    low, high = bootstrap_interval(difference, groups, n_samples, seed) or (np.nan, np.nan)
    # What is left of the rounding of the computation must not decide.
    p = sign_flip_p(np.round(difference, DIGITS), groups, seed=seed, n_folds=n_folds)
    return float(difference.mean()), low, high, np.nan if p is None else p
