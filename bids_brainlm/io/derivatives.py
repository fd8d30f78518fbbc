"""The output as a BIDS derivatives data set: what stands at its root, and where it may stand.

Many processes (one a participant, on a cluster) write into one data set at once. Every file at the root is therefore a
function of the inputs alone, or joined with what is already there under a lock, and replaced atomically; whatever a user
added stays.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bids_brainlm.errors import ConfigError, InputError
from bids_brainlm.io.files import (
    atomic_write,
    locked,
    make_folder,
    read_json,
    read_tsv,
    remove_remnants,
    write_json,
    write_text,
    write_tsv,
)
from bids_brainlm.io.layout import participants
from bids_brainlm.io.names import bids_folder, bids_name

__all__ = ["atomic_write", "bids_folder", "bids_name", "check_output", "init_dataset", "propagate", "write_json", "write_tsv"]

LOGGER = logging.getLogger(__name__)

NAME = "bids_brainlm"
BIDS_VERSION = "1.11.1"
TEMPLATEFLOW = "https://github.com/templateflow/templateflow"

PROPAGATED = ("TaskName", "TaskDescription", "Instructions", "CogAtlasID", "CogPOID")
"""Fields of a BOLD sidecar that still hold for what is derived from it; times and scanner settings do not."""

IGNORED = ("*.html", "group.*", "figures", "model", "*_statmap.*")
"""What BIDS has no names for. A folder is named without slash: with one, the validator still refuses the folder itself."""

DESCRIPTIONS = {
    "LSS": "Single-trial responses, least squares separate: one model a trial, all other trials in one regressor.",
    "LSA": "Single-trial responses, least squares all: one model with one regressor a trial.",
    "trials": "Trials, in the order of the rows and data arrays of the single-trial responses.",
    "cleaned": "BOLD series with drifts and confounds removed, every vertex or voxel z-scored over the run.",
    "words": "Words that were heard in a run, on the clock of its events.",
    "decoded": "Texts decoded from held-out trials, beside the true texts.",
    "metrics": "Figures of merit of the decoded texts, with intervals and the same figures under control conditions.",
    "training": "Training curves.",
    "likelihood": "Likelihoods of the right texts under many brains.",
    "controls": "Likelihoods of the right texts under brains that are not theirs.",
    "evidence": "Evidence for single texts: ranks and amounts.",
    "coverage": "Metrics of the texts that a decoder is most confident of.",
    "confusion": "Which categories are taken for each other.",
    "information": "What the brain adds to a model of the same texts without it, in bits.",
    "surprise": "Figures of merit by how much a text surprises the language model.",
    "crossed": "The right texts under the responses of other participants.",
    "parcels": "Parcels in words: what the decoder says more often when they are driven.",
    "stimulation": "What driving sites does to words, tested against null patches: effects on the model.",
    "stimulationdoses": "Log-probability of words at every dose of a stimulation.",
    "stimulationcaptions": "What the model says of driven trials.",
    "sites": "Sites of a stimulation: what is added to a response at dose 1, in standard deviations.",
    "reverse": "Patterns that make the model say a word, in standard deviations.",
    "where": "Regions of the brain that a decoder reads.",
    "attention": "Attention of the language model to brain tokens.",
    "reconstruction": "Text of held-out stories from beginning to end, and texts by the language model alone.",
    "story": "Figures of merit of reconstructed stories.",
    "decoder": "Trained decoder.",
    "brain": "Voxels of the single-trial responses.",
}
"""``desc-`` label -> what it means (descriptions.tsv)."""

_SHARED = ("dataset_description-", "README-", "bidsignore-", "descriptions-", "participants-")
"""How names of what this module had not finished writing begin."""

README = """# bids_brainlm derivatives

Made by bids_brainlm, which estimates single-trial fMRI responses and decodes text from them with a language model.

- `sub-*/func/*_statmap.*`: single-trial responses, and their means over parcels
- `sub-*/beh/*_desc-trials_events.tsv`: the trials, row by row
- `sub-*/beh/*_desc-decoded_beh.tsv`, `*_desc-metrics_beh.tsv`: decoded texts and figures of merit
- `sub-*/model`, `sub-*/figures`, `sub-*.html`: the decoder, figures and report
- `logs/`: settings, method text, crashes

