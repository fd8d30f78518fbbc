"""Which files of a data set and its fMRIPrep derivatives belong to one run.

Only the folders of the participant asked for are listed, each once; nothing is indexed. A *run* is what all entities but
those of processing (space, density, hemisphere, description ...) identify. fMRIPrep's names have changed over the years, so
both orders of ``hemi`` and ``space`` are read, ``fsaverage5`` and ``fsaverage6`` are ``fsaverage`` at a known density, and a
confounds table may be called ``desc-confounds_timeseries``, ``desc-confounds_regressors``, ``timeseries`` or ``confounds``.
Single echoes and phase images are no recordings of their own and are passed over.

NiBabies' folders are read like fMRIPrep's. Of an XCP-D folder the series ``desc-denoised`` is read (``desc-denoisedSmoothed``
with a filter on ``desc``), without confounds, which XCP-D has regressed out. It must have been told to keep every volume
(no censored output, no dummy scans removed): the times of events count from the first volume that was recorded.

Filters (`bids_brainlm.io.filters`) choose runs by what identifies them (``ses``, ``task``, ``acq`` ...) and, among the
files of a run, the variant (``res``, ``desc``, ``echo`` ...). A filter on ``bold`` chooses runs, so that masks, confounds and
events of other runs are out too.
"""

from __future__ import annotations

import collections
import functools
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bids_brainlm.config import Input
from bids_brainlm.config.values import near
from bids_brainlm.errors import BrainLMError, InputError, MissingInputError, collecting, one_or_all
from bids_brainlm.io.filters import PROPERTIES, passes, say, there
from bids_brainlm.io.names import OUTPUT_KEYS, PART_KEYS, Name, natural, plain, run_entities
from bids_brainlm.io.runfiles import RunFiles, assemble, events_of, is_confounds, is_mask
from bids_brainlm.io.rungs import GIVEN, SPHERES
from bids_brainlm.io.series import Derived, Held, Wanted, is_bold, wanted_of
from bids_brainlm.io.sidecars import Folders, Found

__all__ = ["RunFiles", "default_derivatives", "find_runs", "look_for_runs", "participants"]

LOGGER = logging.getLogger(__name__)

NOT_BOLD = ("betas", "atlas", "atlases", SPHERES)
"""Names given to ``--derivatives`` that hold something else than preprocessed BOLD series."""

_KINDS = {"bold": is_bold, "mask": is_mask, "confounds": is_confounds}
_RunKey = tuple[tuple[str, str], ...]


def participants(bids_dir: Path) -> list[str]:
    """Labels, without ``sub-``, of the participants of a data set.

    Raises
    ------
    MissingInputError
        When the folder does not exist or holds no ``sub-`` folder.
    InputError
        When it cannot be listed.
    """
    root = Path(bids_dir)
    try:
        found = [name.removeprefix("sub-") for name in _subfolders(root) if name.startswith("sub-")]
    except (FileNotFoundError, NotADirectoryError) as error:
        remedy = "check the path, or the bind mount"
        raise MissingInputError("no such folder", root, expected="a BIDS data set", remedy=remedy) from error
    if not found:
        raise MissingInputError("no participant", root, expected="folders named sub-...")
    return sorted(found, key=natural)


def default_derivatives(bids_dir: Path) -> dict[str, Path]:
    """fMRIPrep's folders below ``derivatives/`` of a data set, by name."""
    folder = Path(bids_dir) / "derivatives"
    try:
        return {name: folder / name for name in sorted(_subfolders(folder)) if name.startswith("fmriprep")}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def find_runs(
    bids_dir: Path, derivatives: Mapping[str, Path], participant: str, settings: Input, eventless: bool = False
) -> list[RunFiles]:
    """Every run of a participant that the settings select, sorted.

    Parameters
    ----------
    bids_dir : Path
    derivatives : mapping of name to Path
        Derivatives data sets; when none can hold BOLD series, ``derivatives/fmriprep*`` is searched.
    participant : str
        Label, with or without ``sub-``.
    settings : Input
        All but ``dummy_scans`` are used. With ``drop_missing``, runs that lack a file are logged and left out, as long as
        one is left.
    eventless : bool
        Whether runs without events are runs too.

    Raises
    ------
    MissingInputError
        Naming what is missing, what was found instead, and what makes it.
    InputError
        When two files claim to be the same thing, or something cannot be read.
    Faults
        All of these, when there are several.
    ConfigError
        For an unknown filter.
    """
    runs, fault = look_for_runs(bids_dir, derivatives, participant, settings, eventless)
    if fault:
        raise fault
    return runs


