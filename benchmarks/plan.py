"""How long a plan of a large data set takes, and how that compares to indexing it with pybids.

A tree of 1,000 participants (``--participants``), 36 files each, is made in a temporary folder: 4 runs with a raw BOLD series
(a stub), its sidecar and events of 40 trials; both hemispheres on fsaverage5 as GIFTI files that are cut off after the header
of their first data array, with sidecars; confounds with their sidecar. Every run has its own order of pictures. Timed are

- ``survey_all`` in one process, and in two;
- the whole command, ``bids_brainlm BIDS OUT participant --dry-run``, from start to end;
- ``bids.BIDSLayout`` of raw data and derivatives, indexing the first 100 participants (``--peer``; 0 leaves it out), per
  participant: what a tool that indexes first must do before it can look for its files.

    OMP_NUM_THREADS=1 python benchmarks/plan.py [--participants N] [--peer N] [--keep FOLDER] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

N_RUNS, N_TRIALS, N_VOLUMES, N_VERTICES, TR = 4, 40, 150, 10242, 2.0
PICTURES = [f"picture-{i:03d}" for i in range(N_RUNS * N_TRIALS)]
CONFOUNDS = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z", *(f"a_comp_cor_{i:02d}" for i in range(60))]


def gifti_stub() -> bytes:
    """The start of a series as nibabel writes it."""
    arrays = [nib.gifti.GiftiDataArray(np.zeros(N_VERTICES, np.float32), intent="NIFTI_INTENT_TIME_SERIES")] * N_VOLUMES
    text = nib.GiftiImage(darrays=arrays).to_bytes()
    return bytes(text[: text.index(b"<Data>") + 1000])


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def make_tree(root: Path, n: int) -> Path:
    """Write the data set; return the folder of a language model beside it (its shape only)."""
    bids, fmriprep = root / "bids", root / "bids" / "derivatives" / "fmriprep"
    write(bids / "dataset_description.json", json.dumps({"Name": "large", "BIDSVersion": "1.10.0"}))
    about = {"Name": "fMRIPrep", "BIDSVersion": "1.10.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "fMRIPrep"}]}
    write(fmriprep / "dataset_description.json", json.dumps(about))
    captions = "".join(f"{name}\tthe caption of {name}\n" for name in PICTURES)
    write(bids / "stimuli" / "captions.tsv", "stim_id\tcaption\n" + captions)
    rng, gifti = np.random.default_rng(0), gifti_stub()
    for i in range(n):
        who = f"sub-{i + 1:04d}"
        shown = rng.permutation(PICTURES).reshape(N_RUNS, N_TRIALS)
        for run in range(N_RUNS):
            stem = f"{who}_task-look_run-{run + 1}"
            write_run(bids / who / "func" / stem, fmriprep / who / "func" / stem, list(shown[run]), gifti)
    llm = root / "llm"
    shape = {"model_type": "llama", "hidden_size": 128, "num_hidden_layers": 4, "vocab_size": 2000}
    write(llm / "config.json", json.dumps(shape))
    header = json.dumps({"x": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}}).encode()
    write(llm / "model.safetensors", struct.pack("<Q", len(header)) + header + bytes(4000))
    write(llm / "tokenizer.json", "{}")
    return llm


def write_run(raw: Path, derived: Path, shown: list[str], gifti: bytes) -> None:
    def beside(stem: Path, ending: str, content: str | bytes) -> None:
        write(stem.with_name(f"{stem.name}_{ending}"), content)

    rows = "".join(f"{4 + 6 * i}\t1\tpicture\t{name}\n" for i, name in enumerate(shown))
    beside(raw, "bold.nii.gz", b"")
    beside(raw, "bold.json", json.dumps({"RepetitionTime": TR, "TaskName": "look"}))
    beside(raw, "events.tsv", "onset\tduration\ttrial_type\tstim_id\n" + rows)
    for side in "LR":
        beside(derived, f"hemi-{side}_space-fsaverage5_bold.func.gii", gifti)
        beside(derived, f"hemi-{side}_space-fsaverage5_bold.json", json.dumps({"RepetitionTime": TR, "StartTime": 0.0}))
    table = ["\t".join(CONFOUNDS), *["\t".join(["0.01"] * len(CONFOUNDS))] * 20]
    beside(derived, "desc-confounds_timeseries.tsv", "\n".join(table) + "\n")
    beside(derived, "desc-confounds_timeseries.json", json.dumps({name: {"Method": "x"} for name in CONFOUNDS}))


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall seconds, and CPU seconds of this process and its children, which a busy machine changes less."""
    start, used = time.perf_counter(), cpu()
    work()
    return time.perf_counter() - start, cpu() - used


def cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def arguments(root: Path, llm: Path) -> list[str]:
    settings = ["--recipe", "cortext-small", "--llm", str(llm), "--offline", "--texts", "stimuli/captions.tsv"]
    return [str(root / "bids"), str(root / "out"), "participant", "-w", str(root / "work"), *settings, "--key-column", "stim_id"]


