"""What an output folder holds of a participant is found again, and nothing that has changed since passes for it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bids_brainlm.config import Config, Request, as_tree, load
from bids_brainlm.config.call import call_of
from bids_brainlm.config.validate import to_toml
from bids_brainlm.core.types import Examples, Prompt, Recording, Split
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.insilico import participant
from bids_brainlm.insilico.participant import Participant, open_participant
from bids_brainlm.models import checkpoint
from bids_brainlm.stages.decoder import Decoder

N, V = 10, 12
TEXTS = ["A red bird", "Two dogs", "A fence", "Dogs on a beach", "The sun"]


def with_seed(config: Config, seed: int) -> Config:
    return dataclasses.replace(config, run=dataclasses.replace(config.run, random_seed=seed))


@pytest.fixture
def examples() -> Examples:
    data = np.random.default_rng(0).standard_normal((N, V)).astype(np.float32)
    stimulus = [f"s{i % 5}" for i in range(N)]
    ids = [f"sub-01_run-{i // 5}_trial-{i % 5}" for i in range(N)]
    references = tuple((TEXTS[i % 5], f"{TEXTS[i % 5]} there") for i in range(N))
    prompts = tuple(Prompt("What?", text) for text, _ in references)
    recording = Recording(data, "percent signal change", "beta", np.arange(N), np.arange(N) // 5)
    return Examples(recording, np.arange(N), prompts, references, np.array(stimulus), np.array(stimulus), np.array(ids))


@pytest.fixture
def splits(examples: Examples) -> list[Split]:
    """Two folds; the stimulus s4 is in none of their training sets."""
    first, second = np.array([0, 5]), np.array([1, 6])
    rest = np.array([2, 7])
    return [
        Split(examples, np.concatenate([second, rest]), np.array([3, 8]), first, 0),
        Split(examples, np.concatenate([first, rest]), np.array([3, 8]), second, 1),
    ]


@pytest.fixture
def out(tmp_path: Path, splits: list[Split]) -> Path:
    """An output folder with the decoders of two folds, as far as opening it needs them."""
    folder, config = tmp_path / "out", with_seed(load("cortext-small"), 5)
    names = [f"sub-01/model/sub-01_task-look_desc-fold{k}decoder_model.safetensors" for k in (0, 1)]
    for name, split in zip(names, splits, strict=True):
        parts = {"training_ids": split.train, "test_ids": split.test}
        about = {part: [str(x) for x in split.examples.id[index]] for part, index in parts.items()}
        checkpoint.save(folder / name, {"a": torch.zeros(1)}, {"config": as_tree(config), **about})
    stamp = folder / "logs" / "stages" / "sub-01_train.json"
    stamp.parent.mkdir(parents=True)
    stamp.write_text(json.dumps({"key": "k", "outputs": dict.fromkeys([*names, "sub-01/beh/training.tsv"], 1)}))
    (tmp_path / "bids").mkdir()
    calls: dict[str, dict[str, Any]] = {
        "20260101-000000_a": {"participants": ("01", "02")},
        "20260102-000000_b": {"participants": ("02",), "bids_dir": tmp_path / "others"},
        "20260103-000000_c": {"level": "group", "bids_dir": tmp_path / "group"},
    }
    request = Request(
        tmp_path / "bids", tmp_path / "where-it-was", "participant", (), {}, tmp_path / "work", with_seed(config, 9)
    )
    for name, changes in calls.items():
        given = dataclasses.replace(request, **changes)
        (folder / "logs" / f"{name}.toml").write_text(to_toml(given.config, call=call_of(given)))
    return folder


@pytest.fixture
def opened(out: Path, splits: list[Split], monkeypatch: pytest.MonkeyPatch) -> Participant:
    monkeypatch.setattr(participant, "load_trials", lambda request, label: None)
    monkeypatch.setattr(participant, "examples_of", lambda request, trials: splits[0].examples)
    monkeypatch.setattr(participant, "splits_of", lambda request, trials, examples: tuple(splits))
    return open_participant(out, "01")


def test_what_was_asked_for_is_the_newest_call_with_the_settings_of_the_decoders(out: Path, tmp_path: Path) -> None:
    found = open_participant(out, "sub-01", device="cpu")
    assert found.label == "01"
    assert ["fold0" in path.name for path in found.models] == [True, False]
    request = found.request
    # Neither the call of another participant nor that of the group; the folder is where it is now.
    assert (request.bids_dir, request.out_dir, request.participants) == (tmp_path / "bids", out, ("01",))
    assert (request.config.run.random_seed, request.config.run.device) == (9, "cpu")
    newer = out / "logs" / "20260104-000000_d.toml"
    newer.write_text((out / "logs" / "20260101-000000_a.toml").read_text().replace(str(tmp_path / "bids"), str(tmp_path)))
    assert open_participant(out, "01").request.bids_dir == tmp_path
    (tmp_path / "elsewhere").mkdir()
    assert open_participant(out, "01", bids_dir=tmp_path / "elsewhere").request.bids_dir == tmp_path / "elsewhere"


def test_what_is_not_there_is_one_clear_line(out: Path, tmp_path: Path) -> None:
    def told(where: Path = out, label: str = "01", **given: Any) -> str:
        with pytest.raises(MissingInputError) as error:
            open_participant(where, label, **given)
        return str(error.value)

    assert "the output folder does not exist" in told(tmp_path / "nowhere")
    assert "no trained decoder of sub-07" in told(label="07")
    assert "a participant among sub-01" in told(label="07")
    assert "a finished run" in told(tmp_path)
    assert "the dataset is not there any more" in told(bids_dir=tmp_path / "gone")
    for path in (out / "logs").glob("*.toml"):
        path.unlink()
    assert "no call of this participant" in told()
    next((out / "sub-01" / "model").glob("*fold1*")).unlink()
    assert "fold1" in told()
    stamp = out / "logs" / "stages" / "sub-01_train.json"
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "key": ""}))
    # Training that was begun anew and not finished has no decoder.
    assert "no trained decoder of sub-01" in told()


def test_every_example_has_its_part_in_every_fold(opened: Participant, examples: Examples) -> None:
    ids = [str(name) for name in examples.id]
    assert opened.held_out() == {ids[0]: 0, ids[5]: 0, ids[1]: 1, ids[6]: 1}
    parts = [[opened.part_of(name, fold) for name in ids[:5]] for fold in (0, 1)]
    assert parts == [["test", "train", "train", "validation", "unused"], ["train", "test", "train", "validation", "unused"]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("sub-01_run-1_trial-2", [7]),
        ("run-1_trial-2", [7]),
        ("trial-2", [2, 7]),
        ("s3", [3, 8]),
        ("DOGS", [1, 3, 6, 8]),
        ("there", list(range(N))),
        ("rial-2", []),
        ("cat", []),
    ],
)
def test_examples_are_found_by_id_stimulus_or_text(opened: Participant, text: str, found: list[int]) -> None:
    assert opened.find(text).tolist() == found


def test_other_folds_than_those_of_the_decoders_are_refused(
    opened: Participant, splits: list[Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    less = dataclasses.replace(splits[1], train=splits[1].train[1:])
    swapped = dataclasses.replace(splits[1], test=splits[1].validation, validation=splits[1].test)
    for changed, part in ((less, "training"), (swapped, "test")):
        monkeypatch.setattr(participant, "splits_of", lambda *args, changed=changed: (splits[0], changed))
        with pytest.raises(InputError, match=f"the {part} examples of fold 1 are others than when the decoder was trained"):
            _ = opened.folds


def test_the_spread_of_vertices_is_that_of_training(opened: Participant, decoders: Callable[[str], Decoder]) -> None:
    opened._decoders[1] = decoders("parcels")
    # As in conftest.py, where a vertex has none.
    np.testing.assert_allclose(opened.scale(1), [1, 2, 0.5, 1, 3, 1, 0, 2, 1, 1, 0.2, 1], rtol=1e-6)
