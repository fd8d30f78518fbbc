"""What things are called and how they are marked in reports: titles of metrics; label, colour and marker of each condition."""

from __future__ import annotations

from bids_brainlm.evaluation.baselines import MINUS
from bids_brainlm.evaluation.diversity import FIGURES
from bids_brainlm.evaluation.table import TEXT_ONLY
from bids_brainlm.evaluation.zero_shot import D_PRIME, FALSE_ALARMS, HITS

BLUE, ORANGE, GREY, GREEN, PURPLE, BLACK = "#0072B2", "#D55E00", "#8a8a8a", "#009E73", "#CC79A7", "#222222"

SERIES = {
    "true": ("true brain", BLUE, "o"),
    "permuted": ("permuted brain", ORANGE, "s"),
    "none": ("no brain", GREY, "D"),
    "ridge": ("ridge readout", GREEN, "^"),
    "logistic": ("logistic readout", PURPLE, "v"),
    "observer": ("observer", BLACK, "*"),
    "nearest_text": ("nearest text", GREEN, "<"),
    "nearest_response": ("nearest response", PURPLE, ">"),
}
"""Condition or readout -> label, colour, marker."""

TITLES = {
    "facts": "Facts named",
    "bleu1": "BLEU-1",
    "bleu2": "BLEU-2",
    "bleu3": "BLEU-3",
    "bleu4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "wer": "Word error rate",
    "exact": "Exact match",
    "nll_per_token": "NLL (nats a token)",
    "nll": "NLL (nats a text)",
    "nll_permuted_minus_true": "Gain from the brain (nats a text)",
    "nll_pairwise": "Pairwise accuracy",
    "nll_top1": "Own brain is the likeliest",
    "nll_top10": "Own brain among the ten likeliest",
    "nll_identification": "Own text among two",
    "information_bits": "Information (bits a text)",
    "nll_calibrated": "NLL, calibrated (nats a text)",
    "temperature": "Temperature of calibration",
    "readout_pairwise": "Pairwise accuracy of the readout",
    "readout_identification": "2-way identification",
    "readout_top10": "Among the ten nearest",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "chrf": "chrF",
    "cer": "Character error rate",
    "cider": "CIDEr-D",
    "judge": "Language model as a judge",
    "clipscore": "CLIPScore",
    "refclipscore": "RefCLIPScore",
    "embedding_similarity": "Similarity of embeddings",
    "distinct_1": "Distinct words",
    "distinct_2": "Distinct pairs of words",
    "distinct_texts": "Distinct texts",
    "length_ratio": "Length by that of the references",
    "copied": "Copies of training texts",
    "meteor": "METEOR",
    "bertscore": "BERTScore",
    HITS: "Left-out categories named where they are",
    FALSE_ALARMS: "Left-out categories named where they are not",
    D_PRIME: "d' of left-out categories",
    "surprise_slope_pairwise": "Pairwise accuracy by a nat a token of surprise",
    "surprise_slope_specificity": "Specificity by a nat a token of surprise",
}
"""Metric -> words for people; `title` makes them up for others."""

OPEN_ENDED = {
    "nll_per_token": "lower is better",
    "wer": "lower is better",
    "wer_truncated": "lower is better",
    "cer": "lower is better",
    "cer_truncated": "lower is better",
    "cider": "0 to 10: higher is better",
    "cider_truncated": "0 to 10: higher is better",
    "judge": "0 to 4: higher is better",
    "judge_truncated": "0 to 4: higher is better",
}
"""Metrics that get a panel of their own, as their scale is not 0 to 1 -> what is said of it."""

ZERO_SHOT = (HITS, FALSE_ALARMS, D_PRIME)
"""Figures of categories that were left out of training: a figure of their own."""

INFORMATION = ("information_bits", "nll_calibrated", "temperature")
"""What the brain adds to a text-only model, in units of its own."""

ELSEWHERE = (
    *("nll", "nll_permuted_minus_true", "surprise_slope_pairwise", "surprise_slope_specificity"),
    *(*FIGURES, *ZERO_SHOT, *INFORMATION),
)
"""Metrics that the figure of metrics does not show: they have no scale in common with any other, or no better and worse."""


WITH_CHANCE = ("facts", "readout", "nll_pairwise", "nll_top", "nll_identification")
"""Beginnings of metrics that are compared with permutations: the mean of these is chance."""


def title(metric: str) -> str:
    """Name of a metric for people.

    >>> title("bleu1"), title("facts_subject"), title("my_metric")
    ('BLEU-1', 'Facts: subject', 'My metric')
    """
    if metric.startswith("facts_"):
        return f"Facts: {metric.removeprefix('facts_').replace('_', ' ')}"
    for ending, what in (("_truncated", "texts cut to the reference"), ("_recall", "recall alone")):
        if metric.endswith(ending):
            return f"{title(metric.removesuffix(ending))}, {what}"
    return TITLES.get(metric) or metric.replace("_", " ").capitalize()


def heading(condition: str) -> str:
    """Name of a condition for the head of a column.

    >>> heading("true"), heading("text_only"), heading("true_minus_nearest_text")
    ('True brain', 'Text-only model', 'Decoder minus nearest text')
    """
    if condition.startswith(MINUS):
        return f"Decoder minus {heading(condition.removeprefix(MINUS)).lower()}"
    if condition == TEXT_ONLY:
        return "Text-only model"
    return SERIES[condition][0].capitalize() if condition in SERIES else condition
