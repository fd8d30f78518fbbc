"""Which stages a participant needs, and the key of each, before anything runs.

    estimate (one a run) -> parcellate (one a run)
             \\-> train -> decode -> evaluate

The key of a stage hashes the content of the files it reads first-hand, the settings it depends on, and the keys of the stages
before it. Reading events and texts for the keys also finds most faults of the input here, before any work; all of them are
told at once, not the first alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bids_brainlm import registry
from bids_brainlm.config import Request, bearing
from bids_brainlm.core.types import Examples, Split
from bids_brainlm.errors import BrainLMError, MissingInputError, collecting, one_or_all
from bids_brainlm.io.atlas_files import SURFACE_EXTENSIONS, hemispheres
from bids_brainlm.io.events import load_events
from bids_brainlm.io.matrices import files_of, find_betas
from bids_brainlm.io.runfiles import RunFiles
from bids_brainlm.io.surfaces import Geometry
from bids_brainlm.io.texts import NoTextError, inside
from bids_brainlm.stages.cache import FileHashes, Stage, digest
from bids_brainlm.stages.estimate import runs_of, stem, trials_of
from bids_brainlm.stages.evaluate import facts_path
from bids_brainlm.stages.examples import examples_of, splits_of
from bids_brainlm.stages.responses import Trials

TextedRun = tuple[RunFiles, pd.DataFrame]
"""A run and its events, of which some have a text."""


def plan(request: Request, participant: str, hashes: FileHashes) -> list[Stage]:
    """The stages of one participant, in an order in which they can run.

    Raises
    ------
    BrainLMError
        With every fault that can be seen before any work: `Faults` when there are several.
    """
    faults = table_faults(request)
    first: list[Stage] = []
    ready = request.derivatives.get("betas")
    source = atlas = ""
    with collecting(faults):
        atlas = _atlas(request, hashes)
    with collecting(faults):
        if ready is not None:
            source = digest(hashes.many(path for item in find_betas(ready, participant) for path in files_of(item)))
        else:
            first = _per_run(request, participant, atlas, hashes)
            source = digest([stage.key for stage in _estimates(first)])
    if faults:
        raise one_or_all(faults)
    return [*first, *_per_participant(request, participant, atlas, hashes, source, tuple(s.name for s in _estimates(first)))]


def _estimates(stages: Sequence[Stage]) -> list[Stage]:
    return [stage for stage in stages if stage.name.endswith("_estimate")]


def unknown_names(request: Request, heavy: bool) -> list[BrainLMError]:
    """What is wrong with names of the settings that are to be looked up; ``heavy`` adds those whose look-up imports torch."""
    config = request.config
    wanted = [(registry.estimators, config.estimate.estimator), (registry.prompt_styles, config.model.style)]
    wanted += [(registry.metrics, name) for name in config.evaluate.metrics]
    if heavy:
        wanted += [(registry.tokenizers, config.model.tokenizer)]
        wanted += [(registry.objectives, phase.objective) for phase in config.phases]
    faults: list[BrainLMError] = []
    for table, name in wanted:
        with collecting(faults):
            table.get(name)
    return faults


def texted_runs(request: Request, runs: Sequence[RunFiles]) -> tuple[list[TextedRun], list[BrainLMError]]:
    """Those of some runs that have texts, each with its events; and the faults of the others.

    A resting-state run has no texts, which is a fault only when no other run has any or its task was asked for. Where a table
    of the settings is at fault itself (`table_faults`), no run has texts, but all events are looked at.
    """
    found: list[TextedRun] = []
    faults: list[BrainLMError] = []
    if table_faults(request):
        for run in runs:
            with collecting(faults):
                load_events(run.events)
        return found, faults
    without: list[BrainLMError] = []
    for run in runs:
        try:
            found.append((run, trials_of(request, run)))
        except NoTextError as error:
            without.append(error)
        except BrainLMError as error:
            faults.append(error)
    nothing_else = not found and not faults
    return found, [*faults, *(without if nothing_else or request.config.input.tasks else [])]


def divided(request: Request, tables: Sequence[pd.DataFrame], path: Path) -> tuple[Examples, tuple[Split, ...]]:
    """Examples and splits of a participant before there are responses: neither depends on a value of theirs.

    Parameters
    ----------
    request : Request
    tables : sequence of DataFrame
        Trials with a text, one table a run.
    path : Path
        For messages.

    Raises
    ------
    InputError, LeakageError
        When there are too few examples, or they cannot be divided as asked.
    """
    table = pd.concat(tables, ignore_index=True)
    column = np.zeros((len(table), 1), dtype=np.float32)
    trials = Trials(column, Geometry("none", "", 1, 1), table, path, (), "")
    examples = examples_of(request, trials)
    return examples, splits_of(request, trials, examples)


def _per_run(request: Request, participant: str, atlas: str, hashes: FileHashes) -> list[Stage]:
    config, stages, every = request.config, [], runs_of(request, participant)
    # Voxels are those in the masks of all runs, with texts or without.
    masks = hashes.many(run.mask for run in every)
    texted, faults = texted_runs(request, every)
    if faults:
        raise one_or_all(faults)
    if not texted:
        return []
    divided(request, [table[table["keep"]] for _, table in texted], texted[0][0].events)
    for run, table in texted:
        name = stem(run)
        own = hashes.many(run.files)
        files = [*masks, *own]
        key = digest(
            files, run.sidecar, table["keep"].tolist(), table["stimulus_id"].tolist(), bearing(config, "input", "estimate")
        )
        arguments = {"participant": participant, "run": name}
        read = {"sources": dict(zip(run.sources, own, strict=True))}
        stages.append(Stage(f"{name}_estimate", "bids_brainlm.stages.estimate:estimate", key, arguments | read))
        after = (stages[-1].name,)
        parcels = digest(key, atlas, bearing(config, "parcels"))
        stages.append(Stage(f"{name}_parcellate", "bids_brainlm.stages.responses:parcellate", parcels, arguments, after))
    return stages


def _per_participant(
    request: Request, participant: str, atlas: str, hashes: FileHashes, source: str, after: tuple[str, ...]
) -> list[Stage]:
    config, who = request.config, f"sub-{participant}"
    llm = Path(config.model.llm).expanduser()
    inputs = {
        "responses": source,
        "texts": hashes.many(_tables(request)),
        "llm": hashes(llm) if llm.is_dir() else config.model.llm,
        "atlas": atlas,
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


def table_faults(request: Request) -> list[BrainLMError]:
    """What is wrong with the tables that the settings name, wherever they are used."""
    faults: list[BrainLMError] = []
    for name in _named_tables(request):
        with collecting(faults):
            _inside(request, name)
    with collecting(faults):
        if request.config.evaluate.facts:
            facts_path(request)
    return faults


def _named_tables(request: Request) -> list[str]:
    return [name for name in (request.config.text.table, request.config.split.source) if name.endswith(".tsv")]


def _tables(request: Request) -> list[Path]:
    named = [_inside(request, name) for name in _named_tables(request)]
    # A table of texts that is not named is looked for among these.
    return named if request.config.text.table else [*named, *sorted((request.bids_dir / "stimuli").glob("*.tsv"))]


def _inside(request: Request, name: str) -> Path:
    path = inside(request.bids_dir, Path(name))
    if not path.is_file() and not path.is_dir():
        raise MissingInputError(
            "a table that the settings name is not there", path, remedy="check --texts, --facts and split.source"
        )
    return path
