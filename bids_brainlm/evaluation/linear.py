"""A linear readout of texts: ridge regression from the rows of an example to the embedding of its text.

It is the yardstick for a decoder of running text, where no table of facts says what is right: what a language model does with a
response is to be compared with what a linear model finds in the same rows. What it predicts is compared with the embeddings of
texts by their cosine, both relative to the mean embedding of the training texts: ridge shrinks predictions towards that mean, and
with it cosines would mostly tell how ordinary a text is. Three figures are made of it.

- *Pairwise*: is the prediction from the own response nearer to the true text than that from a permuted one? The text is fixed and
  the brain changes, with the partners of the decoder's own permutations: the twin of pairwise accuracy by NLL. Chance is .5.
- *Identification* (2-way): is the true text nearer to the prediction than a text of another group? The share of all such texts
  of the test set. Chance is .5.
- *Top 10*: is the true text among the ten nearest of all distinct texts of the test set?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_brainlm.core.types import Ints
from bids_brainlm.evaluation.resampling import of_folds, permutation_p
from bids_brainlm.evaluation.statistics import pairwise_accuracy

Array = NDArray[np.float64]

TOP = 10
"""Texts among which the true one is looked for."""


@dataclass(frozen=True, eq=False)
class Measure:
    """A figure of every test example, and of each of its permuted brains.

    Parameters
    ----------
    values : (n,) float64
        nan where there is nothing to compare with.
    null : (K, n) float64
        The same with the responses of K partners in the place of the example's own.
    exchanged : (E, n) float64, optional
        The same under E exchanges of responses, which p counts; ``null`` when absent. Of several folds: `of_folds`.
    """

    values: Array
    null: Array
    exchanged: Array | None = None

    @property
    def p_value(self) -> float:
        """Of the mean over the examples that have a value; nan where there is none."""
        known = np.isfinite(self.values)
        null = (self.null if self.exchanged is None else self.exchanged)[:, known]
        return permutation_p(float(self.values[known].mean()), null.mean(axis=1)) if null.size else np.nan

    @classmethod
    def concat(cls, parts: Sequence[Measure]) -> Measure:
        """Several test sets, one after the other."""
        exchanged = [part.exchanged for part in parts if part.exchanged is not None]
        return cls(
            np.concatenate([part.values for part in parts]),
            _beside([part.null for part in parts]),
            of_folds(_beside(exchanged), len(parts)) if len(exchanged) == len(parts) else None,
        )


def _beside(parts: Sequence[Array]) -> Array:
    """Permutations of several test sets, as many as all of them have."""
    least = min(map(len, parts))
    return np.concatenate([part[:least] for part in parts], axis=1)


@dataclass(frozen=True, eq=False)
class Identified:
    """How well a linear readout tells texts.

    Parameters
    ----------
    cosine : Measure
        Of prediction and true embedding.
    identification : Measure
        Share of texts of other groups that are less like the prediction than the true one; half of those that tie.
    top : Measure
        1 where the true text is among the `TOP` nearest distinct ones, else 0.
    """

    cosine: Measure
    identification: Measure
    top: Measure

    @property
    def pairwise(self) -> Array:
        """(n,) share of permuted brains whose prediction is less like the true text than that of the own brain."""
        return pairwise_accuracy(-self.cosine.values, -self.cosine.null)

    @classmethod
    def concat(cls, parts: Sequence[Identified]) -> Identified:
        """The test sets of several folds, one after the other; permutations that all of them have."""
        return cls(*(Measure.concat([getattr(part, name) for part in parts]) for name in ("cosine", "identification", "top")))


def predict(products: tuple[Array, Array], targets: ArrayLike, groups: ArrayLike) -> Array:
    """Embeddings predicted for test examples by ridge regression, relative to the mean of the training texts.

    Parameters
    ----------
    products : ((n, n), (m, n)) float64
        What `bids_brainlm.evaluation.readout.kernels` returns: inner products among training examples, and of test with training.
    targets : (n, D) float
        Embeddings of the training texts.
    groups : (n,)
        Examples that stay together when the penalty is chosen, by cross-validation within training.

    Returns
    -------
    (m, D) float64
    """
    # Here, because scikit-learn takes 0.7 s, and every plan imports this module.
    from bids_brainlm.evaluation.readout import choose_alpha, ridge_path

    kernel, cross = products
    known = np.asarray(targets, dtype=np.float64)
    alpha = choose_alpha(kernel, known, np.unique(np.asarray(groups), return_inverse=True)[1])
    return np.asarray(ridge_path(kernel, known, cross, np.array([alpha]))[0] - known.mean(axis=0))


def identify(
    predicted: ArrayLike,
    targets: ArrayLike,
    texts: Sequence[str],
    groups: ArrayLike,
    partners: Ints,
    exchanges: Ints | None = None,
) -> Identified:
    """Compare predictions with the true texts, those of others, and with predictions from other brains.

    Parameters
    ----------
    predicted : (m, D) float
        From the response of each test example, relative to the mean of the training texts.
    targets : (m, D) float
        Embeddings of their texts, relative to the same mean.
    texts : sequence (m) of str
        Examples of one text are one candidate.
    groups : (m,)
        A text that occurs in the group of an example is not compared with its own.
    partners : (K, m) int64
        Example whose response takes the place of its own in each permutation.
    exchanges : (E, m) int64, optional
        The same in each permutation of the tests.
    """
    names, first, code = np.unique(np.asarray(texts), return_index=True, return_inverse=True)
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    inside = np.zeros((names.size, int(group.max()) + 1), dtype=np.bool_)
    inside[code, group] = True
    likeness = _unit(predicted) @ _unit(targets)[first].T
    tested = np.empty((0, code.size), dtype=np.int64) if exchanges is None else exchanges
    brains = np.concatenate([np.arange(code.size)[None], partners, tested])
    found = np.array([_of_brains(likeness[brain], code, ~inside[:, group].T) for brain in brains])
    parts = (np.split(found[:, k], [1, 1 + len(partners)]) for k in range(found.shape[1]))
    return Identified(*(Measure(own[0], null, more if len(more) else None) for own, null, more in parts))


def _of_brains(likeness: Array, code: Ints, others: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
    """Cosine, identification and top of each text, given a brain for each.

    Parameters
    ----------
    likeness : (m, u) float64
        Cosine of the prediction with each distinct text.
    code : (m,) int64
        Which of them is the true one.
    others : (m, u) bool
        Those of other groups.
    """
    own = likeness[np.arange(code.size), code][:, None]
    better = (likeness < own) + 0.5 * (likeness == own)
    count = others.sum(axis=1)
    share = np.divide((better * others).sum(axis=1), count, out=np.full(count.size, np.nan), where=count > 0)
    return own[:, 0], share, ((likeness > own).sum(axis=1) < TOP).astype(np.float64)


def _unit(vectors: ArrayLike) -> Array:
    """Rows of length 1; a row of zeros stays."""
    rows = np.asarray(vectors, dtype=np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, length, out=np.zeros_like(rows), where=length > 0))
