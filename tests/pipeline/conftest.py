"""A small study with fMRIPrep's names, a language model of its captions, and the command line to run on them.

Twelve pictures (four animals in three colours, three times each) are shown in three runs. Every word has its own random
pattern of voxels or vertices, far above the noise, so that a pipe that works cannot miss it. A second study has the same words
told in stories, one a run, and a run at rest without events.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from scipy.stats import gamma

from bids_brainlm.cli import app, companion
from bids_brainlm.stages.cache import Stage
from bids_brainlm.workflows import workers

collect_ignore_glob = ["faults_*.py"]  # tables of cases that test_faults.py loads; they hold no doctest

TASK, TR, SPACING, N_RUNS = "look", 2.0, 6.0, 3
ANIMALS, COLOURS = ("bird", "cow", "dog", "fox"), ("blue", "green", "red")
PICTURES = [f"{colour}-{animal}" for colour in COLOURS for animal in ANIMALS]
COLOUR_QUESTIONS = ("What colour?", "Which colour is it?")
TRAINED = [name for name in PICTURES if name not in ("blue-bird", "green-cow", "red-dog", "green-fox")]
SHAPE = (6, 6, 8)
CONFOUNDS = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
N_VERTICES = 2562  # of a hemisphere of fsaverage, density 3k
QUICK = """
[model]
tokenizer = "parcelwise"
options = {kind = "linear"}
vertex_dropout = 0.5

[[phases]]
name = "tokenizers"
train = ["tokenizer", "norms"]
epochs = 6
learning_rate = 3e-3
l2 = 10.0
batch_size = 8

[decode]
max_new_tokens = 8
permutations = 19

[evaluate]
bootstrap = 200

[parcels]
atlas = "kmeans100"

[text]
table = "stimuli/captions.tsv"
key = "stim_id"
"""

LISTEN, BEGIN, WINDOWS = "listen", 6.0, 30
STORIES = [f"story{number}" for number in range(1, 7)]
QUICK_STORY = """
[window]
words = "auto"
rows = 3
context = [1, 2]

[split]
group = "story"

[model]
style = "continuation"
tokenizer = "mlp"
options = {hidden = 32}
components = 16

[[phases]]
name = "tokenizer"
train = ["tokenizer"]
epochs = 6
learning_rate = 3e-3
batch_size = 16

[story]
beams = 1
extensions = 2
null_texts = 2
permutations = 5

[decode]
max_new_tokens = 6
permutations = 9

