"""Plan, run and report: what the command line calls.

Participants whose plan shows a fault are named and left out; the others go on. Nipype runs the stages that are not fresh and
keeps crash files; whether a participant is done is decided by its stamps alone. Many processes may work on one output dataset,
each on participants of its own: who works on one holds its lock.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from bids_brainlm import __version__
from bids_brainlm.config import Outcome, Request, gigabytes
from bids_brainlm.errors import BrainLMError, ConfigError, Faults, MissingInputError, OutputError, lines_of
from bids_brainlm.io.derivatives import init_dataset
from bids_brainlm.io.files import locked, make_folder, remove_remnants, write_text
from bids_brainlm.io.layout import default_derivatives, participants
from bids_brainlm.reports.plan import plan_text
from bids_brainlm.stages import cache, resources
from bids_brainlm.stages.checks import refuse_unready, survey_request
from bids_brainlm.stages.plan import plan
from bids_brainlm.stages.preflight import memory_of, survey_all
from bids_brainlm.workflows.provenance import Record

LOGGER = logging.getLogger(__name__)

_OURS = ("checkpoints", "low-mem", "cache", "run-*", "hashes.json", "hashes.lock")
"""What this program leaves in a work folder."""


def dry_run(request: Request) -> tuple[str, list[Outcome]]:
    """The plan for every participant, without a byte written.

    Returns
    -------
    text : str
    outcomes : list of Outcome
        What would stop the run; the participant is empty for what concerns all.
    """
    plans = survey_all(request, _asked(request))
    shared = survey_request(request)
    outcomes = [_failed("", Faults(shared))] if shared else []
    outcomes += [_failed(item.participant, Faults(item.faults)) if item.faults else Outcome(item.participant) for item in plans]
    return plan_text(request, plans, shared), outcomes


def run_participants(request: Request) -> list[Outcome]:
    """Do the participant level.

    Returns
    -------
    list of Outcome
        One a participant, in the order asked for.
    """
    asked = _asked(request)
    _raise_file_limit()
    _init(request)
    record = Record(request)
    record.write_settings()
    try:
        with ExitStack() as held:
            _run(request, asked, record, held)
        record.ended = "done"
    finally:
        _keep(record)
    return [record.outcomes[who] for who in asked]


def run_group(request: Request) -> list[Outcome]:
    """Do the group level: gather what the participants wrote.

    Returns
    -------
    list of Outcome
        One a participant; those without results have an error.
    """
    from bids_brainlm.reports.group import write_group

    _init(request)
    record = Record(request)
    record.write_settings()
    try:
        with locked(request.out_dir, "group"):
            missing = write_group(request, _asked(request))
        record.outcomes = {who: Outcome(who, (missing[who],), 66) if who in missing else Outcome(who) for who in _asked(request)}
        record.ended = "done"
    finally:
        _keep(record)
    return list(record.outcomes.values())


def _keep(record: Record) -> None:
    try:
        record.write()
        if record.request.resource_monitor:
            record.write_resources()
    except OutputError as error:
        # What ended the run is what the user must see, not that it could not be written down too.
        LOGGER.error("%s", error)


def _asked(request: Request) -> tuple[str, ...]:
    return request.participants or tuple(participants(request.bids_dir))


def _init(request: Request) -> None:
    """Make the folders, or say why they cannot be made."""
    init_dataset(request.out_dir, request.bids_dir, request.derivatives or default_derivatives(request.bids_dir), __version__)
    if request.clean_workdir:
        _clean(request.work_dir)
    make_folder(request.work_dir)


def _clean(work_dir: Path) -> None:
    """Take away what this program left in a work folder, and nothing else."""
    for path in [path for name in _OURS for path in work_dir.glob(name)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _run(request: Request, asked: Sequence[str], record: Record, held: ExitStack) -> None:
    hashes = cache.FileHashes(request.database_dir or request.work_dir)
    try:
        _plan(request, asked, hashes, record)
    finally:
        record.inputs = hashes.asked
        hashes.save()
    stale = {who: _to_run(request, stages) for who, stages in record.plans.items()}
    if request.write_graph:
        _write_graph(request, record, {stage.name for stages in stale.values() for stage in stages})
    if request.boilerplate_only:
        _write_boilerplate(request, record)
        return
    for who in [who for who, stages in stale.items() if stages]:
        try:
            held.enter_context(locked(request.out_dir, f"sub-{who}", seconds=0))
        except OutputError as error:
            record.outcomes[who] = _failed(who, error)
            del stale[who]
        else:
            _clean_up_after_kill(request, who)
            # It may have been finished by the run that held the lock.
            stale[who] = _to_run(request, record.plans[who])
            _discard_others(request, who, {stage.kind for stage in record.plans[who]})
    record.executed = stale
    try:
        refuse_unready(request, (stage for stages in stale.values() for stage in stages))
    except BrainLMError as error:
        record.outcomes |= {who: _failed(who, error) for who, stages in stale.items() if stages}
    else:
        _execute(request, stale)
    done = {who: _outcome(request, who, stages) for who, stages in record.plans.items() if who not in record.outcomes}
    record.outcomes |= done
    if "reports" not in request.config.run.skip:
        _write_reports(request, record)


def _plan(request: Request, asked: Sequence[str], hashes: cache.FileHashes, record: Record) -> None:
    """Plans of all participants, and the faults of all, before any work."""
    known = set(participants(request.bids_dir))
    for who in asked:
        try:
            if who not in known and "betas" not in request.derivatives:
                expected = f"one of {', '.join(sorted(known))}"
                remedy = "check --participant-label; in a container, check the bind mount"
                raise MissingInputError(f"no participant sub-{who}", request.bids_dir, expected=expected, remedy=remedy)
            record.plans[who] = plan(request, who, hashes)
        except BrainLMError as error:
            record.outcomes[who] = _failed(who, error)
            for line in lines_of(error):
                LOGGER.warning("sub-%s: %s", who, line)


def _failed(participant: str, error: BrainLMError) -> Outcome:
    return Outcome(participant, lines_of(error), error.exit_code)


def _to_run(request: Request, stages: Sequence[cache.Stage]) -> list[cache.Stage]:
    """Stages that are not fresh, and those that read what these will make anew, but for what is to be skipped."""
    if request.reports_only:
        return []
    stale = _with_followers(stages, [stage for stage in stages if not cache.is_fresh(request.out_dir, stage)])
    skipped = _with_followers(stages, [stage for stage in stale if _is_skipped(request, stage)])
    return [stage for stage in stale if stage not in skipped]


def _is_skipped(request: Request, stage: cache.Stage) -> bool:
    """Cleaning a series is what estimation is where there are no trials."""
    return ("estimate" if stage.kind == "clean" else stage.kind) in request.config.run.skip


def _discard_others(request: Request, who: str, kinds: Collection[str]) -> None:
    """Take away what a participant's plan does not have any more: choices of another estimator, responses of another kind."""
    for kind in {"tune", "information", "where", "story"} - set(kinds):
        cache.discard(request.out_dir, f"sub-{who}_{kind}")
    others = {"clean": ("estimate", "parcellate"), "estimate": ("clean",)}
    for kind in (other for own, some in others.items() if own in kinds for other in some):
        for stamp in sorted((request.out_dir / "logs" / "stages").glob(f"sub-{who}_*_{kind}.json")):
            cache.discard(request.out_dir, stamp.stem)


