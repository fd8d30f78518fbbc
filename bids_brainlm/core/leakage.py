"""What a split lets through from training to test, counted in test examples.

A test example *shares rows* when training saw one of its rows of the recording, *shares its target* when training has an answer
with the same stimulus (a repeat, or the same window behind another context), and has its *target in a context* when training has
a prompt in which the very words stand that are to be decoded. A split that is not marked leaky has none of the first, none of
the last, and of the second only repeats that its groups allow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bids_brainlm.core.types import Split

LEAKY = (
    "The split leaks on purpose (scheme leaky-random, as in the released code of BrainLLM): training has seen volumes, texts or "
    "prompts of test examples, so that no figure here says how well brains are decoded."
)
"""What every output of a leaky split says."""


@dataclass(frozen=True)
class Leakage:
    """Numbers of test examples.

    Parameters
    ----------
    n_test : int
        All of them.
    shared_rows : int
        Those with a row of the recording that a training example has too.
    shared_targets : int
        Those whose stimulus is the answer of a training example too.
    targets_in_contexts : int
        Those whose stimulus stands in the prompt of a training example.
    """

    n_test: int
    shared_rows: int
    shared_targets: int
    targets_in_contexts: int

    def __add__(self, other: Leakage) -> Leakage:
        """Of two folds together."""
        return Leakage(
            self.n_test + other.n_test,
            self.shared_rows + other.shared_rows,
            self.shared_targets + other.shared_targets,
            self.targets_in_contexts + other.targets_in_contexts,
        )


def count(split: Split) -> Leakage:
    """What training tells of the test examples of a split."""
    examples, test = split.examples, split.test
    rows = np.unique(examples.rows[split.train])
    heard = np.array([name for i in split.train for name in examples.heard[i]], dtype=np.str_)
    return Leakage(
        n_test=len(test),
        shared_rows=int(np.isin(examples.rows[test], rows[rows >= 0]).any(axis=(1, 2)).sum()),
        shared_targets=int(np.isin(examples.stimulus[test], examples.stimulus[split.train]).sum()),
        targets_in_contexts=int(np.isin(examples.stimulus[test], heard).sum()),
    )
