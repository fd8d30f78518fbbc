"""The method text carries the run's numbers, cites what was used and nothing else, and every citation has an entry."""

from __future__ import annotations

import dataclasses
import re

import pytest

from bids_brainlm.core.leakage import LEAKY
from bids_brainlm.reports.citations import references
from bids_brainlm.reports.methods import MethodFacts, PhaseFacts, WindowFacts, bibliography, cited_keys, method_text

FULL = MethodFacts(
    participant="sub-01",
    version="1.2.3",
    fmriprep_version="25.2.5",
    n_runs=8,
    space="fsaverage",
    density="10k",
    n_vertices=20484,
    n_masked=12,
    estimator="lss",
    hrf="glover",
    high_pass=0.0078125,
    confounds=("trans_x", "rot_x"),
    center="run",
    atlas="Schaefer2018:100:7n",
    n_parcels=100,
    recipe="cortext",
    llm="org/model",
    revision="abc",
    tokenizer="parcelwise",
    n_tokens=100,
    basis_components=921,
    basis_variance=0.97,
    vertex_dropout=0.5,
    lora_rank=16,
    phases=(
        PhaseFacts("tokenizers", ("tokenizer", "norms"), 20, 1e-3, 25, "bf16", 0.2, "cosine", 17),
        PhaseFacts("lora", ("tokenizer", "norms", "lora"), 2, 2e-5, 25, "nf4"),
    ),
    group="stimulus",
    folds=5,
    n_train=576,
    n_validation=64,
    n_texts_test=160,
    average=("test",),
    shared_texts=3,
    n_permutations=100,
    bootstrap=2000,
    metrics=("bleu1", "rouge_l", "facts"),
    readouts=("ridge", "logistic"),
    seed=42,
    software=(("torch", "2.8"),),
)


@pytest.mark.parametrize(
    "number",
    [
        "8 BOLD runs",
        "fMRIPrep 25.2.5",
        "20,484",
        "12 were",
        "trans_x, rot_x",
        "100 parcels",
        "921",
        "rank 16",
        "20 epochs",
        "epoch 17",
    ]
    + [
        "0.001",
        "576 training",
        "5 folds",
        "3 test examples",
        "100 permuted",
        "2,000 bootstrap",
        "seed was 42",
        "bids_brainlm 1.2.3",
    ],
)
def test_numbers_of_the_run_are_in_the_text(number: str) -> None:
    assert number in method_text(FULL)


def test_works_are_cited_when_used_and_only_then() -> None:
    used = {"cortext", "fmriprep", "nilearn", "nipype", "templateflow", "schaefer", "transformers", "lora", "qlora", "lss"}
    assert used <= set(cited_keys(FULL))
    matrix = MethodFacts(
        input_kind="matrix", n_trials=96, recipe="mine.toml", llm="gpt2", phases=(PhaseFacts("one", ("tokenizer",), 1, 1e-3, 8),)
    )
    assert not {"cortext", "fmriprep", "schaefer", "lora", "qlora", "lss", "templateflow"} & set(cited_keys(matrix))
    assert set(cited_keys(FULL)) <= set(references())


def test_a_phase_in_closed_form_is_not_said_to_be_stepped() -> None:
    solved = PhaseFacts("warm-up", ("tokenizer",), 1, 1e-3, 50, solver="ridge")
    stepped = PhaseFacts("markers", ("markers",), 4, 1e-3, 50)
    alone = method_text(MethodFacts(input_kind="matrix", n_trials=9, recipe="x", llm="gpt2", phases=(solved,)))
    assert "“warm-up” fitted the brain tokenizer by ridge regression" in alone
    assert "AdamW" not in alone
    both = method_text(MethodFacts(input_kind="matrix", n_trials=9, recipe="x", llm="gpt2", phases=(solved, stepped)))
    assert "“markers” trained the marker vectors with AdamW (" in both


def test_text_list_and_bibliography_agree() -> None:
    text, entries = method_text(FULL), bibliography(FULL)
    for key in cited_keys(FULL):
        assert references()[key]["cite"] in text
        assert references()[key]["url"] in text
        assert re.search(rf"@\w+{{{key},", entries)
    assert "[@" not in text
    assert entries.count("{") == entries.count("}")


def test_every_reference_is_complete() -> None:
    for work in references().values():
        assert {"cite", "type", "author", "title", "year", "venue", "url"} == set(work)
        assert work["cite"].endswith(work["year"])
        assert work["url"].startswith("https://")


def test_nothing_known_is_still_a_text() -> None:
    assert method_text(MethodFacts()).startswith("### Software")


TUNED = {
    "EstimationSteps": ["hrf", "denoise", "ridge"],
    "StepsLeftOut": {},
    "TrialModel": "lsa",
    "HRFChoice": "cv",
    "NumberOfComponents": 4,
    "OtherRuns": [],
}


