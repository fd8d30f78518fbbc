"""The ladder to fsaverage: what is taken of a run that fMRIPrep did not sample onto fsaverage itself.

With ``--space fsaverage`` the best *rung* there is serves, judged by file names alone:

1. ``given``: surfaces on fsaverage, of a density that is high enough (unknown by name counts as high enough);
2. ``cifti``: a ``dtseries`` on fsLR, through the spheres of fsLR deformed to fsaverage;
3. ``native``: a volume in T1w space, through the participant's own white and pial surfaces and registration sphere;
4. ``template``: a volume in MNI152 space, on the surfaces of fsaverage itself, which is only approximate.

``--projection none`` stops at the first. The participant's surfaces lie in ``anat``, of the session of the run, of no session, or
of the only session that has them, in any of the derivatives.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.io.names import Name, natural
from bids_brainlm.io.series import (
    CIFTI,
    DENSITY_ORDER,
    SPACES,
    Derived,
    Held,
    Key,
    Wanted,
    choose,
    no_bold,
    only,
    pair,
    space_of,
    variants,
)
from bids_brainlm.io.sidecars import Folders, Found

LOGGER = logging.getLogger(__name__)

GIVEN, CIFTI_RUNG, NATIVE, TEMPLATE = RUNGS = ("given", "cifti", "native", "template")
"""Names of the rungs, best first."""

FSAVERAGE = "fsaverage"

SPHERES = "spheres"
"""Name given to ``--derivatives`` of a folder with the spheres of fsLR deformed to fsaverage."""

MAKES = {
    GIVEN: "--output-spaces fsaverage5 (10k) or fsaverage:den-41k",
    CIFTI_RUNG: "--cifti-output 91k",
    NATIVE: "--output-spaces T1w, without --fs-no-reconall (fMRIPrep 23.1 or newer writes the sphere)",
    TEMPLATE: "--output-spaces MNI152NLin2009cAsym",
}
"""Options of fMRIPrep that make a rung."""

_SERIES = {CIFTI_RUNG: "the CIFTI series", NATIVE: "the volume in T1w", TEMPLATE: "the volume in MNI152 (approximately)"}

NEEDED = tuple(f"{kind}-{side}" for kind in ("white", "pial", "sphere") for side in "LR")
"""Surfaces without which there is no projection from T1w."""

CORTEX = ("cortex-L", "cortex-R")
"""Masks of cortex, which old versions of fMRIPrep did not write."""

GRIDS = {"91k": "32k", "170k": "59k"}
"""Density of a CIFTI file -> of its surfaces."""

SPHERE_NAMES = (
    "tpl-fsLR_space-fsaverage_hemi-{side}_den-{density}_sphere.surf.gii",
    "fs_LR-deformed_to-fsaverage.{side}.sphere.{density}_fs_LR.surf.gii",
)
"""What TemplateFlow and HCP call the spheres of fsLR deformed to fsaverage."""


@dataclass(frozen=True)
class Chosen:
    """What is read of a run.

    Parameters
    ----------
    bold : tuple of Held
        Left and right GIFTI file, or one NIfTI or CIFTI file.
    rung : str
        One of `RUNGS`.
    anatomy : dict of str to Held
        Surfaces that the projection needs.
    """

    bold: tuple[Held, ...]
    rung: str = GIVEN
    anatomy: dict[str, Held] = field(default_factory=dict)


def climb(item: Derived, wanted: Wanted, folders: Folders) -> Chosen:
    """The series of a run on the best rung, with what it needs.

    Raises
    ------
    MissingInputError
        When no rung serves; it says what the better ones lack.
    InputError
        When two files claim to be the same, or several would do.
    """
    if wanted.space != FSAVERAGE and wanted.space not in SPACES:
        return Chosen(choose(item, wanted))
    given = variants(item, wanted, lambda name: _is_surface(name, wanted))
    files = pair(only(given, wanted, item)) if given else ()
    ladder = wanted.space == FSAVERAGE and wanted.projection
    if given and (not ladder or _fine_enough(files[0].name, wanted)):
        return Chosen(files)
    if not ladder:
        raise no_bold(item, wanted, _hint(item, wanted, folders))
    lacking: list[str] = []
    found = next(_below(item, wanted, folders, lacking), Chosen(files))
    if not found.bold:
        raise no_bold(item, wanted, "; ".join(lacking))
    if found.rung == TEMPLATE:
        _warn_of_template(item.folder, "; ".join(lacking))
    return found


def _is_surface(name: Name, wanted: Wanted) -> bool:
    found = space_of(name)
    return name.extension != CIFTI and (found == SPACES.get(wanted.space) or found[0] == wanted.space)


def _fine_enough(name: Name, wanted: Wanted) -> bool:
    density = space_of(name)[1]
    known = density in DENSITY_ORDER and bool(wanted.density)
    return not known or DENSITY_ORDER.index(density) >= DENSITY_ORDER.index(wanted.density)


def _below(item: Derived, wanted: Wanted, folders: Folders, lacking: list[str]) -> Iterator[Chosen]:
    """What the rungs below the first offer, best first; why one does not serve is added to ``lacking``."""
    files = _first(item, wanted, _is_cifti, lambda key: natural(key[1]))
    if files:
        yield Chosen(files, CIFTI_RUNG, _spheres(item, files[0].name))
    files = _first(item, wanted, lambda name: _is_volume(name, "T1w"), _by_resolution)
    if files:
        anatomy, fault = _surfaces(item, files[0].root, folders)
        if not fault:
            yield Chosen(files, NATIVE, anatomy)
        lacking.append(f"the volume in T1w would serve with the participant's surfaces, but {fault} (fMRIPrep: {MAKES[NATIVE]})")
    files = _first(item, wanted, lambda name: _is_volume(name, "MNI152"), _by_template)
    if files:
        yield Chosen(files, TEMPLATE)


def _hint(item: Derived, wanted: Wanted, folders: Folders) -> str:
    """Which option would take what there is."""
    with contextlib.suppress(InputError):
        for found in _below(item, wanted, folders, []):
            option = "--projection auto"
            if wanted.space in SPACES:
                option = f"--space fsaverage --density {SPACES[wanted.space][1]}"
            return f"or {option}, which brings {_SERIES[found.rung]} to fsaverage"
    return ""


@functools.cache
def _warn_of_template(folder: Path, lacking: str) -> None:
    better = f"; {lacking}" if lacking else f"; better is also {MAKES[NATIVE]}"
    LOGGER.warning(
        "%s: volumes in MNI152 are sampled on the surfaces of fsaverage itself, which is only approximate "
        "(remedy: run fMRIPrep with %s%s)",
        folder, MAKES[GIVEN], better,
    )  # fmt: skip


def _is_cifti(name: Name) -> bool:
    return name.extension == CIFTI and name.entities.get("space") == "fsLR"


def _is_volume(name: Name, space: str) -> bool:
    return name.extension in (".nii", ".nii.gz") and name.entities.get("space", "").startswith(space)


def _first(
    item: Derived, wanted: Wanted, fits: Callable[[Name], bool], rank: Callable[[Key], tuple[object, ...]]
) -> tuple[Held, ...]:
    """The variant with the lowest rank; of several with the same one, `only` decides or refuses."""
    found = variants(item, wanted, fits)
    if not found:
        return ()
    best = min(map(rank, found))
    return pair(only({key: files for key, files in found.items() if rank(key) == best}, wanted, item))


def _by_resolution(key: Key) -> tuple[object, ...]:
    """That of the acquisition first, then the finest grid."""
    return (key[4] not in ("", "native"), key[4] != "", natural(key[4]))


def _by_template(key: Key) -> tuple[object, ...]:
    """The default of fMRIPrep first."""
    return (key[2] != "MNI152NLin2009cAsym", natural(key[2]), *_by_resolution(key))


def _surfaces(item: Derived, root: Path, folders: Folders) -> tuple[dict[str, Held], str]:
    """White, pial and registered sphere of both hemispheres, and cortex masks where there are; or what is missing."""
    label, session = item.entities["sub"], item.entities.get("ses", "")
    sets: dict[tuple[str, object], dict[str, Held]] = {}
    places = {path: name for name, path in item.roots.items() if name != SPHERES}
    for place in sorted(places, key=lambda path: path != root):
        for file in _anatomical(place / f"sub-{label}", folders):
            kind = _kind(file.name)
            if kind:
                own = sets.setdefault((file.name.entities.get("ses", ""), (place, file.name.run)), {})
                if kind not in own or _preferred(file.name):
                    own[kind] = Held(file.path, file.name, places[place], place)
    whole = {key: held for key, held in sets.items() if all(kind in held for kind in NEEDED)}
    near = [held for wanted in (session, "") for key, held in whole.items() if key[0] == wanted]
    if near or len(whole) == 1:
        found = (near or list(whole.values()))[0]
        return {kind: found[kind] for kind in (*NEEDED, *CORTEX) if kind in found}, ""
    if whole:
        return {}, f"those of sessions {', '.join(sorted(key[0] for key in whole))} are not of session {session or '(none)'}"
    most: dict[str, Held] = max(sets.values(), key=len, default={})
    missing = ", ".join(kind for kind in NEEDED if kind not in most)
    return {}, f"{missing} are not in anat" if most else "there are none in anat"


def _anatomical(folder: Path, folders: Folders) -> Iterator[Found]:
    places = [folder, *(folder / name for name in folders(folder).names if name.startswith("ses-"))]
    for place in places:
        if "anat" in folders(place).names:
            yield from folders(place / "anat").files


def _kind(name: Name) -> str:
    """``white-L`` ..., or empty for what no projection needs."""
    held, side = name.entities, name.entities.get("hemi", "")
    space, desc = held.get("space", ""), held.get("desc", "")
    if side not in ("L", "R") or "den" in held:
        return ""
    if name.extension == ".surf.gii" and not (space or desc) and name.suffix in ("white", "smoothwm", "pial"):
        return f"{'white' if name.suffix == 'smoothwm' else name.suffix}-{side}"
    if (name.extension, name.suffix, desc) == (".surf.gii", "sphere", "reg") and space in ("", FSAVERAGE):
        return f"sphere-{side}"
    cortex = (name.extension, name.suffix, desc, space) == (".label.gii", "mask", "cortex", "")
    return f"cortex-{side}" if cortex else ""


def _preferred(name: Name) -> bool:
    """Today's name of what older versions called otherwise."""
    return name.suffix == "white" or name.entities.get("space") == FSAVERAGE


