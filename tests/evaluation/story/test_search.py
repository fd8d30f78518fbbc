"""Beam search with a cache, against one that reads everything anew for every token; shares of words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bids_brainlm.core.types import Prompt
from bids_brainlm.evaluation.story.reading import Reader
from bids_brainlm.evaluation.story.search import Search, sample, search, shares, window_texts
from bids_brainlm.language.render import render
from bids_brainlm.models.fusion import collate

SETTINGS = Search(beams=3, extensions=4, context=5)
COUNTS = [2, 0, 4, 1, 3, 3]
FAMILIES = pytest.mark.parametrize("family", ["llama", "gpt2"])


def brains(n: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(3)
    return [3 * torch.randn(1, 2, 9, generator=random) for _ in range(n)]


@torch.no_grad()
def read_all(reader: Reader, vertices: Tensor | None, tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Logits after, and hidden state of the last token of, a whole sequence that is read at once."""
    model = reader.model
    rendered = render(Prompt("", ""), reader.tokenizer, 0 if vertices is None else 2, "continuation", with_answer=False)
    before = model.embed(collate([rendered], None if vertices is None else vertices.numpy()))
    after = model.llm.get_input_embeddings()(torch.tensor([list(tokens)], dtype=torch.int64))
    out = model.llm(inputs_embeds=torch.cat([before, after], 1), output_hidden_states=True, use_cache=False)
    return out.logits[0, -1].double(), out.hidden_states[reader.layer][0, -1].double()


def plain_search(
    reader: Reader, counts: Sequence[int], vertices: Sequence[Tensor] | None, likelihood: Callable[..., float] | None = None
) -> tuple[list[int], float]:
    """The search as it is described, with lists, one text at a time, and without a cache.

    ``likelihood(hidden)`` scores the hidden states of all tokens of a text, a list a window.
    """
    beam: list[tuple[list[int], float, list[list[Tensor]]]] = [([], 0.0, [])]
    for k, count in enumerate(counts):
        beam = [(tokens, spoken, [*hidden, []]) for tokens, spoken, hidden in beam]
        starts = [len(tokens) for tokens, _, _ in beam][:1]
        for _ in range(count):
            found = []
            for rank, (tokens, spoken, hidden) in enumerate(beam):
                brain = None if vertices is None else vertices[k]
                logits, _ = read_all(reader, brain, tokens[max(0, starts[0] - SETTINGS.context) :])
                logits[~reader.is_text] = -math.inf
                gains = torch.log_softmax(logits, 0)
                seen = tokens[max(0, len(tokens) - SETTINGS.context) :]
                barred = {seen[i + 1] for i in range(len(seen) - 1) if seen[i] == seen[-1]}
                order = [int(token) for token in gains.argsort(descending=True)]
                mass, inside = 0.0, []
                for token in order:
                    if mass < SETTINGS.mass:
                        inside.append(token)
                    mass += float(gains[token].exp())
                fresh = [token for token in order if token not in barred]
                most = math.ceil(SETTINGS.extensions * (len(beam) - rank) / len(beam))
                for token in [token for token in fresh if token in inside][:most] or fresh[:1]:
                    longer = [*tokens, token]
                    _, last = read_all(reader, brain, longer[max(0, starts[0] - SETTINGS.context) :])
                    found.append((longer, spoken + float(gains[token]), [*hidden[:-1], [*hidden[-1], last]]))
            score = likelihood or (lambda _: 0.0)
            beam = sorted(found, key=lambda one: -(one[1] + score(one[2])))[: SETTINGS.beams]
    return beam[0][0], beam[0][1]


@FAMILIES
@pytest.mark.parametrize("with_brain", [True, False])
def test_the_cache_changes_nothing(make_reader: Callable[..., Reader], family: str, with_brain: bool) -> None:
    reader = make_reader(family)
    vertices = brains(len(COUNTS)) if with_brain else None
    expected, _ = plain_search(reader, COUNTS, vertices)
    assert search(reader, COUNTS, SETTINGS, vertices) == expected
    assert len(expected) == sum(COUNTS)


