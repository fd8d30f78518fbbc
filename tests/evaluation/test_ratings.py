"""Sheets hide the condition and come back whole; means are those that were planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.core.types import DECODED_COLUMNS
from bids_brainlm.evaluation.ratings import NO_TEXT, SHEET_COLUMNS, blinded, digest, rated_conditions, ratings_of
from bids_brainlm.evaluation.table import Predictions, Sampling

N = 12
QUICK = Sampling(bootstrap=200, permutations=999)


def made() -> Predictions:
    rows = [
        {"trial_id": f"t{i}", "condition": condition, "text_pred": text, "text_true": f"Right {i}. | right too", "group": f"g{i}"}
        for condition, text in {"true": '"quoted" it', "permuted": "=other", "none": ""}.items()
        for i in range(N)
    ]
    frame = pd.DataFrame(rows).reindex(columns=list(DECODED_COLUMNS)).astype(object).fillna("")
    return Predictions(frame.assign(nll=1.0, n_tokens=2, fold=np.tile(np.arange(N) % 2, 3)))


def filled(key: pd.DataFrame, sheet: pd.DataFrame, scores: dict[str, int]) -> pd.DataFrame:
    conditions = dict(zip(key["item"], key["condition"], strict=True))
    return sheet.assign(rating=[str(scores[conditions[item]]) for item in sheet["item"]])


def test_a_sheet_tells_no_condition_and_its_order_neither() -> None:
    sheet, key = blinded(made(), seed=1)
    assert list(sheet) == list(SHEET_COLUMNS)
    assert len(sheet) == len(key) == 3 * N
    assert sheet["item"].tolist() == sorted(sheet["item"]) == key["item"].tolist()
    assert (sheet["rating"] == "").all()
    assert sheet.loc[key["condition"] == "none", "text_pred"].eq(NO_TEXT).all()
    places = key.groupby("condition").apply(lambda rows: rows.index.to_numpy().mean(), include_groups=False)
    assert places.between(N, 2 * N).all()
    assert not blinded(made(), seed=2)[1].equals(key)
    few = blinded(made(), trials=4)[1]
    assert few.groupby("trial_id")["condition"].nunique().tolist() == [3] * 4


def test_means_differences_and_their_test_are_those_that_were_planted() -> None:
    sheet, key = blinded(made())
    first = ratings_of(filled(key, sheet, {"true": 4, "permuted": 1, "none": 0}), digest(sheet))
    second = ratings_of(filled(key, sheet, {"true": 3, "permuted": 1, "none": 2}), digest(sheet))
    second[key.loc[key["condition"] == "permuted", "item"].iloc[0]] = np.nan
    table = rated_conditions(made(), key, [first, second], QUICK).set_index("condition")
    assert table["value"].to_dict() == {"true": 3.5, "permuted": 1.0, "none": 1.0}
    assert (table["n"] == N).all()
    assert table["difference"].tolist() == pytest.approx([np.nan, 2.5, 2.5], nan_ok=True)
    # All differ alike: of 2**12 flips of groups one or two are as large.
    assert (table.loc[["permuted", "none"], "p_value"] < 0.01).all()


def test_an_item_that_nobody_rated_is_left_out_of_the_pair() -> None:
    sheet, key = blinded(made())
    back = filled(key, sheet, {"true": 4, "permuted": 1, "none": 0})
    rated = ratings_of(back, digest(sheet))
    rated[key.loc[(key["condition"] == "true") & (key["trial_id"] == "t0"), "item"]] = np.nan
    rated[key.loc[(key["condition"] == "permuted") & (key["trial_id"] == "t0"), "item"]] = 4
    table = rated_conditions(made(), key, [rated], QUICK).set_index("condition")
    assert table["n"].to_dict() == {"true": N - 1, "permuted": N, "none": N}
    assert table.loc["permuted", ["value", "difference"]].tolist() == pytest.approx([(N - 1 + 4) / N, 3.0])


def test_a_spreadsheet_may_sort_rows_and_change_quotation_marks_but_no_word() -> None:
    sheet, key = blinded(made())
    back = filled(key, sheet, {"true": 4, "permuted": 1, "none": 0}).sort_values("text_pred")
    back["text_pred"] = back["text_pred"].str.replace('"', "”")
    back["rating"] += ".0"
    assert ratings_of(back, digest(sheet)).max() == 4
    with pytest.raises(ValueError, match="not those that were given out"):
        ratings_of(back.assign(text_pred="other"), digest(sheet))
    with pytest.raises(ValueError, match="not those that were given out"):
        ratings_of(back.iloc[1:], digest(sheet))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda s: s.drop(columns="rating"), "no column rating"),
        (lambda s: pd.concat([s, s.iloc[:1]]), "item01 occurs twice"),
        (lambda s: s.assign(rating=["5", *["1"] * (len(s) - 1)]), "the rating of item01 is '5', none of 0, 1, 2, 3, 4"),
        (lambda s: s.assign(rating="good"), "the rating of item01 is 'good'"),
        (lambda s: s.assign(rating=None), "no item is rated"),
    ],
)
def test_bad_sheets_are_refused(change: object, why: str) -> None:
    sheet, _ = blinded(made())
    assert callable(change)
    with pytest.raises(ValueError, match=why):
        ratings_of(change(sheet), digest(sheet))
