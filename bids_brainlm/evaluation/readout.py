"""Linear readouts: how much of the label a linear classifier finds in the same betas.

They are the yardstick beside the decoded text: a language model that names fewer facts than a ridge readout of its own input has
lost something on the way. Features are z-scored on the training trials alone. Both classifiers are fitted in the space
spanned by the training trials (n dimensions instead of V): an L2-penalised linear fit never leaves that space, so the result
is the same and 640 trials x 20,484 vertices take seconds.

- ``ridge``: one-hot targets, penalty chosen by cross-validation inside the training set, held-out groups whole.
- ``logistic``: multinomial logistic regression with C = 0.01.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

Array = NDArray[np.float64]
Labels = NDArray[np.str_]

ALPHAS = np.logspace(-3, 3, 13)
"""Ridge penalties tried, in units of the mean squared length of a training pattern."""

MOST = 2**12
"""Training trials that a readout is fitted to: it holds the inner products of all pairs of them."""

PANEL_BYTES = 2**27
"""Responses that a readout holds in memory at a time."""

ROWS = 512
"""Test trials that are worked on at a time."""

N_FOLDS = 5
C = 0.01


def readout(
    x_train: ArrayLike, y_train: ArrayLike, x_test: ArrayLike, kind: str = "ridge", groups_train: ArrayLike | None = None
) -> Labels:
    """Fit a linear classifier on training trials and name the class of each test trial.

    Parameters
    ----------
    x_train : (n, V) float
        Responses.
    y_train : (n,) str
        Class of each.
    x_test : (m, V) float
    kind : {"ridge", "logistic"}
    groups_train : (n,), optional
        Trials that must stay together when the ridge penalty is chosen (repeats of a stimulus, runs); each alone when absent.

    Returns
    -------
    (m,) str

    Raises
    ------
    ValueError
        For an unknown kind, or shapes that disagree.
    """
    if kind not in KINDS:
        raise ValueError(f"no readout {kind!r}; expected one of {', '.join(KINDS)}")
    train, test, labels = np.asarray(x_train), np.asarray(x_test), np.asarray(y_train, dtype=np.str_)
    groups = np.arange(len(labels)) if groups_train is None else np.unique(np.asarray(groups_train), return_inverse=True)[1]
    if (
        train.ndim != 2
        or test.ndim != 2
        or train.shape[1] != test.shape[1]
        or not labels.shape == groups.shape == train.shape[:1]
    ):
        shapes = f"train {train.shape}, labels {labels.shape}, groups {groups.shape}, test {test.shape}"
        raise ValueError(f"{shapes}; expected (n, V), (n,), (n,), (m, V)")
    return named(kernels([(train, test)]), labels, kind, groups)


def named(products: tuple[Array, Array], labels: Labels, kind: str, groups: NDArray[np.int64]) -> Labels:
    """(m,) class of each test trial, given what `kernels` returns and the class (n,) and group (n,) of each training trial."""
    kernel, cross = products
    classes, codes = np.unique(labels, return_inverse=True)
    if classes.size == 1:
        return np.repeat(classes, len(cross))
    return np.asarray(classes[KINDS[kind](kernel, codes, cross, groups)])


def kernels(panels: Iterable[tuple[NDArray[np.floating], NDArray[np.floating]]]) -> tuple[Array, Array]:
    """Inner products of z-scored patterns: (n, n) among training trials and (m, n) of test with training trials.

    Vertices that are constant or not finite in training count nothing; values that are not finite in test count as the mean.

    Parameters
    ----------
    panels : iterable of ((n, c) array, (m, c) array)
        Training and test trials, some vertices at a time; one panel is in memory.
    """
    kernel = cross = np.zeros((0, 0))
    for x_train, x_test in panels:
        if not kernel.size:
            kernel, cross = np.zeros((len(x_train), len(x_train))), np.zeros((len(x_test), len(x_train)))
        usable = np.isfinite(x_train).all(axis=0)
        x_train, x_test = x_train[:, usable], x_test[:, usable]
        mean, scale = x_train.mean(axis=0), x_train.std(axis=0)
        varies = scale > 1e-6 * np.abs(mean)
        z_train, z_test = ((x[:, varies] - mean[varies]) / scale[varies] for x in (x_train, x_test))
        np.nan_to_num(z_test, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        kernel += z_train @ z_train.T
        for part in _rows(z_test):
            cross[part] += z_test[part] @ z_train.T
    return kernel, cross


def sampled(index: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """As many of some training trials as readouts are fitted to, drawn at random and in order, where there are more."""
    return index if index.size <= MOST else np.sort(np.random.default_rng(seed).permutation(index)[:MOST])


def panels(
    gather: Callable[[Any, slice], NDArray[np.floating]], train: Any, test: Any, n_rows: int, n_vertices: int
) -> Iterator[tuple[NDArray[np.floating], NDArray[np.floating]]]:
    """Responses of training and test trials, some vertices of all of them at a time, as `kernels` takes them.

    Parameters
    ----------
    gather : callable
        (k trials, vertices) -> (k, T, c) responses.
    train, test : sequence
        What ``gather`` is asked for.
    n_rows, n_vertices : int
        T and V.
    """
    width = max(1, PANEL_BYTES // (4 * n_rows * (len(train) + len(test))))
    for start in range(0, n_vertices, width):
        part = slice(start, start + width)
        own, others = (gather(of, part).reshape(len(of), -1) for of in (train, test))
        yield own, others


def _ridge(kernel: Array, codes: NDArray[np.int64], cross: Array, groups: NDArray[np.int64]) -> NDArray[np.int64]:
    targets = np.eye(codes.max() + 1)[codes]
    alpha = choose_alpha(kernel, targets, groups)
    return np.asarray(ridge_path(kernel, targets, cross, np.array([alpha]))[0].argmax(axis=1))


def choose_alpha(kernel: Array, targets: Array, groups: NDArray[np.int64]) -> float:
    """The penalty with the smallest held-out squared error; the middle one where there are no two groups to hold out."""
    n_folds = min(N_FOLDS, np.unique(groups).size)
    if n_folds < 2:
        return float(ALPHAS[ALPHAS.size // 2])
    error = np.zeros(ALPHAS.size)
    for fit, held in GroupKFold(n_folds, shuffle=True, random_state=0).split(kernel, groups=groups):
        scores = ridge_path(kernel[np.ix_(fit, fit)], targets[fit], kernel[np.ix_(held, fit)], ALPHAS)
        error += ((scores - targets[held]) ** 2).sum(axis=(1, 2))
    return float(ALPHAS[error.argmin()])


def ridge_path(kernel: Array, targets: Array, cross: Array, alphas: Array) -> Array:
    """Kernel ridge regression with an intercept that is not penalised, for several penalties from one decomposition.

    Parameters
    ----------
    kernel : (n, n), cross : (m, n)
        Inner products among training trials, and of test with training trials.
    targets : (n, c)
    alphas : (a,)
        Penalties, in units of the mean diagonal of the centred kernel.

    Returns
    -------
    (a, m, c)
    """
    column, grand = kernel.mean(axis=0), kernel.mean()
    centred = kernel - column - column[:, None] + grand
    values, vectors = linalg.eigh(centred)
    unit = max(float(values.mean()), np.finfo(float).tiny)
    offset = targets.mean(axis=0)
    rotated = vectors.T @ (targets - offset)
    shrunk = rotated / (np.maximum(values, 0)[:, None] + alphas[:, None, None] * unit)
    out = np.empty((len(alphas), len(cross), targets.shape[1]))
    for part in _rows(cross):
        test = cross[part] - column - cross[part].mean(axis=1, keepdims=True) + grand
        out[:, part] = (test @ vectors) @ shrunk + offset
    return out


def _rows(array: Array) -> Iterator[slice]:
    """Rows some at a time: with many test trials no second matrix of the size of their inner products is made."""
    return (slice(start, start + ROWS) for start in range(0, len(array), ROWS))


def _logistic(kernel: Array, codes: NDArray[np.int64], cross: Array, groups: NDArray[np.int64]) -> NDArray[np.int64]:
    values, vectors = linalg.eigh(kernel)
    keep = values > 1e-5 * values.max()  # what is smaller is rounding of float32 products
    root = np.sqrt(values[keep])
    fitted = LogisticRegression(C=C, max_iter=2000).fit(vectors[:, keep] * root, codes)
    parts = [fitted.predict(cross[part] @ vectors[:, keep] / root) for part in _rows(cross)]
    return np.concatenate(parts) if parts else codes[:0]


KINDS = {"ridge": _ridge, "logistic": _logistic}
