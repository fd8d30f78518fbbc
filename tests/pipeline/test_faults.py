"""Bad input ends in one clear line, on stderr and on the page, and harms nobody else; what is only odd simply works.

The cases stand in ``faults_images.py``, ``faults_tables.py``, ``faults_stories.py`` and ``faults_calls.py``. Their lines are what
``docs/reference/faults.md`` shows: with ``BRAINLM_WRITE_DOCS=1`` the tests write that page instead of comparing with it.
"""

from __future__ import annotations

import ast
import hashlib
import html
import importlib.util
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest


def _module(name: str) -> Any:
    """A module beside this one, which the next ones can import."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


faults = _module("faults_case")
FACTS = ("--facts", "stimuli/facts.tsv")
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "faults.md"
WRITE = bool(os.environ.get("BRAINLM_WRITE_DOCS"))

_ALL = [case for name in ("faults_images", "faults_tables", "faults_stories", "faults_calls") for case in _module(name).CASES]
_TOPICS = list(dict.fromkeys(case.topic for case in _ALL))
CASES = sorted(_ALL, key=lambda case: (_TOPICS.index(case.topic), case.code == 0))
FAULTS, ODDITIES = [case for case in CASES if case.code], [case for case in CASES if not case.code]
ROWS: dict[tuple[str, str], str] = {}
"""What the run so far has found for the page: (topic, name) -> row."""


def _half(study: Any, root: Path) -> Any:
    """A finished study whose first participant was never run."""
    copy = study.copy(root, results=True)
    shutil.rmtree(copy.out / "sub-01")
    shutil.rmtree(copy.root / "work" / "checkpoints")
    for path in (copy.out / "sub-01.html", copy.out / "group.html", *(copy.out / "logs" / "stages").glob("sub-01_*")):
        path.unlink()
    return copy


@pytest.fixture
def volume_half(volume_done: Any, tmp_path: Path) -> Any:
    return _half(volume_done, tmp_path)


@pytest.fixture
def story_half(story_done: Any, tmp_path: Path) -> Any:
    return _half(story_done, tmp_path)


@pytest.fixture
def surface_half(surface_done: Any, tmp_path: Path) -> Any:
    return _half(surface_done, tmp_path)


@pytest.fixture
def start(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Any], tuple[Any, Callable[..., Any]]]:
    """``start(case)`` -> the study, damaged, and a function of more options that runs it."""

    def prepare(case: Any) -> tuple[Any, Callable[..., Any]]:
        study = request.getfixturevalue(f"{case.study}_half")
        options = [option.replace("{root}", str(study.root)) for option in case.options]
        options += (case.damage(study) if case.damage else None) or []
        if (study.root / "plugins").is_dir():
            monkeypatch.syspath_prepend(str(study.root / "plugins"))
            sys.modules.pop("brainlm_faulty", None)
        where = {"level": case.level, "out": study.root / case.out, "work": study.root / case.work}

        def run(*more: str) -> Any:
            if case.fresh or _is_of_a_stage(case):
                return _in_a_process(study, case, *more, *options, **where)
            with _files_of_at_most(case.limit):
                return study.run(*more, *options, **where)

        return study, run

    return prepare


def _is_of_a_stage(case: Any) -> bool:
    """Whether it matters to the processes of stages what they inherit: a limit, or where they may write their lines."""
    return bool((case.limit and case.whose == faults.ONE) or (case.words and not case.code))


def _in_a_process(study: Any, case: Any, *options: str, **where: Any) -> Any:
    code = "import sys; from bids_brainlm.cli.app import main; sys.exit(main(sys.argv[1:]))"
    environment = {name: value.replace("{root}", str(study.root)) for name, value in case.fresh}
    argv = [sys.executable, "-c", code, *study.argv(*options, **where)]
    with _files_of_at_most(case.limit):
        done = subprocess.run(argv, capture_output=True, text=True, env=os.environ | environment, timeout=300, check=False)
    return type(study.run("--version"))(done.returncode, done.stderr)


@contextmanager
def _files_of_at_most(n_bytes: int) -> Iterator[None]:
    """Let the system answer as it does when a disk is full: no file may grow beyond this."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes or before[0], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _content(folder: Path) -> dict[str, str]:
    """Every file and link below a folder, with a hash of what it holds or where it leads."""
    out = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            out[str(path.relative_to(folder))] = os.readlink(path)
        elif path.is_file():
            out[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return out


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: f"{case.topic}-{case.name}".replace(" ", "_"))
def test_a_fault(case: Any, start: Callable[[Any], Any]) -> None:
    study, run = start(case)
    label = ("--participant-label", case.who) if case.level == "participant" else ()
    told = case.level == "participant" and case.study != "story"
    facts = FACTS if told and "evaluate.facts" not in "".join(case.options) else ()
    before, others = _content(study.bids), _content(study.out / "sub-02")
    done = run(*facts, *label)
    line = _message(case, done)
    assert done.code == case.code, done.err
    _assert_clear(case, study, done, line)
    _assert_nothing_half_done(study)
    # On a full disk there may be no room for the page either.
    if case.whose != faults.CALL and case.who == "01" and not case.limit:
        _assert_on_page(study, line)
    if case.whose == faults.PARTICIPANT:
        # Beside another participant, who is done, the same line is part of a success.
        done = run(*facts)
        assert done.code == 75, done.err
        assert "1 of 2 participants failed (01)" in done.lines[-1]
        assert line in [text.removeprefix("sub-01: ") for text in done.lines]
        outcomes = study.log()["outcomes"]
        assert (outcomes["01"]["exit_code"], outcomes["02"]["exit_code"]) == (case.code, 0)
        assert list((study.out / "sub-02" / "beh").glob("*_desc-metrics_beh.tsv"))
    if case.study + case.name != "volumeno results":
        assert _content(study.out / "sub-02") == others
    assert _content(study.bids) == before
    _compare_with_page(case, study, line)


