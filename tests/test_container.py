"""The image and the cluster examples say what the package does: no engine, no root and no cluster is needed here.

The shell scripts are run with stand-ins for sbatch, scontrol and apptainer, which write down how they were called.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import ModuleType

import click
import nibabel as nib
import numpy as np
import pytest
from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiLabel, GiftiLabelTable

from bids_brainlm import __version__
from bids_brainlm.cli import app, exits
from bids_brainlm.io.derivatives import _container

ROOT = Path(__file__).parents[1]
SLURM = ROOT / "examples" / "slurm"
SCRIPTS = sorted([*(ROOT / "scripts").glob("*.sh"), *SLURM.iterdir()])
WEIGHTS = re.compile(r"hf download|snapshot_download|from_pretrained|huggingface-cli|git lfs", re.IGNORECASE)


def _dockerfile() -> ModuleType:
    spec = importlib.util.spec_from_file_location("brainlm_dockerfile", ROOT / "scripts" / "dockerfile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


READER = _dockerfile()
FILE = READER.read(ROOT / "Dockerfile")
FINAL = FILE.stages[-1]


def _rest(stage: object, keyword: str) -> list[str]:
    return [item.rest for item in stage.instructions if item.keyword == keyword]  # type: ignore[attr-defined]


def _env() -> dict[str, str]:
    return dict(READER.pairs(" ".join(_rest(FINAL, "ENV")), FILE.arguments))


def _sources() -> list[tuple[str, str]]:
    """(stage copied from or nothing, source) of every COPY."""
    found = []
    for rest in (rest for stage in FILE.stages for rest in _rest(stage, "COPY")):
        *words, _ = rest.split()
        stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else ""
        found += [(stage, word) for word in words]
    return found


def test_every_base_is_pinned_to_a_patch_release_and_a_debian() -> None:
    names = {stage.name for stage in FILE.stages}
    bases = {stage.parent for stage in FILE.stages} - names
    assert bases
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", base) for base in bases), bases
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["requires-python"]
    minor = {tuple(map(int, base.partition(":")[2].split("-")[0].split(".")[:2])) for base in bases}
    assert min(minor) >= tuple(map(int, requires.removeprefix(">=").split(".")))


def test_every_install_is_pinned() -> None:
    installs = [
        line for stage in FILE.stages for run in _rest(stage, "RUN") for line in run.split("&&") if "pip" in line.split()[0]
    ]
    assert len(installs) > 2
    for line in installs:
        assert "-c constraints.txt" in line or "--no-deps" in line, line


def test_the_constraints_pin_what_the_package_needs() -> None:
    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    lines = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pinned = {plain(line.partition("==")[0]) for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {plain(re.split(r"[<>=]", line)[0]) for line in project["dependencies"]} | {"hatchling", "setuptools"} <= pinned


def test_it_does_not_end_as_root() -> None:
    users = [item.rest for item in FINAL.instructions if item.keyword == "USER"]
    assert users
    assert users[-1].partition(":")[0] not in ("root", "0")
    assert any(f"useradd --no-create-home --home-dir {_env()['HOME']} {users[-1]}" in run for run in _rest(FINAL, "RUN"))


def test_everyone_may_use_the_home_and_nothing_lies_in_root_s() -> None:
    home = _env()["HOME"]
    assert any(re.search(rf"install -d -m 0777 .*{home}$", run) for run in _rest(FINAL, "RUN"))
    assert "/root" not in (ROOT / "Dockerfile").read_text("utf-8")


def test_no_weights_and_no_model_cache_are_in_it() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    assert not WEIGHTS.search(text)
    assert not {"HF_HOME", "HF_TOKEN"} & set(_env())
    # What runs while it is built is the installer, the templates' script and the home; nothing else could fetch.
    runs = [part.split()[0] for stage in FILE.stages for run in _rest(stage, "RUN") for part in run.split("&&")]
    assert {Path(word).name for word in runs} == {"python", "pip", "chmod", "useradd", "install"}
    assert not WEIGHTS.search((ROOT / "scripts" / "fetch_templates.py").read_text("utf-8"))


def test_what_is_copied_is_there_and_not_ignored() -> None:
    kept = [line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")]
    stages = {stage.name for stage in FILE.stages}
    for stage, source in _sources():
        if stage:
            assert stage in stages
        else:
            assert (ROOT / source).exists(), source
            assert source in kept, source
    assert set(kept) == {source for stage, source in _sources() if not stage}
    assert all((ROOT / name).exists() for name in kept)


def test_the_entry_point_is_the_console_script() -> None:
    entry = json.loads(_rest(FINAL, "ENTRYPOINT")[0])
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert entry == ["/opt/venv/bin/bids_brainlm"]
    assert Path(entry[0]).name in scripts
    assert ("install", "/opt/venv") in _sources()
    assert any(run.startswith("python -m venv /opt/venv ") for stage in FILE.stages for run in _rest(stage, "RUN"))


def test_the_version_is_the_package_s_and_is_written_into_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FILE.arguments["VERSION"] == __version__
    labels = READER.pairs(" ".join(_rest(FINAL, "LABEL")), FILE.arguments)
    assert labels["org.opencontainers.image.version"] == __version__
    monkeypatch.delenv("BIDS_BRAINLM_SINGULARITY_URL", raising=False)
    monkeypatch.setenv("BIDS_BRAINLM_DOCKER_TAG", _env()["BIDS_BRAINLM_DOCKER_TAG"])
    assert _container() == {"Container": {"Type": "docker", "Tag": f"bids_brainlm:{__version__}"}}


def test_the_page_lists_the_variables_of_the_image() -> None:
    text = (ROOT / "docs" / "how-to" / "docker.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", text, flags=re.MULTILINE))
    assert rows == _env()


def test_templates_stay_where_they_are_baked() -> None:
    env = _env()
    assert (env["TEMPLATEFLOW_HOME"], env["TEMPLATEFLOW_AUTOUPDATE"]) == ("/opt/templateflow", "off")
    stage = next(stage for stage in FILE.stages if stage.name == "templates")
    assert READER.pairs(" ".join(_rest(stage, "ENV")), {})["TEMPLATEFLOW_HOME"] == env["TEMPLATEFLOW_HOME"]
    assert _rest(stage, "RUN") == [f"/opt/venv/bin/python fetch_templates.py && chmod -R a+rX,go-w {env['TEMPLATEFLOW_HOME']}"]
    assert ("templates", env["TEMPLATEFLOW_HOME"]) in _sources()


def _fetch(home: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"TEMPLATEFLOW_HOME": str(home), "TEMPLATEFLOW_AUTOUPDATE": "off"}
    # Nobody listens there: what is not in the folder cannot be fetched.
    env |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "fetch_templates.py")], env=env, capture_output=True, text=True, check=False
    )


def _labels(path: Path, side: str) -> None:
    """A GIFTI of two parcels on one hemisphere at 164k."""
    keys = np.arange(163842, dtype=np.int32) % 3
    table = GiftiLabelTable()
    for key, name in enumerate(("background", f"{side}_a", f"{side}_b")):
        label = GiftiLabel(key)
        label.label = name
        table.labels.append(label)
    array = GiftiDataArray(keys, intent="NIFTI_INTENT_LABEL", datatype="NIFTI_TYPE_INT32")
    nib.save(GiftiImage(darrays=[array], labeltable=table), path)


@pytest.mark.slow
def test_the_templates_script_asks_for_the_recipe_s_atlas_and_refuses_an_empty_file(tmp_path: Path) -> None:
    missing = _fetch(tmp_path)
    assert missing.returncode == 69
    assert "fetch_templates: TemplateFlow's file cannot be fetched" in missing.stderr
    assert "Traceback" not in missing.stderr
    # The folder now holds TemplateFlow's skeleton: every file there is, empty.
    name = "tpl-fsaverage_hemi-{}_den-164k_atlas-Schaefer2018_seg-7n_scale-100_dseg.label.gii"
    paths = {side: tmp_path / "tpl-fsaverage" / name.format(side) for side in "LR"}
    assert {path.stat().st_size for path in paths.values()} == {0}
    _labels(paths["L"], "L")
    assert _fetch(tmp_path).returncode == 69
    _labels(paths["R"], "R")
    without = _fetch(tmp_path)
    assert without.returncode == 69
    assert "api.get('fsLR', space='fsaverage', density='32k', suffix='sphere', extension='.surf.gii')" in without.stderr
    for side in "LR":
        paths[f"sphere {side}"] = tmp_path / "tpl-fsLR" / f"tpl-fsLR_space-fsaverage_hemi-{side}_den-32k_sphere.surf.gii"
        assert paths[f"sphere {side}"].stat().st_size == 0
        paths[f"sphere {side}"].write_text("x")
    done = _fetch(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Schaefer2018:100:7n: 4 parcels, 4 file(s) in {tmp_path}\n")
    assert all(f"{path.stat().st_size} {path.relative_to(tmp_path)}" in done.stdout for path in paths.values())


def test_the_templates_script_takes_the_command_s_own_default() -> None:
    text = (ROOT / "scripts" / "fetch_templates.py").read_text("utf-8")
    default = next(param.default for param in app.command.params if param.name == "recipe")
    assert f'RECIPE = "{default}"' in text


def test_an_instruction_that_nobody_runs_by_hand_is_refused() -> None:
    with pytest.raises(ValueError, match="ADD x y: not one of"):
        READER.instructions("FROM a\nADD x y")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_can_be_run(path: Path) -> None:
    assert os.access(path, os.X_OK)
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_scripts_that_begin_with_an_interpreter_can_be_run() -> None:
    for path in (ROOT / "scripts").glob("*.py"):
        assert os.access(path, os.X_OK) == path.read_text("utf-8").startswith("#!"), path.name


class Cluster:
    """Stand-ins for Slurm and Apptainer in a folder of their own; each call is one line of JSON in ``calls``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("bin", "bids", "hf", "study"):
            (folder / name).mkdir()
        for label in ("02", "10", "01"):
            (folder / "bids" / f"sub-{label}").mkdir()
        (folder / "study" / "study.toml").write_text('[model]\nllm = "org/model"\n', "utf-8")
        self.stand_in("sbatch", "echo 7$(wc -l <CALLS)';cluster'")
        self.stand_in("scontrol", "true")
        self.stand_in("apptainer", "true")
        self.env = {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "BIDS": str(folder / "bids"), "OUT": str(folder / "out"), "WORK": str(folder / "work"), "HF": str(folder / "hf"),
            "IMAGE": str(folder / "image.sif"), "CONFIG": str(folder / "study" / "study.toml"),
            "LIST": str(folder / "work" / "participants.txt"),
        }  # fmt: skip

    def stand_in(self, name: str, then: str) -> None:
        path = self.folder / "bin" / name
        record = f"import json, sys; print(json.dumps(['{name}', *sys.argv[1:]]))"
        calls = self.folder / "calls"
        path.write_text(
            f'#!/bin/bash\n{sys.executable} -c "{record}" "$@" >>{calls}\n{then.replace("CALLS", str(calls))}\n', "utf-8"
        )
        path.chmod(0o755)

    @property
    def calls(self) -> list[list[str]]:
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []

    def start(self, script: str, *args: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", SLURM / script, *args], env=self.env | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, script: str, *args: str, **env: str) -> tuple[int, str]:
        process = self.start(script, *args, **env)
        text, _ = process.communicate(timeout=60)
        return process.returncode, text


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


TASK = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_ID": "72", "SLURM_CPUS_PER_TASK": "4", "SLURM_MEM_PER_NODE": "32000"}


def _container_call(call: list[str]) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """(binds by where they are seen, variables, words for the app) of one call of apptainer."""
    assert call[:2] == ["apptainer", "run"]
    image = next(i for i, word in enumerate(call) if word.startswith("/") and word.endswith("image.sif"))
    options = call[2:image]
    binds = [item.split(":") for item in options[options.index("--bind") + 1].split(",")]
    env = dict(options[i + 1].split("=", 1) for i, word in enumerate(options) if word == "--env")
    return {":".join(there): here for here, *there in binds}, env, call[image + 1 :]


def _accepted(words: list[str], monkeypatch: pytest.MonkeyPatch) -> click.Context:
    """The app's own reading of the words."""
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: Path(value))
    return app.command.make_context(app.NAME, list(words), obj=exits.Ending())


