"""The method text: what a run did, in sentences fit for a paper, with its own numbers and citations.

Every sentence follows from a field of `MethodFacts`; a sentence whose field is empty is left out. ``[@key]`` in the sentences
names a work (`bids_brainlm.reports.citations`); `method_text` turns it into author and year and lists the works at the end,
`bibliography` writes the same works as BibTeX.

>>> text = method_text(MethodFacts(participant="sub-01", n_texts_test=160, n_permutations=100))
>>> "100 permuted pairings" in text
True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bids_brainlm.core.leakage import LEAKY
from bids_brainlm.core.splits import SHUFFLED
from bids_brainlm.reports.citations import bibtex, cited, keys_of, listed


@dataclass(frozen=True)
class PhaseFacts:
    """One phase of training, as it was carried out."""

    name: str
    groups: tuple[str, ...]
    epochs: int
    learning_rate: float
    batch_size: int
    precision: str = ""
    l2: float = 0.0
    schedule: str = ""
    best_epoch: int = 0
    solver: str = "adamw"


@dataclass(frozen=True)
class WindowFacts:
    """Words with times, and what was decoded of them."""

    n_stories: int
    n_words: int
    n_windows: int
    seconds: float
    lag: float
    rows: int
    context: tuple[int, ...]
    silent: int = 0
    outside: int = 0
    early: int = 0

    @property
    def left_out(self) -> str:
        """Windows that were not used, by reason."""
        return f"left out {self.silent} without words, {self.outside} outside the series, {self.early} without context"


@dataclass(frozen=True)
class MethodFacts:
    """What the sentences are made from; empty or zero means not known or not done."""

    participant: str = ""
    version: str = ""
    # recordings and responses
    fmriprep_version: str = ""
    input_kind: str = "bold"  # bold, betas, or matrix
    n_runs: int = 0
    space: str = ""
    density: str = ""
    n_vertices: int = 0
    n_masked: int = 0
    estimator: str = ""
    hrf: str = ""
    noise_model: str = ""
    tuning: Mapping[str, Any] = field(default_factory=dict)  # sidecar of stage tune
    projections: tuple[str, ...] = ()
    approximate: bool = False
    high_pass: float = 0.0
    confounds: tuple[str, ...] = ()
    center: str = ""
    n_trials: int = 0
    n_stimuli: int = 0
    windows: WindowFacts | None = None
    atlas: str = ""
    n_parcels: int = 0
    # model
    recipe: str = ""
    llm: str = ""
    revision: str = ""
    texts: tuple[str, ...] = ()  # sentences: what was done to texts
    tokenizer: str = ""
    n_tokens: int = 0
    basis_components: int = 0
    basis_variance: float = 0.0
    vertex_dropout: float = 0.0
    lora_rank: int = 0
    phases: tuple[PhaseFacts, ...] = ()
    # split
    scheme: str = ""
    shuffled_pairs: bool = False
    group: str = ""
    folds: int = 1
    n_train: int = 0
    n_validation: int = 0
    n_texts_test: int = 0
    average: tuple[str, ...] = ()
    shared_texts: int = 0
    purged: int = 0
    left_out: tuple[str, int] = ("", 0)  # categories, examples
    # evaluation
    n_permutations: int = 0
    bootstrap: int = 0
    metrics: tuple[str, ...] = ()
    readouts: tuple[str, ...] = ()
    seed: int = 0
    software: tuple[tuple[str, str], ...] = ()  # name, version


def method_text(facts: MethodFacts) -> str:
    """Markdown: paragraphs with headings, then the works cited."""
    source = _source(facts)
    return f"{cited(source)}\n\n### References\n\n" + "\n".join(listed(keys_of(source))) + "\n"


def bibliography(facts: MethodFacts) -> str:
    """BibTeX of the works that the method text cites."""
    return bibtex(cited_keys(facts))


def cited_keys(facts: MethodFacts) -> list[str]:
    """Works cited, in the order of the text."""
    return keys_of(_source(facts))


def _source(facts: MethodFacts) -> str:
    parts = {
        "Responses": _responses(facts),
        "Model": _model(facts),
        "Training": _training(facts),
        "Decoding and evaluation": _evaluation(facts),
        "Software": _software(facts),
    }
    return "\n\n".join(f"### {name}\n\n{' '.join(sentences)}" for name, sentences in parts.items() if sentences)


def _responses(f: MethodFacts) -> list[str]:
    out = []
    who = f" of {f.participant}" if f.participant else ""
    if f.input_kind == "bold" and f.n_runs:
        prepared = (
            f" preprocessed with fMRIPrep {f.fmriprep_version} [@fmriprep]".replace("  ", " ") if f.fmriprep_version else ""
        )
        where = f" in the space {f.space}" + (f" at density {f.density}" if f.density else "") if f.space else ""
        out.append(f"{_count(f.n_runs, 'BOLD run')}{who}{prepared} were read{where} from a BIDS dataset [@bids].")
    elif f.n_runs or f.n_trials:
        out.append(f"Ready single-trial responses{who} were read.")
    if f.projections:
        rough = ", which is approximate" if f.approximate else ""
        out.append(f"Series were brought to the fsaverage surface here, by sampling from: {'; '.join(f.projections)}{rough}.")
    if f.n_vertices:
        kept = f"Of {f.n_vertices:,} vertices or voxels, {f.n_masked:,} were constant or not finite and left out."
        out.append(kept if f.n_masked else f"Each recording has {f.n_vertices:,} vertices or voxels.")
    if f.windows:
        out += _windows(f, f.windows)
    elif f.estimator:
        out.append(_glm(f))
    if f.tuning:
        out += _tuned(f)
    if f.center in ("run", "session"):
        out.append(f"The mean over the trials of each {f.center} was removed from every vertex, which uses no labels.")
    if f.n_parcels:
        source = " [@schaefer]" if f.atlas.lower().startswith("schaefer") else ""
        out.append(f"Vertices were grouped into {f.n_parcels} parcels ({f.atlas}){source}.")
    return out


def _glm(f: MethodFacts) -> str:
    kinds = {
        "lss": "with least squares separate [@lss]",
        "lsa": "with least squares all, one model for all trials",
    }
    hrf = {
        "glover": " and a canonical haemodynamic response [@glover]",
        "spm": " and the canonical haemodynamic response of SPM",
    }
    nuisance = [f"cosine drifts below {f.high_pass:.3g} Hz"] * bool(f.high_pass)
    nuisance += [f"the confounds {', '.join(f.confounds)}"] * bool(f.confounds)
    beside = f", beside {' and '.join(nuisance)}" if nuisance else ""
    if f.tuning:
        one = "in one model for all trials of a run" if f.tuning["TrialModel"] == "lsa" else "with least squares separate [@lss]"
        how, response_form = one, ""
    else:
        how, response_form = kinds.get(f.estimator, f"with {f.estimator}"), hrf.get(f.hrf, "")
    noise = " under first-order autoregressive noise" if f.noise_model == "ar1" else ""
    return f"The response to each trial, in percent signal change, was estimated {how}{response_form}{noise}{beside} [@nilearn]."


def _windows(f: MethodFacts, w: WindowFacts) -> list[str]:
    """How series and words became examples."""
    taken = [f"cosine drifts below {f.high_pass:.3g} Hz"] * bool(f.high_pass)
    taken += [f"the confounds {', '.join(f.confounds)}"] * bool(f.confounds)
    cleaned = f"{' and '.join(taken)} were regressed out and " if taken else ""
    told = f"{_count(w.n_words, 'word')} of {'one story' if w.n_stories == 1 else f'{w.n_stories} stories'}"
    context = _list(tuple(map(str, w.context)))
    out = [
        f"From every series, {cleaned}each vertex or voxel was z-scored over the run [@nilearn], which uses no words.",
        f"{told} were cut into windows of {w.seconds:g} s by their onsets; a window was decoded from {_count(w.rows, 'volume')}, "
        f"the first taken {w.lag:g} s or more after its start, with the words of {context} windows before it as its prompt.",
    ]
    if w.silent + w.outside + w.early:
        reasons = [f"{w.silent} without words"] * bool(w.silent) + [f"{w.early} without context"] * bool(w.early)
        reasons += [f"{w.outside} whose volumes do not all lie in the run"] * bool(w.outside)
        out.append(f"{_count(w.n_windows, 'window')} were used; left out were {_list(tuple(reasons))}.")
    return out


def _tuned(f: MethodFacts) -> list[str]:
    """What was chosen before; the form of the chain is that of GLMsingle."""
    about, out = f.tuning, []
    steps = about["EstimationSteps"]
    if steps:
        out.append("Choices that all runs made together followed the form of GLMsingle [@glmsingle], in code of our own.")
    if "hrf" in steps:
        ways = {
            "onoff": "for which one regressor for all trials explained most variance",
            "cv": "with which trials predicted repeats of their stimulus in other runs best",
            "both": "that suited the mean response and predicted repeats in other runs best",
            "insample": "with which all trials together explained most variance",
        }
        out.append(f"Every vertex got the response of a library {ways.get(about['HRFChoice'], 'that suited it best')}.")
    if "denoise" in steps:
        n = about["NumberOfComponents"]
        taken = f"the first {n} of them were taken out of each run" if n else "which asked for none"
        out.append(
            "Principal components of vertices that the task hardly moved were candidates for nuisance [@glmdenoise], their "
            f"number being chosen by the agreement of repeats across runs: {taken}."
        )
    if "ridge" in steps:
        out.append(
            "Responses were shrunk by fractional ridge regression [@fracridge], the fraction of each vertex chosen by the "
            "agreement of repeats across runs, and brought back to the scale of ordinary least squares."
        )
    names = {"hrf": "the choice of responses", "denoise": "the nuisance components", "ridge": "fractional ridge"}
    out += [f"Left out was {names.get(step, step)}: {why}." for step, why in about["StepsLeftOut"].items()]
    held_out = "runs without a test trial" if about["OtherRuns"] else "all runs, those with test trials among them"
    return [*out, f"These choices saw {held_out}, and no text."]


def _model(f: MethodFacts) -> list[str]:
    out = []
    if f.recipe:
        after = {"cortext": " after CorText [@cortext]", "brainllm": " after BrainLLM [@brainllm]"}.get(f.recipe, "")
        out.append(f"Text was decoded by fusing brain responses with a language model, by the recipe {f.recipe}{after}.")
    if f.tokenizer and f.n_tokens:
        basis = (
            f" in a basis of {f.basis_components} principal components of the training texts' token embeddings"
            if f.basis_components
            else ""
        )
        variance = f" ({f.basis_variance:.0%} of their variance, at most)" if f.basis_components and f.basis_variance else ""
        out.append(
            f"A {f.tokenizer} tokenizer turned z-scored responses into {_count(f.n_tokens, 'brain token')}{basis}{variance}."
        )
    if f.llm:
        revision = f" (revision {f.revision})" if f.revision else ""
        out.append(f"Brain tokens stood before the prompt of {f.llm}{revision} [@transformers].")
    return [*out, *f.texts]


def _training(f: MethodFacts) -> list[str]:
    out = []
    if f.n_train:
        scheme = f"in {f.folds} folds, whose test predictions were pooled" if f.folds > 1 else "once"
        sizes = f"{f.n_train:,} training, {f.n_validation:,} validation and {f.n_texts_test:,} test examples"
        unit = {"blocks": "by blocks of time", "leaky-random": "one by one"}.get(f.scheme, f"by {f.group or 'stimulus'}")
        what = "Windows of words" if f.windows else "Trials"
        out.append(f"{what} were split {unit} {scheme} ({sizes}{' a fold' if f.folds > 1 else ''}).")
        out += [LEAKY] * (f.scheme == "leaky-random") + [SHUFFLED] * f.shuffled_pairs
        together = ", all folds together" if f.folds > 1 else ""
        if f.scheme == "blocks":
            shared = "shared a volume with a held-out one, or had a held-out text in prompt or answer"
            out.append(f"{_count(f.purged, 'example')} that {shared} were left out of training and validation{together}.")
        if f.left_out[0]:
            out.append(f"Nothing of {f.left_out[0]} was trained on: {_count(f.left_out[1], 'example')} left out{together}.")
        but = ", but for the choices of the estimator" if f.tuning and not f.tuning["OtherRuns"] else ""
        out.append(f"Whatever was fitted with labels or across trials was fitted on training examples alone{but}.")
    if f.average:
        out.append(f"Repeats of a stimulus were averaged in {' and '.join(f.average)}.")
    if f.shared_texts:
        out.append(f"{_count(f.shared_texts, 'test example')} had a reference text that also occurred in training.")
    if f.vertex_dropout:
        out.append(f"In training, each vertex was set to its mean with probability {f.vertex_dropout:g}.")
    stepped = [phase.name for phase in f.phases if phase.solver == "adamw"]
    out += [_phase(phase, f.lora_rank, first=[phase.name] == stepped[:1]) for phase in f.phases]
    return out


def _phase(phase: PhaseFacts, lora_rank: int, first: bool) -> str:
    groups = {
        "tokenizer": "the brain tokenizer",
        "markers": "the marker vectors",
        "norms": "the layer norms of the language model",
        "lora": f"low-rank adapters of rank {lora_rank} [@lora]",
        "all": "the whole language model",
    }
    if phase.solver == "ridge":
        return f"Phase “{phase.name}” fitted the brain tokenizer by ridge regression, its penalty chosen on validation examples."
    moved = f"Phase “{phase.name}” trained {_list(tuple(groups.get(g, g) for g in phase.groups))} with AdamW{' [@adamw]' * first}"
    details = [f"learning rate {phase.learning_rate:g}" + (f" ({phase.schedule})" if phase.schedule else "")]
    details += [f"weight decay {phase.l2:g}"] * bool(phase.l2) + [f"batches of {phase.batch_size}"]
    if phase.precision:
        details.append("the language model in " + ("4-bit NF4 [@qlora]" if phase.precision == "nf4" else phase.precision))
    best = f"; the weights of epoch {phase.best_epoch} had the smallest validation loss and were kept" if phase.best_epoch else ""
    return f"{moved} for {_count(phase.epochs, 'epoch')}, with {', '.join(details)}{best}."


def _evaluation(f: MethodFacts) -> list[str]:
    out = []
    if f.n_texts_test:
        other = "window with other volumes and words" if f.windows else "trial with another stimulus and text"
        out.append(
            "Every test text was decoded under three conditions on the same weights: from the true response, from the response "
            f"to another test {other} (permuted), and without any brain tokens (none)."
        )
    if f.n_permutations:
        pairings = "circular shifts of the test windows within runs" if f.windows else "permuted pairings"
        out.append(
            "The primary test, declared beforehand, compared the mean negative log-likelihood of the right texts given their own "
            f"response with that under {f.n_permutations} {pairings} [@permutation]; all other p values are secondary, "
            "and their false discovery rate is given beside them [@fdr]."
        )
    if any(name.startswith("bleu") for name in f.metrics):
        out.append("BLEU is the mean of sentence scores, smoothed and in lower case [@bleu; @sacrebleu].")
    if "rouge_l" in f.metrics:
        out.append("ROUGE-L is the F1 of the longest common subsequence of words [@rouge].")
    if "facts" in f.metrics:
        out.append(
            "A fact counts as named when the text has a word for it, and for no other value of the same factor, as a whole word."
        )
    if f.readouts:
        out.append(f"Linear classifiers ({_list(f.readouts)}) [@scikit-learn] read the same facts from the same responses.")
    if f.bootstrap:
        out.append(
            f"Intervals (95 %) come from {f.bootstrap:,} bootstrap samples of groups ({f.group or 'stimulus'}) [@bootstrap]; "
            "none are given below 6."
        )
    if f.seed:
        out.append(f"The random seed was {f.seed}.")
    return out


def _software(f: MethodFacts) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in f.software)
    app = f"bids_brainlm {f.version}".strip()
    flow = "The workflow ran on Nipype [@nipype]" + (
        "; templates came from TemplateFlow [@templateflow]." if f.atlas and ":" in f.atlas else "."
    )
    return [f"Results were produced by {app}" + (f", with {versions}." if versions else "."), flow]


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _list(items: tuple[str, ...]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]])) if items else ""
