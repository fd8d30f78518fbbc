"""The best that could be decoded: an observer that knows where in cortex every word lives.

The observer projects a response on the true map of each word (a *matched filter*), expresses the projections in units of their
mean and spread over the training trials, and names the word of each factor that stands out most. It learns nothing from
labels; what it misses, noise has taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.types import Bools, Floats
from bids_brainlm.errors import MissingInputError
from bids_brainlm.io.files import read_json, read_tsv
from bids_brainlm.simulation.world import FACTORS

Words = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class Truth:
    """What `bids_brainlm.simulation.dataset.simulate` knows about a participant.

    Parameters
    ----------
    maps : dict of (factor, word) to (V,) float32
    betas : (n, D) float32
        True response of each trial, in percent, in the order of the runs.
    vertices : (D,) int64
        The driven vertices that the columns of ``betas`` are; elsewhere responses are 0.
    run : (n,) int64
        From 0.
    stimulus : (n,) str
    facts : dict of factor to dict of stimulus to word
    split : dict of stimulus to train, validation or test
    """

    maps: dict[tuple[str, str], Floats]
    betas: Floats
    vertices: NDArray[np.int64]
    run: NDArray[np.int64]
    stimulus: Words
    facts: dict[str, dict[str, str]]
    split: dict[str, str]


def load_truth(bids_dir: Path, participant: str) -> Truth:
    """Read the truth of a simulated participant (label without ``sub-``).

    Raises
    ------
    MissingInputError
        When the dataset was not simulated or has no such participant.
    """
    from safetensors import safe_open

    root = Path(bids_dir) / "derivatives" / "simulation"
    folder = root / f"sub-{participant}" / "func"
    path = folder / f"sub-{participant}_task-pictures_desc-truth_betas.safetensors"
    if not path.is_file():
        raise MissingInputError("no truth of a simulation", path, remedy="make the dataset with brainlm simulate")
    with safe_open(str(path), framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in ("betas", "vertices", "run")}
        stimulus = np.array(json.loads(file.metadata()["stimulus"]))
    table = read_tsv(root / "stimuli.tsv")
    facts = {factor: dict(zip(table["stimulus_id"], _words_named(factor, table[factor]), strict=True)) for factor in FACTORS}
    split = dict(zip(table["stimulus_id"], table["split"], strict=True))
    return Truth(_read_maps(folder), **arrays, stimulus=stimulus, facts=facts, split=split)


def _words_named(factor: str, cells: Iterable[str]) -> list[str]:
    """The table tells a word by its forms, as they stand in texts; maps are called by the word."""
    words = {"|".join(forms): word for word, forms in FACTORS[factor].items()}
    return [words[cell] for cell in cells]


def _read_maps(folder: Path) -> dict[tuple[str, str], Floats]:
    names = read_json(next(iter(folder.glob("*_desc-truth_maps.json"))))["Maps"]
    volumes = sorted(folder.glob("*_desc-truth_maps.nii.gz"))
    if volumes:
        mask = np.asarray(_image(next(iter(folder.glob("*_desc-brain_mask.nii.gz")))).dataobj) > 0
        rows = np.asarray(_image(volumes[0]).dataobj)[mask].T
    else:
        pair = [_image(path) for path in sorted(folder.glob("*_desc-truth_maps.func.gii"))]
        rows = np.hstack([np.stack([array.data for array in image.darrays]) for image in pair])
    factor_word = (tuple(name.split("/")) for name in names)
    return {(factor, word): row.astype(np.float32) for (factor, word), row in zip(factor_word, rows, strict=True)}


def _image(path: Path) -> Any:
    import nibabel

    return nibabel.load(path)


def observe(betas: Floats, maps: Mapping[tuple[str, str], Floats], train: Bools) -> dict[str, Words]:
    """Name the facts of every trial.

    Parameters
    ----------
    betas : (n, V) float32
        Estimated responses; vertices that are not finite count as 0.
    maps : mapping of (factor, word) to (V,) float32
        True patch maps.
    train : (n,) bool
        Trials whose mean and spread the projections are measured against.

    Returns
    -------
    dict of factor to (n,) str
    """
    driven = np.flatnonzero(np.any([weights > 0 for weights in maps.values()], axis=0))
    data = np.nan_to_num(np.asarray(betas[:, driven], dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    out = {}
    for factor in dict.fromkeys(factor for factor, _ in maps):
        words = [word for name, word in maps if name == factor]
        filters = np.stack([maps[factor, word][driven] for word in words], axis=1).astype(np.float64)
        scores = data @ (filters / np.linalg.norm(filters, axis=0))
        spread = scores[train].std(axis=0)
        scores = (scores - scores[train].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        out[factor] = np.array(words)[scores.argmax(axis=1)]
    return out


def facts_right(named: Mapping[str, Words], facts: Mapping[str, Mapping[str, str]], stimulus: Words) -> dict[str, Bools]:
    """Which trials (n,) each factor was named rightly in."""
    return {factor: named[factor] == np.array([facts[factor][item] for item in stimulus]) for factor in named}


def average_repeats(betas: Floats, stimulus: Words) -> tuple[Floats, Words]:
    """Mean response to each stimulus, (k, V), and the k stimuli in sorted order."""
    names, code = np.unique(stimulus, return_inverse=True)
    total = np.zeros((len(names), betas.shape[1]), dtype=np.float64)
    np.add.at(total, code, betas)
    return (total / np.bincount(code)[:, None]).astype(np.float32), names
