"""Stage evaluate: decoded text -> figures of merit, with linear readouts of the same responses beside them.

Where texts are parts of something longer (words over time, chunks of a sentence) there are no facts to be named. Linear readouts
then tell texts by their embeddings, and figures are also given as a function of how much a text surprises the language model.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.config import Config, Request
from bids_brainlm.core.interventions import exchanges, partners
from bids_brainlm.core.types import Examples, Split
from bids_brainlm.errors import MissingResourceError
from bids_brainlm.evaluation.baselines import baseline_rows
from bids_brainlm.evaluation.cider import Frequencies
from bids_brainlm.evaluation.confusion import CONFUSION_COLUMNS, confusion, pooled
from bids_brainlm.evaluation.diversity import diversity_rows
from bids_brainlm.evaluation.effects import EFFECTS_COLUMNS, effects_table
from bids_brainlm.evaluation.evidence import COVERAGE_COLUMNS, EVIDENCE_COLUMNS, coverage
from bids_brainlm.evaluation.judge import load_judge
from bids_brainlm.evaluation.linear import Identified, identify, predict
from bids_brainlm.evaluation.matrix import Evidence, LikelihoodMatrix
from bids_brainlm.evaluation.metrics import Facts, Metric, chosen, mean_known
from bids_brainlm.evaluation.pairs import Comparisons
from bids_brainlm.evaluation.resources import available, lacking
from bids_brainlm.evaluation.surprise import SURPRISE_COLUMNS, bins, slopes
from bids_brainlm.evaluation.table import (
    METRICS_COLUMNS,
    Informed,
    Predictions,
    Sampling,
    TextScores,
    summary,
    text_scores,
    with_q,
)
from bids_brainlm.evaluation.zero_shot import zero_shot_rows
from bids_brainlm.io.files import read_json, read_tsv, write_tsv
from bids_brainlm.models import sources
from bids_brainlm.stages.baselines import baseline_texts, distinct, embedded, panels_of, responses
from bids_brainlm.stages.comparisons import comparisons_of
from bids_brainlm.stages.examples import examples_of, splits_of
from bids_brainlm.stages.facts import left_out_of, load_facts
from bids_brainlm.stages.outputs import beh_path, describe, warning_marks
from bids_brainlm.stages.pictures import pictures_of
from bids_brainlm.stages.questions import telling, write_questions
from bids_brainlm.stages.reliability import write_reliability
from bids_brainlm.stages.responses import load_trials

LOGGER = logging.getLogger(__name__)

READOUT_PERMUTATIONS = 200
"""Most permutations behind p values of readouts of texts, each of which compares all predictions with all texts anew."""


def evaluate(request: Request, *, participant: str) -> list[Path]:
    """Stage: figures of merit of the pooled out-of-fold predictions, with linear readouts beside them."""
    config = request.config
    trials = load_trials(request, participant)
    predictions = Predictions(read_tsv(beh_path(request, participant, trials.task, "decoded")))
    likelihoods = read_tsv(beh_path(request, participant, trials.task, "likelihood"))
    facts = load_facts(request)
    examples = examples_of(request, trials)
    folds = splits_of(request, trials, examples)
    scored = _matrices(folds, predictions, likelihoods, config)
    evidence = Evidence.concat([Evidence.of(m, c, [prompt.context for prompt in test.prompts]) for test, m, c in scored])
    readouts = {} if facts is None else _read_out(folds, facts, config.evaluate.readout, config.run.random_seed)
    continued = trials.heard is not None or config.window.chunks > 0
    identified = _identified(request, folds) if continued else {}
    metrics = chosen(config.evaluate.metrics, recall_rouge=config.compat.recall_rouge, truncated=config.compat.truncated)
    resources = _resources(request, metrics, predictions)
    sampling = Sampling(config.evaluate.bootstrap, seed=config.run.random_seed)
    runs = likelihoods.drop_duplicates("trial_id")["run"].to_numpy(str)
    informed = _informed(request, participant, trials.task, predictions) if config.evaluate.information else None
    scores, told = text_scores(predictions, metrics, resources), telling(folds)
    settled = (runs, readouts, identified, informed, resources, sampling, scores, told)
    tables = [summary(predictions, metrics, evidence, facts, *settled)]
    tables.append(diversity_rows(predictions, _learned(folds)))
    said = baseline_texts(request, folds)
    if said:
        tables.append(baseline_rows(predictions.of("true"), said, metrics, resources, facts, sampling))
    surprise, category = [], left_out_of(request)
    if category is not None:
        tables.append(zero_shot_rows(predictions, category, runs, sampling))
    if continued:
        tables.append(slopes(predictions, evidence, sampling))
        surprise = _write_surprise(request, participant, trials.task, bins(predictions, evidence, sampling))
    table = with_q(pd.concat(tables, ignore_index=True))
    path = beh_path(request, participant, trials.task, "metrics")
    primary = f"Primary test, declared beforehand: {table['metric'].iloc[0]}."
    text = f"Figures of merit. {primary} Intervals are 95 % bootstrap over groups."
    marks = {**warning_marks(config), "Permutations": len(evidence.exchanged), "NotRun": not_run(metrics, resources)}
    marks |= {"Judge": resources["judge"].report} if "judge" in resources else {}
    written = [write_tsv(path, table), describe(path, text, METRICS_COLUMNS, marks)]
    single = _single(predictions, evidence, informed, likelihoods)
    written += _write_evidence(request, participant, trials.task, single, _of_true(scores, predictions, facts, told))
    written += _write_effects(request, participant, trials.task, predictions, metrics, scores, facts, told)
    written += _write_confusion(request, participant, trials.task, scored, facts)
    asked = (predictions, metrics, evidence, resources, sampling, scores)
    written += write_questions(request, participant, trials.task, folds, *asked)
    return [*written, *surprise, *write_reliability(request, participant, trials, examples)]


Scored = tuple[Examples, LikelihoodMatrix, Comparisons]
"""Test set of a fold, its matrix, and which of it is compared."""


def _matrices(folds: Sequence[Split], predictions: Predictions, likelihoods: pd.DataFrame, config: Config) -> list[Scored]:
    """The likelihood matrix of every fold, with permutations drawn from the seed."""
    n_tokens = predictions.of("true").table.set_index("trial_id")["n_tokens"]
    parts = []
    for split in folds:
        test = split.examples.take(split.test)
        compared = comparisons_of(test, config, split.fold)
        matrix = LikelihoodMatrix.from_frame(likelihoods, compared, list(map(str, test.id)), n_tokens.loc[list(test.id)])
        parts.append((test, matrix, compared))
    return parts


def _single(predictions: Predictions, evidence: Evidence, informed: Informed | None, likelihoods: pd.DataFrame) -> pd.DataFrame:
    """Evidence for each text, with `EVIDENCE_COLUMNS`."""
    confidence = likelihoods.drop_duplicates("trial_id")["confidence"].to_numpy(float)
    bits = np.full(len(confidence), np.nan) if informed is None else informed.bits
    ranked = (evidence.rank, evidence.n_compared + 1, evidence.specificity, bits, confidence)
    return pd.DataFrame(dict(zip(EVIDENCE_COLUMNS, (predictions.of("true").table["trial_id"], *ranked), strict=True)))


def _write_confusion(request: Request, participant: str, task: str, scored: Sequence[Scored], facts: Facts | None) -> list[Path]:
    """Which categories are taken for each other, where there are facts and the whole matrix."""
    if facts is None or any(compared.n_sampled for *_, compared in scored):
        return []
    parts = []
    for test, matrix, compared in scored:
        labels = facts.labels(test.stimulus)
        columns = zip(facts.factors, labels.T, labels[compared.first].T, strict=True)
        parts += [confusion(matrix, *column) for column in columns]
    path = beh_path(request, participant, task, "confusion")
    text = "Which categories are told apart by likelihood, and which are taken for each other."
    return [write_tsv(path, pooled(parts)), describe(path, text, CONFUSION_COLUMNS, warning_marks(request.config))]


def _of_true(
    scores: TextScores, predictions: Predictions, facts: Facts | None, told: NDArray[np.bool_]
) -> dict[str, NDArray[np.float64]]:
    """Metric -> (n,) value of each text from a true brain."""
    out = {name: found["true"] for name, found in scores.items()}
    return out if facts is None else out | {"facts": _named(facts, predictions.of("true"), told)}


def _named(facts: Facts, part: Predictions, told: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n,) share of the facts that a text names; nan for one that is not to tell them all."""
    return np.where(told, mean_known(facts.hits(facts.read(part.texts), part.stimuli)), np.nan)


