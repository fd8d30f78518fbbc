"""A small causal language model trained on a user's texts, so that the whole pipe runs offline.

A language model trained on isolated captions cannot be steered by brain tokens: it never learned to use what stands before a
caption. Each training *passage* here therefore begins with a shuffled, incomplete bag of the words of its caption among words of
other captions, then the prompt, then the caption. The model learns to say a caption that agrees with its context, which is what
it is asked for when brain tokens stand in place of the bag.

Passages are laid out in the prompt *style* that the model is for. ``chat``: bag and instruction, then a whole text.
``continuation``: texts are long (stories, or sentences), and a passage is a piece of one: a vague hint at the words to come, in
the place of brain tokens (`bids_brainlm.simulation.hints`), some words of the text so far, then its next few words. The model
learns to use both, what was said and what it is told to say.
"""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bids_brainlm.core.types import Prompt
from bids_brainlm.errors import InputError
from bids_brainlm.language.render import render
from bids_brainlm.language.stimuli import passages, words
from bids_brainlm.models.fusion import BrainLM
from bids_brainlm.simulation.hints import Hints, Pupil, Spoken
from bids_brainlm.training.batches import Corpus
from bids_brainlm.training.loop import Schedule, fit
from bids_brainlm.training.phases import LoRA, Phases

TEXT_COLUMNS = ("text", "caption", "answer", "sentence")


@dataclass(frozen=True)
class Teaching:
    """What a style of passages takes to be learned.

    Parameters
    ----------
    steps, batch_size : int
    learning_rate : float
    spread : float
        Standard deviation of token embeddings at the start. Small ones end up alike for words of a kind (cosines of .5 to .7
        between colours), so that from a noisy mixture of them, which is what brain tokens are, the kind can be read but hardly
        the word.
    """

    steps: int
    batch_size: int
    learning_rate: float
    spread: float


TEACHING = {"chat": Teaching(2000, 24, 2e-3, 0.02), "continuation": Teaching(7200, 12, 8e-4, 0.2)}
"""Prompt style -> how a model is made for it.

At 4e-3, with 500 steps, models of captions differed so much that rounding decided whether .48 or .67 of the facts of a
simulated participant were named.
"""

EXPLAINED = 0.7
"""Largest share of the variance of contents that a hint explains."""

N_TOKENS = 4
"""Brain tokens that say a hint."""

UNTOLD = 1 / 6
"""Share of passages without a hint, from which it learns to speak without a brain."""


