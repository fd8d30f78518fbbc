"""Which categories of texts are taken for which categories of brains: is it more than the category that is told apart?

Read from the likelihood matrix, row-wise. A decoder that tells a dog from a house but no dog from another finds the brains of
another category less likely (*pairwise* near 1) and those of the same one not (near .5).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bids_brainlm.evaluation.matrix import DIGITS, LikelihoodMatrix

CONFUSION_COLUMNS = {
    "factor": "Factor of the facts.",
    "category": "Label of the texts.",
    "other": "Label of what was seen or heard with the brains.",
    "chosen": "Share of the texts whose likeliest brain, of their own and those compared with, has that label; ties are shared.",
    "pairwise": "Share of the brains of that label under which a text is less likely than under its own; .5 by chance.",
    "n_texts": "Number of texts.",
    "n_pairs": "Number of pairs of a text and a brain that it is compared with.",
}
"""Columns of the table of confusions, in order."""


def confusion(matrix: LikelihoodMatrix, factor: str, of_texts: ArrayLike, of_brains: ArrayLike) -> pd.DataFrame:
    """Confusions of the test set of a fold.

    Parameters
    ----------
    matrix : LikelihoodMatrix
        Its columns being brains.
    factor : str
        What labels are of.
    of_texts, of_brains : (n,) and (m,) str
        Label of each text, and of what each brain saw or heard; empty where not known.

    Returns
    -------
    DataFrame
        Columns `CONFUSION_COLUMNS`, one row for a label of texts and one of brains.
    """
    texts, brains = np.asarray(of_texts, dtype=np.str_), np.asarray(of_brains, dtype=np.str_)
    compared = matrix.allowed.copy()
    compared[np.arange(matrix.own.size), matrix.own] = True
    values, own = np.where(compared, np.round(matrix.nll, DIGITS), np.inf), np.round(matrix.own_nll, DIGITS)[:, None]
    beaten = (values > own) + 0.5 * (values == own)
    best = (values == values.min(axis=1, keepdims=True)).astype(np.float64)
    best /= best.sum(axis=1, keepdims=True)
    rows = []
    for first in np.unique(texts[texts != ""]):
        for second in np.unique(brains[brains != ""]):
            block = np.ix_(texts == first, brains == second)
            may = matrix.allowed[block]
            share = float(beaten[block][may].mean()) if may.any() else np.nan
            chosen = float(best[block].sum(axis=1).mean())
            rows.append((factor, first, second, chosen, share, int((texts == first).sum()), int(may.sum())))
    return pd.DataFrame(rows, columns=list(CONFUSION_COLUMNS))


def pooled(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Confusions of several folds in one table, weighed by their numbers of texts and pairs."""
    every = pd.concat(parts, ignore_index=True)
    sums = every.assign(chosen=every["chosen"] * every["n_texts"], pairwise=every["pairwise"].fillna(0) * every["n_pairs"])
    table = sums.groupby(["factor", "category", "other"], as_index=False, sort=False).sum()
    table["chosen"] /= table["n_texts"]
    table["pairwise"] = (table["pairwise"] / table["n_pairs"]).where(table["n_pairs"] > 0)
    return table[list(CONFUSION_COLUMNS)]