def request_of(root: Path, llm: Path, n_processes: int) -> Any:
    from bids_brainlm.config import Request, load

    flags = {"text.table": "stimuli/captions.tsv", "text.key": "stim_id", "model.llm": str(llm), "run.offline": True}
    config = load("cortext-small", flags=flags)
    config = replace(config, run=replace(config.run, nprocs=n_processes))
    return Request(root / "bids", root / "out", "participant", (), {}, root / "work", config)


def survey_seconds(root: Path, llm: Path, n: int, n_processes: int) -> tuple[float, float]:
    """Wall seconds in a process of its own, whose imports do not count; CPU seconds, in which they do."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import plan as bench\n"
        "from bids_brainlm.stages.preflight import survey_all\n"
        "request = bench.request_of(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[5]))\n"
        "who = [f'{i + 1:04d}' for i in range(int(sys.argv[4]))]\n"
        "start = time.perf_counter(); plans = survey_all(request, who); took = time.perf_counter() - start\n"
        "assert all(p.n_trials == 160 and p.folds and not p.faults for p in plans), plans[0]\n"
        "print(took)\n"
    )
    # A file, not -c: processes are spawned, and must be able to import the script they come from.
    script = root / "survey.py"
    script.write_text("if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in code.splitlines()))
    own = str(Path(__file__).parent)
    argv = [sys.executable, str(script), own, str(root), str(llm), str(n), str(n_processes)]
    used = cpu()
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1]), cpu() - used


def command_seconds(root: Path, llm: Path) -> tuple[float, float]:
    code = "import sys; from bids_brainlm.cli.app import main; sys.exit(main(sys.argv[1:]))"
    argv = [sys.executable, "-c", code, *arguments(root, llm), "--dry-run"]
    log = root / "dry-run.txt"
    with log.open("w") as stream:
        took = seconds(lambda: subprocess.run(argv, check=True, stdout=stream, stderr=subprocess.STDOUT))
    print(f"    ({len(log.read_text().splitlines())} lines; {'out' if (root / 'out').exists() else 'no out'} folder afterwards)")
    return took


def peer_seconds(root: Path, n: int) -> tuple[float, float]:
    """pybids on a tree of the first participants, linked so that nothing else is seen."""
    from bids import BIDSLayout

    small = root / "peer"
    shutil.rmtree(small, ignore_errors=True)
    fmriprep = small / "derivatives" / "fmriprep"
    fmriprep.mkdir(parents=True, exist_ok=True)
    for source, target in ((root / "bids", small), (root / "bids" / "derivatives" / "fmriprep", fmriprep)):
        os.link(source / "dataset_description.json", target / "dataset_description.json")
        for i in range(n):
            who = f"sub-{i + 1:04d}"
            (target / who / "func").mkdir(parents=True)
            for path in (source / who / "func").iterdir():
                os.link(path, target / who / "func" / path.name)
    return seconds(lambda: BIDSLayout(small, derivatives=fmriprep, validate=False))


def profile(root: Path, llm: Path, n: int) -> None:
    from bids_brainlm.stages.preflight import survey

    request = request_of(root, llm, 1)
    survey(request, "0001", pace={})
    with cProfile.Profile() as profiler:
        for i in range(min(n, 200)):
            survey(request, f"{i + 1:04d}", pace={})
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(60)


def run(root: Path, options: argparse.Namespace) -> None:
    n = options.participants
    llm = root / "llm"
    if not llm.is_dir():
        print(f"{say(seconds(lambda: make_tree(root, n)))} to make {n} participants, {36 * n} files")
    if options.profile:
        profile(root, llm, n)
        return
    print("  wall (s)  CPU (s)")
    for n_processes in (1, 2):
        print(f"{say(survey_seconds(root, llm, n, n_processes))} survey_all of {n} participants, {n_processes} process(es)")
    whole = command_seconds(root, llm)
    print(f"{say(whole)} bids_brainlm ... --dry-run, the whole command")
    if options.peer:
        wall, used = (value * n / options.peer for value in peer_seconds(root, options.peer))
        ratios = f"{wall / whole[0]:.0f} times the wall and {used / whole[1]:.0f} times the CPU seconds of the whole command"
        print(f"{say((wall, used))} pybids BIDSLayout, from {options.peer} participants: {ratios}")


def say(taken: tuple[float, float]) -> str:
    return f"{taken[0]:10.1f} {taken[1]:8.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--participants", type=int, default=1000)
    parser.add_argument("--peer", type=int, default=100)
    parser.add_argument("--keep", type=Path, help="folder for the tree, which is kept and used again")
    parser.add_argument("--profile", action="store_true", help="profile the survey of 200 participants, and time nothing")
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        run(options.keep.resolve(), options)
        return
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), options)


if __name__ == "__main__":
    main()
