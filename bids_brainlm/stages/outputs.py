"""Where stages write what, and the sidecars of their tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_brainlm.config import Config, Request
from bids_brainlm.core.leakage import LEAKY
from bids_brainlm.core.splits import SHUFFLED
from bids_brainlm.core.types import Parcellation
from bids_brainlm.io.files import write_json
from bids_brainlm.io.names import bids_name
from bids_brainlm.io.surfaces import Geometry
from bids_brainlm.stages import cache
from bids_brainlm.stages.runs import over_time

WRITER = {
    "training": "train",
    "decoded": "decode",
    "likelihood": "decode",
    "controls": "decode",
    "where": "where",
    "attention": "where",
    "information": "information",
    "metrics": "evaluate",
    "evidence": "evaluate",
    "coverage": "evaluate",
    "effects": "evaluate",
    "confusion": "evaluate",
    "questions": "evaluate",
    "answers": "evaluate",
    "surprise": "evaluate",
    "story": "story",
    "reconstruction": "story",
}
"""``desc-`` label of a table -> stage that writes it."""


def beh_path(request: Request, participant: str, task: str, desc: str) -> Path:
    """``sub-01/beh/sub-01_task-look_desc-<desc>_beh.tsv``; BIDS has no such name without a task."""
    return _folder(request, participant, "beh") / f"sub-{participant}_task-{task}_desc-{desc}_beh.tsv"


def estimator_label(request: Request) -> str:
    """``desc-`` label of maps of the responses: the estimator in capitals, or what series were made."""
    if over_time(request):
        return "cleaned"
    return "".join(filter(str.isalnum, request.config.estimate.estimator)).upper()


def reliability_path(request: Request, participant: str, task: str, geometry: Geometry, atlas: Parcellation) -> Path:
    """``sub-01/func/sub-01_task-look_space-..._atlas-..._stat-reliability_desc-LSS_statmap.tsv``: means over parcels."""
    space = {} if geometry.space == "none" else geometry.entities
    labels = {**atlas.entities, "stat": "reliability", "desc": estimator_label(request)}
    named = {"sub": participant, "task": task, **space, **labels}
    return _folder(request, participant, "func") / bids_name(named, "statmap", ".tsv")


def model_path(request: Request, participant: str, task: str, fold: int, which: str = "decoder") -> Path:
    """``sub-01/model/sub-01_task-look_desc-fold0decoder_model.safetensors``; ``which`` may be ``textonly``."""
    name = f"sub-{participant}_task-{task}_desc-fold{fold}{which}_model.safetensors"
    return _folder(request, participant, "model") / name


def find_beh(request: Request, participant: str, desc: str) -> Path | None:
    """The table that `beh_path` names, as the last run of its stage wrote it; None when there is none."""
    return next(iter(_written(request, participant, WRITER[desc], f"_desc-{desc}_beh.tsv")), None)


def find_reliability(request: Request, participant: str) -> Path | None:
    """Maps of the reliability, as `bids_brainlm.io.maps.read_maps` takes them; None when there are none."""
    return _find_maps(request, participant, "evaluate", "reliability")


def find_where(request: Request, participant: str) -> Path | None:
    """Maps of where in the brain, likewise."""
    return _find_maps(request, participant, "where", "where")


def _find_maps(request: Request, participant: str, stage: str, stat: str) -> Path | None:
    written = _written(request, participant, stage, (".func.gii", ".nii.gz", ".tsv"))
    maps = [path for path in written if f"_stat-{stat}_" in path.name and "_atlas-" not in path.name]
    return next(iter(maps), None)


def find_models(request: Request, participant: str) -> list[Path]:
    """Sidecars of the decoders, one a fold."""
    return _written(request, participant, "train", "decoder_model.json")


def _folder(request: Request, participant: str, name: str) -> Path:
    return request.out_dir / f"sub-{participant}" / name


def _written(request: Request, participant: str, stage: str, ending: str | tuple[str, ...]) -> list[Path]:
    paths = cache.outputs(request.out_dir, f"sub-{participant}_{stage}")
    return [path for path in paths if path.name.endswith(ending) and path.is_file()]


def describe(table: Path, description: str, columns: Mapping[str, str], marks: Mapping[str, Any] | None = None) -> Path:
    """Write the sidecar of a table: what it is, what its columns mean, and `warning_marks` where they apply."""
    tree = {"Description": description, **(marks or {}), **{name: {"Description": text} for name, text in columns.items()}}
    return write_json(table.with_suffix(".json"), tree)


MARKS = {"LeakySplit": LEAKY, "ShuffledPairs": SHUFFLED}
"""Key of a sidecar that says that something was made wrong on purpose -> what that means."""


def warning_marks(config: Config) -> dict[str, Any]:
    """What the sidecar of every output says of a split that leaks, or pairs that were shuffled, on purpose; else nothing."""
    return marks_of({"LeakySplit": config.split.scheme == "leaky-random", "ShuffledPairs": config.split.shuffle_pairs})


def marks_of(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The same from a sidecar."""
    found = [key for key in MARKS if tree.get(key)]
    return {**dict.fromkeys(found, True), "Warning": " ".join(MARKS[key] for key in found)} if found else {}
