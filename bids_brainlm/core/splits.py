"""Which examples are trained on, which choose the epoch, which are decoded.

What is dealt out is always whole *groups* (pictures, stories, runs): a group is never in two parts. Schemes:

- ``single``: one split with a share of the groups in the test set.
- ``kfold``: every group is in the test set of exactly one fold; folds are balanced in examples. 0 folds leave out one
  group at a time.
- ``column`` and ``list``: the part of every example is given (from events.tsv, or from a list of groups).
- ``blocks``: one split, or folds, whose groups are stretches of stories (`blocks_of`). Neighbours overlap, so training and
  validation are *purged*: of what shares a volume with a later part, and of what has a text in its prompt or answer that is
  decoded there.
- ``leaky-random``: one split as in the released code of BrainLLM. Trials are dealt out one by one whatever their group, windows
  of volumes by their text. Neighbours share volumes, prompts and answers; `bids_brainlm.core.leakage` counts what comes through.

Test sets, the validation of each fold and a smaller amount of training are drawn from random streams of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.types import Bools, Examples, Ints, Prompt, Split

PARTS = ("train", "validation", "test")

SCHEMES = ("single", "kfold", "column", "list", "blocks", "leaky-random")

FOLDS = 5
"""Of ``kfold`` where no number is given."""

_AMOUNT, _VALIDATION, _SHUFFLED = 1, 2, 3
"""Streams of a seed and fold. A seed of one number is the same stream as with zeros behind it, so that none of these is 0."""

SHUFFLED = (
    "Training saw shuffled pairs on purpose (split.shuffle_pairs): every text with the response to another one, so that figures "
    "here are what chance and texts alone can reach."
)
"""What every output of a model says that was trained on shuffled pairs."""


def make_splits(
    examples: Examples,
    scheme: str = "single",
    folds: int = -1,
    test: float = 0.2,
    validation: float = 0.1,
    labels: Any = None,
    seed: int = 0,
    *,
    amount: float = 1.0,
) -> tuple[Split, ...]:
    """Deal the groups of some examples out to training, validation and test.

    Parameters
    ----------
    examples : Examples
        For ``blocks``, grouped by `blocks_of`.
    scheme : {"single", "kfold", "column", "list", "blocks", "leaky-random"}
    folds : int
        Number of folds of ``kfold`` and ``blocks``; 0 for as many as there are groups; negative for 5 of ``kfold`` and one split
        of ``blocks``.
    test : float
        Share of the groups in the test set of a split that is not one of several folds, at least one group unless 0.
    validation : float
        Share of the remaining groups kept apart, at least one unless 0; none where only two groups or fewer remain. Not used
        where the parts are given.
    labels : (n,) of str, optional
        For ``column`` and ``list``: ``train``, ``validation`` or ``test`` for every example.
    seed : int
    amount : float
        Share of the training groups that is kept, at least one; a larger share holds every group of a smaller one.

    Returns
    -------
    tuple of Split
        One, or one a fold.

    Raises
    ------
    ValueError
        When there are too few groups, labels are missing or unknown, or a purge leaves nothing to train on.
    LeakageError
        When parts would share a group, a recording row, or a text that is decoded in one and prompted with in another.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"no split scheme {scheme!r}; known: {', '.join(SCHEMES)}")
    if scheme in ("column", "list"):
        return (_lessened(_labelled(examples, labels), examples.group, amount, seed),)
    units = _sampled_alone(examples) if scheme == "leaky-random" else examples.group
    groups, member = np.unique(units, return_inverse=True)
    rng = np.random.default_rng(seed)
    if scheme == "kfold" or (scheme == "blocks" and folds >= 0):
        tests = _folds(np.bincount(member, minlength=groups.size), FOLDS if folds < 0 else folds, rng)
    else:
        tests = [_drawn(np.arange(groups.size), test, rng)]
    splits = []
    for fold, held_out in enumerate(tests):
        parts = _parts(member, held_out, validation, (seed, fold, _VALIDATION))
        if scheme == "blocks":
            parts = _purged(examples, *parts)
        purged = int(scheme == "blocks") * (len(examples) - sum(map(len, parts)))
        split = Split(examples, *parts, fold=fold, leaky=scheme == "leaky-random", purged=purged)
        splits.append(_lessened(split, units, amount, seed))
    return tuple(splits)


