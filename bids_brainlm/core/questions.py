"""Kinds of text that a response is asked for, which of them are trained on, and which a decoder has never been asked.

- The *category* of an example is the kind of its text: ``caption``, or that of its question (`Prompt.category`).
- A *mix* gives weights to kinds. A kind is a category that it names, else ``caption`` or ``question``. With a mix, all texts of
  a response stand for each other in training: an epoch draws one, first its kind by weight, then the text. A kind without a
  weight is not trained on: ``{caption = 1}`` is a model of captions that may be asked questions.
- A question is *seen* when a training example is asked in one of the wordings of it.
- The *habit* of a question is its most frequent answer in training: what would be said without a look at the brain. That of an
  unseen question is the most frequent answer of its category, else of all training texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.types import CAPTION, QUESTION, Bools, Examples, Ints, Prompt


def kind_of(prompt: Prompt, mix: Mapping[str, float]) -> str:
    """What a mix calls a text.

    >>> kind_of(Prompt("What colour?", "red", "colour"), {"caption": 1, "question": 2})
    'question'
    """
    return prompt.category if prompt.category in mix else CAPTION if prompt.category == CAPTION else QUESTION


def unmixed(prompts: Sequence[Prompt], mix: Mapping[str, float]) -> Bools:
    """(n,) whether a text is of a kind that is not trained on; nothing is where there is no mix.

    Raises
    ------
    ValueError
        For a kind that no text is of.
    """
    if not mix:
        return np.zeros(len(prompts), dtype=np.bool_)
    kinds = [kind_of(prompt, mix) for prompt in prompts]
    unknown = sorted(set(mix) - set(kinds))
    if unknown:
        raise ValueError(f"text.mix: no text is of the kind {unknown[0]!r}; kinds: {_known(prompts)}")
    return np.array([not mix.get(kind) for kind in kinds], dtype=np.bool_)


def held_out(prompts: Sequence[Prompt], names: Iterable[str]) -> Bools:
    """(n,) whether a question is left out: by its category, or by any of its wordings, in whatever category that stands.

    Raises
    ------
    ValueError
        For a name that is no category and no wording of a question.
    """
    wanted = set(names)
    named = [prompt.category in wanted or not wanted.isdisjoint(prompt.wordings) for prompt in prompts]
    unknown = sorted(wanted - {name for prompt in prompts for name in (prompt.category, *prompt.wordings)})
    if unknown:
        raise ValueError(f"split.leave_out_questions: no question or category {unknown[0]!r}; categories: {_known(prompts)}")
    wordings = {wording for prompt, out in zip(prompts, named, strict=True) if out for wording in prompt.wordings}
    return np.array([out or not wordings.isdisjoint(p.wordings) for p, out in zip(prompts, named, strict=True)], dtype=np.bool_)


def _known(prompts: Sequence[Prompt]) -> str:
    return ", ".join(sorted({prompt.category for prompt in prompts}))


def pools(examples: Examples, mix: Mapping[str, float]) -> tuple[Ints, NDArray[np.float64]]:
    """Examples of which an epoch draws one: those with the same rows.

    Parameters
    ----------
    examples : Examples
        Of kinds that have a weight.
    mix : mapping of kind to weight

    Returns
    -------
    pool : (n,) int64
        Number of the response of each example, in the order of their first examples.
    chance : (n,) float64
        Probability that the example is the one drawn, 1 in all for each response.
    """
    rows = [row.tobytes() for row in examples.rows]
    number = {row: i for i, row in enumerate(dict.fromkeys(rows))}
    pool = np.array([number[row] for row in rows], dtype=np.int64)
    kinds = [kind_of(prompt, mix) for prompt in examples.prompts]
    count = Counter(zip(pool.tolist(), kinds, strict=True))
    weight = np.array([mix[kind] / count[own, kind] for own, kind in zip(pool.tolist(), kinds, strict=True)], dtype=np.float64)
    return pool, weight / np.bincount(pool, weight)[pool]


def seen(prompts: Sequence[Prompt], trained: Sequence[Prompt]) -> Bools:
    """(n,) whether training asked a question, in any wording of it."""
    asked = {wording for prompt in trained for wording in prompt.wordings}
    return np.array([not asked.isdisjoint(prompt.wordings) for prompt in prompts], dtype=np.bool_)


def habits(prompts: Sequence[Prompt], trained: Sequence[Prompt]) -> list[str]:
    """What is answered most often in training to each question; the earlier one of two that are as frequent."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for prompt in trained:
        for key in (("wording", prompt.context), ("category", prompt.category), ("all", "")):
            counts.setdefault(key, Counter())[prompt.answer] += 1
    out = []
    for prompt in prompts:
        keys = [*(("wording", wording) for wording in prompt.wordings), ("category", prompt.category), ("all", "")]
        found = next(counts[key] for key in keys if key in counts)
        out.append(found.most_common(1)[0][0])
    return out
