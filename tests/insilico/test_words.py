"""Words are scored where texts say them, by the tokens of their phrases alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import logsumexp

from bids_brainlm.core.types import Prompt
from bids_brainlm.insilico.drive import nll_of_driven
from bids_brainlm.insilico.words import framed, words_of
from bids_brainlm.language.render import render
from bids_brainlm.models.fusion import collate
from bids_brainlm.stages.decoder import Decoder

from .conftest import V, made

TEXTS = [
    "A red bird sits in the park.",
    "On the fence a red dog sits.",
    "A wooden bird sits on the fence.",
    "In the park a wooden bird runs.",
]
VOCABULARY = {"animal": {"bird": ("bird",), "dog": ("dog", "hound")}, "place": {"park": ("park",), "fence": ("fence",)}}


def test_a_phrase_has_what_always_stands_before_the_name() -> None:
    phrases = {word.label: word.phrases for word in words_of(VOCABULARY, TEXTS)}
    assert [phrase.lower() for phrase in phrases["park"] + phrases["fence"]] == ["in the park", "on the fence"]
    assert phrases["bird"] == ("bird",)
    # What no training text has stands for itself.
    assert phrases["dog"][1] == "hound"


@pytest.mark.parametrize("kind", ["parcels", "marked"])
def test_only_the_phrase_is_scored(decoders: Callable[[str], Decoder], kind: str) -> None:
    decoder, bases = decoders(kind), made()
    words = words_of({"animal": VOCABULARY["animal"]}, ["A red bird", "The bird", "Two dog", "a dog"])
    n_slots = decoder.model.n_tokens
    found = framed(words, bases, TEXTS, decoder.text, n_slots, "chat")
    # The references of the bases say "A bird".
    assert {frame["animal"] for frame in found.frames} == {"A"}
    said = [decoder.text.decode(text.ids[text.train]).strip() for text in found.texts[0]]
    assert said == [phrase for word in words for phrase in word.phrases]
    nll = nll_of_driven(decoder.model, bases, np.zeros((1, V)), [0.0], found.texts)[0, 0]
    for base in range(len(bases)):
        for k, phrase in enumerate(said):
            whole = render(Prompt("What?", f"A {phrase}"), decoder.text, n_slots, "chat")
            kept = len(found.texts[base][k].ids)
            vertices = np.nan_to_num(bases.gather([base]), nan=0.0)
            vertices = np.where(np.isfinite(bases.gather([base])), vertices, decoder.model.features.mean.numpy())  # type: ignore[union-attr, operator]
            batch = collate([whole], vertices)
            # Log-probabilities of the tokens of the phrase, from the whole text and its end.
            logits, targets, _ = decoder.model(batch)
            each = logits.log_softmax(-1)[np.arange(len(targets)), targets].detach().numpy()
            trained = np.flatnonzero(whole.train)
            part = (trained >= int(np.flatnonzero(found.texts[base][k].train)[0])) & (trained < kept)
            assert nll[base, k] == pytest.approx(-each[part].sum(), abs=1e-4)


def test_a_word_is_as_likely_as_all_its_phrases(decoders: Callable[[str], Decoder]) -> None:
    decoder = decoders("parcels")
    words = words_of({"animal": VOCABULARY["animal"]}, ["A red bird", "The bird", "Two dog", "a dog"])
    found = framed(words, made(), TEXTS, decoder.text, 3, "chat")
    nll = np.array([[1.0, 2.0, 0.5]])
    np.testing.assert_allclose(found.log_probability(nll), [[-1.0, logsumexp([-2.0, -0.5])]])


def test_a_base_without_such_a_text_borrows_a_frame(decoders: Callable[[str], Decoder]) -> None:
    decoder = decoders("parcels")
    words = words_of({"place": VOCABULARY["place"]}, TEXTS)
    frames = framed(words, made(), TEXTS, decoder.text, 3, "chat").frames
    assert {frame["place"] for frame in frames} <= {"A red bird sits", "", "A wooden bird sits"}
    # Where no text has any, words begin the answer.
    assert framed(words, made(), [], decoder.text, 3, "chat").frames[0]["place"] == ""
