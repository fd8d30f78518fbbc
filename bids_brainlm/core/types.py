"""The types that flow from a recording to a decoded sentence, each of which refuses values that would lie later.

Letters for the whole package: R rows of a recording, V vertices (left then right) or voxels, P parcels, n examples, T rows
of one example, M repeats averaged into one row, F features, K brain tokens, L text positions, D embedding width, B batch.

- A *recording* is a matrix (R, V): one row a trial (``kind="beta"``) or a volume (``kind="bold"``), with the run of each row.
- An *example* is what one text is decoded from: T rows, each a weighted mean of M rows of the recording (repeats).
- The *group* of an example is what must not be shared between training and test: its picture, sentence, story or run.
- A *split* assigns examples to training, validation and test; one that would leak cannot be constructed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.errors import LeakageError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

DENSITIES = {2562: "3k", 10242: "10k", 40962: "41k", 163842: "164k"}
"""Vertices of one fsaverage hemisphere -> BIDS ``den-`` value."""


def _frozen(array: Any, dtype: Any) -> NDArray[Any]:
    out = np.array(array, dtype=dtype)
    out.flags.writeable = False
    return out


@dataclass(frozen=True, eq=False)
class Parcellation:
    """Which parcel every vertex or voxel belongs to.

    Parameters
    ----------
    name : str
        ``atlas-`` label, e.g. ``Schaefer2018``.
    space : str
        Space the labels are in, e.g. ``fsaverage`` or ``T1w``; ``none`` for a matrix without anatomy.
    labels : (V,) int32
        0 for no parcel, else 1..P; left hemisphere first.
    names : tuple of str, length P
        Name of parcel 1, 2, ..., unique.
    n_left : int
        Vertices of the left hemisphere; V for a volume.
    segmentation, scale : str
        ``seg-`` and ``scale-`` labels of an atlas that comes in several (``7n``, ``100``), or empty.

    Raises
    ------
    ValueError
        For a label outside 0..P, a parcel without vertices, or names that repeat.
    """

    name: str
    space: str
    labels: NDArray[np.int32]
    names: tuple[str, ...]
    n_left: int
    segmentation: str = ""
    scale: str = ""

    def __post_init__(self) -> None:
        labels = _frozen(self.labels, np.int32)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "names", tuple(self.names))
        if labels.ndim != 1 or not 0 <= self.n_left <= labels.size:
            raise ValueError(f"labels of shape {labels.shape} with {self.n_left} in the left hemisphere; expected (V,)")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"parcel names repeat in {self.name}")
        if labels.size and (labels.min() < 0 or labels.max() > len(self.names)):
            raise ValueError(f"labels {labels.min()}..{labels.max()} of {self.name}, but 1..{len(self.names)} have names")
        counts = np.bincount(labels, minlength=len(self.names) + 1)[1:]
        if (counts == 0).any():
            raise ValueError(f"parcel {self.names[int(np.argmin(counts))]!r} of {self.name} has no vertex")

    @property
    def n_parcels(self) -> int:
        return len(self.names)

    @property
    def entities(self) -> dict[str, str]:
        """How file names say it."""
        return {"atlas": self.name, "seg": self.segmentation, "scale": self.scale}

    @property
    def title(self) -> str:
        """How people say it: ``Schaefer2018 (seg-7n, scale-100)``."""
        which = [f"{key}-{value}" for key, value in self.entities.items() if value and key != "atlas"]
        return f"{self.name} ({', '.join(which)})" if which else self.name


@dataclass(frozen=True, eq=False)
class Recording:
    """Responses of one participant: rows are trials or volumes, columns vertices or voxels.

    Parameters
    ----------
    data : (R, V) float32
        An array or memory map; only ``.shape`` and rows are ever asked for, so a map larger than memory serves.
    unit : str
        Unit of the values, e.g. ``percent signal change``.
    kind : {"beta", "bold"}
        What a row is.
    onset : (R,) float64
        Seconds from the start of the run; increasing within a run.
    run : (R,) int
        Which run a row belongs to, 0, 1, ...
    sources : tuple of str
        BIDS URIs of the files it was made from.

    Raises
    ------
    ValueError
        When the data are not 2-D, lengths differ, or onsets do not increase within a run.
    """

    data: Any
    unit: str
    kind: str
    onset: NDArray[np.float64]
    run: Ints
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = tuple(self.data.shape)
        object.__setattr__(self, "onset", _frozen(self.onset, np.float64))
        object.__setattr__(self, "run", _frozen(self.run, np.int64))
        if len(shape) != 2:
            raise ValueError(f"a recording is rows x vertices, got an array of shape {shape}")
        if self.kind not in ("beta", "bold"):
            raise ValueError(f"kind {self.kind!r}; expected 'beta' or 'bold'")
        if not self.onset.shape == self.run.shape == shape[:1]:
            raise ValueError(f"{shape[0]} rows, but {self.onset.size} onsets and {self.run.size} run numbers")
        for run in np.unique(self.run):
            if (np.diff(self.onset[self.run == run]) <= 0).any():
                raise ValueError(f"onsets do not increase in run {run}")


@dataclass(frozen=True)
class Prompt:
    """What the language model is asked, and the text it should answer with.

    ``context`` stands beside the brain tokens (a question, an instruction, or the text so far); ``answer`` is trained on.
    How they are laid out is the business of a prompt *style* (`bids_brainlm.language.render`). ``category`` is the kind of text:
    ``caption``, or of what kind its question is; empty for running text. ``phrasings`` are all ways to ask for the same answer,
    ``context`` among them, one of which is drawn in training; empty where there is but one.
    """

    context: str
    answer: str
    category: str = ""
    phrasings: tuple[str, ...] = ()

    @property
    def wordings(self) -> tuple[str, ...]:
        """Every way to ask."""
        return self.phrasings or (self.context,)


@dataclass(frozen=True, eq=False)
class Examples:
    """What texts are decoded from.

    Parameters
    ----------
    recording : Recording
    rows : (n, T, M) int64
        Rows of the recording; -1 where fewer than M repeats are averaged. (n, T) and (n,) are accepted for M = 1, T = 1.
    prompts : tuple of Prompt, length n
    references : tuple of tuples of str, length n
        Every text that counts as right.
    group : (n,) str
        Picture, sentence, story or run: never shared between the parts of a split.
    stimulus : (n,) str
        What was shown or heard; examples of one stimulus are repeats.
    id : (n,) str
        Unique.
    heard : tuple of tuples of str, length n, optional
        Stimuli whose texts stand in the prompt of each example: windows or chunks before its own. None by default.

    Raises
    ------
    ValueError
        Rows out of range or T rows that cross a run, repeated ids, or lengths that differ.
    """

    recording: Recording
    rows: Ints
    prompts: tuple[Prompt, ...]
    references: tuple[tuple[str, ...], ...]
    group: NDArray[np.str_]
    stimulus: NDArray[np.str_]
    id: NDArray[np.str_]
    heard: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        rows = np.array(self.rows, dtype=np.int64)
        rows = rows.reshape(rows.shape + (1,) * (3 - rows.ndim))
        object.__setattr__(self, "rows", _frozen(rows, np.int64))
        for name in ("group", "stimulus", "id"):
            object.__setattr__(self, name, _frozen(getattr(self, name), np.str_))
        n = len(rows)
        object.__setattr__(self, "heard", tuple(self.heard) or ((),) * n)
        lengths = {len(self.prompts), len(self.references), len(self.heard), self.group.size, self.stimulus.size, self.id.size}
        if lengths != {n}:
            raise ValueError(f"{n} rows, but fields of length {sorted(lengths)}")
        if np.unique(self.id).size != n:
            raise ValueError("example ids repeat")
        if n and (rows.min() < -1 or rows.max() >= self.recording.data.shape[0] or (rows[:, :, 0] < 0).any()):
            raise ValueError(f"rows {rows.min()}..{rows.max()}, but the recording has {self.recording.data.shape[0]}")
        runs = self.recording.run[rows]
        if n and (runs != runs[:, :1]).any(axis=1)[rows.min(axis=1) >= 0].any():
            raise ValueError("an example crosses the border of two runs")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def run(self) -> Ints:
        """(n,) run of each example, -1 where its repeats come from several runs."""
        runs = np.where(self.rows >= 0, self.recording.run[self.rows], self.recording.run[self.rows[:, :1, :1]])
        same = (runs == runs[:, :1, :1]).all(axis=(1, 2))
        return np.where(same, runs[:, 0, 0], -1)

    def gather(self, index: Any, vertices: slice | None = None) -> Floats:
        """(b, T, V) float32 responses of the examples ``index``: the mean over the M repeats of each row.

        Only those rows are read, and only those vertices of them where some are named.
        """
        rows = self.rows[np.asarray(index, dtype=np.int64)]
        unique, inverse = np.unique(np.where(rows >= 0, rows, rows[:, :, :1]), return_inverse=True)
        data = np.asarray(self.recording.data[unique if vertices is None else (unique, vertices)], dtype=np.float32)
        if rows.shape[2] == 1:
            return data[inverse.reshape(rows.shape[:2])]
        weights = (rows >= 0) / (rows >= 0).sum(axis=2, keepdims=True)
        return np.asarray(np.einsum("btmv,btm->btv", data[inverse.reshape(rows.shape)], weights.astype(np.float32)))

    def take(self, index: Any) -> Examples:
        """The examples ``index``, in that order."""
        index = np.asarray(index, dtype=np.int64)
        return Examples(
            self.recording,
            self.rows[index],
            tuple(self.prompts[i] for i in index),
            tuple(self.references[i] for i in index),
            self.group[index],
            self.stimulus[index],
            self.id[index],
            tuple(self.heard[i] for i in index),
        )


@dataclass(frozen=True, eq=False)
class Split:
    """Training, validation and test examples that share no example, group or recording row, and no held-out text.

    Parameters
    ----------
    examples : Examples
    train, validation, test : (.,) int64
        Indices into the examples.
    fold : int
        Number of the fold this split is, from 0.
    leaky : bool
        Parts are known to share something, and only an example in two of them is refused; `bids_brainlm.core.leakage` counts.
    purged : int
        Examples that were left out of training or validation because they would have told of a later part.
    left_out : int
        Examples that were left out of training or validation because of what they are (`bids_brainlm.core.splits.without`).

    Raises
    ------
    LeakageError
        When any two parts share an example, a group or a row of the recording, or what is decoded in one stands in a prompt of
        an earlier one (in the order training, validation, test).

    Attributes
    ----------
    shared_texts : int
        Test examples of which a reference text is also one of training. Not refused (a category has one name) but reported.
    """

    examples: Examples
    train: Ints
    validation: Ints
    test: Ints
    fold: int = 0
    leaky: bool = False
    purged: int = 0
    left_out: int = 0

    def __post_init__(self) -> None:
        parts = {name: _frozen(getattr(self, name), np.int64) for name in ("train", "validation", "test")}
        for name, part in parts.items():
            object.__setattr__(self, name, part)
        names = list(parts)
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                self._refuse_overlap(first, second, parts)

    def _refuse_overlap(self, first: str, second: str, parts: dict[str, Ints]) -> None:
        a, b = parts[first], parts[second]
        kinds: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {"example(s)": (self.examples.id[a], self.examples.id[b])}
        if not self.leaky:
            heard = np.array([name for i in a for name in self.examples.heard[i]], dtype=np.str_)
            kinds |= {
                "group(s)": (self.examples.group[a], self.examples.group[b]),
                "recording row(s)": (self.examples.rows[a], self.examples.rows[b]),
                f"text(s), prompted with in {first} and decoded in {second}": (heard, self.examples.stimulus[b]),
            }
        for kind, (left, right) in kinds.items():
            shared = np.intersect1d(left, right)
            if kind == "recording row(s)":
                shared = shared[shared >= 0]
            if shared.size:
                some = ", ".join(map(str, shared[:3]))
                raise LeakageError(f"{first} and {second} of fold {self.fold} share {shared.size} {kind}, e.g. {some}")

    @property
    def shared_texts(self) -> int:
        seen = {text for i in self.train for text in self.examples.references[i]}
        return sum(any(text in seen for text in self.examples.references[i]) for i in self.test)


@dataclass(frozen=True, eq=False)
class Affine:
    """Fixed map from vertices to features: z-score, then components if there are any.

    Parameters
    ----------
    mean, scale : (V,) float32
        ``scale`` is 0 for a vertex that is masked (constant or not finite in training): it becomes feature 0.
    components : (V, F) float32 or None
    fitted_rows : (.,) int64
        Rows of the recording it was fitted on; a row outside training is refused where it is used (`refuse_leak`).
    """

    mean: Floats
    scale: Floats
    components: Floats | None
    fitted_rows: Ints

    def __post_init__(self) -> None:
        if self.mean.shape != self.scale.shape or self.mean.ndim != 1:
            raise ValueError(f"mean {self.mean.shape} and scale {self.scale.shape}; expected (V,) both")
        if self.components is not None and self.components.shape[0] != self.mean.size:
            raise ValueError(f"components {self.components.shape} for {self.mean.size} vertices")

    @property
    def n_features(self) -> int:
        return self.mean.size if self.components is None else self.components.shape[1]

    def __call__(self, data: Floats) -> Floats:
        """(..., V) -> (..., F)."""
        gain = np.divide(1.0, self.scale, out=np.zeros_like(self.scale), where=self.scale > 0)
        scaled = np.nan_to_num(data - self.mean, nan=0.0, posinf=0.0, neginf=0.0) * gain
        return np.asarray(scaled if self.components is None else scaled @ self.components, dtype=np.float32)

    def refuse_leak(self, split: Split) -> None:
        """Raise LeakageError when a fitted row is not one of the training examples of the split."""
        outside = np.setdiff1d(self.fitted_rows, split.examples.rows[split.train])
        if outside.size:
            raise LeakageError(f"features of fold {split.fold} were fitted on {outside.size} row(s) outside training")


CAPTION, QUESTION = "caption", "question"
"""Category of a text that answers an instruction, and of one whose question has no category of its own."""

DECODED_COLUMNS = {
    "trial_id": "Example that was decoded.",
    "stimulus_id": "Stimulus shown or heard.",
    "fold": "Fold in which the example was in the test set, from 0.",
    "group": "What training and test never share: stimulus, passage, story, run ...; intervals and tests resample it.",
    "condition": "Which brain the text was decoded from: true, permuted (another test trial's), or none.",
    "prompt": "Context given to the language model beside the brain tokens.",
    "text_true": "Reference texts, separated by ' | '.",
    "text_pred": "Generated text; n/a where it is empty.",
    "nll": "Negative log-likelihood of the prompt's own answer (the first reference) in this condition, in nats.",
    "n_tokens": "Number of tokens of that answer.",
}
"""Columns of the decoded-text table, in order; the single schema that code, sidecars and docs follow."""

CONDITIONS = ("true", "permuted", "none")