def blocks_of(story: Any, window: Any, seconds: float, block: float) -> NDArray[np.str_]:
    """Stretches of a story that windows belong to.

    Parameters
    ----------
    story : (n,) of str
    window : (n,) of int
        Number of each window in its story, from 0.
    seconds, block : float
        Length of a window and of a block, s. A last block of less than half of that belongs to the one before.

    Returns
    -------
    (n,) str
        ``<story>/block-<number>``, the same for everybody who heard the story.

    Examples
    --------
    >>> blocks_of(["hare"] * 4, [0, 29, 30, 36], 2.0, 60.0).tolist()
    ['hare/block-1', 'hare/block-1', 'hare/block-1', 'hare/block-1']
    >>> blocks_of(["hare"] * 4, [0, 29, 30, 46], 2.0, 60.0).tolist()
    ['hare/block-1', 'hare/block-1', 'hare/block-2', 'hare/block-2']
    """
    names, member = np.unique(np.asarray(story, dtype=np.str_), return_inverse=True)
    numbers = np.asarray(window, dtype=np.int64)
    # Sums of window lengths may fall short of the border by a rounding error.
    place = np.floor(numbers * seconds / block + 1e-9).astype(np.int64)
    ends = np.zeros(names.size, dtype=np.int64)
    np.maximum.at(ends, member, numbers + 1)
    last = np.maximum(np.floor(ends * seconds / block + 0.5).astype(np.int64), 1) - 1
    return np.array([f"{names[i]}/block-{min(k, last[i]) + 1}" for i, k in zip(member, place, strict=True)], dtype=np.str_)


def without(split: Split, barred: Bools) -> Split:
    """The same split with some examples left out of training and validation; the test set stays.

    Parameters
    ----------
    split : Split
    barred : (n,) bool
        Of all examples.

    Raises
    ------
    ValueError
        When nothing is left to train on.
    """
    train, validation = (part[~barred[part]] for part in (split.train, split.validation))
    if not train.size:
        raise ValueError("every training example is to be left out; leave out less")
    gone = split.train.size + split.validation.size - train.size - validation.size
    return dataclasses.replace(split, train=train, validation=validation, left_out=split.left_out + gone)


def average(split: Split, parts: Iterable[str]) -> Split:
    """Replace the repeats of a stimulus within a part by one example, the mean of their rows.

    Repeats are examples of one part with the same stimulus and the same prompt; examples of different parts are never
    averaged, so nothing leaks. Examples that belong to no part are left out.

    Parameters
    ----------
    split : Split
    parts : iterable of str
        Those of train, validation and test in which repeats are averaged; the others stay as they are.

    Returns
    -------
    Split
        Of new examples. An average is called after its stimulus (``<stimulus>_mean``), keeps every reference of its repeats
        once, and belongs to all of their groups (joined by ``+`` if there are several).

    Raises
    ------
    ValueError
        For a part that does not exist.
    """
    parts = set(parts)
    if not parts <= set(PARTS):
        raise ValueError(f"no part(s) {', '.join(sorted(parts - set(PARTS)))} of a split; known: {', '.join(PARTS)}")
    n_placed = sum(getattr(split, part).size for part in PARTS)
    if not parts and n_placed == len(split.examples):
        return split
    merged: list[list[int]] = []
    places: dict[str, Ints] = {}
    for part in PARTS:
        index = getattr(split, part)
        repeats = _repeats(split.examples, index) if part in parts else [[int(i)] for i in index]
        places[part] = np.arange(len(merged), len(merged) + len(repeats))
        merged += repeats
    train, validation, test = (places[part] for part in PARTS)
    return dataclasses.replace(split, examples=_averaged(split.examples, merged), train=train, validation=validation, test=test)


