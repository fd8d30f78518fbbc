"""Parcels get the words that were planted in responses and in the decoder, and none where responses say nothing."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bids_brainlm.config import Request, load
from bids_brainlm.core.types import Affine, Examples, Parcellation, Prompt, Recording, Split
from bids_brainlm.errors import InputError
from bids_brainlm.insilico import describe as module
from bids_brainlm.insilico import participant
from bids_brainlm.insilico.describe import PARCEL_COLUMNS, Settings, describe
from bids_brainlm.insilico.described import listed, verdict, write
from bids_brainlm.insilico.drive import driven
from bids_brainlm.insilico.naming import vocabulary_of
from bids_brainlm.insilico.participant import Participant
from bids_brainlm.io.files import read_tsv
from bids_brainlm.io.maps import read_maps
from bids_brainlm.io.surfaces import Geometry
from bids_brainlm.models import checkpoint
from bids_brainlm.models.fusion import Features
from bids_brainlm.reports.described import page
from bids_brainlm.stages.decoder import Decoder

ANIMALS, PLACES = ("dog", "cat", "horse"), ("park", "beach", "river")
N_PARCELS, SIZE, N_RUNS, PER_RUN = 24, 3, 6, 27
PLANTED = {2: "dog", 5: "beach"}
"""Parcels that answer to a word."""

QUICK = Settings(n_trials=3, n_texts=9, n_bootstrap=20, n_permutations=499, n_captions=0)


def _examples(signal: float) -> Examples:
    rng = np.random.default_rng(0)
    said = [(animal, place) for animal in ANIMALS for place in PLACES]
    # Each combination three times a run; a stimulus is one of nine of each combination.
    which = np.concatenate([rng.permutation(np.repeat(np.arange(9), 3)) for _ in range(N_RUNS)])
    texts = [f"a {said[k][0]} at the {said[k][1]}" for k in which]
    data = rng.standard_normal((which.size, N_PARCELS * SIZE))
    for parcel, word in PLANTED.items():
        data[:, parcel * SIZE : (parcel + 1) * SIZE] += signal * np.array([[word in text.split()] for text in texts])
    stimulus = np.array([f"s{k}-{i % 9}" for i, k in enumerate(which)])
    run = np.repeat(np.arange(N_RUNS), PER_RUN)
    recording = Recording(data.astype(np.float32), "percent signal change", "beta", np.arange(which.size, dtype=np.float64), run)
    prompts = tuple(Prompt("Describe it.", text) for text in texts)
    ids = np.array([f"t{i:03d}" for i in range(which.size)])
    return Examples(recording, np.arange(which.size), prompts, tuple((text,) for text in texts), stimulus, stimulus, ids)


@pytest.fixture
def opened(decoders: Callable[[str], Decoder], tmp_path: Path) -> Callable[..., Participant]:
    def make(signal: float = 1.5) -> Participant:
        config = load("cortext-small")
        request = Request(tmp_path, tmp_path / "out", "participant", ("01",), {}, tmp_path, config)
        examples = _examples(signal)
        data = np.asarray(examples.recording.data)
        fitted = decoders("parcels")
        fitted.model.features = Features(Affine(data.mean(0), data.std(0), None, np.arange(len(data))))
        found = Participant("01", request, (tmp_path / "model",), {0: fitted})
        test = np.flatnonzero(np.char.endswith(examples.group, "-0"))
        train = np.flatnonzero(~np.char.endswith(examples.group, "-0"))
        labels = np.repeat(np.arange(N_PARCELS, dtype=np.int32), SIZE) + 1
        names = tuple(f"p{i}" for i in range(N_PARCELS))
        vars(found)["folds"] = (Split(examples, train, np.zeros(0, np.int64), test),)
        vars(found)["atlas"] = Parcellation("test", "none", labels, names, labels.size)
        return found

    return make


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that makes a text of a word likelier where that was planted, and reads noise elsewhere."""
    noise = np.random.default_rng(1).standard_normal((N_PARCELS, 6)) * 0.1

    def nll(_: Any, bases: Examples, patterns: Any, doses: Any, prompts: Any, style: str) -> Any:
        parcels = np.abs(patterns).argmax(axis=1) // SIZE
        uses = np.array([[word in prompt.answer.split() for word in (*ANIMALS, *PLACES)] for prompt in prompts])
        weights = noise.copy()
        for parcel, word in PLANTED.items():
            weights[parcel, (*ANIMALS, *PLACES).index(word)] += 2
        gain = (weights[parcels] @ uses.T) * np.asarray(patterns).sum(axis=1, keepdims=True) / SIZE
        assert style == "chat"
        base = 7 + np.arange(len(bases))[:, None]
        return base - np.asarray(doses)[None, :, None, None] * gain[:, None, None]

    monkeypatch.setattr(module, "driven", nll)


