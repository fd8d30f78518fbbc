"""The same command again: what is fresh stays, what a change touches is made anew, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

ONE = ("--facts", "stimuli/facts.tsv", "--participant-label", "01")
NO_PAGE = (*ONE, "--skip", "reports")  # for what is about stages alone
PER_RUN = ["estimate", "parcellate"]
LAST = ["train", "decode", "evaluate"]


@pytest.fixture
def study(volume_done: Any, tmp_path: Path) -> Any:
    """The finished study, moved to another place."""
    return volume_done.copy(tmp_path, results=True)


def _stamps(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


def test_nothing_runs_after_success(study: Any) -> None:
    before = _stamps(study.out)
    study.ok("--facts", "stimuli/facts.tsv")
    tree = study.log()
    assert (tree["n_executed"], tree["n_reused"]) == (0, 18)
    after = _stamps(study.out)
    new = set(after) - set(before)
    assert {name: after[name] for name in before} == before
    assert sorted(Path(name).suffix for name in new) == [".json", ".toml"]
    assert all(name.startswith("logs/") for name in new)


def test_how_the_work_is_carried_out_changes_nothing(study: Any) -> None:
    study.ok(*ONE, "--set", "run.omp_nthreads=2", "run.memory=8G", "run.device=cpu", "-v")
    assert study.executed() == []


def _captions(study: Any) -> None:
    path = study.bids / "stimuli" / "captions.tsv"
    path.write_text(path.read_text().replace("a red fox", "a reddish fox"))


def _facts(study: Any) -> None:
    path = study.bids / "stimuli" / "facts.tsv"
    path.write_text(path.read_text().replace("fox\n", "fox|vixen\n"))


def _confounds(study: Any) -> None:
    path = study.func("desc-confounds_timeseries.tsv", 2)
    table = pd.read_csv(path, sep="\t")
    table["trans_x"] = table["trans_x"][::-1].to_numpy()
    table.to_csv(path, sep="\t", index=False)


def _mask(study: Any) -> None:
    path = study.func("space-T1w_desc-brain_mask.nii.gz", 3)
    image: Any = nib.load(path)
    data = np.asarray(image.dataobj).copy()
    data[1, 1, 0] = 0
    nib.save(nib.Nifti1Image(data, image.affine), path)


def _sidecar(study: Any) -> None:
    path = study.func("space-T1w_desc-preproc_bold.json", 1)
    path.write_text(json.dumps({"RepetitionTime": 2.0, "StartTime": 1.0}))


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        (_facts, ["evaluate"]),
        (_captions, LAST),
        (_confounds, [*PER_RUN, *LAST]),
        (_sidecar, [*PER_RUN, *LAST]),
        # The voxels of every run are those in the masks of all.
        (_mask, [*PER_RUN * 3, *LAST]),
    ],
)
def test_changed_input_is_seen(study: Any, change: Callable[[Any], None], stages: list[str]) -> None:
    change(study)
    study.ok(*NO_PAGE)
    assert sorted(study.executed()) == sorted(stages)
    study.ok(*NO_PAGE)
    assert study.executed() == []


@pytest.mark.parametrize(
    ("setting", "stages"),
    [
        ("evaluate.metrics=['wer']", ["evaluate"]),
        ("decode.max_new_tokens=3", LAST[1:]),
        ("phases.0.l2=1.0", LAST),
        ("run.random_seed=7", LAST),
        ("parcels.min_coverage=0.9", ["parcellate"] * 3 + ["evaluate"]),
    ],
)
def test_a_changed_setting_runs_what_depends_on_it(study: Any, setting: str, stages: list[str]) -> None:
    betas = _stamps(study.out / "sub-01" / "func")
    study.ok(*NO_PAGE, "--set", setting)
    assert sorted(study.executed()) == sorted(stages)
    unchanged = [name for name, stamp in _stamps(study.out / "sub-01" / "func").items() if betas.get(name) == stamp]
    assert sum("stat-effect" in name for name in unchanged) == 6


def test_another_estimator_runs_everything_and_replaces_the_old_betas(study: Any) -> None:
    study.ok(*NO_PAGE, "--estimator", "lsa")
    assert sorted(study.executed()) == sorted([*PER_RUN * 3, *LAST])
    own = [path.name for path in (study.out / "sub-01").rglob("*") if "desc-L" in path.name]
    assert own
    assert not [name for name in own if "desc-LSS" in name]
    assert any((study.out / "sub-02").rglob("*desc-LSS*"))


def test_fewer_folds_leave_no_model_of_former_ones(study: Any) -> None:
    models = study.out / "sub-01" / "model"
    study.ok(*NO_PAGE, "--split", "kfold", "--folds", "3", "--group", "run", "--set", "phases.0.epochs=1")
    assert len(list(models.glob("*.safetensors"))) == 3
    study.ok(*NO_PAGE, "--set", "phases.0.epochs=1")
    assert len(list(models.glob("*.safetensors"))) == 1
    assert "train" in study.executed()


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("func/sub-01_task-look_run-1_space-T1w_stat-effect_desc-LSS_statmap.nii.gz", [*PER_RUN, *LAST]),
        ("func/sub-01_task-look_run-1_space-T1w_atlas-slabs_stat-mean_desc-LSS_statmap.tsv", ["parcellate"]),
        ("beh/sub-01_task-look_desc-decoded_beh.tsv", ["decode", "evaluate"]),
        ("beh/sub-01_task-look_desc-metrics_beh.tsv", ["evaluate"]),
    ],
)
@pytest.mark.parametrize("damage", ["deleted", "cut short"])
def test_a_lost_output_is_made_again_with_what_follows(study: Any, name: str, stages: list[str], damage: str) -> None:
    path = study.out / "sub-01" / name
    was = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(was[:-1])
    study.ok(*NO_PAGE)
    assert sorted(study.executed()) == sorted(stages)
    assert path.read_bytes() == was


def test_what_failed_the_second_time_shows_nothing_of_the_first(study: Any) -> None:
    path = study.func("desc-confounds_timeseries.tsv", 1)
    right = path.read_bytes()
    path.write_bytes(b"".join(right.splitlines(keepends=True)[:-3]))
    decoded = study.beh("decoded").read_bytes()
    assert study.run(*ONE).code == 65
    page = (study.out / "sub-01.html").read_text("utf-8")
    assert "failed: 41 rows for 44 volumes" in page
    assert "From the true brain" not in page
    done = study.run(level="group")
    assert done.code == 75
    assert "1 of 2 participants failed (01): no results of sub-01" in done.lines[-1]
    assert "without results: sub-01" in (study.out / "group.html").read_text("utf-8")
    path.write_bytes(right)
    study.ok(*ONE)
    assert study.beh("decoded").read_bytes() == decoded
    assert "From the true brain" in (study.out / "sub-01.html").read_text("utf-8")


def test_verdicts_count_the_permutations_that_were_made(study: Any) -> None:
    study.ok(*NO_PAGE, "--set", "decode.permutations=3")
    # Permutations are a setting of this call only; the group level is not told again.
    study.ok(level="group")
    page = (study.out / "group.html").read_text("utf-8")
    assert "3 permutations are too few to tell" in page


def test_reports_only(study: Any) -> None:
    page, table = study.out / "sub-01.html", study.beh("decoded")
    was = page.read_text("utf-8")
    page.unlink()
    stamp = table.stat().st_mtime_ns
    study.ok(*ONE, "--reports-only")
    assert study.executed() == []
    assert page.read_text("utf-8") == was
    assert table.stat().st_mtime_ns == stamp


def test_reports_only_says_what_was_not_run(volume: Any, tmp_path: Path) -> None:
    study = volume.copy(tmp_path)
    done = study.run(*ONE, "--reports-only")
    assert done.code == 66
    assert "has not been run with these settings" in done.lines[-1]
    assert not (study.out / "sub-01").exists()


def test_boilerplate_only(volume: Any, tmp_path: Path) -> None:
    study = volume.copy(tmp_path)
    study.ok(*ONE, "--boilerplate-only")
    assert "least squares separate" in (study.out / "logs" / "sub-01_CITATION.md").read_text("utf-8").lower()
    assert (study.out / "logs" / "CITATION.bib").is_file()
    assert not (study.out / "sub-01").exists()
    assert study.executed() == []
