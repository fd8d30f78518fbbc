#!/usr/bin/env python3
"""Run a root made by build_by_hand.py the way a cluster runs an image, and check what must hold there.

A *container* here is a set of Linux name spaces: the root is read-only, the user id is 12345 and has no name and no home, no
network device is up, /tmp and /dev/shm are empty and in memory, no privilege can be gained. Only the folders that are bound are
seen: BIDS and the language model's cache read-only, OUT and WORK to be written. It is what
``docker run --read-only --tmpfs /tmp --network none -u 12345:12345 --security-opt no-new-privileges`` asks for.

Checked with HOME as the image sets it (it cannot be written there), without HOME, and with one that does not exist: the
commands answer, a small run of both levels ends with 0, every output belongs to 12345 and can be read by others, nothing was
written elsewhere, the input and the model's cache are unchanged, the three homes give the same texts, the same command again
runs no stage, and a run that SIGTERM ended with 143 is taken up by the same command.

Needs Linux, Python 3.11 and root. Usage: scripts/check_container.py BUILD FOLDER   (BUILD: the folder of build_by_hand.py)
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

UID = 12345
MODEL, REVISION = "laboratory/small", "0" * 40
DESIGN = "--participants 2 --runs 2 --trials 30 --repeats 2"
DECODE = (
    "--llm {llm} --offline --texts stimuli/captions.tsv --key-column stim_id --facts derivatives/simulation/stimuli.tsv "
    "--recipe cortext-small --set phases.0.epochs=1 phases.1.epochs=1"
)
SECONDS = "8"
"""After which a run is terminated: in its midst."""
HOMES: dict[str, str | None] = {"image": "", "unset": None, "absent": "/no/such/home"}
"""Name of a case -> HOME: that of the image when empty, none at all when None."""


@dataclass(frozen=True)
class Bind:
    """A folder of this machine and where the container sees it."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Container:
    """A root with what an engine keeps beside it."""

    root: Path
    image: dict[str, object]
    scratch: Path

    def run(self, command: list[str], binds: list[Bind], env: dict[str, str | None], show: bool = True, expected: int = 0) -> str:
        """Run one command to its end and return what it said; end the check when the exit code is not the expected one."""
        say(f"$ {shlex.join(command)}   # HOME={env.get('HOME', 'of the image')}")
        start = time.monotonic()
        argv = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", "sh", "-ec"]
        done = subprocess.run(
            [*argv, self._script(command, binds, env)], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        text = done.stdout + done.stderr
        if show or done.returncode != expected:
            say("".join(f"    {line}\n" for line in text.splitlines()).rstrip())
        say(f"    exit code {done.returncode}, {time.monotonic() - start:.1f} s")
        check(done.returncode == expected, f"the command above ended with {done.returncode}; expected {expected}")
        check("Traceback" not in text and "Read-only file system" not in text, "something was to be written where nothing can")
        self._nothing_in_root(binds)
        return text

    def _script(self, command: list[str], binds: list[Bind], env: dict[str, str | None]) -> str:
        upper, work, top = (self.scratch / name for name in ("upper", "overlay", "top"))
        for path in (upper, work, top):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        lines = ["mount --make-rprivate /"]
        lines.append(f"mount -t overlay overlay -o lowerdir={self.root},upperdir={upper},workdir={work} {top}")
        # Where binds are mounted must exist; an engine makes these folders too. Then the root is closed.
        lines += [f"mkdir -p {top}{bind.target}" for bind in binds]
        lines.append(f"mount -o remount,ro {top}")
        for bind in binds:
            lines.append(f"mount --bind {bind.source} {top}{bind.target}")
            lines += [] if bind.writable else [f"mount -o remount,bind,ro {top}{bind.target}"]
        lines += [
            f"mount -t tmpfs -o mode=1777,size=1g tmpfs {top}/tmp",
            f"mount -t proc proc {top}/proc",
            f"mount --rbind -o ro /sys {top}/sys",
            f"mount -t tmpfs -o mode=755 tmpfs {top}/dev",
            f"mkdir {top}/dev/shm",
            f"mount -t tmpfs -o mode=1777,size=64m tmpfs {top}/dev/shm",
        ]
        for name in ("null", "zero", "full", "random", "urandom"):
            lines.append(f"touch {top}/dev/{name}; mount --bind /dev/{name} {top}/dev/{name}")
        known = {**dict(self.image["env"]), **env}  # type: ignore[call-overload]
        given = [f"{name}={value}" for name, value in known.items() if value is not None]
        left = "find /tmp /dev/shm -type f -printf 'left in %p\\n'"
        inner = f"umask 022; cd {self.image['workdir']}; {shlex.join(command)}; code=$?; {left}; exit $code"
        lines.append(
            f"exec setpriv --no-new-privs chroot --userspec={UID}:{UID} --groups= {top} "
            f"/usr/bin/env -i {shlex.join(given)} /bin/sh -c {shlex.quote(inner)}"
        )
        return "\n".join(lines)

    def _nothing_in_root(self, binds: list[Bind]) -> None:
        upper = self.scratch / "upper"
        allowed = {
            upper / part.as_posix().lstrip("/") for bind in binds for part in (Path(bind.target), *Path(bind.target).parents)
        }
        written = [path for path in upper.rglob("*") if path not in allowed]
        check(not written, f"written into the root: {written[:5]}")


def say(text: str) -> None:
    print(text, flush=True)


def check(truth: bool, what: str) -> None:
    if not truth:
        sys.exit(f"check_container: {what}")


def digest(folder: Path) -> str:
    """One hash of the names and contents of all files below a folder."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(folder)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return total.hexdigest()


def texts(out: Path) -> dict[str, str]:
    """What was decoded: table of each participant by its path."""
    return {path.relative_to(out).as_posix(): path.read_text("utf-8") for path in sorted(out.glob("sub-*/beh/*decoded_beh.tsv"))}


def executed(out: Path) -> int:
    """Stages that the latest call of the participant level ran."""
    records = sorted((out / "logs").glob("*.json"), key=lambda path: path.stat().st_mtime)
    return int(json.loads(records[-1].read_text("utf-8"))["n_executed"])


def environment(home: str | None) -> dict[str, str | None]:
    return {} if home == "" else {"HOME": home}


def writable(path: Path) -> Path:
    path.mkdir(parents=True)
    os.chown(path, UID, UID)
    return path


def prepare(container: Container, folder: Path) -> None:
    """Simulated data and a small language model, made in the container, and a Hugging Face cache that holds the model."""
    binds = [Bind(writable(folder / "data"), "/data", writable=True)]
    brainlm = ["/opt/venv/bin/brainlm"]
    container.run([*brainlm, "simulate", "/data/bids", *DESIGN.split()], binds, {})
    corpus = "/data/bids/derivatives/simulation/corpus.tsv"
    container.run([*brainlm, "make-lm", corpus, "/data/llm", "--steps", "30"], binds, {}, show=False)
    hub = folder / "hf" / "hub" / f"models--{MODEL.replace('/', '--')}"
    shutil.copytree(folder / "data" / "llm", hub / "snapshots" / REVISION)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text(REVISION, "utf-8")


def decode(container: Container, folder: Path, case: str, home: str | None) -> Path:
    """Both levels; the model by its name on the Hub (read-only cache) in one case, by its folder in the others."""
    out, work = writable(folder / case / "out"), writable(folder / case / "work")
    env = environment(home)
    binds = [Bind(folder / "data" / "bids", "/bids"), Bind(out, "/out", writable=True), Bind(work, "/work", writable=True)]
    if case == "image":
        binds.append(Bind(folder / "hf", "/hf"))
        env["HF_HOME"] = "/hf"
    else:
        binds.append(Bind(folder / "data" / "llm", "/llm"))
    entry = [str(word) for word in container.image["entrypoint"]]  # type: ignore[attr-defined]
    options = DECODE.format(llm=MODEL if case == "image" else "/llm").split()
    if case == "absent":
        stopped = ["timeout", "--preserve-status", "--signal=TERM", SECONDS, *entry]
        container.run([*stopped, "/bids", "/out", "participant", "-w", "/work", *options], binds, env, expected=143)
    for level in ("participant", "group"):
        container.run([*entry, "/bids", "/out", level, "-w", "/work", *options], binds, env)
    if case == "image":
        container.run([*entry, "/bids", "/out", "participant", "-w", "/work", *options], binds, env)
        check(executed(out) == 0, f"the same command ran {executed(out)} stages again")
    foreign = [path for path in (*out.rglob("*"), *work.rglob("*")) if path.lstat().st_uid != UID]
    check(not foreign, f"not owned by {UID}: {foreign[:5]}")
    private = [path for path in out.rglob("*") if path.is_file() and not path.stat().st_mode & 0o004]
    check(not private, f"for the owner's eyes alone, although the umask is 022: {private[:5]}")
    return out


def main(build: Path, folder: Path) -> None:
    image = json.loads((build / "image.json").read_text("utf-8"))
    container = Container(build / "root", image, folder / "scratch")
    folder.mkdir(parents=True)
    home = build / "root" / "root"
    check({path.name for path in home.iterdir()} <= {".bashrc", ".profile"}, f"the image holds files in {home}")
    check(image["user"] not in ("", "0", "root"), "the image's user is root")
    for value in HOMES.values():
        container.run([*image["entrypoint"], "--version"], [], environment(value))
    container.run([*image["entrypoint"], "--help"], [], {}, show=False)
    prepare(container, folder)
    before = [digest(folder / name) for name in ("data", "hf")]
    outs = [decode(container, folder, case, home) for case, home in HOMES.items()]
    check([digest(folder / name) for name in ("data", "hf")] == before, "the input or the model's cache was changed")
    check(len(texts(outs[0])) == 2, f"decoded tables: {sorted(texts(outs[0]))}")
    check(all(texts(out) == texts(outs[0]) for out in outs), "the texts depend on HOME")
    described = json.loads((outs[0] / "dataset_description.json").read_text("utf-8"))["GeneratedBy"][0]
    check("Container" in described, "dataset_description.json does not name the container")
    say(f"all checks passed; container: {described['Container']}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: scripts/check_container.py BUILD FOLDER (new)")
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
