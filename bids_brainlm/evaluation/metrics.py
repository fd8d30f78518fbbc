"""Metrics of generated text: one number a text, whose mean over texts is what tables report.

A *metric* takes n hypotheses and n tuples of references and returns (n,) floats, so that every figure has an interval and a
paired test; corpus-level scores, which have neither, are not given. Of several references the best one counts.

- ``bleu1`` .. ``bleu4``: sentence BLEU (sacrebleu, tokens 13a, lower case, all references, exponential smoothing, effective
  order), 0 to 1. A mean of sentence BLEU is not the corpus BLEU of machine translation papers: do not compare the two.
- ``chrf``: F score of character n-grams, n = 1 .. 6, recall counting four times (sacrebleu), lower case, 0 to 1.
- ``rouge_1``, ``rouge_2``: F1 of the words, pairs of words, in common; ``rouge_l``: F1 of the longest common subsequence of
  words; ``wer``, ``cer``: word and character errors by length of the reference; all on lower-case whole words. ``exact``:
  whether text and reference are the same words; ``contains``: whether the words of the reference stand in the text in a row.
- ``cider``: see `bids_brainlm.evaluation.cider`; its references count together, and it is of one test set.
- ``meteor``, ``bertscore``, ``embedding_similarity``: where WordNet, a masked language model, a sentence encoder are at hand
  (`bids_brainlm.evaluation.resources`).
- ``clipscore``, ``refclipscore``: where a CLIP is, and pictures were seen; see `bids_brainlm.evaluation.clip`.
- ``rouge_1_recall``, ``rouge_l_recall``, and any metric with ``_truncated`` behind its name (`chosen`): as the released code of
  BrainLLM has them, for comparison with its figures. Neither punishes a text for what it says too much.
- ``judge``: what a language model says of text and reference; see `bids_brainlm.evaluation.judge`.
- ``facts``: share of the stimulus's facts that the text names (see `Facts`).

A plug-in needs no class: a function ``(hypotheses, references) -> (n,)`` registered under a name or an entry point
``bids_brainlm.metrics`` is taken as a metric for which higher is better; ``Metric`` says more about it.

>>> get("rouge_l")(["a dog runs"], [("the dog runs fast", "a cat")])
array([0.57142857])
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm import registry
from bids_brainlm.evaluation.cider import cider
from bids_brainlm.evaluation.clip import HIGHEST_REF, WEIGHT, clip_score, ref_clip_score
from bids_brainlm.evaluation.judge import HIGHEST, judged
from bids_brainlm.evaluation.resources import bert_score, embedding_similarity, meteor
from bids_brainlm.language.stimuli import named, words

Array = NDArray[np.float64]
References = Sequence[Sequence[str]]
Labels = NDArray[np.str_]


@dataclass(frozen=True)
class Metric:
    """A function of generated texts and what is to be known about its values.

    Parameters
    ----------
    name : str
    score : callable
        ``(hypotheses, references, **context) -> (n,) float64``.
    direction : {"higher", "lower"}
        Which is better.
    unit : str
        Empty for a plain number.
    low, high : float
        Range of the values.
    reference : str
        What it is and where it comes from.
    context : tuple of str
        Keyword arguments that ``score`` needs besides the texts, of: ``stimuli`` (n,) str, ``facts`` `Facts`, ``frequencies``
        (`bids_brainlm.evaluation.cider.Frequencies`), ``pictures`` (stimulus -> path), ``judge``
        (`bids_brainlm.evaluation.judge.Judge`), and what `bids_brainlm.evaluation.resources.available` finds.
    """

    name: str
    score: Callable[..., Any]
    direction: str = "higher"
    unit: str = ""
    low: float = 0.0
    high: float = 1.0
    reference: str = ""
    context: tuple[str, ...] = ()

    def __call__(self, hypotheses: Sequence[str], references: References, **context: Any) -> Array:
        """Score each text; context that the metric does not need is left out.

        Raises
        ------
        ValueError
            When lengths differ, a text has no reference, context is missing, or the scores are not (n,).
        """
        if len(hypotheses) != len(references) or not all(references):
            raise ValueError(f"{len(hypotheses)} texts and {len(references)} references; expected as many, at least one each")
        missing = [name for name in self.context if context.get(name) is None]
        if missing:
            raise ValueError(f"metric {self.name!r} needs {' and '.join(missing)}")
        given = {name: context[name] for name in self.context}
        scores = np.asarray(self.score(list(hypotheses), [tuple(r) for r in references], **given), dtype=np.float64)
        if scores.shape != (len(hypotheses),):
            raise ValueError(
                f"metric {self.name!r} gave scores of shape {scores.shape} for {len(hypotheses)} texts; expected (n,)"
            )
        return scores


def get(name: str) -> Metric:
    """The registered metric of that name; a bare function is wrapped.

    Raises
    ------
    ConfigError
        When there is none.
    """
    found = registry.metrics.get(name)
    if isinstance(found, Metric):
        return found
    return Metric(name, found, low=-np.inf, high=np.inf, reference=(found.__doc__ or "").strip().partition("\n")[0])


def _add(metric: Metric) -> None:
    registry.metrics.register(metric.name)(metric)


def bleu(hypotheses: Sequence[str], references: References, order: int) -> list[float]:
    """Sentence BLEU up to n-grams of ``order``, 0 to 1."""
    from sacrebleu.metrics.bleu import BLEU  # slow to import, and most commands score nothing

    scorer = BLEU(lowercase=True, max_ngram_order=order, smooth_method="exp", effective_order=True)
    return [scorer.sentence_score(text, list(right)).score / 100 for text, right in zip(hypotheses, references, strict=True)]


def chrf(hypotheses: Sequence[str], references: References) -> list[float]:
    """chrF, 0 to 1, against the reference it is largest for."""
    from sacrebleu.metrics.chrf import CHRF  # as above

    scorer = CHRF(lowercase=True)
    return [scorer.sentence_score(text, list(right)).score / 100 for text, right in zip(hypotheses, references, strict=True)]


def chosen(names: Sequence[str], *, recall_rouge: bool = False, truncated: bool = False) -> list[Metric]:
    """Metrics by name, and those of BrainLLM's released code beside the ones they are variants of.

    Parameters
    ----------
    names : sequence of str
        Registered ones.
    recall_rouge : bool
        Add recalls of ROUGE, where ROUGE is among them.
    truncated : bool
        Add every metric of texts as ``<name>_truncated``, for which a text is cut to as many words as its longest reference has.
    """
    recalls = [f"{name}_recall" for name in names if name in ("rouge_1", "rouge_l")] if recall_rouge else []
    found = [get(name) for name in dict.fromkeys([*names, *recalls])]
    return found + [_truncated(metric) for metric in found if truncated and metric.name not in ("facts", "exact")]


def _truncated(metric: Metric) -> Metric:
    def score(hypotheses: Sequence[str], references: References, **context: Any) -> Array:
        lengths = [max(len(one.split()) for one in right) for right in references]
        cut = [" ".join(text.split()[:n]) for text, n in zip(hypotheses, lengths, strict=True)]
        return metric(cut, references, **context)

    what = f"{metric.reference}; texts cut to the length of the reference"
    return dataclasses.replace(metric, name=f"{metric.name}_truncated", score=score, reference=what)


def _best(one: Callable[[list[str], list[str]], float], hypotheses: Sequence[str], references: References) -> list[float]:
    """A score of two lists of words, against the reference it is largest for."""
    return [max(one(words(text), words(r)) for r in right) for text, right in zip(hypotheses, references, strict=True)]


def _ngram_f1(text: list[str], right: list[str], order: int = 1) -> float:
    own, true = (Counter(zip(*(one[i:] for i in range(order)), strict=False)) for one in (text, right))
    return 2 * (own & true).total() / (own.total() + true.total()) if own and true else 0.0


def _unigram_recall(text: list[str], right: list[str]) -> float:
    # The package that their code calls counts distinct words.
    return len(set(text) & set(right)) / len(set(right)) if right else 0.0


def _lcs_f1(text: list[str], right: list[str]) -> float:
    return 2 * lcs_length(text, right) / (len(text) + len(right)) if text and right else 0.0


def _lcs_recall(text: list[str], right: list[str]) -> float:
    return lcs_length(text, right) / len(right) if right else 0.0


def lcs_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    >>> lcs_length("the dog ran".split(), "the big dog".split())
    2
    """
    row = [0] * (len(b) + 1)
    for item in a:
        previous = row
        row = [0]
        for j, other in enumerate(b):
            row.append(previous[j] + 1 if item == other else max(previous[j + 1], row[j]))
    return row[-1]