def look_for_runs(
    bids_dir: Path, derivatives: Mapping[str, Path], participant: str, settings: Input, eventless: bool = False
) -> tuple[list[RunFiles], BrainLMError | None]:
    """Runs whose files are all there, sorted, and what is wrong with the others: what `find_runs` would raise.

    Raises
    ------
    BrainLMError
        As `find_runs` does, for what concerns the participant as a whole.
    """
    bids_dir, label, folders = Path(bids_dir), participant.removeprefix("sub-"), Folders()
    wanted = wanted_of(settings, eventless)
    _refuse_unknown(bids_dir, label, folders)
    own = {name: Path(path) for name, path in derivatives.items() if name == SPHERES}
    derived = _derived(_roots(bids_dir, derivatives), own, label, wanted, folders)
    try:
        selected = _select(list(derived.values()), settings, bids_dir / f"sub-{label}")
        selected = _filter(bids_dir, selected, wanted, folders)
    except BrainLMError as error:
        raise one_or_all([*folders.faults, *getattr(error, "faults", [error])]) from error
    _warn_of_absent(bids_dir, label, derived, settings, folders)
    runs: list[RunFiles] = []
    faults: list[BrainLMError] = []
    for item in selected:
        with collecting(faults):
            run = assemble(bids_dir, item, wanted, folders)
            runs += [run] if run else []
    faults = [*folders.faults, *(_drop(faults) if settings.drop_missing and runs else faults)]
    if not runs and not faults:
        what, expected = "no run has an events table", "..._events.tsv beside the raw BOLD"
        faults = [MissingInputError(what, bids_dir / f"sub-{label}", expected=expected)]
    runs.sort(key=lambda run: natural("_".join(f"{key}-{value}" for key, value in run.entities.items())))
    _tell_rungs(label, runs)
    return runs, one_or_all(faults) if faults else None


def _tell_rungs(label: str, runs: Sequence[RunFiles]) -> None:
    counts = collections.Counter(run.rung for run in runs)
    if set(counts) <= {GIVEN}:
        return
    listed = ", ".join(f"{n} of rung {rung}" for rung, n in counts.items())
    if len(counts) > 1:
        text = "sub-%s: runs come to fsaverage in different ways: %s (remedy: run fMRIPrep with the same spaces for all)"
        LOGGER.warning(text, label, listed)
    else:
        LOGGER.debug("sub-%s: runs are brought to fsaverage: %s", label, listed)


