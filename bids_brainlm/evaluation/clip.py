"""CLIPScore and RefCLIPScore of Hessel and others (2021): does a text fit the picture that was seen?

CLIP turns pictures and texts into vectors of one space. With c(a, b) the cosine of two vectors, 0 where it is negative:

- *CLIPScore* of a text and a picture is 2.5 c(text, picture), 0 to 2.5; no reference counts.
- *RefCLIPScore* is the harmonic mean of that and the largest c(text, reference).

Texts are preceded by "A photo depicts ". The paper's figures are of ViT-B/32; those of different models cannot be compared. The
weights come from a folder on this machine, as safetensors; no code of it runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.errors import InputError, MissingResourceError

Array = NDArray[np.float64]
References = Sequence[Sequence[str]]
Labels = Sequence[str] | NDArray[np.str_]

PREFIX = "A photo depicts "
WEIGHT = 2.5
HIGHEST_REF = 2 * WEIGHT / (WEIGHT + 1)
"""RefCLIPScore where both cosines are 1."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A model that turns pictures and texts into vectors of one space.

    Parameters
    ----------
    tokenizer, processor, model : Any
        Of transformers; ``processor`` makes pixels of a picture ready.
    """

    tokenizer: Any
    processor: Any
    model: Any
    _seen: dict[Path, Array] = field(default_factory=dict)

    def text(self, text: str) -> Array:
        """(D,) vector of a text, of length 1; a long text loses its end."""
        import torch  # slow to import, and most commands score nothing

        longest = int(self.model.config.text_config.max_position_embeddings)
        given = self.tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
        with torch.no_grad():
            state = self.model.text_model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).pooler_output
            return _unit(self.model.text_projection(state))

    def picture(self, path: Path) -> Array:
        """(D,) vector of a picture, of length 1; the conditions of a text share it.

        Raises
        ------
        InputError
            When the file is no picture.
        """
        if path not in self._seen:
            self._seen[path] = self._looked_at(path)
        return self._seen[path]

    def _looked_at(self, path: Path) -> Array:
        import torch  # as above
        from PIL import Image

        try:
            with Image.open(path) as opened:
                pixels = self.processor(opened.convert("RGB"), return_tensors="pt")["pixel_values"]
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            remedy = "replace it, or leave out the metrics clipscore and refclipscore"
            raise InputError(f"the picture cannot be read ({error})", path, expected="an image", remedy=remedy) from error
        with torch.no_grad():
            return _unit(self.model.visual_projection(self.model.vision_model(pixel_values=pixels).pooler_output))


def _unit(rows: Any) -> Array:
    vector = np.asarray(rows[0].double().numpy(), dtype=np.float64)
    return np.asarray(vector / np.linalg.norm(vector))


def load_clip(folder: Path) -> Clip:
    """The CLIP of a folder.

    Raises
    ------
    MissingResourceError
        When there is none, or another kind of model.
    """
    from transformers import AutoImageProcessor  # slow to import, as what follows

    from bids_brainlm.evaluation.embeddings import open_transformer
    from bids_brainlm.models.backbones import quiet

    loader: Any = AutoImageProcessor  # which has no types
    tokenizer, model = open_transformer(folder)
    expected = "a folder of a CLIP model, as save_pretrained writes it, with its tokenizer and preprocessor_config.json"
    if not hasattr(model, "visual_projection"):
        raise MissingResourceError(f"the model is a {type(model).__name__}", folder, expected=expected, remedy="check --clip")
    try:
        with quiet():
            processor = loader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise MissingResourceError(f"pictures cannot be made ready ({reason})", folder, expected=expected) from error
    return Clip(tokenizer, processor, model)


def clip_score(
    hypotheses: Sequence[str], references: References, stimuli: Labels, pictures: Mapping[str, Path], clip: Clip
) -> list[float]:
    """CLIPScore of each text and the picture of its stimulus."""
    seen = [clip.picture(pictures[str(stimulus)]) for stimulus in stimuli]
    return [WEIGHT * _cosine(clip.text(PREFIX + text), picture) for text, picture in zip(hypotheses, seen, strict=True)]


def ref_clip_score(
    hypotheses: Sequence[str], references: References, stimuli: Labels, pictures: Mapping[str, Path], clip: Clip
) -> list[float]:
    """RefCLIPScore of each text, with the reference it is most like."""
    known = {text: clip.text(PREFIX + text) for text in {*hypotheses, *_all(references)}}
    scores = clip_score(hypotheses, references, stimuli, pictures, clip)
    likeness = [max(_cosine(known[text], known[r]) for r in right) for text, right in zip(hypotheses, references, strict=True)]
    return [2 * a * b / (a + b) if a > 0 and b > 0 else 0.0 for a, b in zip(scores, likeness, strict=True)]


def _all(references: References) -> Iterable[str]:
    return (text for right in references for text in right)


def _cosine(a: Array, b: Array) -> float:
    return min(max(float(a @ b), 0.0), 1.0)
