"""Which stages a participant needs, and the key of each, before anything runs.

    [tune ->] estimate (one a run) -> parcellate (one a run)
                      \\-> train -> decode -> [information ->] evaluate

    clean (one a run) -> train -> decode -> evaluate
                              \\-> [where], [story]

A tuned estimator chooses from all runs first (`bids_brainlm.stages.tune`); the others have no such stage. Where words have times,
series are cleaned instead, and whole stories may be reconstructed.
The key of a stage hashes the content of the files it reads first-hand, the settings it depends on, and the keys of the stages
before it. Reading events and texts for the keys also finds most faults of the input here, before any work; all of them are
told at once, not the first alone.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bids_brainlm import registry
from bids_brainlm.config import Request, bearing
from bids_brainlm.core.types import Examples, Split
from bids_brainlm.errors import BrainLMError, ConfigError, InputError, collecting, one_or_all
from bids_brainlm.io.atlas_files import SURFACE_EXTENSIONS, hemispheres
from bids_brainlm.io.events import load_events
from bids_brainlm.io.matrices import files_of, find_betas
from bids_brainlm.io.runfiles import RunFiles
from bids_brainlm.io.rungs import CIFTI_RUNG, GIVEN
from bids_brainlm.io.surfaces import Geometry
from bids_brainlm.io.texts import NoTextError
from bids_brainlm.stages.baselines import corpus_path
from bids_brainlm.stages.cache import FileHashes, Stage, digest
from bids_brainlm.stages.evaluate import text_models
from bids_brainlm.stages.examples import examples_of, splits_of
from bids_brainlm.stages.facts import facts_path
from bids_brainlm.stages.heard import files_of as transcripts_of
from bids_brainlm.stages.heard import listened
from bids_brainlm.stages.quality import fit_trials
from bids_brainlm.stages.responses import Trials
from bids_brainlm.stages.runs import over_time, runs_of, stem, trials_of
from bids_brainlm.stages.tables import table_faults, tables_of
from bids_brainlm.stages.tune import Seen, is_tuned, options_of, tuned

LOGGER = logging.getLogger(__name__)

ONLY_TUNED = ("hrf_library", "hrf_choice", "max_components", "tune_on")
"""Settings of ``estimate`` that only tuned estimators read."""

NOT_TUNED = ("max_fd", "max_outliers", "center", "tune_on")
"""Settings of ``estimate`` that say nothing about choices; the runs that ``tune_on`` leaves are hashed themselves."""


class TextedRun(NamedTuple):
    """A run with texts or words.

    Parameters
    ----------
    run : RunFiles
    table : DataFrame
        Its events, of which some have a text; or its volumes.
    heard : DataFrame or None
        Its words, where they have times.
    """

    run: RunFiles
    table: pd.DataFrame
    heard: pd.DataFrame | None = None


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
            source = digest([stage.key for stage in _responses(first)])
    if faults:
        raise one_or_all(faults)
    return [*first, *_per_participant(request, participant, atlas, hashes, source, tuple(s.name for s in _responses(first)))]


def _responses(stages: Sequence[Stage]) -> list[Stage]:
    """Those that write what decoders read."""
    return [stage for stage in stages if stage.kind in ("estimate", "clean")]


def unknown_names(request: Request, heavy: bool) -> list[BrainLMError]:
    """What is wrong with names of the settings that are to be looked up; ``heavy`` adds those whose look-up imports torch."""
    config = request.config
    wanted = [(registry.estimators, config.estimate.estimator), (registry.prompt_styles, config.model.style)]
    wanted += [(registry.metrics, name) for name in config.evaluate.metrics]
    wanted += [(registry.interventions, name) for name in config.decode.controls]
    wanted += [(registry.story_decoders, name) for name in config.story.decoders if heavy]
    if heavy:
        wanted += [(registry.tokenizers, config.model.tokenizer)]
        wanted += [(registry.objectives, phase.objective) for phase in config.phases]
    faults: list[BrainLMError] = []
    for table, name in wanted:
        with collecting(faults):
            table.get(name)
    with collecting(faults):
        if not over_time(request):
            _refuse_unfit_estimator(request)
    return faults


def _refuse_unfit_estimator(request: Request) -> None:
    """Refuse settings that an estimator cannot honour."""
    settings = request.config.estimate
    if "betas" in request.derivatives:
        return
    estimator, name = registry.estimators.get(settings.estimator), settings.estimator
    if is_tuned(estimator):
        options_of(request)
        if settings.noise_model != "ols":
            raise ConfigError(f"--noise-model {settings.noise_model} is for lsa and lss; {name} has its own way with noise")
        if settings.tune_on == "train" and request.config.split.scheme == "kfold":
            raise ConfigError("--tune-on train needs runs that are never tested, but --split kfold tests every run in turn")
    elif settings.noise_model != "ols" and "noise_model" not in inspect.signature(estimator).parameters:
        raise ConfigError(f"the estimator {name!r} knows no --noise-model; leave it out, or choose lsa or lss")


def texted_runs(request: Request, runs: Sequence[RunFiles]) -> tuple[list[TextedRun], list[BrainLMError]]:
    """Those of some runs that have texts or words; and the faults of the others.

    A resting-state run has no texts, which is a fault only when no other run has any or its task was asked for. Where a table
    of the settings is at fault itself (`table_faults`), no run has texts, but all events are looked at.
    """
    found: list[TextedRun] = []
    faults: list[BrainLMError] = []
    if table_faults(request):
        for run in runs:
            with collecting(faults):
                if run.events is not None:
                    load_events(run.events)
        return found, faults
    without: list[BrainLMError] = []
    for run in runs:
        try:
            heard, volumes = listened(request, run) if over_time(request) else (None, None)
            found.append(TextedRun(run, trials_of(request, run) if volumes is None else volumes, heard))
        except NoTextError as error:
            if over_time(request):
                LOGGER.info("%s is left out: %s", stem(run), error)
            without.append(error)
        except BrainLMError as error:
            faults.append(error)
    nothing_else = not found and not faults
    return found, [*faults, *(without if nothing_else or request.config.input.tasks else [])]


def divided(
    request: Request, tables: Sequence[pd.DataFrame], path: Path, heard: Sequence[pd.DataFrame] = ()
) -> tuple[Examples, tuple[Split, ...]]:
    """Examples and splits of a participant before there are responses: neither depends on a value of theirs.

    Parameters
    ----------
    request : Request
    tables : sequence of DataFrame
        Trials with a text, or volumes, one table a run.
    path : Path
        For messages.
    heard : sequence of DataFrame
        Words of the same runs, where they have times.

    Raises
    ------
    InputError, LeakageError
        When there are too few examples, or they cannot be divided as asked.
    """
    trials = before_responses(tables, path, heard)
    examples = examples_of(request, trials)
    return examples, splits_of(request, trials, examples)


def before_responses(tables: Sequence[pd.DataFrame], path: Path, heard: Sequence[pd.DataFrame] = ()) -> Trials:
    """Trials as `divided` takes them, with zeros for responses."""
    table = pd.concat(tables, ignore_index=True)
    column = np.zeros((len(table), 1), dtype=np.float32)
    words = pd.concat(heard, ignore_index=True) if heard else None
    return Trials(column, Geometry("none", "", 1, 1), table, path, (), "", heard=words)


def seen_by_choices(request: Request, tables: Sequence[pd.DataFrame], folds: Sequence[Split], path: Path) -> Seen:
    """What a tuned estimator may look at.

    Parameters
    ----------
    request : Request
    tables : sequence of DataFrame
        Trials with a text, one table a run.
    folds : sequence of Split
        Of `divided`.
    path : Path
        For messages.

    Raises
    ------
    InputError
        When every run holds a test trial, or the estimator cannot do without the repeats that are hidden from it.
    """
    settings, every = request.config.estimate, (True,) * len(tables)
    shared = any(_share_stimuli(fold) for fold in folds)
    if settings.tune_on == "train":
        # With several folds every run is tested in turn; `_refuse_unfit_estimator` refuses that.
        return Seen(_without_test(tables, folds[0], path) if len(folds) == 1 else every, True, False)
    hidden = shared and settings.tune_on == "auto"
    if hidden and settings.estimator in ("denoise", "ridge"):
        what = f"{settings.estimator} compares repeats, but training and test share stimuli: labels of test trials would be used"
        remedy = "take --estimator auto, keep stimuli apart (--group stimulus), or see --tune-on"
        raise InputError(what, path, remedy=remedy)
    return Seen(every, not hidden, shared)


def _share_stimuli(fold: Split) -> bool:
    stimulus = fold.examples.stimulus
    return bool(np.intersect1d(stimulus[np.concatenate([fold.train, fold.validation])], stimulus[fold.test]).size)


def _without_test(tables: Sequence[pd.DataFrame], fold: Split, path: Path) -> tuple[bool, ...]:
    rows = fold.examples.rows[fold.test]
    ends = np.cumsum([len(table) for table in tables])
    held_out = set(np.searchsorted(ends, rows[rows >= 0], side="right").tolist())
    if len(held_out) == len(tables):
        remedy = "keep whole runs apart (--group run), or let choices see all runs (--tune-on auto)"
        raise InputError("--tune-on train: every run holds a test trial", path, expected="runs without one", remedy=remedy)
    return tuple(i not in held_out for i in range(len(tables)))


def _per_run(request: Request, participant: str, atlas: str, hashes: FileHashes) -> list[Stage]:
    config, stages, every = request.config, [], runs_of(request, participant)
    # Voxels are those in the masks of all runs, with texts or without.
    masks = hashes.many(run.mask for run in every)
    texted, faults = texted_runs(request, every)
    if faults:
        raise one_or_all(faults)
    if not texted:
        return []
    if over_time(request):
        return _cleaned(request, participant, texted, masks, hashes)
    tables = [fit_trials(config.estimate, run, table) for run, table, _ in texted]
    _, folds = divided(request, tables, texted[0][0].place)
    inputs = {stem(run): _read_of(run, table, masks, hashes) for run, table, _ in texted}
    if tuned(request):
        seen = seen_by_choices(request, tables, folds, texted[0][0].place)
        stages.append(_tune(request, participant, [run for run, *_ in texted], seen, inputs, hashes))
    before = tuple(stage.name for stage in stages)
    for run, *_ in texted:
        name = stem(run)
        key = digest(*inputs[name], own_settings(request, run), [stage.key for stage in stages[: len(before)]])
        arguments = {"participant": participant, "run": name}
        read = {"sources": _sources(run, hashes)}
        stages.append(Stage(f"{name}_estimate", "bids_brainlm.stages.estimate:estimate", key, arguments | read, before))
        after = (stages[-1].name,)
        parcels = digest(key, atlas, bearing(config, "parcels"))
        stages.append(Stage(f"{name}_parcellate", "bids_brainlm.stages.responses:parcellate", parcels, arguments, after))
    return stages


def _cleaned(
    request: Request, participant: str, texted: Sequence[TextedRun], masks: list[str], hashes: FileHashes
) -> list[Stage]:
    """One stage a run in which words were heard; which they were bears on its key, wherever they stand."""
    heard = [item.heard for item in texted if item.heard is not None]
    divided(request, [item.table for item in texted], texted[0].run.place, heard)
    stages = []
    for (run, *_), words in zip(texted, heard, strict=True):
        key = digest(masks, hashes.many(run.files), run.sidecar, words.to_dict("list"), own_settings(request, run))
        told = {
            f"bids:raw:{path.relative_to(request.bids_dir).as_posix()}": hashes(path) for path in transcripts_of(request, run)
        }
        arguments = {"participant": participant, "run": stem(run), "sources": _sources(run, hashes) | told}
        stages.append(Stage(f"{stem(run)}_clean", "bids_brainlm.stages.clean:clean", key, arguments))
    return stages


def _read_of(run: RunFiles, table: pd.DataFrame, masks: list[str], hashes: FileHashes) -> tuple[Any, ...]:
    """What the responses of a run are made from."""
    return [*masks, *hashes.many(run.files)], run.sidecar, table["keep"].tolist(), table["stimulus_id"].tolist()


def _sources(run: RunFiles, hashes: FileHashes) -> dict[str, str]:
    return dict(zip(run.sources, hashes.many(run.files), strict=True))


def _tune(
    request: Request, who: str, runs: Sequence[RunFiles], seen: Seen, inputs: Mapping[str, Any], hashes: FileHashes
) -> Stage:
    options_of(request)
    library = Path(request.config.estimate.hrf_library).expanduser() if request.config.estimate.hrf_library else None
    settings = [own_settings(request, run) for run in runs]
    for each in settings:
        # Which trials are decoded is no matter of the choices, and limits on motion do not change a response.
        each["estimate"] = {name: value for name, value in each["estimate"].items() if name not in NOT_TUNED}
    key = digest(inputs, settings, asdict(seen), hashes.many([library]))
    sources = {uri: value for run in runs for uri, value in _sources(run, hashes).items()}
    arguments = {"participant": who, "runs": [stem(run) for run in runs], "seen": asdict(seen), "sources": sources}
    return Stage(f"sub-{who}_tune", "bids_brainlm.stages.tune:tune", key, arguments)


def own_settings(request: Request, run: RunFiles | None = None) -> dict[str, Any]:
    """Settings of input and estimation that bear on the responses, of a run or of all: those of other ways do not."""
    tree = bearing(request.config, "input", "estimate")
    if over_time(request):
        tree["estimate"] = {"high_pass": tree["estimate"]["high_pass"]}
    # The rung that was taken shows in the files that are read.
    idle = ["input.projection"]
    if run is not None and run.rung in (GIVEN, CIFTI_RUNG):
        idle += [f"input.{name}" for name in ("depths", "interpolation", "good_voxels")]
    idle += [f"estimate.{name}" for name in (("noise_model",) if tuned(request) else ONLY_TUNED)]
    for name in idle:
        section, _, key = name.partition(".")
        tree[section].pop(key, None)
    return tree


def _per_participant(
    request: Request, participant: str, atlas: str, hashes: FileHashes, source: str, after: tuple[str, ...]
) -> list[Stage]:
    config, who = request.config, f"sub-{participant}"
    llm = Path(config.model.llm).expanduser()
    inputs = {
        "responses": source,
        "texts": hashes.many(tables_of(request)),
        "llm": hashes(llm) if llm.is_dir() else config.model.llm,
        "atlas": atlas,
        "settings": bearing(config, "text", "window", "split", "model", "phases", "run")
        | {"estimate": own_settings(request)["estimate"]},
        "parcels used": list(config.parcels.only),
        "padded": config.compat.padded_warmup,
        "oldest": config.compat.oldest_prompt,
    }
    train = digest(inputs)
    decode = digest(train, bearing(config, "decode"))
    facts = [facts_path(request)] if config.evaluate.facts else []
    candidates = corpus_path(request)
    facts += [candidates] if candidates else []
    compared_by = {str(folder): hashes(folder) for folder in text_models(request)}
    information = digest(train, "information") if config.evaluate.information else ""
    evaluate = digest(decode, information, bearing(config, "parcels", "evaluate", "compat"), hashes.many(facts), compared_by)
    common = {"participant": participant}
    stages = [
        Stage(f"{who}_train", "bids_brainlm.stages.decode:train", train, {**common, "key": train}, after, heavy=True),
        Stage(f"{who}_decode", "bids_brainlm.stages.decode:decode", decode, common, (f"{who}_train",), heavy=True),
    ]
    before: tuple[str, ...] = (f"{who}_decode",)
    if information:
        name, function = f"{who}_information", "bids_brainlm.stages.information:measure"
        stages.append(Stage(name, function, information, {**common, "key": information}, (f"{who}_train",), heavy=True))
        before = (*before, name)
    stages.append(Stage(f"{who}_evaluate", "bids_brainlm.stages.evaluate:evaluate", evaluate, common, before))
    if config.evaluate.where:
        key = digest(train, bearing(config, "parcels"), config.evaluate.where_texts)
        stages.append(Stage(f"{who}_where", "bids_brainlm.stages.where:locate", key, common, (f"{who}_train",), heavy=True))
    if config.story.decoders and over_time(request):
        key = digest(train, bearing(config, "story", "decode", "evaluate", "compat"))
        function = "bids_brainlm.stages.story:reconstruct"
        stages.append(Stage(f"{who}_story", function, key, common, (f"{who}_train",), heavy=True))
    return stages


def _atlas(request: Request, hashes: FileHashes) -> str:
    """Content of an atlas given as file or folder; a name stands for itself."""
    path = Path(request.config.parcels.atlas).expanduser()
    if not path.is_file():
        return hashes(path) if path.is_dir() else request.config.parcels.atlas
    sides = hemispheres(path) if path.name.endswith(SURFACE_EXTENSIONS) else (path,)
    # The names of parcels may stand in a table beside it.
    return digest(hashes.many([*(side for side in sides if side.is_file()), *sorted(path.parent.glob("*.tsv"))]))
