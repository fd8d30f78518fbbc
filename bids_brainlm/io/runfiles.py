"""The files of one run, chosen from what the derivatives hold of it.

fMRIPrep writes the same run in several spaces, densities and resolutions; one of them is wanted, with its mask, confounds,
events and sidecar. Whatever is missing is named together with what makes it, all of a run at once.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_brainlm.errors import BrainLMError, InputError, MissingInputError, collecting, one_or_all
from bids_brainlm.io.filters import Filter, passes, say
from bids_brainlm.io.names import OUTPUT_KEYS, Name, plain
from bids_brainlm.io.rungs import FSAVERAGE, GIVEN, Chosen, climb
from bids_brainlm.io.series import Derived, Held, Wanted, is_bold, is_denoised, space_of
from bids_brainlm.io.sidecars import Folders, Found, applicable, merged

LOGGER = logging.getLogger(__name__)

CONFOUNDS = (("timeseries", "confounds"), ("regressors", "confounds"), ("timeseries", ""), ("confounds", ""))
"""Suffix and ``desc-`` that a confounds table has had, newest first."""


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
        Left and right GIFTI file, or one NIfTI or CIFTI file.
    mask : Path or None
        Brain mask of a volume that is read as it is.
    confounds : Path or None
    events : Path or None
        None for a run without events, where such runs are wanted.
    sidecar : dict
        JSON fields merged by inheritance: raw data set < other series of the same run < the BOLD series itself.
        ``RepetitionTime`` (s) or ``VolumeTiming`` is always there.
    sources : tuple of str
        BIDS URIs of the files above.
    space : str
        Space of the responses: ``fsaverage``, ``T1w``, ``MNIInfant+1`` ...
    resolution : str
        ``res-`` label of a volume, or empty.
    rung : {"given", "cifti", "native", "template"}
        How the series gets to that space; see `bids_brainlm.io.rungs`.
    anatomy : dict of str to Path
        Surfaces that a projection needs, by kind and hemisphere (``white-L``, ``sphere-R`` ...).
    """

    participant: str
    session: str
    task: str
    run: str
    entities: dict[str, str]
    bold: tuple[Path, ...]
    mask: Path | None
    confounds: Path | None
    events: Path | None
    sidecar: dict[str, Any]
    sources: tuple[str, ...]
    space: str
    resolution: str = ""
    rung: str = GIVEN
    anatomy: dict[str, Path] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that `sources` names, in its order."""
        beside = (path for path in (self.mask, self.confounds) if path is not None)
        return (*self.bold, *beside, *self.anatomy.values(), *([self.events] if self.events else []))

    @property
    def place(self) -> Path:
        """What a message about this run names: its events, or its series."""
        return self.events or self.bold[0]


def is_mask(name: Name, wanted: Filter) -> bool:
    """A brain mask, or what a filter wants for one."""
    kind = name.entities.get("desc", name.entities.get("label", ""))
    return name.suffix == "mask" and (kind == "brain" or bool({"desc", "label"} & wanted.keys()))


def is_confounds(name: Name, wanted: Filter) -> bool:
    """A table of confounds, which is of no space (XCP-D's parcel means are), or what a filter wants for one."""
    own = name.extension == ".tsv" and not (OUTPUT_KEYS - {"desc"}) & name.entities.keys()
    known = name.suffix in {suffix for suffix, _ in CONFOUNDS} or name.suffix in wanted.get("suffix", ())
    return own and known and ("desc" in wanted or (name.suffix, name.entities.get("desc", "")) in CONFOUNDS)


def assemble(bids_dir: Path, item: Derived, wanted: Wanted, folders: Folders) -> RunFiles | None:
    """Files of one run; None for a run without events, unless its task was asked for or it needs none.

    Raises
    ------
    MissingInputError, InputError, Faults
        Naming all that is wrong with the run.
    """
    wish = wanted.filters["events"]
    found = [table for table in events_of(bids_dir, item, wanted, folders) if passes(wish, table.name)]
    if not found and not wanted.eventless:
        if wanted.events:
            raise MissingInputError(f"no events for {item.stem}", _raw_folder(bids_dir, item), expected="..._events.tsv")
        LOGGER.info("%s has no events and is left out", item.stem)
        return None
    faults: list[BrainLMError] = []
    chosen = Chosen(())
    mask, confounds, fields = None, None, {}
    with collecting(faults):
        chosen = climb(item, wanted, folders)
    bold = chosen.bold
    with collecting(faults):
        confounds = _confounds(item, wanted, bold)
    if len(bold) == 1 and chosen.rung == GIVEN:
        with collecting(faults):
            mask = _mask(item, bold[0], wanted)
    if bold:
        with collecting(faults):
            fields = _sidecar(bids_dir, item, bold[0], folders)
    if faults:
        raise one_or_all(faults)
    return _run(bids_dir, item, chosen, mask, confounds, found[-1].path if found else None, fields)


def _run(
    bids_dir: Path,
    item: Derived,
    chosen: Chosen,
    mask: Held | None,
    confounds: Held | None,
    events: Path | None,
    fields: dict[str, Any],
) -> RunFiles:
    used = [*chosen.bold, *([mask] if mask else []), *([confounds] if confounds else []), *chosen.anatomy.values()]
    first, given = chosen.bold[0].name, chosen.rung == GIVEN
    sources = [f"bids:{held.source}:{held.path.relative_to(held.root).as_posix()}" for held in used]
    return RunFiles(
        participant=item.entities["sub"],
        session=item.entities.get("ses", ""),
        task=item.entities.get("task", ""),
        run=item.entities.get("run", ""),
        entities=item.entities,
        bold=tuple(held.path for held in chosen.bold),
        mask=mask.path if mask else None,
        confounds=confounds.path if confounds else None,
        events=events,
        sidecar=fields,
        sources=(*sources, *([f"bids:raw:{events.relative_to(bids_dir).as_posix()}"] if events else [])),
        space=space_of(first)[0] if given else FSAVERAGE,
        resolution=first.entities.get("res", "") if given else "",
        rung=chosen.rung,
        anatomy={kind: held.path for kind, held in chosen.anatomy.items()},
    )


def events_of(bids_dir: Path, item: Derived, wanted: Wanted, folders: Folders) -> list[Found]:
    """Tables of events that apply to a run, the most specific last; those that a filter may choose are among them."""
    beyond = wanted.filters["events"].keys()
    return applicable(folders, bids_dir, _raw_folder(bids_dir, item), item.entities, "events", ".tsv", beyond)


def _raw_folder(bids_dir: Path, item: Derived) -> Path:
    session = (f"ses-{item.entities['ses']}",) if "ses" in item.entities else ()
    return bids_dir.joinpath(f"sub-{item.entities['sub']}", *session, "func")


def _mask(item: Derived, bold: Held, wanted: Wanted) -> Held:
    wish = wanted.filters["mask"]
    there = [held for held in item.files if is_mask(held.name, wish) and passes(wish, held.name)]
    near = [held for held in there if _grid(held.name) == _grid(bold.name)]
    if near:
        # XCP-D writes no mask in some versions; fMRIPrep's is on the same grid.
        return min(near, key=lambda held: held.root != bold.root)
    space, filtered = bold.name.entities["space"], f" that passes the filter {say(wish)}" if wish else ""
    found = ", ".join(sorted(held.path.name for held in there))
    expected = f"..._space-{space}_desc-brain_mask.nii.gz, which fMRIPrep writes beside the BOLD"
    raise MissingInputError(
        f"no brain mask for {item.stem}{filtered}",
        item.folder,
        expected=expected + (f"; found {found}" if found else ""),
        remedy=f"run fMRIPrep again for this run, with --output-spaces {space.replace('+', ':cohort-')}",
    )


def _grid(name: Name) -> tuple[str, str]:
    return space_of(name)[0], plain(name.entities.get("res", ""))


def _confounds(item: Derived, wanted: Wanted, bold: Sequence[Held]) -> Held | None:
    series = bold or [held for held in item.files if is_bold(held.name, wanted.filters["bold"])]
    if series and all(is_denoised(held.name) for held in series):
        if wanted.confounds:
            _warn_of_denoised(series[0].root)
        return None
    wish = wanted.filters["confounds"]
    there = [held for held in item.files if is_confounds(held.name, wish) and passes(wish, held.name)]
    if there:
        return min(there, key=lambda held: _age(held.name))
    if wanted.confounds:
        filtered = f" that pass the filter {say(wish)}" if wish else ""
        raise MissingInputError(
            f"no confounds for {item.stem}{filtered}",
            item.folder,
            expected="..._desc-confounds_timeseries.tsv, which fMRIPrep always writes",
            remedy='restore it, or regress out nothing: --set input.confounds="[]"',
        )
    return None


def _age(name: Name) -> int:
    kind = (name.suffix, name.entities.get("desc", ""))
    return CONFOUNDS.index(kind) if kind in CONFOUNDS else len(CONFOUNDS)


@functools.cache
def _warn_of_denoised(root: Path) -> None:
    LOGGER.warning(
        "%s holds denoised series: confounds were regressed out upstream and are not again; volumes must not have been removed",
        root,
    )


def _sidecar(bids_dir: Path, item: Derived, bold: Held, folders: Folders) -> dict[str, Any]:
    """Merged fields; old fMRIPrep wrote no sidecars for GIFTI, or none with a TR, so those of the run's other series stand in."""
    # Derivatives of several echoes are one file without the key; what the first echo says of time holds for all.
    recorded = item.entities | {"echo": "1", "part": "mag"}
    raw = applicable(folders, bids_dir, _raw_folder(bids_dir, item), recorded, "bold", ".json")
    fields = merged([found.path for found in raw])
    if any("echo" in found.name.entities for found in raw):
        fields.pop("EchoTime", None)
    own = _own(bold, folders)
    if "RepetitionTime" not in own:
        for held in item.files:
            if held.root == bold.root and is_bold(held.name, {}):
                fields |= _own(held, folders)
    fields |= own
    if not fields.keys() & {"RepetitionTime", "VolumeTiming"}:
        raise _no_tr(item, bold.path)
    return fields


def _own(held: Held, folders: Folders) -> dict[str, Any]:
    found = applicable(folders, held.root, held.path.parent, held.name.entities, "bold", ".json")
    return merged([item.path for item in found])


def _no_tr(item: Derived, path: Path) -> InputError:
    sidecar = f"task-{item.entities.get('task', 'x')}_bold.json"
    remedy = f"add RepetitionTime (s) to the sidecar of the raw BOLD, e.g. {sidecar}"
    return MissingInputError(f"no RepetitionTime for {item.stem}", path, expected="a JSON sidecar that has it", remedy=remedy)
