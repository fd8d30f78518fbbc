"""METEOR and BERTScore by hand; what is not there is said, not missed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bids_brainlm.errors import MissingResourceError
from bids_brainlm.evaluation import resources as room
from bids_brainlm.evaluation.metrics import get


def test_meteor_by_hand(resources: Mapping[str, Any]) -> None:
    """Three matches (one a synonym, one by its stem) in two runs of words, of 4 and 6 words."""
    precision, recall = 3 / 4, 3 / 6
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    expected = mean * (1 - 0.5 * (2 / 3) ** 3)
    found = get("meteor")(["pup sleeping tall roof"], [("the dog sleeps on the roof",)], wordnet=resources["wordnet"])
    assert found == pytest.approx([expected])
    assert get("meteor")(["", "cat"], [("dog",), ("dog", "a cat")], wordnet=resources["wordnet"])[0] == 0


def test_bert_score_is_the_greedy_match_of_tokens(resources: Mapping[str, Any]) -> None:
    bert, texts = resources["bert"], ("a red bird sings", "the grey bird")
    states = []
    for text in texts:
        ids = bert.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            rows = bert.model(ids, output_hidden_states=True).hidden_states[bert.layer][0].numpy().astype(float)
        states.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    a, b = states
    # The first and last token begin and end a text: they may be matched to, but count nothing themselves.
    precision = np.mean([max(one @ other for other in b) for one in a[1:-1]])
    recall = np.mean([max(one @ other for other in a) for one in b[1:-1]])
    found = get("bertscore")([texts[0]], [(texts[1],)], bert=bert)
    assert found == pytest.approx([2 * precision * recall / (precision + recall)], rel=1e-6)
    assert get("bertscore")(["", texts[0]], [("a",), texts], bert=bert) == pytest.approx([0.0, 1.0])


def test_the_recommended_layer_is_taken(bert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert room.load_states(bert_folder).layer == 2  # round(0.75 * 2)
    monkeypatch.setitem(room.LAYERS, ("bert", 2), 1)
    assert room.load_states(bert_folder).layer == 1


def test_what_is_lacking_is_said_with_what_would_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    assert room.available() == {}
    assert "nltk.downloader wordnet" in room.lacking(get("meteor").context, {})
    assert "--bertscore" in room.lacking(get("bertscore").context, {})
    assert room.lacking(get("meteor").context, {"wordnet": object()}) == ""
    assert room.lacking(get("facts").context, {}) == ""
    with pytest.raises(MissingResourceError, match="no model is there"):
        room.available(["bert"], str(tmp_path))


def test_nothing_is_loaded_that_no_metric_wants(monkeypatch: pytest.MonkeyPatch, bert_folder: Path) -> None:
    monkeypatch.setattr(room, "load_wordnet", lambda: pytest.fail("WordNet was looked for"))
    assert list(room.available(["bert"], str(bert_folder))) == ["bert"]
