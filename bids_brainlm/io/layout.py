"""Which files of a data set and its fMRIPrep derivatives belong to one run.

Only the folders of the participant asked for are listed; nothing is indexed. A *run* is what all entities but those of
processing (space, density, hemisphere, description ...) identify. fMRIPrep's names have changed over the years, so both
orders of ``hemi`` and ``space`` are read, ``fsaverage5`` and ``fsaverage6`` are ``fsaverage`` at a known density, and a
confounds table may be called ``desc-confounds_timeseries``, ``desc-confounds_regressors``, ``timeseries`` or ``confounds``.
Single echoes and phase images are no recordings of their own and are passed over.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from bids_brainlm.config import Input
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.io.names import Name, natural, parse, plain, run_entities
from bids_brainlm.io.runfiles import CONFOUNDS, Derived, RunFiles, assemble

__all__ = ["RunFiles", "default_derivatives", "find_runs", "participants"]

LOGGER = logging.getLogger(__name__)

NOT_BOLD = ("betas", "atlas", "atlases")
"""Names given to ``--derivatives`` that hold something else than preprocessed BOLD series."""

_SUFFIXES = {"bold", "mask", *(suffix for suffix, _ in CONFOUNDS)}
_RunKey = tuple[tuple[str, str], ...]


def participants(bids_dir: Path) -> list[str]:
    """Labels, without ``sub-``, of the participants of a data set.

    Raises
    ------
    MissingInputError
        When the folder does not exist or holds no ``sub-`` folder.
    """
    root = Path(bids_dir)
    if not root.is_dir():
        raise MissingInputError("no such folder", root, expected="a BIDS data set", remedy="check the path, or the bind mount")
    found = [entry.name.removeprefix("sub-") for entry in os.scandir(root) if entry.name.startswith("sub-") and entry.is_dir()]
    if not found:
        raise MissingInputError("no participant", root, expected="folders named sub-...")
    return sorted(found, key=natural)


def default_derivatives(bids_dir: Path) -> dict[str, Path]:
    """fMRIPrep's folders below ``derivatives/`` of a data set, by name."""
    return {path.name: path for path in sorted((Path(bids_dir) / "derivatives").glob("fmriprep*")) if path.is_dir()}


def find_runs(bids_dir: Path, derivatives: Mapping[str, Path], participant: str, settings: Input) -> list[RunFiles]:
    """Every run of a participant that the settings select, sorted.

    Parameters
    ----------
    bids_dir : Path
    derivatives : mapping of name to Path
        Derivatives data sets; when none can hold BOLD series, ``derivatives/fmriprep*`` is searched.
    participant : str
        Label, with or without ``sub-``.
    settings : Input
        Space, density, sessions, tasks, runs and confounds are used.

    Raises
    ------
    MissingInputError
        Naming all that is missing, what was found instead, and what makes it.
    InputError
        When two files claim to be the same thing.
    """
    bids_dir, label = Path(bids_dir), participant.removeprefix("sub-")
    known = participants(bids_dir)
    if label not in known:
        raise MissingInputError(f"no participant {label!r}", bids_dir, expected=f"one of {', '.join(known)}")
    folders = {name: Path(path) for name, path in derivatives.items() if name not in NOT_BOLD} or default_derivatives(bids_dir)
    derived = _derived(bids_dir, folders, label)
    selected = _select(list(derived.values()), settings, bids_dir / f"sub-{label}")
    _warn_of_absent(bids_dir, label, derived, settings)
    runs: list[RunFiles] = []
    problems: list[MissingInputError] = []
    for item in selected:
        try:
            run = assemble(bids_dir, item, settings)
        except MissingInputError as error:
            problems.append(error)
        else:
            runs += [run] if run else []
    if problems:
        # One line, although several runs may lack something: place and remedy are those of the first.
        what, first = "; ".join(problem.what for problem in problems), problems[0]
        raise MissingInputError(what, first.path, expected=first.expected, remedy=first.remedy)
    if not runs:
        raise MissingInputError(
            "no run has an events table", bids_dir / f"sub-{label}", expected="..._events.tsv beside the raw BOLD"
        )
    return sorted(runs, key=lambda run: natural("_".join(f"{key}-{value}" for key, value in run.entities.items())))


