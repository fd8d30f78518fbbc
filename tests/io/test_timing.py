"""When volumes were taken: by interval, by list, or not to be known."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bids_brainlm.errors import InputError
from bids_brainlm.io.timing import timing

BOLD = Path("bold.nii.gz")


@pytest.mark.parametrize(
    ("sidecar", "expected"),
    [
        ({"RepetitionTime": 2}, (2.0, 0.0)),
        ({"RepetitionTime": 2.0, "SliceTimingCorrected": False}, (2.0, 0.0)),
        ({"RepetitionTime": 2.0, "SliceTimingCorrected": True}, (2.0, 1.0)),
        ({"RepetitionTime": 2.0, "SliceTimingCorrected": True, "StartTime": 0.3}, (2.0, 0.3)),
        ({"RepetitionTime": 2.0, "StartTime": 0.7}, (2.0, 0.7)),
        ({"RepetitionTime": 2.0, "SliceTimingCorrected": True, "StartTime": 0}, (2.0, 0.0)),
    ],
)
def test_timing(sidecar: dict[str, Any], expected: tuple[float, float]) -> None:
    found = timing(sidecar, BOLD)
    assert (found.tr, found.start) == expected
    np.testing.assert_allclose(found.frames(4, BOLD), expected[1] + expected[0] * np.arange(4))


@pytest.mark.parametrize(
    "sidecar",
    [{"RepetitionTime": 0}, {"RepetitionTime": 2000}, {"RepetitionTime": "2"}, {"RepetitionTime": 2, "StartTime": "0.5"}],
)
def test_timing_that_makes_no_sense(sidecar: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="a number of seconds"):
        timing(sidecar, BOLD)


def test_volumes_that_are_unevenly_spaced_lie_where_they_are_said_to() -> None:
    found = timing({"VolumeTiming": [0, 1.2, 9.5], "StartTime": 0.4}, BOLD)
    assert found.tr == 0
    np.testing.assert_allclose(found.frames(3, BOLD), [0.4, 1.6, 9.9])
    with pytest.raises(InputError, match=r"VolumeTiming lists 3 volumes, the series has 4.*bold.nii.gz"):
        found.frames(4, BOLD)


def test_a_list_of_times_counts_more_than_an_interval(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = timing({"VolumeTiming": [0, 1, 9], "RepetitionTime": 3.0}, BOLD)
    np.testing.assert_array_equal(found.frames(3, BOLD), [0, 1, 9])
    assert "a RepetitionTime, which is not used" in caplog.text


@pytest.mark.parametrize("times", [[0, 2, 2], [3, 1], [0, None], ["0", "2"], [0], [], 2.0, [-1, 2], [0, 2000], [0, float("nan")]])
def test_lists_of_times_that_make_no_sense(times: Any) -> None:
    with pytest.raises(InputError, match="VolumeTiming is no list of times.*a list of seconds that increase"):
        timing({"VolumeTiming": times}, BOLD)
