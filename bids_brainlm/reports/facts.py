"""Facts of a participant for the method text, from whatever files are there."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from bids_brainlm import __version__
from bids_brainlm.config import Config, Request
from bids_brainlm.errors import BrainLMError
from bids_brainlm.io.betas import read_betas
from bids_brainlm.io.cleaned import read_cleaned
from bids_brainlm.io.files import read_json, read_tsv
from bids_brainlm.io.matrices import find_betas
from bids_brainlm.io.surfaces import Geometry
from bids_brainlm.reports.estimation import Estimation, read_estimation
from bids_brainlm.reports.heard import read_windows
from bids_brainlm.reports.methods import MethodFacts, PhaseFacts
from bids_brainlm.stages import cache
from bids_brainlm.stages.outputs import find_beh
from bids_brainlm.stages.runs import over_time

SOFTWARE = ("nilearn", "nibabel", "nipype", "torch", "transformers", "peft", "bitsandbytes")


def facts_of(request: Request, participant: str, tables: dict[str, Any], sidecars: list[dict[str, Any]]) -> MethodFacts:
    """Facts of a participant.

    Parameters
    ----------
    request : Request
    participant : str
    tables : dict of str to DataFrame or None
        ``training`` is used.
    sidecars : list of dict
        Of the decoders, one a fold.
    """
    config = request.config
    estimates, trials = estimates_of(request, participant), trials_of(request, participant)
    estimation = estimation_of(request, participant, estimates)
    geometry = geometry_of(request, participant)
    counts = [item["NumberOfExamples"] for item in sidecars]
    atlas = request.out_dir / f"sub-{participant}"
    means = sorted(atlas.glob("**/func/*_stat-mean_*_statmap.tsv"))
    fmriprep = next(
        (p for name, p in request.derivatives.items() if name != "betas"), request.bids_dir / "derivatives" / "fmriprep"
    )
    return MethodFacts(
        participant=f"sub-{participant}",
        version=__version__,
        fmriprep_version=_generator(fmriprep),
        input_kind="betas" if "betas" in request.derivatives else "bold",
        n_runs=len(trials) or len(estimates),
        space="" if geometry is None else geometry.space,
        density="" if geometry is None else geometry.density,
        n_vertices=0 if geometry is None else geometry.n_vertices,
        n_masked=max((int(item.get("NumberOfUnusableVertices", 0)) for item in estimates), default=0),
        estimator="" if over_time(request) else config.estimate.estimator,
        hrf=config.estimate.hrf,
        noise_model=estimates[0].get("NoiseModel", "") if estimates else "",
        projections=tuple(sorted({item["ProjectionMethod"] for item in estimates if "ProjectionMethod" in item})),
        approximate=any(item.get("ProjectionApproximate") for item in estimates),
        tuning={} if estimation is None else estimation.sidecar,
        high_pass=config.estimate.high_pass,
        confounds=tuple(estimates[0].get("Confounds", ())) if estimates else (),
        center="" if over_time(request) else config.estimate.center,
        windows=read_windows(request, participant),
        n_trials=sum(map(len, trials)),
        n_stimuli=len({key for table in trials for key in table["stimulus_id"]}),
        atlas=sidecars[0]["Atlas"] if sidecars else config.parcels.atlas,
        n_parcels=len(read_tsv(means[0]).columns) - 1 if means else 0,
        recipe=_recipe(config),
        llm=Path(config.model.llm).name if Path(config.model.llm).is_dir() else config.model.llm,
        revision=sidecars[0]["LanguageModel"]["revision"] if sidecars else "",
        texts=texts_told(config),
        tokenizer=config.model.tokenizer,
        vertex_dropout=config.model.vertex_dropout,
        basis_variance=config.model.basis_variance,
        lora_rank=config.model.lora_rank if any("lora" in phase.train for phase in config.phases) else 0,
        phases=_phases(request, tables["training"]),
        scheme=config.split.scheme,
        shuffled_pairs=config.split.shuffle_pairs,
        group=config.split.group,
        folds=max(len(sidecars), 1),
        n_train=counts[0]["train"] if counts else 0,
        n_validation=counts[0]["validation"] if counts else 0,
        n_texts_test=sum(item["test"] for item in counts),
        average=config.split.average,
        shared_texts=sum(item["TestExamplesSharingATextWithTraining"] for item in sidecars),
        purged=sum(item.get("ExamplesPurged", 0) for item in sidecars),
        left_out=(config.split.leave_out, sum(item.get("ExamplesLeftOut", 0) for item in sidecars)),
        n_permutations=n_permutations(request, participant) or config.decode.permutations,
        bootstrap=config.evaluate.bootstrap,
        metrics=config.evaluate.metrics,
        readouts=config.evaluate.readout if config.evaluate.facts else (),
        seed=config.run.random_seed,
        software=tuple((name, metadata.version(name)) for name in SOFTWARE),
    )


def texts_told(config: Config) -> tuple[str, ...]:
    """What was done to texts before the language model read them."""
    settings, out = config.model, []
    if config.window.lower and (config.window.words or config.window.chunks):
        out.append("All words were in lower case.")
    if settings.max_prompt_tokens:
        which = "oldest" if config.compat.oldest_prompt else "newest"
        out.append(f"A prompt of more than {settings.max_prompt_tokens} tokens was cut to its {which} words.")
    if settings.max_answer_tokens:
        longer = f"A text of more than {settings.max_answer_tokens} tokens"
        out.append(f"{longer} was cut to its first words in training and likelihood.")
    return tuple(out)


def estimates_of(request: Request, participant: str) -> list[dict[str, Any]]:
    """Sidecars of the responses, or of the cleaned series, of each run."""
    folder = request.out_dir / f"sub-{participant}"
    name = "*_desc-cleaned_bold.json" if over_time(request) else "*_stat-effect_*_statmap.json"
    return [read_json(path) for path in sorted(folder.glob(f"**/func/{name}"))]


def trials_of(request: Request, participant: str) -> list[pd.DataFrame]:
    """Trials of each run; none where words have times."""
    folder = request.out_dir / f"sub-{participant}"
    return [read_tsv(path) for path in sorted(folder.glob("**/beh/*_desc-trials_events.tsv"))]


def estimation_of(request: Request, participant: str, estimates: list[dict[str, Any]]) -> Estimation | None:
    """What was chosen for these responses, if a tuned estimator made them."""
    found = read_estimation(cache.outputs(request.out_dir, f"sub-{participant}_tune"))
    methods = {item.get("EstimationMethod") for item in estimates}
    return found if found is not None and found.sidecar["EstimationMethod"] in methods else None


def geometry_of(request: Request, participant: str) -> Geometry | None:
    """Where the responses, or the cleaned series, lie; None while there are none."""
    folder = request.out_dir / f"sub-{participant}"
    if over_time(request):
        series = [p for p in folder.glob("**/func/*_desc-cleaned_bold.*") if "hemi-L" in p.name or p.name.endswith(".nii.gz")]
        return read_cleaned(sorted(series)[0]).geometry if series else None
    images = [p for p in folder.glob("**/func/*_stat-effect_*_statmap.*") if "hemi-L" in p.name or p.name.endswith(".nii.gz")]
    if "betas" in request.derivatives:
        try:
            images = [item.path for item in find_betas(request.derivatives["betas"], participant) if item.kind != "matrix"]
        except BrainLMError:
            # Here too, the outcome says what is wrong with them.
            images = []
    return read_betas(sorted(images)[0]).geometry if images else None


def n_permutations(request: Request, participant: str) -> int:
    """Those that were made, whatever the settings of this call say."""
    path = find_beh(request, participant, "metrics")
    return 0 if path is None else int(read_json(path.with_suffix(".json")).get("Permutations", 0))


def _recipe(config: Config) -> str:
    """The published system whose form the settings have."""
    if config.model.tokenizer == "parcelwise":
        return "cortext"
    return "brainllm" if config.model.tokenizer == "mlp" and (config.window.words or config.window.chunks) else ""


def _phases(request: Request, history: pd.DataFrame | None) -> tuple[PhaseFacts, ...]:
    out = []
    for phase in request.config.phases:
        rows = None if history is None else history[(history["phase"] == phase.name) & (history["fold"].astype(str) == "0")]
        done = phase.epochs if rows is None else len(rows)
        out.append(
            PhaseFacts(
                phase.name,
                phase.train,
                done,
                phase.learning_rate,
                phase.batch_size,
                phase.precision,
                phase.l2,
                phase.schedule,
                solver=phase.solver,
            )
        )
    return tuple(out)


def _generator(folder: Path) -> str:
    path = folder / "dataset_description.json"
    made = read_json(path).get("GeneratedBy", []) if path.is_file() else []
    entry = made[0] if made else {}
    return str(entry.get("Version", "")) if entry.get("Name", "").lower() == "fmriprep" else ""
