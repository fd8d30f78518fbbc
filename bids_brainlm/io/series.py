"""Which BOLD series of a run is read: the space, density and resolution, raw or denoised, one file or two.

A *space* is what ``--output-spaces`` of fMRIPrep calls it, with the modifiers ``res`` and ``cohort`` where they are needed:
``T1w``, ``MNI152NLin2009cAsym:res-2``, ``MNIInfant:cohort-1`` (also written ``MNIInfant+1``). A *denoised* series
(``desc-denoised``, XCP-D) had its confounds regressed out when it was made: none are needed, and none are taken out again.
CIFTI series (``.dtseries.nii``) are read where they are projected (`bids_brainlm.io.rungs`), and else only named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bids_brainlm.config import Input
from bids_brainlm.errors import ConfigError, InputError, MissingInputError
from bids_brainlm.io.filters import Filter, passes, read, say
from bids_brainlm.io.names import Name, natural, plain
from bids_brainlm.io.sidecars import Found

SPACES = {"fsaverage4": ("fsaverage", "3k"), "fsaverage5": ("fsaverage", "10k"), "fsaverage6": ("fsaverage", "41k")}
"""Deprecated space label -> (space, density)."""

CIFTI = ".dtseries.nii"

DENSITY_ORDER = ("3k", "10k", "41k", "164k", "")


@dataclass(frozen=True)
class Wanted:
    """What is looked for in every run.

    Parameters
    ----------
    space : str
        ``fsaverage`` is any density, ``fsaverage5`` is density 10k.
    resolution : str
        ``res-`` label of a volume; any when empty.
    density : str
        Wanted of a surface that comes in several; empty when there must be one.
    filters : dict of str to Filter
        By query.
    confounds, events : bool
        Whether a run without them is at fault.
    eventless : bool
        Whether a run may have no events, since what was heard in it may be known from its name.
    projection : bool
        Whether what is not on fsaverage may be brought there.
    """

    space: str
    resolution: str
    density: str
    filters: dict[str, Filter]
    confounds: bool
    events: bool
    projection: bool = False
    eventless: bool = False

    @property
    def option(self) -> str:
        """The space as ``--output-spaces`` of fMRIPrep takes it."""
        return self.space.replace("+", ":cohort-") + (f":res-{self.resolution}" if self.resolution else "")


@dataclass(frozen=True)
class Held(Found):
    """A file of some derivatives data set."""

    source: str
    root: Path


@dataclass
class Derived:
    """What the derivatives hold of one run; ``roots`` are all derivatives that were looked into, by name."""

    entities: dict[str, str]
    files: list[Held] = field(default_factory=list)
    roots: Mapping[str, Path] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        """``sub-01_task-x_run-1``."""
        return "_".join(f"{key}-{value}" for key, value in self.entities.items())

    @property
    def folder(self) -> Path:
        """Folder of the participant in the derivatives, for messages."""
        return self.files[0].root / f"sub-{self.entities['sub']}"


def wanted_of(settings: Input, eventless: bool = False) -> Wanted:
    """What the settings ask for, of runs that may have no events or must have some.

    Raises
    ------
    ConfigError
        For a filter or a modifier of the space that is unknown.
    """
    space, *modifiers = settings.space.split(":")
    named = {key: value for key, _, value in (modifier.partition("-") for modifier in modifiers)}
    if not all(named.values()) or not named.keys() <= {"res", "cohort"}:
        remedy = "use --density" if "den" in named else "expected NAME, NAME:res-2 or NAME:cohort-1"
        raise ConfigError(f"no space {settings.space!r}; {remedy}")
    space += f"+{named['cohort']}" if "cohort" in named else ""
    needed = {"confounds": bool(settings.confounds), "events": bool(settings.tasks)}
    needed |= {"projection": settings.projection == "auto", "eventless": eventless}
    return Wanted(space, named.get("res", ""), settings.density, read(settings.filters), **needed)


def is_bold(name: Name, wanted: Filter) -> bool:
    """A preprocessed or denoised BOLD series: neither a single echo nor a phase image, unless a filter asks for it."""
    held = name.entities
    surface = name.extension in (".func.gii", CIFTI)
    if name.suffix != "bold" or not (surface or name.extension in (".nii", ".nii.gz")):
        return False
    if ("echo" in held and "echo" not in wanted) or (held.get("part") == "phase" and "part" not in wanted):
        return False
    return "desc" in wanted or held.get("desc", "") in ("preproc", "denoised", *([""] if surface else []))


def space_of(name: Name) -> tuple[str, str]:
    """Space and density that a name tells."""
    held = name.entities
    label = held.get("space", "") + (f"+{held['cohort']}" if "cohort" in held else "")
    return SPACES.get(label, (label, held.get("den", "")))


def _in_space(name: Name, wanted: Wanted) -> bool:
    found = space_of(name)
    if wanted.resolution and plain(wanted.resolution) != plain(name.entities.get("res", "")):
        return False
    space = wanted.space
    return found == SPACES[space] if space in SPACES else space in (found[0], found[0].partition("+")[0])


Key = tuple[Path, str, str, str, str, str, str, str]
"""Root, density, space, extension, ``res``, ``desc``, ``echo``, ``part``: what sets the variants of a series apart."""

Variants = dict[Key, dict[str, Held]]
"""Files of each variant by hemisphere, which is empty for a volume or CIFTI."""


def choose(item: Derived, wanted: Wanted) -> tuple[Held, ...]:
    """The BOLD series in the wanted space, of the density nearest above the wanted one.

    Raises
    ------
    MissingInputError
        When there is none, or only one hemisphere.
    InputError
        When two files claim to be the same, or several would do.
    """
    found = variants(item, wanted, lambda name: name.extension != CIFTI and _in_space(name, wanted))
    if not found:
        raise no_bold(item, wanted)
    return pair(only(found, wanted, item))


def variants(item: Derived, wanted: Wanted, fits: Callable[[Name], bool]) -> Variants:
    """BOLD series of a run that pass the filters and are of a kind.

    Raises
    ------
    InputError
        When two files claim to be the same series, or it is in two derivatives.
    """
    wish = wanted.filters["bold"]
    found: Variants = {}
    for held in item.files:
        named = held.name.entities
        if "space" in named and is_bold(held.name, wish) and fits(held.name) and passes(wish, held.name):
            others = [plain(named.get(key, "")) for key in ("res", "desc", "echo", "part")]
            space, density = space_of(held.name)
            key = (held.root, density, space, held.name.extension, *others)
            # The key has as many parts as its type says: four that are named, four others.
            twin = found.setdefault(key, {}).setdefault(named.get("hemi", ""), held)  # type: ignore[arg-type]
            if twin is not held:
                remedy = f"keep this one or {twin.path.name}"
                raise InputError("two files claim to be the same series", held.path, expected="one", remedy=remedy)
    roots = {key[0]: next(iter(files.values())) for key, files in found.items()}
    if len(roots) > 1:
        first, second, *_ = roots.values()
        what = f"the same run is in {first.source} and {second.source}"
        raise InputError(what, second.path, remedy="say which to use: -d NAME=PATH")
    return found


def no_bold(item: Derived, wanted: Wanted, hint: str = "") -> MissingInputError:
    """That there is no series in the wanted space, what there is instead, and what makes one."""
    wish = wanted.filters["bold"]
    every = [held.name for held in item.files if is_bold(held.name, wish) and "space" in held.name.entities]
    spaces = sorted({_label(name) for name in every}, key=natural)
    space, filtered = wanted.option, f" that passes the filter {say(wish)}" if wish else ""
    what = f"no BOLD series of {item.stem} in space {space}{filtered}"
    if any(_in_space(name, wanted) and name.extension == CIFTI for name in every):
        what = f"only a CIFTI series of {item.stem} in space {space}{filtered}, which is not read"
    option = "fsaverage5 (10k) or fsaverage:den-41k" if space in ("fsaverage", "fsLR") else space
    remedy = f"run fMRIPrep with --output-spaces {option}" + (", or choose another --space" if spaces else "")
    if every and all(is_denoised(name) for name in every):
        remedy = f"{remedy}; XCP-D keeps volumes with --file-format nifti only; surfaces: -d fmriprep=PATH"
    remedy += f"; {hint}" if hint else ""
    return MissingInputError(what, item.folder, expected=f"one in {space}; found {', '.join(spaces) or 'none'}", remedy=remedy)


def _label(name: Name) -> str:
    """A space as ``--space`` takes it, and what else sets the file apart."""
    label, held = name.entities["space"] + (f"+{name.entities['cohort']}" if "cohort" in name.entities else ""), name.entities
    modifiers = "".join(f":{key}-{held[key]}" for key in ("res", "den") if key in held)
    return label + modifiers + (" (CIFTI)" if name.extension == CIFTI else "")


def is_denoised(name: Name) -> bool:
    """Whether confounds were regressed out of a series when it was made."""
    return name.entities.get("desc", "").startswith("denoised")


def only(variants: Mapping[Key, dict[str, Held]], wanted: Wanted, item: Derived) -> dict[str, Held]:
    """The variant to read: surfaces can be brought to a lower density, anything else must be the only one."""
    surfaces = {key: files for key, files in variants.items() if "" not in files}
    # Only densities may differ: raw and denoised surfaces are not to be chosen from.
    alike = len({key[2:] for key in surfaces}) == 1 and len(surfaces) == len(variants)
    if len(variants) > 1 and alike and wanted.density:
        rank = {key: DENSITY_ORDER.index(key[1]) if key[1] in DENSITY_ORDER else len(DENSITY_ORDER) for key in surfaces}
        enough = [key for key in surfaces if rank[key] >= DENSITY_ORDER.index(wanted.density)]
        return surfaces[min(enough, key=rank.__getitem__)] if enough else surfaces[max(rank, key=rank.__getitem__)]
    if len(variants) > 1:
        held = [held for files in variants.values() for held in files.values()]
        names = ", ".join(sorted(file.path.name for file in held))
        filtered = "choose one, as --space NAME:res-2 or by desc, res ... in --bids-filter-file"
        remedy = "choose a --density" if alike else filtered
        raise InputError(f"several BOLD series of {item.stem}: {names}", held[0].path.parent, expected="one", remedy=remedy)
    return next(iter(variants.values()))


def pair(files: dict[str, Held]) -> tuple[Held, ...]:
    """Left and right file, or the only one.

    Raises
    ------
    MissingInputError
        When one hemisphere is missing.
    """
    if "" in files:
        return (files[""],)
    for side, other in (("L", "R"), ("R", "L")):
        if side not in files:
            path = files[other].path
            name = path.name.replace(f"hemi-{other}", f"hemi-{side}").replace(f".{other}.func", f".{side}.func")
            space = files[other].name.entities["space"]
            remedy = f"run fMRIPrep again for this run, with --output-spaces {space}"
            raise MissingInputError("one hemisphere is missing", path.with_name(name), remedy=remedy)
    return files["L"], files["R"]