def _derived(bids_dir: Path, folders: Mapping[str, Path], label: str) -> dict[_RunKey, Derived]:
    """What any of the derivatives holds, by run."""
    if not folders:
        raise MissingInputError(
            "no derivatives",
            bids_dir / "derivatives",
            expected="a folder fmriprep*",
            remedy="run fMRIPrep, or point to it: -d fmriprep=PATH",
        )
    out: dict[_RunKey, Derived] = {}
    for source, root in folders.items():
        if not root.is_dir():
            raise MissingInputError(f"no folder for the derivatives {source!r}", root, remedy="check the path, or the bind mount")
        for path, name in _scan(root / f"sub-{label}", _SUFFIXES):
            item = out.setdefault(name.run, Derived(source, root, run_entities(name.entities)))
            if item.root != root and name.suffix == "bold":
                raise InputError(f"the same run is in {item.source} and {source}", path, remedy="say which to use: -d NAME=PATH")
            item.files.append((path, name))
    if not out:
        places = ", ".join(str(root / f"sub-{label}") for root in folders.values())
        raise MissingInputError(f"no BOLD series of participant {label!r}", places, remedy="run fMRIPrep for this participant")
    return out


def _scan(folder: Path, suffixes: Iterable[str]) -> list[tuple[Path, Name]]:
    """Parsed files of ``func`` folders, without single echoes and phase images."""
    out = []
    for func in sorted([*folder.glob("func"), *folder.glob("ses-*/func")]):
        for entry in sorted(entry.name for entry in os.scandir(func)):
            stem, _, extension = entry.partition(".")
            if stem.rpartition("_")[2] in suffixes and extension in ("func.gii", "nii", "nii.gz", "tsv"):
                name = parse(func / entry)
                if "echo" not in name.entities and name.entities.get("part") != "phase":
                    out.append((func / entry, name))
    return out


def _select(items: list[Derived], settings: Input, folder: Path) -> list[Derived]:
    """Runs that pass the filters; a task that nobody has is refused, so that a misspelt one cannot go unseen."""
    for key, wanted in _filters(settings).items():
        there = {item.entities.get(key, "") for item in items}
        unknown = [value for value in wanted if plain(value) not in {plain(value) for value in there}]
        listed = ", ".join(sorted(filter(None, there), key=natural)) or f"names without {key}-"
        if unknown and (key == "task" or len(unknown) == len(wanted)):
            raise MissingInputError(f"no {key}-{', '.join(unknown)}", folder, expected=f"one of {listed}")
        if unknown:
            LOGGER.warning("%s has no %s-%s, only %s", folder.name, key, ", ".join(unknown), listed)
        items = [item for item in items if _passes(item.entities, {key: wanted})]
    if not items:
        raise MissingInputError("no run passes the filters on session, task and run", folder)
    return items


def _filters(settings: Input) -> dict[str, tuple[str, ...]]:
    wanted = {"ses": settings.sessions, "task": settings.tasks, "run": settings.runs}
    return {key: tuple(value.removeprefix(f"{key}-") for value in values) for key, values in wanted.items() if values}


def _passes(entities: Mapping[str, str], filters: Mapping[str, tuple[str, ...]]) -> bool:
    return all(plain(entities.get(key, "")) in map(plain, wanted) for key, wanted in filters.items())


def _warn_of_absent(bids_dir: Path, label: str, derived: Iterable[_RunKey], settings: Input) -> None:
    known = set(derived)
    for path, name in _scan(bids_dir / f"sub-{label}", {"bold"}):
        if name.run not in known and _passes(name.entities, _filters(settings)):
            LOGGER.warning("the derivatives have nothing of %s; it is left out", path.name)