`descriptions.tsv` explains every `desc-` label.
"""


def check_output(out_dir: Path, raw_dir: Path, links: Mapping[str, Path]) -> None:
    """Refuse an output folder that would mix with the inputs.

    Parameters
    ----------
    out_dir, raw_dir : Path
    links : mapping of name to Path
        Derivatives that are read. ``betas`` may be the output itself: an earlier run's.

    Raises
    ------
    ConfigError
        When the output is an input folder, or inside one other than below ``derivatives/``.
    """
    out, raw = Path(out_dir).resolve(), Path(raw_dir).resolve()
    good = raw / "derivatives" / NAME
    inputs = {"BIDS folder": raw, **{name: Path(path).resolve() for name, path in links.items() if name != "betas"}}
    for name, folder in inputs.items():
        below = (folder / "derivatives") in out.parents
        if out == folder or (folder in out.parents and not below):
            raise ConfigError(
                f"the output folder {out_dir} is {'' if out == folder else 'inside '}the {name} {folder}; write to {good} instead"
            )
    if out == raw / "derivatives":
        raise ConfigError(f"the output folder {out_dir} holds all derivatives; write to a folder of its own, e.g. {good}")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"the output folder {out_dir} is a file; write to another place, e.g. {good}")


def init_dataset(
    out_dir: Path, raw_dir: Path, links: Mapping[str, Path], version: str, descriptions: Mapping[str, str] | None = None
) -> list[Path]:
    """Make the output folder a BIDS derivatives data set.

    Parameters
    ----------
    out_dir, raw_dir : Path
    links : mapping of name to Path
        Derivatives that are read; with ``raw`` they are what BIDS URIs of the sidecars may start with.
    version : str
        Ours.
    descriptions : mapping of str to str, optional
        ``desc-`` labels beyond `DESCRIPTIONS`.

    Returns
    -------
    list of Path
        The files at the root.

    Raises
    ------
    ConfigError
        When the folder is an input, or another program's data set.
    """
    out_dir, raw_dir = Path(out_dir), Path(raw_dir)
    check_output(out_dir, raw_dir, links)
    make_folder(out_dir)
    with locked(out_dir, "dataset"):
        for folder in (out_dir, out_dir / "logs"):
            remove_remnants(folder, prefix=_SHARED)
        return _write_root(out_dir, raw_dir, links, version, {**DESCRIPTIONS, **(descriptions or {})})


def _write_root(
    out_dir: Path, raw_dir: Path, links: Mapping[str, Path], version: str, descriptions: Mapping[str, str]
) -> list[Path]:
    paths = [write_json(out_dir / "dataset_description.json", _description(out_dir, raw_dir, links, version))]
    readmes = sorted(path for path in out_dir.glob("README*") if path.is_file())
    paths.append(readmes[0] if readmes else write_text(out_dir / "README.md", README))
    paths.append(_add_lines(out_dir / ".bidsignore", IGNORED))
    described = {f"desc-{key}": {"description": text} for key, text in descriptions.items()}
    paths.append(_add_rows(out_dir / "descriptions.tsv", "desc_id", described))
    everyone: dict[str, dict[str, str]] = {f"sub-{label}": {} for label in participants(raw_dir)}
    paths.append(_add_rows(out_dir / "participants.tsv", "participant_id", everyone))
    return paths


def propagate(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a BOLD sidecar that are still true of a derivative.

    >>> propagate({"TaskName": "story", "RepetitionTime": 2.0})
    {'TaskName': 'story'}
    """
    return {key: sidecar[key] for key in PROPAGATED if key in sidecar}