def _write_effects(
    request: Request,
    participant: str,
    task: str,
    predictions: Predictions,
    metrics: Sequence[Metric],
    scores: TextScores,
    facts: Facts | None,
    told: NDArray[np.bool_],
) -> list[Path]:
    """Sizes of effects, and noise ceilings where stimuli repeat."""
    parts = {name: predictions.of(name) for name in predictions.conditions if name != "none"}
    found = {"nll": {name: part.nll for name, part in parts.items()}, **scores}
    if facts is not None:
        found["facts"] = {name: _named(facts, part, told) for name, part in parts.items()}
    lower = {"nll", *(metric.name for metric in metrics if metric.direction == "lower")}
    true, settings = predictions.of("true"), request.config
    table = effects_table(found, lower, true.groups, true.stimuli, settings.evaluate.bootstrap, settings.run.random_seed)
    path = beh_path(request, participant, task, "effects")
    text = "How large the difference between true and permuted brain is, and how large it could be."
    return [write_tsv(path, table), describe(path, text, EFFECTS_COLUMNS, warning_marks(settings))]


def _write_evidence(
    request: Request,
    participant: str,
    task: str,
    table: pd.DataFrame,
    scores: Mapping[str, NDArray[np.float64]],
) -> list[Path]:
    """Evidence for single texts, and the metrics of those that are kept."""
    marks = warning_marks(request.config)
    kept = coverage(table["confidence"], scores)
    evidence, curve = (beh_path(request, participant, task, desc) for desc in ("evidence", "coverage"))
    return [
        write_tsv(evidence, table),
        describe(evidence, "Evidence for single texts: ranks and amounts, not p values.", EVIDENCE_COLUMNS, marks),
        write_tsv(curve, kept),
        describe(curve, "Metrics of the most confident texts: a reader may abstain from the others.", COVERAGE_COLUMNS, marks),
    ]


