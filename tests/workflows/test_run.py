"""What is run, with which plugin, and what a clean work folder has lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bids_brainlm.config import Request, load
from bids_brainlm.errors import ConfigError
from bids_brainlm.stages.cache import Stage
from bids_brainlm.workflows.run import _clean, _read_plugin, _to_run

STAGES = [
    Stage("sub-01_estimate", "m:f", "k"),
    Stage("sub-01_parcellate", "m:f", "k", after=("sub-01_estimate",)),
    Stage("sub-01_train", "m:f", "k", after=("sub-01_estimate",), heavy=True),
    Stage("sub-01_decode", "m:f", "k", after=("sub-01_train",), heavy=True),
]


def _request(folder: Path, skip: str) -> Request:
    config = load(overrides={"run.skip": skip})
    return Request(folder, folder / "out", "participant", (), {}, folder / "work", config)


@pytest.mark.parametrize(
    ("skip", "kinds"),
    [
        ("[]", ["estimate", "parcellate", "train", "decode"]),
        ("['parcellate']", ["estimate", "train", "decode"]),
        ("['train']", ["estimate", "parcellate"]),
        ("['estimate']", []),
        ("['decode', 'evaluate', 'reports']", ["estimate", "parcellate", "train"]),
    ],
)
def test_what_is_skipped_takes_its_followers_along(tmp_path: Path, skip: str, kinds: list[str]) -> None:
    assert [stage.kind for stage in _to_run(_request(tmp_path, skip), STAGES)] == kinds


def test_reports_only_runs_nothing(tmp_path: Path) -> None:
    assert _to_run(replace(_request(tmp_path, "[]"), reports_only=True), STAGES) == []


def test_a_plugin_file_as_fmriprep_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "plugin.yml"
    path.write_text("plugin: SLURM\nplugin_args:\n  sbatch_args: --mem 8G\n")
    assert _read_plugin(path) == {"plugin": "SLURM", "plugin_args": {"sbatch_args": "--mem 8G"}}


@pytest.mark.parametrize("text", ["plugin_args: {}", "- a", "plugin: [", "!!python/object/apply:os.getcwd []"])
def test_a_plugin_file_that_names_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plugin.yml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="plugin.yml"):
        _read_plugin(path)


def test_a_work_folder_loses_only_what_is_ours(tmp_path: Path) -> None:
    for name in ("checkpoints/sub-01_x/fold-0/last.safetensors", "run-0a/f", "hashes.json", "mine/notes.txt", "runs.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    _clean(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "runs.txt"]
