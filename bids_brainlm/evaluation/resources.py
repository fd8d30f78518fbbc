"""Metrics that need more than the package: WordNet, or the weights of a model, on this machine.

What is not there is no error: the metric is not run, and the outputs say so with what would enable it (`ENABLED_BY`). Nothing is
ever fetched.

- METEOR (Banerjee & Lavie 2005; NLTK, alpha .9, beta 3, gamma .5): words matched as they are, by their stems, as synonyms; the
  harmonic mean of precision and recall, recall counting nine times as much, less up to half for words in another order. NLTK
  looks for synonyms by the stem: *sofa* is found for *couch*, but *movie*, of the stem *movi*, not for *film*.
- BERTScore (Zhang et al. 2020): every token of one text matched to the token of the other with the most similar hidden state;
  F1 of precision and recall, the tokens that begin and end a text counting nothing. Neither idf weights nor rescaling, so that a
  text's score depends on no other text. The layer is the one that Zhang et al. recommend for a model of that kind and depth.
- Embedding similarity: the cosine of the sentence embeddings (`bids_brainlm.evaluation.embeddings`) of two texts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.errors import MissingResourceError
from bids_brainlm.evaluation.clip import load_clip
from bids_brainlm.language.stimuli import words

Array = NDArray[np.float64]
References = Sequence[Sequence[str]]
Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Gives (n, D) embeddings of n texts."""

ENABLED_BY = {
    "wordnet": "WordNet where NLTK looks for it (python -m nltk.downloader wordnet, or a folder named by NLTK_DATA)",
    "bert": "the folder of a masked language model (--bertscore)",
    "encoder": "the folder of a sentence-transformers model (--embeddings)",
    "clip": "the folder of a CLIP model (--clip)",
    "pictures": "a picture below stimuli/ for the stim_file of every test stimulus",
    "judge": "a language model on this machine (--judge)",
    "frequencies": "the references of a whole test set",
}
"""What a metric may need -> what gives it."""

LAYERS = {
    ("bert", 12): 9,
    ("bert", 24): 18,
    ("roberta", 6): 5,
    ("roberta", 12): 10,
    ("roberta", 24): 17,
    ("distilbert", 6): 5,
    ("xlm-roberta", 12): 9,
    ("xlm-roberta", 24): 17,
    ("deberta", 48): 40,
}
"""Kind of model and number of its layers -> the layer whose states agree best with human judgement (Zhang et al. 2020)."""


@dataclass(frozen=True, eq=False)
class TokenStates:
    """Hidden states of the tokens of a text, by a masked language model.

    Parameters
    ----------
    tokenizer, model : Any
        Of transformers.
    layer : int
        Whose states are taken; 0 are the embeddings.
    """

    tokenizer: Any
    model: Any
    layer: int

    def __call__(self, text: str) -> tuple[Array, NDArray[np.bool_]]:
        """(L, D) states of length 1, and (L,) which of the tokens are words of the text."""
        import torch  # slow to import, and most commands score nothing

        given = self.tokenizer(
            text, truncation=True, max_length=self._longest, return_special_tokens_mask=True, return_tensors="pt"
        )
        special = given.pop("special_tokens_mask")[0].bool().numpy()
        with torch.no_grad():
            states = self.model(**given, output_hidden_states=True).hidden_states[self.layer][0]
        return torch.nn.functional.normalize(states.double(), dim=1).numpy(), ~special

    @property
    def _longest(self) -> int:
        # Models of the RoBERTa family count their positions from 2.
        return int(getattr(self.model.config, "max_position_embeddings", 512)) - 2


def available(
    wanted: Iterable[str] = tuple(ENABLED_BY), bertscore: str = "", embeddings: str = "", clip: str = ""
) -> dict[str, Any]:
    """What is there of `ENABLED_BY`, to be given to metrics as keyword arguments.

    Parameters
    ----------
    wanted : iterable of str
        What metrics need; nothing else is loaded.
    bertscore : str
        Folder of a masked language model; empty for none.
    embeddings : str
        Folder of a sentence-transformers model; empty for none.
    clip : str
        Folder of a CLIP model; empty for none.

    Raises
    ------
    MissingResourceError
        When a folder is named and holds no model, or WordNet is there but not whole.
    """
    load: dict[str, Callable[[], Any]] = {
        "wordnet": load_wordnet,
        "bert": lambda: load_states(Path(bertscore)) if bertscore else None,
        "encoder": lambda: load_encoder(Path(embeddings)) if embeddings else None,
        "clip": lambda: load_clip(Path(clip)) if clip else None,
    }
    found = {name: load[name]() for name in load if name in wanted}
    return {name: thing for name, thing in found.items() if thing is not None}


