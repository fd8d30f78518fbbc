"""Events come sorted, complete and with numbers, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bids_brainlm.errors import InputError
from bids_brainlm.io.events import load_events


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "sub-01_events.tsv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_sorted_stably_with_durations_filled(tmp_path: Path) -> None:
    table = load_events(write(tmp_path, "onset\tduration\ttrial_type\n9\t1\tc\n2\tn/a\ta\n2\t0.5\tn/a\n"))
    np.testing.assert_array_equal(table["onset"], [2.0, 2.0, 9.0])
    np.testing.assert_array_equal(table["duration"], [0.0, 0.5, 1.0])
    assert list(table["trial_type"]) == ["a", None, "c"]
    assert list(table.index) == [0, 1, 2]


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    plain = load_events(write(tmp_path, "onset\tduration\tw\n1\t2\tx\n"))
    assert load_events(write(tmp_path, b"\xef\xbb\xbfonset\tduration\tw\r\n1\t2\tx\r\n")).equals(plain)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("onset\ttrial_type\n1\ta\n", "no column 'duration'.*columns there: onset, trial_type"),
        ("time\tduration\n1\t1\n", "no column 'onset'"),
        ("onset\tduration\n", "no trial"),
        ("onset\tduration\n1\t1\nn/a\t1\n", "the onset of row 2 is n/a"),
        ("onset\tduration\nlate\t1\n", "the onset of row 1 is late"),
        ("onset\tduration\ninf\t1\n", "the onset of row 1 is inf"),
        ("onset\tduration\n1\tlong\n", "the duration of row 1 is long"),
        ("onset\tduration\n1\t-2\n", "the duration of row 1 is -2.0 s"),
        ("", "empty"),
    ],
)
def test_faults_name_the_row(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_events(write(tmp_path, content))
    assert "sub-01_events.tsv" in str(caught.value)


def test_real_events(real_data: Path) -> None:
    assert len(load_events(real_data / "trees" / "synthetic" / "task-nback_events.tsv")) == 42
