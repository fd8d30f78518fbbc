"""Sidecars say what was made wrong on purpose."""

from __future__ import annotations

from typing import Any

import pytest

from bids_brainlm.core.leakage import LEAKY
from bids_brainlm.core.splits import SHUFFLED
from bids_brainlm.stages.outputs import marks_of, warning_marks


@pytest.mark.parametrize("leaky", [True, False])
@pytest.mark.parametrize("shuffled", [True, False])
def test_a_leak_and_shuffled_pairs_are_told_each_by_itself_and_together(make_request: Any, leaky: bool, shuffled: bool) -> None:
    scheme = "leaky-random" if leaky else "single"
    config = make_request("split.scheme", scheme, "split.shuffle_pairs", str(shuffled).lower()).config
    marks = warning_marks(config)
    assert set(marks) == {name for name, on in (("LeakySplit", leaky), ("ShuffledPairs", shuffled)) if on} | (
        {"Warning"} if leaky or shuffled else set()
    )
    for text, on in ((LEAKY, leaky), (SHUFFLED, shuffled)):
        assert (text in marks.get("Warning", "")) == on
    # What is made of tables that have these marks has them too, and a sidecar that says False has none.
    assert marks_of({"LeakySplit": leaky, "ShuffledPairs": shuffled, "Description": "x"}) == marks
