"""Haemodynamic response functions (HRF): what BOLD does after a very short event, as a function of time.

Both are *double gammas*: a peak minus a share of a later undershoot, scaled so that the samples sum to 1; a regressor made
with them is therefore a smoothed, delayed copy of its boxcar, and a beta is in the unit of the data.

>>> response = HRFS["glover"](np.linspace(0, 32, 321))
>>> float(np.linspace(0, 32, 321)[response.argmax()])  # the peak, in seconds
5.0
>>> round(float(response.sum()), 12)
1.0
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

Doubles = NDArray[np.float64]

LENGTH = 32.0
"""Seconds after which a response is taken to be over."""

PEAKS = (3.5, 4.2, 5.0, 5.8, 6.8, 7.8, 9.0)
"""Seconds to the peak, of the shapes of `library`."""

FORMS = ((0.6, 0.15, 10.0, 1.0), (0.9, 0.48, 6.0, 0.9), (1.3, 0.15, 10.0, 1.0))
"""Narrow, canonical and wide form of the shapes of `library`: dispersion of the peak (s), then ratio of the undershoot, seconds
from peak to undershoot, its dispersion (s). The middle one is that of ``glover``, whose deep undershoot suits long blocks."""


def _gamma_density(times: Doubles, shape: float, scale: float) -> Doubles:
    """Density of the gamma distribution; 0 before time 0. Written out because importing scipy.stats takes longer than a fit."""
    x = np.maximum(times, 0.0) / scale
    return np.asarray(np.exp(xlogy(shape - 1.0, x) - x - gammaln(shape)) / scale)


def _double_gamma(times: Doubles, delay: float, undershoot: float, dispersion: float, ratio: float) -> Doubles:
    """Difference of two gamma densities at ``times`` (t,) in seconds, scaled to sum 1."""
    times = np.asarray(times, dtype=np.float64)
    peak = _gamma_density(times, delay / dispersion, dispersion)
    response = peak - ratio * _gamma_density(times, undershoot / dispersion, dispersion)
    return np.asarray(response / response.sum())


HRFS: dict[str, Callable[[Doubles], Doubles]] = {
    "glover": partial(_double_gamma, delay=6.0, undershoot=12.0, dispersion=0.9, ratio=0.48),
    "spm": partial(_double_gamma, delay=6.0, undershoot=16.0, dispersion=1.0, ratio=0.167),
}
"""Name -> function of times (t,) in seconds to the response (t,); Glover 1999 (NeuroImage 9:416), SPM12; nilearn's parameters."""


def library(step: float = 0.1) -> Doubles:
    """Shapes to choose from, for units whose response is earlier, later, narrower or wider than the canonical one.

    The family is the double gamma of `HRFS`: every peak time of `PEAKS` in every form of `FORMS`. The deep undershoot pulls the
    peak forward by up to 0.3 s.

    Parameters
    ----------
    step : float
        Seconds between two samples.

    Returns
    -------
    (21, k) float64
        Samples over `LENGTH` seconds from 0, each row with sum 1; earliest first, narrow before wide.
    """
    times = np.arange(round(LENGTH / step), dtype=np.float64) * step
    shapes = []
    for peak, (width, ratio, delay, dispersion) in itertools.product(PEAKS, FORMS):
        # The mode of a gamma density is its mean less its scale.
        rise = _gamma_density(times, (peak + width) / width, width)
        fall = _gamma_density(times, (peak + delay + dispersion) / dispersion, dispersion)
        shapes.append(rise - ratio * fall)
    stacked = np.array(shapes)
    return np.asarray(stacked / stacked.sum(axis=1, keepdims=True))


def kernel(name: str, step: float) -> Doubles:
    """Sample a response on a microtime grid, one step late, the way nilearn does.

    Parameters
    ----------
    name : str
        One of `HRFS`.
    step : float
        Seconds between two samples.

    Returns
    -------
    (k,) float64
        Samples over `LENGTH` seconds that sum to 1.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if name not in HRFS:
        near = difflib.get_close_matches(name, HRFS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no haemodynamic response {name!r}{hint} known: {', '.join(HRFS)}")
    # The response to an impulse in one sample starts in the next, hence the shift.
    return HRFS[name](np.linspace(0.0, LENGTH, round(LENGTH / step)) - step)
