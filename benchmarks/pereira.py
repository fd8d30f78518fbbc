"""Real data: sentences that one person read (Pereira et al. 2018), told by a linear readout and continued by a decoder.

627 sentences of 168 passages, a row of 1000 principal components each, from ``pereira2018`` in the folder of test data. Passages
are held out whole, in five folds.

``linear``: ridge regression from rows to embeddings of sentences, with rows in order and shuffled. ``whole``: the recipe
``brainllm-small`` through the command line, chunks of sentences as texts, with a language model that `brainlm make-lm` trains
anew in each fold, on its training passages alone; every control. Folds are pooled, intervals are over passages.

    BRAINLM_TEST_DATA=... OMP_NUM_THREADS=1 python benchmarks/pereira.py linear [--embeddings FOLDER]
    BRAINLM_TEST_DATA=... OMP_NUM_THREADS=1 python benchmarks/pereira.py whole OUT [--embeddings FOLDER] [--folds 5]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bids_brainlm.evaluation.embeddings import bag_of_words, embed
from bids_brainlm.evaluation.linear import Identified, identify, predict
from bids_brainlm.evaluation.matrix import Evidence, LikelihoodMatrix
from bids_brainlm.evaluation.metrics import chosen
from bids_brainlm.evaluation.pairs import Comparisons
from bids_brainlm.evaluation.readout import kernels
from bids_brainlm.evaluation.surprise import bins, slopes
from bids_brainlm.evaluation.table import Predictions, Sampling, summary

N_FOLDS, N_VALIDATION, N_PERMUTATIONS = 5, 14, 200
METRICS = ("bleu1", "rouge_1", "rouge_l", "wer")
LM = ("--style", "continuation", "--steps", "250", "--layers", "2")
SETTINGS: dict[str, str] = {
    "window.chunks": "3",
    # The rows are principal components already; z-scored, the first hundred of their own would be any hundred.
    "model.components": "0",
}


@dataclass(frozen=True, eq=False)
class Study:
    """Rows (n, F), and the passage and text of each sentence."""

    x: Any
    passage: Any
    texts: list[str]

    @classmethod
    def read(cls, folder: Path) -> Study:
        table = pd.read_csv(folder / "sentences.tsv", sep="\t")
        return cls(np.load(folder / "features.npy"), table["passage"].to_numpy(), table["text"].astype(str).tolist())

    def folds(self, seed: int = 0) -> list[Any]:
        """Passages of the test set of each fold."""
        return np.array_split(np.random.default_rng(seed).permutation(np.unique(self.passage)), N_FOLDS)

    def parts(self, fold: int) -> dict[int, str]:
        """Passage -> its part in a fold."""
        folds = self.folds()
        validation = np.concatenate([folds[(fold + k) % N_FOLDS] for k in range(1, N_FOLDS)])[:N_VALIDATION]
        named = {int(p): "train" for p in self.passage} | {int(p): "validation" for p in validation}
        return named | {int(p): "test" for p in folds[fold]}


def linear(study: Study, embeddings: str) -> None:
    """Whole sentences, rows in order and shuffled within training."""
    print("rows      pairwise  identification  top 10    (with permuted brains)", flush=True)
    for label in ("in order", "shuffled"):
        parts = [_read_out(study, test, embeddings, shuffle=label == "shuffled") for test in study.folds()]
        found = Identified.concat(parts)
        null = f"({found.identification.null.mean():.3f}, {found.top.null.mean():.3f})"
        figures = (found.pairwise.mean(), found.identification.values.mean(), found.top.values.mean())
        print(f"{label}      {figures[0]:.3f}           {figures[1]:.3f}    {figures[2]:.3f}    {null}", flush=True)


def _read_out(study: Study, passages: Any, embeddings: str, shuffle: bool) -> Identified:
    rng = np.random.default_rng(0)
    test = np.isin(study.passage, passages)
    known, true = ([text for text, one in zip(study.texts, mask, strict=True) if one] for mask in (~test, test))
    vectors = embed(known + true, embeddings) if embeddings else bag_of_words(known + true, known)
    own, others = vectors[: len(known)], vectors[len(known) :]
    x = study.x[~test][rng.permutation(len(known))] if shuffle else study.x[~test]
    predicted = predict(kernels([(x, study.x[test])]), own, study.passage[~test])
    partners = np.stack([rng.permutation(len(true)) for _ in range(N_PERMUTATIONS)])
    return identify(predicted, others - own.mean(axis=0), true, study.passage[test], partners)


def prepared(study: Study, out: Path) -> None:
    """A dataset of one matrix, its table, and the parts and training texts of every fold."""
    (out / "bids" / "sub-P01").mkdir(parents=True, exist_ok=True)
    (out / "betas").mkdir(exist_ok=True)
    description = '{"Name": "Pereira 2018", "BIDSVersion": "1.10.0", "DatasetType": "raw"}\n'
    (out / "bids" / "dataset_description.json").write_text(description)
    np.save(out / "betas" / "sub-P01_task-read_betas.npy", study.x)
    table = pd.DataFrame({"onset": np.arange(len(study.x), dtype=float), "passage": study.passage, "text": study.texts})
    table.to_csv(out / "betas" / "sub-P01_task-read_trials.tsv", sep="\t", index=False)
    for fold in range(N_FOLDS):
        parts = study.parts(fold)
        pd.DataFrame({"group": parts.keys(), "split": parts.values()}).to_csv(
            out / "bids" / f"fold-{fold}.tsv", sep="\t", index=False
        )
        lines = [" ".join(table["text"][table["passage"] == p]) for p, part in parts.items() if part == "train"]
        (out / f"training-{fold}.txt").write_text("\n".join(lines) + "\n")


def run(name: str, *arguments: Any) -> None:
    """One of our own commands."""
    command = [str(Path(sys.executable).parent / name), *map(str, arguments)]
    print("$", " ".join(command), flush=True)
    subprocess.run(command, check=True)


def whole(study: Study, out: Path, embeddings: str, n_folds: int) -> None:
    """Folds one after the other, through the command line; those that are done are kept."""
    prepared(study, out)
    for fold in range(n_folds):
        llm = out / f"llm-{fold}"
        if not (llm / "config.json").is_file():
            shutil.rmtree(llm, ignore_errors=True)
            run("brainlm", "make-lm", *LM, out / f"training-{fold}.txt", llm)
        settings = [item for pair in SETTINGS.items() for item in ("--set", "=".join(pair))]
        run(
            "bids_brainlm", out / "bids", out / f"out-{fold}", "participant", "--participant-label", "P01", "-w", out / "work",
            "-d", f"betas={out / 'betas'}", "--recipe", "brainllm-small", "--words", "", "--text-column", "text",
            "--group", "passage", "--split", "list", "--set", f"split.source=fold-{fold}.tsv", "--atlas", "blocks:1",
            "--llm", llm, "--offline", "--permutations", N_PERMUTATIONS, "--metrics", *METRICS,
            "--embeddings", embeddings, *settings,
        )  # fmt: skip
    _report(out, n_folds)


def _tables(out: Path, n_folds: int, desc: str) -> list[pd.DataFrame]:
    name = f"sub-P01/beh/sub-P01_task-read_desc-{desc}_beh.tsv"
    return [pd.read_csv(out / f"out-{k}" / name, sep="\t", keep_default_na=False) for k in range(n_folds)]


def _evidence(decoded: pd.DataFrame, scores: pd.DataFrame) -> Evidence:
    """The likelihood matrix of a fold, whose sentences are all of one run; those with a chunk of these words are not compared."""
    true = decoded[decoded["condition"] == "true"].set_index("trial_id").loc[scores["trial_id"]]
    brains = list(scores.columns[4:])
    own = pd.Index(brains).get_indexer(scores["own"])
    first, texts = np.unique(own, return_index=True)[1], pd.factorize(true["text_true"])[0]
    said = np.zeros((texts.max() + 1, len(brains)), dtype=bool)
    said[texts, own] = True
    rng = np.random.default_rng(0)
    drawn = np.stack([rng.permutation(len(brains))[own] for _ in range(N_PERMUTATIONS)])
    brain = np.tile(np.arange(len(brains)), (len(own), 1))
    compared = Comparisons(first, brain, own, ~said[texts], own, drawn, 0)
    n_tokens, prompts = true["n_tokens"].astype(int).to_numpy(), list(true["prompt"])
    matrix = LikelihoodMatrix.from_frame(scores, compared, list(scores["trial_id"]), n_tokens)
    return Evidence.of(matrix, compared, prompts)


def _report(out: Path, n_folds: int) -> None:
    """Folds pooled: every figure, and figures by surprise."""
    decoded = [table.assign(fold=k) for k, table in enumerate(_tables(out, n_folds, "decoded"))]
    predictions = Predictions(pd.concat(decoded, ignore_index=True))
    evidence = Evidence.concat(list(map(_evidence, decoded, _tables(out, n_folds, "likelihood"))))
    sampling = Sampling(2000)
    table = pd.concat(
        [summary(predictions, chosen(METRICS), evidence, sampling=sampling), slopes(predictions, evidence, sampling)]
    )
    readouts = pd.concat([part[part["condition"] == "ridge"] for part in _tables(out, n_folds, "metrics")]).astype(
        {"value": float, "n": int}
    )
    print(table.to_string(index=False, float_format="{:.4f}".format))
    print(bins(predictions, evidence, sampling).to_string(index=False, float_format="{:.3f}".format))
    for metric, part in readouts.groupby("metric", sort=False):
        print(f"{metric} of the ridge readout: {np.average(part['value'], weights=part['n']):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["linear", "whole"])
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--embeddings", default="", help="folder of a sentence-transformers model; bags of words without")
    parser.add_argument("--folds", type=int, default=N_FOLDS)
    chosen_ = parser.parse_args()
    study = Study.read(Path(os.environ["BRAINLM_TEST_DATA"]) / "pereira2018")
    if chosen_.part == "linear":
        linear(study, chosen_.embeddings)
    elif chosen_.out is None:
        parser.error("whole needs a folder OUT")
    else:
        whole(study, chosen_.out.resolve(), chosen_.embeddings, chosen_.folds)


if __name__ == "__main__":
    main()
