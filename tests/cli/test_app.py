"""The command line from the first argument to the exit code, with the work itself replaced."""

from __future__ import annotations

import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bids_brainlm import __version__, config, errors
from bids_brainlm.cli import app, exits
from bids_brainlm.config import Outcome, Request

HEAVY = ("torch", "nilearn", "nipype", "transformers", "numpy", "pandas", "bids", "nibabel", "scipy", "sklearn", "matplotlib")


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    (tmp_path / "bids").mkdir()
    return tmp_path / "bids"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Request], Any]], list[Request]]:
    """Put a function in the place of the work; returns the list of requests it got."""

    def install(work: Callable[[Request], Any]) -> list[Request]:
        seen: list[Request] = []

        def record(request: Request) -> Any:
            seen.append(request)
            return work(request)

        module = SimpleNamespace(run_participants=record, run_group=record)
        monkeypatch.setitem(sys.modules, "bids_brainlm.workflows.run", module)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "HF_HUB_OFFLINE"):
            monkeypatch.setenv(name, "1")
        return seen

    return install


def _call(bids: Path, *args: str) -> int:
    return app.main([str(bids), str(bids.parent / "out"), "participant", "-w", str(bids.parent / "work"), *args])


def _last(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_answers_at_once_without_heavy_imports(argument: str) -> None:
    code = (
        "import sys; from bids_brainlm.cli.app import main; code = main([sys.argv[1]]); "
        f"print('HEAVY', *sorted(set({HEAVY!r}) & set(sys.modules))); sys.exit(code)"
    )
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert done.stdout.splitlines()[-1] == "HEAVY"
    assert min(seconds) < 0.5


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--version"]) == 0
    assert capsys.readouterr().out == f"bids_brainlm v{__version__}\n"


def test_the_whole_request(bids: Path, runner: Any) -> None:
    seen = runner(lambda request: [Outcome("01"), Outcome("02")])
    betas = bids.parent / "betas"
    betas.mkdir()
    (bids.parent / "mine.toml").write_text('[split]\nfolds = 7\ntest = 0.3\n[model]\nllm = "from-file"\n')
    args = ["--participant_label", "sub-01", "02", "01", "-d", f"fmriprep={betas}", str(betas), "-vv", "-q", "--reports-only"]
    args += ["--config_file", str(bids.parent / "mine.toml"), "--task-id", "task-rest", "--folds", "8", "--llm", "from-flag"]
    assert _call(bids, *args, "--set", "split.folds=9", "phases.0.epochs=3", "--offline") == 0
    (request,) = seen
    assert request.participants == ("01", "02")
    assert request.derivatives == {"fmriprep": betas, "betas": betas}
    assert (request.bids_dir, request.out_dir, request.work_dir) == (bids, bids.parent / "out", bids.parent / "work")
    assert (request.level, request.verbosity, request.reports_only) == ("participant", 1, True)
    resolved = request.config
    assert (resolved.split.folds, resolved.split.test, resolved.model.llm) == (9, 0.3, "from-flag")
    assert (resolved.input.tasks, resolved.phases[0].epochs, resolved.run.offline) == (("rest",), 3, True)


def test_folders_are_made_absolute_and_names_left_alone(bids: Path, runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = runner(lambda request: [])
    monkeypatch.chdir(bids.parent)
    (bids.parent / "llm").mkdir()
    assert _call(bids, "--llm", "llm", "--atlas", "kmeans100") == 0
    assert _call(bids, "--llm", "org/model") == 0
    assert seen[0].config.model.llm == str(bids.parent / "llm")
    assert (seen[0].config.parcels.atlas, seen[1].config.model.llm) == ("kmeans100", "org/model")


def test_settings_not_given_stay_those_of_the_recipe(bids: Path, runner: Any) -> None:
    seen = runner(lambda request: [])
    assert _call(bids) == 0
    assert seen[0].config == config.load()
    assert seen[0].participants == ()


def test_group_goes_to_the_group_runner(bids: Path, runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = runner(lambda request: None)
    monkeypatch.setattr(sys.modules["bids_brainlm.workflows.run"], "run_participants", None)
    assert app.main([str(bids), str(bids.parent / "out"), "group", "-w", str(bids.parent / "work")]) == 0
    assert seen[0].level == "group"


def test_dry_run_prints_toml_that_gives_the_same_run(bids: Path, runner: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen = runner(lambda request: [])
    assert _call(bids, "--dry-run", "--folds", "3") == 0
    assert config.build(tomllib.loads(capsys.readouterr().out)) == config.load(flags={"split.folds": 3})
    assert not seen
    assert not (bids.parent / "out").exists()


OK, BAD, GONE = Outcome("01"), Outcome("02", ("events\n are empty: e.tsv",), 65), Outcome("03", ("no BOLD",), 66)


@pytest.mark.parametrize(
    ("outcomes", "code"), [([OK], 0), ([OK, BAD], 75), ([BAD], 65), ([GONE], 66), ([BAD, BAD], 65), ([BAD, GONE], 1), ([], 0)]
)
def test_outcomes_give_the_documented_code(
    bids: Path, runner: Any, capsys: pytest.CaptureFixture[str], outcomes: list[Outcome], code: int
) -> None:
    runner(lambda request: outcomes)
    assert _call(bids) == code
    lines = capsys.readouterr().err.strip().splitlines()
    failed = [outcome for outcome in outcomes if outcome.exit_code]
    assert lines[-1].endswith(f"[exit code {code}]") == bool(failed)
    for outcome in failed:
        assert f"sub-{outcome.participant}: {' '.join(outcome.errors[0].split())}" in lines
        assert outcome.participant in lines[-1]


def _raiser(error: BaseException) -> Callable[[Request], Any]:
    def work(request: Request) -> Any:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BrainLMError("training diverged"), 1),
        (errors.ConfigError("no such thing"), 2),
        (errors.InputError("zero bytes", "bold.nii.gz"), 65),
        (errors.LeakageError("train and test share 1 group"), 65),
        (errors.MissingInputError("no subject 9", "bids"), 66),
        (errors.MissingResourceError("no atlas", "tpl-fsaverage", remedy="templateflow get"), 69),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_end_in_one_line_without_traceback(
    bids: Path, runner: Any, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    runner(_raiser(error))
    assert _call(bids, "-v") == code
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert str(error) in err.strip().splitlines()[-1]
    assert err.strip().splitlines()[-1].endswith(f"[exit code {code}]")
    assert code in exits.CODES


def test_two_v_show_the_traceback(bids: Path, runner: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runner(_raiser(errors.InputError("zero bytes", "bold.nii.gz")))
    assert _call(bids, "-v", "-v") == 65
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.strip().splitlines()[-1].startswith("bids_brainlm: zero bytes: bold.nii.gz")


def test_a_defect_ends_with_70_and_leaves_a_crash_file(bids: Path, runner: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runner(_raiser(ZeroDivisionError("division\nby zero")))
    assert _call(bids) == 70
    last = _last(capsys)
    (crash,) = (bids.parent / "out" / "logs" / "crashes").glob("crash-*.txt")
    assert f"ZeroDivisionError: division by zero; traceback: {crash}" in last
    assert "raise error" in crash.read_text()


def test_a_crash_file_finds_a_place_when_the_output_is_a_file(
    bids: Path, runner: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    runner(_raiser(ZeroDivisionError()))
    (bids.parent / "out").write_text("in the way")
    assert _call(bids) == 70
    crash = Path(_last(capsys).split("traceback: ")[1].split(" [exit")[0])
    assert "ZeroDivisionError" in crash.read_text()
    crash.unlink()


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--sapce", "T1w"], 2, "--space"),
        (["--set", "split.fold=3"], 2, "split.folds"),
        (["--folds", "many"], 2, "--folds"),
        (["--participant-label", "0/1"], 2, "0/1"),
        (["--recipe", "cortxt"], 2, "cortext"),
        (["--config-file", "nowhere.toml"], 2, "nowhere.toml"),
        (["-d", "a=/x", "a=/y"], 2, "twice"),
        (["-d", "fmriprep=/no/such/folder"], 66, "/no/such/folder"),
    ],
)
def test_bad_usage_names_the_fault(
    bids: Path, runner: Any, capsys: pytest.CaptureFixture[str], args: list[str], code: int, said: str
) -> None:
    seen = runner(lambda request: [])
    assert _call(bids, *args) == code
    assert said in _last(capsys)
    assert not seen


def test_output_and_work_stay_out_of_the_input(bids: Path, runner: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runner(lambda request: [])
    assert app.main([str(bids), str(bids / ".." / "bids"), "participant"]) == 2
    assert str(bids / "derivatives" / "bids_brainlm") in _last(capsys)
    assert _call(bids, "-w", str(bids / "work")) == 2
    assert "-w" in _last(capsys)


def test_a_missing_bids_folder_is_missing_input(tmp_path: Path, runner: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runner(lambda request: [])
    assert app.main([str(tmp_path / "nothing"), str(tmp_path / "out"), "participant"]) == 66
    assert str(tmp_path / "nothing") in _last(capsys)


def test_every_error_has_a_documented_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BrainLMError)]
    assert {kind.exit_code for kind in kinds} <= set(exits.CODES)
