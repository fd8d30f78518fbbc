"""A small model with brain tokens whose language model has learned a language, and stories told in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bids_brainlm.core.types import Affine, Recording
from bids_brainlm.evaluation.story.decoders import window_tokens
from bids_brainlm.evaluation.story.reading import Reader
from bids_brainlm.evaluation.story.tellings import Telling
from bids_brainlm.models.fusion import BrainLM, Features
from bids_brainlm.registry import tokenizers

WORDS = [f"w{i}" for i in range(24)]
N_ROWS, N_VERTICES, WIDTH = 2, 9, 32


def speech(rng: np.random.Generator, n_words: int) -> list[str]:
    """Words of which each may be followed by five others: one may be told from a brain, and not from the words before."""
    out = [int(rng.integers(len(WORDS)))]
    while len(out) < n_words:
        out.append((out[-1] * 3 + int(rng.choice([1, 4, 9, 14, 19]))) % len(WORDS))
    return [WORDS[i] for i in out]


def text_tokenizer() -> Any:
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def _llm(family: str, n_tokens: int) -> Any:
    torch.manual_seed(1)
    if family == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=n_tokens, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=128))
    sizes = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=n_tokens, max_position_embeddings=128, **sizes))


def _taught(llm: Any, tokenizer: Any) -> Any:
    rng = np.random.default_rng(0)
    optimiser = torch.optim.Adam(llm.parameters(), 3e-3)
    for _ in range(250):
        texts = [" ".join(speech(rng, 12)) for _ in range(16)]
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)] for text in texts])
        loss = llm(input_ids=ids, labels=ids).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return llm.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def taught() -> Callable[[str], Any]:
    """``taught(family)`` -> a language model that knows `speech`, trained once."""
    made: dict[str, Any] = {}

    def of(family: str) -> Any:
        if family not in made:
            tokenizer = text_tokenizer()
            made[family] = _taught(_llm(family, len(tokenizer)), tokenizer)
        return made[family]

    return of


@pytest.fixture(scope="session")
def make_reader(taught: Callable[[str], Any]) -> Callable[..., Reader]:
    """``make_reader(family, n_vertices)`` -> a reader with 2 brain tokens, made by a random network."""

    def build(family: str = "llama", n_vertices: int = N_VERTICES) -> Reader:
        torch.manual_seed(2)
        affine = Affine(np.zeros(n_vertices, np.float32), np.ones(n_vertices, np.float32), None, np.arange(2))
        brain = tokenizers.get("mlp")(n_rows=N_ROWS, labels=np.zeros(n_vertices, np.int32), width=WIDTH, basis=None, hidden=16)
        model = BrainLM(taught(family), Features(affine), brain).eval()
        return Reader(model, text_tokenizer(), "continuation")

    return build


@dataclass(frozen=True, eq=False)
class World:
    """Stories in a language that the model knows, and a recording in which words drive vertices at delays of 1 and 2 windows."""

    reader: Reader
    recording: Recording
    tellings: tuple[Telling, ...]
    tokens: list[list[list[int]]]

    def held(self) -> np.ndarray[Any, Any]:
        rows = [t.rows[(t.part == "test") & t.decodable].ravel() for t in self.tellings]
        return np.unique(np.concatenate(rows))


def _texts(rng: np.random.Generator, n_windows: int) -> list[str]:
    counts = rng.choice([0, 1, 2, 3, 4], size=n_windows, p=[0.15, 0.2, 0.3, 0.2, 0.15])
    words = speech(rng, int(counts.sum()) + 1)
    places = np.concatenate([[0], np.cumsum(counts)])
    return [" ".join(words[a:b]) for a, b in zip(places[:-1], places[1:], strict=True)]


@pytest.fixture
def make_world(make_reader: Callable[..., Reader]) -> Callable[..., World]:
    """``make_world(noise, n_stories, n_windows)``: the last story is the test story.

    Noise is in standard deviations of the signal.
    """

    def build(noise: float = 0.1, n_stories: int = 4, n_windows: int = 60, n_vertices: int = 40, seed: int = 0) -> World:
        rng = np.random.default_rng(seed)
        reader = make_reader(n_vertices=n_vertices)
        pattern = rng.standard_normal((2, len(WORDS), n_vertices))
        tellings, tokens, data, run, n_before = [], [], [], [], 0
        for number in range(n_stories):
            texts = _texts(rng, n_windows)
            said = np.array([[text.split().count(word) for word in WORDS] for text in texts])
            n_volumes = n_windows + 8
            window = np.arange(n_volumes) - 2  # the scan begins before the story and ends after it
            signal = np.zeros((n_volumes, n_vertices))
            for delay in (1, 2):
                inside = (window >= delay) & (window - delay < n_windows)
                signal[inside] += said[window[inside] - delay] @ pattern[delay - 1]
            volumes = n_before + np.arange(n_volumes)
            rows = volumes[np.arange(n_windows)[:, None] + [3, 4]]
            part = np.full(n_windows, "test" if number == n_stories - 1 else "train")
            tellings.append(Telling(f"story{number}", f"run{number}", tuple(texts), rows, volumes, window, part))
            tokens.append(window_tokens(texts, reader.tokenizer))
            data.append(signal)
            run += [number] * n_volumes
            n_before += n_volumes
        series = np.concatenate(data)
        series = series / series.std() + noise * rng.standard_normal(series.shape)
        onset = 2.0 * np.arange(n_before)
        recording = Recording(series.astype(np.float32), "standard deviations", "bold", onset, np.array(run))
        return World(reader, recording, tuple(tellings), tokens)

    return build