def _spheres(item: Derived, name: Name) -> dict[str, Held]:
    """The user's spheres of fsLR deformed to fsaverage, by TemplateFlow's names or HCP's; none where TemplateFlow's serve.

    Raises
    ------
    MissingInputError
        Naming the file that is not there.
    """
    out: dict[str, Held] = {}
    if SPHERES not in item.roots:
        return out
    folder, density = item.roots[SPHERES], fslr_density(name)
    for side in "LR":
        path, names = own_sphere(folder, side, density)
        if path is None:
            what = f"no sphere of fsLR ({density}) deformed to fsaverage"
            raise MissingInputError(what, folder, expected=" or ".join(names), remedy=f"-d {SPHERES}=FOLDER")
        out[f"sphere-{side}"] = Held(path, Name({"hemi": side}, "sphere", ".surf.gii"), SPHERES, folder)
    return out


def own_sphere(folder: Path, side: str, density: str) -> tuple[Path | None, list[str]]:
    """A sphere of fsLR deformed to fsaverage in a folder of the user's, and the names that were looked for."""
    names = [pattern.format(side=side, density=density) for pattern in SPHERE_NAMES]
    return next((folder / name for name in names if (folder / name).exists()), None), names


def fslr_density(name: Name) -> str:
    """Density of the surfaces of a CIFTI file, as its name says it."""
    return GRIDS.get(name.entities.get("den", ""), "32k")