def _subfolders(folder: Path) -> list[str]:
    """Names of folders; a link that leads nowhere fails later, for the participant it belongs to."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if _is_folder(entry)]
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        remedy = "check its permissions, and where links lead"
        raise InputError(f"cannot be listed ({error.strerror})", folder, remedy=remedy) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return True


def _refuse_unknown(bids_dir: Path, label: str, folders: Folders) -> None:
    if f"sub-{label}" in folders(bids_dir).names:
        return
    known = participants(bids_dir)
    if label not in known:
        listed = ", ".join(known[:10]) + (f" ... ({len(known)} in all)" if len(known) > 10 else "")
        raise MissingInputError(f"no participant {label!r}{near(label, known)}", bids_dir, expected=f"one of {listed}")


def _roots(bids_dir: Path, derivatives: Mapping[str, Path]) -> dict[str, Path]:
    """Folders to look into, by name."""
    folders = {name: Path(path) for name, path in derivatives.items() if name not in NOT_BOLD} or default_derivatives(bids_dir)
    if not folders:
        raise MissingInputError(
            "no derivatives",
            bids_dir / "derivatives",
            expected="a folder fmriprep*",
            remedy="run fMRIPrep, or point to it: -d fmriprep=PATH",
        )
    remedy = "check the path, or the bind mount"
    absent = [
        MissingInputError(f"no folder for the derivatives {name!r}", root, remedy=remedy)
        for name, root in folders.items()
        if not os.path.isdir(root)
    ]
    if absent:
        raise one_or_all(absent)
    return folders


def _derived(
    roots: Mapping[str, Path], others: Mapping[str, Path], label: str, wanted: Wanted, folders: Folders
) -> dict[_RunKey, Derived]:
    """What any of the derivatives holds, by run; the others hold no series, but what some may need."""
    out: dict[_RunKey, Derived] = {}
    for source, root in roots.items():
        for file in _scan(root / f"sub-{label}", folders):
            if any(fits(file.name, wanted.filters[query]) for query, fits in _KINDS.items()):
                named = {key: value for key, value in run_entities(file.name.entities).items() if key not in PART_KEYS}
                item = out.setdefault(file.name.run, Derived(named, roots={**roots, **others}))
                item.files.append(Held(file.path, file.name, source, root))
    undescribed = [root for root in roots.values() if "dataset_description.json" not in folders(root).names]
    if not out:
        raise one_or_all(folders.faults or [_nothing(roots, label, undescribed, folders)])
    for root in undescribed:
        _warn_of_undescribed(root)
    return out


def _nothing(roots: Mapping[str, Path], label: str, undescribed: Sequence[Path], folders: Folders) -> MissingInputError:
    inside = [root / name for root in roots.values() for name in folders(root).names if name.startswith("fmriprep")]
    remedy = f"run fMRIPrep for this participant (--participant-label {label})"
    if undescribed:
        remedy += "; without dataset_description.json it may be another folder than meant"
    if inside:
        remedy = f"point to the folder inside: -d fmriprep={inside[0]}"
    places = ", ".join(str(root / f"sub-{label}") for root in roots.values())
    return MissingInputError(f"no BOLD series of participant {label!r}", places, remedy=remedy)


@functools.cache
def _warn_of_undescribed(root: Path) -> None:
    LOGGER.warning(
        "no dataset_description.json: %s (expected: one in every derivatives data set; remedy: copy it from where fMRIPrep "
        "wrote it; the files are read by their names)",
        root,
    )


def _scan(folder: Path, folders: Folders) -> list[Found]:
    """Files of the ``func`` folders of a participant."""
    places = [folder, *(folder / name for name in folders(folder).names if name.startswith("ses-"))]
    return [file for place in places if "func" in folders(place).names for file in folders(place / "func").files]


def _select(items: list[Derived], settings: Input, folder: Path) -> list[Derived]:
    """Runs that pass the options; a task that nobody has is refused, so that a misspelt one cannot go unseen."""
    faults: list[BrainLMError] = []
    kept = items
    for key, wanted in _options(settings).items():
        known = {item.entities.get(key, "") for item in items}
        unknown = [value for value in wanted if plain(value) not in {plain(value) for value in known}]
        listed = ", ".join(sorted(filter(None, known), key=natural)) or f"names without {key}-"
        if unknown and (key == "task" or len(unknown) == len(wanted)):
            faults.append(MissingInputError(f"no {key}-{', '.join(unknown)}", folder, expected=f"one of {listed}"))
        elif unknown:
            LOGGER.warning("%s has no %s-%s, only %s", folder.name, key, ", ".join(unknown), listed)
        kept = [item for item in kept if _chosen(item.entities, {key: wanted})]
    if not kept and not faults:
        faults.append(MissingInputError("no run passes the filters on session, task and run", folder, remedy="drop one of them"))
    if faults:
        raise one_or_all(faults)
    return kept


def _options(settings: Input) -> dict[str, tuple[str, ...]]:
    wanted = {"ses": settings.sessions, "task": settings.tasks, "run": settings.runs}
    return {key: tuple(value.removeprefix(f"{key}-") for value in values) for key, values in wanted.items() if values}


def _chosen(entities: Mapping[str, str], options: Mapping[str, tuple[str, ...]]) -> bool:
    return all(plain(entities.get(key, "")) in map(plain, wanted) for key, wanted in options.items())


def _filter(bids_dir: Path, items: list[Derived], wanted: Wanted, folders: Folders) -> list[Derived]:
    """Runs that the filter on BOLD series chooses; a filter that matches nothing is refused."""
    chosen = {key: values for key, values in wanted.filters["bold"].items() if key not in {*OUTPUT_KEYS, *PART_KEYS, *PROPERTIES}}
    names = [Name(item.entities, "bold", "") for item in items]
    kept = [item for item, name in zip(items, names, strict=True) if passes(chosen, name)]
    if not kept:
        what = f"the filter bold ({say(chosen)}) matches none of {len(items)} run(s)"
        raise MissingInputError(what, items[0].folder, expected=there(chosen, names), remedy="correct --bids-filter-file")
    faults = []
    for query, wish in wanted.filters.items():
        if wish:
            files = _files(bids_dir, kept if query != "bold" else items, query, wanted, folders)
            matched = sum(passes(wish, file.name) for file in files)
            LOGGER.info(
                "%s: the filter %s (%s) matches %d of %d files", items[0].folder.name, query, say(wish), matched, len(files)
            )
            if files and not matched:
                what = f"the filter {query} ({say(wish)}) matches none of {len(files)} file(s)"
                expected = there(wish, [file.name for file in files])
                faults.append(
                    MissingInputError(what, files[0].path.parent, expected=expected, remedy="correct --bids-filter-file")
                )
    if faults:
        raise one_or_all(faults)
    return kept


def _files(bids_dir: Path, items: list[Derived], query: str, wanted: Wanted, folders: Folders) -> list[Found]:
    """What a query could return for some runs without its filter."""
    if query == "events":
        return list({found.path: found for item in items for found in events_of(bids_dir, item, wanted, folders)}.values())
    fits = _KINDS[query]
    return [held for item in items for held in item.files if fits(held.name, wanted.filters[query])]


def _drop(faults: list[BrainLMError]) -> list[BrainLMError]:
    """Faults that are left when runs that lack a file may be left out."""
    for fault in faults:
        if isinstance(fault, MissingInputError):
            LOGGER.warning("a run is left out: %s", fault)
    return [fault for fault in faults if not isinstance(fault, MissingInputError)]


def _warn_of_absent(bids_dir: Path, label: str, derived: Iterable[_RunKey], settings: Input, folders: Folders) -> None:
    known, options = set(derived), _options(settings)
    for file in _scan(bids_dir / f"sub-{label}", folders):
        name = file.name
        recorded = name.suffix == "bold" and name.extension in (".nii", ".nii.gz") and name.entities.get("part") != "phase"
        if recorded and name.run not in known and _chosen(name.entities, options):
            known.add(name.run)
            LOGGER.warning("the derivatives have nothing of %s; it is left out", file.path.name)