def _message(case: Any, done: Any) -> str:
    """The line that names the fault, without who ended and how."""
    if case.whose != faults.CALL:
        own = [line for line in done.lines if line.startswith(f"sub-{case.who}: ")]
        assert own, done.err
        # Several faults may be found at once; the first one with the words is the one that is meant.
        return str(min(own, key=lambda line: case.words[0] not in line)).removeprefix(f"sub-{case.who}: ")
    last = re.sub(r"^(bids_brainlm|Error): (\d+ of \d+ participants failed \([^)]*\): )?", "", done.lines[-1])
    return last.removesuffix(f" [exit code {case.code}]")


def _assert_clear(case: Any, study: Any, done: Any, line: str) -> None:
    """The line says what, where, and what to do, and is the last one or stands right before it."""
    for word in case.words:
        assert word.replace("{root}", str(study.root)) in line, (word, line)
    if case.code != 2:
        assert "expected: " in line or "remedy: " in line, line
    assert done.lines[-1].endswith(f"[exit code {case.code}]") or case.whose == faults.CALL
    assert "Traceback" not in done.err
    assert "\n" not in line


def _assert_on_page(study: Any, line: str) -> None:
    """The first line of the report is the first fault, and none is kept back."""
    own = study.log()["outcomes"]["01"]["errors"]
    assert len(own) == len(set(own)), own
    more = f" (and {len(own) - 1} more, see Errors)" if len(own) > 1 else ""
    assert _first_line(study) == f"failed: {own[0]}{more}"
    assert line in html.unescape((study.out / "sub-01.html").read_text("utf-8"))


def _assert_nothing_half_done(study: Any) -> None:
    """What has a final name is complete: its stage has left a stamp."""
    own = study.out / "sub-01"
    for name in ("sub-01_train", "sub-01_decode", "sub-01_evaluate"):
        assert not (study.out / "logs" / "stages" / f"{name}.json").exists()
    assert not [path for path in own.rglob("*") if "_beh." in path.name or "_model." in path.name]
    assert not [path for path in own.rglob("*_statmap.*") if path.name not in _stamped(study)]
    hidden = [path for folder in (study.out, study.root / "work") if folder.is_dir() for path in folder.rglob(".*")]
    assert [path for path in hidden if path.name != ".bidsignore"] == []


def _stamped(study: Any) -> set[str]:
    stamps = (study.out / "logs" / "stages").glob("sub-01_*.json")
    return {Path(name).name for path in stamps for name in json.loads(path.read_text())["outputs"]}


def _first_line(study: Any, who: str = "01") -> str:
    page = (study.out / f"sub-{who}.html").read_text("utf-8")
    return html.unescape(page.partition('class="first failed"')[2].partition("<p>")[2].partition("</p>")[0])


@pytest.mark.slow
@pytest.mark.parametrize("case", ODDITIES, ids=lambda case: f"{case.topic}-{case.name}".replace(" ", "_"))
def test_what_must_simply_work(case: Any, start: Callable[[Any], Any], request: pytest.FixtureRequest) -> None:
    study, run = start(case)
    plain = request.getfixturevalue(f"{case.study}_done")
    before = _content(study.bids)
    # What is odd about a recording shows in its responses; nothing after them needs to run.
    responses = case.same and case.topic != "Texts"
    done = run("--participant-label", "01", *FACTS, *(("--skip", "train") if responses else ()))
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    said = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in done.lines if all(word in line for word in case.words)]
    assert said, done.err
    if responses:
        assert _responses(study) == _responses(plain)
    elif case.same:
        for desc in ("decoded", "metrics", "likelihood"):
            assert study.beh(desc).read_bytes() == plain.beh(desc).read_bytes()
    assert _content(study.bids) == before
    if case.check:
        case.check(study, done, plain)
    _compare_with_page(case, study, said[0] if case.words else "")


