"""The command line from the first argument to the exit code, with the work itself replaced."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bids_brainlm import __version__, config, errors
from bids_brainlm.cli import app, environment, exits
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

        module = SimpleNamespace(run_participants=record, run_group=record, dry_run=record)
        monkeypatch.setitem(sys.modules, "bids_brainlm.workflows.run", module)
        monkeypatch.setattr(os, "environ", dict(os.environ))
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


def _files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_dry_run_prints_origins_and_plan_as_a_file_that_gives_the_same_run(
    bids: Path, runner: Any, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    seen = runner(lambda request: ("participant  runs\nsub-01          2", [Outcome("01")]))
    (bids.parent / "mine.toml").write_text("[split]\ntest = 0.3\n")
    (bids.parent / "f.json").write_text('{"events": {"run": 1}, "t1w": {}}')
    args = ["--dry_run", "-t", "rest", "--mem-gb", "4", "--config-file", str(bids.parent / "mine.toml"), "--set", "split.folds=3"]
    before = _files(bids.parent)
    assert _call(bids, *args, "--bids-filter-file", str(bids.parent / "f.json"), "--sloppy", "--participant-label", "01") == 0
    assert _files(bids.parent) == before
    out = capsys.readouterr().out
    for line in (
        'tasks = ["rest"]  # -t',
        'memory = "4G"  # --mem-gb',
        f"test = 0.3  # {bids.parent / 'mine.toml'}",
        "folds = 3  # --set",
        f"filters = {{events = {{run = 1}}}}  # --bids-filter-file {bids.parent / 'f.json'}",
        "epochs = 1  # --sloppy",
        'atlas = "Schaefer2018:100:7n"  # recipe cortext',
        "clip = 1.0  # default",
        'participant_label = ["01"]  # command line',
        "derivatives = {}  # default",
        "# participant  runs",
        "# sub-01          2",
    ):
        assert line in out.splitlines()
    again = tmp_path_factory.mktemp("again") / "run.toml"
    again.write_text(out)
    assert app.main(["--config-file", str(again), "--dry-run"]) == 0
    first, second = seen
    assert {name: getattr(second, name) for name in REPEATED} == {name: getattr(first, name) for name in REPEATED}
    assert set(second.origins.values()) == {str(again)}


def test_dry_run_ends_with_the_faults_of_the_plan(bids: Path, runner: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runner(lambda request: ("", [OK, BAD]))
    assert _call(bids, "--dry-run") == 75
    assert "sub-02: events are empty: e.tsv" in capsys.readouterr().err


REPEATED = ("bids_dir", "out_dir", "work_dir", "level", "participants", "derivatives", "config")


@pytest.fixture
def filed(bids: Path) -> list[str]:
    """Options that point to the file of an earlier run of bids -> old, participants 01 and 02."""
    old = Request(
        bids_dir=bids,
        out_dir=bids.parent / "old",
        level="participant",
        participants=("01", "02"),
        derivatives={"fmriprep": bids},
        work_dir=bids.parent / "old-work",
        config=config.load(flags={"split.folds": 7}),
    )
    file = bids.parent / "run.toml"
    file.write_text(config.to_toml(old.config, call=config.call_of(old)))
    return ["--config-file", str(file)]


@pytest.mark.parametrize(
    ("typed", "changed"),
    [
        ([], {}),
        (["group"], {"level": "group"}),
        (["{bids}", "{bids}/../new"], {"out_dir": "new"}),
        (["{bids}", "{bids}/../new", "group"], {"out_dir": "new", "level": "group"}),
        (["-w", "{bids}/../new"], {"work_dir": "new"}),
        (["--participant-label", "sub-03", "04"], {"participants": ("03", "04")}),
    ],
)
def test_what_is_typed_wins_over_the_call_of_a_file(
    bids: Path, runner: Any, filed: list[str], typed: list[str], changed: dict[str, Any]
) -> None:
    seen = runner(lambda request: [])
    (bids.parent / "fmriprep").mkdir()
    args = [word.format(bids=bids) for word in typed]
    assert app.main([*args, *filed, "-d", f"fmriprep={bids.parent / 'fmriprep'}"]) == 0
    expected = {"bids_dir": bids, "out_dir": "old", "work_dir": "old-work", "level": "participant", "participants": ("01", "02")}
    expected |= changed
    for name in ("out_dir", "work_dir"):
        expected[name] = bids.parent / str(expected[name])
    assert {name: getattr(seen[0], name) for name in expected} == expected
    assert seen[0].config == config.load(flags={"split.folds": 7})
    assert seen[0].derivatives == {"fmriprep": bids.parent / "fmriprep"}


@pytest.mark.parametrize("given", [[], ["/bids"], ["/bids", "/out"]])
def test_positionals_are_owed_without_a_call(
    bids: Path, runner: Any, capsys: pytest.CaptureFixture[str], given: list[str]
) -> None:
    runner(lambda request: [])
    (bids.parent / "mine.toml").write_text("[split]\nfolds = 7\n")
    assert app.main([*given, "--config-file", str(bids.parent / "mine.toml")]) == 2
    assert ["BIDS_DIR", "OUTPUT_DIR", "participant|group"][len(given)] in _last(capsys)


def test_options_of_this_time_reach_the_request(bids: Path, runner: Any) -> None:
    seen = runner(lambda request: [])
    (bids.parent / "plugin.yml").write_text("plugin: Linear\n")
    args = ["--clean_workdir", "--boilerplate-only", "--write-graph", "--resource-monitor", "--notrack", "--skip_bids_validation"]
    args += ["--md-only-boilerplate", "--bids-database-dir", str(bids.parent / "db"), "--debug", "pdb", "-v"]
    assert _call(bids, *args, "--nipype-plugin-file", str(bids.parent / "plugin.yml"), "--skip", "train", "reports") == 0
    assert _call(bids, "--database-path", str(bids.parent / "db"), "--debug", "all") == 0
    first, second = seen
    assert first.clean_workdir
    assert first.boilerplate_only
    assert first.write_graph
    assert first.resource_monitor
    assert (first.database_dir, first.plugin_file) == (bids.parent / "db", bids.parent / "plugin.yml")
    assert (first.debug, first.verbosity, first.config.run.skip) == (("pdb",), 1, ("train", "reports"))
    assert (second.debug, second.verbosity, second.database_dir) == (("pdb",), 2, bids.parent / "db")
    assert first.command[:3] == ("bids_brainlm", str(bids), str(bids.parent / "out"))
    assert first.command[-3:] == ("--skip", "train", "reports")
    assert set(first.origins) >= {name for name, _, _ in config.settings()}


@pytest.mark.parametrize(
    ("args", "gigabytes"),
    [
        (["--mem", "12000"], 12000 / 1024),
        (["--mem_mb", "2048"], 2),
        (["--mem", "12G"], 12),
        (["--mem_gb", "1.5"], 1.5),
        (["--mem-gb=512M"], 0.5),
        ([], 0),
    ],
)
def test_memory_in_any_unit(bids: Path, runner: Any, args: list[str], gigabytes: float) -> None:
    seen = runner(lambda request: [])
    assert _call(bids, *args) == 0
    assert config.gigabytes(seen[0].config.run.memory) == pytest.approx(gigabytes)


def test_a_temporary_folder_is_made_where_there_is_none(bids: Path, runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    runner(lambda request: found.append(tempfile.gettempdir()))
    monkeypatch.setattr(environment, "TEMPORARY", ())
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name in ("TMPDIR", "TEMP", "TMP"):
        os.environ.pop(name, None)
    assert _call(bids) == 0
    assert found == [str(bids.parent / "work" / "cache" / "tmp")]
    assert Path(found[0]).is_dir()


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
        said = [line for line in lines if line.endswith(f": {' '.join(outcome.errors[0].split())}")]
        assert any(f"sub-{outcome.participant}" in line for line in said)
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


def test_a_crash_file_finds_a_place_when_there_is_none_for_logs(
    bids: Path, runner: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    runner(_raiser(ZeroDivisionError()))
    (bids.parent / "out").mkdir()
    (bids.parent / "out" / "logs").write_text("in the way")
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
        (["--use-plugin", "/no/such.yml"], 66, "/no/such.yml"),
        (["--mem", "12X"], 2, "12G"),
        (["--mem", "12G", "--mem-gb", "3"], 2, "--mem"),
        (["--skip", "trian"], 2, "--skip"),
        (["--set", "run.skip=trian"], 2, "did you mean 'train'"),
        (["--debug", "pbd"], 2, "--debug"),
        (["--nprocs", "-1"], 2, "run.nprocs"),
        (["--bids-filter-file", "nowhere.json"], 2, "nowhere.json"),
        (["--bids_filtre_file", "x"], 2, "--bids-filter-file"),
        (["--participant_lable", "01"], 2, "--participant-label"),
    ],
)
def test_bad_usage_names_the_fault(
    bids: Path, runner: Any, capsys: pytest.CaptureFixture[str], args: list[str], code: int, said: str
) -> None:
    seen = runner(lambda request: [])
    assert _call(bids, *args) == code
    assert said in _last(capsys)
    assert not seen


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("bids", "is the BIDS folder {0}/bids; write to {0}/bids/derivatives/bids_brainlm"),
        ("bids/../bids", "is the BIDS folder"),
        ("link", "is the BIDS folder"),
        ("bids/out", "inside the BIDS folder"),
        ("bids/derivatives", "write to {0}/bids/derivatives/bids_brainlm"),
        ("bids/derivatives/fmriprep", "is the fmriprep"),
        ("bids/derivatives/fmriprep/out", "inside the fmriprep"),
        ("prep", "is the mine"),
        ("prep/sub-01", "inside the mine"),
        ("file", "is a file"),
    ],
)
def test_output_stays_out_of_the_input(bids: Path, runner: Any, capsys: pytest.CaptureFixture[str], out: str, said: str) -> None:
    seen = runner(lambda request: [])
    root = bids.parent
    (root / "bids/derivatives/fmriprep").mkdir(parents=True)
    (root / "prep").mkdir()
    (root / "file").touch()
    (root / "link").symlink_to(bids)
    before = _files(root)
    derivatives = ["-d", f"mine={root / 'prep'}"] if out.startswith("prep") else []
    assert app.main([str(bids), str(root / out), "participant", "-w", str(root / "work"), *derivatives]) == 2
    assert said.format(root) in _last(capsys)
    assert (_files(root), seen) == (before, [])


@pytest.mark.parametrize("out", ["out", "bids/derivatives/bids_brainlm", "bids/derivatives/a/b", "bids2"])
def test_output_may_stand_beside_or_below_derivatives(bids: Path, runner: Any, out: str) -> None:
    runner(lambda request: [])
    (bids / "derivatives/fmriprep").mkdir(parents=True)
    assert app.main([str(bids), str(bids.parent / out), "participant", "-w", str(bids.parent / "work")]) == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["-w", "bids/work"], "-w"),
        (["-w", "bids"], "-w"),
        (["-w", "bids/derivatives/work"], "-w"),
        (["-w", "prep/work", "-d", "prep=prep"], "prep"),
        (["--bids-database-dir", "bids/db"], "--bids-database-dir"),
        (["--clean-workdir", "-w", "."], "take away the BIDS folder"),
        (["--clean-workdir", "-w", "out"], "take away the output folder"),
    ],
)
def test_work_stays_out_of_the_input(
    bids: Path, runner: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, args: list[str], said: str
) -> None:
    seen = runner(lambda request: [])
    monkeypatch.chdir(bids.parent)
    Path("prep").mkdir()
    assert app.main(["bids", "out", "participant", *args]) == 2
    assert said in _last(capsys)
    assert not seen


def test_betas_may_come_from_the_output_itself(bids: Path, runner: Any) -> None:
    seen = runner(lambda request: [])
    (bids.parent / "out").mkdir()
    assert _call(bids, "-d", f"betas={bids.parent / 'out'}", "-w", str(bids.parent / "out" / "work")) == 0
    assert len(seen) == 1


def test_links_that_go_in_a_circle(bids: Path, runner: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runner(lambda request: [])
    (bids.parent / "loop").symlink_to(bids.parent / "loop")
    assert app.main([str(bids.parent / "loop"), str(bids.parent / "out"), "participant"]) == 65
    assert "circle" in _last(capsys)


def test_a_missing_bids_folder_is_missing_input(tmp_path: Path, runner: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runner(lambda request: [])
    assert app.main([str(tmp_path / "nothing"), str(tmp_path / "out"), "participant"]) == 66
    assert str(tmp_path / "nothing") in _last(capsys)


def test_every_error_has_a_documented_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BrainLMError)]
    assert {kind.exit_code for kind in kinds} <= set(exits.CODES)
