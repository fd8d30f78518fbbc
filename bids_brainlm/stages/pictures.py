"""The pictures that were shown, for metrics that compare texts with them.

The *picture* of a stimulus is the file below ``stimuli/`` of the dataset that its key names: BIDS's ``stim_file``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from bids_brainlm.errors import InputError
from bids_brainlm.io.texts import inside

LOGGER = logging.getLogger(__name__)


def pictures_of(bids_dir: Path, stimuli: Iterable[str]) -> dict[str, Path] | None:
    """Stimulus -> its file; None, and a warning that says which, where one has none inside the dataset."""
    keys = sorted({str(key) for key in stimuli})
    found = {key: path for key in keys if (path := _picture(bids_dir, key)) is not None}
    missing = [key for key in keys if key not in found]
    if missing:
        where = bids_dir / "stimuli"
        LOGGER.warning("no picture of %d of %d stimuli below %s, e.g. %r", len(missing), len(keys), where, missing[0])
    return None if missing else found


def _picture(bids_dir: Path, key: str) -> Path | None:
    try:
        path = inside(bids_dir, Path("stimuli") / key)
        return path if path.is_file() else None
    except (InputError, OSError, ValueError):
        # It leaves the dataset, or is a text, which may be too long for a name.
        return None