@pytest.mark.usefixtures("reads")
def test_parcels_are_named_by_the_words_planted_there(opened: Callable[..., Participant]) -> None:
    found = describe(opened(), dataclasses.replace(QUICK, dose=0.5))
    table = found.table.set_index("parcel")
    assert list(found.table) == list(PARCEL_COLUMNS)
    assert table["name"].dropna().to_dict() == {f"p{parcel}": word for parcel, word in PLANTED.items()}
    for parcel, word in PLANTED.items():
        row = table.loc[f"p{parcel}"]
        assert row["words"].split(", ")[0] == row["measured_word"] == word
        assert row["same_word"] == "true"
        # Nats a standard deviation, whatever the dose; of three words one is 2 above the others, and no other has an effect.
        assert row["difference"] == pytest.approx(2 * 2 / 3, abs=0.35)
        assert min(row["stability"], row["measured_stability"]) > 0.8
        assert max(row["q_value"], row["fit_q"]) <= 0.05
    assert found.named.sum() == 2
    # Every vertex of these parcels answers to the word.
    assert (found.pattern.reshape(N_PARCELS, SIZE)[list(PLANTED)] > 0.5).all()
    words = found.maps()["word"].reshape(N_PARCELS, SIZE)
    assert [found.vocabulary.words[int(words[parcel, 0]) - 1] for parcel in PLANTED] == list(PLANTED.values())
    assert np.flatnonzero(words.any(axis=1)).tolist() == sorted(PLANTED)


