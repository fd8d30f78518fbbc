"""When the volumes of a run were taken, in seconds after the onset 0 of its events.

Volume k lies at ``start + k * tr``: with slice timing correction that is the middle of the acquisition, not its start. Where a
sidecar lists ``VolumeTiming`` (sparse acquisition), volumes lie where it says, and a ``RepetitionTime`` beside it is not used.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.errors import InputError

LOGGER = logging.getLogger(__name__)

LONGEST = 100.0
"""s above which a time from a sidecar is taken for milliseconds."""


@dataclass(frozen=True)
class Timing:
    """What a sidecar says of time.

    Parameters
    ----------
    tr : float
        s from one volume to the next; 0 where volumes are unevenly spaced.
    start : float
        s of volume 0 after the onset 0 of the events.
    volumes : tuple of float
        s of every volume after ``start`` where they are unevenly spaced, else empty.
    """

    tr: float
    start: float
    volumes: tuple[float, ...] = ()

    def frames(self, n_volumes: int, path: Path) -> NDArray[np.float64]:
        """(n_volumes,) s of every volume of the series in a file.

        Raises
        ------
        InputError
            When the sidecar lists another number of volumes.
        """
        if not self.volumes:
            return self.start + self.tr * np.arange(n_volumes, dtype=np.float64)
        if len(self.volumes) != n_volumes:
            what = f"VolumeTiming lists {len(self.volumes)} volumes, the series has {n_volumes}"
            remedy = "correct the JSON sidecar, or leave the run out: --run-id, --task-id"
            raise InputError(what, path, expected="one time a volume", remedy=remedy)
        return self.start + np.array(self.volumes, dtype=np.float64)


def timing(sidecar: Mapping[str, Any], path: Path) -> Timing:
    """Times that a sidecar gives for the series in a file.

    ``StartTime`` is used when it is given. fMRIPrep before 20.2.4 corrected slice timing to the middle of the TR without
    writing it, so TR / 2 is taken where the series was corrected and there is none.

    Raises
    ------
    InputError
        When a time is no number of seconds, or volumes do not follow each other.
    """
    start = _seconds(sidecar, "StartTime", path, -math.inf) if sidecar.get("StartTime") is not None else None
    if "VolumeTiming" in sidecar:
        if "RepetitionTime" in sidecar:
            LOGGER.warning("%s has VolumeTiming, which is taken, and a RepetitionTime, which is not used", path.name)
        return Timing(0.0, start or 0.0, _volumes(sidecar["VolumeTiming"], path))
    tr = _seconds(sidecar, "RepetitionTime", path, 0.0)
    if start is None and sidecar.get("SliceTimingCorrected") is True:
        LOGGER.warning("%s was slice-time corrected, but no StartTime is given; TR / 2 is taken", path.name)
        start = tr / 2
    return Timing(tr, start or 0.0)


def _seconds(sidecar: Mapping[str, Any], name: str, path: Path, low: float) -> float:
    value: Any = sidecar.get(name)
    if not _is_number(value) or not low < value < LONGEST:
        expected = f"a number of seconds{', more than 0' if low == 0 else ''} and less than {LONGEST:g}"
        raise InputError(f"{name} is {value!r}", path, expected=expected, remedy="correct the JSON sidecar")
    return float(value)


def _volumes(values: Any, path: Path) -> tuple[float, ...]:
    numbers = isinstance(values, list) and len(values) > 1 and all(map(_is_number, values))
    if not numbers or values[0] < 0 or not (np.diff(values) > 0).all() or np.diff(values).min() > LONGEST:
        expected = f"a list of seconds that increase, one a volume, less than {LONGEST:g} s apart"
        raise InputError("VolumeTiming is no list of times", path, expected=expected, remedy="correct the JSON sidecar")
    return tuple(map(float, values))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