def _with_followers(stages: Sequence[cache.Stage], some: Iterable[cache.Stage]) -> list[cache.Stage]:
    names = {stage.name for stage in some}
    for stage in stages:
        if names & set(stage.after):
            names.add(stage.name)
    return [stage for stage in stages if stage.name in names]


def _clean_up_after_kill(request: Request, who: str) -> None:
    out = request.out_dir
    remove_remnants(out / f"sub-{who}", deep=True)
    remove_remnants(out, prefix=f"sub-{who}-")
    remove_remnants(out / "logs" / "stages", prefix=f"sub-{who}_")


def _execute(request: Request, plans: dict[str, list[cache.Stage]]) -> None:
    """Run stages under Nipype; what came of them is in their stamps and in `nodes.FAULTS`."""
    waiting = [stage for stages in plans.values() for stage in stages]
    if not waiting:
        return
    # Each process has a folder of its own: nobody else holds the lock of this participant.
    first = next(who for who, stages in plans.items() if stages)
    scratch = request.work_dir / f"run-{cache.digest(str(request.out_dir), first)[:12]}"
    _quiet_nipype(request, scratch)
    from bids_brainlm.workflows import nodes, workers
    from bids_brainlm.workflows.graphs import init_bids_brainlm_wf

    workers.warm_up(waiting, request.config.run.device)
    expected = {item.participant: item for item in survey_all(request, [who for who, stages in plans.items() if stages])}
    for stage in waiting:
        nodes.FAULTS.pop(stage.name, None)
        # Should another one fail before, the report must not show what this one made of something else.
        cache.void(request.out_dir, stage.name)
    workflow = init_bids_brainlm_wf(request, plans, lambda who, kind: memory_of(request, expected[who], kind), scratch)
    # MultiProc looks for garbage at every turn; what is there by now stays, and it would take 0.2 s each time.
    gc.freeze()
    try:
        with _plugin(request) as plugin:
            workflow.run(**plugin)
    except RuntimeError as error:
        # Nipype says here that some node failed, with its traceback; `_outcome` finds out which and why.
        if request.verbosity >= 2:
            LOGGER.info("%s", error)
    finally:
        gc.unfreeze()
        # Nothing here has to survive; on a network disk, files that are still open stay behind for a while.
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _plugin(request: Request) -> Iterator[dict[str, Any]]:
    """Arguments of ``Workflow.run``: who runs the nodes."""
    if request.plugin_file is not None:
        yield _read_plugin(request.plugin_file)
        return
    if "pdb" in request.debug:
        yield {"plugin": "Linear"}
        return
    from bids_brainlm.workflows.workers import OneProcessAStage

    settings = request.config.run
    arguments = {
        "n_procs": resources.n_processes(settings),
        "memory_gb": gigabytes(settings.memory) or resources.memory_gb(),
        "raise_insufficient": False,
        "device": settings.device,
        **({"n_gpu_procs": 1} if settings.low_mem else {}),
    }
    plugin = OneProcessAStage(arguments)
    try:
        yield {"plugin": plugin}
    finally:
        plugin.pool.stop()


