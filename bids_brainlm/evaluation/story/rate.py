"""How many words a window has, told from its response: ridge regression on training windows, silent ones included.

It works on the inner products of responses (`bids_brainlm.evaluation.readout.kernels`), so that all of cortex fits in memory. The
penalty is chosen by held-out stories of the training set.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.types import Ints, Recording
from bids_brainlm.evaluation.readout import choose_alpha, kernels, panels, ridge_path, sampled
from bids_brainlm.evaluation.story.tellings import Telling, by_story, responses


def word_rates(recording: Recording, tellings: Sequence[Telling], held: Ints, wanted: Ints, seed: int = 0) -> NDArray[np.float64]:
    """Expected number of words of windows.

    Parameters
    ----------
    recording : Recording
    tellings : sequence of Telling
        Divided into parts; training windows are learned from.
    held : (.,) int64
        Rows of the recording that nothing may be fitted on.
    wanted : (w, T) int64
        Rows of the windows that are asked for.
    seed : int
        Draws the training windows, where there are more than readouts are fitted to.

    Returns
    -------
    (w,) float64
        Words a window; may be negative.

    Raises
    ------
    ValueError
        When there are fewer than two training windows.
    """
    windows = {i: np.flatnonzero(telling.learnable(held)) for i, telling in enumerate(tellings)}
    rows = np.concatenate([tellings[i].rows[of] for i, of in windows.items()])
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} training windows to learn the word rate from")
    counts = np.array([len(tellings[i].texts[k].split()) for i, of in windows.items() for k in of], dtype=np.float64)
    groups = np.unique(by_story(tellings, windows), return_inverse=True)[1]
    some = sampled(np.arange(len(rows)), seed)
    kernel, cross = kernels(panels(partial(responses, recording), rows[some], wanted, wanted.shape[1], recording.data.shape[1]))
    targets = counts[some, None]
    alpha = choose_alpha(kernel, targets, groups[some])
    return np.asarray(ridge_path(kernel, targets, cross, np.array([alpha]))[0, :, 0])
