"""Fixed features, fitted on training rows only: z-score of every vertex, principal components if asked for.

The rows of a recording may be many times larger than memory, so everything streams: moments in blocks of rows, the matrix of
inner products (between rows or between vertices, whichever is smaller) in blocks of the other. Where even that matrix would be
large (`EXACT`), components are found by subspace iteration: they capture the same variance to about 1 % in noise alone, .01 %
where there is something to find.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from bids_brainlm.core.types import Affine, Floats, Ints, Recording

Doubles = NDArray[np.float64]

BLOCK_BYTES = 2**26
"""Size of one block of data in float64."""

EXACT = 2**12
"""Rows or vertices, whichever are fewer, up to which components come from the matrix of all inner products."""

OVERSAMPLED, TOLERANCE = 32, 5e-3
"""Of the subspace iteration: axes more than asked for; gain in captured variance at which it ends."""


def fit_affine(recording: Recording, rows: Any, n_components: int = 0) -> Affine:
    """Fit z-score and, if asked for, principal components.

    Parameters
    ----------
    recording : Recording
        Data may be a memory map.
    rows : (.,) or (n, T, M) int
        Rows to fit on, those of the training examples; repeated rows count once, -1 is left out.
    n_components : int
        Number of components; 0 keeps every vertex.

    Returns
    -------
    Affine
        ``scale`` is 0 for vertices that are constant or not finite in those rows. Components are orthonormal, largest
        variance first, each with its largest weight positive.

    Raises
    ------
    ValueError
        For fewer than two rows, or more components than the rows have.
    """
    used = np.unique(np.asarray(rows, dtype=np.int64))
    used = used[used >= 0]
    if used.size < 2:
        raise ValueError(f"features are fitted on {used.size} row(s); a standard deviation needs two or more")
    mean, scale = moments(recording.data, used)
    components = _components(recording.data, used, mean, scale, n_components) if n_components else None
    return Affine(mean.astype(np.float32), scale.astype(np.float32), components, used)


def center(data: Any, labels: Any, out: Floats | None = None) -> Floats:
    """Subtract from every row the mean of the rows with the same label (run or session).

    Parameters
    ----------
    data : (R, V)
        Left as it is, unless it is ``out`` too.
    labels : (R,)
    out : (R, V) float32, optional
        Where to write, such as a memory map; a new array when None.

    Returns
    -------
    (R, V) float32

    Raises
    ------
    ValueError
        When lengths differ, or a label has a single row, of which nothing would be left.
    """
    labels = np.asarray(labels)
    if labels.shape != tuple(data.shape[:1]):
        raise ValueError(f"{data.shape[0]} rows, but {labels.size} labels")
    names, counts = np.unique(labels, return_counts=True)
    if (counts == 1).any():
        raise ValueError(f"label {names[counts == 1][0]!s} has one row only; removing the mean would leave zeros")
    out = np.empty(data.shape, dtype=np.float32) if out is None else out
    for label in names:
        rows = np.flatnonzero(labels == label)
        parts = [rows[part] for part in _blocks(rows.size, data.shape[1])]
        total = sum(np.asarray(data[part], dtype=np.float32).sum(axis=0, dtype=np.float64) for part in parts)
        mean = np.asarray(total / rows.size, dtype=np.float32)
        for part in parts:
            out[part] = np.asarray(data[part], dtype=np.float32) - mean
    return out


def _blocks(size: int, width: int) -> Iterator[slice]:
    step = max(1, BLOCK_BYTES // (8 * max(1, width)))
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def moments(data: Any, rows: Ints) -> tuple[Doubles, Doubles]:
    """Mean and standard deviation over rows, merged block by block (Chan et al. 1983, Am. Stat. 37:242).

    Parameters
    ----------
    data : (R, V)
        Array or memory map.
    rows : (N,) int

    Returns
    -------
    mean, deviation : (V,) float64
        Divided by N; both 0 where a value is not finite.
    """
    n_vertices = data.shape[1]
    mean, squares, seen = np.zeros(n_vertices), np.zeros(n_vertices), 0
    finite = np.ones(n_vertices, dtype=np.bool_)
    for part in _blocks(rows.size, n_vertices):
        block = np.asarray(data[rows[part]], dtype=np.float64)
        finite &= np.isfinite(block).all(axis=0)
        block[:, ~finite] = 0.0
        own, total = block.mean(axis=0), seen + len(block)
        squares += ((block - own) ** 2).sum(axis=0) + (own - mean) ** 2 * (seen * len(block) / total)
        mean += (own - mean) * (len(block) / total)
        seen = total
    # A constant vertex comes out as exactly 0: equal float32 values are summed without rounding in float64.
    return np.where(finite, mean, 0.0), np.where(finite, np.sqrt(squares / seen), 0.0)


def _components(data: Any, rows: Ints, mean: Doubles, scale: Doubles, n_components: int) -> Floats:
    """(V, F) orthonormal principal axes of the z-scored rows."""
    kept = scale > 0
    n_kept = int(kept.sum())
    most = min(rows.size - 1, n_kept)
    if n_components > most:
        raise ValueError(f"{n_components} components of {rows.size} rows and {n_kept} usable vertices; at most {most}")
    if min(rows.size, n_kept) > EXACT:
        find = _axes_by_iteration
    else:
        find = _axes_from_rows if rows.size <= n_kept else _axes_from_vertices
    scaling = (mean, np.divide(1.0, scale, out=np.zeros_like(scale), where=kept))
    axes = find(data, rows, scaling, n_components)
    axes[~kept] = 0.0  # rounding, of the order of 1e-17
    parts = list(_blocks(len(axes), n_components))
    largest = np.stack([axes[part][np.abs(axes[part]).argmax(axis=0), np.arange(n_components)] for part in parts])
    axes *= np.sign(largest[np.abs(largest).argmax(axis=0), np.arange(n_components)])
    return axes


Scaling = tuple[Doubles, Doubles]
"""Mean (V,), and reciprocal standard deviation (V,), 0 for a masked vertex."""


def _z(block: Any, scaling: Scaling, part: slice = slice(None), dtype: Any = np.float64) -> Any:
    """z-scored block of rows, of the vertices ``part``; masked vertices are 0."""
    mean, gain = (item[part].astype(dtype) for item in scaling)
    out = np.array(block, dtype=dtype)
    out[:, gain == 0] = 0.0
    out -= mean * (gain > 0)
    out *= gain
    return out


def _largest(product: Doubles, n_components: int) -> tuple[Doubles, Doubles]:
    """Largest eigenvalues (F,), descending, and their vectors (., F) of a matrix of inner products."""
    size = len(product)
    values, vectors = eigh(product, subset_by_index=(size - n_components, size - 1), overwrite_a=True, check_finite=False)
    if values[0] <= 1e-10 * values[-1]:
        found = int((values > 1e-10 * values[-1]).sum())
        raise ValueError(f"{n_components} components asked for, but the training rows have only {found}")
    return values[::-1], vectors[:, ::-1]


def _axes_from_rows(data: Any, rows: Ints, scaling: Scaling, n_components: int) -> Floats:
    """Fewer rows than vertices: eigenvectors of the (N, N) inner products of rows, taken back to vertices."""
    gram = np.zeros((rows.size, rows.size))
    parts = list(_blocks(data.shape[1], rows.size))
    for part in parts:
        z = _z(data[rows, part], scaling, part)
        gram += z @ z.T
    values, vectors = _largest(gram, n_components)
    axes = np.empty((data.shape[1], n_components), dtype=np.float32)
    for part in parts:
        axes[part] = _z(data[rows, part], scaling, part).T @ (vectors / np.sqrt(values))
    return axes


def _axes_from_vertices(data: Any, rows: Ints, scaling: Scaling, n_components: int) -> Floats:
    """More rows than vertices: eigenvectors of the (V, V) inner products of vertices."""
    covariance = np.zeros((data.shape[1], data.shape[1]))
    for part in _blocks(rows.size, data.shape[1]):
        z = _z(data[rows[part]], scaling)
        covariance += z.T @ z
    return _largest(covariance, n_components)[1].astype(np.float32)


def _axes_by_iteration(data: Any, rows: Ints, scaling: Scaling, n_components: int) -> Floats:
    """Many rows and many vertices: subspace iteration from a random start, then axes within the subspace.

    Each pass reads every row once (Halko et al. 2011, SIAM Rev. 53:217); memory is that of two matrices (V, F).
    """
    size = min(n_components + OVERSAMPLED, rows.size, data.shape[1])
    basis = np.random.default_rng(0).standard_normal((data.shape[1], size), dtype=np.float32)
    captured, done = 0.0, False
    while not done:
        _orthonormalise(basis)
        product, inner = np.zeros_like(basis), np.zeros((size, size))
        # Wide blocks: every one goes through all of the product.
        for part in _blocks(rows.size, data.shape[1] // 8):
            z = _z(data[rows[part]], scaling, dtype=np.float32)
            scores = z @ basis
            inner += scores.T.astype(np.float64) @ scores
            for tile in _blocks(len(basis), size):
                product[tile] += z[:, tile].T @ scores
        before, captured = captured, float(np.trace(inner))
        # What is captured never falls, and cannot grow forever.
        done = captured <= (1 + TOLERANCE) * before
        basis = basis if done else product
    return _turn(basis, _largest(inner, n_components)[1], np.empty((len(basis), n_components), dtype=np.float32))


def _orthonormalise(basis: Floats) -> None:
    """Orthonormal columns with the same span, in place; twice, since rounding leaves a part the first time."""
    for _ in range(2):
        gram = np.zeros((basis.shape[1], basis.shape[1]))
        for tile in _blocks(len(basis), basis.shape[1]):
            part = basis[tile].astype(np.float64)
            gram += part.T @ part
        values, vectors = eigh(gram, overwrite_a=True, check_finite=False)
        _turn(basis, vectors / np.sqrt(np.maximum(values, 1e-14 * values[-1])), basis)


def _turn(basis: Floats, matrix: Doubles, out: Floats) -> Floats:
    """``basis @ matrix`` into ``out``, which may be the basis itself."""
    for tile in _blocks(len(basis), basis.shape[1]):
        out[tile] = basis[tile] @ matrix.astype(np.float32)
    return out
