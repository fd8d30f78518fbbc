"""The files of one run, chosen from what the derivatives hold of it.

fMRIPrep writes the same run in several spaces, densities and resolutions; one of them is wanted, with its mask, confounds,
events and sidecar. Whatever is missing is named together with what makes it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_brainlm.config import Input
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.io.names import Name
from bids_brainlm.io.sidecars import applicable, merged

LOGGER = logging.getLogger(__name__)

SPACES = {"fsaverage4": ("fsaverage", "3k"), "fsaverage5": ("fsaverage", "10k"), "fsaverage6": ("fsaverage", "41k")}
"""Deprecated space label -> (space, density)."""

CONFOUNDS = (("timeseries", "confounds"), ("regressors", "confounds"), ("timeseries", ""), ("confounds", ""))
"""Suffix and ``desc-`` that a confounds table has had, newest first."""

_DENSITY_ORDER = ("3k", "10k", "41k", "164k", "")
_Variants = dict[tuple[str, str, str], dict[str, tuple[Path, Name]]]


@dataclass(frozen=True)
class RunFiles:
    """The files of one run.

    Parameters
    ----------
    participant, session, task, run : str
        Labels without their keys; empty where the names have none.
    entities : dict of str to str
        Everything that identifies the run (``sub``, ``ses``, ``task``, ``acq`` ...), in the order of BIDS.
    bold : tuple of Path
        Left and right GIFTI file, or one NIfTI file.
    mask : Path or None
        Brain mask of a volume.
    confounds : Path or None
    events : Path
    sidecar : dict
        JSON fields merged by inheritance: raw data set < volume of the same run < the BOLD series itself.
        ``RepetitionTime`` (s) is always there.
    sources : tuple of str
        BIDS URIs of the files above.
    space : str
        ``fsaverage``, ``T1w`` ...
    resolution : str
        ``res-`` label of a volume, or empty.
    """

    participant: str
    session: str
    task: str
    run: str
    entities: dict[str, str]
    bold: tuple[Path, ...]
    mask: Path | None
    confounds: Path | None
    events: Path
    sidecar: dict[str, Any]
    sources: tuple[str, ...]
    space: str
    resolution: str = ""


@dataclass
class Derived:
    """What the derivatives hold of one run."""

    source: str
    root: Path
    entities: dict[str, str]
    files: list[tuple[Path, Name]] = field(default_factory=list)


def assemble(bids_dir: Path, item: Derived, settings: Input) -> RunFiles | None:
    """Files of one run; None for a run without events, unless its task was asked for."""
    entities = item.entities
    events = applicable(bids_dir, _raw_folder(bids_dir, entities), entities, "events", ".tsv")
    stem = "_".join(f"{key}-{value}" for key, value in entities.items())
    if not events:
        if settings.tasks:
            raise MissingInputError(f"no events for {stem}", _raw_folder(bids_dir, entities), expected="..._events.tsv")
        LOGGER.info("%s has no events and is left out", stem)
        return None
    bold, name = _bold(item, settings, stem)
    space = SPACES.get(name.entities["space"], (name.entities["space"], ""))[0]
    mask = None if len(bold) == 2 else _mask(item, name, stem)
    confounds = _confounds(item, stem, required=bool(settings.confounds))
    used = [*bold, *([mask] if mask else []), *([confounds] if confounds else [])]
    sources = tuple(f"bids:{item.source}:{path.relative_to(item.root).as_posix()}" for path in used)
    return RunFiles(
        participant=entities["sub"],
        session=entities.get("ses", ""),
        task=entities.get("task", ""),
        run=entities.get("run", ""),
        entities=entities,
        bold=bold,
        mask=mask,
        confounds=confounds,
        events=events[-1],
        sidecar=_sidecar(bids_dir, item, (bold[0], name), stem),
        sources=(*sources, f"bids:raw:{events[-1].relative_to(bids_dir).as_posix()}"),
        space=space,
        resolution=name.entities.get("res", ""),
    )


def _raw_folder(bids_dir: Path, entities: Mapping[str, str]) -> Path:
    session = (f"ses-{entities['ses']}",) if "ses" in entities else ()
    return bids_dir.joinpath(f"sub-{entities['sub']}", *session, "func")


def _is_bold(name: Name) -> bool:
    desc = name.entities.get("desc", "")
    if name.suffix != "bold" or "space" not in name.entities:
        return False
    return desc in ("", "preproc") if name.extension == ".func.gii" else desc == "preproc"


def _bold(item: Derived, settings: Input, stem: str) -> tuple[tuple[Path, ...], Name]:
    """The BOLD series in the wanted space, of the density nearest above the wanted one."""
    space, density = SPACES.get(settings.space, (settings.space, settings.density))
    variants: _Variants = {}
    spaces = set()
    for path, name in item.files:
        if _is_bold(name):
            held = name.entities
            spaces.add(held["space"])
            found, nominal = SPACES.get(held["space"], (held["space"], held.get("den", "")))
            wanted = held["space"] == settings.space if settings.space in SPACES else found == space
            if wanted:
                variants.setdefault((nominal, held.get("res", ""), name.extension), {})[held.get("hemi", "")] = (path, name)
    if not variants:
        option = "fsaverage5 (10k) or fsaverage:den-41k" if space == "fsaverage" else space
        raise MissingInputError(
            f"no BOLD series of {stem} in space {settings.space}",
            item.root / f"sub-{item.entities['sub']}",
            expected=f"one in {settings.space}; found {', '.join(sorted(spaces)) or 'none'}",
            remedy=f"run fMRIPrep with --output-spaces {option}" + (", or choose another --space" if spaces else ""),
        )
    return _pair(_only(variants, density, stem))


def _only(variants: _Variants, density: str, stem: str) -> dict[str, tuple[Path, Name]]:
    """The variant to read: surfaces can be brought to a lower density, anything else must be the only one."""
    some = next(iter(next(iter(variants.values())).values()))[0]
    surfaces = {key: files for key, files in variants.items() if "" not in files}
    if len(variants) > 1 and len(surfaces) == len(variants) and density:
        rank = {key: _DENSITY_ORDER.index(key[0]) if key[0] in _DENSITY_ORDER else len(_DENSITY_ORDER) for key in surfaces}
        enough = [key for key in surfaces if rank[key] >= _DENSITY_ORDER.index(density)]
        return surfaces[min(enough, key=rank.__getitem__)] if enough else surfaces[max(rank, key=rank.__getitem__)]
    if len(variants) > 1:
        names = ", ".join(sorted(path.name for files in variants.values() for path, _ in files.values()))
        remedy = "choose a --density" if surfaces else "keep one resolution in the derivatives"
        raise InputError(f"several BOLD series of {stem}: {names}", some.parent, expected="one", remedy=remedy)
    return next(iter(variants.values()))


def _pair(files: dict[str, tuple[Path, Name]]) -> tuple[tuple[Path, ...], Name]:
    if "" in files:
        path, name = files[""]
        return (path,), name
    for side, other in (("L", "R"), ("R", "L")):
        if side not in files:
            path = files[other][0]
            missing = path.with_name(path.name.replace(f"hemi-{other}", f"hemi-{side}"))
            raise MissingInputError("one hemisphere is missing", missing, remedy="run fMRIPrep again for this run")
    return (files["L"][0], files["R"][0]), files["L"][1]


def _mask(item: Derived, bold: Name, stem: str) -> Path:
    for path, name in item.files:
        kind = name.entities.get("desc", name.entities.get("label", ""))
        same = all(name.entities.get(key, "") == bold.entities.get(key, "") for key in ("space", "res"))
        if name.suffix == "mask" and kind == "brain" and same:
            return path
    folder = item.root / f"sub-{item.entities['sub']}"
    expected = f"..._space-{bold.entities['space']}_desc-brain_mask.nii.gz, which fMRIPrep writes beside the BOLD"
    raise MissingInputError(f"no brain mask for {stem}", folder, expected=expected)


def _confounds(item: Derived, stem: str, required: bool) -> Path | None:
    for suffix, desc in CONFOUNDS:
        for path, name in item.files:
            if (name.suffix, name.extension, name.entities.get("desc", "")) == (suffix, ".tsv", desc):
                return path
    if required:
        folder = item.root / f"sub-{item.entities['sub']}"
        remedy = 'restore it, or regress out nothing: --set input.confounds="[]"'
        raise MissingInputError(f"no confounds for {stem}", folder, expected="..._desc-confounds_timeseries.tsv", remedy=remedy)
    return None


def _sidecar(bids_dir: Path, item: Derived, bold: tuple[Path, Name], stem: str) -> dict[str, Any]:
    """Merged fields; old fMRIPrep wrote no sidecars for GIFTI, so those of the run's volumes stand in."""
    chain = applicable(bids_dir, _raw_folder(bids_dir, item.entities), item.entities, "bold", ".json")
    path, name = bold
    own = applicable(item.root, path.parent, name.entities, "bold", ".json")
    if not own:
        volumes = [(path, name) for path, name in item.files if _is_bold(name) and name.extension != ".func.gii"]
        own = [found for path, name in volumes for found in applicable(item.root, path.parent, name.entities, "bold", ".json")]
    fields = merged([*chain, *own])
    if "RepetitionTime" not in fields:
        remedy = f"add RepetitionTime (s) to the sidecar of the raw BOLD, e.g. task-{item.entities.get('task', 'x')}_bold.json"
        raise MissingInputError(f"no RepetitionTime for {stem}", path, expected="a JSON sidecar that has it", remedy=remedy)
    return fields
