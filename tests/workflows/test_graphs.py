"""One node a stage, in an order that its followers keep; requests survive the way to a worker."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from bids_brainlm.config import Request, load
from bids_brainlm.stages.cache import Stage
from bids_brainlm.workflows.graphs import draw, init_bids_brainlm_wf, init_participant_wf
from bids_brainlm.workflows.nodes import RunHeavyStage, from_json, to_json
from bids_brainlm.workflows.run import _with_followers


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    config = load("cortext-small", overrides={"split.source": "a|b.tsv", "model.options": "{kind = 'linear', hidden = 3}"})
    folders = {"bids_dir": tmp_path / "bids", "out_dir": tmp_path / "out", "work_dir": tmp_path / "work"}
    return Request(
        **folders, level="participant", participants=("01", "02"), derivatives={"f": tmp_path}, config=config, verbosity=1,
        database_dir=tmp_path / "index", debug=("pdb",), command=("a", "b"), origins={"run.device": "default"},
    )  # fmt: skip


def _stages(who: str, runs: int = 2) -> list[Stage]:
    first = [Stage(f"sub-{who}_run-{i}_estimate", "m:f", "k") for i in range(runs)]
    after = [Stage(f"sub-{who}_run-{i}_parcellate", "m:f", "k", after=(first[i].name,)) for i in range(runs)]
    train = Stage(f"sub-{who}_train", "m:f", "k", after=tuple(stage.name for stage in first), heavy=True)
    decode = Stage(f"sub-{who}_decode", "m:f", "k", after=(train.name,), heavy=True)
    return [*first, *after, train, decode]


def _memory(participant: str, kind: str) -> float:
    return {"train": 7.0}.get(kind, 1.0)


def test_a_request_survives_its_json(request_: Request) -> None:
    assert from_json(to_json(request_)) == request_


def test_a_workflow_has_a_node_a_stage_and_their_order(request_: Request) -> None:
    workflow = init_participant_wf(request_, "0+1", _stages("0+1"), _memory)
    names = {node.name for node in workflow._graph.nodes}
    assert len([name for name in names if not name.startswith("after_")]) == 6
    train = workflow.get_node("sub_0_plus_1_train")
    assert isinstance(train.interface, RunHeavyStage)
    assert train.overwrite
    assert train.mem_gb == 7.0
    order = {(a.name, b.name) for a, b in workflow._graph.edges}
    merged = {a for a, b in order if b == "after_sub_0_plus_1_train"}
    assert merged == {"sub_0_plus_1_run_0_estimate", "sub_0_plus_1_run_1_estimate"}
    assert ("after_sub_0_plus_1_train", "sub_0_plus_1_train") in order


def test_what_is_fresh_has_no_node_and_holds_nobody_up(request_: Request) -> None:
    stages = _stages("01")
    workflow = init_participant_wf(request_, "01", stages[-2:], _memory)
    assert {node.name for node in workflow._graph.nodes} == {"sub_01_train", "sub_01_decode", "after_sub_01_decode"}


def test_participants_stand_side_by_side(request_: Request, tmp_path: Path) -> None:
    workflow = init_bids_brainlm_wf(request_, {"01": _stages("01"), "02": [], "03": _stages("03")}, _memory, tmp_path / "work")
    assert {node.name for node in workflow._graph.nodes} == {"sub_01_wf", "sub_03_wf"}
    assert not workflow._graph.edges
    assert workflow.base_dir == str(tmp_path / "work")
    assert workflow.config["execution"]["crashdump_dir"] == str(tmp_path / "out" / "logs" / "crashes")


def test_followers_of_what_is_stale_are_stale() -> None:
    stages = _stages("01")
    by_name = {stage.name.removeprefix("sub-01_"): stage for stage in stages}

    def names(*stale: str) -> list[str]:
        found = _with_followers(stages, [by_name[name] for name in stale])
        return [stage.name.removeprefix("sub-01_") for stage in found]

    assert names() == []
    assert names("decode") == ["decode"]
    assert names("run-1_parcellate") == ["run-1_parcellate"]
    assert names("run-0_estimate") == ["run-0_estimate", "run-0_parcellate", "train", "decode"]
    everything = [stage.name.removeprefix("sub-01_") for stage in stages]
    assert all(set(names(*pair)) <= set(everything) for pair in itertools.combinations(everything, 2))


def test_the_drawing_has_every_stage_and_arrow_once(request_: Request) -> None:
    stages = {"01": _stages("01"), "02": _stages("02", runs=1)}
    text = draw(stages, {"sub-01_train"})
    every = [stage for part in stages.values() for stage in part]
    assert all(text.count(f'"{stage.name}" [label=') == 1 for stage in every)
    assert text.count("->") == sum(len(stage.after) for stage in every)
    assert text.count("style=filled") == 1
    assert '"sub-01_train" [label="train", style=filled' in text
