"""What libraries read from the environment when they are imported: threads, the network, and where they may keep caches.

On clusters and in containers the home folder is often read-only, or there is none. A *cache* that cannot be written where it
would be is moved into a folder of ours; what was fetched before (language models, templates) is still read where it is.
"""

from __future__ import annotations

import getpass
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from bids_brainlm.config import Config

LOGGER = logging.getLogger(__name__)

CACHES = {
    "MPLCONFIGDIR": "matplotlib",
    "NUMBA_CACHE_DIR": "numba",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "XDG_CACHE_HOME": "xdg",
}
"""Variable -> its folder within ours."""

TEMPORARY = ("/tmp", "/var/tmp", "/usr/tmp")


def environment(config: Config, folder: Path, now: Mapping[str, str]) -> dict[str, str]:
    """Variables to set before anything heavy is imported.

    Parameters
    ----------
    config : Config
    folder : Path
        Where caches may go that have no place; nothing is created.
    now : mapping of str to str
        The environment as it is; what the user set in it is kept where it works.
    """
    threads = {name: str(config.run.omp_nthreads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TEMPLATEFLOW_AUTOUPDATE": "off"}
    return threads | _caches(folder, now) | _read_only_models(now) | (offline if config.run.offline else {})


def is_writable(path: Path) -> bool:
    """Whether a folder is there and can be written, or can be made."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


def _caches(folder: Path, now: Mapping[str, str]) -> dict[str, str]:
    home = Path(now.get("HOME") or os.path.expanduser("~"))
    cache = _cache_home(now)
    homeless = not (home.is_absolute() and is_writable(home) and is_writable(cache))
    moved = {
        name: str(folder / place)
        for name, place in CACHES.items()
        if (not is_writable(Path(now[name])) if now.get(name) else homeless)
    }
    if "XDG_CACHE_HOME" in moved:
        # What was fetched before must still be found there.
        kept = {"HF_HOME": cache / "huggingface", "TEMPLATEFLOW_HOME": cache / "templateflow"}
        moved |= {name: str(path) for name, path in kept.items() if not now.get(name) and path.is_dir()}
    if moved:
        LOGGER.info("not writable, so caches go to %s: %s", folder, ", ".join(sorted(moved)))
    return moved | _nobody(folder, home) | _temporary(folder, now)


def _cache_home(now: Mapping[str, str]) -> Path:
    return Path(now.get("XDG_CACHE_HOME") or Path(now.get("HOME") or os.path.expanduser("~")) / ".cache")


def _nobody(folder: Path, home: Path) -> dict[str, str]:
    """A home and a name for a user id that the system does not know, without which libraries do not even import."""
    named = {} if home.is_absolute() else {"HOME": str(folder / "home")}
    try:
        getpass.getuser()
    except (KeyError, OSError):
        named["LOGNAME"] = "nobody"
    return named


def _temporary(folder: Path, now: Mapping[str, str]) -> dict[str, str]:
    places = [now[name] for name in ("TMPDIR", "TEMP", "TMP") if now.get(name)]
    usable = any(Path(place).is_dir() and is_writable(Path(place)) for place in [*places, *TEMPORARY])
    return {} if usable else {"TMPDIR": str(folder / "tmp")}


def _read_only_models(now: Mapping[str, str]) -> dict[str, str]:
    """Nothing can be fetched into a read-only cache of models, so that nothing should be tried."""
    hub = Path(now.get("HF_HUB_CACHE") or Path(now.get("HF_HOME") or _cache_home(now) / "huggingface") / "hub")
    if "HF_HUB_OFFLINE" in now or not hub.is_dir() or is_writable(hub):
        return {}
    LOGGER.info("%s is read-only: language models are read from it, none is fetched", hub)
    return {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
