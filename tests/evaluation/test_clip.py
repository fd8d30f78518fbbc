"""CLIPScore by a small random CLIP against the formulas worked out plainly; pictures outside the dataset are not looked at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bids_brainlm.errors import InputError, MissingResourceError
from bids_brainlm.evaluation import resources as room
from bids_brainlm.evaluation.clip import Clip, load_clip
from bids_brainlm.evaluation.metrics import chosen, get
from bids_brainlm.stages.evaluate import not_run
from bids_brainlm.stages.pictures import pictures_of

SIZE = 32
MEAN, SPREAD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory, bert_folder: Path) -> Path:
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    # Texts end with [SEP], number 3 of the tokenizer of `bert_folder`.
    text = {"vocab_size": 80, "max_position_embeddings": 12, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    vision = {**sizes, "image_size": SIZE, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config={**sizes, **text}, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bert_folder / name, folder)
    made = {"image_processor_type": "CLIPImageProcessor", "image_mean": MEAN, "image_std": SPREAD}
    made |= {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(made))
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    (tmp_path / "bids" / "stimuli" / "shown").mkdir(parents=True)
    for i, name in enumerate(("shown/a.png", "b.jpg")):
        pixels = np.random.default_rng(i).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "bids" / "stimuli" / name)
    return tmp_path / "bids"


TEXTS, RIGHT, STIMULI = ["a red bird", ""], [("a bird sings", "a dog"), ("the sea",)], ["shown/a.png", "b.jpg"]


def expected(clip: Clip, dataset: Path) -> tuple[list[float], list[float]]:
    """Scores by the projections of transformers, pixels scaled here."""

    def text(words: str) -> Any:
        return clip.model.get_text_features(**clip.tokenizer(f"A photo depicts {words}", return_tensors="pt")).pooler_output

    def picture(key: str) -> Any:
        pixels = np.asarray(Image.open(dataset / "stimuli" / key).convert("RGB")) / 255
        scaled = torch.tensor((pixels - MEAN) / SPREAD, dtype=torch.float32).permute(2, 0, 1)[None]
        return clip.model.get_image_features(pixel_values=scaled).pooler_output

    def likeness(a: Any, b: Any) -> float:
        return max(float(torch.cosine_similarity(a, b)), 0.0)

    with torch.no_grad():
        scores = [2.5 * likeness(text(one), picture(key)) for one, key in zip(TEXTS, STIMULI, strict=True)]
        refs = [max(likeness(text(one), text(r)) for r in right) for one, right in zip(TEXTS, RIGHT, strict=True)]
    return scores, [2 / (1 / a + 1 / b) if a and b else 0.0 for a, b in zip(scores, refs, strict=True)]


@pytest.mark.parametrize("turned", [1, -1])
def test_scores_are_those_of_the_paper(clip_folder: Path, dataset: Path, turned: int) -> None:
    clip = load_clip(clip_folder)
    with torch.no_grad():
        # The other way round, what was like is unlike: negative cosines count nothing.
        clip.model.visual_projection.weight.mul_(turned)
    context = {"stimuli": STIMULI, "pictures": pictures_of(dataset, STIMULI), "clip": clip}
    plain, with_references = expected(clip, dataset)
    assert get("clipscore")(TEXTS, RIGHT, **context) == pytest.approx(plain, abs=1e-5)
    assert get("refclipscore")(TEXTS, RIGHT, **context) == pytest.approx(with_references, abs=1e-5)
    assert all(0 <= score <= 2.5 for score in plain)


def test_one_of_the_two_ways_round_has_scores_above_zero(clip_folder: Path, dataset: Path) -> None:
    plain, _ = expected(load_clip(clip_folder), dataset)
    clip = load_clip(clip_folder)
    with torch.no_grad():
        clip.model.visual_projection.weight.mul_(-1)
    assert max(plain + expected(clip, dataset)[0]) > 0.01


def test_long_texts_lose_their_end(clip_folder: Path) -> None:
    clip = load_clip(clip_folder)
    np.testing.assert_array_equal(clip.text("dog " * 10), clip.text("dog " * 500))


def test_a_picture_that_is_missing_or_outside_is_said(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = pictures_of(dataset, STIMULI)
    assert found is not None
    assert found["b.jpg"] == dataset / "stimuli" / "b.jpg"
    outside = dataset.parent / "secret.png"
    shutil.copy(dataset / "stimuli" / "b.jpg", outside)
    (dataset / "stimuli" / "link.png").symlink_to(outside)
    for key in ("nothing.png", "../../secret.png", str(outside), "link.png", "shown", "a dog " * 100, "\0"):
        caplog.clear()
        assert pictures_of(dataset, [*STIMULI, key]) is None
        assert "no picture of 1 of 3 stimuli" in caplog.text
    lacking = not_run(chosen(["clipscore", "refclipscore", "wer"]), {"clip": object()})
    assert set(lacking) == {"clipscore", "refclipscore"}
    assert lacking["clipscore"] == "needs a picture below stimuli/ for the stim_file of every test stimulus"
    assert "--clip" in room.lacking(get("clipscore").context, {"pictures": found})


def test_what_is_no_clip_or_no_picture_is_one_clear_line(clip_folder: Path, bert_folder: Path, dataset: Path) -> None:
    with pytest.raises(MissingResourceError, match="the model is a BertModel.*check --clip"):
        room.available(["clip"], clip=str(bert_folder))
    (dataset / "stimuli" / "text.png").write_text("no picture")
    with pytest.raises(InputError, match=r"the picture cannot be read.*text\.png"):
        load_clip(clip_folder).picture(dataset / "stimuli" / "text.png")