def test_submit_makes_one_task_a_participant_and_group_after_all_of_them(cluster: Cluster) -> None:
    code, text = cluster.run("submit.sh")
    assert code == 0, text
    array, group = cluster.calls
    assert Path(cluster.env["LIST"]).read_text("utf-8").split() == ["01", "02", "10"]
    assert "--array=1-3%20" in array
    assert array[-1] == str(SLURM / "participant.sbatch")
    assert "--dependency=afterany:71" in group
    assert group[-1] == str(SLURM / "group.sbatch")
    assert "3 participant(s) in array 71, then group in 72" in text
    # The folder of the logs must be there before the first job starts.
    outputs = [word.removeprefix("--output=") for call in (array, group) for word in call if word.startswith("--output=")]
    assert all(Path(path).parent.is_dir() for path in outputs)


def test_submit_reads_a_list_of_participants(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("sub-10\r\n\n02\n", "utf-8")
    code, _ = cluster.run("submit.sh", str(tmp_path / "list"), JOBS="5")
    assert code == 0
    assert Path(cluster.env["LIST"]).read_text("utf-8").splitlines() == ["10", "02"]
    assert "--array=1-2%5" in cluster.calls[0]


def test_submit_refuses_an_empty_dataset_and_a_variable_that_is_not_set(cluster: Cluster) -> None:
    (cluster.folder / "empty").mkdir()
    assert cluster.run("submit.sh", BIDS=str(cluster.folder / "empty"))[0] == 66
    del cluster.env["IMAGE"]
    code, text = cluster.run("submit.sh")
    assert code != 0
    assert "IMAGE: the image, a .sif file" in text
    assert cluster.calls == []


def test_a_task_runs_its_participant(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster.run("submit.sh")[0] == 0
    code, text = cluster.run("participant.sbatch", **TASK, CUDA_VISIBLE_DEVICES="3")
    assert code == 0, text
    binds, env, words = _container_call(cluster.calls[-1])
    folder = cluster.folder
    assert binds == {
        "/bids:ro": str(folder / "bids"), "/out": str(folder / "out"), "/work": str(folder / "work" / "sub-02"),
        "/hf:ro": str(folder / "hf"), "/study:ro": str(folder / "study"),
    }  # fmt: skip
    assert (folder / "work" / "sub-02").is_dir()
    assert {"--cleanenv", "--nv"} <= set(cluster.calls[-1])
    assert env["CUDA_VISIBLE_DEVICES"] == "3"
    assert env["HF_HOME"] == "/hf"
    given = _accepted(words, monkeypatch).params
    assert (given["bids_dir"], given["output_dir"], given["level"]) == (Path("/bids"), Path("/out"), "participant")
    assert given["participant_label"] == ("02",)
    assert (given["work_dir"], given["config_file"]) == (Path("/work"), Path("/study/study.toml"))
    assert (given["run__offline"], given["run__nprocs"], given["run__memory"]) == (True, 4, "28800M")


def test_a_task_without_gpu_or_memory_limit(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster.run("submit.sh")[0] == 0
    task = {name: value for name, value in TASK.items() if name != "SLURM_MEM_PER_NODE"}
    assert cluster.run("participant.sbatch", **task)[0] == 0
    assert "--nv" not in cluster.calls[-1]
    assert _accepted(_container_call(cluster.calls[-1])[2], monkeypatch).params["participant_label"] == ("02",)


def test_group_is_asked_for_the_whole_list_so_that_it_can_name_who_is_missing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster.run("submit.sh")[0] == 0
    assert cluster.run("group.sbatch")[0] == 0
    given = _accepted(_container_call(cluster.calls[-1])[2], monkeypatch).params
    assert (given["level"], given["participant_label"]) == ("group", ("01", "02", "10"))


@pytest.mark.parametrize(
    ("then", "restarts", "code", "requeued"),
    [
        ("trap 'exit 143' TERM; touch READY; while :; do sleep 0.05; done", "0", 143, True),
        ("trap 'exit 143' TERM; touch READY; while :; do sleep 0.05; done", "10", 143, False),
        ("trap 'exit 0' TERM; touch READY; while :; do sleep 0.05; done", "0", 0, False),
        ("trap 'sleep 0.5; exit 65' TERM; touch READY; while :; do sleep 0.05; done", "0", 65, False),
    ],
    ids=["out of time", "too often", "done just in time", "failed just then"],
)
def test_a_task_out_of_time_ends_the_app_and_is_queued_again(
    cluster: Cluster, then: str, restarts: str, code: int, requeued: bool
) -> None:
    ready = cluster.folder / "ready"
    cluster.stand_in("apptainer", then.replace("READY", str(ready)))
    assert cluster.run("submit.sh")[0] == 0
    task = cluster.start("participant.sbatch", **TASK, SLURM_RESTART_COUNT=restarts)
    patience = time.monotonic() + 30
    while not ready.exists():
        assert time.monotonic() < patience
        time.sleep(0.02)
    task.send_signal(signal.SIGTERM)
    task.communicate(timeout=30)
    assert task.returncode == code
    assert (["scontrol", "requeue", "72"] in cluster.calls) is requeued


@pytest.mark.parametrize("code", [0, 65, 75])
def test_a_task_ends_with_the_code_of_the_app(cluster: Cluster, code: int) -> None:
    cluster.stand_in("apptainer", f"exit {code}")
    assert cluster.run("submit.sh")[0] == 0
    assert cluster.run("participant.sbatch", **TASK)[0] == code
    assert not any(call[0] == "scontrol" for call in cluster.calls)


def test_slurm_warns_the_script_before_it_kills() -> None:
    text = (SLURM / "participant.sbatch").read_text("utf-8")
    head = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.+))?$", text, flags=re.MULTILINE))
    # B: is the script itself; without it Slurm would warn job steps, of which there is none.
    assert head["signal"] == "B:TERM@60"
    assert "requeue" in head