def _labelled(examples: Examples, labels: Any) -> Split:
    if labels is None:
        raise ValueError("a split by column or list needs the part of every example")
    labels = np.asarray(labels, dtype=np.str_)
    if labels.shape != (len(examples),):
        raise ValueError(f"{labels.size} labels for {len(examples)} examples")
    unknown = ~np.isin(labels, PARTS)
    if unknown.any():
        first = int(np.argmax(unknown))
        raise ValueError(f"example {examples.id[first]!s} is in part {labels[first]!s}; expected {', '.join(PARTS)}")
    train, validation, test = (np.flatnonzero(labels == part) for part in PARTS)
    return Split(examples, train, validation, test)


def _drawn(groups: Ints, share: float, rng: np.random.Generator) -> Ints:
    """At least one of the groups, and never all."""
    if share == 0:
        return groups[:0]
    if groups.size < 2:
        raise ValueError(f"{groups.size} group(s) cannot be divided; give at least two, or another grouping")
    number = min(max(1, round(share * groups.size)), groups.size - 1)
    return np.sort(rng.permutation(groups)[:number])


def _folds(sizes: Ints, folds: int, rng: np.random.Generator) -> list[Ints]:
    """Groups of each fold: the largest first, in random order among equals, each into the fold with the fewest examples."""
    folds = folds or sizes.size
    if not 2 <= folds <= sizes.size:
        raise ValueError(f"{folds} fold(s) of {sizes.size} group(s); expected from 2 to the number of groups")
    order = rng.permutation(sizes.size)
    order = order[np.argsort(-sizes[order], kind="stable")]
    load = np.zeros((folds, 2), dtype=np.int64)
    dealt: list[list[int]] = [[] for _ in range(folds)]
    for group in order:
        # Equal numbers of examples are told apart by the number of groups, so that no fold stays empty.
        fold = int(np.lexsort((load[:, 1], load[:, 0]))[0])
        load[fold] += (sizes[group], 1)
        dealt[fold].append(int(group))
    return [np.sort(np.array(groups, dtype=np.int64)) for groups in dealt]


def _parts(member: Ints, test: Ints, validation: float, seed: tuple[int, int, int]) -> tuple[Ints, Ints, Ints]:
    """Indices of the examples in training, validation and test, given the group of each and the groups of the test set."""
    rest = np.setdiff1d(np.unique(member), test)
    kept = _drawn(rest, validation, np.random.default_rng(seed)) if rest.size > 2 else rest[:0]
    train, validating, testing = (np.flatnonzero(np.isin(member, groups)) for groups in (np.setdiff1d(rest, kept), kept, test))
    return train, validating, testing


def _sampled_alone(examples: Examples) -> NDArray[np.str_]:
    """(n,) what the released code of BrainLLM deals out: distinct texts of stories, but single samples of sentences."""
    if examples.recording.kind == "beta":
        return examples.id
    return np.array([texts[0] if texts else "" for texts in examples.references], dtype=np.str_)


def _purged(examples: Examples, train: Ints, validation: Ints, test: Ints) -> tuple[Ints, Ints, Ints]:
    """The same parts without examples of training and validation that would tell of a later part."""
    validation = validation[~tells(examples, validation, test)]
    train = train[~tells(examples, train, np.concatenate([validation, test]))]
    if not train.size:
        raise ValueError("every training example shares a volume or a text with a held-out one; take longer blocks")
    return train, validation, test


