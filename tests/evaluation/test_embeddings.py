"""Embeddings are what modules.json lists, text by text; bags of words are counted by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from transformers import AutoModel, AutoTokenizer

from bids_brainlm.errors import InputError, MissingResourceError
from bids_brainlm.evaluation.embeddings import bag_of_words, embed, load_encoder

TEXTS = ["a red bird sings on the roof", "dogs", "the man rides a grey horse", "dogs", "two cats"]
PATH = "sentence_transformers.models."


def model(source: Path, folder: Path, pooling: dict[str, Any] | None, normalise: bool = True, longest: int = 64) -> Path:
    """A copy of a transformer as sentence-transformers writes it."""
    shutil.copytree(source, folder)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")] + [("2_Normalize", "Normalize")] * normalise
    entries = [{"idx": i, "name": str(i), "path": path, "type": PATH + kind} for i, (path, kind) in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": longest, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def flags(on: str) -> dict[str, Any]:
    return {"word_embedding_dimension": 32, **{f"pooling_mode_{m}_{u}": m == on for m, u in KINDS}}


KINDS = (("cls", "token"), ("mean", "tokens"), ("max", "tokens"))
BY_HAND = {"cls": lambda s: s[0], "mean": lambda s: s.mean(0), "max": lambda s: s.max(0).values}


@pytest.mark.parametrize("pooling", list(BY_HAND))
@pytest.mark.parametrize("normalise", [True, False])
def test_each_text_is_pooled_by_itself(pooling: str, normalise: bool, bert_folder: Path, tmp_path: Path) -> None:
    folder = model(bert_folder, tmp_path / "model", flags(pooling), normalise)
    found = embed(TEXTS, folder, batch_size=2)
    tokenizer, bert = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    for text, row in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            one = BY_HAND[pooling](bert(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]).numpy()
        np.testing.assert_allclose(row, one / np.linalg.norm(one) if normalise else one, atol=1e-6)
    np.testing.assert_array_equal(found[1], found[3])


def test_a_bare_transformer_is_pooled_by_the_mean_and_scaled(bert_folder: Path, tmp_path: Path) -> None:
    listed = model(bert_folder, tmp_path / "model", {"pooling_mode": "mean"})
    np.testing.assert_allclose(embed(TEXTS, bert_folder), embed(TEXTS, listed), atol=1e-6)


def test_long_texts_lose_their_end(bert_folder: Path, tmp_path: Path) -> None:
    folder = model(bert_folder, tmp_path / "model", flags("mean"), longest=6)
    np.testing.assert_array_equal(*embed(["a red bird sings on the roof", "a red bird sings"], folder))


def test_what_cannot_be_used_is_refused(bert_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingResourceError, match="no model is there"):
        embed(TEXTS, tmp_path / "nowhere")
    odd = model(bert_folder, tmp_path / "odd", {"pooling_mode": "lasttoken"})
    with pytest.raises(InputError, match="pooling by lasttoken"):
        load_encoder(odd)
    both = model(bert_folder, tmp_path / "both", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True})
    with pytest.raises(InputError, match="cls and mean"):
        load_encoder(both)
    (odd / "modules.json").write_text(json.dumps([{"path": "", "type": PATH + "Dense"}]))
    with pytest.raises(InputError, match="module Dense"):
        load_encoder(odd)
    (odd / "modules.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        load_encoder(odd)


def test_bags_of_words_are_those_of_scikit_learn() -> None:
    training, new = [*TEXTS, "the dogs ride"], ["a bird and two dogs on dogs", "zebra"]
    library = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b").fit(sorted(set(training)))
    np.testing.assert_allclose(bag_of_words(new, training), library.transform(new).toarray(), atol=1e-6)
    assert not bag_of_words(["zebra"], training).any()