def wer(hypotheses: Sequence[str], references: References) -> list[float]:
    """Word error rate against the reference it is smallest for; above 1 where many words are inserted."""
    import jiwer  # as above

    return _fewest(lambda text, right: jiwer.wer(" ".join(right), " ".join(text)), hypotheses, references, len)


def cer(hypotheses: Sequence[str], references: References) -> list[float]:
    """Character error rate, blanks between words included, against the reference it is smallest for."""
    import jiwer  # as above

    def length(text: list[str]) -> int:
        return len(" ".join(text))

    return _fewest(lambda text, right: jiwer.cer(" ".join(right), " ".join(text)), hypotheses, references, length)


def _fewest(
    one: Callable[[list[str], list[str]], float],
    hypotheses: Sequence[str],
    references: References,
    length: Callable[[list[str]], int],
) -> list[float]:
    """Fewest errors of lists of words; jiwer refuses an empty reference, against which all of a text is wrong."""

    def errors(text: list[str], right: list[str]) -> float:
        return float(one(text, right) if right else length(text))

    return [min(errors(words(t), words(r)) for r in right) for t, right in zip(hypotheses, references, strict=True)]


def exact(hypotheses: Sequence[str], references: References) -> list[float]:
    """1 where a text is the words of one of its references."""
    return [float(any(words(text) == words(one) for one in right)) for text, right in zip(hypotheses, references, strict=True)]


