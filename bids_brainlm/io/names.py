"""BIDS file names <-> entities.

An *entity* is a key-value part of a file name (``task-story``); the *suffix* is the last part before the *extension*
(``bold`` in ``..._bold.func.gii``). Entities are kept under the short keys of the file names (``sub``, ``ses``, ``acq``),
in the order of BIDS; what is no entity of BIDS (``stat``) stands just before ``desc``, which is always last. Names of fMRIPrep
before 20 are read as if they had been written today.

>>> parse("sub-01_task-story_bold_space-T1w_preproc.nii.gz").entities
{'sub': '01', 'task': 'story', 'space': 'T1w', 'desc': 'preproc'}
>>> bids_name({"desc": "LSS", "task": "story", "sub": "01", "stat": "effect", "hemi": "L"}, "statmap", ".func.gii")
'sub-01_task-story_hemi-L_stat-effect_desc-LSS_statmap.func.gii'
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ENTITIES = {
    "sub": "subject", "tpl": "template", "ses": "session", "cohort": "cohort", "sample": "sample", "task": "task",
    "tracksys": "tracksys", "acq": "acquisition", "nuc": "nucleus", "voi": "volume", "ce": "ceagent", "trc": "tracer",
    "stain": "staining", "rec": "reconstruction", "dir": "direction", "run": "run", "mod": "modality", "echo": "echo",
    "flip": "flip", "inv": "inv", "mt": "mt", "part": "part", "proc": "proc", "hemi": "hemi", "space": "space",
    "split": "split", "recording": "recording", "chunk": "chunk", "atlas": "atlas", "seg": "segmentation", "scale": "scale",
    "res": "res", "den": "den", "label": "label", "stat": "stat", "desc": "desc",
}  # fmt: skip
"""Short key -> pybids' name, in the order of BIDS file names."""

OUTPUT_KEYS = frozenset({"hemi", "space", "cohort", "res", "den", "label", "atlas", "seg", "scale", "stat", "desc"})
"""Entities that say how a run was processed, not which run it is."""

PART_KEYS = frozenset({"echo", "part"})
"""Entities that say which part of the signal of a run is in a file; fMRIPrep combines echoes and leaves the key out."""

OLD_NAMES = (
    (re.compile(r"_bold(_space-[^_.]+)?_preproc\.nii"), r"\1_desc-preproc_bold.nii"),
    (re.compile(r"_bold(_space-[^_.]+)?_brainmask\.nii"), r"\1_desc-brain_mask.nii"),
    (re.compile(r"_bold_(space-[^_.]+)\.([LR])\.func\.gii"), r"_hemi-\2_\1_bold.func.gii"),
    (re.compile(r"(_hemi-[LR])\.func\.gii"), r"\1_bold.func.gii"),
)
"""What fMRIPrep 1.x wrote -> what it stands for today (the first three up to 1.1)."""

_OF_SUBJECT = re.compile(r"(?:sub-([^_.]+)_(?:ses-([^_.]+)_)?)?(.*)", re.DOTALL)


@dataclass(frozen=True)
class Name:
    """A parsed file name."""

    entities: dict[str, str]
    suffix: str
    extension: str

    @property
    def run(self) -> tuple[tuple[str, str], ...]:
        """What identifies the run: entities but those of processing and of parts, run numbers without leading zeros."""
        return tuple((key, plain(value)) for key, value in self.entities.items() if key not in OUTPUT_KEYS | PART_KEYS)


def parse(path: str | os.PathLike[str]) -> Name:
    """Entities, suffix and extension of a BIDS path.

    pybids says what it knows. Entities that it does not know (``scale``, or one of the user's own) and values that it cuts
    short (``inv-1a`` to ``1``) are carried as they stand, so that no two files become one.
    """
    # Participants differ in nothing but these labels: without them, pybids reads the names of one for all of a data set.
    # Every name matches, since each part of the pattern may be empty.
    sub, ses, rest = _OF_SUBJECT.fullmatch(os.path.basename(path)).groups()  # type: ignore[union-attr]
    name = _parse(rest)
    return Name({key: value for key, value in (("sub", sub), ("ses", ses)) if value} | name.entities, name.suffix, name.extension)


@lru_cache(maxsize=2**16)
def _parse(name: str) -> Name:
    from bids.layout import parse_file_entities  # takes 0.4 s to import

    for old, new in OLD_NAMES:
        name = old.sub(new, name)
    stem, dot, extension = name.partition(".")
    *parts, suffix = stem.split("_")
    known = parse_file_entities(f"/{name}")
    held = {key: str(known[long]) for key, long in ENTITIES.items() if long in known}
    held |= {key: value for key, _, value in (part.partition("-") for part in parts) if value}
    return Name(in_order(held), str(known.get("suffix", suffix)), dot + extension)


def in_order(entities: Mapping[str, str]) -> dict[str, str]:
    """The same entities in the order of BIDS."""
    order = {key: i for i, key in enumerate(ENTITIES)}
    unknown = order["stat"]
    return dict(sorted(entities.items(), key=lambda item: order.get(item[0], unknown)))


def bids_name(entities: Mapping[str, str], suffix: str, extension: str) -> str:
    """File name of some entities; those with an empty value are left out.

    Raises
    ------
    ValueError
        For a value that is not letters, digits or ``+``, which would make another name when parsed.
    """
    parts = []
    for key, value in in_order(entities).items():
        if value and not re.fullmatch(r"[0-9A-Za-z+]+", value):
            raise ValueError(f"{key}-{value} cannot stand in a file name; expected letters and digits")
        if value:
            parts.append(f"{key}-{value}")
    return "_".join([*parts, suffix]) + extension


def bids_folder(entities: Mapping[str, str], datatype: str) -> Path:
    """Folder of a file, relative to its data set.

    >>> bids_folder({"sub": "01", "ses": "2"}, "func").as_posix()
    'sub-01/ses-2/func'
    """
    session = [f"ses-{entities['ses']}"] if entities.get("ses") else []
    return Path(f"sub-{entities['sub']}", *session, datatype)


def run_entities(entities: Mapping[str, str]) -> dict[str, str]:
    """Only what identifies the run, in the order of BIDS."""
    return {key: value for key, value in in_order(entities).items() if key not in OUTPUT_KEYS}


def plain(value: str) -> str:
    """A value without leading zeros, so that run 1 is run 01.

    >>> plain("01"), plain("0"), plain("a01")
    ('1', '0', 'a01')
    """
    return str(int(value)) if value.isascii() and value.isdigit() else value


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sorting key that puts run 2 before run 10."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|\D+", text))
