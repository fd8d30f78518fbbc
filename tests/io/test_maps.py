"""Maps come back as they were written, byte for byte the same each time, whatever they lie on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bids_brainlm.errors import InputError
from bids_brainlm.io.files import read_json, read_tsv, write_json
from bids_brainlm.io.maps import read_maps, write_maps
from bids_brainlm.io.surfaces import Geometry, Volume

ENTITIES = {"sub": "01", "ses": "a", "task": "look", "space": "T1w", "desc": "preproc"}
SURFACE = Geometry("fsaverage", "", 4, 9)
VOLUME = Geometry("T1w", "", 4, 4, Volume(np.diag([2.0, 2.0, 3.0, 1.0]), (3, 4, 2), np.array([1, 5, 9, 23])), "2")
MATRIX = Geometry("none", "", 6, 6)
STEM = "sub-01_ses-a_task-look"


def some(geometry: Geometry) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    r2 = rng.normal(size=geometry.n_vertices).astype(np.float32)
    r2[1], r2[2] = np.nan, 0.0
    return {"r2": r2, "hrf": np.arange(geometry.n_vertices, dtype=np.int16), "pool": r2 > 0}


@pytest.mark.parametrize(
    ("geometry", "names"),
    [
        (SURFACE, [f"{STEM}_hemi-{side}_space-fsaverage_stat-x_desc-LSS_statmap.func.gii" for side in "LR"]),
        (VOLUME, [f"{STEM}_space-T1w_res-2_stat-x_desc-LSS_statmap.nii.gz"]),
        (MATRIX, [f"{STEM}_stat-x_desc-LSS_statmap.tsv"]),
    ],
    ids=["surface", "volume", "matrix"],
)
def test_round_trip(tmp_path: Path, geometry: Geometry, names: list[str]) -> None:
    paths = write_maps(tmp_path, ENTITIES, geometry, some(geometry), "LSS", {"Description": "d"}, stat="x")
    assert [path.name for path in paths[:-1]] == names
    assert paths[0].parent == tmp_path / "sub-01" / "ses-a" / "func"
    assert read_json(paths[-1])["Maps"][:3] == ["r2", "hrf", "pool"]
    for path in paths[:-1]:
        maps, found = read_maps(path)
        assert list(maps) == ["r2", "hrf", "pool"]
        for name, values in some(geometry).items():
            np.testing.assert_array_equal(maps[name], values.astype(np.float32))
        assert (found.space, found.n_left, found.n_vertices) == (geometry.space, geometry.n_left, geometry.n_vertices)
    before = [path.read_bytes() for path in paths]
    again = write_maps(tmp_path / "again", ENTITIES, geometry, some(geometry), "LSS", {"Description": "d"}, stat="x")
    assert [path.read_bytes() for path in again] == before


def test_other_programs_find_the_maps_where_they_lie(tmp_path: Path) -> None:
    left, right = write_maps(tmp_path, ENTITIES, SURFACE, some(SURFACE), "LSS", {})[:2]
    image: Any = nib.load(right)
    assert [dict(array.meta)["Name"] for array in image.darrays] == ["r2", "hrf", "pool"]
    np.testing.assert_array_equal(image.darrays[1].data, [4, 5, 6, 7, 8])
    assert dict(image.meta)["AnatomicalStructurePrimary"] == "CortexRight"
    volume: Any = nib.load(write_maps(tmp_path, ENTITIES, VOLUME, some(VOLUME), "LSS", {})[0])
    voxels = np.asarray(volume.dataobj).reshape(24, 4)
    np.testing.assert_array_equal(np.flatnonzero(voxels[:, 3]), [1, 5, 9, 23])
    np.testing.assert_array_equal(voxels[[1, 5, 9, 23, 0], 1], [0, 1, 2, 3, 0])
    table = read_tsv(write_maps(tmp_path, ENTITIES, MATRIX, some(MATRIX), "LSS", {})[0])
    assert table["r2"][1] is None
    assert table["hrf"].tolist()[:2] == ["0.0", "1.0"]


def test_a_grid_and_its_voxels_come_back(tmp_path: Path) -> None:
    found = read_maps(write_maps(tmp_path, ENTITIES, VOLUME, some(VOLUME), "LSS", {})[0])[1]
    assert (found.resolution, found.volume.shape) == ("2", (3, 4, 2))
    np.testing.assert_array_equal(found.volume.index, [1, 5, 9, 23])
    np.testing.assert_allclose(found.volume.affine, VOLUME.volume.affine)


def test_the_density_of_a_mesh_is_told(tmp_path: Path) -> None:
    geometry = Geometry("fsaverage", "3k", 2562, 5124)
    paths = write_maps(tmp_path, ENTITIES, geometry, {"one": np.zeros(5124)}, "auto+x", {"Description": "d"})
    assert paths[0].name == f"{STEM}_hemi-L_space-fsaverage_den-3k_desc-autox_statmap.func.gii"
    assert read_json(paths[2]) == {"Density": "2562 vertices a hemisphere (fsaverage 3k)", "Description": "d", "Maps": ["one"]}
    assert read_maps(paths[1])[1] == geometry


@pytest.mark.parametrize("maps", [{}, {"r2": np.zeros(8)}, {"mask": np.zeros(9)}, {"r2": np.zeros((9, 1))}])
def test_what_is_no_map_is_refused(tmp_path: Path, maps: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected \(9,\) each"):
        write_maps(tmp_path, ENTITIES, SURFACE, maps, "LSS", {})


@pytest.mark.parametrize("geometry", [SURFACE, VOLUME, MATRIX], ids=["surface", "volume", "matrix"])
def test_a_sidecar_of_other_maps_is_refused(tmp_path: Path, geometry: Geometry) -> None:
    *images, sidecar = write_maps(tmp_path, ENTITIES, geometry, some(geometry), "LSS", {})
    write_json(sidecar, {"Maps": ["r2"]})
    with pytest.raises(InputError, match="as its sidecar says"):
        read_maps(images[0])