[evaluate]
bootstrap = 100
"""


@dataclass(frozen=True)
class Done:
    """How a command line ended."""

    code: int
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.strip().splitlines()


def call(*args: object) -> Done:
    """Run ``bids_brainlm`` in this process; what it logs, which pytest keeps from stderr, is part of the answer."""
    err = io.StringIO()
    handler = logging.StreamHandler(err)
    logging.getLogger().addHandler(handler)
    try:
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(err):
            code = app.main([str(arg) for arg in args])
    finally:
        logging.getLogger().removeHandler(handler)
    return Done(code, err.getvalue())


@dataclass(frozen=True)
class Study:
    """A dataset, an output folder, and what the command line needs to be told about them.

    Parameters
    ----------
    root : Path
        Holds ``bids``, ``out`` and ``work``.
    settings : tuple of str
        Arguments that every call has.
    """

    root: Path
    settings: tuple[str, ...]
    bids: Path = field(init=False)
    out: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bids", self.root / "bids")
        object.__setattr__(self, "out", self.root / "out")

    def argv(self, *more: object, level: str = "participant", out: Path | None = None, work: Path | None = None) -> list[str]:
        folders = [self.bids, out or self.out, level, "-w", work or self.root / "work"]
        return [str(arg) for arg in [*folders, *self.settings, *more]]

    def run(self, *more: object, **where: Any) -> Done:
        return call(*self.argv(*more, **where))

    def ok(self, *more: object, **where: Any) -> Done:
        done = self.run(*more, **where)
        assert done.code == 0, done.err
        return done

    def start(self, *more: object, **where: Any) -> subprocess.Popen[str]:
        """The same in a process group of its own, which can be killed whole."""
        code = "import sys; from bids_brainlm.cli.app import main; sys.exit(main(sys.argv[1:]))"
        argv = [sys.executable, "-c", code, *self.argv(*more, **where)]
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(argv, text=True, start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes)

    def func(self, ending: str, run: int = 1, who: str = "01", raw: bool = False) -> Path:
        base = self.bids if raw else self.bids / "derivatives" / "fmriprep"
        return base / f"sub-{who}" / "func" / f"sub-{who}_task-{TASK}_run-{run}_{ending}"

    def events(self, run: int = 1, who: str = "01") -> Path:
        return self.func("events.tsv", run, who, raw=True)

    def beh(self, desc: str, who: str = "01", out: Path | None = None) -> Path:
        return (out or self.out) / f"sub-{who}" / "beh" / f"sub-{who}_task-{TASK}_desc-{desc}_beh.tsv"

    def table(self, desc: str, who: str = "01", out: Path | None = None) -> pd.DataFrame:
        return pd.read_csv(self.beh(desc, who, out), sep="\t", na_values="n/a", keep_default_na=False)

    def log(self, out: Path | None = None) -> dict[str, Any]:
        """What the newest call at the participant level logged."""
        paths = sorted(((out or self.out) / "logs").glob("*_*.json"), key=lambda path: path.stat().st_mtime_ns)
        trees: list[dict[str, Any]] = [json.loads(path.read_text()) for path in paths]
        return [tree for tree in trees if tree["level"] == "participant"][-1]

    def executed(self, out: Path | None = None) -> list[str]:
        """Stages that the newest call ran, without the names of run and participant."""
        return [name.rpartition("_")[2] for names in self.log(out)["executed"].values() for name in names]

    def copy(self, root: Path, *, results: bool = False) -> Study:
        """A copy that may be damaged; with its results (output and work folder) or without."""
        for name in ("bids", "out", "work") if results else ("bids",):
            shutil.copytree(self.root / name, root / name)
        return Study(root, self.settings)


def _schedule(rng: np.random.Generator) -> list[list[str]]:
    """Every picture once a run, so that every run has every word."""
    return [list(rng.permutation(PICTURES)) for _ in range(N_RUNS)]


def _series(shown: list[str], patterns: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """(T, V) BOLD: the words' patterns through a gamma-shaped response, on a mean of 1000, with drift and noise."""
    n_volumes = int(len(shown) * SPACING / TR) + 8
    times = TR * np.arange(n_volumes)
    n_voxels = len(next(iter(patterns.values())))
    out = 1000 + 5 * np.linspace(-1, 1, n_volumes)[:, None] + 4 * rng.standard_normal((n_volumes, n_voxels))
    for i, picture in enumerate(shown):
        response = gamma.pdf(times - 4 - i * SPACING, 6)
        out += 60 * response[:, None] * sum(patterns[word] for word in picture.split("-"))
    return out.astype(np.float32)


def _write_json(path: Path, tree: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree))