def _resources(request: Request, metrics: Sequence[Metric], predictions: Predictions) -> dict[str, Any]:
    """What there is of what metrics need beside texts."""
    settings, wanted = request.config.evaluate, {name for metric in metrics for name in metric.context}
    found = available(wanted, settings.bertscore, settings.embeddings, settings.clip)
    found["frequencies"] = Frequencies.of(predictions.references)
    pictures = pictures_of(request.bids_dir, predictions.stimuli) if "pictures" in wanted else None
    if pictures is not None:
        found["pictures"] = pictures
    if "judge" in wanted and settings.judge:
        from bids_brainlm.stages.decoder import device_of  # imports torch

        found["judge"] = load_judge(settings.judge, device_of(request.config))
    return found


def _learned(folds: Sequence[Split]) -> dict[int, list[str]]:
    """Fold -> texts that its decoder was trained on."""
    return {split.fold: [split.examples.prompts[i].answer for i in split.train] for split in folds}


def _informed(request: Request, participant: str, task: str, predictions: Predictions) -> Informed:
    """What stage information found, in the order of the true condition."""
    path = beh_path(request, participant, task, "information")
    columns = ["information", "nll_decoder", "nll_text_only"]
    table = read_tsv(path).set_index("trial_id")[columns].astype(float).loc[predictions.of("true").table["trial_id"]]
    found = read_json(path.with_suffix(".json"))["Temperatures"]
    bits, nll_decoder, nll_text_only = (table[name].to_numpy() for name in columns)
    return Informed(bits, nll_decoder, nll_text_only, (found["decoder"], found["text_only"]))


def not_run(metrics: Sequence[Metric], resources: Mapping[str, Any]) -> dict[str, str]:
    """Metric -> what it would need."""
    found = {metric.name: lacking(metric.context, resources) for metric in metrics}
    for name, why in found.items():
        if why:
            LOGGER.warning("the metric %s is not run: it %s", name, why)
    return {name: why for name, why in found.items() if why}