def _description(out_dir: Path, raw_dir: Path, links: Mapping[str, Path], version: str) -> dict[str, Any]:
    """Fields of dataset_description.json: what is there already, then ours."""
    there = _ours(out_dir / "dataset_description.json", version)
    raw = _optional_json(raw_dir / "dataset_description.json")
    upstream = [entry for name, path in sorted(links.items()) if name != "betas" for entry in _generators(Path(path))]
    tree: dict[str, Any] = {
        "Name": f"{NAME}: language decoded from {raw.get('Name', 'fMRI')}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        **{key: raw[key] for key in ("License",) if key in raw},
        **there,
        "GeneratedBy": [{"Name": NAME, "Version": version, **_container()}, *upstream],
        "SourceDatasets": [_source(raw)] if raw.get("DatasetDOI") else [{"URL": _uri(raw_dir, out_dir)}],
    }
    uris = {name: _uri(Path(path), out_dir) for name, path in {"raw": raw_dir, **links}.items()}
    tree["DatasetLinks"] = there.get("DatasetLinks", {}) | uris | {"templateflow": TEMPLATEFLOW}
    return tree


def _ours(path: Path, version: str) -> dict[str, Any]:
    """The description that is there; another program's is refused."""
    there = _optional_json(path)
    generators = [entry for entry in there.get("GeneratedBy") or [] if isinstance(entry, dict)]
    if there and not (generators and generators[0].get("Name") == NAME):
        names = ", ".join(str(entry.get("Name")) for entry in generators) or "an unknown program"
        raise ConfigError(f"the output folder {path.parent} holds a data set made by {names}; write to a folder of its own")
    if there and generators[0].get("Version") != version:
        LOGGER.warning("%s was written by version %s, this is %s", path.parent, generators[0].get("Version"), version)
    return there


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _generators(folder: Path) -> Iterator[dict[str, Any]]:
    """Programs behind a derivatives data set; ``PipelineDescription`` is what they were called before BIDS 1.4."""
    tree = _optional_json(folder / "dataset_description.json") if folder.is_dir() else {}
    entries = tree.get("GeneratedBy") or [tree.get("PipelineDescription")]
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("Name"):
            yield entry


def _container() -> dict[str, Any]:
    """Which container this is, as the image says."""
    tag, uri = os.environ.get("BIDS_BRAINLM_DOCKER_TAG"), os.environ.get("BIDS_BRAINLM_SINGULARITY_URL")
    if uri:
        return {"Container": {"Type": "singularity", "URI": uri}}
    return {"Container": {"Type": "docker", "Tag": tag}} if tag else {}


def _source(raw: Mapping[str, Any]) -> dict[str, str]:
    """The raw data set by its DOI, which authors give with or without a prefix."""
    doi = str(raw["DatasetDOI"]).strip()
    for prefix in ("https://doi.org/", "http://dx.doi.org/", "https://dx.doi.org/", "http://doi.org/", "doi:"):
        doi = doi.removeprefix(prefix)
    return {"DOI": doi, "URL": f"https://doi.org/{doi}"}


def _uri(path: Path, out_dir: Path) -> str:
    """Where a data set is: relative when both have a folder in common, so that they can be moved together."""
    path, out = path.resolve(), out_dir.resolve()
    if path in out.parents or path.parent in out.parents or out.parent in path.parents:
        return Path(os.path.relpath(path, out)).as_posix()
    return path.as_uri()


def _add_lines(path: Path, lines: tuple[str, ...]) -> Path:
    text = path.read_text("utf-8") if path.is_file() else ""
    missing = [line for line in lines if line not in text.splitlines()]
    if text and not text.endswith("\n"):
        text += "\n"
    return write_text(path, text + "".join(f"{line}\n" for line in missing)) if missing else path


def _add_rows(path: Path, key: str, rows: Mapping[str, Mapping[str, str]]) -> Path:
    """Rows that a table lacks are put below those it has; columns and rows of the user's own stay."""
    table = read_tsv(path) if path.is_file() else None
    if table is not None and key not in table:
        raise InputError(f"no column {key!r}", path, expected=f"a table of {key}", remedy="rename or remove the file")
    columns = list(table) if table is not None else [key, *next(iter(rows.values()), {})]
    held = {name: list(table[name]) if table is not None else [] for name in columns}
    for label, values in rows.items():
        if label not in held[key]:
            for name in columns:
                held[name].append(label if name == key else values.get(name))
    return write_tsv(path, held)