@pytest.mark.usefixtures("reads")
def test_generated_texts_are_counted_in_parcels_with_a_name(
    opened: Callable[..., Participant], monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(_: Any, bases: Examples, pattern: Any, doses: Any, how: Any) -> Any:
        word = PLANTED[int(np.abs(pattern).argmax()) // SIZE]
        assert list(doses) == [-1, 1]
        # Driven up, all say it; driven down, one of the four does.
        return [[[f"a {word}", "a", "a", "a"], [f"a {word}"] * len(bases)]]

    monkeypatch.setattr(module, "say", say)
    table = describe(opened(), dataclasses.replace(QUICK, n_captions=4)).table
    assert table["said"].dropna().to_dict() == dict.fromkeys(PLANTED, 0.75)


@pytest.mark.usefixtures("reads")
def test_a_decoder_of_noise_names_nothing_however_much_it_reads(opened: Callable[..., Participant]) -> None:
    table = describe(opened(signal=0.0), QUICK).table
    assert table["name"].isna().all()
    assert table[["words", "q_value"]].isna().all(axis=None)
    # What it reads is still told.
    assert table.loc[2, "best_word"] == "dog"


@pytest.mark.usefixtures("reads")
def test_table_and_maps_are_written_and_told(opened: Callable[..., Participant], tmp_path: Path) -> None:
    who = opened()
    checkpoint.save(who.models[0], {"weights": torch.arange(3.0)}, {})
    geometry = Geometry("none", "", N_PARCELS * SIZE, N_PARCELS * SIZE)
    vars(who)["trials"] = SimpleNamespace(task="look", geometry=geometry)
    found = describe(who, QUICK)
    table, sidecar, maps, _ = write(found, who, QUICK)
    assert table == tmp_path / "out" / "sub-01" / "beh" / "sub-01_task-look_desc-parcels_beh.tsv"
    assert read_tsv(table)["name"].fillna("n/a").tolist() == found.table["name"].fillna("n/a").tolist()
    told = json.loads(sidecar.read_text())
    assert set(PARCEL_COLUMNS) <= set(told)
    assert told["ModelDigest"] == who.digest()
    assert not {f"p{parcel}" for parcel in PLANTED} & set(told["ReferenceParcels"])
    drawn = read_maps(maps)[0]["word"]
    assert {told["Words"][int(number) - 1] for number in set(drawn) - {0.0}} == set(PLANTED.values())
    assert verdict(found)[0].startswith(f"2 of {N_PARCELS} parcels have a name")
    assert [line.split()[0] for line in listed(found).splitlines()[1:]] == ["p2", "p5"]
    told_all = page(found, "01", geometry)
    assert told_all.count("<figure>") == 1
    assert re.findall(r"<td>(p\d+)</td><td>(\w+)</td>", told_all) == [(f"p{parcel}", word) for parcel, word in PLANTED.items()]
    nothing = describe(opened(signal=0.0), QUICK)
    assert verdict(nothing)[0].startswith(f"none of {N_PARCELS} parcels has a name")
    assert "<td>" not in page(nothing, "01", geometry)


@pytest.mark.usefixtures("reads")
def test_python_of_the_page_is_executed(
    opened: Callable[..., Participant], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path(__file__).parents[2] / "docs" / "how-to" / "describe.md"
    block = re.findall(r"^```python\n(.*?)^```$", text.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)[0]
    monkeypatch.setattr(participant, "open_participant", lambda *_: opened())
    exec(block, {})
    assert f"2 of {N_PARCELS} parcels have a name" in capsys.readouterr().out


def test_driven_effects_are_those_of_a_plain_loop(opened: Callable[..., Participant]) -> None:
    who = opened()
    # The small decoder of the fixtures has twelve vertices in three parcels.
    data = np.asarray(who.folds[0].examples.recording.data)[:, :12]
    fitted = who.decoder(0)
    fitted.model.features = Features(Affine(data.mean(0), data.std(0), None, np.arange(len(data))))
    examples = dataclasses.replace(
        who.folds[0].examples, recording=dataclasses.replace(who.folds[0].examples.recording, data=data)
    )
    vars(who)["folds"] = (dataclasses.replace(who.folds[0], examples=examples),)
    vars(who)["atlas"] = Parcellation("test", "none", np.repeat([1, 2, 3], 4), ("a", "b", "c"), 12)
    training = examples.take(who.folds[0].train)
    vocabulary = vocabulary_of(training.references, least=10)
    got = module._driven(who, training, vocabulary, np.linspace(-1, 1, 12, dtype=np.float32), QUICK)
    prompts = module._texts(who, training, vocabulary, QUICK)
    bases = module._bases(who.test(0), QUICK)
    assert len(set(bases.group)) == QUICK.n_trials
    pattern = np.where(who.atlas.labels == 2, np.linspace(-1, 1, 12), 0)
    less, more = (driven(fitted, bases, pattern, [dose], prompts, "chat")[0, 0] for dose in (-1.0, 1.0))
    np.testing.assert_allclose(got.values[:, :, 1], (less - more) / 2, atol=1e-4)


def test_texts_that_do_not_differ_cannot_name_anything(opened: Callable[..., Participant]) -> None:
    with pytest.raises(InputError, match="two are needed"):
        describe(opened(), dataclasses.replace(QUICK, least_uses=10_000))
    with pytest.raises(InputError, match=r"no decoder of fold 1.*a fold below 1"):
        describe(opened(), dataclasses.replace(QUICK, fold=1))
