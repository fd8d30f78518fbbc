"""What a fault is for these tests, and the small changes to files that most of them are made of."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

RUNS = (1, 2, 3)
BOLD, MASK, SIDECAR = "space-T1w_desc-preproc_bold.nii.gz", "space-T1w_desc-brain_mask.nii.gz", "space-T1w_desc-preproc_bold.json"
CONFOUNDS = "desc-confounds_timeseries.tsv"

PARTICIPANT, ONE, CALL = "participant", "one", "call"


@dataclass(frozen=True)
class FaultCase:
    """Something that is wrong or odd with the small study or with how it is called, and how that must end.

    Parameters
    ----------
    topic, name : str
        Heading and first column on the page of faults.
    damage : callable, optional
        Study -> further options of the command line, or None. It changes participant 01 or what both share.
    code : int
        Exit code; 0 for what must simply work.
    words : tuple of str
        That the line must have; of what works, that something logged must have.
    options : tuple of str
        Of the command line; ``{root}`` stands for the folder of the study.
    whose : {"participant", "one", "call"}
        Whose fault it is: of participant 01, beside whom 02 must be done; of what 01 was asked for with these settings; of the
        command line, which ends before any participant.
    who : str
        Participant that is asked for.
    study : {"volume", "surface", "story"}
    out, work : str
        Output and work folder below that of the study, where they matter.
    level : str
    limit : int
        Largest size of a file in bytes that the system lets the run write; 0 for no limit.
    fresh : tuple of (name, value)
        Environment of a process of its own; empty to run in this one.
    check : callable, optional
        For what works: (study, how it ended, study where nothing was odd) -> None, with more to assert.
    same : bool
        For what works: texts and figures must be those of the study where nothing was odd, to the byte.
    """

    topic: str
    name: str
    damage: Callable[[Any], Sequence[str] | None] | None = None
    code: int = 65
    words: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    whose: str = PARTICIPANT
    who: str = "01"
    study: str = "volume"
    out: str = "out"
    work: str = "work"
    level: str = "participant"
    limit: int = 0
    fresh: tuple[tuple[str, str], ...] = ()
    check: Callable[[Any, Any, Any], None] | None = None
    same: bool = False


def edit(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change a table as text."""
    change(pd.read_csv(path, sep="\t", keep_default_na=False)).to_csv(path, sep="\t", index=False)


def rewrite_bytes(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def cut(path: Path) -> None:
    """Take away the last tenth of a file."""
    rewrite_bytes(path, lambda content: content[: len(content) * 9 // 10])


def rewrite_image(path: Path, change: Callable[[np.ndarray], np.ndarray], step: float = 2.0, unit: str = "sec") -> None:
    """Change the numbers of a NIfTI file; the header says a TR of ``step``."""
    image: Any = nib.load(path)
    out = nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine)
    if out.ndim == 4:
        out.header.set_zooms((3.0, 3.0, 3.0, step))
        out.header.set_xyzt_units("mm", unit)
    nib.save(out, path)


def rewrite_gifti(path: Path, change: Callable[[np.ndarray], np.ndarray], meta: dict[str, str] | None = None) -> None:
    """Change the rows of a GIFTI file."""
    image: Any = nib.load(path)
    rows = change(np.stack([array.data for array in image.darrays]))
    arrays = [nib.gifti.GiftiDataArray(row, intent="NIFTI_INTENT_TIME_SERIES", datatype="NIFTI_TYPE_FLOAT32") for row in rows]
    nib.save(nib.GiftiImage(darrays=arrays, meta=nib.gifti.GiftiMetaData(meta or {})), path)


def folder_in_place(path: Path) -> None:
    """What cannot be read even by root."""
    path.unlink()
    path.mkdir()


def not_fetched(path: Path) -> None:
    """A link to content that git-annex has not fetched."""
    path.unlink()
    path.symlink_to("../../.git/annex/objects/absent")


def link_to_itself(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def copy_llm(study: Any) -> tuple[Path, list[str]]:
    """A copy of the language model, which may be damaged, and the option that names it."""
    folder = study.root / "llm"
    shutil.copytree(study.settings[study.settings.index("--llm") + 1], folder)
    return folder, ["--set", f"model.llm={folder}"]


def captions(study: Any) -> Path:
    path: Path = study.bids / "stimuli" / "captions.tsv"
    return path