def _write_surprise(request: Request, participant: str, task: str, table: pd.DataFrame) -> list[Path]:
    path, parts = beh_path(request, participant, task, "surprise"), trained_parts(request.config)
    which = f"as it is after training with the decoder ({', '.join(parts)})" if parts else "as it came: nothing of it was trained"
    text = f"Figures of merit as a function of surprise: the NLL of a text without a brain, by the language model {which}."
    marks = {**warning_marks(request.config), "LanguageModelTrained": bool(parts)}
    return [write_tsv(path, table), describe(path, text, SURPRISE_COLUMNS, marks)]


def trained_parts(config: Config) -> tuple[str, ...]:
    """Parts of the language model that a phase trains: with any, the condition without a brain is not the model as it came."""
    return tuple(name for name in ("norms", "lora", "all") if any(name in phase.train for phase in config.phases))


def text_models(request: Request) -> list[Path]:
    """Folders of the models that texts are compared by.

    Raises
    ------
    MissingResourceError
        When one that is named holds no model: said before anything is trained.
    """
    settings = request.config.evaluate
    named = {"--embeddings": settings.embeddings, "--bertscore": settings.bertscore, "--clip": settings.clip}
    named |= {"--judge": settings.judge} if sources.is_path(settings.judge) else {}
    folders = {flag: Path(name).expanduser() for flag, name in named.items() if name}
    for flag, folder in folders.items():
        if not any((folder / name).is_file() for name in ("config.json", "modules.json")):
            expected = "a folder as save_pretrained or sentence-transformers write it"
            raise MissingResourceError("no model is there", folder, expected=expected, remedy=f"check {flag}")
    if settings.judge and not sources.is_path(settings.judge):
        sources.find(settings.judge, offline=True)
    return list(folders.values())


def _read_out(folds: Sequence[Split], facts: Facts, kinds: Sequence[str], seed: int) -> dict[str, NDArray[np.str_]]:
    """Kind of readout -> (n, factors) labels that it names from the same responses, in the order of the predictions."""
    # Here, because scikit-learn takes 0.7 s, and every plan imports this module.
    from bids_brainlm.evaluation.readout import kernels, named, sampled

    out: dict[str, list[Any]] = {kind: [] for kind in kinds}
    for split in folds:
        train = responses(split)
        labels = facts.labels(split.examples.stimulus[train])
        columns: dict[str, list[Any]] = {kind: [] for kind in kinds}
        products: dict[bytes, Any] = {}
        for own in labels.T:
            known = sampled(np.flatnonzero(own != ""), seed)
            # Trials without a label differ between factors; mostly there are none.
            if known.tobytes() not in products:
                products = {known.tobytes(): kernels(panels_of(split, train[known]))}
            groups = np.unique(split.examples.group[train[known]], return_inverse=True)[1]
            for kind in kinds:
                columns[kind].append(named(products[known.tobytes()], own[known], kind, groups))
        for kind in kinds:
            out[kind].append(np.stack(columns[kind], axis=1))
    return {kind: np.concatenate(parts) for kind, parts in out.items()}


def _identified(request: Request, folds: Sequence[Split]) -> dict[str, Identified]:
    """Texts of all test sets told by a ridge readout of the same rows, against the decoder's own permuted brains."""
    config = request.config
    if "ridge" not in config.evaluate.readout:
        return {}
    from bids_brainlm.evaluation.readout import kernels, sampled  # as in `_read_out`

    parts = []
    for split in folds:
        train, test = sampled(distinct(split), config.run.random_seed), split.examples.take(split.test)
        known, true = ([split.examples.prompts[i].answer for i in part] for part in (train, split.test))
        vectors = embedded(known + true, known, config.evaluate.embeddings)
        targets, own = vectors[: len(known)], vectors[len(known) :]
        predicted = predict(kernels(panels_of(split, train)), targets, split.examples.group[train])
        n_permutations = min(max(config.decode.permutations, 1), READOUT_PERMUTATIONS)
        drawn = (test, n_permutations, config.run.random_seed + split.fold)
        parts.append(identify(predicted, own - targets.mean(axis=0), true, test.group, partners(*drawn), exchanges(*drawn)))
    return {"ridge": Identified.concat(parts)}
