"""Threads, network and caches: what libraries find in the environment, above all where nothing can be written at home."""

from __future__ import annotations

import ctypes
import getpass
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from bids_brainlm.cli import environment as module
from bids_brainlm.cli.environment import CACHES, environment, is_writable
from bids_brainlm.config import load

THREADS = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"}
OFFLINE = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "TEMPLATEFLOW_AUTOUPDATE"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """A path below a regular file, which not even root can make."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "home"


def _caches(now: dict[str, str], folder: Path) -> dict[str, str]:
    found = environment(load(), folder, now)
    assert not folder.exists()
    return {name: value for name, value in found.items() if name not in THREADS}


def test_a_good_home_is_left_alone(home: Path, tmp_path: Path) -> None:
    assert _caches({"HOME": str(home)}, tmp_path / "cache") == {}
    assert set(environment(load(), tmp_path, {"HOME": str(home)})) == THREADS
    offline = environment(load(flags={"run.offline": True, "run.omp_nthreads": 3}), tmp_path, {"HOME": str(home)})
    assert set(offline) == THREADS | OFFLINE
    assert {offline[name] for name in THREADS} == {"3"}


def test_without_a_home_every_cache_goes_to_our_folder(nowhere: Path, tmp_path: Path) -> None:
    moved = _caches({"HOME": str(nowhere)}, tmp_path / "cache")
    assert moved == {name: str(tmp_path / "cache" / place) for name, place in CACHES.items()}


def test_what_the_user_set_is_kept_where_it_works(home: Path, nowhere: Path, tmp_path: Path) -> None:
    now = {"HOME": str(nowhere), "MPLCONFIGDIR": str(home), "NUMBA_CACHE_DIR": str(home / "new")}
    assert set(_caches(now, tmp_path / "cache")) == set(CACHES) - {"MPLCONFIGDIR", "NUMBA_CACHE_DIR"}
    assert set(_caches({"HOME": str(home), "MPLCONFIGDIR": str(nowhere)}, tmp_path / "cache")) == {"MPLCONFIGDIR"}


def test_a_cache_folder_that_cannot_be_written_is_enough(home: Path, nowhere: Path, tmp_path: Path) -> None:
    (home / ".cache").touch()
    assert set(_caches({"HOME": str(home)}, tmp_path / "cache")) == set(CACHES)


def test_what_was_fetched_is_still_found(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("huggingface", "templateflow"):
        (home / ".cache" / name).mkdir(parents=True)
    monkeypatch.setattr(module, "is_writable", lambda path: not path.is_relative_to(home))
    moved = _caches({"HOME": str(home)}, tmp_path / "cache")
    kept = {"HF_HOME": str(home / ".cache/huggingface"), "TEMPLATEFLOW_HOME": str(home / ".cache/templateflow")}
    assert {name: value for name, value in moved.items() if name not in CACHES} == kept
    moved = _caches({"HOME": str(home), "HF_HOME": "/models"}, tmp_path / "cache")
    assert "HF_HOME" not in moved


def test_nothing_is_fetched_into_a_read_only_cache(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hf" / "hub").mkdir(parents=True)
    now = {"HOME": str(home), "HF_HOME": str(tmp_path / "hf")}
    assert _caches(now, tmp_path / "cache") == {}
    monkeypatch.setattr(module, "is_writable", lambda path: not path.is_relative_to(tmp_path / "hf"))
    assert _caches(now, tmp_path / "cache") == {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    assert _caches(now | {"HF_HUB_OFFLINE": "0"}, tmp_path / "cache") == {}


def test_a_temporary_folder_is_found_only_when_there_is_none(
    home: Path, nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TEMPORARY", (str(nowhere),))
    assert _caches({"HOME": str(home), "TMPDIR": str(home)}, tmp_path / "cache") == {}
    assert _caches({"HOME": str(home), "TMPDIR": str(home / "new")}, tmp_path / "cache") == {
        "TMPDIR": str(tmp_path / "cache" / "tmp")
    }


def test_an_unknown_user_gets_a_home_and_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", unknown)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    moved = _caches({}, tmp_path / "cache")
    assert set(moved) == {*CACHES, "HOME", "LOGNAME"}
    assert moved["HOME"] == str(tmp_path / "cache" / "home")


def test_writable_means_that_it_could_be_made(home: Path, nowhere: Path) -> None:
    assert is_writable(home / "a" / "b")
    assert not is_writable(nowhere)
    (home / "link").symlink_to(home / "link")
    assert not is_writable(home / "link" / "x")


def test_variables_are_set_before_numpy_is_imported(tmp_path: Path) -> None:
    (tmp_path / "bids").mkdir()
    code = """
        import os, sys
        from types import SimpleNamespace
        from bids_brainlm.cli import app

        class Spy:
            def find_spec(self, name, path=None, target=None):
                if name == "numpy":
                    print("numpy meets", os.environ.get("OMP_NUM_THREADS"))

        sys.meta_path.insert(0, Spy())
        sys.modules["bids_brainlm.workflows.run"] = SimpleNamespace(run_participants=lambda request: [])
        sys.exit(app.main(["bids", "out", "participant", "--omp-nthreads", "3"]))
    """
    kept = {name: value for name, value in os.environ.items() if name not in THREADS}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=kept, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["numpy", "meets", "3"]


def _as_a_user() -> None:
    """In a child: root without the right to overrule permissions."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.fixture
def locked_home(home: Path) -> Iterator[Path]:
    """A read-only home with one language model in its cache."""
    snapshot = home / ".cache/huggingface/hub/models--org--tiny/snapshots/abc123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text("abc123")
    folders = [home, *(path for path in home.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield home
    for folder in folders:
        folder.chmod(0o755)


WORK = """
    import sys
    from types import SimpleNamespace
    from bids_brainlm.cli import app

    def work(request):
        import matplotlib, tempfile
        from bids_brainlm.models.sources import find
        print(matplotlib.get_cachedir(), find("org/tiny").commit, tempfile.gettempdir(), sep="\\n")
        try:
            open(sys.argv.pop(), "w")
        except PermissionError:
            print("locked")
        return "", []

    runner = SimpleNamespace(run_participants=lambda request: work(request)[1], dry_run=work)
    sys.modules["bids_brainlm.workflows.run"] = runner
    sys.exit(app.main(sys.argv[1:-1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
@pytest.mark.parametrize("dry", [False, True])
def test_a_read_only_home_does_no_harm(locked_home: Path, tmp_path: Path, dry: bool) -> None:
    (tmp_path / "bids").mkdir()
    (tmp_path / "tmp").mkdir()
    args = ["bids", "out", "participant", "-q", *["--dry-run"] * dry, str(locked_home / "probe")]
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WORK), *args],
        env=kept | {"HOME": str(locked_home), "TMPDIR": str(tmp_path / "tmp")},
        cwd=tmp_path,
        preexec_fn=_as_a_user,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # No library complains that it has no home.
    assert all("reports in" in line for line in done.stderr.splitlines()), done.stderr
    cache, commit, temporary, locked = [line for line in done.stdout.splitlines() if line][-4:]
    assert (commit, temporary, locked) == ("abc123", str(tmp_path / "tmp"), "locked")
    expected = tmp_path / "tmp" if dry else tmp_path / "work" / "cache" / "matplotlib"
    assert Path(cache).is_relative_to(expected)
    # A dry run leaves nothing at all.
    assert {path.name for path in tmp_path.iterdir()} == {"bids", "home", "tmp", *([] if dry else ["work"])}
    assert not dry or not list((tmp_path / "tmp").iterdir())
