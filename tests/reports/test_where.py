"""The figure shows the best parcels each way, and maps show those that were found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.evaluation.ablation import WAYS, WHERE_COLUMNS
from bids_brainlm.reports import where
from bids_brainlm.reports.where import where_panels

N_VERTICES, N_LEFT = 40, 20
LABELS = np.arange(N_VERTICES) // 2  # 20 parcels of two vertices


def table(tested: bool = True) -> pd.DataFrame:
    rows = []
    for way in WAYS:
        for k in range(20):
            value = (20 - k) / 10 if way == "alone" else k / 20
            q = (0.01 if k == 0 and way == "alone" else 0.5) if tested else np.nan
            rows.append((f"p{k}", "parcel", way, 2, value, value - 0.1, value + 0.1, value, 30, q, q, q))
        rows.append(("Vis", "network", way, 40, 9.0, 8.0, 10.0, 9.0, 30, 0.001, 0.001, 0.001))
    return pd.DataFrame(rows, columns=list(WHERE_COLUMNS))


def maps(of: pd.DataFrame) -> dict[str, np.ndarray]:
    out = {"contribution": np.linspace(-1, 1, N_VERTICES), "saliency": np.ones(N_VERTICES)}
    for way in WAYS:
        rows = of[(of["way"] == way) & (of["kind"] == "parcel")]
        out |= {way: rows["specificity"].to_numpy()[LABELS], f"{way}_q": rows["q_value"].to_numpy()[LABELS]}
    return out


@pytest.mark.parametrize("tested", [True, False])
def test_maps_have_what_was_found_or_all_where_nothing_was_tested(tested: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, np.ndarray] = {}

    def spy(name: str, values: np.ndarray, *rest: object) -> tuple[()]:
        drawn[name] = np.asarray(values)
        return ()

    monkeypatch.setattr(where, "value_map", spy)
    found = table(tested)
    panels = where_panels(found, maps(found), N_LEFT)
    assert [panel.name for panel in panels] == ["where"]
    assert list(drawn) == (["wherealone", "wherecontribution"] if tested else ["wherealone", "whereleftout", "wherecontribution"])
    known = np.flatnonzero(np.isfinite(drawn["wherealone"]))
    assert known.tolist() == ([0, 1] if tested else list(range(40)))


def test_the_figure_names_the_best_parcels_and_no_network() -> None:
    found = table()
    (panel,) = where_panels(found, maps(found))
    alone, left_out = panel.alt.partition(" Left out: ")[::2]
    assert [f"p{k} " in alone for k in range(20)] == [k < where.SHOWN for k in range(20)]
    assert [f"p{k} " in left_out for k in range(20)] == [k >= 20 - where.SHOWN for k in range(20)]
    assert "Vis" not in panel.alt
    assert "(1 alone and 0 left out)" in panel.caption
    assert panel.image.startswith(b"<?xml")


def test_a_volume_is_shown_in_slices() -> None:
    found = table()
    mask = np.zeros((5, 5, 2), bool)
    mask.flat[:N_VERTICES] = True
    assert [panel.name for panel in where_panels(found, maps(found), None, mask)] == ["where", "wherealone", "wherecontribution"]
