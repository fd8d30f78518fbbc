"""Graphs of stages: a workflow a participant, joined into one."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path

from nipype.interfaces.utility import Merge
from nipype.pipeline import engine as pe

from bids_brainlm.config import Request
from bids_brainlm.stages.cache import Stage
from bids_brainlm.workflows.nodes import RunHeavyStage, RunStage, to_json

Memory = Callable[[str, str], float]
"""(participant, kind of stage) -> expected memory in GB."""


def init_participant_wf(request: Request, participant: str, stages: Sequence[Stage], memory: Memory) -> pe.Workflow:
    """One node a stage that has to run.

    Parameters
    ----------
    request : Request
    participant : str
    stages : sequence of Stage
        Those that are not fresh, in an order in which they can run.
    memory : callable
        Expected memory of a stage, which decides how many run side by side.
    """
    workflow = pe.Workflow(name=f"sub_{_clean(participant)}_wf")
    nodes: dict[str, pe.Node] = {}
    text = to_json(request)
    for stage in stages:
        interface = (RunHeavyStage if stage.heavy else RunStage)(request=text, stage=stage.to_json())
        node = pe.Node(
            interface,
            name=_clean(stage.name),
            n_procs=max(request.config.run.omp_nthreads, 1),
            mem_gb=memory(participant, stage.kind),
        )
        # What decides whether a stage runs is its stamp; a node that is here must run, whatever Nipype remembers.
        node.overwrite = True
        workflow.add_nodes([node])
        before = [name for name in stage.after if name in nodes]
        if before:
            merge = pe.Node(Merge(len(before)), name=f"after_{_clean(stage.name)}", run_without_submitting=True)
            for i, name in enumerate(before):
                workflow.connect(nodes[name], "name", merge, f"in{i + 1}")
            workflow.connect(merge, "out", node, "after")
        nodes[stage.name] = node
    return workflow


def init_bids_brainlm_wf(request: Request, plans: Mapping[str, Sequence[Stage]], memory: Memory, base_dir: Path) -> pe.Workflow:
    """Everything that has to run, for all participants side by side.

    Parameters
    ----------
    request : Request
    plans : mapping of participant to stages
        Those that have to run.
    memory : callable
    base_dir : Path
        Folder of Nipype's own, which no other process uses.
    """
    workflow = pe.Workflow(name="bids_brainlm_wf", base_dir=str(base_dir))
    for participant, stages in plans.items():
        if stages:
            workflow.add_nodes([init_participant_wf(request, participant, stages, memory)])
    crashes = request.out_dir / "logs" / "crashes"
    workflow.config["execution"] |= {
        "crashdump_dir": str(crashes),
        "crashfile_format": "txt",
        "stop_on_first_crash": str(request.config.run.stop_on_first_crash).lower(),
        "remove_unnecessary_outputs": "false",
        "poll_sleep_duration": "0.05",
        "check_version": "false",
    }
    return workflow


def draw(plans: Mapping[str, Sequence[Stage]], to_run: Container[str]) -> str:
    """The stages of all participants and what they wait for, in the language of Graphviz; those to run are filled.

    Parameters
    ----------
    plans : mapping of participant to stages
    to_run : container of str
        Names of stages.
    """
    lines = ["digraph bids_brainlm {", '  rankdir="LR";', '  node [shape=box, fontname="sans-serif"];']
    for who, stages in plans.items():
        lines += [f'  subgraph "cluster_{who}" {{', f'    label="sub-{who}";']
        for stage in stages:
            style = ', style=filled, fillcolor="lightgrey"' if stage.name in to_run else ""
            lines.append(f'    "{stage.name}" [label="{stage.name.removeprefix(f"sub-{who}_")}"{style}];')
        lines += [f'    "{before}" -> "{stage.name}";' for stage in stages for before in stage.after]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def _clean(name: str) -> str:
    return re.sub(r"\W", "_", name.replace("+", "_plus_"))
