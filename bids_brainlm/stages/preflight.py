"""What a request means for every participant, and everything that is wrong with it, before any work.

A *survey* reads file names, sidecars, tables, and the first kilobytes of images; it reads no response and writes nothing.
Its faults are collected, each on its own, so that one bad run does not hide the next. What is wrong with the request itself
(a name, the atlas, the language model, a table of the settings) is told once, by `checks.survey_request`; together
they hold whatever `plan.plan` would refuse. Expected memory and time come from `costs`; where the output folder has stamps of
earlier runs, they say how fast this machine is.
"""

from __future__ import annotations

import math
import multiprocessing
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.config import Request
from bids_brainlm.core.design import LEAD, trial_design
from bids_brainlm.errors import BrainLMError, InputError, collecting
from bids_brainlm.io.betas import read_trials
from bids_brainlm.io.confounds import chosen_columns
from bids_brainlm.io.files import read_header
from bids_brainlm.io.headers import gifti_shape, nifti_shape
from bids_brainlm.io.images import reading
from bids_brainlm.io.matrices import BetaFiles, find_betas
from bids_brainlm.io.names import parse
from bids_brainlm.io.projection import is_projected
from bids_brainlm.io.runfiles import RunFiles
from bids_brainlm.io.rungs import GIVEN
from bids_brainlm.io.surfaces import density_of
from bids_brainlm.io.timing import timing
from bids_brainlm.stages import costs
from bids_brainlm.stages.cache import read_stamp
from bids_brainlm.stages.costs import KINDS, MASK_SHARE, PER_RUN, Sizes
from bids_brainlm.stages.plan import TextedRun, before_responses, divided, seen_by_choices, texted_runs
from bids_brainlm.stages.quality import fit_trials
from bids_brainlm.stages.resources import n_processes
from bids_brainlm.stages.responses import completed
from bids_brainlm.stages.runs import over_time, runs_and_fault, stem
from bids_brainlm.stages.shapes import shape_of
from bids_brainlm.stages.tables import table_faults
from bids_brainlm.stages.tune import Seen, tuned
from bids_brainlm.stages.windows import left_out_of

WORTH_PROCESSES = 400
"""Participants below which starting processes costs more than it saves."""

SAFE = 5.0
"""Seconds before the last volume up to which a trial surely leaves a response in the series."""


@dataclass(frozen=True)
class RunPlan:
    """One run as it would be used.

    Parameters
    ----------
    name : str
        ``sub-01_task-x_run-1``.
    space, density : str
        Density as counted, after truncation to the wanted one; empty for volumes.
    n_volumes : int
        0 where the file does not say.
    n_units : int
        Vertices of both hemispheres, or voxels of the grid (those in the mask are fewer); 0 where unknown.
    tr : float
        s; 0 where unknown.
    n_trials : int
        Trials with a text, or windows of words.
    n_texts : int
        Examples: trials times the questions or instructions that each has a text for; windows times lengths of context.
    n_rows : int
        Responses: trials that are estimated, or volumes that are kept.
    volume : bool
        Whether the responses are a volume.
    rung : str
        How the series gets to its space; see `bids_brainlm.io.rungs`.
    note : str
        Why the run would not be used, or empty.
    """

    name: str
    space: str = ""
    density: str = ""
    n_volumes: int = 0
    n_units: int = 0
    tr: float = 0.0
    n_trials: int = 0
    n_texts: int = 0
    n_rows: int = 0
    volume: bool = False
    rung: str = GIVEN
    note: str = ""


@dataclass(frozen=True)
class ParticipantPlan:
    """What would be done for one participant.

    Parameters
    ----------
    participant : str
        Label without ``sub-``.
    runs : tuple of RunPlan
    n_trials, n_stimuli, n_texts : int
        Trials with a text or windows of words, different ones among them, examples.
    left_out : str
        Windows that are no example, by reason; empty where there are none.
    folds : tuple of (n_train, n_validation, n_test)
        Examples in the parts of each fold; empty where they cannot be divided.
    memory_gb : dict of str to float
        Kind of stage -> largest memory of a process that runs one.
    seconds : dict of str to float
        Kind of stage -> time of all its stages, one after the other; kinds of which nothing is known lack.
    measured : tuple of str
        Kinds whose time comes from stamps of earlier runs.
    disk_gb : float
        Size of the outputs.
    heard : tuple of int
        Words of every story, each time that it is heard.
    estimation : str
        What a tuned estimator can do with the runs and repeats there are; empty for the others.
    faults : tuple of BrainLMError
    """

    participant: str
    runs: tuple[RunPlan, ...] = ()
    n_trials: int = 0
    n_stimuli: int = 0
    n_texts: int = 0
    folds: tuple[tuple[int, int, int], ...] = ()
    memory_gb: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    measured: tuple[str, ...] = ()
    disk_gb: float = 0.0
    estimation: str = ""
    left_out: str = ""
    heard: tuple[int, ...] = ()
    faults: tuple[BrainLMError, ...] = ()


