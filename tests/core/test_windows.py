"""Windows of words and their volumes, against loops over words and volumes."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainlm.core.windows import Transcript, chunks, rows_of, texts_of, window_of


def story(onsets, name="hare"):
    onsets = np.asarray(onsets, dtype=float)
    return Transcript(name, tuple(f"w{i}" for i in range(len(onsets))), onsets, onsets + 0.1)


def test_every_word_stands_in_one_window_and_in_order() -> None:
    rng = np.random.default_rng(0)
    told = story(np.sort(rng.uniform(0, 60, 150)))
    for seconds in (0.7, 2.0, 2.0045, 61.0):
        texts = texts_of(told, seconds)
        assert " ".join(text for text in texts if text).split() == list(told.words)
        for k, text in enumerate(texts):
            expected = [w for w, t in zip(told.words, told.onset, strict=True) if k * seconds <= t < (k + 1) * seconds]
            assert text.split() == expected
        assert texts[-1]


def test_silence_leaves_empty_windows_and_no_story_leaves_none() -> None:
    assert texts_of(story([0.5, 7.0]), 2.0) == ["w0", "", "", "w1"]
    assert texts_of(story([]), 2.0) == []


def test_a_word_on_the_border_belongs_to_the_window_that_begins_there() -> None:
    # 3 * 0.7 is 2.0999999999999996.
    assert window_of([3 * 0.7, 2.1 - 1e-3], 0.7).tolist() == [3, 2]


@pytest.mark.parametrize("start", [0.0, -3.1, 5.3])
@pytest.mark.parametrize("lag", [0.0, 2.0, 4.7])
def test_rows_are_the_first_volumes_at_or_after_the_lag(start: float, lag: float) -> None:
    times = 0.75 + 1.5 * np.arange(40)
    rows = rows_of(times, start, 30, 2.0, lag, 4)
    for k, found in enumerate(rows):
        wanted = start + 2.0 * k + lag
        after = np.flatnonzero(times >= wanted - 1e-6)
        inside = after.size >= 4 and wanted >= times[0] - 1.5 - 1e-6
        assert found.tolist() == (after[:4].tolist() if inside else [-1] * 4)
    assert (rows < 0).any() or start == 0.0


def test_a_spike_at_a_word_lands_in_its_rows() -> None:
    times, _told = 2.0 * np.arange(50) + 1.0, story([10.3, 30.9])
    series = np.zeros(50)
    series[int(np.searchsorted(times, 4.0 + 30.9 + 5.0))] = 1.0  # response 5 s after a word of a story that begins at 4 s
    rows = rows_of(times, 4.0, 16, 2.0, 2.0, 4)
    seen = [k for k in range(16) if rows[k, 0] >= 0 and series[rows[k]].any()]
    assert window_of([30.9], 2.0)[0] in seen
    assert window_of([10.3], 2.0)[0] not in seen


@pytest.mark.parametrize(
    ("words", "onset", "offset", "message"),
    [
        (("a",), [0.0, 1.0], [0.5, 1.5], "1 words, 2 onsets"),
        (("a",), [-1.0], [0.5], "'a', begins before the story"),
        (("a", "b"), [1.0, 0.5], [1.2, 0.7], "'a', begins after the one that follows"),
        (("a",), [1.0], [0.5], "'a', ends before it begins"),
        (("a",), [np.nan], [0.5], "'a', has no time"),
    ],
)
def test_impossible_times_are_refused(words, onset, offset, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Transcript("hare", words, np.array(onset), np.array(offset))


def test_chunks_hold_every_word_once_and_are_near_equal() -> None:
    for n_words in range(12):
        text = " ".join(f"w{i}" for i in range(n_words))
        parts = chunks(text, 3)
        assert " ".join(parts) == text
        assert len(parts) == min(3, n_words)
        lengths = [len(part.split()) for part in parts]
        assert not lengths or max(lengths) - min(lengths) <= 1
