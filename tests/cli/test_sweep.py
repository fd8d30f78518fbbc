"""Command lines of a sweep: what is varied, what is shared, how failures end, and what is gathered."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bids_brainlm.cli import app, companion, exits, sweep
from bids_brainlm.cli.arguments import given_settings
from bids_brainlm.config import load
from bids_brainlm.evaluation.table import METRICS_COLUMNS
from bids_brainlm.io.files import read_tsv, write_json, write_tsv

PRIMARY = "nll_permuted_minus_true"


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    (tmp_path / "bids").mkdir()
    return tmp_path / "bids"


def printed(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]


def test_every_combination_has_a_line_that_the_app_accepts(
    tmp_path: Path, bids: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["sweep", str(tmp_path / "s w"), "--vary", "atlas=kmeans100,my atlas.nii", "split.amount=0.5,1", "--print"]
    assert companion.main([*argv, "--", str(bids), "--recipe", "cortext-small", "--llm", "a model"]) == 0
    first, *rest = printed(capsys)
    assert first[2].endswith("s w/responses")
    assert first[-3:] == ["--skip", "train", "reports"]
    seen = []
    for line in rest:
        assert line[0] == app.NAME
        assert line[line.index("-w") + 1] == str(tmp_path / "s w" / "work")
        (tmp_path / "s w" / "responses").mkdir(parents=True, exist_ok=True)
        context = app.command.make_context(app.NAME, line[1:], obj=exits.Ending())
        config = load(context.params["recipe"], None, given_settings(context), context.params["overrides"])
        assert context.params["derivatives"] == {"betas": tmp_path / "s w" / "responses"}
        assert config.model.llm == "a model"
        seen.append((Path(line[2]).name, config.parcels.atlas, config.split.amount))
    assert seen == [
        ("atlas-kmeans100_amount-0.5", "kmeans100", 0.5),
        ("atlas-kmeans100_amount-1", "kmeans100", 1.0),
        ("atlas-my-atlas.nii_amount-0.5", "my atlas.nii", 0.5),
        ("atlas-my-atlas.nii_amount-1", "my atlas.nii", 1.0),
    ]
    assert json.loads((tmp_path / "s w" / "points.json").read_text("utf-8"))[seen[0][0]] == {
        "atlas": "kmeans100",
        "split.amount": "0.5",
    }


@pytest.mark.parametrize(
    ("vary", "more"),
    [
        ("estimator=lss,lsa", []),
        ("text.key=a,b", []),
        ("split.folds=2,3", []),
        ("atlas=kmeans100,blocks:5", ["--words", "auto"]),
        ("atlas=kmeans100", []),
    ],
)
def test_responses_are_shared_only_where_they_are_the_same(
    vary: str, more: list[str], tmp_path: Path, bids: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert companion.main(["sweep", str(tmp_path / "s"), "--vary", vary, "--", str(bids), *more]) == 0
    lines = printed(capsys)
    assert len(lines) == len(vary.split(","))
    assert not any(word.startswith("betas=") for line in lines for word in line)


def test_a_grid_may_be_a_file(tmp_path: Path, bids: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text('recipe = ["cortext", "cortext-small"]\n"split.amount" = [0.25, 1.0]\n', encoding="utf-8")
    assert companion.main(["sweep", str(tmp_path / "s"), "--grid", str(grid), "--", str(bids)]) == 0
    names = [Path(line[2]).name for line in printed(capsys)]
    assert names[-4:] == [
        f"recipe-{recipe}_amount-{amount}" for recipe in ("cortext", "cortext-small") for amount in ("0.25", "1.0")
    ]


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["--vary", "atlass=a,b", "--"], 2, "no setting 'atlass'"),
        (["--vary", "split.amount=half", "--"], 2, "split.amount"),
        (["--vary", "atlas=a/x,b/x", "--"], 2, "would be called atlas-x"),
        (["--vary", "atlas", "--"], 2, "expected setting=value,value"),
        (["--"], 2, "nothing is swept"),
        (["--print", "--run", "--"], 2, "is enough"),
        (["--vary", "atlas=a,b"], 2, "after -- there must be the BIDS folder"),
        (["--collect"], 66, "no sweep was begun"),
    ],
)
def test_faults(argv: list[str], code: int, said: str, tmp_path: Path, bids: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = [str(bids)] if "--" in argv else []
    assert companion.main(["sweep", str(tmp_path / "s"), *argv, *common]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("codes", "expected", "n_run"),
    [
        ([0, 0, 0], 0, 3),
        ([0, 65, 0], 75, 3),
        ([0, 65, 65], 75, 3),
        ([65, 0, 0], 65, 1),
        ([75, 0, 0], 75, 3),
        ([0, 143, 0], 143, 2),
    ],
)
def test_failures_are_named_and_end_as_documented(
    codes: list[int],
    expected: int,
    n_run: int,
    tmp_path: Path,
    bids: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The responses, then two points."""
    left, ran = list(codes), []

    def fake(argv: list[str], check: bool) -> Any:
        ran.append(argv)
        return SimpleNamespace(returncode=left.pop(0))

    monkeypatch.setattr(sweep, "subprocess", SimpleNamespace(run=fake))
    monkeypatch.setattr(sweep, "_collect", lambda folder, metric: 0)
    argv = ["sweep", str(tmp_path / "s"), "--vary", "atlas=kmeans100,blocks:5", "--run", "--", str(bids)]
    assert companion.main(argv) == expected
    assert len(ran) == n_run
    err = capsys.readouterr().err
    for name, code in zip(("responses", "atlas-kmeans100", "atlas-blocks-5"), codes[:n_run], strict=False):
        assert (f"{name} failed [exit code {code}]" in err or f"{name} ended with {code}" in err) == (code != 0)


