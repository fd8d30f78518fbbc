"""Texts that simple decoders say from the same responses, fold by fold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.config import Request
from bids_brainlm.core.types import Split
from bids_brainlm.errors import InputError
from bids_brainlm.evaluation.baselines import NEAREST_RESPONSE, NEAREST_TEXT, nearest_response, nearest_text
from bids_brainlm.io.files import read_text


def baseline_texts(request: Request, folds: Sequence[Split]) -> dict[str, list[str]]:
    """Baseline -> (n,) texts of all test sets, in the order of the predictions."""
    # Here, because scikit-learn takes 0.7 s, and every plan imports this module.
    from bids_brainlm.evaluation.readout import kernels, sampled

    settings = request.config.evaluate
    said: dict[str, list[str]] = {name: [] for name in settings.baselines}
    for split in folds if said else ():
        train = sampled(distinct(split), request.config.run.random_seed)
        texts = [split.examples.prompts[i].answer for i in train]
        products = kernels(panels_of(split, train))
        if NEAREST_RESPONSE in said:
            said[NEAREST_RESPONSE] += nearest_response(products, texts)
        if NEAREST_TEXT in said:
            candidates = list(dict.fromkeys(corpus(request) or texts))
            vectors = embedded(texts + candidates, texts, settings.embeddings)
            groups = split.examples.group[train]
            said[NEAREST_TEXT] += nearest_text(products, vectors[: len(texts)], groups, candidates, vectors[len(texts) :])
    return said


def corpus_path(request: Request) -> Path | None:
    """The file of candidate texts, below the dataset or absolute; None where the training texts are the candidates."""
    name = request.config.evaluate.corpus
    return (request.bids_dir / name).resolve() if name else None


def corpus(request: Request) -> list[str]:
    """Candidate texts, one a line; none where there is no corpus.

    Raises
    ------
    InputError
        When the file is not there, is no text, or is empty.
    """
    path = corpus_path(request)
    if path is None:
        return []
    texts = [" ".join(line.split()) for line in read_text(path).splitlines() if line.strip()]
    if not texts:
        raise InputError("the corpus is empty", path, expected="one text a line", remedy="check --corpus")
    return texts


def embedded(texts: Sequence[str], training: Sequence[str], folder: str) -> NDArray[np.float32]:
    """(n, D) embeddings by the model in a folder, else bags of words of the training texts."""
    # Here, because torch and transformers take seconds, and every plan imports this module.
    from bids_brainlm.evaluation.embeddings import bag_of_words, embed

    return embed(texts, folder) if folder else bag_of_words(texts, training)


def distinct(split: Split) -> NDArray[np.int64]:
    """Training examples without those that only have another context: a readout sees rows and text, and no context."""
    seen = {(split.examples.rows[i].tobytes(), split.examples.prompts[i].answer): i for i in split.train[::-1]}
    return np.sort(np.fromiter(seen.values(), dtype=np.int64))


def responses(split: Split) -> NDArray[np.int64]:
    """The first training example of each response: facts are the same whatever a response is asked for."""
    seen = {split.examples.rows[i].tobytes(): i for i in split.train[::-1]}
    return np.sort(np.fromiter(seen.values(), dtype=np.int64))


def panels_of(split: Split, train: NDArray[np.int64]) -> Iterator[tuple[Any, Any]]:
    """Responses of training and test examples, some vertices of all of them at a time."""
    from bids_brainlm.evaluation.readout import panels  # as in `baseline_texts`

    examples = split.examples
    return panels(examples.gather, train, split.test, examples.rows.shape[1], examples.recording.data.shape[1])
