"""A trained participant, opened again from an output folder: responses, texts, folds, and the decoder of each fold.

    participant = open_participant("out", "01")
    test = participant.test(fold=0)
    decoder = participant.decoder(fold=0)

Settings are those that the decoders were trained with; they stand in the model files. Where the dataset lies is read from the
newest call in ``logs/`` that ran this participant. What was a training trial then is one now: the examples of every fold are
compared with those that the model file names.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from bids_brainlm.config import Request, as_tree, build, resolve
from bids_brainlm.core.types import Examples, Floats, Ints, Parcellation, Split
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.models import checkpoint
from bids_brainlm.stages import cache, decoder
from bids_brainlm.stages.examples import examples_of, splits_of
from bids_brainlm.stages.responses import Trials, atlas_of, load_trials

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Participant:
    """What an output folder holds of one participant.

    Parameters
    ----------
    label : str
        Without ``sub-``.
    request : Request
        With the settings of training.
    models : tuple of Path
        Model file of each fold.
    """

    label: str
    request: Request
    models: tuple[Path, ...]
    _decoders: dict[int, decoder.Decoder] = field(default_factory=dict)

    @cached_property
    def trials(self) -> Trials:
        """Responses (R, V) with the table of trials or volumes."""
        return load_trials(self.request, self.label)

    @cached_property
    def atlas(self) -> Parcellation:
        """Parcels of the V vertices."""
        return atlas_of(self.request, self.trials.geometry)

    @cached_property
    def examples(self) -> Examples:
        """All examples, of all parts."""
        return self.folds[0].examples

    @cached_property
    def folds(self) -> tuple[Split, ...]:
        """The folds as they were trained on.

        Raises
        ------
        InputError
            When dataset and settings do not give the folds any more that a model file names.
        """
        folds = splits_of(self.request, self.trials, examples_of(self.request, self.trials))
        for fold, path in zip(folds, self.models, strict=True):
            about = checkpoint.about(path)
            for part, index in (("training", fold.train), ("test", fold.test)):
                known = set(about[f"{part}_ids"])
                if known != set(map(str, fold.examples.id[index])):
                    what = f"the {part} examples of fold {fold.fold} are others than when the decoder was trained"
                    remedy = "run bids_brainlm again with this dataset"
                    raise InputError(what, path, expected=f"{len(known)} that the file names", remedy=remedy)
        return folds

    def decoder(self, fold: int = 0) -> decoder.Decoder:
        """Trained decoder of a fold, ready to score and generate; loaded once."""
        if fold not in self._decoders:
            self._decoders[fold] = decoder.load(self.models[fold], self.request.config)
        return self._decoders[fold]

    def digest(self, fold: int = 0) -> str:
        """SHA-256 of the weights of a fold's decoder, as tables of controls have its first digits."""
        return checkpoint.digest(self.models[fold])

    def test(self, fold: int = 0) -> Examples:
        """Held-out examples of a fold, with prompts as short as they are decoded with."""
        split = self.folds[fold]
        return decoder.within_limits(split.examples.take(split.test), self.decoder(fold).text, self.request.config)

    def held_out(self) -> dict[str, int]:
        """Id of every example that some fold holds out -> that fold."""
        return {str(name): split.fold for split in self.folds for name in split.examples.id[split.test]}

    def part_of(self, name: str, fold: int) -> str:
        """``train``, ``validation``, ``test``, or ``unused``: what the example was in that fold."""
        split = self.folds[fold]
        return next((part for part in PARTS if name in split.examples.id[getattr(split, part)]), "unused")

    def find(self, text: str) -> Ints:
        """Indices of `examples` with that id or stimulus; else whose id ends so; else with a right text that has it, in any case.

        An end of an id begins after an underscore: ``run-01_trial-0003``. All questions about a trial have its id.
        """
        examples = self.examples
        trial = np.array([name.partition("_q-")[0] for name in map(str, examples.id)])
        exact = (examples.id == text) | (trial == text) | (examples.stimulus == text)
        for found in (exact, np.char.endswith(trial, f"_{text}")):
            if found.any():
                return np.flatnonzero(found)
        wanted = text.casefold()
        said = [any(wanted in reference.casefold() for reference in references) for references in examples.references]
        return np.flatnonzero(said)

    def scale(self, fold: int = 0) -> Floats:
        """(V,) float32 standard deviation of each vertex over the training responses of a fold; 0 where it is not used."""
        return np.asarray(self.decoder(fold).model.of_vertices.scale.cpu().numpy(), dtype=np.float32)


def open_participant(out_dir: str | Path, label: str, *, bids_dir: str | Path | None = None, device: str = "auto") -> Participant:
    """Open what ``bids_brainlm`` wrote of a participant.

    Parameters
    ----------
    out_dir : path
        Output folder.
    label : str
        With or without ``sub-``.
    bids_dir : path, optional
        Where the dataset lies now; as in the newest call otherwise.
    device : {"auto", "cpu", "cuda"}

    Raises
    ------
    MissingInputError
        When there is no trained decoder of that participant, or the dataset is not where it was.
    """
    out_dir, label = Path(out_dir).expanduser().resolve(), label.removeprefix("sub-")
    if not out_dir.is_dir():
        raise MissingInputError("the output folder does not exist", out_dir, expected="a folder that bids_brainlm wrote")
    models = tuple(
        path for path in cache.outputs(out_dir, f"sub-{label}_train") if path.name.endswith("decoder_model.safetensors")
    )
    missing = [path for path in models if not path.is_file()]
    if missing or not models:
        known = sorted(path.name.split("_")[0] for path in (out_dir / "logs" / "stages").glob("sub-*_train.json"))
        expected = f"a participant among {', '.join(known)}" if known else "a finished run of bids_brainlm"
        where = missing[0] if missing else out_dir
        raise MissingInputError(f"no trained decoder of sub-{label}", where, expected=expected, remedy="train it first")
    request = _called(out_dir, label)
    config = build({**checkpoint.about(models[0])["config"], "run": as_tree(request.config)["run"]})
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, device=device))
    bids = request.bids_dir if bids_dir is None else Path(bids_dir).expanduser().resolve()
    if not bids.is_dir():
        raise MissingInputError("the dataset is not there any more", bids, expected="the BIDS folder", remedy="set --bids-dir")
    return Participant(label, dataclasses.replace(request, bids_dir=bids, config=config), models)


def _called(out_dir: Path, label: str) -> Request:
    """The newest call that ran a participant, as its file in ``logs/`` has it, wherever the output folder is now."""
    for path in sorted((out_dir / "logs").glob("*.toml"), reverse=True):
        resolved = resolve(file=path)
        call = resolved.call
        labels = tuple(call.get("participant_label", ()))
        if call.get("level") == "participant" and (not labels or label in labels):
            derivatives = {name: Path(folder) for name, folder in call.get("derivatives", {}).items()}
            folders = (Path(call["bids_dir"]), out_dir)
            work_dir = Path(call.get("work_dir", "work"))
            return Request(*folders, "participant", (label,), derivatives, work_dir, resolved.config)
    raise MissingInputError("no call of this participant", out_dir / "logs", expected="the .toml file of a run")
