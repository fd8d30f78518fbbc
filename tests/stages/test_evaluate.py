"""Readouts go through the responses some vertices at a time, and name what they would name with all in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.config import Request, load
from bids_brainlm.core.types import Examples, Prompt, Recording, Split
from bids_brainlm.errors import MissingResourceError
from bids_brainlm.evaluation import readout as readouts
from bids_brainlm.evaluation.metrics import Facts, chosen
from bids_brainlm.evaluation.readout import readout
from bids_brainlm.stages import evaluate
from bids_brainlm.stages.baselines import baseline_texts, distinct, responses
from bids_brainlm.stages.tables import table_faults

N, V = 48, 37


def split() -> tuple[Split, Facts]:
    """Two rows of three repeats each; a fact that all stimuli have and one that some lack."""
    rng = np.random.default_rng(0)
    names = np.array([f"s{i}" for i in range(N)])
    facts = pd.DataFrame({"key": names, "kind": np.where(np.arange(N) % 2, "cat", "dog"), "size": np.arange(N) % 3})
    facts["size"] = np.where(np.arange(N) % 5 == 0, "", facts["size"].astype(str))
    data = rng.standard_normal((6 * N, V), dtype=np.float32)
    data += np.repeat(np.arange(N) % 2, 6)[:, None] * rng.standard_normal(V) + 3
    data[7, 3] = np.nan
    recording = Recording(data, "percent signal change", "beta", np.arange(6 * N), np.zeros(6 * N))
    rows = np.arange(6 * N).reshape(N, 2, 3)
    rows[::2, :, 2] = -1
    examples = Examples(recording, rows, (Prompt("", "x"),) * N, (("x",),) * N, names, names, names)
    return Split(examples, np.arange(30), np.arange(0), np.arange(30, N)), Facts.from_frame(facts, "key")


def test_readouts_of_facts_are_fitted_to_each_response_once() -> None:
    """Whether a response is asked for one text or for three: labels named are the same."""
    fold, facts = split()
    once, n = fold.examples, len(fold.train)
    thrice = np.concatenate([np.tile(fold.train, 3), fold.test])
    copied = {name: [getattr(once, name)[i] for i in thrice] for name in ("prompts", "references", "group", "stimulus")}
    examples = Examples(once.recording, once.rows[thrice], **copied, id=np.arange(thrice.size).astype(str))
    asked = Split(examples, np.arange(3 * n), np.arange(0), np.arange(3 * n, thrice.size))
    assert responses(fold).tolist() == fold.train.tolist()
    assert responses(asked).tolist() == list(range(n))
    plain, more = (evaluate._read_out([one], facts, ["ridge"], 0)["ridge"] for one in (fold, asked))
    np.testing.assert_array_equal(plain, more)


@pytest.mark.parametrize("panel_bytes", [4 * 2 * 30 * 5, 2**28])
def test_readouts_in_panels_equal_readouts_in_memory(panel_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fold, facts = split()
    monkeypatch.setattr(readouts, "PANEL_BYTES", panel_bytes)
    found = evaluate._read_out([fold], facts, ("ridge", "logistic"), 0)
    x, labels = fold.examples.gather(np.arange(N)).reshape(N, -1), facts.labels(fold.examples.stimulus)
    for kind, columns in found.items():
        for own, said in zip(labels.T, columns.T, strict=True):
            known = fold.train[own[fold.train] != ""]
            expected = readout(x[known], own[known], x[fold.test], kind, fold.examples.group[known])
            np.testing.assert_array_equal(said, expected)
        assert (columns[:, 0] == labels[fold.test, 0]).mean() > 0.9


def test_readouts_are_fitted_to_a_bounded_number_of_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    fold, facts = split()
    monkeypatch.setattr(readouts, "MOST", 20)
    assert readouts.sampled(np.arange(20), 0).tolist() == list(range(20))
    some = readouts.sampled(fold.train, 0)
    assert (some.size, np.unique(some).size) == (20, 20)
    assert evaluate._read_out([fold], facts, ("ridge",), 0)["ridge"].shape == (18, 2)


def told(n_contexts: int = 2) -> Split:
    """Texts of one word in groups of three, with the row that the word moves; each with prompts of two lengths."""
    rng = np.random.default_rng(1)
    names = [f"w{i % 8}" for i in range(N)]
    data = rng.standard_normal((8, V))[np.arange(N) % 8] + 0.3 * rng.standard_normal((N, V))
    recording = Recording(data.astype(np.float32), "percent signal change", "beta", np.arange(N), np.zeros(N))
    which = np.repeat(np.arange(N), n_contexts)
    ids = [f"e{i}_{k}" for i in range(N) for k in range(n_contexts)]
    prompts = tuple(Prompt(f"so far {k}", names[i]) for i in range(N) for k in range(n_contexts))
    references = tuple((prompt.answer,) for prompt in prompts)
    heard = tuple((f"s{i}/{k}",) for i in range(N) for k in range(n_contexts))
    groups = np.array([f"g{i // 4}" for i in which])
    examples = Examples(recording, which, prompts, references, groups, np.array(ids), np.array(ids), heard)
    part = np.flatnonzero(which >= 24)
    return Split(examples, np.flatnonzero(which < 24), np.arange(0), part)


def asking(tmp_path: Path, **settings: object) -> Request:
    config = load(overrides={"decode.permutations": 30, **settings})
    return Request(tmp_path, tmp_path / "out", "participant", ("1",), {}, tmp_path / "work", config)


def test_texts_are_told_from_the_rows_whatever_the_length_of_the_context(tmp_path: Path) -> None:
    fold = told()
    one, two = (evaluate._identified(asking(tmp_path), [split])["ridge"] for split in (told(1), fold))
    assert two.identification.values.mean() > 0.95
    assert two.pairwise.mean() > 0.95
    # A permuted brain is that of another of the eight texts, which then is nearer than the true one.
    assert 0.35 < two.identification.null.mean() < 0.5
    assert two.cosine.null.shape == (30, 48)
    # Rows and text are what a readout sees: a second context tells it nothing.
    np.testing.assert_allclose(one.cosine.values, two.cosine.values[::2], rtol=1e-6)
    assert distinct(fold).tolist() == list(range(0, 48, 2))
    assert evaluate._identified(asking(tmp_path, **{"evaluate.readout": ["logistic"]}), [fold]) == {}


def test_baselines_say_texts_of_training_or_of_the_corpus(tmp_path: Path) -> None:
    fold = told()
    names = ["nearest_text", "nearest_response"]
    found = baseline_texts(asking(tmp_path, **{"evaluate.baselines": names}), [fold, fold])
    right = [fold.examples.prompts[i].answer for i in fold.test] * 2
    for name in names:
        assert np.mean(np.array(found[name]) == right) > 0.9
    (tmp_path / "corpus.txt").write_text(f"{right[0]}\n\nnever  heard\n", encoding="utf-8")
    request = asking(tmp_path, **{"evaluate.baselines": names[:1], "evaluate.corpus": "corpus.txt"})
    assert set(baseline_texts(request, [fold])["nearest_text"]) == {right[0], "never heard"}
    assert baseline_texts(asking(tmp_path), [fold]) == {}
    (tmp_path / "corpus.txt").write_text("\n", encoding="utf-8")
    assert "the corpus is empty" in str(table_faults(request)[0])


def test_whose_surprise_it_is(tmp_path: Path) -> None:
    assert evaluate.trained_parts(load("brainllm-small")) == ()
    assert evaluate.trained_parts(load("cortext")) == ("norms", "lora")


def test_a_metric_that_lacks_something_is_named_with_it(caplog: pytest.LogCaptureFixture) -> None:
    found = evaluate.not_run(chosen(["meteor", "rouge_1", "facts"]), {})
    assert list(found) == ["meteor"]
    assert "the metric meteor is not run: it needs WordNet" in caplog.text


def test_models_that_texts_are_compared_by_are_looked_for_before_anything_is_trained(tmp_path: Path, bert_folder: Path) -> None:
    assert evaluate.text_models(asking(tmp_path)) == []
    there = asking(tmp_path, **{"evaluate.embeddings": str(bert_folder), "evaluate.bertscore": str(bert_folder)})
    assert evaluate.text_models(there) == [bert_folder, bert_folder]
    with pytest.raises(MissingResourceError, match="check --bertscore"):
        evaluate.text_models(asking(tmp_path, **{"evaluate.bertscore": str(tmp_path)}))
    faults = table_faults(asking(tmp_path, **{"evaluate.embeddings": "nowhere"}))
    assert [str(fault) for fault in faults if "--embeddings" in str(fault)]
