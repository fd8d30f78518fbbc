"""Memory of each piece of the work on a participant who grows in sessions.

*Responses*: sessions of 750 trials x 327,684 vertices (fsaverage, both hemispheres), as ``-d betas=FOLDER`` finds them: one
matrix a session beside its table; all matrices are links to the same file, so that the disk holds one session and the scratch
of all. Every stimulus is shown three times, in any sessions. Measured are

- ``load``: `load_trials`, which puts all sessions into scratch;
- ``centre``: `examples_of`, which centres them there, and `splits_of`;
- ``z-score`` and ``components``: `fit_affine` without and with 50 principal components;
- ``reliability``: split-half reliability, ncsnr and noise ceiling;
- ``batches``: 40 random training batches of 32 examples; ``scores``: components of every training example, computed once;
- ``readout``: inner products of at most 4,096 training examples, and a ridge readout of a fact.

*Series* (``--runs``): `auto` tuned on runs of 226 volumes x 327,684 vertices that lie in scratch as the stage leaves them, 12
of them on disk, linked again and again; then the responses of one run.

Every size runs in a process of its own. What counts against a limit is *anonymous* memory (RssAnon of /proc/self/status, sampled
every 10 ms); pages of files that are mapped (RssFile) are given back by the system whenever somebody needs them. The memory
that may be planned with is set to 16 GB. The script ends with an error when a piece takes more anonymous memory at the largest
size than at the smallest, but for 100 MB and what it must keep of each session (mean and deviation of every vertex) or run (the
regressors of its trials under every shape of response, and a block of its series).

    OMP_NUM_THREADS=1 python benchmarks/size.py [--sessions 2 4 8 16] [--runs 12 24] [--vertices N] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

N_TRIALS, N_REPEATS, N_COMPONENTS, BATCH, N_BATCHES = 750, 3, 50, 32, 40
N_VOLUMES, TR, PER_RUN, ON_DISK = 226, 1.6, 63, 12
NOISE, KEPT = 100.0, {"sessions": 4.0, "runs": 10.0}
"""MB by which anonymous memory may grow from the smallest size to the largest: in all, and for each session or run more."""


def resident() -> tuple[float, float]:
    """Anonymous and file-backed memory of this process in MB."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return tuple(int(fields[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile"))  # type: ignore[return-value]