def _write_table(path: Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_csv(path, sep="\t", index=False, na_rep="n/a")


def _write_dataset(study: Study) -> None:
    base = {"Name": "small study", "BIDSVersion": "1.10.0"}
    _write_json(study.bids / "dataset_description.json", base | {"License": "CC0"})
    made = {"DatasetType": "derivative", "GeneratedBy": [{"Name": "fMRIPrep", "Version": "25.2.0"}]}
    _write_json(study.bids / "derivatives" / "fmriprep" / "dataset_description.json", base | made)
    words = [name.split("-") for name in PICTURES]
    captions = [f"a {colour} {animal}" for colour, animal in words]
    _write_table(study.bids / "stimuli" / "captions.tsv", {"stim_id": PICTURES, "caption": captions})
    facts = {"stim_id": PICTURES, "colour": [c for c, _ in words], "animal": [a for _, a in words]}
    _write_table(study.bids / "stimuli" / "facts.tsv", facts)


def _write_run(study: Study, who: str, run: int, shown: list[str], rng: np.random.Generator) -> None:
    part = ["train" if name in TRAINED else "test" for name in shown]
    onsets = SPACING * np.arange(len(shown)) + 4
    columns = {"onset": onsets, "duration": 1.0, "trial_type": "picture", "stim_id": shown, "part": part}
    _write_table(study.events(run, who), columns)
    confounds = {name: rng.standard_normal(int(len(shown) * SPACING / TR) + 8) for name in CONFOUNDS[:3]}
    confounds |= {name: np.roll(values, 3) for name, values in zip(CONFOUNDS[3:], confounds.values(), strict=True)}
    _write_table(study.func("desc-confounds_timeseries.tsv", run, who), confounds)


def _patterns(n_voxels: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {word: rng.standard_normal(n_voxels) for word in (*ANIMALS, *COLOURS)}


def write_volume(study: Study, participants: tuple[str, ...], *, relabelled: bool = False) -> None:
    """Write the study as small volumes in T1w space, with an atlas of 8 slabs.

    ``relabelled`` deals the pictures out anew in the events, so that brains and texts have nothing to do with each other.
    """
    _write_dataset(study)
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:-1, 1:-1] = 1
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    labels = np.broadcast_to(np.arange(1, SHAPE[2] + 1), SHAPE)
    _write_image(study.root / "atlas" / "space-T1w_atlas-slabs_dseg.nii.gz", labels.astype(np.int16), affine)
    for who in participants:
        rng = np.random.default_rng(int(who))
        patterns = _patterns(int(mask.sum()), rng)
        for run, shown in enumerate(_schedule(rng), start=1):
            data = np.zeros((*SHAPE, int(len(shown) * SPACING / TR) + 8), np.float32)
            data[mask > 0] = _series(shown, patterns, rng).T
            _write_run(study, who, run, list(rng.permutation(shown)) if relabelled else shown, rng)
            _write_image(study.func("space-T1w_desc-preproc_bold.nii.gz", run, who), data, affine)
            _write_image(study.func("space-T1w_desc-brain_mask.nii.gz", run, who), mask, affine)
            _write_json(study.func("space-T1w_desc-preproc_bold.json", run, who), {"RepetitionTime": TR, "StartTime": 0.0})


def write_surface(study: Study, participants: tuple[str, ...]) -> None:
    """Write the study as fsaverage surfaces of density 3k."""
    _write_dataset(study)
    for who in participants:
        rng = np.random.default_rng(int(who))
        patterns = _patterns(2 * N_VERTICES, rng)
        for run, shown in enumerate(_schedule(rng), start=1):
            series = _series(shown, patterns, rng)
            _write_run(study, who, run, shown, rng)
            for side, half in zip("LR", np.split(series, 2, axis=1), strict=True):
                write_gifti(study.func(f"hemi-{side}_space-fsaverage_den-3k_bold.func.gii", run, who), half)
            _write_json(study.func("space-fsaverage_den-3k_bold.json", run, who), {"RepetitionTime": TR, "StartTime": 0.0})


def write_gifti(path: Path, rows: np.ndarray) -> None:
    arrays = [nib.gifti.GiftiDataArray(row.astype(np.float32), intent="NIFTI_INTENT_TIME_SERIES") for row in rows]
    nib.save(nib.GiftiImage(darrays=arrays), path)


def _write_image(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, affine)
    if data.ndim == 4:
        image.header.set_zooms((3.0, 3.0, 3.0, TR))
    nib.save(image, path)


def spoken(number: int) -> tuple[np.ndarray, list[str]]:
    """Onsets (s from the start of the story) and words of a story: a picture is named in every window of 2 s."""
    shown = np.random.default_rng(100 + number).permutation(PICTURES * WINDOWS)[:WINDOWS]
    onsets = 2.0 * np.repeat(np.arange(WINDOWS), 3) + np.tile([0.1, 0.5, 1.0], WINDOWS)
    return onsets, [word for picture in shown for word in ("a", *picture.split("-"))]


def heard_series(number: int, n_volumes: int, patterns: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """(T, V) BOLD of a story that begins at `BEGIN`, with drift and noise."""
    times = TR * np.arange(n_volumes)
    n_voxels = len(next(iter(patterns.values())))
    out = 1000 + 5 * np.linspace(-1, 1, n_volumes)[:, None] + 4 * rng.standard_normal((n_volumes, n_voxels))
    for onset, word in zip(*spoken(number), strict=True):
        if word in patterns:
            out += 60 * gamma.pdf(times - BEGIN - onset, 6)[:, None] * patterns[word]
    return out.astype(np.float32)


def write_stories(study: Study, participants: tuple[str, ...]) -> None:
    """Write the study of stories as small volumes in T1w space: six runs with a story, and one at rest without events."""
    _write_dataset(study)
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:-1, 1:-1] = 1
    affine, n_volumes = np.diag([3.0, 3.0, 3.0, 1.0]), int((BEGIN + 2 * WINDOWS + 8) / TR)
    labels = np.broadcast_to(np.arange(1, SHAPE[2] + 1), SHAPE)
    _write_image(study.root / "atlas" / "space-T1w_atlas-slabs_dseg.nii.gz", labels.astype(np.int16), affine)
    for number, name in enumerate(STORIES, start=1):
        onsets, words = spoken(number)
        _write_table(study.bids / "stimuli" / f"{name}.tsv", {"onset": onsets, "duration": 0.3, "word": words})
    for who in participants:
        rng = np.random.default_rng(int(who))
        patterns = _patterns(int(mask.sum()), rng)
        for number, name in enumerate([*STORIES, ""], start=1):
            data = np.zeros((*SHAPE, n_volumes), np.float32)
            data[mask > 0] = heard_series(number if name else 1, n_volumes, patterns, rng).T
            folder, stem = f"sub-{who}/func", f"sub-{who}_task-{LISTEN}_run-{number}" if name else f"sub-{who}_task-rest"
            own = study.bids / "derivatives" / "fmriprep" / folder
            confounds = {name: rng.standard_normal(n_volumes) for name in CONFOUNDS}
            _write_table(own / f"{stem}_desc-confounds_timeseries.tsv", confounds)
            _write_image(own / f"{stem}_space-T1w_desc-preproc_bold.nii.gz", data, affine)
            _write_image(own / f"{stem}_space-T1w_desc-brain_mask.nii.gz", mask, affine)
            timing = {"RepetitionTime": TR, "StartTime": 0.5 * TR}
            _write_json(own / f"{stem}_space-T1w_desc-preproc_bold.json", timing)
            if name:
                part = "test" if number == 6 else "validation" if number == 5 else "train"
                told = {"onset": [BEGIN], "duration": [2.0 * WINDOWS], "stim_file": [f"{name}.wav"], "part": [part]}
                _write_table(study.bids / folder / f"{stem}_events.tsv", told)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """What the command line sets in the environment stays in these tests."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


STAGES = (
    "tune:tune",
    "estimate:estimate",
    "responses:parcellate",
    "clean:clean",
    "decode:train",
    "evaluate:evaluate",
    "story:story",
)
"""One stage of every kind, by what it imports."""


@pytest.fixture(scope="session", autouse=True)
def workers_know_every_stage() -> Iterator[None]:
    """The server of workers starts with the first run of all tests: it must not lack what the first one had no need of."""
    every = [Stage(f"sub-01_{name.partition(':')[2]}", f"bids_brainlm.stages.{name}", "") for name in STAGES]
    own = workers.warm_up
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "warm_up", lambda stages, device: own([*stages, *every], device))
        yield


def _shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Folder that the processes of a test run share; the first to ask for it makes what it holds."""
    base = factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{root}.lock"):
        if not root.with_suffix(".made").exists():
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            make(root)
            root.with_suffix(".made").touch()
    return root


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of the captions and of others, made by ``brainlm make-lm``."""
    return _shared(tmp_path_factory, "llm", _write_llm) / "model"


def _write_llm(root: Path) -> None:
    colours, animals = (*COLOURS, "gold", "grey", "pink"), (*ANIMALS, "bear", "cat", "hen", "pig")
    texts = [f"a {colour} {animal}" for colour in colours for animal in animals]
    (root / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    sizes = ["--steps=80", "--width=32", "--layers=2", "--vocabulary=320"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert companion.main(["make-lm", str(root / "texts.txt"), str(root / "model"), *sizes]) == 0
    (root / "quick.toml").write_text(QUICK, encoding="utf-8")
    (root / "quick-story.toml").write_text(QUICK_STORY, encoding="utf-8")


def _settings(llm: Path, *more: str, recipe: str = "quick") -> tuple[str, ...]:
    return ("--recipe", str(llm.with_name(f"{recipe}.toml")), "--llm", str(llm), "--offline", "--nprocs", "1", *more)


@pytest.fixture(scope="session")
def volume(tmp_path_factory: pytest.TempPathFactory, llm: Path) -> Study:
    """Two participants in volume space; only to be read or copied."""
    root = _shared(tmp_path_factory, "volume", lambda root: write_volume(Study(root, ()), ("01", "02")))
    return Study(root, _settings(llm, *_in_volume(root)))


def _in_volume(root: Path) -> tuple[str, ...]:
    return "--space", "T1w", "--atlas", str(root / "atlas" / "space-T1w_atlas-slabs_dseg.nii.gz")


@pytest.fixture
def new_volume(volume: Study, tmp_path: Path) -> Callable[[tuple[str, ...]], Study]:
    """Make a study in volume space with other participants."""

    def make(participants: tuple[str, ...]) -> Study:
        study = Study(tmp_path, volume.settings)
        write_volume(study, participants)
        return study

    return make


@pytest.fixture
def command() -> Callable[..., Done]:
    """The command line with nothing said for it."""
    return call


@pytest.fixture
def relabelled(volume: Study, tmp_path: Path) -> Study:
    """The study in volume space with brains that saw other pictures than the events say."""
    study = Study(tmp_path, volume.settings)
    write_volume(study, ("01", "02"), relabelled=True)
    return study


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory, llm: Path) -> Study:
    """Two participants who listened to stories, in volume space; only to be read or copied."""
    root = _shared(tmp_path_factory, "story", lambda root: write_stories(Study(root, ()), ("01", "02")))
    return Study(root, _settings(llm, *_in_volume(root), recipe="quick-story"))


@pytest.fixture(scope="session")
def story_done(story: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study of stories, both levels done and those of 01 reconstructed; only to be read or copied."""

    def make(root: Path) -> None:
        study = story.copy(root)
        study.ok()
        study.ok("--participant-label", "01", "--story-decoder", "generate")
        study.ok(level="group")

    return Study(_shared(tmp_path_factory, "story_done", make), story.settings)


@pytest.fixture(scope="session")
def surface(tmp_path_factory: pytest.TempPathFactory, llm: Path) -> Study:
    """Two participants on surfaces; only to be read or copied."""
    root = _shared(tmp_path_factory, "surface", lambda root: write_surface(Study(root, ()), ("01", "02")))
    return Study(root, _settings(llm))


@pytest.fixture(scope="session")
def volume_done(volume: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study in volume space, both levels done; only to be read or copied."""
    return Study(_shared(tmp_path_factory, "volume_done", lambda root: _do(volume.copy(root))), volume.settings)


@pytest.fixture(scope="session")
def questions_done(volume: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Captions and questions of one participant, those for the animal only in the test, and where; only to be read or copied."""

    def make(root: Path) -> None:
        study = volume.copy(root)
        asked = [(name, "hue", question, name.split("-")[0], "colour") for name in PICTURES for question in COLOUR_QUESTIONS]
        asked += [(name, "animal", "Which animal?", name.split("-")[1], "animal") for name in PICTURES]
        columns = dict(zip(("stim_id", "task", "question", "answer", "category"), zip(*asked, strict=True), strict=True))
        _write_table(study.bids / "stimuli" / "questions.tsv", columns)
        mix = ("text.mix={caption = 1, question = 1}", "split.leave_out_questions=Which animal?")
        tables = ("--texts", "stimuli/captions.tsv", "stimuli/questions.tsv", "--facts", "stimuli/facts.tsv")
        study.ok(*tables, "--where", "--set", *mix, "split.validation=0", "--participant-label", "01")

    return Study(_shared(tmp_path_factory, "questions_done", make), volume.settings)


def _do(study: Study) -> None:
    study.ok("--facts", "stimuli/facts.tsv")
    study.ok(level="group")


@pytest.fixture(scope="session")
def tuned_done(volume: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The responses of one participant by ``--estimator auto``, nothing decoded; only to be read or copied."""

    def make(root: Path) -> None:
        volume.copy(root).ok("--estimator", "auto", "--participant-label", "01", "--skip", "train")

    return Study(_shared(tmp_path_factory, "tuned_done", make), volume.settings)


@pytest.fixture(scope="session")
def surface_done(surface: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study on surfaces with information in bits, both levels done; only to be read or copied."""
    settings = (*surface.settings, "--set", "evaluate.information=true")
    root = _shared(tmp_path_factory, "surface_done", lambda root: _do(Study(surface.copy(root).root, settings)))
    return Study(root, settings)
