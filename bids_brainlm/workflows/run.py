"""Plan, run and report: what the command line calls.

Participants whose plan shows a fault are named and left out; the others go on. Nipype runs the stages that are not fresh and
keeps crash files; whether a participant is done is decided by its stamps alone.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

from bids_brainlm import __version__
from bids_brainlm.config import Outcome, Request, to_toml
from bids_brainlm.errors import BrainLMError, MissingInputError, MissingResourceError, lines_of
from bids_brainlm.io.derivatives import init_dataset
from bids_brainlm.io.files import write_json, write_text
from bids_brainlm.io.layout import default_derivatives, participants
from bids_brainlm.stages import cache
from bids_brainlm.stages.plan import plan, refuse_unknown

LOGGER = logging.getLogger(__name__)

VERSIONS = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "nilearn",
    "nibabel",
    "nipype",
    "numpy",
    "scipy",
    "templateflow",
)


def run_participants(request: Request) -> list[Outcome]:
    """Do the participant level.

    Returns
    -------
    list of Outcome
        One a participant, in the order asked for.
    """
    start, label = time.time(), f"{time.strftime('%Y%m%d-%H%M%S')}_{uuid4()}"
    asked = request.participants or tuple(participants(request.bids_dir))
    derivatives = request.derivatives or default_derivatives(request.bids_dir)
    init_dataset(request.out_dir, request.bids_dir, derivatives, __version__)
    request.work_dir.mkdir(parents=True, exist_ok=True)
    outcomes, plans = _plan(request, asked)
    stale = {who: [s for s in stages if not cache.is_fresh(request.out_dir, s)] for who, stages in plans.items()}
    # A stage whose inputs are made anew is made anew too.
    stale = {who: _with_followers(plans[who], stages) for who, stages in stale.items()}
    if request.reports_only:
        stale = {who: [] for who in stale}
    write_text(request.out_dir / "logs" / f"{label}.toml", to_toml(request.config))
    try:
        refuse_unknown(request, (stage for stages in stale.values() for stage in stages))
    except MissingResourceError as error:
        outcomes |= {who: Outcome(who, lines_of(error), error.exit_code) for who, stages in stale.items() if stages}
    else:
        _execute(request, stale)
    outcomes |= {who: _outcome(request, who, stages) for who, stages in plans.items() if who not in outcomes}
    _write_reports(request, outcomes, {who for who, stages in stale.items() if stages})
    executed = {who: [s.name for s in stages if cache.is_fresh(request.out_dir, s)] for who, stages in stale.items()}
    _log(request, label, start, outcomes, executed, {who: len(plans[who]) - len(stages) for who, stages in stale.items()})
    return [outcomes[who] for who in asked]


def run_group(request: Request) -> list[Outcome]:
    """Do the group level: gather what the participants wrote."""
    from bids_brainlm.reports.assemble import write_group

    write_group(request)
    return []


def _plan(request: Request, asked: Sequence[str]) -> tuple[dict[str, Outcome], dict[str, list[cache.Stage]]]:
    known = participants(request.bids_dir)
    hashes = cache.FileHashes(request.work_dir / "hashes.json")
    outcomes: dict[str, Outcome] = {}
    plans: dict[str, list[cache.Stage]] = {}
    for who in asked:
        try:
            if who not in known and "betas" not in request.derivatives:
                expected = f"one of {', '.join(known)}"
                remedy = "check --participant-label; in a container, check the bind mount"
                raise MissingInputError(f"no participant sub-{who}", request.bids_dir, expected=expected, remedy=remedy)
            plans[who] = plan(request, who, hashes)
        except BrainLMError as error:
            outcomes[who] = Outcome(who, lines_of(error), error.exit_code)
    hashes.save()
    return outcomes, plans


def _with_followers(stages: Sequence[cache.Stage], stale: Sequence[cache.Stage]) -> list[cache.Stage]:
    names = {stage.name for stage in stale}
    for stage in stages:
        if names & set(stage.after):
            names.add(stage.name)
    return [stage for stage in stages if stage.name in names]


def _execute(request: Request, plans: dict[str, list[cache.Stage]]) -> None:
    if not any(plans.values()):
        return
    _quiet_nipype(request)
    from bids_brainlm.workflows import nodes
    from bids_brainlm.workflows.graphs import init_bids_brainlm_wf

    for stages in plans.values():
        for stage in stages:
            nodes.fault_path(request, stage.name).unlink(missing_ok=True)
            # Should another one fail before, the report must not show what this one made of something else.
            cache.void(request.out_dir, stage.name)
    workflow = init_bids_brainlm_wf(request, plans)
    n_procs = request.config.run.nprocs or os.cpu_count() or 1
    memory: dict[str, float] = {}
    arguments: dict[str, Any] = {
        "n_procs": n_procs,
        "raise_insufficient": False,
        "maxtasksperchild": 1,
        "mp_context": "spawn",
        **memory,
    }
    try:
        if n_procs == 1:
            workflow.run(plugin="Linear", plugin_args={"status_callback": nodes.stop_when_interrupted})
        else:
            workflow.run(plugin="MultiProc", plugin_args=arguments)
    except RuntimeError as error:
        # Nipype says here that some node failed, with its traceback; `_outcome` finds out which and why.
        if request.verbosity >= 2:
            LOGGER.info("%s", error)


def _quiet_nipype(request: Request) -> None:
    """Nipype tells every step and every traceback, which its crash files hold anyway; ``-v -v`` shows them.

    Worker processes import Nipype anew, so the setting must stand in a file; that file also keeps Nipype out of a home
    folder that may not be writable.
    """
    level, parts = "INFO" if request.verbosity >= 2 else "CRITICAL", ("workflow", "interface", "utils")
    folder = request.work_dir / "nipype"
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
    unfinished = [stage for stage in stages if not cache.is_fresh(request.out_dir, stage)]
    if not unfinished:
        return Outcome(participant)
    if request.reports_only:
        return Outcome(participant, (f"{unfinished[0].name} has not been run with these settings: {request.out_dir}",), 66)
    from bids_brainlm.workflows.nodes import read_fault

    for stage in unfinished:
        fault = read_fault(request, stage.name)
        if fault:
            return Outcome(participant, tuple(fault["errors"]), fault["exit_code"])
    crashes = request.out_dir / "logs" / "crashes"
    return Outcome(participant, (f"{unfinished[0].name} failed; the traceback is in {crashes}",), 1)


def _write_reports(request: Request, outcomes: dict[str, Outcome], changed: set[str]) -> None:
    wanted = [
        who
        for who in outcomes
        if request.reports_only or who in changed or outcomes[who].errors or not (request.out_dir / f"sub-{who}.html").is_file()
    ]
    if not wanted:
        return
    from bids_brainlm.reports.assemble import write_participant

    for who in wanted:
        # A label that names nobody gets no page.
        if who in participants(request.bids_dir) or (request.out_dir / f"sub-{who}").is_dir():
            write_participant(request, who, outcomes[who])


def _log(
    request: Request,
    label: str,
    start: float,
    outcomes: dict[str, Outcome],
    executed: dict[str, list[str]],
    reused: dict[str, int],
) -> Path:
    """Provenance of this call: what ran, what was reused, with what."""
    tree = {
        "command_level": request.level,
        "bids_dir": str(request.bids_dir),
        "derivatives": {name: str(path) for name, path in request.derivatives.items()},
        "version": __version__,
        "versions": {name: metadata.version(name) for name in VERSIONS},
        "seconds": round(time.time() - start, 1),
        "outcomes": {who: {"errors": o.errors, "exit_code": o.exit_code} for who, o in outcomes.items()},
        "executed": executed,
        "n_executed": sum(map(len, executed.values())),
        "n_reused": sum(reused.values()),
        "seed": request.config.run.random_seed,
    }
    return write_json(request.out_dir / "logs" / f"{label}.json", tree)
