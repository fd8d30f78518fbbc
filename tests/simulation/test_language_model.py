"""The small language model: what it reads, what it is shown, and a folder that loads like any other model."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bids_brainlm.core.types import Prompt
from bids_brainlm.errors import InputError
from bids_brainlm.language.render import decode, render, stop_ids
from bids_brainlm.language.stimuli import words
from bids_brainlm.models.backbones import load_llm
from bids_brainlm.models.fusion import BrainLM, collate
from bids_brainlm.simulation import language_model
from bids_brainlm.simulation.hints import Spoken
from bids_brainlm.simulation.language_model import balanced, common_words, make_lm, pieces, read_texts, train_tokenizer
from bids_brainlm.training.batches import Corpus

COLOURS, ANIMALS, PLACES = ("red", "blue", "grey", "white"), ("dog", "cat", "bird", "horse", "fish"), ("beach", "park")
TEXTS = [Prompt("", f"A {c} {a} at the {p}.") for c, a, p in itertools.product(COLOURS, ANIMALS, PLACES)]
SMALL: dict[str, Any] = {
    "steps": 60,
    "batch_size": 8,
    "learning_rate": 4e-3,
    "width": 32,
    "layers": 2,
    "heads": 2,
    "vocabulary": 400,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    out = tmp_path_factory.mktemp("lm")
    return out, make_lm(TEXTS, out, **SMALL)


def test_the_folder_loads_like_any_other_model(made: tuple[Path, list[dict[str, Any]]]) -> None:
    out, history = made
    assert len(TEXTS) == 40
    llm = load_llm(str(out), offline=True)
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".") or "checkpoint" in path.name) == []
    assert not list(out.rglob("*.partial"))
    assert llm.model.get_input_embeddings().weight.shape == (len(llm.tokenizer), 32)
    assert stop_ids(llm.tokenizer, "chat") == (llm.tokenizer.eos_token_id,)
    assert [row["epoch"] for row in history] == [0]
    assert math.isfinite(history[0]["train_loss"])


def test_every_file_of_the_model_may_be_read_by_who_may_read_the_configuration(made: tuple[Path, list[dict[str, Any]]]) -> None:
    assert {path.stat().st_mode for path in made[0].iterdir()} == {(made[0] / "config.json").stat().st_mode}


def test_it_learned_its_texts(made: tuple[Path, list[dict[str, Any]]]) -> None:
    llm = load_llm(str(made[0]), offline=True)
    known = [render(prompt, llm.tokenizer, 0, "chat") for prompt in TEXTS[:10]]
    scrambled = [Prompt("", " ".join(reversed(prompt.answer.split()))) for prompt in TEXTS[:10]]
    unknown = [render(prompt, llm.tokenizer, 0, "chat") for prompt in scrambled]
    model = BrainLM(llm.model).eval()
    assert (model.nll(collate(known, None)) < model.nll(collate(unknown, None)) - 5).all()
    per_token = model.nll(collate(known, None)).sum() / sum(int(item.train.sum()) for item in known)
    assert per_token < 0.7 * math.log(len(llm.tokenizer))


def test_a_seed_decides_every_weight(made: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    few = {**SMALL, "steps": 6}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(ord(name))
        make_lm(TEXTS, tmp_path / name, seed=seed, **few)
    one, two, three = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    assert not all(torch.equal(value, three[key]) for key, value in one.items())
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (tmp_path / "b" / "tokenizer.json").read_bytes()


def test_what_it_is_shown_is_a_bag_a_prompt_and_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    def spy(_model: Any, _phases: Any, _schedules: Any, train: Any, validation: Any, **_: Any) -> list[dict[str, Any]]:
        shown.extend(train.renderings)
        assert len(validation) == 0
        (tmp_path / ".checkpoints").mkdir()
        return []

    monkeypatch.setattr(language_model, "fit", spy)
    asked = [Prompt("What animal is it?", prompt.answer) for prompt in TEXTS[:20]]
    make_lm([*TEXTS, *asked], tmp_path, prompts=("Describe it.", "Say it."), **{**SMALL, "steps": 30})
    assert len(shown) == 240
    text = load_llm(str(tmp_path), offline=True).tokenizer
    questions = {"Describe it.": 0, "Say it.": 0, "What animal is it?": 0}
    for (item,) in shown:
        assert not item.slot.any()
        assert int(item.ids[-1]) == text.eos_token_id
        context, answer = decode(item.ids[~item.train], text), decode(item.ids[item.train], text)
        assert Prompt("", answer) in TEXTS
        (question,) = (q for q in questions if context.endswith(q))
        questions[question] += 1
        bag = words(context.removesuffix(question))
        own = [word for word in bag if word in words(answer)]
        # Never the whole caption, two to four of its words, up to two of others, and no word that is everywhere.
        assert 1 <= len(set(own)) <= 2
        assert len(bag) - len(own) <= 2
        assert not {"a", "at", "the"} & set(bag)
    assert min(questions.values()) > 40


def test_common_words_are_those_of_many_texts() -> None:
    assert common_words(TEXTS) == {"a", "at", "the", "beach", "park", *COLOURS}
    assert common_words(TEXTS, 0.3) == {"a", "at", "the", "beach", "park"}
    assert common_words(TEXTS[:1]) == set()


def test_any_script_can_be_written() -> None:
    text = train_tokenizer([prompt.answer for prompt in TEXTS], 300)
    for sentence in ("Ein Käsebrot für 5 €", "狗在沙滩上", "🐕 at the beach"):
        assert text.decode(text.encode(sentence, add_special_tokens=False)).strip() == sentence
    assert len(train_tokenizer([prompt.answer for prompt in TEXTS], 270)) == 270


def test_small_files_are_drawn_from_as_often() -> None:
    large, small = TEXTS[:40], [Prompt("", f"text {i}") for i in range(7)]
    drawn = balanced([large, small])
    share = sum(prompt in small for prompt in drawn) / len(drawn)
    assert share == pytest.approx(0.5, abs=0.05)
    assert set(drawn) == {*large, *small}


# Reading --------------------------------------------------------------------------------------------------------------


def test_texts_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "texts.tsv"
    path.write_text(
        'stim\tcaption\tquestion\n1\tA "red" dog\t\n2\t \tWhat?\n3\tA cat.\tWhat is it?\n1\tA "red" dog\t\n4\n', "utf-8-sig"
    )
    assert read_texts(path) == [Prompt("", 'A "red" dog'), Prompt("What is it?", "A cat.")]


def test_texts_of_a_plain_file(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("A dog.\n\n  Ein Kätzchen.  \r\nA dog.\n", "utf-8")
    assert read_texts(path) == [Prompt("", "A dog."), Prompt("", "Ein Kätzchen.")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.tsv",
            b"stimulus\twords\n1\tA dog\n",
            "no text column among stimulus, words.*expected: text or caption or answer or sentence",
        ),
        ("a.tsv", b"", "no text column among none"),
        ("a.tsv", b"text\n\n", "no text column|no text"),
        ("a.txt", b"\n \n", "no text"),
        ("a.txt", b"\xff\xfe\x00", "texts cannot be read"),
    ],
)
def test_texts_that_are_none(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_texts(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(InputError, match="texts cannot be read"):
        read_texts(tmp_path / "none.txt")


# Continuations --------------------------------------------------------------------------------------------------------


def test_pieces_are_words_in_a_row_and_those_that_follow() -> None:
    texts = [" ".join(f"w{i}" for i in range(40)), "a b c d"]
    cut = pieces(texts, 500, np.random.default_rng(0), context=(0, 6), answer=(2, 5))
    joined = [f"{piece.context} {piece.answer}".strip() for piece in cut]
    assert all(any(f" {whole} ".find(f" {text} ") >= 0 for whole in texts) for text in joined)
    inside = [piece for piece in cut if "w" in piece.answer and "w39" not in piece.answer]
    assert {len(piece.answer.split()) for piece in inside} == {2, 3, 4, 5}
    assert {len(piece.context.split()) for piece in cut} == set(range(7))
    assert np.mean(["w" in piece.answer for piece in cut]) == pytest.approx(40 / 44, abs=0.05)


def test_a_continuation_is_told_by_a_hint_in_the_place_of_brain_tokens_then_what_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Corpus] = []

    def spy(_model: Any, _phases: Any, _schedules: Any, train: Corpus, *_: Any, **__: Any) -> list[dict[str, Any]]:
        shown.append(train)
        (tmp_path / ".checkpoints").mkdir()
        return []

    monkeypatch.setattr(language_model, "fit", spy)
    story = " ".join(f"{a}{b}" for a in "bcdfghjklmnpqrst" for b in "aeiou")
    make_lm([Prompt("", story)], tmp_path, style="continuation", **{**SMALL, "steps": 20})
    text = load_llm(str(tmp_path), offline=True).tokenizer
    for (item,) in shown[0].renderings:
        context, answer = decode(item.ids[~item.train & ~item.slot], text), decode(item.ids[item.train], text)
        assert f"{context} {answer}".strip() in story
        assert not item.slot.any() or (item.slot[1:5].all() and item.slot.sum() == 4)
        assert int(item.ids[-1]) == text.eos_token_id
    assert np.mean([item.slot.any() for (item,) in shown[0].renderings]) == pytest.approx(5 / 6, abs=0.1)
    assert shown[0].batch(np.arange(3), [item[0] for item in shown[0].renderings[:3]]).vertices.shape[:2] == (3, 1)


def test_words_that_a_hint_tells_of_are_likelier(tmp_path: Path) -> None:
    rng, names = np.random.default_rng(0), ("red", "blue", "dog", "cat", "sun", "sea")
    stories = [Prompt("", " ".join(rng.choice(names, 60))) for _ in range(20)]
    make_lm(stories, tmp_path, style="continuation", **{**SMALL, "steps": 800, "batch_size": 16, "learning_rate": 4e-3})
    llm = load_llm(str(tmp_path), offline=True)
    items = [render(Prompt("", f"{name} {name}"), llm.tokenizer, 4, "continuation", with_answer=True) for name in names]
    ids = [item.ids[item.train][:1].tolist() for item in items]
    # Twice the word itself, as one brain token would be that is sure of it.
    model = BrainLM(llm.model, torch.nn.Identity(), Spoken(llm.model, np.array([i[0] for i in ids]), 4)).eval()
    sure = np.eye(len(names), dtype=np.float32)[:, None]
    nll = np.stack([model.nll(collate(items, np.roll(sure, s, axis=0))).numpy() for s in range(len(names))])
    assert nll[0].mean() < nll[1:].mean() - 0.2
