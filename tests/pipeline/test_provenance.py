"""What is kept of a run is enough to run it again, and true."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bids_brainlm import __version__

ONE = ("--participant-label", "01", "--seed", "7", "--set", "phases.0.epochs=2", "decode.permutations=9")


def _run(volume: Any, root: Path) -> Any:
    study = volume.copy(root)
    study.ok(*ONE, "--resource-monitor", "--write-graph")
    return study


@pytest.fixture(scope="module")
def study(volume: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A study that was run once; only to be read."""
    return _run(volume, tmp_path_factory.mktemp("provenance"))


def _settings(study: Any) -> Path:
    (path,) = (study.out / "logs").glob("*_*.toml")
    return Path(path)


def test_the_settings_of_a_run_alone_repeat_it(volume: Any, command: Any, tmp_path: Path) -> None:
    study = _run(volume, tmp_path)
    settings = _settings(study)
    done = command("--config-file", settings)
    assert done.code == 0, done.err
    assert study.executed() == []
    assert study.log()["n_reused"] == 9


def test_somewhere_else_they_give_the_same_numbers(study: Any, command: Any, tmp_path: Path) -> None:
    out = tmp_path / "again" / "out"
    done = command(study.bids, out, "participant", "-w", tmp_path / "again" / "work", "--config-file", _settings(study))
    assert done.code == 0, done.err
    assert len(study.executed(out)) == 9
    names = [p.relative_to(out) for p in sorted((out / "sub-01").rglob("*")) if p.suffix in (".tsv", ".safetensors", ".gz")]
    assert len(names) > 12
    assert [str(name) for name in names if (out / name).read_bytes() != (study.out / name).read_bytes()] == []


def test_the_log_tells_what_it_ran_on(study: Any) -> None:
    tree = study.log()
    assert tree["ended"] == "done"
    assert tree["seed"] == 7
    assert tree["version"] == __version__
    assert tree["versions"]["torch"] == metadata.version("torch")
    assert tree["command"][1:] == study.argv(*ONE, "--resource-monitor", "--write-graph")
    assert tree["machine"]["cores"] >= tree["machine"]["cores_allowed"] >= 1
    bold = study.func("space-T1w_desc-preproc_bold.nii.gz", 2)
    for path in (bold, study.events(3), study.bids / "stimuli" / "captions.tsv"):
        assert tree["inputs"][str(path)] == hashlib.sha256(path.read_bytes()).hexdigest()
    weights = [name for name in tree["inputs"] if name.endswith(".safetensors")]
    assert len(weights) == 1
    # The other participant was not asked for.
    assert not [name for name in tree["inputs"] if "sub-02" in name]


def test_every_stage_has_its_time_and_memory(study: Any) -> None:
    tree = study.log()
    assert len(tree["stages"]) == 9
    for name, measured in tree["stages"].items():
        assert 0 < measured["peak_memory_gb"] < 8, name
        assert measured["seconds"] >= 0, name
    (path,) = (study.out / "logs").glob("*_resources.tsv")
    table = pd.read_csv(path, sep="\t")
    assert dict(zip(table["stage"], table["seconds"], strict=True)) == {n: m["seconds"] for n, m in tree["stages"].items()}
    (graph,) = (study.out / "logs").glob("*_graph.dot")
    assert graph.read_text().count("style=filled") == 9


def test_sidecars_name_what_went_in(study: Any) -> None:
    (model,) = (study.out / "sub-01" / "model").glob("*.json")
    tree = json.loads(model.read_text())
    assert tree["LanguageModel"]["revision"].startswith("sha256:")
    assert tree["Seed"] == 7
    assert tree["SoftwareVersions"]["torch"] == metadata.version("torch")
    betas = study.out / "sub-01" / "func" / "sub-01_task-look_run-1_space-T1w_stat-effect_desc-LSS_statmap.json"
    sources = json.loads(betas.read_text())["SourcesSHA256"]
    events = "bids:raw:sub-01/func/sub-01_task-look_run-1_events.tsv"
    assert sources[events] == hashlib.sha256(study.events(1).read_bytes()).hexdigest()
    assert len(sources) == len(json.loads(betas.read_text())["Sources"]) == 4