def load_wordnet() -> Any:
    """WordNet as NLTK reads it; None where NLTK does not find it.

    Raises
    ------
    MissingResourceError
        When files of it are missing.
    """
    # Here, because NLTK takes more than a second.
    import nltk
    from nltk.corpus import wordnet

    for name in ("corpora/wordnet", "corpora/wordnet.zip"):
        try:
            place = nltk.data.find(name)
        except LookupError:
            continue
        try:
            wordnet.ensure_loaded()
        except OSError as error:
            expected = "all files of WordNet that NLTK reads, lexnames and index.sense too"
            remedy = "see docs/how-to/metrics.md, or take WordNet away: its metrics are then not run"
            raise MissingResourceError(f"WordNet is not whole ({error})", str(place), expected=expected, remedy=remedy) from error
        return wordnet
    return None


def load_states(folder: Path) -> TokenStates:
    """The masked language model of a folder."""
    from bids_brainlm.evaluation.embeddings import open_transformer  # imports torch

    tokenizer, model = open_transformer(folder)
    depth = int(model.config.num_hidden_layers)
    return TokenStates(tokenizer, model, LAYERS.get((model.config.model_type, depth), round(0.75 * depth)))


def load_encoder(folder: Path) -> Encode:
    """What gives the sentence embeddings of texts by the model of a folder."""
    from bids_brainlm.evaluation import embeddings  # imports torch

    # One text at a time: what others a batch holds changes the last digits of a vector.
    return functools.partial(embeddings.encode, embeddings.load_encoder(folder), batch_size=1)


def meteor(hypotheses: Sequence[str], references: References, wordnet: Any) -> list[float]:
    """METEOR against the reference it is largest for."""
    from nltk.translate.meteor_score import single_meteor_score  # as above

    return [
        max(float(single_meteor_score(words(one), words(text), wordnet=wordnet)) for one in right)
        for text, right in zip(hypotheses, references, strict=True)
    ]


def bert_score(hypotheses: Sequence[str], references: References, bert: TokenStates) -> list[float]:
    """F1 of BERTScore against the reference it is largest for; 0 for a text without a word."""
    states = functools.lru_cache(maxsize=4096)(bert)
    return [
        max(_matched(states(text), states(one)) for one in right) for text, right in zip(hypotheses, references, strict=True)
    ]  # fmt: skip


def _matched(text: tuple[Array, NDArray[np.bool_]], right: tuple[Array, NDArray[np.bool_]]) -> float:
    likeness = text[0] @ right[0].T
    if not text[1].any() or not right[1].any():
        return 0.0
    precision, recall = likeness.max(axis=1)[text[1]].mean(), likeness.max(axis=0)[right[1]].mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall > 0 else 0.0


def embedding_similarity(hypotheses: Sequence[str], references: References, encoder: Encode) -> list[float]:
    """Cosine of the sentence embeddings of a text and of the reference it is most like; 0 where a vector is 0."""
    every = sorted({*hypotheses, *(one for right in references for one in right)})
    vectors = encoder(every).astype(np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = dict(zip(every, np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0), strict=True))
    found = [max(float(unit[text] @ unit[one]) for one in right) for text, right in zip(hypotheses, references, strict=True)]
    return [min(max(cosine, -1.0), 1.0) for cosine in found]  # rounding


def lacking(context: Sequence[str], resources: Mapping[str, Any]) -> str:
    """What would enable a metric with that context; empty where everything is there, or the package itself gives it."""
    missing = [ENABLED_BY[name] for name in context if name in ENABLED_BY and name not in resources]
    return f"needs {' and '.join(missing)}" if missing else ""