def contains(hypotheses: Sequence[str], references: References) -> list[float]:
    """1 where a text has all words of one of its references, one after the other; a reference without words is never there.

    >>> contains(["It is in the park.", "a parking lot"], [("the park",), ("park",)])
    [1.0, 0.0]
    """
    return _best(
        lambda text, right: float(any(right and text[i : i + len(right)] == right for i in range(len(text)))),
        hypotheses,
        references,
    )


@dataclass(frozen=True)
class Facts:
    """What is true of each stimulus, as the words that name it.

    A *factor* (subject, place, category ...) has one *value* a stimulus; a value is named by any of its alternatives, as whole
    words (`bids_brainlm.language.stimuli.named`). The *label* of a value is its first alternative; "" where there is none.

    Parameters
    ----------
    names : mapping of factor to mapping of stimulus to tuple of str
        Alternatives that name the value the stimulus has.

    Raises
    ------
    ValueError
        When a name of one value names another one too, or no word at all: such a text could never be right.

    Examples
    --------
    >>> facts = Facts({"animal": {"1": ("dog", "puppy"), "2": ("cat",)}})
    >>> facts.read(["A puppy sleeps.", "A dog and a cat.", "Dogs."]).tolist()
    [['dog'], [''], ['']]
    """

    names: Mapping[str, Mapping[str, tuple[str, ...]]]

    def __post_init__(self) -> None:
        for factor, values in self.vocabulary.items():
            for label, alternatives in values.items():
                for name in alternatives:
                    if named(name, values) != {label}:
                        raise ValueError(f"{name!r} of the value {label!r} of {factor!r} names {sorted(named(name, values))}")

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, key: str, factors: Sequence[str] | None = None) -> Facts:
        """From a table with one row a stimulus.

        Parameters
        ----------
        frame : DataFrame
            One column a factor; alternatives are separated by ``|``; ``n/a`` or empty where there is no value.
        key : str
            Column that names the stimulus.
        factors : sequence of str, optional
            Columns that are factors; every one but the key and ``split`` when absent.

        Raises
        ------
        ValueError
            When a column is missing or a stimulus has two rows.
        """
        chosen = list(factors) if factors is not None else [c for c in frame.columns if c not in (key, "split")]
        missing = [name for name in (key, *chosen) if name not in frame.columns]
        if missing or not chosen:
            raise ValueError(
                f"facts have no column {', '.join(missing) or 'beside the key'}; columns: {', '.join(frame.columns)}"
            )
        keys = frame[key].astype(str)
        if keys.duplicated().any():
            raise ValueError(f"facts have two rows for {keys[keys.duplicated()].iloc[0]!r} in column {key!r}")
        return cls({factor: dict(zip(keys, map(_alternatives, frame[factor]), strict=True)) for factor in chosen})

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(self.names)

    @property
    def vocabulary(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Factor -> label -> every name of it that occurs."""
        out: dict[str, dict[str, tuple[str, ...]]] = {}
        for factor, stimuli in self.names.items():
            values = out.setdefault(factor, {})
            for names in filter(None, stimuli.values()):
                values[names[0]] = tuple(dict.fromkeys((*values.get(names[0], ()), *names)))
        return out

    def labels(self, stimuli: Sequence[str] | Labels) -> Labels:
        """(n, f) label of each factor of each stimulus; "" where unknown."""
        rows = [[(stimuli_of.get(str(s)) or ("",))[0] for stimuli_of in self.names.values()] for s in stimuli]
        return np.array(rows, dtype=np.str_).reshape(len(rows), len(self.names))

    def read(self, texts: Sequence[str]) -> Labels:
        """(n, f) label of the one value of each factor that a text names; "" for none, or for several."""
        vocabularies = list(self.vocabulary.values())
        rows = [[_only(named(text, values)) for values in vocabularies] for text in texts]
        return np.array(rows, dtype=np.str_).reshape(len(rows), len(vocabularies))

    def hits(self, predicted: Labels, stimuli: Sequence[str] | Labels) -> Array:
        """(n, f) 1 where the predicted label is right, 0 where not, nan where the truth is not known."""
        truth = self.labels(stimuli)
        return np.where(truth == "", np.nan, predicted == truth)


def _alternatives(cell: Any) -> tuple[str, ...]:
    text = "" if pd.isna(cell) or str(cell) == "n/a" else str(cell)
    return tuple(name.strip() for name in text.split("|") if name.strip())


def _only(labels: set[str]) -> str:
    return next(iter(labels)) if len(labels) == 1 else ""


def facts_named(hypotheses: Sequence[str], references: References, stimuli: Sequence[str] | Labels, facts: Facts) -> Array:
    """(n,) share of the known factors of the stimulus whose value, and no other, a text names; nan where none is known."""
    return mean_known(facts.hits(facts.read(hypotheses), stimuli))


def mean_known(hits: Array) -> Array:
    """(n,) mean over the known factors of (n, f); nan where none is known."""
    known = np.isfinite(hits).sum(axis=1)
    mean: Array = np.divide(np.nansum(hits, axis=1), known, out=np.full(len(hits), np.nan), where=known > 0)
    return mean


for _order in range(1, 5):
    _add(
        Metric(
            f"bleu{_order}", partial(bleu, order=_order), reference=f"Sentence BLEU-{_order} (Papineni et al. 2002; sacrebleu)"
        )
    )
_add(Metric("chrf", chrf, reference="chrF (Popović 2015; sacrebleu)"))
for _order in (1, 2):
    _add(Metric(f"rouge_{_order}", partial(_best, partial(_ngram_f1, order=_order)), reference=f"ROUGE-{_order} F1 (Lin 2004)"))
_add(Metric("rouge_l", partial(_best, _lcs_f1), reference="ROUGE-L F1 (Lin 2004)"))
_add(Metric("rouge_1_recall", partial(_best, _unigram_recall), reference="Recall of ROUGE-1, of distinct words"))
_add(Metric("rouge_l_recall", partial(_best, _lcs_recall), reference="Recall of ROUGE-L"))
_add(Metric("meteor", meteor, reference="METEOR (Banerjee & Lavie 2005; NLTK)", context=("wordnet",)))
_add(Metric("bertscore", bert_score, low=-1.0, reference="F1 of BERTScore (Zhang et al. 2020)", context=("bert",)))
_SIMILARITY = "Cosine of sentence embeddings (Reimers & Gurevych 2019)"
_add(Metric("embedding_similarity", embedding_similarity, low=-1.0, reference=_SIMILARITY, context=("encoder",)))
_add(Metric("cider", cider, high=10.0, reference="CIDEr-D (Vedantam et al. 2015)", context=("frequencies",)))
_PICTURES = ("stimuli", "pictures", "clip")
_CLIP = "CLIPScore of text and picture (Hessel et al. 2021)"
_add(Metric("clipscore", clip_score, high=WEIGHT, reference=_CLIP, context=_PICTURES))
_REF_CLIP = "Harmonic mean of CLIPScore and likeness to a reference (Hessel et al. 2021)"
_add(Metric("refclipscore", ref_clip_score, high=HIGHEST_REF, reference=_REF_CLIP, context=_PICTURES))
_add(Metric("judge", judged, high=HIGHEST, reference="Score of a language model, both orders", context=("judge",)))
_add(Metric("wer", wer, direction="lower", high=np.inf, reference="Word error rate (jiwer)"))
_add(Metric("cer", cer, direction="lower", high=np.inf, reference="Character error rate (jiwer)"))
_add(Metric("exact", exact, reference="Share of texts that equal a reference word for word"))
_add(Metric("contains", contains, reference="Share of texts in which a reference stands word for word"))
_add(Metric("facts", facts_named, reference="Share of facts named, by whole words", context=("stimuli", "facts")))
