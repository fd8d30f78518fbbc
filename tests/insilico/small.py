"""A participant in memory: 24 trials of two runs, four stimuli, a decoder of random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bids_brainlm.config import Request, load
from bids_brainlm.core.types import Examples, Parcellation, Prompt, Recording, Split
from bids_brainlm.evaluation.metrics import Facts
from bids_brainlm.insilico.participant import Participant
from bids_brainlm.io.surfaces import Geometry
from bids_brainlm.models import checkpoint
from bids_brainlm.stages.decoder import Decoder
from bids_brainlm.stages.responses import Trials

from .conftest import LABELS, SCALE, V

N = 32
TEXTS = ("A red bird in the park.", "A red dog in the park.", "A wooden bird on the fence.", "A wooden dog on the fence.")
ANIMAL = ("bird", "dog", "bird", "dog")
FACTS = Facts(
    {
        "animal": {f"s{i}": (ANIMAL[i % 4],) for i in range(8)},
        "place": {f"s{i}": (("park", "park", "fence", "fence")[i % 4],) for i in range(8)},
    }
)
DRIVEN = 4
"""Vertex that answers to dogs."""


def participant(decoder: Decoder, folder: Path) -> Participant:
    """Stimuli s0 to s3 in training, s4 to s7 held out; run 2 has none of the training trials. Dogs drive one vertex."""
    stimulus = np.array([f"s{i % 4 + 4 * (i >= N // 2)}" for i in range(N)])
    data = np.random.default_rng(3).standard_normal((N, V)).astype(np.float32) * SCALE
    data[:, DRIVEN] += 6 * SCALE[DRIVEN] * np.array([ANIMAL[int(name[1]) % 4] == "dog" for name in stimulus])
    run = np.arange(N) // (N // 2)
    texts = [TEXTS[int(name[1]) % 4] for name in stimulus]
    examples = Examples(
        Recording(data, "percent signal change", "beta", np.arange(N, dtype=float), run),
        np.arange(N),
        tuple(Prompt("What?", text) for text in texts),
        tuple((text,) for text in texts),
        stimulus,
        stimulus,
        np.array([f"t{i:02d}" for i in range(N)]),
    )
    model = folder / "decoder.safetensors"
    checkpoint.save(model, {"weights": torch.arange(3.0)}, {})
    request = Request(folder, folder / "out", "participant", ("01",), {}, folder / "work", load("cortext-small"))
    out = Participant("01", request, (model,), {0: decoder})
    names = [f"sub-01_task-look_run-{i + 1}" for i in run]
    table = pd.DataFrame({"trial_id": examples.id, "run": names, "onset": np.arange(N, dtype=float)})
    geometry = Geometry("none", "", V, V)
    trials = Trials(data, geometry, table, folder / "trials.tsv", (), "look")
    split = Split(examples, np.arange(N // 2 - 4), np.array([], np.int64), np.arange(N // 2, N), 0, leaky=False)
    cached = {"trials": trials, "folds": (split,), "atlas": Parcellation("three", "none", LABELS, ("Vis_1", "Vis_2", "Mot_1"), V)}
    out.__dict__.update(cached)
    return out
