"""Ratings of decoded texts by people who do not know where a text comes from.

A *sheet* has one row an *item*: a decoded text beside what is right, in random order over all conditions. The *key* says which
trial and condition an item is of; who rates does not see it. The *digest* of a sheet is over the words of its texts, so that a
spreadsheet may sort rows and change quotation marks, but no text.

A *rating* is a whole number of `SCALE`. Where several people rate, an item has their mean. A condition's figure is the mean over
its rated items; it is compared with the true brain over the trials for which both are rated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bids_brainlm.evaluation.resampling import bootstrap_interval, sign_flip_p
from bids_brainlm.evaluation.table import SEPARATOR, Predictions, Sampling
from bids_brainlm.language.stimuli import words

SCALE = {
    0: "has nothing to do with it",
    1: "shares a minor detail",
    2: "shares the topic or one main thing",
    3: "says the main thing, with errors",
    4: "says the same",
}
"""Rating -> what it means of a decoded text beside the right ones."""

NO_TEXT = "(no text)"

SHEET_COLUMNS = {
    "item": "Name of the row.",
    "text_true": "What is right; several texts are parted by |.",
    "text_pred": "Text to be rated.",
    "rating": "To be filled in: " + "; ".join(f"{n} {text}" for n, text in SCALE.items()) + ". Empty where it was not rated.",
}
"""Columns of a sheet."""

KEY_COLUMNS = {
    "item": "Name of the row of the sheet.",
    "trial_id": "Trial whose text it is.",
    "condition": "Brain the text was decoded from.",
}
"""Columns of a key."""

RATINGS_COLUMNS = {
    "condition": "Brain the text was decoded from (true, permuted, none).",
    "value": "Mean rating of the items that were rated, 0 to 4.",
    "ci_low": "Lower end of the 95 % interval over groups (bootstrap); n/a below 6 groups or where all are equal.",
    "ci_high": "Upper end of that interval.",
    "n": "Number of rated items.",
    "difference": "Mean rating of the true brain minus that of this condition, over trials that are rated for both.",
    "difference_low": "Lower end of its 95 % interval over groups.",
    "difference_high": "Upper end of that interval.",
    "p_value": "One-sided p value of the difference, by flips of the sign of whole groups; n/a below 6 groups.",
}
"""Columns of the table of ratings."""


def blinded(predictions: Predictions, seed: int = 0, trials: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sheet and key of decoded texts.

    Parameters
    ----------
    predictions : Predictions
    seed : int
        Of the order.
    trials : int
        Trials drawn at random, each with all of its conditions; all when 0.
    """
    rng = np.random.default_rng(seed)
    names = predictions.table["trial_id"].unique()
    drawn = rng.permutation(names)[: trials or len(names)]
    table = predictions.table[predictions.table["trial_id"].isin(drawn)]
    table = table.iloc[rng.permutation(len(table))].reset_index(drop=True)
    items = [f"item{i:0{len(str(len(table)))}d}" for i in range(1, len(table) + 1)]
    part = Predictions(table)
    texts = {"text_true": [SEPARATOR.join(right) for right in part.references], "text_pred": [t or NO_TEXT for t in part.texts]}
    return pd.DataFrame({"item": items, **texts, "rating": ""}), table[["trial_id", "condition"]].assign(item=items)[
        list(KEY_COLUMNS)
    ]


def digest(sheet: pd.DataFrame) -> str:
    """SHA-256 over items and the words of their texts, whatever the order of rows."""
    rows = sorted(
        (str(row.item), *(" ".join(words(str(t))) for t in (row.text_true, row.text_pred))) for row in sheet.itertuples()
    )
    return "sha256:" + hashlib.sha256("\n".join("\t".join(row) for row in rows).encode("utf-8")).hexdigest()


def ratings_of(sheet: pd.DataFrame, expected: str) -> pd.Series:
    """Item -> rating, nan where there is none.

    Parameters
    ----------
    sheet : DataFrame
        As it came back; missing values are None.
    expected : str
        `digest` of the sheet as it was given out.

    Raises
    ------
    ValueError
        When a column is missing, an item occurs twice, it is not the sheet that was given out, a rating is none of `SCALE`, or
        nothing was rated.
    """
    missing = [name for name in SHEET_COLUMNS if name not in sheet]
    if missing:
        raise ValueError(f"no column {', '.join(missing)}")
    items = sheet["item"].astype(str)
    if items.duplicated().any():
        raise ValueError(f"{items[items.duplicated()].iloc[0]} occurs twice")
    if digest(sheet) != expected:
        raise ValueError("items or texts are not those that were given out")
    ratings = pd.Series(
        [_rating(item, cell) for item, cell in zip(items, sheet["rating"], strict=True)], index=items, dtype=float
    )
    if ratings.isna().all():
        raise ValueError("no item is rated")
    return ratings


def _rating(item: str, cell: Any) -> float:
    if cell is None or not str(cell).strip():
        return np.nan
    found = [n for n in SCALE if str(cell).strip() in (str(n), f"{n}.0")]
    if not found:
        raise ValueError(f"the rating of {item} is {cell!r}, none of {', '.join(map(str, SCALE))}")
    return float(found[0])


def rated_conditions(
    predictions: Predictions, key: pd.DataFrame, ratings: Sequence[pd.Series], sampling: Sampling
) -> pd.DataFrame:
    """Mean rating of every condition, beside that of the true brain.

    Parameters
    ----------
    predictions : Predictions
        Those the sheet was made of.
    key : DataFrame
        Columns of `KEY_COLUMNS`.
    ratings : sequence of Series
        Of each person: item -> rating.
    sampling : Sampling

    Returns
    -------
    DataFrame
        Columns of `RATINGS_COLUMNS`.
    """
    means = pd.concat(ratings, axis=1).mean(axis=1)
    wide = key.assign(rating=key["item"].astype(str).map(means)).pivot(index="trial_id", columns="condition", values="rating")
    trials = predictions.table.drop_duplicates("trial_id").set_index("trial_id").loc[wide.index]
    groups, n_folds = trials["group"].to_numpy(str), int(trials["fold"].nunique())
    rows = []
    for condition in (name for name in predictions.conditions if name in wide):
        values = wide[condition].to_numpy(float)
        row = {"condition": condition, **_mean("value", "ci", values, groups, sampling), "n": int(np.isfinite(values).sum())}
        if condition != "true" and "true" in wide:
            gain = wide["true"].to_numpy(float) - values
            p = sign_flip_p(gain, groups, sampling.permutations, sampling.seed, n_folds=n_folds)
            row |= _mean("difference", "difference", gain, groups, sampling) | {"p_value": np.nan if p is None else p}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(RATINGS_COLUMNS))


def _mean(name: str, ends: str, values: Any, groups: Any, sampling: Sampling) -> dict[str, float]:
    low, high = bootstrap_interval(values, groups, sampling.bootstrap, sampling.seed) or (np.nan, np.nan)
    known = values[np.isfinite(values)]
    return {name: float(known.mean()) if known.size else np.nan, f"{ends}_low": low, f"{ends}_high": high}
