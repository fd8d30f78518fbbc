"""What a participant will cost: memory of a stage, seconds of work, size of the outputs; before any of it is done.

Everything follows from a handful of *sizes* (rows and columns of the responses, volumes of the longest run, examples in the
parts of a split, the shape of the language model). The formulas count the arrays that are alive at once and the products
that are formed; their *constants* were measured on one machine (`MEASURED`), so seconds are rough until stamps of earlier
runs say how fast this machine is (`bids_brainlm.stages.preflight`). Memory is that of the host; a GPU is not counted.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from bids_brainlm.config import Config, Request
from bids_brainlm.errors import BrainLMError
from bids_brainlm.evaluation.pairs import LEAST
from bids_brainlm.models import sources
from bids_brainlm.stages.resources import stays_in_memory

KINDS = ("tune", "estimate", "parcellate", "clean", "train", "decode", "information", "evaluate", "where", "story")
"""Kinds of stages, in order."""

PER_RUN = ("estimate", "parcellate", "clean")
"""Kinds of which there is one a run."""

OF_BOLD = ("tune", *PER_RUN)
"""Kinds that there are none of when responses are given."""

MEASURED = "one thread of a 2-core cloud CPU, fsaverage 10k, a language model of 0.9 million parameters"
"""What the constants below were measured on."""

GB = 2.0**30
FLOAT = 4
BASE_GB = {
    "tune": 0.4,
    "estimate": 0.4,
    "parcellate": 0.4,
    "clean": 0.5,
    "train": 0.5,
    "decode": 0.5,
    "information": 0.5,
    "evaluate": 0.5,
    "where": 0.5,
    "story": 0.5,
}
"""Memory of a process that has imported what the stage needs."""

START = {
    "tune": 1.0,
    "estimate": 0.5,
    "parcellate": 0.1,
    "clean": 0.5,
    "train": 3.0,
    "decode": 2.0,
    "information": 4.0,
    "evaluate": 1.0,
    "where": 3.0,
    "story": 3.0,
}
"""Seconds before the work of a stage begins."""

PER_FOLD = {"train": 0.5, "decode": 0.3, "information": 1.0, "evaluate": 0.25, "where": 0.5, "story": 0.5}
"""Seconds that a fold adds whatever its size: loading the language model again, fitting the readouts."""

SECONDS_PER_VALUE = {"tune": 3.5e-7, "estimate": 2e-7, "parcellate": 8e-8, "clean": 2.5e-7, "evaluate": 5e-7, "story": 1.8e-7}
"""Seconds a value of the series (volumes x vertices: tune, estimate, clean) or of the responses (trials x vertices)."""

TRAINING_FLOPS, FORWARD_FLOPS = 5e10, 1.3e11
"""Operations a second with gradients, and without."""

STEP_PER_LAYER, PER_SEQUENCE = 5e-4, 1e-4
"""Seconds to read one token on, a layer; and to propose and choose, a text. Neither depends on the size of the model."""

ENCODING_PER_VALUE, PER_SCORE, PER_SHIFT = 2.4e-7, 2e-4, 5e-7
"""Seconds a value of the responses to fit an encoding model; to score a text; to add up a shift."""

TOKENS_PER_WORD = 1.3

STORY_METRICS = 2
"""Metrics of long windows that need no resources."""

TEXT_TOKENS, ANSWER_TOKENS = 64, 24
"""Tokens of prompt, layout and answer together, and of the answer alone."""

ACTIVATIONS, FORWARD_BUFFERS = 34, 40
"""Values kept for the gradients a token, layer and unit of width; values in use at once without gradients a token and unit."""

MASK_SHARE = 0.4
"""Share of the voxels of a grid that lie in the brain mask; on the high side, since masks are not read."""

PADDING = 2.0
"""Largest parcel over mean parcel: parcels are padded to the largest."""

BYTES = {"fp32": 4.0, "bf16": 2.0, "nf4": 0.6}


@dataclass(frozen=True)
class Sizes:
    """Sizes that the costs of a participant follow from.

    Parameters
    ----------
    runs : tuple of (n_volumes, n_grid, n_columns, n_trials)
        For each run: volumes of the series, vertices or voxels of its grid, vertices or voxels used, rows (trials with a text;
        where words have times, volumes).
    folds : tuple of (n_train, n_validation, n_test)
        Examples.
    volume : bool
        Whether the series are volumes.
    heard : tuple of int
        Words of every story, each time that it was heard.
    """

    runs: tuple[tuple[int, int, int, int], ...]
    folds: tuple[tuple[int, int, int], ...]
    volume: bool = False
    heard: tuple[int, ...] = ()

    @property
    def n_rows(self) -> int:
        return sum(run[3] for run in self.runs)

    @property
    def n_columns(self) -> int:
        return max((run[2] for run in self.runs), default=0)

    @property
    def responses(self) -> int:
        """Bytes of all responses in float32."""
        return FLOAT * self.n_rows * self.n_columns


@dataclass(frozen=True)
class ModelSize:
    """Shape of a language model; all 0 when it is not on this machine."""

    parameters: int = 0
    width: int = 0
    layers: int = 0
    vocabulary: int = 0

    @property
    def known(self) -> bool:
        return self.parameters > 0


def model_size(request: Request) -> ModelSize:
    """Shape of the configured language model, from the headers of its files; nothing is fetched."""
    settings = request.config.model
    try:
        source = sources.find(settings.llm, settings.revision, offline=True)
    except BrainLMError:
        return ModelSize()
    folder = source.folder or _snapshot(source)
    return _shape(folder, (folder / "config.json").stat().st_mtime_ns)


def _snapshot(source: sources.Source) -> Path:
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(source.name, "config.json", revision=source.commit)
    return Path(str(found)).parent


@lru_cache(maxsize=8)
def _shape(folder: Path, stamp: int) -> ModelSize:
    try:
        tree = json.loads((folder / "config.json").read_text("utf-8"))
        parameters = sum(map(_n_values, sorted(folder.glob("*.safetensors"))))
    except (OSError, ValueError, KeyError, struct.error):
        # What is wrong with it is told where the model is looked for.
        return ModelSize()
    tree = tree.get("text_config") or tree
    return ModelSize(
        parameters,
        _first(tree, "hidden_size", "n_embd", "d_model"),
        _first(tree, "num_hidden_layers", "n_layer", "n_layers"),
        _first(tree, "vocab_size"),
    )


def _first(tree: Mapping[str, Any], *names: str) -> int:
    return next((int(tree[name]) for name in names if isinstance(tree.get(name), int)), 0)


def _n_values(path: Path) -> int:
    """Numbers in a safetensors file: 8 bytes with the length of a JSON header, which has the shape of every tensor."""
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(min(length, 2**27)))
    return sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def n_parcels(config: Config) -> int:
    """Parcels that the name of the atlas speaks of; 100 where it does not."""
    found = re.search(r"(?:^kmeans|:)(\d+)", config.parcels.atlas)
    return int(found[1]) if found else 100


def n_brain_tokens(config: Config) -> int:
    """Brain tokens of an example: one a parcel, or one a row."""
    if config.model.tokenizer == "parcelwise":
        return n_parcels(config)
    return config.window.rows if config.window.words else 1


def n_tokenizer(config: Config, n_columns: int, width: int) -> float:
    """Parameters of a built-in brain tokenizer; 0 for another one."""
    settings, options = config.model, config.model.options
    features = settings.components or n_columns
    rank = min(settings.basis_components, width)
    if settings.tokenizer == "parcelwise":
        if options.get("kind", "mlp") == "linear":
            return PADDING * features * rank
        hidden = int(options.get("hidden", 64))
        return PADDING * features * hidden + n_parcels(config) * hidden * rank
    if settings.tokenizer == "mlp":
        hidden, layers = int(options.get("hidden", 0)) or features, int(options.get("layers", 2))
        return float(features * hidden + max(layers - 1, 0) * hidden**2 + hidden * width if layers else features * width)
    return 0.0


def memory(kind: str, sizes: Sizes, config: Config, model: ModelSize) -> float:
    """Largest memory of a process that runs one stage of a kind, in GB; without the language model where it is not known."""
    responses = sizes.responses / GB
    # What lies in scratch is taken from this process whenever somebody needs the room.
    held = responses if stays_in_memory(config.run, sizes.responses) else min(0.2 * responses, 1.0)
    if kind == "estimate":
        return BASE_GB[kind] + max((_estimate_bytes(run, sizes.volume) for run in sizes.runs), default=0.0) / GB
    if kind == "clean":
        return BASE_GB[kind] + max((_clean_bytes(run, sizes.volume) for run in sizes.runs), default=0.0) / GB
    if kind == "tune":
        # All series, or one of them at a time beside those on disk.
        series = [float(FLOAT * run[0] * run[2]) for run in sizes.runs]
        held = sum(series) if stays_in_memory(config.run, sum(series)) else max(series, default=0.0)
        run = max((_estimate_bytes(run, sizes.volume) for run in sizes.runs), default=0.0)
        return BASE_GB[kind] + (run + held) / GB
    if kind == "parcellate":
        return BASE_GB[kind] + 3 * FLOAT * max((run[2] * run[3] for run in sizes.runs), default=0) / GB
    if kind == "evaluate":
        # As read and centred; and panels of both parts of a split, z-scored, with temporaries.
        return BASE_GB[kind] + 2 * held + min(1.2, 5 * responses)
    # As read, and centred.
    return BASE_GB[kind] + 2 * held + _model_bytes(kind, sizes, config, model) / GB


def _estimate_bytes(run: tuple[int, int, int, int], volume: bool) -> float:
    n_volumes, n_grid, n_columns, n_trials = run
    series, betas = FLOAT * n_volumes * n_columns, FLOAT * n_trials * n_columns
    # A volume is read whole, and once more as (voxels, volumes); hemispheres are read one by one and then joined.
    read = 2 * FLOAT * n_grid * n_volumes if volume else 2 * series
    return max(read, (FLOAT * n_grid * n_volumes if volume else 0) + series, 2 * series + betas, series + 3 * betas)


def _clean_bytes(run: tuple[int, int, int, int], volume: bool) -> float:
    n_volumes, n_grid, n_columns, _ = run
    series = FLOAT * n_volumes * n_columns
    # As read, cleaned in place; written beside it: a whole grid, or one hemisphere, compressed.
    return max(2.0 * series, series + FLOAT * n_grid * n_volumes if volume else 2.5 * series)


def _model_bytes(kind: str, sizes: Sizes, config: Config, model: ModelSize) -> float:
    """Weights, what is trained with its gradients and moments, and activations of one batch."""
    weights = model.parameters * max((_width_of(phase.precision) for phase in config.phases), default=4.0)
    own = n_tokenizer(config, sizes.n_columns, model.width)
    length = n_brain_tokens(config) + TEXT_TOKENS
    if kind in ("decode", "story"):
        batch = config.decode.batch_size * config.decode.beams
        cache = 4 * model.layers * FLOAT
        logits = 2.0 * batch * ANSWER_TOKENS * model.vocabulary * FLOAT
        return weights + FLOAT * own + batch * length * model.width * (cache + FORWARD_BUFFERS * FLOAT) + logits
    batch = max((phase.batch_size for phase in config.phases), default=0)
    layers = 2 if config.run.low_mem else model.layers
    activations = batch * length * model.width * layers * ACTIVATIONS * FLOAT
    logits = 3.0 * batch * ANSWER_TOKENS * model.vocabulary * FLOAT
    groups = {group for phase in config.phases for group in phase.train}
    moved = own + (model.parameters if "all" in groups else 0)
    # A value, its gradient, two moments, and the copy that is written to the checkpoint.
    return weights + 5 * FLOAT * moved + activations + logits


def _width_of(precision: str) -> float:
    return BYTES.get(precision, 4.0)


def seconds(kind: str, sizes: Sizes, config: Config, model: ModelSize) -> float | None:
    """Seconds of all stages of a kind of a participant, one after the other; None where nothing is known to go by."""
    if kind in OF_BOLD:
        values = [run[2] * (run[3] if kind == "parcellate" else run[0]) for run in sizes.runs if run[3]]
        return START[kind] * len(values) + SECONDS_PER_VALUE[kind] * sum(values)
    start = START[kind] + PER_FOLD[kind] * len(sizes.folds)
    if kind == "evaluate":
        return start + SECONDS_PER_VALUE[kind] * sizes.n_rows * sizes.n_columns
    if not model.known or on_gpu(config):
        return None
    if kind == "story":
        # How long a plug-in takes is not known.
        known = set(config.story.decoders) <= {"generate", "encoding"}
        return start + sum(_reconstruction(fold, sizes, config, model) for fold in sizes.folds) if known else None
    if kind == "where":
        return start + sum(_locating(fold, config, model) for fold in sizes.folds) / (
            FORWARD_FLOPS * max(config.run.omp_nthreads, 1)
        )
    trains = kind in ("train", "information")
    flops = TRAINING_FLOPS if trains else FORWARD_FLOPS
    work = sum(_training(fold, sizes, config, model) if trains else _decoding(fold, config, model) for fold in sizes.folds)
    return start + work / (flops * max(config.run.omp_nthreads, 1))


def on_gpu(config: Config) -> bool:
    """Whether training will be on a GPU, as far as can be told without importing torch."""
    return config.run.device == "cuda" or (config.run.device == "auto" and Path("/dev/nvidiactl").exists())


_WITHOUT_LLM = ("answer_mean_mse", "answer_rare_mse", "context_mean_mse")
"""Objectives of warm-ups, which do not pass through the language model."""


def _training(fold: tuple[int, int, int], sizes: Sizes, config: Config, model: ModelSize) -> float:
    """Operations: 2 a parameter and token, 6 with gradients."""
    length = n_brain_tokens(config) + TEXT_TOKENS
    own = n_tokenizer(config, sizes.n_columns, model.width)
    total = 0.0
    for phase in config.phases:
        deep = 0 if phase.objective in _WITHOUT_LLM else model.parameters * length
        total += phase.epochs * (6 * fold[0] + 2 * fold[1]) * (deep + own)
    return total


def _decoding(fold: tuple[int, int, int], config: Config, model: ModelSize) -> float:
    settings = config.decode
    scored = (min(fold[2], max(settings.pairs // max(fold[2], 1), LEAST)) + 3) * ANSWER_TOKENS
    prompts = 4 * (n_brain_tokens(config) + TEXT_TOKENS) + 3 * settings.max_new_tokens * settings.beams
    return 2.0 * fold[2] * model.parameters * (scored + prompts)


def _locating(fold: tuple[int, int, int], config: Config, model: ModelSize) -> float:
    """Operations: two brains with each parcel left out and alone, and a few passes more."""
    n_texts = min(fold[2], config.evaluate.where_texts)
    return 2.0 * n_texts * model.parameters * (n_brain_tokens(config) + TEXT_TOKENS) * (4 * n_parcels(config) + 10)


def _reconstruction(fold: tuple[int, int, int], sizes: Sizes, config: Config, model: ModelSize) -> float:
    """Seconds: searches and null texts, which read the context again in every window; the encoding model; and scores."""
    settings, examples, contexts = config.story, max(sum(fold), 1), max(len(set(config.window.context)), 1)
    share, windows = fold[2] / examples, fold[2] / contexts
    tokens = TOKENS_PER_WORD * sum(sizes.heard) * share
    position = 2.0 * model.parameters / (FORWARD_FLOPS * max(config.run.omp_nthreads, 1))

    def texts(kept: float, read: float, brain: int = 0) -> float:
        again = windows * kept * (settings.lm_context + brain)
        return tokens * (STEP_PER_LAYER * model.layers + PER_SEQUENCE * read) + position * (again + tokens * read)

    values = sizes.n_rows * sizes.n_columns
    total = SECONDS_PER_VALUE["story"] * values + texts(settings.null_texts, settings.null_texts)
    if "generate" in settings.decoders:
        total += texts(settings.beams, settings.beams, n_brain_tokens(config))
    if "encoding" in settings.decoders:
        # The best text has the most proposals, the last one the fewest.
        total += texts(settings.beams, settings.extensions * (settings.beams + 1) / 2) + ENCODING_PER_VALUE * values
        total += position * (settings.lm_context * examples / contexts + TOKENS_PER_WORD * sum(sizes.heard))
    return total + _scores(windows, max(len(sizes.heard) * share, 1.0), config)


def _scores(windows: float, stories: float, config: Config) -> float:
    """Seconds: every long window of a story against every other for decoders, against its own for null texts; shifts."""
    settings = config.story
    long_windows = windows * config.window.seconds / settings.seconds
    n_scores = len(settings.decoders) * long_windows**2 / stories + settings.null_texts * long_windows
    rows = (len(settings.decoders) * STORY_METRICS + 1) * (stories + 1)
    return STORY_METRICS * PER_SCORE * n_scores + PER_SHIFT * rows * settings.permutations


def disk(sizes: Sizes, config: Config, model: ModelSize) -> float:
    """GB that the outputs of a participant take: responses, decoders, and figures."""
    models = FLOAT * (n_tokenizer(config, sizes.n_columns, model.width) + 3 * sizes.n_columns) * max(len(sizes.folds), 1)
    return (1.2 * sizes.responses + models) / GB + 0.01