def _responses(study: Any) -> dict[str, bytes]:
    """Single-trial responses of participant 01, their means over parcels, and its trials; in sidecars hashes of inputs differ."""
    every = (study.out / "sub-01").rglob("*")
    kinds = ("_stat-effect_", "_stat-mean_", "_desc-trials_")
    paths = [path for path in every if path.suffix != ".json" and any(kind in path.name for kind in kinds)]
    assert len(paths) >= 9
    return {str(path.relative_to(study.out)): path.read_bytes() for path in paths}


def _compare_with_page(case: Any, study: Any, line: str) -> None:
    ROWS[case.topic, case.name] = row = _row(case, study, line)
    if not WRITE:
        assert row in PAGE.read_text("utf-8").splitlines(), f"{row}\nRun: BRAINLM_WRITE_DOCS=1 pytest {__file__}"


def _row(case: Any, study: Any, line: str) -> str:
    places = {"BIDS": study.bids, "OUT": study.out, "WORK": study.root / "work", "FOLDER": study.root}
    for name, path in places.items():
        line = line.replace(str(path), name)
    line = re.sub(r"(?<=/sub-01_)[0-9a-f]{12}(?=/)", "KEY", line)
    line = re.sub(r"(?<=/logs/)\d{8}-\d{6}_[0-9a-f-]{36}", "RUN", line)
    message = f"`{line}`".replace("|", r"\|") if line else ""
    cells = (case.name, str(case.code), message) if case.code else (case.name, message)
    return f"| {' | '.join(cells)} |".replace("  |", " |")


def test_the_page_of_faults_lists_every_case() -> None:
    """Comes after the cases, which have filled in the rows when the page is to be written."""
    assert len({case.name for case in CASES}) == len(CASES)
    if WRITE:
        _write_page()
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    named = [row[2:].partition(" | ")[0] for row in rows if not row.startswith(("| ---", "| what is"))]
    assert named == [case.name for case in [*FAULTS, *ODDITIES]]


def _write_page() -> None:
    """Rows of cases that were not run this time stay."""
    text = PAGE.read_text("utf-8")
    head, start_, rest = text.partition("<!-- written by the tests -->\n")
    there = {line[2:].partition(" | ")[0]: line for line in rest.splitlines() if line.startswith("| ")}
    for case in CASES:
        ROWS.setdefault((case.topic, case.name), there.get(case.name, f"| {case.name} |"))
    blocks = []
    for topic, cases in groupby(FAULTS, key=lambda case: case.topic):
        rows = [ROWS[case.topic, case.name] for case in cases]
        blocks += [f"## {topic}\n\n| what is wrong | code | message |\n| --- | --- | --- |\n" + "\n".join(rows)]
    rows = [ROWS[case.topic, case.name] for case in ODDITIES]
    blocks += ["## What is no fault\n\n| what is odd | what is said |\n| --- | --- |\n" + "\n".join(rows)]
    PAGE.write_text(f"{head}{start_}\n" + "\n\n".join(blocks) + "\n", "utf-8")


def test_every_error_about_a_path_says_what_was_expected_or_what_to_do() -> None:
    named = {"InputError", "MissingInputError", "MissingResourceError", "OutputError", "NoTextError"}
    root = Path(__file__).parents[2] / "bids_brainlm"
    seen, short = 0, []
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in named:
                seen += 1
                if not {"expected", "remedy"} & {keyword.arg for keyword in node.keywords}:
                    short.append(f"{path.relative_to(root)}:{node.lineno}")
    assert seen > 100
    assert short == []


@pytest.mark.data
def test_the_broken_annot(surface_half: Any, real_data: Path) -> None:
    path = real_data / "atlases" / "broken" / "lh.gordon333dil.annot"
    done = surface_half.run("--participant-label", "01", "--set", f"parcels.atlas={path}")
    assert done.code == 65
    assert "damaged" in done.lines[-1]
    assert str(path) in done.lines[-1]
    _assert_nothing_half_done(surface_half)


def test_a_label_that_names_nobody(volume_half: Any) -> None:
    done = volume_half.run("--participant-label", "99", "02", "--facts", "stimuli/facts.tsv")
    assert done.code == 75
    assert any(line.startswith("sub-99: no participant sub-99: ") and "one of 01, 02" in line for line in done.lines)
    assert not list(volume_half.out.glob("sub-99*"))
    assert volume_half.run("--participant-label", "99").code == 66


