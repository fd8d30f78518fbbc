"""Fixtures of every test: where the real data are, and that nothing reaches for the network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TEMPLATEFLOW_AUTOUPDATE", "off")


def _data_folder() -> Path | None:
    named = os.environ.get("BRAINLM_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    return folder if (folder / "README.md").is_file() else None


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data (``BRAINLM_TEST_DATA``, else ``../shared/data`` beside the checkout)."""
    folder = _data_folder()
    if folder is None:
        if os.environ.get("BRAINLM_TEST_DATA"):
            pytest.fail(f"BRAINLM_TEST_DATA is {os.environ['BRAINLM_TEST_DATA']!r}, which holds no README.md of the test data")
        pytest.skip("needs the real data: set BRAINLM_TEST_DATA to its folder")
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if "BRAINLM_TEST_DATA" in str(r.longrepr)]
    terminalreporter.write_line(f"{len(skipped)} test(s) skipped for want of the real data (BRAINLM_TEST_DATA)")
