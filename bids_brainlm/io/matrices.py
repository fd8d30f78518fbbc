"""Betas that are there already: written by an earlier run of ours, or a plain matrix with a table of its rows.

A *matrix* is a NumPy file (n, V) with one row a trial, ``sub-XX..._betas.npy``, beside ``sub-XX..._trials.tsv``, which has a
row for each of its rows. It is opened as a memory map, so it may be larger than memory; pickled objects are never loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.io.betas import read_trials
from bids_brainlm.io.images import reading
from bids_brainlm.io.names import natural, parse, run_entities

_NUMBERS = "a .npy file of numbers"


@dataclass(frozen=True)
class BetaFiles:
    """Where the responses of one run (or of one matrix) are.

    Parameters
    ----------
    kind : {"surface", "volume", "matrix"}
    entities : dict of str to str
        What identifies the run.
    path : Path
        Left GIFTI file, NIfTI file or .npy file.
    trials : Path
        Table with one row a response.
    """

    kind: str
    entities: dict[str, str]
    path: Path
    trials: Path


def read_matrix(npy: Path, trials_tsv: Path) -> tuple[Any, pd.DataFrame]:
    """A matrix of responses and the table of its rows.

    Returns
    -------
    data : (n, V)
        Memory map, of the numbers that the file holds.
    trials : DataFrame
        In the order of the rows, which is the order of the matrix.

    Raises
    ------
    MissingInputError
        When one of them is not there.
    InputError
        When the file holds pickled objects or is damaged, is not 2-D, holds no real numbers, or the table has another
        number of rows.
    """
    with reading(npy, _NUMBERS):
        _refuse_pickled(npy)
        data = np.load(npy, mmap_mode="r", allow_pickle=False)
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.dtype.kind not in "fiu":
        found = f"{data.dtype} of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise InputError(f"the file holds {found}", npy, expected="numbers of shape (trials, vertices)")
    trials = read_trials(trials_tsv)
    if len(trials) != len(data):
        raise InputError(f"{len(trials)} row(s)", trials_tsv, expected=f"{len(data)}, one for each row of {npy.name}")
    return data, trials


def _refuse_pickled(npy: Path) -> None:
    """What NumPy would say of a pickle or of an array of objects does not say why it is refused."""
    with npy.open("rb") as file:
        pickled = file.read(1) == b"\x80"
        file.seek(0)
        if not pickled:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            pickled = bool(header(file)[2].hasobject)
    if pickled:
        remedy = "save the numbers: numpy.save(path, array.astype('float32'), allow_pickle=False)"
        raise InputError("the file holds pickled objects, which can run code when loaded", npy, expected=_NUMBERS, remedy=remedy)


def find_betas(betas_dir: Path, participant: str) -> list[BetaFiles]:
    """Betas of one participant, for ``-d betas=PATH``.

    Parameters
    ----------
    betas_dir : Path
        An output folder of ours, a folder with ``sub-XX*_betas.npy`` (there or in its ``sub-XX`` folder), or one such file.
    participant : str
        Label, with or without ``sub-``.

    Raises
    ------
    MissingInputError
        When there are none, or a table of trials lacks.
    InputError
        When one run has several (spaces, densities or estimators).
    """
    betas_dir, label = Path(betas_dir), f"sub-{participant.removeprefix('sub-')}"
    if betas_dir.is_file():
        found = [_matrix(betas_dir)]
    elif betas_dir.is_dir():
        found = [*map(_matrix, _named(betas_dir, label, "_betas.npy")), *map(_images, _statmaps(betas_dir / label))]
    else:
        raise MissingInputError("no such file or folder of betas", betas_dir, remedy="check -d betas=PATH")
    found = [files for files in found if files.entities.get("sub", label[4:]) == label[4:]]
    if not found:
        expected = f"{label}*_betas.npy with {label}*_trials.tsv, or {label}/func/*_stat-effect_*_statmap.*"
        raise MissingInputError(f"no betas of {label}", betas_dir, expected=expected)
    for files in found:
        if not files.trials.is_file():
            raise MissingInputError(f"no table of trials for {files.path.name}", files.trials, expected="one row a response")
    repeated = [files for files in found if sum(files.entities == other.entities for other in found) > 1]
    if repeated:
        names = ", ".join(files.path.name for files in repeated[:4])
        raise InputError(
            f"several betas of one run: {names}", repeated[0].path.parent, expected="one", remedy="move the others away"
        )
    return sorted(found, key=lambda files: natural(files.path.name))


def files_of(files: BetaFiles) -> list[Path]:
    """Everything that is read of some responses: images of both hemispheres, mask, sidecar, matrix, table."""
    if files.kind == "matrix":
        return [files.path, files.trials]
    stem = "_".join(f"{key}-{value}" for key, value in files.entities.items())
    beside = [path for path in files.path.parent.glob(f"{stem}_*") if "_stat-effect_" in path.name or "_mask." in path.name]
    return [*sorted(beside), files.trials]


def _named(folder: Path, label: str, ending: str) -> list[Path]:
    """Files of a participant in a folder or in its ``sub-`` folder; sub-1 is not sub-10."""
    return [
        path for path in (*folder.glob(f"*{ending}"), *folder.glob(f"{label}/**/*{ending}")) if path.name.split("_")[0] == label
    ]


def _statmaps(folder: Path) -> list[Path]:
    files = [*folder.glob("func/*_statmap.*"), *folder.glob("ses-*/func/*_statmap.*")]
    return [path for path in files if "_stat-effect_" in path.name and ("_hemi-L_" in path.name or path.name.endswith(".nii.gz"))]


def _matrix(path: Path) -> BetaFiles:
    if not path.name.endswith("_betas.npy"):
        raise InputError("not a matrix of betas", path, expected="a name that ends in _betas.npy")
    trials = path.with_name(path.name.removesuffix("_betas.npy") + "_trials.tsv")
    return BetaFiles("matrix", run_entities(parse(path).entities), path, trials)


def _images(path: Path) -> BetaFiles:
    name = parse(path)
    entities = run_entities(name.entities)
    stem = "_".join(f"{key}-{value}" for key, value in entities.items())
    trials = path.parents[1] / "beh" / f"{stem}_desc-trials_events.tsv"
    return BetaFiles("surface" if name.extension == ".func.gii" else "volume", entities, path, trials)