def test_a_language_model_that_is_not_on_this_machine(volume_half: Any) -> None:
    done = volume_half.run("--participant-label", "01", "--set", "model.llm=nobody/no-such-model")
    assert done.code == 69
    # It is looked for before any work: no response was estimated in vain.
    assert volume_half.log()["n_executed"] == 0
    # Nobody needs it whose results are there.
    done = volume_half.run("--participant-label", "02", "--facts", "stimuli/facts.tsv", "--set", "decode.beams=1")
    assert done.code == 0


def test_unusable_voxels_are_masked_and_counted(volume_half: Any) -> None:
    study = volume_half
    path = study.func("space-T1w_desc-preproc_bold.nii.gz", 2)
    image: Any = nib.load(path)
    data = image.get_fdata(dtype=np.float32)
    data[1, 1, :3] = np.nan
    data[2, 2, 4] = 500.0
    data[3, 3, 5] = np.nan
    data[0, 0] = np.nan  # outside the mask
    nib.save(nib.Nifti1Image(data, image.affine), path)
    study.ok("--participant-label", "01")
    func = study.out / "sub-01" / "func"
    counts = {run: json.loads(next(func.glob(f"*run-{run}*stat-effect*.json")).read_text()) for run in (1, 2, 3)}
    assert {run: item["NumberOfUnusableVertices"] for run, item in counts.items()} == {1: 0, 2: 5, 3: 0}
    betas: Any = nib.load(next(func.glob("*run-2*stat-effect*.nii.gz")))
    bad = np.argwhere(~np.isfinite(betas.get_fdata()).all(axis=3)).tolist()
    assert bad == [[1, 1, 0], [1, 1, 1], [1, 1, 2], [2, 2, 4], [3, 3, 5]]
    coverage = pd.read_csv(next(func.glob("*run-2*stat-coverage*.tsv")), sep="\t")["coverage"]
    assert list(coverage) == pytest.approx([15 / 16, 15 / 16, 15 / 16, 1, 15 / 16, 15 / 16, 1, 1])
    page = (study.out / "sub-01.html").read_text("utf-8")
    assert "5 (masked)" in page
    assert np.isfinite(study.table("decoded")["nll"]).all()


def test_tracebacks_are_shown_when_asked_for(volume_half: Any) -> None:
    faults.cut(volume_half.func(faults.BOLD, 2))
    done = volume_half.run("--participant-label", "01", "-v", "-v")
    assert done.code == 65
    assert "Traceback" in done.err
    assert done.lines[-1].startswith("bids_brainlm: 1 of 1 participants failed (01): damaged")


def test_a_defect_leaves_its_traceback_in_a_file(volume_half: Any) -> None:
    done = volume_half.run("--participant-label", "01", "--estimator", "math:floor")
    assert done.code == 1
    crashes = volume_half.out / "logs" / "crashes"
    line = next(line for line in done.lines if line.startswith("sub-01: ") and "run-1_estimate failed" in line)
    assert str(crashes) in line
    assert "Traceback" not in done.err
    assert any("TypeError" in path.read_text() for path in crashes.iterdir())
    assert _first_line(volume_half).startswith("failed: sub-01_task-look_run-1_estimate failed")


@pytest.mark.slow
def test_two_processes_and_one_fault_from_the_start(volume: Any, tmp_path: Path) -> None:
    """Both streams of a fresh process, where Nipype's own loggers could talk too."""
    study = volume.copy(tmp_path)
    faults.cut(study.func(faults.BOLD, 2))
    process = study.start("--set", "run.nprocs=2", "input.runs=['2']")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 75, err
    assert "Traceback" not in out + err
    lines = err.strip().splitlines()
    assert lines[-2].startswith("sub-01: damaged")
    assert lines[-1].startswith("bids_brainlm: 1 of 2 participants failed (01): damaged")
    assert _first_line(study).startswith("failed: damaged")
    assert study.beh("metrics", "02").is_file()
    assert sorted(study.log()["executed"]) == ["01", "02"]
    assert len(study.log()["executed"]["02"]) == 5
    crash = "".join(path.read_text() for path in (study.out / "logs" / "crashes").iterdir())
    assert "Traceback" in crash


def test_the_group_level_with_some_results(volume_half: Any) -> None:
    (volume_half.out / "sub-01").mkdir()
    done = volume_half.run(level="group")
    assert done.code == 75
    assert any(line.startswith("sub-01: no results of sub-01") for line in done.lines)
    page = (volume_half.out / "group.html").read_text("utf-8")
    assert "without results: sub-01" in page
