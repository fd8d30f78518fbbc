"""Where a language model is read from, and in one line why it cannot be.

A *source* is a folder or one commit of a repository on the Hugging Face Hub. Everything of a model (configuration, tokenizer,
weights) is read from one source, as safetensors only, and no code of a repository is ever run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from bids_brainlm.errors import MissingResourceError

WANTED = "config.json, tokenizer files and *.safetensors, as save_pretrained writes them"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "vocab.json", "vocab.txt", "tekken.json",
)  # fmt: skip
"""A folder with a tokenizer has at least one of them."""

_AGAIN = "fetch or save the model again"
OWN_NAME = "give the Hugging Face name of a causal language model (org/model) or a folder with one"


@dataclass(frozen=True)
class Source:
    """Where a model is read from: a folder, or one commit of a repository."""

    name: str
    commit: str
    offline: bool
    folder: Path | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        where = str(self.folder) if self.folder else self.name
        # A commit rather than "main" makes config, tokenizer and weights belong together, and keeps transformers from
        # asking a conversion service for safetensors.
        pinned = {"revision": self.commit} if self.commit else {}
        return {"pretrained_model_name_or_path": where, "local_files_only": self.offline, "trust_remote_code": False, **pinned}

    @property
    def revision(self) -> str:
        """The commit, or ``sha256:`` and the digest of a folder's weights."""
        return self.commit if self.folder is None else _digest(self.folder)


def find(name: str, revision: str = "", offline: bool = False) -> Source:
    """Find a model by its Hugging Face name or folder.

    Parameters
    ----------
    name : str
    revision : str
        Commit, tag or branch on the Hub; the newest when empty.
    offline : bool
        Look only on this machine; as does the environment variable ``HF_HUB_OFFLINE``.

    Raises
    ------
    MissingResourceError
        When there is no such model, or not one that is allowed to be read.
    """
    offline = offline or huggingface_hub.is_offline_mode()
    return _folder(name, offline) if is_path(name) else _commit(name, revision, offline)


def refused(source: Source, error: Exception) -> MissingResourceError:
    """Why transformers did not load a model, in words for the user."""
    text = str(error)
    if "trust_remote_code" in text or "custom code" in text:
        what, remedy = "the model needs code of its own repository, which is never run", OWN_NAME
    elif "cannot be loaded with `safetensors`" in text and not source.offline:
        return _no_safetensors(source.name, pickled=True)
    elif "Unrecognized configuration class" in text:
        what, remedy = "the model is not a causal language model", OWN_NAME
    elif "does not recognize this architecture" in text:
        what, remedy = "the model is of a kind that the installed transformers does not know", "update transformers"
    elif source.offline and isinstance(error, OSError) and source.folder is None:
        what, remedy = "the model is on this machine only in part", f"fetch the rest once with: hf download {source.name}"
    else:
        what, remedy = f"the model does not load ({first_line(error)})", "fetch or save the model again"
    return MissingResourceError(what, source.name, expected=WANTED, remedy=remedy)


def is_path(name: str) -> bool:
    """Whether a model goes by a folder, not by a name on the Hub."""
    return Path(name).expanduser().exists() or name.startswith((".", "/", "~")) or name.count("/") > 1


def _folder(name: str, offline: bool) -> Source:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise MissingResourceError("no such folder with a language model", name, expected=WANTED, remedy=OWN_NAME)
    if not (folder / "config.json").is_file():
        what = "the folder holds no language model (no config.json)"
        raise MissingResourceError(what, name, expected=WANTED, remedy=OWN_NAME)
    if not any(folder.glob("*.safetensors")):
        raise _no_safetensors(name, pickled=any(folder.glob("*.bin")) or any(folder.glob("*.pt*")))
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        remedy = "save the tokenizer there too: AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
        raise MissingResourceError("the folder holds no tokenizer", name, expected=WANTED, remedy=remedy)
    for path in sorted(folder.glob("*.safetensors")):
        _refuse_truncated(path)
    return Source(name, "", offline, folder)


def _refuse_truncated(path: Path) -> None:
    """Compare the size of a safetensors file with what its header says, which is quick even for many GB."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            n_header = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(n_header)) if n_header < size else {}
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + n_header + max(ends, default=0)
    except OSError as error:
        raise MissingResourceError(f"the weights cannot be read ({error.strerror})", path, expected=WANTED) from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise MissingResourceError("the weights are damaged", path, expected=WANTED, remedy=_AGAIN) from error
    if size != expected or not ends:
        what = f"the weights are damaged ({size} bytes" + (f" of {expected})" if ends else ")")
        raise MissingResourceError(what, path, expected=WANTED, remedy=_AGAIN)


def _no_safetensors(name: str, pickled: bool) -> MissingResourceError:
    what = "weights are pickled only (.bin), which can run code when loaded" if pickled else "no weights (*.safetensors)"
    remedy = "convert them once where you trust them: AutoModelForCausalLM.from_pretrained(...).save_pretrained(folder)"
    return MissingResourceError(what, name, expected=WANTED, remedy=remedy if pickled else "")


def _commit(name: str, revision: str, offline: bool) -> Source:
    """Find a repository by its config.json, whose place in the cache says the commit."""
    try:
        path = huggingface_hub.hf_hub_download(name, "config.json", revision=revision or None, local_files_only=offline)
    except (OSError, EntryNotFoundError, OfflineModeIsEnabled, HFValidationError) as error:
        raise _hub_error(name, revision, error) from error
    return Source(name, Path(path).parent.name, offline)


def _hub_error(name: str, revision: str, error: Exception) -> MissingResourceError:
    # From the most to the least special: GatedRepoError is a RepositoryNotFoundError, and both are HfHubHTTPErrors.
    terms = f"accept its terms on https://huggingface.co/{name}, then set HF_TOKEN"
    private = f"{OWN_NAME}; set HF_TOKEN if it is private"
    unreached = "the model is not on this machine, and the Hub was not reached"
    fetch = f"fetch it once with: hf download {name}"
    reasons: list[tuple[type[Exception] | tuple[type[Exception], ...], str, str]] = [
        (GatedRepoError, "access to the model must be granted first", terms),
        (RepositoryNotFoundError, "no such model on the Hugging Face Hub (or a private one)", private),
        (RevisionNotFoundError, f"the model has no revision {revision!r}", "leave model.revision empty or give a commit or tag"),
        ((LocalEntryNotFoundError, OfflineModeIsEnabled), unreached, fetch),
        (EntryNotFoundError, "the repository holds no language model (no config.json)", OWN_NAME),
        (HfHubHTTPError, f"the Hub refused ({first_line(error)})", "try again later"),
        (HFValidationError, "neither a folder nor a name on the Hugging Face Hub", OWN_NAME),
    ]
    for kind, what, remedy in reasons:
        if isinstance(error, kind):
            return MissingResourceError(what, name, remedy=remedy)
    what = f"the model cannot be fetched ({first_line(error)})"
    return MissingResourceError(what, name, remedy="check the network and the disk")


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"
