"""What a whole run leaves: every file, what stands in them, and nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

from bids_brainlm import __version__
from bids_brainlm.core.types import CONDITIONS, DECODED_COLUMNS
from bids_brainlm.evaluation.matrix import LIKELIHOOD_COLUMNS
from bids_brainlm.evaluation.table import METRICS_COLUMNS

KINDS = ("volume", "surface")
RUN = "sub-01_task-look_run-2"
EFFECT = {
    "volume": ["space-T1w_stat-effect_desc-LSS_statmap.nii.gz", "space-T1w_desc-brain_mask.nii.gz"],
    "surface": [f"hemi-{side}_space-fsaverage_den-3k_stat-effect_desc-LSS_statmap.func.gii" for side in "LR"],
}
MEAN = {
    "volume": "space-T1w_atlas-slabs_stat-{}_desc-LSS_statmap.{}",
    "surface": "space-fsaverage_atlas-kmeans100_den-3k_stat-{}_desc-LSS_statmap.{}",
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def done(kind: str, request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{kind}_done")


def test_every_file_is_there(kind: str, done: Any) -> None:
    tables = ["decoded", "likelihood", "metrics", "evidence", "coverage", "effects", "confusion"]
    tables += ["information"] if kind == "surface" else []
    beh = [f"beh/{RUN}_desc-trials_events", *(f"beh/sub-01_task-look_desc-{d}_beh" for d in tables)]
    wanted = [f"{name}.{extension}" for name in [*beh, "beh/sub-01_task-look_desc-training_beh"] for extension in ("tsv", "json")]
    wanted += [f"func/{RUN}_{name}" for name in EFFECT[kind]]
    wanted += [f"func/{RUN}_{MEAN[kind].format(stat, ext)}" for stat in ("mean", "coverage") for ext in ("tsv", "json")]
    wanted += [f"model/sub-01_task-look_desc-fold0decoder_model.{extension}" for extension in ("safetensors", "json")]
    wanted += [f"func/sub-01_task-look_{name.replace('effect', 'reliability')}" for name in EFFECT[kind] if "mask" not in name]
    wanted += [f"func/sub-01_task-look_{MEAN[kind].format('reliability', extension)}" for extension in ("tsv", "json")]
    wanted += ["figures/sub-01_desc-noiseceilingmap.png", "figures/sub-01_desc-training.svg"]
    wanted = [f"sub-01/{name}" for name in wanted] + ["sub-01.html", "group.html", "phenotype/decodingmetrics.tsv"]
    wanted += ["phenotype/decodingmetrics.json", "participants.tsv", "descriptions.tsv", "README.md", "logs/CITATION.bib"]
    assert [name for name in wanted if not (done.out / name).is_file()] == []


def test_nothing_half_written_is_left(done: Any) -> None:
    hidden = [path.name for path in done.out.rglob(".*") if path.name != ".bidsignore"]
    assert hidden == []
    empty = [path for path in done.out.rglob("*") if path.is_file() and not path.stat().st_size]
    assert {path.parent for path in empty} == {done.out / "logs" / "locks"}
    assert not (done.out / "logs" / "crashes").exists()


def test_the_validator_reports_no_error(done: Any) -> None:
    tool = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent)) or shutil.which("bids-validator-deno")
    if tool is None:
        pytest.skip("needs bids-validator-deno")
    answer = subprocess.run([tool, "--json", done.out], capture_output=True, text=True, timeout=120, check=False)
    issues = json.loads(answer.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def _tree(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_input_is_as_it_was(kind: str, done: Any, request: pytest.FixtureRequest) -> None:
    assert _tree(done.bids) == _tree(request.getfixturevalue(kind).bids)


def test_bids_uris_lead_to_files(done: Any) -> None:
    links = json.loads((done.out / "dataset_description.json").read_text())["DatasetLinks"] | {"": "."}
    sources = [uri for path in done.out.glob("sub-*/**/*.json") for uri in json.loads(path.read_text()).get("Sources", [])]
    assert {uri.split(":")[1] for uri in sources} >= {"raw", "fmriprep"}
    for uri in set(sources):
        _, name, path = uri.split(":", 2)
        assert (done.out / links[name] / path).is_file(), uri


def test_decoded_texts_have_the_one_schema(done: Any) -> None:
    table = done.table("decoded")
    assert list(table) == list(DECODED_COLUMNS)
    captions = pd.read_csv(done.bids / "stimuli" / "captions.tsv", sep="\t").set_index("stim_id")["caption"]
    assert list(captions[table["stimulus_id"]]) == list(table["text_true"])
    trials = {name: set(part["trial_id"]) for name, part in table.groupby("condition")}
    assert set(trials) == set(CONDITIONS)
    assert trials["true"] == trials["permuted"] == trials["none"]
    assert (table["nll"] > 0).all()
    assert (table["n_tokens"] > 0).all()
    # Without a brain, one prompt has one likelihood for each text, and one greedy answer.
    alone = table[table["condition"] == "none"]
    assert alone["text_pred"].nunique() == 1
    assert alone.groupby("stimulus_id")["nll"].agg(np.ptp).max() < 1e-4


def test_no_stimulus_is_trained_on_and_decoded(done: Any) -> None:
    path = next((done.out / "sub-01" / "model").glob("*.safetensors"))
    with safe_open(path, "np") as file:
        about = json.loads(file.metadata()["about"]) if "about" in file.metadata() else file.metadata()
    table = done.table("decoded")
    assert set(about["test_ids"]) == set(table["trial_id"])
    events = pd.concat(pd.read_csv(path, sep="\t") for path in sorted((done.out / "sub-01" / "beh").glob("*_events.tsv")))
    stimulus = events.set_index("trial_id")["stim_id"]
    assert not set(stimulus[about["training_ids"]]) & set(table["stimulus_id"])


def test_metrics_follow_from_the_decoded_texts(done: Any) -> None:
    metrics, decoded, likelihood = (done.table(desc) for desc in ("metrics", "decoded", "likelihood"))
    assert list(metrics) == list(METRICS_COLUMNS)
    true = decoded[decoded["condition"] == "true"].set_index("trial_id")
    matrix = likelihood.set_index("trial_id").drop(columns=["run", "own", "confidence"]).loc[true.index]
    np.testing.assert_allclose(np.diag(matrix.loc[true.index, true.index]), true["nll"], atol=1e-5)
    # One run a fold: every other trial but those of the same stimulus is compared with.
    stimulus = true["stimulus_id"].to_numpy()
    others = matrix.loc[:, true.index].where(stimulus[:, None] != stimulus)
    first = metrics.iloc[0]
    assert first["metric"] == "nll_permuted_minus_true"
    assert first["value"] == pytest.approx((others.mean(axis=1) - true["nll"]).mean(), abs=1e-5)
    assert round(first["p_value"] * 20, 6) in range(1, 21)
    value = metrics.set_index(["metric", "condition"])["value"]
    gains = (others.round(4).sub(true["nll"].round(4), axis=0)).round(4)
    won = (gains.gt(0) + 0.5 * gains.eq(0)).sum(axis=1) / others.notna().sum(axis=1)
    assert value["nll_pairwise", "true"] == pytest.approx(won.mean())
    for condition, part in decoded.groupby("condition"):
        assert value["nll", condition] == pytest.approx(part["nll"].mean())
        said = [set(text.split()) for text in part["text_pred"].fillna("")]
        truth = [set(name.split("-")) for name in part["stimulus_id"]]
        words = [{"blue", "green", "red"}, {"bird", "cow", "dog", "fox"}]
        hits = [np.mean([s & group == t & group for group in words]) for s, t in zip(said, truth, strict=True)]
        assert value["facts", condition] == pytest.approx(np.mean(hits))
    assert {"ridge", "logistic"} <= set(metrics[metrics["metric"] == "facts"]["condition"])


def test_every_column_is_described(done: Any) -> None:
    for desc in ("decoded", "metrics", "training", "likelihood", "evidence", "coverage", "effects", "confusion"):
        described = json.loads(done.beh(desc).with_suffix(".json").read_text())
        columns = [name for name in done.table(desc) if desc != "likelihood" or name in LIKELIHOOD_COLUMNS]
        assert set(columns) <= set(described), desc


def test_betas_are_one_array_a_trial(kind: str, done: Any) -> None:
    func = done.out / "sub-01" / "func"
    trials = pd.read_csv(done.out / "sub-01" / "beh" / f"{RUN}_desc-trials_events.tsv", sep="\t")
    sidecar = json.loads(next(func.glob(f"{RUN}_*stat-effect*.json")).read_text())
    assert sidecar["TrialIDs"] == list(trials["trial_id"])
    assert len(trials) == 12
    for name in EFFECT[kind]:
        image: Any = nib.load(func / f"{RUN}_{name}")
        if kind == "surface":
            assert [array.meta["Name"] for array in image.darrays] == sidecar["TrialIDs"]
            assert {array.data.shape for array in image.darrays} == {(2562,)}
        elif "mask" not in name:
            assert image.shape == (6, 6, 8, 12)


def test_parcel_means_are_means_of_betas(volume_done: Any) -> None:
    func = volume_done.out / "sub-01" / "func"
    betas: Any = nib.load(func / f"{RUN}_{EFFECT['volume'][0]}")
    means = pd.read_csv(func / f"{RUN}_{MEAN['volume'].format('mean', 'tsv')}", sep="\t").set_index("trial_id")
    slabs = betas.get_fdata()[1:-1, 1:-1].mean(axis=(0, 1))
    assert means.to_numpy() == pytest.approx(slabs.T, abs=1e-4)


def test_betas_tell_pictures_apart(volume_done: Any) -> None:
    betas: Any = nib.load(volume_done.out / "sub-01" / "func" / f"{RUN}_{EFFECT['volume'][0]}")
    trials = pd.read_csv(volume_done.out / "sub-01" / "beh" / f"{RUN}_desc-trials_events.tsv", sep="\t")
    data = betas.get_fdata()[1:-1, 1:-1].reshape(-1, 12).T
    likeness = np.corrcoef(data - data.mean(axis=0))
    words = [set(name.split("-")) for name in trials["stim_id"]]
    shared = np.array([[len(a & b) for b in words] for a in words])
    assert likeness[shared == 1].mean() > likeness[shared == 0].mean() + 0.3


def test_the_log_says_what_ran_with_what(kind: str, done: Any) -> None:
    tree = done.log()
    decoding = ["train", "decode", "evaluate", *(["information"] if kind == "surface" else [])]
    runs = [f"sub-01_task-look_run-{i}_{step}" for i in (1, 2, 3) for step in ("estimate", "parcellate")]
    assert sorted(tree["executed"]["01"]) == sorted([*runs, *(f"sub-01_{step}" for step in decoding)])
    assert (tree["n_executed"], tree["n_reused"], tree["seed"]) == (12 + 2 * len(decoding), 0, 42)
    assert tree["version"] == __version__
    assert {"torch", "transformers", "nilearn", "numpy"} <= set(tree["versions"])
    assert {who: item["exit_code"] for who, item in tree["outcomes"].items()} == {"01": 0, "02": 0}


def test_reports_say_first_what_was_found(done: Any) -> None:
    for who in ("01", "02"):
        page = (done.out / f"sub-{who}.html").read_text("utf-8")
        first = page.partition('role="status"><p>')[2].partition("</p>")[0]
        found = done.table("metrics", who)["p_value"][0] <= 0.05
        assert first.startswith("The text depends on the brain" if found else "No evidence that the text came from the brain")
        assert f"sub-{who}_task-look_desc-decoded_beh.tsv" in page
        assert "http://" not in page.replace("http://www.w3.org", "")
    assert "sub-02" in (done.out / "group.html").read_text("utf-8")


def test_the_group_table_gathers_the_metrics(done: Any) -> None:
    group = pd.read_csv(done.out / "phenotype" / "decodingmetrics.tsv", sep="\t").set_index("participant_id")
    assert list(group.index) == ["sub-01", "sub-02"]
    for who in ("01", "02"):
        metrics = done.table("metrics", who)
        value = metrics.set_index(["metric", "condition"])["value"]
        row = group.loc[f"sub-{who}"]
        assert row["p_value"] == metrics["p_value"][0]
        assert row["nll_true"] == pytest.approx(value["nll", "true"])
        assert row["facts_permuted"] == pytest.approx(value["facts", "permuted"])
    described = json.loads((done.out / "phenotype" / "decodingmetrics.json").read_text())
    assert set(group.columns) <= set(described)


def test_figures_of_the_group_are_means_of_the_participants_gains(done: Any) -> None:
    group = pd.read_csv(done.out / "group.tsv", sep="\t").set_index(["metric", "condition"])
    gains = []
    for who in ("01", "02"):
        value = done.table("metrics", who).set_index(["metric", "condition"])
        rows = [("nll_permuted_minus_true", "true"), ("nll_pairwise", "true"), ("wer", "true")]
        primary, pairwise, wer = (value.loc[row] for row in rows)
        gains.append([primary["value"], pairwise["value"] - pairwise["null_mean"], wer["null_mean"] - wer["value"]])
    assert group.loc[rows, "gain"].tolist() == pytest.approx(np.mean(gains, axis=0).tolist())
    assert group["n"].max() == 2
    assert group["p_value"].isna().all()  # two participants are no sample
    assert json.loads((done.out / "group.json").read_text())["WithoutResults"] == []
