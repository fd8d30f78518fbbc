"""A finished participant opened again: what is asked of it is answered as the run decoded it."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bids_brainlm.cli import companion
from bids_brainlm.insilico.ask import Conversation
from bids_brainlm.insilico.participant import open_participant

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "ask.md"


def decoded(study: Any) -> pd.DataFrame:
    return study.table("decoded").astype({"text_pred": str}).set_index(["condition", "trial_id"]).sort_index()


def test_answers_are_those_that_the_run_decoded(volume_done: Any) -> None:
    table, participant = decoded(volume_done), open_participant(volume_done.out, "01")
    held_out = participant.held_out()
    assert sorted(held_out) == sorted(table.loc["true"].index)
    for name in sorted(held_out)[:4]:
        conversation = Conversation(participant, name)
        answer = conversation.ask()
        true, none = table.loc["true", name], table.loc["none", name]
        assert (answer.text, answer.none) == (true.text_pred, none.text_pred)
        assert answer.trial.part == "test"
        assert answer.right is not None
        assert " | ".join(answer.references) == true.text_true
        assert (answer.right.nll, answer.right.nll_none) == pytest.approx((true.nll, none.nll), abs=1e-3)
        # All brains of its run that may be compared with it: so few that none is left out.
        row = volume_done.table("evidence").set_index("trial_id").loc[name]
        assert (answer.right.rank, answer.right.n_brains) == (row["rank"], row.n_brains)
        assert answer.right.specificity == pytest.approx(row.specificity, abs=1e-3)


def test_a_moved_output_is_asked_from_the_command_line(
    volume_done: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(volume_done.out, tmp_path / "moved")
    name = str(volume_done.table("decoded").trial_id[0])
    where = [str(out), "--participant-label", "sub-01", "--bids-dir", str(volume_done.bids)]
    assert companion.main(["ask", *where, "--trial", name, "--question", "", "What is it?"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["answer"] == decoded(volume_done).loc["true", name].text_pred
    assert (first["trial"], first["turn"], second["turn"]) == (name, 1, 2)
    assert companion.main(["ask", *where, "--trial", "blue-brid", "--question", ""]) == 66
    assert "did you mean 'blue-bird'?" in capsys.readouterr().err


def test_a_window_of_a_story_goes_on(story_done: Any) -> None:
    participant = open_participant(story_done.out, "01")
    path = next((story_done.out / "sub-01" / "beh").glob("*_desc-decoded_beh.tsv"))
    table = pd.read_csv(path, sep="\t", keep_default_na=False).replace({"text_pred": {"n/a": ""}})
    true = table[table.condition == "true"]
    some = [*true[true.prompt != ""].head(2).itertuples(), *true[true.text_pred != ""].head(2).itertuples()]
    for row in some:
        conversation = Conversation(participant, row.trial_id)
        assert conversation.goes_on
        answer = conversation.ask()
        assert (answer.question, answer.text) == (row.prompt, row.text_pred)
        assert answer.right is not None
        assert answer.right.nll == pytest.approx(row.nll, abs=1e-3)
        assert conversation.ask("and a").turn == 2


def test_the_page_runs(volume_done: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(volume_done.root)
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(block, str(PAGE), "exec"), {})
    assert "held out in fold 0" in said.getvalue()
    assert "  rank " in said.getvalue()