def test_all_points_failed_alike() -> None:
    assert sweep._run([("a", ["x", "--no-such-option"]), ("b", ["x", "--no-such-option"])]) == 2


def write_point(root: Path, point: str, who: str, value: float) -> None:
    rows = [
        (PRIMARY, "true", value, value - 0.1, value + 0.1, 20, 0.0, 0.01, float("nan")),
        ("bleu1", "true", 0.2, *[float("nan")] * 6),
    ]
    table = {name: [row[i] for row in rows] for i, name in enumerate(METRICS_COLUMNS)}
    write_tsv(root / point / f"sub-{who}" / "beh" / f"sub-{who}_task-x_desc-metrics_beh.tsv", table)


def test_results_are_gathered_and_gaps_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {f"atlas-{a}_amount-{b}": {"atlas": a, "split.amount": b} for a in ("p", "q") for b in ("0.5", "1")}
    write_json(tmp_path / "points.json", values)
    for k, point in enumerate(values):
        for who in ("01", "02"):
            if (k, who) not in ((1, "02"), (2, "01")):
                write_point(tmp_path, point, who, k + 0.25)
    call = {"level": "participant", "started": "2", "outcomes": {"02": {"errors": ["no texts: x.tsv"], "exit_code": 66}}}
    write_json(tmp_path / "atlas-p_amount-1" / "logs" / "a.json", call)
    write_json(tmp_path / "atlas-p_amount-1" / "logs" / "b.json", call | {"started": "1", "outcomes": {}})
    assert companion.main(["sweep", str(tmp_path), "--collect"]) == 75
    said = capsys.readouterr()
    assert "atlas-p_amount-1, sub-02: no texts: x.tsv" in said.err
    assert "atlas-q_amount-0.5, sub-01: no metrics" in said.err
    table = read_tsv(tmp_path / "sweep.tsv")
    assert list(table.columns) == ["point", "atlas", "split.amount", "participant", *METRICS_COLUMNS]
    rows = table[table["metric"] == PRIMARY].set_index(["atlas", "split.amount", "participant"])["value"].astype(float)
    assert rows.to_dict() == {
        ("p", "0.5", "sub-01"): 0.25,
        ("p", "0.5", "sub-02"): 0.25,
        ("p", "1", "sub-01"): 1.25,
        ("q", "0.5", "sub-02"): 2.25,
        ("q", "1", "sub-01"): 3.25,
        ("q", "1", "sub-02"): 3.25,
    }
    assert set(json.loads((tmp_path / "sweep.json").read_text("utf-8"))) == {"Description", "Missing", *table.columns}
    assert (tmp_path / "sweep.svg").read_text("utf-8").startswith("<?xml")
    assert companion.main(["sweep", str(tmp_path), "--collect", "--metric", "wer"]) == 75
    assert "nothing drawn: no point has wer" in capsys.readouterr().out


def test_nothing_was_run_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "points.json", {"atlas-p": {"atlas": "p"}})
    assert companion.main(["sweep", str(tmp_path), "--collect"]) == 66
    assert "no point of the sweep has metrics" in capsys.readouterr().err
