"""What a report says of choices, against choices that are planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bids_brainlm.io.files import write_json, write_tsv
from bids_brainlm.io.maps import write_maps
from bids_brainlm.io.surfaces import Geometry
from bids_brainlm.reports.estimation import Estimation, estimation_panels, read_estimation, words

N = 200
TIMES = np.arange(0, 30, 0.5)
LIBRARY = np.stack([np.exp(-0.5 * ((TIMES - peak) / 2) ** 2) for peak in (4.0, 6.0, 8.0)])


def _sidecar(**fields: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "EstimationMethod": "auto",
        "EstimationSteps": ["hrf", "denoise", "ridge"],
        "StepsLeftOut": {},
        "TrialModel": "lsa",
        "HRFChoice": "onoff",
        "NumberOfComponents": 2,
        "AgreementByNumberOfComponents": [0.1, 0.2, 0.3, 0.2],
        "TunedOnRuns": ["a", "b", "c"],
        "OtherRuns": [],
        "TestLabelsSeen": False,
    }
    return base | fields


def _maps() -> dict[str, np.ndarray]:
    """The task moves the last tenth of the vertices, whose response is the last of the library and whose fraction is .8."""
    last = np.arange(N) >= N - N // 10
    maps = {"hrf": np.where(last, 2, np.arange(N) % 2), "r2": np.where(last, 0.5, 0.01), "pool": np.arange(N) < 50}
    maps |= {"fraction": np.where(last, 0.8, 0.3), "penalty": np.ones(N), "gain": np.ones(N), "offset": np.zeros(N)}
    return {name: values.astype(np.float32) for name, values in maps.items()}


def _estimation(**fields: Any) -> Estimation:
    return Estimation(_maps(), Geometry("fsaverage", "", N // 2, N), _sidecar(**fields), TIMES, LIBRARY)


def test_files_are_read_back(tmp_path: Path) -> None:
    paths = write_maps(tmp_path, {"sub": "01"}, Geometry("fsaverage", "", N // 2, N), _maps(), "AUTO", _sidecar(), "tuning")
    columns = {"time": list(TIMES)} | {f"response_{i:02d}": list(row) for i, row in enumerate(LIBRARY)}
    table = write_tsv(tmp_path / "sub-01_desc-AUTOlibrary_timeseries.tsv", columns)
    found = read_estimation([*paths, table, write_json(table.with_suffix(".json"), {})])
    assert found is not None
    np.testing.assert_allclose(found.peaks, [4, 6, 8])
    assert list(np.flatnonzero(found.task)) == list(range(180, 200))
    assert words(found) == words(_estimation())
    assert read_estimation([]) is None
    assert read_estimation(paths) is None


def test_what_was_done_is_said_with_its_numbers() -> None:
    text = " ".join(words(_estimation()))
    assert "Each response was chosen from 3 by how much variance one regressor for all trials explains." in text
    assert "2 nuisance components a run came from a noise pool of 50 vertices." in text
    assert "The median fraction is 0.80 where the task moves vertices most" in text
    assert "all 3 runs, those with test trials among them (transductive); no text was seen" in text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"NumberOfComponents": 1}, "1 nuisance component a run"),
        ({"NumberOfComponents": 0}, "No nuisance component of a noise pool of 50 vertices made repeats agree better"),
        (
            {"OtherRuns": ["d"]},
            "Choices were made on 3 of 4 runs, those without a test trial; no test response and no text was seen.",
        ),
        ({"TunedOnRuns": ["a"]}, "Choices were made on the only run"),
        ({"TestLabelsSeen": True}, "compared test trials with training trials of the same stimulus: figures are optimistic"),
        ({"TrialModel": "lss"}, "Each trial had a model of its own"),
        (
            {"EstimationSteps": ["hrf"], "StepsLeftOut": {"ridge": "no stimulus is repeated in another run"}},
            "Left out: fractional ridge, because no stimulus is repeated in another run.",
        ),
        ({"EstimationSteps": []}, "took no step beyond ordinary least squares"),
    ],
)
def test_other_choices_are_said_otherwise(fields: dict[str, Any], said: str) -> None:
    assert said in " ".join(words(_estimation(**fields)))
    assert said not in " ".join(words(_estimation()))


def test_there_is_a_panel_for_every_step_that_was_taken() -> None:
    mask = np.ones((10, 10, 2), bool)
    names = [panel.name for panel in estimation_panels(_estimation(), None, mask)]
    assert names == ["hrf", "hrfmap", "components", "noisepool", "fraction", "fractionmap"]
    few = estimation_panels(_estimation(EstimationSteps=["hrf"]), None, None)
    assert [panel.name for panel in few] == ["hrf"]
    assert "median peak 8.0 s, middle half 8.0 to 8.0 s" in few[0].alt
