"""Outputs are joined by the ids of their items; what does not fit is counted and left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

from bids_brainlm.cli import companion
from bids_brainlm.core.types import DECODED_COLUMNS
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.evaluation.paired import COMPARE_COLUMNS
from bids_brainlm.evaluation.table import Sampling
from bids_brainlm.io.files import read_tsv, write_tsv
from bids_brainlm.stages.compare import Scoring, compare, labels_of

WER = Scoring(("wer",))
QUICK = Sampling(100, 500)


def output(root: Path, texts: Mapping[str, tuple[str, str]], participants: tuple[str, ...] = ("01",), nll: float = 5.0) -> Path:
    """An output whose items have a right text and the one that is decoded; specificity 1."""
    for who in participants:
        rows = [
            (item, item, 0, item, condition, "", right, decoded, nll, 3)
            for condition in ("true", "permuted")
            for item, (right, decoded) in texts.items()
        ]
        names = ["trial_id", "stimulus_id", "fold", "group", "condition", "prompt", "text_true", "text_pred", "nll", "n_tokens"]
        stem = root / f"sub-{who}" / "beh" / f"sub-{who}_task-x_desc"
        write_tsv(stem.with_name(f"{stem.name}-decoded_beh.tsv"), pd.DataFrame(rows, columns=names)[list(DECODED_COLUMNS)])
        evidence = pd.DataFrame({"trial_id": list(texts), "specificity": 1.0, "information": float("nan")})
        write_tsv(stem.with_name(f"{stem.name}-evidence_beh.tsv"), evidence)
    return root


def test_items_are_joined_by_their_ids(tmp_path: Path) -> None:
    """In another order, with items of its own, and one whose right text is another one."""
    first = output(tmp_path / "a", {"t1": ("a b", "a b"), "t2": ("c d", "x d"), "t3": ("e f", "e f"), "t4": ("g", "g")})
    second = output(tmp_path / "b", {"t5": ("a b", "a b"), "t2": ("c d", "c d"), "t1": ("a b", "y z"), "t4": ("h", "g")}, nll=4.0)
    table, (joined,), left_out = compare([first, second], WER, QUICK)
    assert (joined.both, joined.only_baseline, joined.only_output, joined.other_text) == (2, 1, 1, 1)
    assert left_out == []
    assert list(table.columns) == list(COMPARE_COLUMNS)
    rows = table[table["condition"] == "true"].set_index("metric")
    assert rows.loc["wer", ["baseline", "value", "difference", "n"]].tolist() == [0.25, 0.5, 0.25, 2]
    assert rows.loc["nll", "difference"] == -1
    assert rows.loc["specificity", "difference"] == 0
    assert "information_bits" not in rows.index  # nobody measured it


def test_words_are_weighed_by_the_items_of_both(tmp_path: Path) -> None:
    """CIDEr counts in how many texts a word is: of what is compared, and of nothing else."""
    texts = {"t1": ("a red dog", "a red dog"), "t2": ("a blue cat", "a blue cat")}
    more = {f"t{i}": ("a red dog", "a red dog") for i in range(3, 9)}
    plain = compare([output(tmp_path / "a", texts), output(tmp_path / "b", texts)], Scoring(("cider",)), QUICK)[0]
    extended = compare([output(tmp_path / "c", texts), output(tmp_path / "d", texts | more)], Scoring(("cider",)), QUICK)[0]
    assert "cider" in set(plain["metric"])
    assert plain["value"].tolist() == extended["value"].tolist()


def test_participants_and_outputs_that_are_alone_are_named(tmp_path: Path) -> None:
    texts = {"t1": ("a b", "a b")}
    folders = [
        output(tmp_path / name, texts, who) for name, who in (("a", ("01", "02")), ("b", ("02", "03")), ("c", ("01", "02")))
    ]
    table, joined, left_out = compare(folders, WER, QUICK)
    assert [(item.participant, item.output) for item in joined] == [("sub-02", "b"), ("sub-01", "c"), ("sub-02", "c")]
    assert left_out == ["sub-01_task-x: left out, not in b", "sub-03_task-x: left out, in b alone"]
    together = table[table["participant"] == "all"]
    assert set(together["output"]) == {"c"}
    assert set(together["n"]) == {2}


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    first, other = output(tmp_path / "a", {"t1": ("a", "a")}), output(tmp_path / "b", {"t2": ("a", "a")})
    with pytest.raises(InputError, match="no test item in common"):
        compare([first, other], WER, QUICK)
    with pytest.raises(InputError, match="compared with itself"):
        compare([first, first], WER, QUICK)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match="no decoded texts"):
        compare([first, tmp_path / "empty"], WER, QUICK)


def test_names_of_outputs() -> None:
    assert labels_of([Path("x/a"), Path("y/a"), Path("y/b")]) == ["x/a", "y/a", "y/b"]


def test_the_command_writes_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = tmp_path / "facts.tsv"
    facts.write_text("key\tanimal\nt1\tdog\nt2\tcat\n", encoding="utf-8")
    full = output(tmp_path / "full", {"t1": ("a dog", "a dog"), "t2": ("a cat", "a cat")})
    without = output(tmp_path / "without", {"t1": ("a dog", "a cat"), "t2": ("a cat", "a cat")})
    argv = ["compare", str(full), str(without), "--metrics", "wer", "facts", "--facts", str(facts)]
    assert companion.main([*argv, "--category", "animal=dog", "--table", str(tmp_path / "t.tsv")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("baseline: full\nsub-01: 2 items of both;")
    rows = read_tsv(tmp_path / "t.tsv").set_index(["metric", "condition"])
    assert rows.loc[("zero_shot_hits", "true"), "difference"] == "-1.0"
    assert rows.loc[("zero_shot_false_alarms", "true"), "difference"] == "0.0"
    assert rows.loc[("facts", "true"), "difference"] == "-0.5"
    assert json.loads((tmp_path / "t.json").read_text("utf-8"))["Baseline"] == "full"
    assert companion.main([*argv, "--category", "animal=horse"]) == 65
    assert "no such category" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--category", "a=b", "."]])
def test_bad_usage(more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert companion.main(["compare", str(tmp_path), *[str(tmp_path) if word == "." else word for word in more]]) == 2
    assert capsys.readouterr().err.strip()
