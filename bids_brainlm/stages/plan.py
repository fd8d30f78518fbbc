"""Which stages a participant needs, and the key of each, before anything runs.

    estimate (one a run) -> parcellate (one a run)
             \\-> train -> decode -> evaluate

The key of a stage hashes the content of the files it reads first-hand, the settings it depends on, and the keys of the stages
before it. Reading events and texts for the keys also finds most faults of the input here, before any work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bids_brainlm import registry
from bids_brainlm.config import Request, bearing
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.io.atlas_files import SURFACE_EXTENSIONS, hemispheres
from bids_brainlm.io.matrices import files_of, find_betas
from bids_brainlm.io.runfiles import RunFiles
from bids_brainlm.models import sources
from bids_brainlm.stages.cache import FileHashes, Stage, digest
from bids_brainlm.stages.estimate import runs_of, stem, trials_of
from bids_brainlm.stages.evaluate import facts_path


def plan(request: Request, participant: str, hashes: FileHashes) -> list[Stage]:
    """The stages of one participant, in an order in which they can run.

    Raises
    ------
    BrainLMError
        For every fault that can be seen before any work.
    """
    ready = request.derivatives.get("betas")
    if ready is not None:
        first: list[Stage] = []
        source = digest(hashes.many(path for item in find_betas(ready, participant) for path in files_of(item)))
    else:
        first = _per_run(request, participant, hashes)
        source = digest([stage.key for stage in _estimates(first)])
    after = tuple(stage.name for stage in _estimates(first))
    return [*first, *_per_participant(request, participant, hashes, source, after)]


def _estimates(stages: Sequence[Stage]) -> list[Stage]:
    return [stage for stage in stages if stage.name.endswith("_estimate")]


def refuse_unknown(request: Request, stages: Iterable[Stage]) -> None:
    """Look up what some stages will need by name, before hours of other work.

    Parameters
    ----------
    request : Request
    stages : iterable of Stage
        Those that have to run.

    Raises
    ------
    ConfigError
        When nobody registered an estimator, prompt style, metric, tokenizer or objective of that name.
    MissingResourceError
        When the language model is not there.
    """
    config, stages = request.config, list(stages)
    if stages:
        registry.estimators.get(config.estimate.estimator)
        registry.prompt_styles.get(config.model.style)
        for name in config.evaluate.metrics:
            registry.metrics.get(name)
    if any(stage.heavy for stage in stages):
        # Only now: these import torch.
        registry.tokenizers.get(config.model.tokenizer)
        for phase in config.phases:
            registry.objectives.get(phase.objective)
        sources.find(config.model.llm, config.model.revision, config.run.offline)


def texted_runs(request: Request, runs: Sequence[RunFiles]) -> list[tuple[RunFiles, Any]]:
    """Those of some runs that have texts, each with its trials.

    Raises
    ------
    InputError
        When no run has a text; the fault of the first is given.
    """
    found, faults = [], []
    for run in runs:
        try:
            found.append((run, trials_of(request, run)))
        except MissingInputError as error:
            # A resting-state run has no texts, which matters only when no other run has any or it was asked for.
            faults.append(error)
    if faults and (not found or request.config.input.tasks):
        raise faults[0]
    return found


def _per_run(request: Request, participant: str, hashes: FileHashes) -> list[Stage]:
    config, stages = request.config, []
    atlas, every = _atlas(request, hashes), runs_of(request, participant)
    # Voxels are those in the masks of all runs, with texts or without.
    masks = hashes.many(run.mask for run in every)
    for run, table in texted_runs(request, every):
        name = stem(run)
        files = [*masks, *hashes.many([*run.bold, run.confounds, run.events])]
        key = digest(
            files, run.sidecar, table["keep"].tolist(), table["stimulus_id"].tolist(), bearing(config, "input", "estimate")
        )
        arguments = {"participant": participant, "run": name}
        stages.append(Stage(f"{name}_estimate", "bids_brainlm.stages.estimate:estimate", key, arguments))
        after = (stages[-1].name,)
        parcels = digest(key, atlas, bearing(config, "parcels"))
        stages.append(Stage(f"{name}_parcellate", "bids_brainlm.stages.responses:parcellate", parcels, arguments, after))
    return stages


def _per_participant(request: Request, participant: str, hashes: FileHashes, source: str, after: tuple[str, ...]) -> list[Stage]:
    config, who = request.config, f"sub-{participant}"
    llm = Path(config.model.llm).expanduser()
    inputs = {
        "responses": source,
        "texts": hashes.many(_tables(request)),
        "llm": hashes(llm) if llm.is_dir() else config.model.llm,
        "atlas": _atlas(request, hashes),
        "settings": bearing(config, "estimate", "text", "split", "model", "phases", "run"),
    }
    train = digest(inputs)
    decode = digest(train, bearing(config, "decode"))
    facts = [facts_path(request)] if config.evaluate.facts else []
    evaluate = digest(decode, bearing(config, "evaluate"), hashes.many(facts))
    common = {"participant": participant}
    return [
        Stage(f"{who}_train", "bids_brainlm.stages.decode:train", train, {**common, "key": train}, after, heavy=True),
        Stage(f"{who}_decode", "bids_brainlm.stages.decode:decode", decode, common, (f"{who}_train",), heavy=True),
        Stage(f"{who}_evaluate", "bids_brainlm.stages.evaluate:evaluate", evaluate, common, (f"{who}_decode",)),
    ]


def _atlas(request: Request, hashes: FileHashes) -> str:
    """Content of an atlas given as file or folder; a name stands for itself."""
    path = Path(request.config.parcels.atlas).expanduser()
    if not path.is_file():
        return hashes(path) if path.is_dir() else request.config.parcels.atlas
    sides = hemispheres(path) if path.name.endswith(SURFACE_EXTENSIONS) else (path,)
    # The names of parcels may stand in a table beside it.
    return digest(hashes.many([*(side for side in sides if side.is_file()), *sorted(path.parent.glob("*.tsv"))]))


def _tables(request: Request) -> list[Path]:
    named = [_inside(request, name) for name in (request.config.text.table, request.config.split.source) if name.endswith(".tsv")]
    # A table of texts that is not named is looked for among these.
    return named if request.config.text.table else [*named, *sorted((request.bids_dir / "stimuli").glob("*.tsv"))]


def _inside(request: Request, name: str) -> Path:
    path = (request.bids_dir / name).resolve()
    if not path.is_relative_to(request.bids_dir.resolve()):
        raise InputError("a table outside the dataset", path, expected=f"a path below {request.bids_dir}")
    if not path.is_file():
        raise MissingInputError(
            "a table that the settings name is not there", path, remedy="check --texts, --facts and split.source"
        )
    return path