def _read_plugin(path: Path) -> dict[str, Any]:
    """``plugin`` and ``plugin_args`` of a YAML file, as fMRIPrep reads it."""
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"the plugin file {path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("plugin"), str):
        raise ConfigError(f"the plugin file {path} names no plugin; expected e.g. 'plugin: SLURM' and 'plugin_args: {{...}}'")
    return {"plugin": tree["plugin"], "plugin_args": dict(tree.get("plugin_args") or {})}


def _quiet_nipype(request: Request, folder: Path) -> None:
    """Nipype tells every step and every traceback, which its crash files hold anyway; ``-v -v`` shows them.

    Worker processes import Nipype anew, so the setting must stand in a file; that file also keeps Nipype out of a home
    folder that may not be writable.
    """
    level, parts = "INFO" if request.verbosity >= 2 else "CRITICAL", ("workflow", "interface", "utils")
    lines = [
        "[logging]",
        *(f"{part}_level = {level}" for part in parts),
        "[execution]",
        "check_version = false",
        "",
    ]
    write_text(folder / "nipype.cfg", "\n".join(lines))
    os.environ["NIPYPE_CONFIG_DIR"] = str(folder)
    for part in parts:
        # In a process that has imported Nipype before, the file comes too late.
        logging.getLogger(f"nipype.{part}").setLevel(level)


def _outcome(request: Request, participant: str, stages: Sequence[cache.Stage]) -> Outcome:
    skipped = _with_followers(stages, [stage for stage in stages if _is_skipped(request, stage)])
    unfinished = [stage for stage in stages if stage not in skipped and not cache.is_fresh(request.out_dir, stage)]
    if not unfinished:
        return Outcome(participant)
    if request.reports_only:
        return Outcome(participant, (f"{unfinished[0].name} has not been run with these settings: {request.out_dir}",), 66)
    from bids_brainlm.workflows.nodes import FAULTS

    faults = [FAULTS[stage.name] for stage in unfinished if stage.name in FAULTS]
    if faults:
        return Outcome(
            participant, tuple(dict.fromkeys(line for fault in faults for line in fault["errors"])), faults[0]["exit_code"]
        )
    return Outcome(
        participant, (f"{unfinished[0].name} was not run, because something else failed before: {request.out_dir}",), 1
    )


def _write_graph(request: Request, record: Record, to_run: Collection[str]) -> None:
    from bids_brainlm.workflows.graphs import draw

    path = write_text(request.out_dir / "logs" / f"{record.label}_graph.dot", draw(record.plans, to_run))
    LOGGER.info("graph of the stages: %s (dot -Tsvg draws it)", path)


def _write_boilerplate(request: Request, record: Record) -> None:
    from bids_brainlm.reports.assemble import write_boilerplate

    for who in record.plans:
        write_boilerplate(request, who)
        record.outcomes[who] = Outcome(who)


def _write_reports(request: Request, record: Record) -> None:
    changed = {who for who, stages in record.executed.items() if stages}
    wanted = [
        who
        for who, outcome in record.outcomes.items()
        if request.reports_only or who in changed or outcome.errors or not (request.out_dir / f"sub-{who}.html").is_file()
    ]
    # Of a participant that another run is working on, that run writes the report.
    wanted = [who for who in wanted if record.outcomes[who].exit_code != OutputError.exit_code]
    if not wanted:
        return
    from bids_brainlm.reports.assemble import write_participant

    known = set(participants(request.bids_dir))
    for who in wanted:
        # A label that names nobody gets no page.
        if who in known or (request.out_dir / f"sub-{who}").is_dir():
            write_participant(request, who, record.outcomes[who])


def _raise_file_limit() -> None:
    """Let one process hold the locks of a thousand participants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
