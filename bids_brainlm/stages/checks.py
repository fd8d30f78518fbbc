"""What is wrong with a request itself, told once however many participants it has.

Names of the settings, the tables they name, the atlas, the language model, and whether the output can be written. Nothing is
fetched: with a network, a model or template that is not on this machine yet is no fault.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from bids_brainlm.config import Request
from bids_brainlm.core.types import DENSITIES
from bids_brainlm.errors import BrainLMError, MissingResourceError, OutputError, collecting, one_or_all
from bids_brainlm.io.atlases import load_atlas
from bids_brainlm.io.layout import participants
from bids_brainlm.io.projection import DENSITY, is_projected, templates_of
from bids_brainlm.io.runfiles import RunFiles
from bids_brainlm.io.rungs import FSAVERAGE
from bids_brainlm.io.series import SPACES
from bids_brainlm.io.surfaces import Volume, common_mask
from bids_brainlm.models import sources
from bids_brainlm.stages.cache import Stage
from bids_brainlm.stages.facts import left_out_of, load_facts
from bids_brainlm.stages.plan import unknown_names
from bids_brainlm.stages.preflight import survey
from bids_brainlm.stages.responses import used
from bids_brainlm.stages.runs import runs_and_fault, runs_of
from bids_brainlm.stages.tables import table_faults

PEEKED = 3
"""Participants that are asked what the responses look like before that is given up."""


def survey_request(request: Request) -> tuple[BrainLMError, ...]:
    """Every fault of the request that is no participant's own."""
    config = request.config
    heavy = not {"train", "decode"} <= set(config.run.skip)
    faults = unknown_names(request, heavy)
    faults += table_faults(request)
    with collecting(faults):
        load_facts(request)
        left_out_of(request)
    with collecting(faults):
        _refuse_absent_model(request)
    with collecting(faults):
        _refuse_unfit_atlas(request)
    with collecting(faults):
        _refuse_absent_templates(request)
    with collecting(faults):
        for folder in (request.out_dir, request.work_dir):
            _refuse_unwritable(folder)
    return tuple(faults)


def refuse_unready(request: Request, stages: Iterable[Stage]) -> None:
    """Look up what some stages will need of the request, before hours of other work.

    Parameters
    ----------
    request : Request
    stages : iterable of Stage
        Those that have to run.

    Raises
    ------
    BrainLMError
        A name that nobody registered, an atlas that does not fit or is not there, a language model that is not there and
        cannot be fetched; `Faults` when there are several.
    """
    kinds = {stage.kind for stage in stages}
    heavy = bool(kinds & {"train", "decode", "information", "where", "story"})
    faults = unknown_names(request, heavy) if kinds else []
    if heavy or "parcellate" in kinds:
        with collecting(faults):
            _refuse_unfit_atlas(request)
    if kinds & {"estimate", "clean"}:
        with collecting(faults):
            _refuse_absent_templates(request)
    if heavy:
        with collecting(faults):
            sources.find(request.config.model.llm, request.config.model.revision, request.config.run.offline)
    if faults:
        raise one_or_all(faults)


def free_gb(folder: Path) -> float:
    """Free space of the file system that a folder is or would be on, in GB."""
    return shutil.disk_usage(_existing(folder)).free / 2**30


def _refuse_absent_model(request: Request) -> None:
    settings, offline = request.config.model, request.config.run.offline
    try:
        sources.find(settings.llm, settings.revision, offline=True)
    except MissingResourceError:
        if offline or sources.is_path(settings.llm):
            raise


def _refuse_unfit_atlas(request: Request) -> None:
    """Fit the atlas to responses like those of the first participant who has some."""
    peeked = _peek(request)
    if peeked is None:
        return
    space, n_left, n_units, volume = peeked
    try:
        atlas = load_atlas(
            request.config.parcels.atlas, space=space, n_left=n_left, n_vertices=n_units, volume=volume, offline=True
        )
        used(atlas, request)
    except MissingResourceError as error:
        # An empty file is how TemplateFlow says that it can be fetched.
        if request.config.run.offline or not Path(error.path).is_file():
            raise


def _refuse_absent_templates(request: Request) -> None:
    """Look for the meshes of templates that bring series to fsaverage; where there is a network they are fetched when needed."""
    settings = request.config.input
    if not request.config.run.offline or "betas" in request.derivatives or settings.space != FSAVERAGE:
        return
    for who in (request.participants or participants(request.bids_dir))[:PEEKED]:
        for run in _readable_runs(request, who):
            if is_projected(run):
                templates_of(run, settings.density or DENSITY, offline=True)


def _readable_runs(request: Request, participant: str) -> list[RunFiles]:
    """Runs of a participant; what is wrong with them is told elsewhere."""
    try:
        return runs_and_fault(request, participant)[0]
    except BrainLMError:
        return []


def _peek(request: Request) -> tuple[str, int, int, Volume | None] | None:
    """Space, columns of the left hemisphere, all columns and voxels of the responses, or what the settings say of them.

    None where the settings do not say it: of a volume whose masks cannot be read, each participant is told.
    """
    for who in (request.participants or participants(request.bids_dir))[:PEEKED]:
        for run in survey(request, who, pace={}).runs:
            if run.volume and "betas" in request.derivatives:
                # The voxels of betas are known when they are read.
                return None
            if run.volume:
                mask = _mask(request, who)
                if mask is not None:
                    return run.space, mask.index.size, mask.index.size, mask
            elif run.n_units:
                n_left = run.n_units // 2 if run.space != "none" else run.n_units
                return run.space, n_left, run.n_units, None
    space, _ = SPACES.get(request.config.input.space, (request.config.input.space, ""))
    # The coarsest: an atlas is not to be blamed for surfaces that cannot be read, or not at the density that is asked for.
    n_left = min(DENSITIES)
    return (space, n_left, 2 * n_left, None) if space == "fsaverage" else None


def _mask(request: Request, participant: str) -> Volume | None:
    """Voxels of a run; None where something is wrong with the participant, which is told elsewhere."""
    try:
        return common_mask(runs_of(request, participant)[:1])
    except BrainLMError:
        return None


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _refuse_unwritable(folder: Path) -> None:
    there = _existing(folder)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "a folder that cannot be written" if there.is_dir() else "a file where a folder is to be"
        raise OutputError(what, there, remedy="choose another one, or correct its permissions")