def tells(examples: Examples, some: Ints, held_out: Ints) -> Bools:
    """Which examples share a row with held-out ones, or have a text of theirs in prompt or answer.

    Parameters
    ----------
    examples : Examples
    some, held_out : (a,), (b,) int64
        Indices.

    Returns
    -------
    (a,) bool
    """
    rows = np.unique(examples.rows[held_out])
    targets = set(examples.stimulus[held_out].tolist())
    same_row = np.isin(examples.rows[some], rows[rows >= 0]).any(axis=(1, 2))
    same_text = [not targets.isdisjoint((str(examples.stimulus[i]), *examples.heard[i])) for i in some]
    return np.asarray(same_row | np.array(same_text, dtype=np.bool_), dtype=np.bool_)


def shuffled(split: Split, seed: int) -> Split:
    """The same texts with each other's responses, at random within training and within validation; test pairs stay.

    What is trained on it has seen the same texts and the same responses, and nothing that they have to do with each other.
    """
    rows, rng = split.examples.rows.copy(), np.random.default_rng((seed, split.fold, _SHUFFLED))
    for part in (split.train, split.validation):
        rows[part] = rows[rng.permutation(part)]
    return dataclasses.replace(split, examples=dataclasses.replace(split.examples, rows=rows))


def _lessened(split: Split, units: NDArray[np.str_], amount: float, seed: int) -> Split:
    """With a share of the training groups only."""
    groups = np.unique(units[split.train])
    number = max(1, round(amount * groups.size))
    if number >= groups.size:
        return split
    kept = np.random.default_rng((seed, split.fold, _AMOUNT)).permutation(groups)[:number]
    return dataclasses.replace(split, train=split.train[np.isin(units[split.train], kept)])


def _repeats(examples: Examples, index: Ints) -> list[list[int]]:
    found: dict[tuple[str, Prompt], list[int]] = {}
    for i in index:
        found.setdefault((str(examples.stimulus[i]), examples.prompts[i]), []).append(int(i))
    return list(found.values())


def _averaged(examples: Examples, merged: list[list[int]]) -> Examples:
    """One example for each list of indices."""
    if all(len(indices) == 1 for indices in merged):
        return examples.take([indices[0] for indices in merged])
    width = max((len(_packed(examples, indices)[0]) for indices in merged), default=1)
    rows = np.full((len(merged), examples.rows.shape[1], width), -1, dtype=np.int64)
    for i, indices in enumerate(merged):
        packed = _packed(examples, indices)
        rows[i, :, : packed.shape[1]] = packed
    first = [indices[0] for indices in merged]
    return Examples(
        examples.recording,
        rows,
        tuple(examples.prompts[i] for i in first),
        tuple(tuple(dict.fromkeys(text for i in indices for text in examples.references[i])) for indices in merged),
        np.array(["+".join(np.unique(examples.group[indices])) for indices in merged], dtype=np.str_),
        examples.stimulus[first],
        _names(examples, merged),
        tuple(examples.heard[i] for i in first),
    )


def _packed(examples: Examples, indices: list[int]) -> Ints:
    """(T, m) rows of several examples side by side, the padding moved to the end and dropped where all of it is."""
    rows = np.concatenate(list(examples.rows[indices]), axis=1)
    rows = np.take_along_axis(rows, np.argsort(rows < 0, axis=1, kind="stable"), axis=1)
    return rows[:, (rows >= 0).any(axis=0)]


def _names(examples: Examples, merged: list[list[int]]) -> Any:
    """Unique ids: its own for a single example, else stimulus and ``_mean``, numbered where several averages share one."""
    taken = {str(examples.id[indices[0]]) for indices in merged if len(indices) == 1}
    names = []
    for indices in merged:
        name = str(examples.id[indices[0]])
        if len(indices) > 1:
            name = base = f"{examples.stimulus[indices[0]]}_mean"
            number = 1
            while name in taken:
                number += 1
                name = f"{base}{number}"
            taken.add(name)
        names.append(name)
    return np.array(names, dtype=np.str_)