def read_texts(path: Path) -> list[Prompt]:
    """Texts of a TSV (column text, caption, answer or sentence; optional column question) or of a file with one text a line.

    Raises
    ------
    InputError
        When there is no such column, or no text.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"texts cannot be read ({error})", path, expected="a TSV or a UTF-8 text file") from error
    if path.suffix != ".tsv":
        texts = [Prompt("", line.strip()) for line in lines if line.strip()]
    else:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        names = list(rows[0]) if rows else []
        column = next((name for name in TEXT_COLUMNS if name in names), None)
        if column is None:
            raise InputError(f"no text column among {', '.join(names) or 'none'}", path, expected=" or ".join(TEXT_COLUMNS))
        texts = [Prompt(row.get("question") or "", row[column].strip()) for row in rows if row[column] and row[column].strip()]
    if not texts:
        raise InputError("no text", path, expected="at least one")
    return list(dict.fromkeys(texts))


def balanced(sources: Sequence[Sequence[Prompt]]) -> list[Prompt]:
    """Texts of several files, small files repeated so that every file is drawn from about equally often."""
    most = max(map(len, sources))
    return [prompt for source in sources for prompt in source for _ in range(max(1, round(most / len(source))))]


def common_words(texts: Sequence[Prompt], share: float = 0.2) -> set[str]:
    """Words of more than a share of the texts: they say little about any one of them and would crowd the bags."""
    counts = Counter(word for prompt in texts for word in set(words(prompt.answer)))
    return {word for word, count in counts.items() if count > max(share * len(texts), 1)}


def pieces(
    texts: Sequence[str], n: int, rng: np.random.Generator, *, context: tuple[int, int], answer: tuple[int, int]
) -> list[Prompt]:
    """Cut n pieces out of long texts: words in a row, and as answer the words that follow.

    Parameters
    ----------
    texts : sequence of str
        Longer ones are drawn from more often.
    n : int
    rng : numpy.random.Generator
    context, answer : (int, int)
        Fewest and most words; a context is shorter where the text begins, an answer where it ends.
    """
    said = [text.split() for text in texts]
    starts = np.array([(i, at) for i, text in enumerate(said) for at in range(len(text))])
    out = []
    for i, at in starts[rng.integers(len(starts), size=n)]:
        before, after = (int(rng.integers(low, high + 1)) for low, high in (context, answer))
        out.append(Prompt(" ".join(said[i][max(0, at - before) : at]), " ".join(said[i][at : at + after])))
    return out


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE: frequent words become single tokens, and any text of any script can be written."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def make_lm(
    texts: Sequence[Prompt],
    out: Path,
    *,
    style: str = "chat",
    prompts: Sequence[str] = ("Describe the following image.", "Describe the content of this image."),
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    width: int = 128,
    layers: int = 4,
    heads: int = 4,
    vocabulary: int = 1200,
    context: tuple[int, int] = (0, 20),
    answer: tuple[int, int] = (2, 9),
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Train and save a small Llama.

    Parameters
    ----------
    texts : sequence of Prompt
        Answers are what the model learns to say; a context is a question that belongs to one.
    out : Path
        Folder for model and tokenizer, as `transformers` reads them.
    style : {"chat", "continuation"}
        What the model is for; see the module.
    prompts : sequence of str
        Instructions for texts without a question; ``chat`` alone.
    steps, batch_size : int, optional
    learning_rate : float, optional
        These three are those of `TEACHING` when not given.
    width, layers, heads, vocabulary : int
        Size of the model.
    context, answer : (int, int)
        Words of the text so far, and words to come; ``continuation`` alone.
    seed : int

    Returns
    -------
    list of dict
        Training history.
    """
    rng, teaching = np.random.default_rng(seed), TEACHING[style]
    size = batch_size or teaching.batch_size
    n = (steps or teaching.steps) * size
    tokenizer = train_tokenizer([f"{p.context} {p.answer}" for p in texts] + list(prompts), vocabulary)
    if style == "continuation":
        spoken = pieces([p.answer for p in texts], n, rng, context=context, answer=answer)
    else:
        spoken = _told(texts, n, prompts, rng)
    hinted = rng.random(n) >= UNTOLD if style == "continuation" else np.zeros(n, dtype=np.bool_)
    slots = np.where(hinted, N_TOKENS, 0).tolist()
    renderings = tuple((render(p, tokenizer, k, style, with_answer=True),) for p, k in zip(spoken, slots, strict=True))
    longest = max(len(item[0].ids) for item in renderings)
    torch.manual_seed(seed)
    llm = _llama(tokenizer, width, layers, heads, max(2048, 2 * longest), teaching.spread)
    model, corpus = BrainLM(llm), Corpus(renderings)
    if style == "continuation":
        hints = Hints([item[0].ids[item[0].train].tolist() for item in renderings], EXPLAINED, seed)
        model = Pupil(llm, torch.nn.Identity(), Spoken(llm, hints.tokens, N_TOKENS))
        corpus = Corpus(renderings, hints)
    schedule = Schedule("language model", ("all",), 1, learning_rate or teaching.learning_rate, size, warmup=0.05)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    phases = Phases(model, lambda _: llm, LoRA(), "fp32")
    checkpoints = out / ".checkpoints"
    key = hashlib.sha256(repr([spoken, schedule, llm.config.to_dict(), teaching, slots, EXPLAINED, seed]).encode()).hexdigest()
    history = fit(
        model,
        phases,
        [schedule],
        corpus,
        Corpus(()),
        seed=seed,
        folder=checkpoints,
        key=key,
        accelerator=accelerator,
        label="make-lm",
    )
    llm.cpu().save_pretrained(out)
    tokenizer.save_pretrained(out)
    for path in out.glob("*.safetensors"):
        # safetensors writes for the owner's eyes alone, but a laboratory and a container's user id share a model.
        path.chmod((out / "config.json").stat().st_mode)
    shutil.rmtree(checkpoints)
    return history


def _told(texts: Sequence[Prompt], n: int, prompts: Sequence[str], rng: np.random.Generator) -> list[Prompt]:
    """Captions drawn at random, each told by a bag of some of its words and asked for by a prompt."""
    chosen = [texts[i] for i in rng.integers(len(texts), size=n)]
    answers = [p.answer for p in chosen]
    bags = passages(answers, rng, bag_size=(2, 4), n_distractors=(0, 2), repeats=(1, 3), left_out=common_words(texts))
    asked = [p.context or (prompts[int(rng.integers(len(prompts)))] if prompts else "") for p in chosen]
    return [Prompt(f"{bag.context} {question}".strip(), bag.answer) for bag, question in zip(bags, asked, strict=True)]


def _llama(tokenizer: PreTrainedTokenizerFast, width: int, layers: int, heads: int, longest: int, spread: float) -> Any:
    """A random Llama whose input and output embeddings are the same matrix."""
    llm: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=longest,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
    )
    with torch.no_grad():
        llm.get_input_embeddings().weight.mul_(spread / llm.config.initializer_range)
    return llm
