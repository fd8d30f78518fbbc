"""Cleaned series and words come back as they were written, on surfaces and in volumes, with even and uneven times."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_brainlm.errors import InputError
from bids_brainlm.io.cleaned import Cleaned, read_cleaned, read_words, volume_times, write_cleaned, write_words
from bids_brainlm.io.surfaces import Geometry, Volume

ENTITIES = {"sub": "01", "ses": "a", "task": "story", "run": "2"}
EVEN = 7.3 + 1.49 * np.arange(6)
SPARSE = np.array([0.5, 2.0, 9.0, 10.5, 18.0, 19.5])
SURFACE = Geometry("fsaverage", "3k", 2562, 5124)
VOXELS = Volume(np.diag([2.0, 2.0, 2.0, 1.0]), (3, 4, 5), np.array([1, 7, 30, 59]))
VOLUME = Geometry("MNI", "", 4, 4, VOXELS, "2")


@pytest.mark.parametrize("times", [EVEN, SPARSE], ids=["even", "sparse"])
@pytest.mark.parametrize("geometry", [SURFACE, VOLUME], ids=["surface", "volume"])
def test_a_series_comes_back(tmp_path: Path, geometry: Geometry, times: np.ndarray) -> None:
    data = np.random.default_rng(0).standard_normal((6, geometry.n_vertices)).astype(np.float32)
    data[:, 2] = np.nan
    paths = write_cleaned(tmp_path, Cleaned(data, times, geometry, ENTITIES, {"Sources": ["bids:raw:x"], "Units": "z"}))
    assert all("ses-a/func/sub-01_ses-a_task-story_run-2_" in path.as_posix() for path in paths)
    found = read_cleaned(paths[0])
    np.testing.assert_array_equal(found.data, data)
    np.testing.assert_allclose(found.times, times, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(volume_times(paths[0]), found.times)
    assert found.entities == ENTITIES
    assert (found.geometry.space, found.geometry.density, found.geometry.n_left) == (
        geometry.space,
        geometry.density,
        geometry.n_left,
    )
    if geometry.volume is not None:
        np.testing.assert_array_equal(found.geometry.volume.index, geometry.volume.index)  # type: ignore[union-attr]
        step = nib.load(paths[0]).header.get_zooms()[3]  # type: ignore[attr-defined]
        assert step == (pytest.approx(1.49) if times is EVEN else 1.0)
    assert found.sidecar["TaskName"] == "story"
    assert found.sidecar["SpatialReference"] == "bids:raw:x"


def test_another_number_of_times_than_volumes_is_refused(tmp_path: Path) -> None:
    data = np.zeros((6, 4), np.float32)
    image, *_, sidecar = write_cleaned(tmp_path, Cleaned(data, SPARSE, VOLUME, ENTITIES))
    tree = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps(tree | {"VolumeTiming": tree["VolumeTiming"][:-1]}))
    with pytest.raises(InputError, match=r"VolumeTiming lists 5 volumes, the series has 6.*cleaned_bold.nii.gz"):
        read_cleaned(image)


def test_words_come_back(tmp_path: Path) -> None:
    onset = np.array([0.0, 0.1, 1 / 3, 7.7])
    heard = pd.DataFrame(
        {
            "run": "r",
            "story": ["hare", "hare", "fox", "fox"],
            "start": [10.2, 10.2, -3.3, -3.3],
            "onset": onset,
            "offset": onset + 0.25,
            "word": ["the", "“hare”", "是", "ran."],
            "part": ["train", None, "test", "test"],
        }
    )
    table, sidecar = write_words(tmp_path, ENTITIES, heard, {"Sources": ["bids:raw:x"]})
    assert table == tmp_path / "sub-01/ses-a/beh/sub-01_ses-a_task-story_run-2_desc-words_events.tsv"
    written = pd.read_csv(table, sep="\t")
    assert list(written)[:5] == ["onset", "duration", "word", "story", "start"]
    np.testing.assert_allclose(written["onset"], heard["start"] + onset)
    assert json.loads(sidecar.read_text())["Sources"] == ["bids:raw:x"]
    found = read_words(table, "r")
    pd.testing.assert_frame_equal(found[list(heard)].fillna(""), heard.fillna(""), rtol=0, atol=1e-9, check_dtype=False)
    # What lies at the very start of a story must not come to lie before it.
    assert (found["onset"] >= 0).all()