@FAMILIES
def test_reading_on_is_reading_all(make_reader: Callable[..., Reader], family: str) -> None:
    reader, (brain,) = make_reader(family), brains(1)
    texts = torch.tensor([[5, 9, 12], [7, 7, 20]])
    state = reader.read(reader.open(brain, texts[:, :2]), texts[:, 2])
    for i, text in enumerate(texts.tolist()):
        logits, hidden = read_all(reader, brain, text)
        torch.testing.assert_close(state.logits[i].double(), logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(state.hidden[i].double(), hidden, atol=1e-5, rtol=1e-5)


def test_other_brains_give_another_text(make_reader: Callable[..., Reader]) -> None:
    reader, own = make_reader(), brains(len(COUNTS))
    assert search(reader, COUNTS, SETTINGS, own) != search(reader, COUNTS, SETTINGS, [-3 * brain for brain in own])


def test_the_brain_of_a_window_changes_no_earlier_word(make_reader: Callable[..., Reader]) -> None:
    """With one hypothesis, what is decoded until a window cannot know what comes."""
    reader, own = make_reader(), brains(len(COUNTS))
    alone = Search(beams=1, extensions=1, context=5)
    other = [*own[:4], 9 * own[4], -own[5]]
    first, second = search(reader, COUNTS, alone, own), search(reader, COUNTS, alone, other)
    assert first[: sum(COUNTS[:4])] == second[: sum(COUNTS[:4])]


def test_text_alone_is_said_and_every_window_has_its_share(make_reader: Callable[..., Reader]) -> None:
    reader = make_reader()
    for tokens in (search(reader, COUNTS, SETTINGS, brains(6)), *sample(reader, COUNTS, SETTINGS, 4, seed=0)):
        assert all(bool(reader.is_text[token]) for token in tokens)
        texts = window_texts(tokens, COUNTS, reader.tokenizer)
        assert [len(text.split()) for text in texts] == COUNTS
        assert " ".join(texts).split() == reader.tokenizer.decode(tokens).split()
    controls = [reader.tokenizer.bos_token_id, reader.tokenizer.eos_token_id, reader.tokenizer.pad_token_id]
    assert not reader.is_text[controls].any()


def test_no_pair_of_tokens_repeats_within_the_context(make_reader: Callable[..., Reader]) -> None:
    reader = make_reader()
    tokens = search(reader, [10, 10, 10], SETTINGS)
    for i in range(2, len(tokens)):
        seen = tokens[max(0, i - SETTINGS.context) : i]
        pairs = set(zip(seen[:-1], seen[1:], strict=True))
        assert (tokens[i - 1], tokens[i]) not in pairs


def test_texts_without_a_brain_differ_and_follow_the_seed(make_reader: Callable[..., Reader]) -> None:
    reader = make_reader()
    first, again, other = (sample(reader, COUNTS, SETTINGS, 5, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(map(tuple, first))) > 1


def test_samples_follow_the_language_model(make_reader: Callable[..., Reader]) -> None:
    """The first token is drawn with the probabilities of its proposals."""
    reader = make_reader()
    settings = Search(beams=1, extensions=24, context=5, mass=1.0)
    drawn = np.array([tokens[0] for tokens in sample(reader, [1], settings, 4000, seed=0)])
    logits, _ = read_all(reader, None, [])
    logits[~reader.is_text] = -math.inf
    expected = torch.softmax(logits, 0).numpy()
    found = np.bincount(drawn, minlength=expected.size) / drawn.size
    assert np.abs(found - expected).max() < 5 * np.sqrt(0.25 / drawn.size)


def test_shares_are_right_to_a_half_at_every_place() -> None:
    expected = np.random.default_rng(0).gamma(2.0, 2.0, 200) - 1.0
    counts = shares(expected)
    assert (counts >= 0).all()
    assert np.abs(np.cumsum(counts) - np.cumsum(np.maximum(expected, 0))).max() <= 0.5 + 1e-9


def test_a_word_belongs_to_the_window_it_begins_in() -> None:
    class Pieces:
        """A tokenizer whose words are made of pieces."""

        pieces = ("ha", "re", " ran", " fa", "r")

        def decode(self, ids: Any, **_: Any) -> str:
            return "".join(self.pieces[i] for i in ids)

    assert window_texts([0, 1, 2, 3, 4], [1, 2, 0, 1, 1], Pieces()) == ["hare", "ran", "", "far", ""]