def test_choices_are_told_with_their_sources() -> None:
    facts = dataclasses.replace(FULL, estimator="auto", tuning=TUNED)
    text = method_text(facts)
    for words in ("GLMsingle (Prince et al., 2022)", "the first 4 of them", "(Rokem & Kay, 2020)", "(Kay et al., 2013)"):
        assert words in text
    assert "These choices saw all runs, those with test trials among them, and no text." in text
    assert "fitted on training examples alone, but for the choices of the estimator." in text
    assert {"glmsingle", "fracridge", "glmdenoise"} <= set(cited_keys(facts))
    # The canonical response was not used.
    assert "glover" not in cited_keys(facts)
    assert not {"glmsingle", "fracridge", "glmdenoise"} & set(cited_keys(FULL))


def test_what_was_left_out_is_told_and_not_cited() -> None:
    left = {"denoise": "no stimulus is repeated in another run", "ridge": "no stimulus is repeated in another run"}
    facts = dataclasses.replace(FULL, tuning=TUNED | {"EstimationSteps": ["hrf"], "StepsLeftOut": left, "OtherRuns": ["x"]})
    text = method_text(facts)
    assert "Left out was fractional ridge: no stimulus is repeated in another run." in text
    assert "fracridge" not in cited_keys(facts)
    assert "These choices saw runs without a test trial" in text
    assert "fitted on training examples alone." in text


def test_how_series_got_to_the_surface_is_told() -> None:
    facts = dataclasses.replace(FULL, projections=("MNI volume",), approximate=True, noise_model="ar1")
    text = method_text(facts)
    assert "brought to the fsaverage surface here, by sampling from: MNI volume, which is approximate." in text
    assert "under first-order autoregressive noise" in text
    assert "approximate" not in method_text(FULL)


def test_windows_of_words_are_told_instead_of_trials() -> None:
    windows = WindowFacts(3, 1200, 250, 2.0, 4.0, 3, (1, 2, 3), silent=7, early=9)
    facts = dataclasses.replace(FULL, windows=windows, estimator="", center="", recipe="brainllm")
    text = method_text(facts)
    for words in (
        "cosine drifts below 0.00781 Hz and the confounds trans_x, rot_x were regressed out and each vertex or voxel was",
        "1,200 words of 3 stories were cut into windows of 2 s",
        "decoded from 3 volumes, the first taken 4 s or more after its start, with the words of 1, 2 and 3 windows before it",
        "250 windows were used; left out were 7 without words and 9 without context.",
        "after BrainLLM (Ye et al., 2025)",
    ):
        assert words in text
    assert "trial" not in text.split("### Model")[0]
    assert {"lss", "glover", "cortext"}.isdisjoint(cited_keys(facts))
    none = dataclasses.replace(facts, high_pass=0.0, confounds=(), windows=dataclasses.replace(windows, silent=0, early=0))
    assert "From every series, each vertex or voxel was z-scored" in method_text(none)
    assert "left out were" not in method_text(none)


def test_what_was_done_to_texts_is_told() -> None:
    from bids_brainlm.config import load
    from bids_brainlm.reports.facts import texts_told

    text = method_text(dataclasses.replace(FULL, texts=texts_told(load("brainllm"))))
    assert "All words were in lower case. A prompt of more than 32 tokens was cut to its newest words." in text
    assert "cut to its oldest words" in texts_told(load("brainllm", overrides={"compat.oldest_prompt": "true"}))[1]
    assert texts_told(load("brainllm-small")) == texts_told(load("cortext")) == ()


def test_a_split_in_time_tells_its_purge_and_its_shifts() -> None:
    windows = WindowFacts(3, 1200, 250, 2.0, 4.0, 3, (1, 2, 3))
    text = method_text(dataclasses.replace(FULL, scheme="blocks", purged=41, windows=windows, folds=1))
    assert "Windows of words were split by blocks of time once (576 training" in text
    assert "41 examples that shared a volume with a held-out one" in text
    assert "left out of training and validation." in text
    folded = method_text(dataclasses.replace(FULL, scheme="blocks", purged=41, windows=windows, folds=5))
    assert "by blocks of time in 5 folds" in folded
    assert "left out of training and validation, all folds together." in folded
    assert "under 100 circular shifts of the test windows within runs" in text
    assert "left out of training and validation" not in method_text(FULL)
    assert "under 100 permuted pairings" in method_text(FULL)


def test_categories_that_were_left_out_are_named() -> None:
    text = method_text(dataclasses.replace(FULL, left_out=("animal=dog", 40), folds=5))
    assert "Nothing of animal=dog was trained on: 40 examples left out, all folds together." in text
    assert "was trained on: " not in method_text(FULL)


def test_a_split_that_leaks_says_so() -> None:
    assert LEAKY in method_text(dataclasses.replace(FULL, scheme="leaky-random"))
    assert LEAKY not in method_text(FULL)
