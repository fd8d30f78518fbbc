"""Which brains the texts of a test set are scored with: the same in the stage that scores and the one that evaluates."""

from __future__ import annotations

from bids_brainlm.config import Config
from bids_brainlm.core.types import Examples
from bids_brainlm.evaluation.pairs import Comparisons, comparisons


def comparisons_of(test: Examples, config: Config, fold: int) -> Comparisons:
    """Brains that the texts of a fold are scored with, and their exchanges, as the configuration has it.

    Raises
    ------
    ValueError
        When an example has nobody to be permuted with.
    """
    return comparisons(test, config.decode.permutations, config.decode.pairs, config.run.random_seed + fold)
