#!/usr/bin/env python3
"""Build the image's root file system without a container engine: the Dockerfile's own lines, in folders made by debootstrap.

A *root* is a folder that holds a whole file system; each stage of the Dockerfile is run in one of its own. ``FOLDER/root`` is
the image's, ``FOLDER/image.json`` what an engine keeps beside it (environment, user, working directory, entry point, labels).
What differs from ``docker build``: the base is Debian's python3 of the same suite instead of the python image, and the
context is what is committed (``git archive HEAD``).

Needs Linux, Python 3.11, root, debootstrap and unshare. Packages come from where pip and debootstrap are told: PIP_* variables
go through to the steps, DEBIAN_MIRROR names a mirror, and --bind shows files of this machine (a resolv.conf, a folder of
wheels) to the steps, which leaves nothing of them in the root.

Usage: scripts/build_by_hand.py FOLDER [--without-templates] [--bind PATH ...] [--build-arg NAME=VALUE ...]
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dockerfile import Stage, pairs, read, substitute

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = "python3,python3-venv,ca-certificates"
PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
TEMPLATES = "templates"
"""Name of the stage that needs TemplateFlow's server."""


@dataclass
class Image:
    """What a stage has come to: its root and what an engine keeps beside it."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    args: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    workdir: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        return self.args | self.env


@dataclass(frozen=True)
class Build:
    """One build: where it happens, what it was told, the images of the stages so far."""

    folder: Path
    given: dict[str, str]
    binds: tuple[Path, ...]
    without_templates: bool
    images: dict[str, Image] = field(default_factory=dict)

    def run(self) -> Image:
        context = self.folder / "context"
        context.mkdir(parents=True)
        archive = subprocess.run(["git", "-C", PROJECT, "archive", "HEAD"], check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "-x", "-C", context], check=True, input=archive)
        file = read(context / "Dockerfile", self.given)
        for stage in file.stages:
            if stage.name == TEMPLATES and self.without_templates:
                say(f"stage {TEMPLATES}: left out; the image will hold no templates")
                continue
            self.images[stage.name] = self._stage(stage, file.arguments)
        return self.images[file.stages[-1].name]

    def _stage(self, stage: Stage, arguments: dict[str, str]) -> Image:
        say(f"stage {stage.name or 'root'}: FROM {stage.parent}")
        root = self.folder / (stage.name or "root")
        parent = self.images.get(stage.parent) or self._base(stage.parent)
        subprocess.run(["cp", "-a", "--reflink=auto", parent.root, root], check=True)
        image = Image(root, dict(parent.env), user=parent.user, workdir=parent.workdir)
        for item in stage.instructions:
            self._apply(image, item.keyword, item.rest, arguments)
        return image

    def _base(self, name: str) -> Image:
        """Debian with Python, in the place of ``python:X.Y.Z-slim-SUITE``."""
        if name in self.images:
            return self.images[name]
        version, _, suite = name.removeprefix("python:").partition("-slim-")
        root = self.folder / "base"
        if not root.exists():
            mirror = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
            step(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(root), mirror])
        _clean_base(root)
        link = root / "usr/local/bin/python"
        link.unlink(missing_ok=True)
        minor = ".".join(version.split(".")[:2])
        link.symlink_to(f"/usr/bin/python{minor}")
        if not (root / f"usr/bin/python{minor}").exists():
            sys.exit(f"Debian {suite} has no python{minor}; the Dockerfile wants {name}")
        self.images[name] = Image(root)
        return self.images[name]

    def _apply(self, image: Image, keyword: str, rest: str, arguments: dict[str, str]) -> None:
        say(f"  {keyword} {rest}")
        text = substitute(rest, image.variables)
        match keyword:
            case "ARG":
                name, equals, default = text.partition("=")
                value = self.given.get(name, default if equals else arguments.get(name))
                image.args |= {} if value is None else {name: value}
            case "ENV":
                image.env |= pairs(rest, image.variables)
            case "LABEL":
                image.labels |= pairs(rest, image.variables)
            case "USER":
                image.user = text
            case "WORKDIR":
                image.workdir = str(Path(image.workdir, text))
                inside(image.root, image.workdir).mkdir(parents=True, exist_ok=True)
            case "ENTRYPOINT":
                image.entrypoint = json.loads(rest)
            case "COPY":
                self._copy(image, text.split())
            case "RUN":
                self._run(image, rest)

    def _copy(self, image: Image, words: list[str]) -> None:
        source = self.folder / "context"
        if words[0].startswith("--from="):
            name = words.pop(0).partition("=")[2]
            if name == TEMPLATES and self.without_templates:
                inside(image.root, words[-1]).mkdir(parents=True)
                return
            source = self.images[name].root
        *names, goal = words
        target = inside(image.root, str(Path(image.workdir, goal)))
        for name in names:
            path = inside(source, name)
            # As an engine does: the contents of a folder, a file under its name when the target is a folder.
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-a", f"{path}/.", target], check=True)
            elif goal.endswith("/"):
                target.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-a", path, target], check=True)
            else:
                subprocess.run(["cp", "-a", path, target], check=True)
            subprocess.run(["chown", "-R", "0:0", target], check=True)

    def _run(self, image: Image, command: str) -> None:
        """One RUN line in the root, in name spaces of its own: what is mounted for it is gone when it ends."""
        made = [path for bind in (*self.binds, Path("/proc"), Path("/dev")) for path in _mount_point(image.root, bind)]
        mounts = [
            f"mount --rbind -o ro {bind} {inside(image.root, str(bind))}" for bind in map(shlex.quote, map(str, self.binds))
        ]
        mounts += [f"mount -t proc proc {image.root}/proc", f"mount --rbind /dev {image.root}/dev"]
        passed = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.endswith("_proxy")}
        env = [f"{name}={value}" for name, value in (passed | {"HOME": "/nonexistent"} | image.variables).items()]
        inner = ["chroot", f"--userspec={image.user}", str(image.root), "/usr/bin/env", "-i", *env]
        inner += ["/bin/sh", "-c", f"cd {shlex.quote(image.workdir)} && {command}"]
        script = " && ".join([*mounts, f"exec {shlex.join(inner)}"])
        try:
            step(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script])
        finally:
            for path in reversed(made):
                path.unlink() if path.is_file() else path.rmdir()


def _clean_base(root: Path) -> None:
    """Take away what debootstrap copied from this machine or keeps for itself: name servers, mirror, archives."""
    for name in ("etc/resolv.conf", "etc/hostname", "etc/apt/sources.list"):
        (root / name).unlink(missing_ok=True)
    for name in ("var/cache/apt/archives", "var/lib/apt/lists", "var/log"):
        shutil.rmtree(root / name)
        (root / name).mkdir()


def _mount_point(root: Path, bind: Path) -> list[Path]:
    """Make what a file or folder of this machine can be mounted on; what had to be made, outermost first."""
    target = inside(root, str(bind))
    made = [path for path in [*reversed(target.parents), target] if not path.exists() and path.is_relative_to(root)]
    for path in made:
        path.touch() if path == target and bind.is_file() else path.mkdir()
    return made


def inside(root: Path, path: str) -> Path:
    """Where an absolute (or context-relative) path of a root is on this machine."""
    return root / path.lstrip("/")


def say(text: str) -> None:
    print(text, flush=True)


def step(command: list[str]) -> None:
    """Run one command, say how long it took, and end the build when it fails."""
    start = time.monotonic()
    code = subprocess.run(command, stdin=subprocess.DEVNULL).returncode
    if code:
        sys.exit(f"build_by_hand: exit code {code} of the step above")
    say(f"    {time.monotonic() - start:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="new folder for the build; a FOLDER/base of an earlier build is used again")
    parser.add_argument("--without-templates", action="store_true", help="do not fetch templates; the image will hold none")
    parser.add_argument("--bind", type=Path, nargs="+", default=[], help="paths of this machine that the steps may read")
    parser.add_argument("--build-arg", nargs="+", default=[], metavar="NAME=VALUE", help="as of docker build")
    given = parser.parse_args()
    folder = given.folder.resolve()
    for path in folder.glob("*"):
        if path.name != "base":
            sys.exit(f"{path} is there already; name a new folder, or one that holds nothing but base/")
    arguments = dict(word.partition("=")[::2] for word in given.build_arg)
    image = Build(folder, arguments, tuple(given.bind), given.without_templates).run()
    record = asdict(image) | {"root": str(image.root)}
    (folder / "image.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    size = subprocess.run(["du", "-sm", image.root], check=True, capture_output=True, text=True).stdout.split()[0]
    say(f"{image.root}: {size} MB")


if __name__ == "__main__":
    main()
