"""Cross-validation on repeats: does a trial's beta look like the mean of the other runs' trials with the same stimulus?

A trial's *partners* are the trials of its stimulus in other runs. *Agreement* is the mean product of a trial's beta with the
mean of its partners', after each session was z-scored, unit by unit, because amplitudes drift between sessions: a correlation,
except that a mean of more partners counts for less. All choices maximise it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bids_brainlm.core.types import Floats, Ints


def partners(stimulus: Any, run: Any) -> tuple[Ints, Any]:
    """Which trials have partners, and the matrix that averages those.

    Parameters
    ----------
    stimulus : (N,) str
    run : (N,) int
        Trials of one run never are partners: noise that they share would pass for a response.

    Returns
    -------
    rows : (m,) int64
        Trials with a partner.
    average : sparse (m, N) float32
        Each row averages the partners of one of them.
    """
    _, code = np.unique(np.asarray(stimulus, dtype=np.str_), return_inverse=True)
    order = np.argsort(code, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(code))[:-1])
    run = np.asarray(run)
    pairs = [(i, others) for group in groups for i in group if (others := group[run[group] != run[i]]).size]
    pairs.sort(key=lambda pair: int(pair[0]))
    rows = np.array([i for i, _ in pairs], dtype=np.int64)
    sizes = np.array([others.size for _, others in pairs], dtype=np.int64)
    columns = np.concatenate([others for _, others in pairs]) if pairs else np.zeros(0, dtype=np.int64)
    weights = np.repeat(1.0 / np.maximum(sizes, 1), sizes).astype(np.float32)
    place = np.repeat(np.arange(rows.size), sizes)
    return rows, sparse.csr_array((weights, (place, columns)), shape=(rows.size, code.size))


def standardise(betas: Floats, session: Ints) -> Floats:
    """z-score betas (N, v) within each session (N,), in place; a unit without variance becomes 0."""
    for label in np.unique(session):
        rows = _rows(session, label)
        block = betas[rows]
        block -= block.sum(axis=0) / np.float32(len(block))
        spread = np.sqrt(np.einsum("nv,nv->v", block, block) / len(block))
        block *= np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
        betas[rows] = block
    return betas


def agreement(betas: Floats, rows: Ints, average: Any, session: Ints) -> Floats:
    """Agreement of trials with their partners.

    Parameters
    ----------
    betas : (N, v) float32
        Overwritten.
    rows, average
        See `partners`.
    session : (N,) int

    Returns
    -------
    (v,) float32
    """
    z = standardise(betas, session)
    own = z if rows.size == len(z) else z[rows]
    return np.asarray(np.einsum("mv,mv->v", average @ z, own) / np.float32(rows.size))


def _rows(session: Ints, label: int) -> slice | NDArray[np.intp]:
    """The rows of a session, as a slice where they follow each other (no copy)."""
    rows = np.flatnonzero(session == label)
    return slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] + 1 == rows.size else rows
