"""Texts as vectors: what linear readouts predict from responses, and what texts are compared by.

- *Embeddings* come from a folder of a sentence-transformers model that is on this machine: a transformer, a pooling of its last
  hidden states over the tokens of a text, and a scaling to length 1, as ``modules.json`` lists them. Such a folder that holds a
  transformer alone is pooled by the mean and scaled.
- A *bag of words* needs no model: which words of the training texts a text has, rare words counting more (tf-idf), scaled to
  length 1. Texts that share no word are then unlike each other whatever they mean.

Neither sees a response, nor a bag of words a test text before it is compared. Nothing is fetched; no code of a folder runs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from bids_brainlm.errors import InputError, MissingResourceError
from bids_brainlm.language.stimuli import rarity, words
from bids_brainlm.models.backbones import quiet

Floats = NDArray[np.float32]

POOLINGS = ("cls", "mean", "max")

_EXPECTED = "a folder of a sentence-transformers model: modules.json, config.json, a tokenizer and *.safetensors"


@dataclass(frozen=True, eq=False)
class Encoder:
    """A transformer that reads whole texts, and how its hidden states become one vector.

    Parameters
    ----------
    tokenizer, model : Any
        Of transformers.
    pooling : {"cls", "mean", "max"}
        Over the tokens of a text.
    normalise : bool
        Scale vectors to length 1.
    max_tokens : int
        Longer texts lose their end.
    """

    tokenizer: Any
    model: Any
    pooling: str = "mean"
    normalise: bool = True
    max_tokens: int = 512


def embed(texts: Sequence[str], folder: str | Path, batch_size: int = 32) -> Floats:
    """Embeddings of texts by a model on this machine.

    Parameters
    ----------
    texts : sequence (n) of str
    folder : path
        Of a sentence-transformers model.
    batch_size : int
        Texts encoded together, those of like length.

    Returns
    -------
    (n, D) float32

    Raises
    ------
    MissingResourceError
        When there is no such model.
    InputError
        When it has a module other than those above.
    """
    return encode(load_encoder(folder), texts, batch_size)


def encode(encoder: Encoder, texts: Sequence[str], batch_size: int = 32) -> Floats:
    """(n, D) embeddings of n texts by an encoder, ``batch_size`` texts of like length together."""
    unique = sorted(set(texts), key=lambda text: (len(text), text))
    parts = [_encoded(encoder, unique[i : i + batch_size]) for i in range(0, len(unique), batch_size)]
    place = {text: i for i, text in enumerate(unique)}
    return np.concatenate(parts)[[place[text] for text in texts]]


def load_encoder(folder: str | Path) -> Encoder:
    """The encoder that lies in a folder; see `embed` for what is refused."""
    folder = Path(folder)
    modules = _modules(folder)
    transformer = folder / modules.get("Transformer", "")
    tokenizer, model = open_transformer(transformer)
    limits = _json(transformer / "sentence_bert_config.json")
    longest = limits.get("max_seq_length") or getattr(model.config, "max_position_embeddings", 512)
    pooling = _pooling(folder / modules["Pooling"]) if "Pooling" in modules else "mean"
    return Encoder(tokenizer, model, pooling, not modules or "Normalize" in modules, int(longest))


def open_transformer(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and weights of an encoder, in evaluation mode.

    Raises
    ------
    MissingResourceError
        When they are not there or cannot be read.
    """
    if not (folder / "config.json").is_file():
        raise MissingResourceError(
            "no model is there", folder, expected=_EXPECTED, remedy="download it once, and name its folder"
        )
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            model = AutoModel.from_pretrained(folder, use_safetensors=True, **options)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise MissingResourceError(f"the model cannot be read ({reason})", folder, expected=_EXPECTED) from error
    return tokenizer, model.eval()


def _modules(folder: Path) -> dict[str, str]:
    """Kind of each module -> its folder; empty where none are listed."""
    path = folder / "modules.json"
    listed = _json(path) or []
    found = {str(entry["type"]).rpartition(".")[2]: str(entry["path"]) for entry in listed}
    unknown = sorted(set(found) - {"Transformer", "Pooling", "Normalize"})
    if unknown:
        raise InputError(f"the model has the module {unknown[0]}", path, expected="Transformer, Pooling and Normalize alone")
    return found


def _pooling(folder: Path) -> str:
    path = folder / "config.json"
    config = _json(path)
    names = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"}
    flags = [key.removeprefix("pooling_mode_") for key, on in config.items() if key.startswith("pooling_mode_") and on]
    found = [names.get(flag, flag) for flag in flags] or [str(config.get("pooling_mode", "mean"))]
    if len(found) != 1 or found[0] not in POOLINGS:
        raise InputError(f"pooling by {' and '.join(found)}", path, expected=f"one of {', '.join(POOLINGS)}")
    return str(found[0])


def _json(path: Path) -> Any:
    """Content of a file; an empty dictionary where there is none."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"the file cannot be read ({error})", path, expected="JSON") from error


@torch.no_grad()
def _encoded(encoder: Encoder, texts: Sequence[str]) -> Floats:
    """(b, D) vectors of one batch."""
    given = encoder.tokenizer(list(texts), padding=True, truncation=True, max_length=encoder.max_tokens, return_tensors="pt")
    states = encoder.model(**given).last_hidden_state
    mask = given["attention_mask"][..., None].bool()
    if encoder.pooling == "cls":
        vectors = states[:, 0]
    elif encoder.pooling == "max":
        vectors = states.masked_fill(~mask, -torch.inf).amax(dim=1)
    else:
        vectors = states.masked_fill(~mask, 0.0).sum(dim=1) / mask.sum(dim=1)
    if encoder.normalise:
        vectors = torch.nn.functional.normalize(vectors, dim=1)
    return np.asarray(vectors.float().numpy(), dtype=np.float32)


def bag_of_words(texts: Sequence[str], training: Sequence[str]) -> Floats:
    """Bags of words of texts, weighed by how rare the words are in training texts.

    Parameters
    ----------
    texts : sequence (n) of str
    training : sequence of str
        Distinct ones count; their words are the vocabulary.

    Returns
    -------
    (n, W) float32
        Rows of length 1; 0 where no word is known.

    Examples
    --------
    >>> bag_of_words(["the dog", "a newt"], ["the dog", "the cat"]).round(2)
    array([[0.  , 0.81, 0.58],
           [0.  , 0.  , 0.  ]], dtype=float32)
    """
    known = sorted(set(training))
    weights = rarity([words(text) for text in known])
    column = {word: i for i, word in enumerate(sorted(weights))}
    out = np.zeros((len(texts), len(column)), dtype=np.float32)
    for row, text in zip(out, texts, strict=True):
        for word, n in Counter(words(text)).items():
            if word in column:
                row[column[word]] = n
    # Plus 1, so that a word that is everywhere still counts.
    out *= np.array([weights[word] + 1 for word in column], dtype=np.float32)
    length = np.linalg.norm(out, axis=1, keepdims=True)
    return np.asarray(np.divide(out, length, out=np.zeros_like(out), where=length > 0))
