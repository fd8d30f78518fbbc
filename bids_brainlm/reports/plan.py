"""The plan of a request as text for a terminal: what would be done, what it would cost, and what is missing."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from bids_brainlm.config import Request
from bids_brainlm.errors import BrainLMError
from bids_brainlm.stages import costs
from bids_brainlm.stages.checks import free_gb
from bids_brainlm.stages.preflight import ParticipantPlan, RunPlan
from bids_brainlm.stages.resources import n_processes

WIDTH = 110
"""Columns of the text; only a path that is longer by itself goes beyond."""

DETAILED = 10
"""Most participants whose runs are listed; more of them get a line each."""

_HEAVY = ("train", "decode")

_FROM = {"cifti": "from CIFTI", "native": "from T1w", "template": "from MNI, approximate"}
"""Rung -> what is said of a run that has to be brought to its space."""


def plan_text(request: Request, plans: Sequence[ParticipantPlan], faults: Sequence[BrainLMError] = ()) -> str:
    """Tables of participants and runs, totals, and all faults.

    Parameters
    ----------
    request : Request
    plans : sequence of ParticipantPlan
        From `stages.preflight.survey_all`.
    faults : sequence of BrainLMError
        Of the request itself, from `stages.checks.survey_request`.

    Returns
    -------
    str
        Lines of at most `WIDTH` columns, the last one ended.
    """
    blocks = [_participant(plan) for plan in plans] if len(plans) <= DETAILED else [_overview(plans)]
    blocks += [_totals(request, plans), _wrong(plans, faults)]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def duration(seconds: float) -> str:
    """Rough time.

    >>> duration(40), duration(500), duration(20000), duration(400000)
    ('40 s', '8 min', '5.6 h', '4.6 days')
    """
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "min")):
        if seconds < limit:
            return f"{max(round(seconds / unit), 1)} {name}"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _participant(plan: ParticipantPlan) -> list[str]:
    lines = [f"sub-{plan.participant}"]
    if plan.runs:
        what = "windows" if plan.left_out else "trials"
        header = ("run", "space", "den", "volumes", "TR (s)", what, "texts", "")
        lines += _table([header, *(_row(plan, run) for run in plan.runs)])
    if plan.left_out:
        lines += _wrapped(plan.left_out)
    if plan.n_texts:
        what = _counted(plan.n_stimuli, "window") if plan.left_out else _counted(plan.n_stimuli, "stimulus", "stimuli")
        what += " that differ" if plan.left_out else ""
        lines.append(f"  {what}, {_counted(plan.n_texts, 'text')}; {_folds(plan)}")
    if plan.estimation:
        lines += _wrapped(plan.estimation)
    if plan.memory_gb:
        lines += _wrapped("memory (GB): " + ", ".join(f"{kind} {gb:.1f}" for kind, gb in plan.memory_gb.items()))
        lines += _wrapped("time: " + (", ".join(f"{kind} {duration(s)}" for kind, s in plan.seconds.items()) or "unknown"))
    if plan.faults:
        lines.append(f"  {_counted(len(plan.faults), 'fault')}: see below")
    return lines


def _row(plan: ParticipantPlan, run: RunPlan) -> tuple[str, ...]:
    name = run.name.removeprefix(f"sub-{plan.participant}_")
    name, space = _short(name, 36), _short(run.space, 20)
    tr = f"{run.tr:.3f}" if run.tr else "?"
    note = run.note or _FROM.get(run.rung, "")
    return name, space, run.density, str(run.n_volumes or "?"), tr, str(run.n_trials), str(run.n_texts), note


def _short(text: str, width: int) -> str:
    """The ends of a long text."""
    half = (width - 3) // 2
    return text if len(text) <= width else f"{text[:half]}...{text[-half:]}"


def _folds(plan: ParticipantPlan) -> str:
    if not plan.folds:
        return "not divided"
    if len(plan.folds) == 1:
        train, validation, test = plan.folds[0]
        return f"train {train}, validation {validation}, test {test}"
    spans = [
        f"{name} {_span(sizes)}"
        for name, sizes in zip(("train", "validation", "test"), zip(*plan.folds, strict=True), strict=True)
    ]
    return f"{len(plan.folds)} folds of {', '.join(spans)}"


def _span(sizes: Iterable[int]) -> str:
    low, high = min(sizes := tuple(sizes)), max(sizes)
    return str(low) if low == high else f"{low}-{high}"


def _overview(plans: Sequence[ParticipantPlan]) -> list[str]:
    header = ("participant", "runs", "volumes", "trials", "stimuli", "texts", "train/validation/test", "GB", "time", "faults")
    rows = [
        (
            f"sub-{plan.participant}",
            str(len(plan.runs)),
            str(sum(run.n_volumes for run in plan.runs) or "?"),
            str(plan.n_trials),
            str(plan.n_stimuli),
            str(plan.n_texts),
            _first_fold(plan),
            f"{max(plan.memory_gb.values(), default=0):.1f}",
            duration(sum(plan.seconds.values())) if plan.seconds else "?",
            str(len(plan.faults) or ""),
        )
        for plan in plans
    ]
    return _table([header, *rows], left=1)


def _first_fold(plan: ParticipantPlan) -> str:
    more = f" x {len(plan.folds)}" if len(plan.folds) > 1 else ""
    return "/".join(map(str, plan.folds[0])) + more if plan.folds else "-"


def _totals(request: Request, plans: Sequence[ParticipantPlan]) -> list[str]:
    runs = sum(len(plan.runs) for plan in plans)
    what = "window" if any(plan.left_out for plan in plans) else "trial"
    counts = [_counted(len(plans), "participant"), _counted(runs, "run"), _counted(sum(p.n_trials for p in plans), what)]
    lines = ["In all", *_wrapped(", ".join([*counts, _counted(sum(p.n_texts for p in plans), "text")]))]
    return [*lines, *_model(request), *_time(request, plans), *_memory(plans), *_disk(request, plans)]


def _model(request: Request) -> list[str]:
    size, name = costs.model_size(request), request.config.model.llm
    if size.known:
        return _wrapped(f"language model: {name}, {_parameters(size.parameters)}")
    return _wrapped(f"language model: {name}; it is not on this machine, so memory and time of train and decode leave it out")


def _parameters(n: int) -> str:
    return f"{n / 1e6:,.1f} million parameters" if n >= 1e5 else f"{n:,} parameters"


def _time(request: Request, plans: Sequence[ParticipantPlan]) -> list[str]:
    n = n_processes(request.config.run)
    heavy, light = (
        sum(s for plan in plans for kind, s in plan.seconds.items() if (kind in _HEAVY) is wanted) for wanted in (True, False)
    )
    if not heavy + light:
        return []
    side_by_side = 1 if costs.on_gpu(request.config) else min(n, len(plans))
    wall = duration(light / n + heavy / side_by_side)
    text = f"time: {duration(heavy + light)} of work, about {wall} with {_counted(n, 'process', 'processes')}"
    unknown = sorted({kind for plan in plans for kind in set(plan.memory_gb) - set(plan.seconds)}, key=costs.KINDS.index)
    measured = sorted({kind for plan in plans for kind in plan.measured}, key=costs.KINDS.index)
    guessed = [kind for kind in costs.KINDS if any(kind in plan.seconds and kind not in plan.measured for plan in plans)]
    notes = [f"without {', '.join(unknown)}, which nothing is known of yet"] if unknown else []
    notes += [f"{', '.join(measured)}: from earlier runs into this output folder, scaled by size"] if measured else []
    notes += [f"{', '.join(guessed)}: roughly, from constants measured on {costs.MEASURED}"] if guessed else []
    return [*_wrapped(text), *(line for note in notes for line in _wrapped(note, "    "))]


def _memory(plans: Sequence[ParticipantPlan]) -> list[str]:
    largest = max(((gb, kind) for plan in plans for kind, gb in plan.memory_gb.items()), default=None)
    return [] if largest is None else _wrapped(f"memory: {largest[0]:.1f} GB for the largest process ({largest[1]})")


def _disk(request: Request, plans: Sequence[ParticipantPlan]) -> list[str]:
    wanted, free = sum(plan.disk_gb for plan in plans), free_gb(request.out_dir)
    lines = _wrapped(f"output: about {wanted:.2g} GB; {free:,.0f} GB are free at {request.out_dir}") if wanted else []
    return lines + (_wrapped("WARNING: the outputs may not fit there") if wanted > free else [])


def _wrong(plans: Sequence[ParticipantPlan], faults: Sequence[BrainLMError]) -> list[str]:
    """Every fault, first those of the request itself."""
    if not faults and not any(plan.faults for plan in plans):
        return ["Nothing is missing"]
    lines = ["Missing or wrong"]
    for name, some in (("the request", faults), *((f"sub-{plan.participant}", plan.faults) for plan in plans)):
        lines += [f"  {name}"] if some else []
        for fault in some:
            first, *rest = _wrapped(" ".join(str(fault).split()), "      ")
            lines += [f"    - {first.strip()}", *rest]
    return lines


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _table(rows: Sequence[Sequence[str]], left: int = 3) -> list[str]:
    """Columns two blanks apart, the first ``left`` and the last aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < left or i == len(row) - 1 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines


def _counted(n: int, singular: str, plural: str = "") -> str:
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"
