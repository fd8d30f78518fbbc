"""Sites: which vertices are driven, and how strongly.

A *site* is a pattern (V,) with a name, in standard deviations; most are 1 in some vertices and 0 elsewhere. It is made from

- a *localizer contrast*: Welch's t of responses to one value of a factor against those to its other values, in trials that
  training has not seen; vertices above a threshold, or the k largest;
- a map in a file, cut in the same way, or taken as it is;
- parcels, by name; or a list of vertices.

A localizer must be independent of what it is used on. Trials that the decoder was trained with are refused, and the trials that
are driven are others than those of the localizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.interventions import brains_of
from bids_brainlm.core.parcels import only, to_density
from bids_brainlm.core.types import Bools, Examples, Floats, Ints, Parcellation
from bids_brainlm.errors import ConfigError, InputError, LeakageError
from bids_brainlm.evaluation.metrics import Facts
from bids_brainlm.insilico.participant import Participant
from bids_brainlm.io.files import read_tsv
from bids_brainlm.io.images import gifti_rows, load_nifti, reading
from bids_brainlm.io.surfaces import Geometry

THRESHOLD = 3.0
"""t above which a vertex belongs to a site."""

BLOCK = 64
"""Responses in memory at a time."""


@dataclass(frozen=True, eq=False)
class Site:
    """A pattern with a name.

    Parameters
    ----------
    name : str
    pattern : (V,) float32
        What is added to a response at dose 1, in standard deviations of each vertex.
    about : str
        How it was made.
    statistic : (V,) float32 or None
        Map that it was cut from.
    """

    name: str
    pattern: Floats
    about: str = ""
    statistic: Floats | None = None

    @property
    def vertices(self) -> Ints:
        """Where the pattern is not 0."""
        return np.flatnonzero(self.pattern)


@dataclass(frozen=True)
class Cut:
    """How a site is cut from a map.

    Parameters
    ----------
    top : int
        The so many largest values; 0 takes all above the threshold.
    threshold : float
    within : tuple of str
        Names of parcels (wildcards ``*`` and ``?``) outside of which there is no site; everywhere when empty.
    """

    top: int = 0
    threshold: float = THRESHOLD
    within: tuple[str, ...] = ()


def halves(participant: Participant, fold: int = 0, seed: int = 0) -> tuple[Ints, Ints]:
    """Held-out examples of a fold, half of their groups for localizers and half to be driven.

    Returns
    -------
    localizer, driven : (.,) int64
        Indices of the examples of the fold (`Split.examples`).
    """
    split = participant.folds[fold]
    test, group = split.test, split.examples.group[split.test]
    groups = np.unique(group)
    chosen = np.random.default_rng((seed, 5)).permutation(groups)[: groups.size // 2]
    first = np.isin(group, chosen)
    return test[first], test[~first]


def in_runs(participant: Participant, runs: Sequence[str], fold: int = 0) -> Ints:
    """Indices of the examples of some runs, none of which the decoder of the fold has seen.

    Parameters
    ----------
    runs : sequence of str
        Labels such as ``01``, or whole names.

    Raises
    ------
    InputError
        When there is no such run.
    LeakageError
        When one has a trial that was trained or validated on.
    """
    examples = participant.folds[fold].examples
    names = participant.trials.table["run"].astype(str).to_numpy(str)[examples.rows[:, 0, 0]]
    wanted = [np.flatnonzero((names == run) | np.char.endswith(names, f"_run-{run.removeprefix('run-')}")) for run in runs]
    for run, found in zip(runs, wanted, strict=True):
        if not found.size:
            known = ", ".join(dict.fromkeys(map(str, names)))
            raise InputError(f"no trial of run {run!r}", participant.trials.path, expected=f"one of {known}")
    index = np.unique(np.concatenate(wanted))
    refuse_seen(participant, index, fold)
    return np.asarray(index)


def independent(participant: Participant, runs: Sequence[str], fold: int = 0, seed: int = 0) -> tuple[Ints, Ints]:
    """Examples for localizers, and held-out ones to be driven: those of some runs and all others, or `halves` without runs.

    Raises
    ------
    InputError
        When the runs leave nothing to be driven.
    LeakageError
        When a run has a trial that was trained with.
    """
    if not runs:
        return halves(participant, fold, seed)
    localizer = in_runs(participant, runs, fold)
    held = np.setdiff1d(participant.folds[fold].test, localizer)
    if not held.size:
        remedy = "fewer --localizer-runs"
        raise InputError(
            "all held-out trials are of the localizer", participant.trials.path, expected="some to drive", remedy=remedy
        )
    return localizer, held


def refuse_seen(participant: Participant, index: Ints, fold: int) -> None:
    """Raise LeakageError when one of these examples has a response or a group that the decoder of the fold was trained with."""
    split = participant.folds[fold]
    examples, seen = split.examples, np.concatenate([split.train, split.validation])
    rows = np.intersect1d(examples.rows[index], examples.rows[seen])
    shared = np.isin(examples.rows[index], rows[rows >= 0]).any(axis=(1, 2)) | np.isin(
        examples.group[index], examples.group[seen]
    )
    if shared.any():
        some = ", ".join(map(str, examples.id[index[shared]][:3]))
        raise LeakageError(
            f"the localizer uses {int(shared.sum())} of {index.size} trials that fold {fold} was trained with, e.g. {some}: "
            f"{participant.models[fold]} (expected: held-out trials; remedy: choose runs that are held out, or none)"
        )


def contrasts(
    participant: Participant, facts: Facts, factor: str, index: Ints, cut: Cut, fold: int = 0, value: str = ""
) -> tuple[Site, ...]:
    """One site for every value of a factor, or for one: its responses against those to the other values.

    Parameters
    ----------
    index : (m,) int64
        Examples of the localizer, as `halves` or `in_runs` give them.

    Raises
    ------
    ConfigError
        For a factor or value that the facts do not have.
    LeakageError
        When one of the examples was trained with.
    InputError
        When a value has fewer than two trials, or nothing passes.
    """
    if factor not in facts.factors:
        raise ConfigError(f"no factor {factor!r}; the facts have {', '.join(facts.factors)}")
    if value and value not in facts.vocabulary[factor]:
        raise ConfigError(f"no value {value!r} of {factor}; there are {', '.join(facts.vocabulary[factor])}")
    refuse_seen(participant, index, fold)
    examples = participant.folds[fold].examples
    # Several questions about one trial are one response.
    index = index[brains_of(examples.take(index))[0]]
    labels = facts.labels(examples.stimulus[index])[:, facts.factors.index(factor)]
    maps = contrast_maps(examples, index, labels, participant.scale(fold))
    wanted = (value,) if value else tuple(facts.vocabulary[factor])
    few = [label for label in wanted if label not in maps]
    if few:
        what = f"fewer than two localizer trials show {', '.join(few)}"
        raise InputError(what, participant.trials.path, expected="two or more of each value and of the others")
    about = f"against other values of {factor}, {index.size} trials"
    return tuple(cut_from(label, maps[label], cut, participant, f"t of {label} {about}", fold) for label in wanted)


def contrast_maps(examples: Examples, index: Ints, labels: NDArray[np.str_], scale: Floats) -> dict[str, Floats]:
    """Welch's t of the trials of each label against all others with one.

    Parameters
    ----------
    examples : Examples
    index : (m,) int64
        Examples whose responses are compared; rows of an example are averaged.
    labels : (m,) str
        "" is left out.
    scale : (V,) float32
        0 where a vertex is not used; it gets t = 0.

    Returns
    -------
    dict of str to (V,) float32
        Without labels of which there are not two trials, or of whose rivals there are not two.
    """
    names = [str(name) for name in np.unique(labels) if name]
    sums, squares = (np.zeros((len(names), scale.size)) for _ in range(2))
    counts = np.array([(labels == name).sum() for name in names], dtype=np.float64)
    gain = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    for start in range(0, index.size, BLOCK):
        part = slice(start, start + BLOCK)
        block = np.nan_to_num(examples.gather(index[part]).mean(axis=1) * gain, nan=0.0, posinf=0.0, neginf=0.0)
        member = (np.array(names)[:, None] == labels[part]).astype(np.float64)
        sums += member @ block
        squares += member @ block.astype(np.float64) ** 2
    found = zip(names, sums, squares, counts, strict=True)
    total, total_squares, n = sums.sum(axis=0), squares.sum(axis=0), counts.sum()
    return {
        name: _welch((own, own_squares, k), (total - own, total_squares - own_squares, n - k))
        for name, own, own_squares, k in found
        if k >= 2 and n - k >= 2
    }


def _welch(one: tuple[Any, Any, float], other: tuple[Any, Any, float]) -> Floats:
    """t from sums, sums of squares and counts; 0 where nothing varies."""
    mean, error = [], []
    for total, squares, n in (one, other):
        mean.append(total / n)
        error.append(np.maximum(squares / n - (total / n) ** 2, 0.0) / (n - 1))
    spread = np.sqrt(error[0] + error[1])
    return np.asarray(np.divide(mean[0] - mean[1], spread, out=np.zeros_like(spread), where=spread > 1e-9), dtype=np.float32)


def cut_from(name: str, values: Floats, cut: Cut, participant: Participant, about: str, fold: int = 0) -> Site:
    """1 in the vertices of a map that pass, 0 elsewhere.

    Raises
    ------
    InputError
        When none does.
    """
    allowed = np.isfinite(values) & (participant.scale(fold) > 0) & _within(participant.atlas, cut.within)
    passed = allowed & (values > cut.threshold)
    if cut.top:
        order = np.flatnonzero(allowed)[np.argsort(-values[allowed], kind="stable")[: cut.top]]
        passed = np.isin(np.arange(values.size), order)
    if not passed.any():
        largest = float(values[allowed].max()) if allowed.any() else float("nan")
        what = f"no vertex of {name!r} passes: the largest value is {largest:.2f}"
        raise InputError(
            what, participant.trials.path, expected=f"above {cut.threshold:g}", remedy="--top, or a lower --threshold"
        )
    how = f"the {cut.top} largest" if cut.top else f"above {cut.threshold:g}"
    inside = f" within {', '.join(cut.within)}" if cut.within else ""
    return Site(name, passed.astype(np.float32), f"{about}; {how}{inside}", values)


def _within(atlas: Parcellation, patterns: Sequence[str]) -> Bools:
    return np.asarray(_parcels(atlas, patterns).labels > 0 if patterns else np.ones(atlas.labels.size, dtype=np.bool_))


def _parcels(atlas: Parcellation, patterns: Sequence[str]) -> Parcellation:
    try:
        return only(atlas, patterns)
    except ValueError as error:
        some = ", ".join(atlas.names[:5])
        raise ConfigError(f"{error}; there are {some} and {max(len(atlas.names) - 5, 0)} more") from error


def parcels(name: str, patterns: Sequence[str], participant: Participant) -> Site:
    """A site of whole parcels, or of a network whose parcels have its name in theirs: ``*Vis*``."""
    found = _parcels(participant.atlas, patterns)
    return Site(name, (found.labels > 0).astype(np.float32), f"{len(found.names)} parcel(s) of {found.title}")


def from_vertices(name: str, path: Path, participant: Participant) -> Site:
    """A site of the vertices that a text file lists: one number a line, from 0, left hemisphere first.

    Raises
    ------
    InputError
        For anything else, or a number that no vertex has.
    """
    n = participant.trials.geometry.n_vertices
    with reading(path, "one vertex number a line"):
        numbers = np.array([int(line) for line in path.read_text("utf-8").split()], dtype=np.int64)
    if not numbers.size or numbers.min() < 0 or numbers.max() >= n:
        raise InputError(f"{numbers.size} vertices, not all of the responses'", path, expected=f"numbers from 0 to {n - 1}")
    pattern = np.zeros(n, dtype=np.float32)
    pattern[numbers] = 1
    return Site(name, pattern, f"vertices of {path.name}")


def from_maps(path: Path, participant: Participant) -> dict[str, Floats]:
    """Maps (V,) in a file: a GIFTI pair (either of the two), a NIfTI image on the grid of the responses, or a TSV.

    Raises
    ------
    InputError
        When it does not fit the responses.
    """
    geometry = participant.trials.geometry
    if path.name.endswith(".gii"):
        return _of_surfaces(path, geometry)
    if path.name.endswith(".tsv"):
        table = read_tsv(path)
        with reading(path, "numbers"):
            maps = {str(name): table[name].to_numpy(np.float32) for name in table}
        found = {values.size for values in maps.values()}
        if found != {geometry.n_vertices}:
            raise InputError(f"{found} rows", path, expected=f"{geometry.n_vertices}, one a vertex")
        return maps
    return _of_volume(path, geometry)


def _of_surfaces(path: Path, geometry: Geometry) -> dict[str, Floats]:
    other = path.with_name(path.name.replace("hemi-L", "hemi-?").replace("hemi-R", "hemi-L").replace("hemi-?", "hemi-R"))
    if other == path:
        raise InputError("which hemisphere it is of", path, expected="hemi-L or hemi-R in the name, and the other one beside it")
    (left, names), (right, _) = (gifti_rows(side) for side in sorted((path, other)))
    data = np.concatenate([left, right], axis=1)
    try:
        data = to_density(data, left.shape[1], geometry.n_left)
    except ValueError as error:
        raise InputError(f"maps of another surface ({error})", path, expected=f"{geometry.n_left} vertices a side") from error
    if data.shape[1] != geometry.n_vertices:
        raise InputError(f"{data.shape[1]} vertices", path, expected=f"{geometry.n_vertices}, as the responses have")
    return {name or f"map{i + 1}": row for i, (name, row) in enumerate(zip(names, data, strict=True))}


def _of_volume(path: Path, geometry: Geometry) -> dict[str, Floats]:
    image = load_nifti(path)
    volume = geometry.volume
    if volume is None or tuple(image.shape[:3]) != volume.shape or not np.allclose(image.affine, volume.affine, atol=1e-3):
        expected = "a GIFTI pair" if volume is None else f"{volume.shape} voxels, the grid of the responses"
        raise InputError(f"an image of shape {image.shape}", path, expected=expected, remedy="resample it to the BOLD")
    with reading(path, "a NIfTI file"):
        voxels = image.get_fdata(dtype=np.float32).reshape(int(np.prod(volume.shape)), -1)
    return {f"map{i + 1}": np.ascontiguousarray(row[volume.index]) for i, row in enumerate(voxels.T)}


def patterns_of(sites: Sequence[Site]) -> Floats:
    """(S, V) float32."""
    return np.stack([site.pattern for site in sites])
