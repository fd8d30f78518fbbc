"""The output is a valid BIDS derivatives data set, whoever writes it and however many at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.core.types import Parcellation
from bids_brainlm.errors import ConfigError
from bids_brainlm.io.betas import Betas, write_betas, write_parcel_means, write_trials
from bids_brainlm.io.derivatives import check_output, init_dataset, propagate, write_json, write_tsv
from bids_brainlm.io.files import read_json, read_tsv
from bids_brainlm.io.surfaces import Geometry, Volume


@pytest.fixture
def data_set(tree: Any) -> Any:
    for label in ("01", "02"):
        tree.events(f"sub-{label}_task-a")
    return tree


def make(tree: Any, out: Path | None = None, version: str = "1.0") -> Path:
    out = out or tree.raw / "derivatives" / "bids_brainlm"
    init_dataset(out, tree.raw, {"fmriprep": tree.derivatives}, version)
    return out


def test_files_at_the_root(data_set: Any) -> None:
    tree = read_json(make(data_set) / "dataset_description.json")
    assert [entry["Name"] for entry in tree["GeneratedBy"]] == ["bids_brainlm", "fMRIPrep"]
    assert (tree["DatasetType"], tree["License"]) == ("derivative", "CC0")
    assert tree["DatasetLinks"]["raw"] == "../.."
    assert tree["DatasetLinks"]["fmriprep"] == "../fmriprep"
    out = make(data_set, data_set.raw.parent / "beside")
    assert read_json(out / "dataset_description.json")["DatasetLinks"]["raw"] == "../raw"
    assert list(read_tsv(out / "participants.tsv")["participant_id"]) == ["sub-01", "sub-02"]
    assert not any("/" in line for line in (out / ".bidsignore").read_text().split())


@pytest.mark.parametrize("doi", ["doi:10.18112/x.v1", "https://doi.org/10.18112/x.v1", "10.18112/x.v1"])
def test_doi_prefix(data_set: Any, doi: str) -> None:
    data_set.json(data_set.raw / "dataset_description.json", {"Name": "tree", "DatasetDOI": doi})
    (source,) = read_json(make(data_set) / "dataset_description.json")["SourceDatasets"]
    assert source == {"DOI": "10.18112/x.v1", "URL": "https://doi.org/10.18112/x.v1"}


def test_what_the_user_added_stays(data_set: Any) -> None:
    out = make(data_set)
    (out / "README.md").write_text("mine")
    (out / ".bidsignore").write_text("mine")
    write_tsv(out / "participants.tsv", {"participant_id": ["sub-02", "sub-99"], "age": ["30", "40"]})
    write_tsv(out / "descriptions.tsv", {"desc_id": ["desc-LSS"], "description": ["my words"]})
    tree = read_json(out / "dataset_description.json")
    write_json(out / "dataset_description.json", tree | {"HowToAcknowledge": "thank me"})
    make(data_set, version="2.0")
    assert (out / "README.md").read_text() == "mine"
    assert (out / ".bidsignore").read_text().startswith("mine\n*.html\n")
    table = read_tsv(out / "participants.tsv")
    assert list(table["participant_id"]) == ["sub-02", "sub-99", "sub-01"]
    assert list(table["age"]) == ["30", "40", None]
    assert read_tsv(out / "descriptions.tsv")["description"][0] == "my words"
    tree = read_json(out / "dataset_description.json")
    assert tree["HowToAcknowledge"] == "thank me"
    assert tree["GeneratedBy"][0]["Version"] == "2.0"


def test_another_programs_data_set_is_refused(data_set: Any) -> None:
    out = data_set.raw.parent / "out"
    data_set.json(out / "dataset_description.json", {"Name": "x", "GeneratedBy": [{"Name": "XCP-D"}]})
    with pytest.raises(ConfigError, match="made by XCP-D"):
        make(data_set, out)


def test_output_places(data_set: Any, tmp_path: Path) -> None:
    raw, links = data_set.raw, {"fmriprep": data_set.derivatives, "betas": tmp_path / "out"}
    for wrong in (raw, raw / "out", raw / "sub-01", raw / "derivatives", data_set.derivatives, data_set.derivatives / "x"):
        with pytest.raises(ConfigError, match="derivatives/bids_brainlm"):
            check_output(wrong, raw, links)
    (tmp_path / "link").symlink_to(raw)
    with pytest.raises(ConfigError, match="the output folder"):
        check_output(tmp_path / "link", raw, links)
    for right in (raw / "derivatives" / "mine", tmp_path / "out", raw.with_name("raw2")):
        check_output(right, raw, links)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        check_output(tmp_path / "file", raw, links)


def test_many_at_once(data_set: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        outs = list(pool.map(lambda _: make(data_set), range(24)))
    files = {path.name: path.read_bytes() for path in outs[0].iterdir() if path.is_file()}
    assert set(files) == {"dataset_description.json", "README.md", ".bidsignore", "descriptions.tsv", "participants.tsv"}
    shutil.rmtree(outs[0])
    make(data_set)
    assert {path.name: path.read_bytes() for path in outs[0].iterdir() if path.is_file()} == files


def test_only_valid_fields_are_propagated() -> None:
    sidecar = {"TaskName": "a", "RepetitionTime": 2.0, "StartTime": 1.0, "SliceTiming": [0], "Instructions": "look"}
    assert propagate(sidecar) == {"TaskName": "a", "Instructions": "look"}


def test_the_validator_finds_no_error(data_set: Any) -> None:
    validator = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent)) or shutil.which("bids-validator-deno")
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    out = make(data_set)
    write_outputs(out, data_set.raw)
    answer = subprocess.run([validator, "--json", str(out)], capture_output=True, text=True, timeout=120, check=False)
    issues = json.loads(answer.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
    warned = {(issue["code"], issue.get("subCode")) for issue in issues if issue["severity"] == "warning"}
    assert not {code for code, _ in warned if code.startswith("GZIP")}


def write_outputs(out: Path, raw: Path) -> None:
    """Everything that a run writes with the functions of this room."""
    trials = pd.DataFrame({"onset": [1.0, 5.0], "duration": [0.0, 1.0], "trial_id": ["t0", "t1"], "text": ["a", None]})
    atlas = Parcellation("kmeans100", "fsaverage", [1, 1, 2, 2], ("a", "b"), 2)
    for label, session in (("01", ""), ("02", "1")):
        for run in ("1", "2"):
            entities = {"sub": label, "ses": session, "task": "a", "run": run}
            entities = {key: value for key, value in entities.items() if value}
            sources = [f"bids:raw:sub-{label}/func/sub-{label}_task-a_events.tsv"]
            surface = Geometry("fsaverage", "3k", 2562, 5124)
            betas = Betas(np.ones((2, 5124), np.float32), ("t0", "t1"), surface, entities, "lss", {"Sources": sources})
            write_betas(out, betas)
            write_parcel_means(out, betas, np.ones((2, 2)), np.ones(2), atlas)
            write_trials(out, entities, trials, {"trial_id": "Name of the trial.", "text": "What was read."})
            where = Volume(np.eye(4), (2, 2, 2), np.arange(3))
            voxels = Geometry("MNI152NLin2009cAsym", "", 3, 3, where, "2")
            write_betas(out, Betas(np.ones((2, 3), np.float32), ("t0", "t1"), voxels, entities, "lsa"))