def survey(request: Request, participant: str, pace: Mapping[str, float] | None = None) -> ParticipantPlan:
    """What would be done for one participant, and every fault of their own.

    Parameters
    ----------
    request : Request
    participant : str
    pace : mapping of str to float, optional
        See `measured_pace`, which is asked when there is none.
    """
    ready = request.derivatives.get("betas")
    plan = _of_runs(request, participant) if ready is None else _of_betas(request, participant, ready)
    return _with_costs(request, plan, measured_pace(request) if pace is None else pace)


def survey_all(request: Request, participants: Sequence[str]) -> list[ParticipantPlan]:
    """`survey` of several participants, in their order, by several processes where that pays."""
    pace = measured_pace(request)
    processes = n_processes(request.config.run)
    work = partial(survey, request, pace=pace)
    if processes == 1 or len(participants) < WORTH_PROCESSES:
        return list(map(work, participants))
    # A fork spares each process seconds of imports; torch, once it is there, may have threads that do not survive one.
    kind = "fork" if sys.platform == "linux" and "torch" not in sys.modules else "spawn"
    with ProcessPoolExecutor(processes, multiprocessing.get_context(kind)) as pool:
        return list(pool.map(work, participants, chunksize=-(-len(participants) // (8 * processes))))


def memory_of(request: Request, plan: ParticipantPlan, kind: str) -> float:
    """Largest memory, in GB, of a process that runs one stage of a kind (one of `costs.KINDS`) for a participant."""
    return costs.memory(kind, _sizes(plan), request.config, costs.model_size(request))


def measured_pace(request: Request, most: int = 3) -> dict[str, float]:
    """Kind of stage -> seconds that it took, over those that `costs` expected, in earlier runs into this output folder.

    Parameters
    ----------
    request : Request
    most : int
        Participants that are looked at.
    """
    stamps = sorted((request.out_dir / "logs" / "stages").glob("sub-*_evaluate.json"))[:most]
    ratios: dict[str, list[float]] = {}
    for path in stamps:
        who = path.name.removeprefix("sub-").removesuffix("_evaluate.json")
        plan = survey(request, who, pace={})
        for kind, expected in plan.seconds.items():
            names = [f"{run.name}_{kind}" for run in plan.runs if run.n_trials] if kind in PER_RUN else [f"sub-{who}_{kind}"]
            found = [stamp["seconds"] for stamp in (read_stamp(request.out_dir, name) for name in names) if stamp.get("key")]
            if found and len(found) == len(names) and expected:
                ratios.setdefault(kind, []).append(sum(found) / expected)
    return {kind: median(values) for kind, values in ratios.items()}


def _of_runs(request: Request, participant: str) -> ParticipantPlan:
    faults: list[BrainLMError] = []
    runs = _runs(request, participant, faults)
    texted, wrong = texted_runs(request, runs)
    faults += wrong
    tables = _fit_tables(request, texted, faults)
    heard = [item.heard for item in texted if item.heard is not None]
    at_fault = {fault.path for fault in wrong if isinstance(fault, InputError)}
    nothing = "no words" if over_time(request) else "no texts"
    notes = {stem(run): "see below" if str(run.place) in at_fault else nothing for run in runs}
    planned = [_run_plan(request, run, tables.get(stem(run)), notes[stem(run)], faults) for run in runs]
    plan = ParticipantPlan(participant, tuple(planned))
    if not texted:
        return replace(plan, faults=tuple(faults))
    return _divided(request, plan, tables, texted[0].run.place, faults, heard)


def _fit_tables(request: Request, texted: Sequence[TextedRun], faults: list[BrainLMError]) -> dict[str, pd.DataFrame]:
    """Trials with a text of every run, as the plan divides them; volumes where words have times."""
    if over_time(request):
        return {stem(run): table for run, table, _ in texted}
    tables: dict[str, pd.DataFrame] = {}
    for run, table, _ in texted:
        tables[stem(run)] = table[table["keep"]]
        with collecting(faults):
            tables[stem(run)] = fit_trials(request.config.estimate, run, table)
    return tables


def _of_betas(request: Request, participant: str, folder: Path) -> ParticipantPlan:
    faults: list[BrainLMError] = []
    found: list[BetaFiles] = []
    with collecting(faults):
        found = find_betas(folder, participant)
    planned: list[RunPlan] = []
    tables: dict[str, pd.DataFrame] = {}
    for item in found:
        name = item.path.name.partition(".")[0]
        with collecting(faults):
            planned.append(_betas_plan(name, item))
            if not table_faults(request):
                tables[name] = completed(read_trials(item.trials), item.path)
    plan = ParticipantPlan(participant, tuple(planned))
    return _divided(request, plan, tables, found[0].trials, faults) if tables else replace(plan, faults=tuple(faults))


def _divided(
    request: Request,
    plan: ParticipantPlan,
    tables: Mapping[str, pd.DataFrame],
    path: Path,
    faults: list[BrainLMError],
    heard: Sequence[pd.DataFrame] = (),
) -> ParticipantPlan:
    """Counts of trials, texts and examples, by run and by fold; ``tables`` holds the trials or volumes of each run with texts."""
    n_rows = {name: len(table) for name, table in tables.items()}
    trials = texts = dict.fromkeys(tables, 0) if heard else n_rows
    with collecting(faults):
        if heard:
            left_out = left_out_of(before_responses(list(tables.values()), path, heard), request.config.window)
            words = tuple(int(n) for table in heard for n in table.groupby(["story", "start"]).size())
            plan = replace(plan, left_out=str(left_out), heard=words)
        examples, folds = divided(request, list(tables.values()), path, heard)
        ends = np.cumsum(list(n_rows.values()))
        rows = examples.rows[:, 0, 0]
        # Windows may be shorter than the time between two volumes.
        once = rows[np.unique([*zip(rows.tolist(), examples.stimulus.tolist(), strict=True)], axis=0, return_index=True)[1]]
        counts = [np.bincount(np.searchsorted(ends, some, side="right"), minlength=ends.size) for some in (rows, once)]
        texts, trials = (dict(zip(tables, map(int, count), strict=True)) for count in counts)
        parts = tuple((len(fold.train), len(fold.validation), len(fold.test)) for fold in folds)
        plan = replace(plan, n_stimuli=np.unique(examples.stimulus).size, n_texts=len(examples), folds=parts)
        if tuned(request) and "betas" not in request.derivatives and not heard:
            seen = seen_by_choices(request, list(tables.values()), folds, path)
            plan = replace(plan, estimation=_estimation(request, list(tables.values()), seen))
    runs = tuple(
        replace(run, n_trials=trials[run.name], n_texts=texts[run.name], n_rows=n_rows[run.name], note="")
        if run.name in tables
        else run
        for run in plan.runs
    )
    return replace(plan, runs=runs, n_trials=sum(trials.values()), faults=tuple(faults))


def _estimation(request: Request, tables: Sequence[pd.DataFrame], seen: Seen) -> str:
    """What a tuned estimator can do, as far as names and tables tell."""
    used = [set(table["stimulus_id"]) for table, is_used in zip(tables, seen.runs, strict=True) if is_used]
    times = Counter(name for names in used for name in names)
    n_repeated = sum(count > 1 for count in times.values())
    where = f"{len(used)} of {len(tables)} runs" if len(used) < len(tables) else f"{len(used)} run{'s' * (len(used) != 1)}"
    said = f"{request.config.estimate.estimator} chooses on {where}"
    if not seen.repeats:
        return f"{said}; training and test share stimuli, so that repeats are not compared and steps that need them are left out"
    if n_repeated:
        shown = "stimulus is" if n_repeated == 1 else "stimuli are"
        return f"{said}; {n_repeated} {shown} shown in several of them, so that steps can be cross-validated"
    return f"{said}; no stimulus is shown in two of them, so that steps that are cross-validated are left out"


def _runs(request: Request, participant: str, faults: list[BrainLMError]) -> list[RunFiles]:
    """Runs whose files are all there; what the others lack is a fault."""
    runs: list[RunFiles] = []
    with collecting(faults):
        runs, fault = runs_and_fault(request, participant)
        if fault:
            raise fault
    return runs


def _run_plan(request: Request, run: RunFiles, trials: pd.DataFrame | None, note: str, faults: list[BrainLMError]) -> RunPlan:
    """Sizes of one run; ``trials`` are those with a text, volumes, or None, of which the note says why."""
    plan = RunPlan(stem(run), run.space, rung=run.rung, note="" if trials is not None else note)
    times = None
    with collecting(faults):
        times = timing(run.sidecar, run.bold[0])
        plan = replace(plan, tr=times.tr)
    with collecting(faults):
        n_volumes, n_units, density = shape_of(request, run)
        plan = replace(plan, n_volumes=n_volumes, n_units=n_units, density=density, volume=_is_volume(run))
    if trials is None:
        return plan
    with collecting(faults):
        if run.confounds is not None:
            chosen_columns(request.config.input.confounds, read_header(run.confounds), run.confounds)
    with collecting(faults):
        if plan.n_volumes and times and not over_time(request):
            _refuse_outside(request, run, trials, times.frames(plan.n_volumes, run.bold[0]))
    return plan


def _is_volume(run: RunFiles) -> bool:
    """Whether responses will be a volume: a volume that is brought to the surface is none."""
    return len(run.bold) == 1 and not is_projected(run)


def _refuse_outside(request: Request, run: RunFiles, trials: pd.DataFrame, times: NDArray[Any]) -> None:
    """Refuse trials that leave no response in the series, as the design would."""
    onsets = trials["onset"].to_numpy()
    if times[0] - LEAD <= onsets.min() and onsets.max() <= times[-1] - SAFE:
        return
    try:
        trial_design(onsets, trials["duration"], times, request.config.estimate.hrf)
    except ValueError as error:
        expected = f"events between 0 and {2 * times[-1] - times[-2]:g} s"
        remedy = "check onsets (seconds) and RepetitionTime"
        raise InputError(str(error), run.place, expected=expected, remedy=remedy) from error


def _betas_plan(name: str, item: BetaFiles) -> RunPlan:
    if item.kind == "matrix":
        with reading(item.path, "a .npy file of numbers, saved with allow_pickle=False"):
            return RunPlan(name, "none", n_units=int(np.load(item.path, mmap_mode="r", allow_pickle=False).shape[-1]))
    if item.kind == "volume":
        return RunPlan(
            name, parse(item.path).entities.get("space", ""), n_units=math.prod(nifti_shape(item.path)[:3]), volume=True
        )
    n_left = gifti_shape(item.path)[1]
    return RunPlan(name, parse(item.path).entities.get("space", ""), density_of(n_left), n_units=2 * n_left)


def _sizes(plan: ParticipantPlan) -> Sizes:
    volume = any(run.volume for run in plan.runs)
    share = MASK_SHARE if volume else 1.0
    runs = tuple((run.n_volumes, run.n_units, int(run.n_units * share), run.n_rows) for run in plan.runs)
    return Sizes(runs, plan.folds, volume, plan.heard)


def _kinds(request: Request) -> tuple[str, ...]:
    """Kinds of stages that a plan of this request has."""
    settings = request.config.evaluate
    later = ("train", "decode", *("information",) * settings.information, "evaluate", *("where",) * settings.where)
    if over_time(request):
        return ("clean", *later, *(("story",) if request.config.story.decoders else ()))
    if "betas" in request.derivatives:
        return later
    return (*(("tune",) if tuned(request) else ()), "estimate", "parcellate", *later)


def _with_costs(request: Request, plan: ParticipantPlan, pace: Mapping[str, float]) -> ParticipantPlan:
    sizes, config, model = _sizes(plan), request.config, costs.model_size(request)
    if not plan.n_trials:
        return plan
    skipped = {*config.run.skip, *(("clean",) if "estimate" in config.run.skip else ())}
    kinds = [kind for kind in KINDS if kind in _kinds(request) and kind not in skipped]
    expected = {kind: costs.seconds(kind, sizes, config, model) for kind in kinds}
    return replace(
        plan,
        memory_gb={kind: costs.memory(kind, sizes, config, model) for kind in kinds},
        seconds={kind: value * pace.get(kind, 1.0) for kind, value in expected.items() if value is not None},
        measured=tuple(kind for kind in kinds if kind in pace),
        disk_gb=costs.disk(sizes, config, model),
    )