class Meter:
    """Peaks of memory and wall time of named pieces."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.start, _ = resident()

    @contextmanager
    def piece(self, name: str) -> Iterator[None]:
        peak, done, began = [0.0, 0.0], threading.Event(), time.perf_counter()

        def sample() -> None:
            while not done.wait(0.01):
                peak[:] = map(max, peak, resident())

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        peak[:] = map(max, peak, resident())
        seconds = time.perf_counter() - began
        self.rows.append({"piece": name, "seconds": seconds, "anonymous": peak[0] - self.start, "file": peak[1]})
        print(f"     {name}: {seconds:.1f} s, {peak[0] - self.start:.0f} MB", file=sys.stderr, flush=True)


def write_sessions(folder: Path, n: int, n_vertices: int) -> None:
    """One matrix on disk, a link to it and a table for each session."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    matrix = np.lib.format.open_memmap(folder / "matrix.npy", "w+", np.float32, (N_TRIALS, n_vertices))
    for start in range(0, N_TRIALS, 50):
        matrix[start : start + 50] = rng.standard_normal((50, n_vertices), dtype=np.float32)
    matrix.flush()
    del matrix
    shown = rng.permutation(np.repeat(np.arange(n * N_TRIALS // N_REPEATS), N_REPEATS))
    for session in range(n):
        own = shown[session * N_TRIALS : (session + 1) * N_TRIALS]
        stem = f"sub-1_ses-{session + 1:02d}_task-look"
        (folder / f"{stem}_betas.npy").symlink_to(folder / "matrix.npy")
        table = pd.DataFrame({"onset": np.arange(len(own)) * 4.0, "duration": 3.0, "stim": own, "session": f"{session + 1:02d}"})
        table["caption"] = [f"picture {i} of a {'cat' if i % 2 else 'dog'}" for i in own]
        table.to_csv(folder / f"{stem}_trials.tsv", sep="\t", index=False)


def request_for(folder: Path, settings: dict[str, str]) -> Any:
    from bids_brainlm.config import Request, load

    places: dict[str, Any] = {"bids_dir": folder / "bids", "out_dir": folder / "out", "work_dir": folder / "work"}
    for place in places.values():
        place.mkdir(exist_ok=True)
    config = load("cortext-small", overrides={"run.memory": "16G", **settings})
    return Request(**places, level="participant", participants=(), derivatives={"betas": folder / "betas"}, config=config)


def responses(folder: Path, n: int, n_vertices: int) -> Meter:
    """All pieces of the work on responses."""
    from bids_brainlm.core.features import fit_affine
    from bids_brainlm.core.reliability import ncsnr, noise_ceiling, split_half
    from bids_brainlm.evaluation.metrics import Facts
    from bids_brainlm.stages.evaluate import _read_out
    from bids_brainlm.stages.examples import examples_of, splits_of
    from bids_brainlm.stages.reliability import _stimuli
    from bids_brainlm.stages.responses import load_trials
    from bids_brainlm.training.batches import Corpus

    write_sessions(folder / "betas", n, n_vertices)
    settings = {"text.column": "caption", "text.key": "stim", "estimate.center": "session", "run.low_mem": "true"}
    request = request_for(folder, settings)
    meter = Meter()
    with meter.piece("load"):
        trials = load_trials(request, "1")
    with meter.piece("centre"):
        examples = examples_of(request, trials)
        (split,) = splits_of(request, trials, examples)
    with meter.piece("z-score"):
        fit_affine(examples.recording, examples.rows[split.train])
    with meter.piece("components"):
        affine = fit_affine(examples.recording, examples.rows[split.train], N_COMPONENTS)
    with meter.piece("reliability"):
        stimulus = _stimuli(examples)
        found = split_half(examples.recording.data, stimulus)
        noise_ceiling(ncsnr(examples.recording.data, stimulus, trials.table["session"].to_numpy(str)))
    assert abs(np.nanmean(found)) < 0.3
    rng, train = np.random.default_rng(0), split.examples.take(split.train)
    with meter.piece("batches"):
        for _ in range(N_BATCHES):
            train.gather(rng.permutation(len(train))[:BATCH])
    with meter.piece("scores"):
        corpus = Corpus(tuple(() for _ in range(len(train))), train.gather).mapped(affine)
        corpus.gather(np.arange(BATCH))
    names = pd.DataFrame({"stim": np.unique(examples.stimulus)})
    facts = Facts.from_frame(names.assign(animal=np.where(names["stim"].astype(int) % 2, "cat", "dog")), "stim")
    with meter.piece("readout"):
        _read_out([split], facts, ("ridge",), 0)
    return meter


def series(folder: Path, n: int, n_vertices: int) -> Meter:
    """Tuning on runs in scratch, and the responses of one of them."""
    from bids_brainlm.core.design import nuisance
    from bids_brainlm.core.tuning import Options, Run
    from bids_brainlm.registry import estimators
    from bids_brainlm.stages.responses import scratch

    rng, times = np.random.default_rng(0), (np.arange(N_VOLUMES) + 0.5) * TR
    maps = []
    for _ in range(min(n, ON_DISK)):
        held = scratch(folder / "work", (n_vertices, N_VOLUMES))
        for start in range(0, n_vertices, 20_000):
            held[start : start + 20_000] = 1000 + 20 * rng.standard_normal((len(held[start : start + 20_000]), N_VOLUMES))
        maps.append(held.T)
    runs = []
    for i in range(n):
        onsets = np.sort(rng.permutation(np.arange(4, N_VOLUMES * TR - 20, 4.0))[:PER_RUN])
        shown = rng.integers(0, PER_RUN * n // N_REPEATS, PER_RUN).astype(str)
        confounds = rng.standard_normal((N_VOLUMES, 6))
        runs.append(
            Run(maps[i % ON_DISK], onsets, np.full(PER_RUN, 3.0), times, nuisance(times, 1 / 128, confounds), shown, f"{i // 12}")
        )
    meter, options, estimator = Meter(), Options(), estimators.get("auto")
    with meter.piece("tune"):
        tuning = estimator.tune(runs, options)
    with meter.piece("estimate"):
        betas = estimator.estimate(runs[0], tuning, 0, options)
    assert betas.shape == (PER_RUN, n_vertices)
    return meter


def measured(kind: str, n: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of one size, from a process of its own."""
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="size-") as folder:
        command = [sys.executable, __file__, "--one", kind, str(n), folder, "--vertices", str(arguments.vertices)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return list(json.loads(answer.stdout.splitlines()[-1]))


def table(kind: str, sizes: list[int], arguments: argparse.Namespace) -> bool:
    """Measure and print all sizes; whether anonymous memory stayed the same."""
    found = {}
    for n in sizes:
        found[n] = {row["piece"]: row for row in measured(kind, n, arguments)}
        for row in found[n].values():
            print(f"{n:4d} {kind:9s} {row['piece']:12s} {row['seconds']:8.1f} s  anonymous {row['anonymous']:7.0f} MB", end="")
            print(f"  file-backed {row['file']:7.0f} MB", flush=True)
    few, many = found[sizes[0]], found[sizes[-1]]
    allowed = NOISE + KEPT[kind] * (sizes[-1] - sizes[0])
    grown = [name for name in few if many[name]["anonymous"] > few[name]["anonymous"] + allowed]
    said = f"more than {allowed:.0f} MB more: {', '.join(grown)}" if grown else f"at most {allowed:.0f} MB more"
    print(f"{kind}, {sizes[0]} to {sizes[-1]}: {said}", flush=True)
    return not grown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, nargs="*", default=[2, 4, 8, 16])
    parser.add_argument("--runs", type=int, nargs="*", default=[12, 24])
    parser.add_argument("--vertices", type=int, default=327_684)
    parser.add_argument("--folder", type=Path, help="where to write (two sessions more than the largest size, 1 GB each)")
    parser.add_argument("--one", nargs=3, metavar=("KIND", "SIZE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, size, folder = arguments.one
        meter = {"sessions": responses, "runs": series}[kind](Path(folder), int(size), arguments.vertices)
        print(json.dumps(meter.rows))
        return 0
    sizes = {"sessions": arguments.sessions, "runs": arguments.runs}
    constant = [table(kind, each, arguments) for kind, each in sizes.items() if each]
    return 0 if all(constant) else 1


if __name__ == "__main__":
    sys.exit(main())
