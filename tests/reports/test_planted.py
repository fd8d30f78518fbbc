"""Planted faults are called out in words at the top of both kinds of page, and a sound decoder is not accused."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.config import Outcome, Request, load
from bids_brainlm.evaluation.evidence import EVIDENCE_COLUMNS, coverage
from bids_brainlm.evaluation.matrix import Evidence
from bids_brainlm.evaluation.metrics import chosen
from bids_brainlm.evaluation.table import Informed, Predictions, Sampling, summary
from bids_brainlm.io.files import read_tsv, write_json, write_tsv
from bids_brainlm.reports.assemble import write_participant
from bids_brainlm.reports.group import write_group
from bids_brainlm.stages.outputs import WRITER

N, K = 24, 199
ANIMALS = ("dog", "cat", "cow", "fox", "owl", "bee")
RNG = np.random.default_rng(0)


def predictions(collapsed: bool = False, alone: str = "it is a thing") -> Predictions:
    """Texts that name the right animal, or one sentence whatever the brain."""
    right = [f"a {ANIMALS[i % 6]} sleeps <b>{i}</b>" for i in range(N)]
    frame = pd.DataFrame({"trial_id": [f"t{i}" for i in range(N)], "stimulus_id": [f"s{i}" for i in range(N)], "fold": 0})
    frame = frame.assign(prompt="What is it?", group=frame["stimulus_id"], text_true=right, n_tokens=4)
    said = {"true": right, "permuted": right[3:] + right[:3], "none": [alone] * N}
    parts = []
    for condition, texts in said.items():
        nll = RNG.normal(4.0 if condition == "true" else 9.0, 0.5, N)
        parts.append(frame.assign(condition=condition, text_pred=["a man eats"] * N if collapsed else texts, nll=nll))
    return Predictions(pd.concat(parts, ignore_index=True))


def informed(confident: bool) -> Informed:
    """Bits above 0 at a temperature of 1, or below it because the decoder is much too sure."""
    bits = RNG.normal(-2.0 if confident else 4.0, 0.5, N)
    return Informed(bits, np.full(N, 6.0), 6.0 + bits * np.log(2), ([4.0 if confident else 1.0], [1.0]))


def write(request: Request, participant: str, made: Predictions, about: Informed, marks: dict[str, Any]) -> None:
    """The files of the stages decode and evaluate, with their stamps."""
    true = made.of("true")
    specificity = made.of("permuted").nll - true.nll
    evidence = Evidence(made.of("permuted").nll + RNG.normal(0, 1, (K, N)), specificity, np.full(N, N - 1), {})
    metrics = chosen(["rouge_l", "wer"])
    table = summary(made, metrics, evidence, informed=about, sampling=Sampling(200, 200))
    columns = (true.table["trial_id"], np.ones(N), np.full(N, N), specificity, about.bits, specificity)
    single = pd.DataFrame(dict(zip(EVIDENCE_COLUMNS, columns, strict=True)))
    tables = {"decoded": made.table, "metrics": table, "evidence": single, "coverage": coverage(specificity, {"wer": np.ones(N)})}
    outputs: dict[str, dict[str, int]] = {}
    for desc, content in tables.items():
        path = request.out_dir / f"sub-{participant}" / "beh" / f"sub-{participant}_task-x_desc-{desc}_beh.tsv"
        write_tsv(path, content)
        write_json(path.with_suffix(".json"), {"Permutations": K, **(marks if desc == "metrics" else {})})
        outputs.setdefault(WRITER[desc], {})[str(path.relative_to(request.out_dir))] = path.stat().st_size
    for stage, written in outputs.items():
        stamp = request.out_dir / "logs" / "stages" / f"sub-{participant}_{stage}.json"
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(json.dumps({"key": "x", "outputs": written}))


CASES: dict[str, tuple[dict[str, Any], bool, dict[str, Any], tuple[str, ...]]] = {
    "sound": ({}, False, {}, ()),
    "collapsed": (
        {"collapsed": True},
        False,
        {},
        ("24 of 24 decoded texts are the same sentence (“a man eats”)", "without any brain"),
    ),
    "confident": ({}, True, {}, ("surer than it is right", "no likelier than for a model that knows texts alone")),
    "leaky": ({}, False, {"LeakySplit": True}, ("The split leaks on purpose",)),
    "judge": (
        {},
        False,
        {"Judge": {"Agreement": 0.4, "Answers": 50, "Unparsable": 20}},
        ("only 40% of pairs", "20 of 50 answers"),
    ),
}
"""Fault -> arguments of `predictions`, whether the decoder is over-confident, marks of sidecars, what is said."""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planted")
    folders = {"bids_dir": root, "out_dir": root / "out", "work_dir": root}
    config = load("cortext-small")
    request = Request(**folders, level="participant", participants=(), derivatives={}, config=config)
    for name, (given, confident, marks, _) in CASES.items():
        write(request, name, predictions(**given), informed(confident), marks)
        write_participant(request, name, Outcome(name))
    write_group(request, list(CASES))
    return root / "out"


def top(path: Path) -> str:
    """What stands before everything else of a page."""
    found = re.search(r'<div class="first.*?</div>', path.read_text("utf-8"), re.S)
    assert found is not None
    return unescape(found[0])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[3]])
def test_a_planted_fault_is_called_out_at_the_top(out: Path, name: str) -> None:
    said = top(out / f"sub-{name}.html")
    assert 'class="first doubt"' in said
    assert "But there are doubts:" in said
    for words in CASES[name][3]:
        assert words in said
    group = top(out / "group.html")
    assert f"sub-{name}: " in group
    assert CASES[name][3][0] in group


def test_a_sound_decoder_is_not_accused(out: Path) -> None:
    said = top(out / "sub-sound.html")
    assert 'class="first yes"' in said
    assert "doubt" not in said
    assert "sub-sound" not in top(out / "group.html")


def test_evidence_stands_beside_the_texts_and_text_stays_text(out: Path) -> None:
    page = (out / "sub-sound.html").read_text("utf-8")
    for heading in ("Rank", "Specificity", "Information", "Confidence"):
        assert f'<th scope="col" class="measure">{heading}</th>' in page
    assert page.count('<span class="bar">') == 4 * N
    assert "<b>1</b>" not in page
    assert "1 of 24" in page
    assert 'id="trust"' in page


def test_figures_of_all_participants_are_in_the_report_of_the_group(out: Path) -> None:
    page = (out / "group.html").read_text("utf-8")
    rows = (out / "group.tsv").read_text("utf-8").splitlines()[1:]
    part = page.partition("All participants together</h3>")[2].partition("</table>")[0]
    assert part.count('<th scope="row">') == len(rows) > 2


def test_participants_of_another_output_folder_are_gathered_under_its_name(out: Path, tmp_path: Path) -> None:
    """Two folders are one group of seven, whose figures are those of all; the dataset's own table keeps its own."""
    config = load("cortext-small")
    given = {"bids_dir": tmp_path, "work_dir": tmp_path, "level": "group", "participants": (), "config": config}
    strange = tmp_path / "fmriprep"
    strange.mkdir()
    request = Request(out_dir=tmp_path / "out", derivatives={"first": out, "fmriprep": strange}, **given)
    for name in ("a", "b"):
        write(request, name, predictions(), informed(False), {})
    assert write_group(request, ["a", "b", "absent"]).keys() == {"absent"}
    own = read_tsv(tmp_path / "out" / "phenotype" / "decodingmetrics.tsv")
    assert list(own["participant_id"]) == ["sub-a", "sub-b"]
    group = read_tsv(tmp_path / "out" / "group.tsv").set_index(["metric", "condition"])
    values = [summary_of(folder, name) for folder, names in ((tmp_path / "out", "ab"), (out, CASES)) for name in names]
    primary = ("nll_permuted_minus_true", "true")
    assert int(group["n"][primary]) == len(values) == 7
    assert float(group["gain"][primary]) == pytest.approx(np.mean([float(table["value"][primary]) for table in values]))
    page = (tmp_path / "out" / "group.html").read_text("utf-8")
    assert "first sub-leaky: " in page
    assert 'href="../' in page


def summary_of(folder: Path, name: str) -> pd.DataFrame:
    (path,) = (folder / f"sub-{name}" / "beh").glob("*_desc-metrics_beh.tsv")
    return read_tsv(path).set_index(["metric", "condition"])
