"""Stories are as long as asked for, at the rate of speech, with times that follow each other."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainlm.core.windows import Transcript, texts_of
from bids_brainlm.simulation.speech import Speed, story


def test_times_make_a_transcript_at_the_rate_of_speech() -> None:
    spoken = story("one", 150, np.random.default_rng(0))
    transcript = Transcript("one", tuple(word.text for word in spoken.words), spoken.onset, spoken.onset + spoken.duration)
    assert 135 < spoken.seconds <= 150
    assert len(spoken.words) / spoken.seconds == pytest.approx(2.5, abs=0.15)
    assert (spoken.onset[1:] - transcript.offset[:-1] >= -1e-9).all()
    assert " ".join(texts_of(transcript, 2.0)).split() == [word.text for word in spoken.words]


def test_a_story_says_its_passages_and_nothing_else() -> None:
    spoken = story("one", 60, np.random.default_rng(1))
    said = [word for passage in spoken.passages for sentence in passage.sentences for word in sentence]
    assert tuple(said) == spoken.words


def test_longer_words_take_longer_and_pauses_follow_sentences() -> None:
    spoken = story("one", 60, np.random.default_rng(2), speed=Speed(spread=0.0))
    for word, duration in zip(spoken.words, spoken.duration, strict=True):
        assert duration == pytest.approx(0.14 + 0.045 * len(word.text), abs=1e-3)
    gaps = spoken.onset[1:] - spoken.onset[:-1] - spoken.duration[:-1]
    n_sentences = sum(len(passage.sentences) for passage in spoken.passages)
    assert (gaps > 0.19).sum() == n_sentences - 1


def test_no_time_for_a_sentence_is_refused() -> None:
    with pytest.raises(ValueError, match="no sentence"):
        story("one", 0.5, np.random.default_rng(0))
