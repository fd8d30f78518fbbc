"""Brain maps: values land on the hemisphere and the side they belong to, at every density."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.image import imread

from bids_brainlm.core.types import Parcellation
from bids_brainlm.reports import brains, panels
from bids_brainlm.reports.figures import as_png


def pixels(figure: object) -> np.ndarray:
    return imread(io.BytesIO(as_png(figure, dpi=60)))[..., :3]  # type: ignore[arg-type]


def red_by_view(image: np.ndarray) -> list[int]:
    """Saturated red pixels in each quarter of the picture without its colour bar."""
    image = image[:, : int(image.shape[1] * 0.9)]
    red = (image[..., 0] > 0.4) & (image[..., 1] < 0.25)
    return [int(part.sum()) for part in np.array_split(red, 4, axis=1)]


@pytest.mark.parametrize(("side", "lateral"), [(0, True), (0, False), (1, True), (1, False)])
def test_a_patch_shows_in_its_own_view_only(side: int, lateral: bool) -> None:
    hemisphere = brains.cortex()[side]
    outward = hemisphere.coordinates[:, 0] * (-1 if side == 0 else 1)
    patch = outward > np.quantile(outward, 0.9) if lateral else outward < np.quantile(outward, 0.1)
    values = np.zeros((2, 10242))
    values[side, patch] = 1.0
    views = red_by_view(pixels(brains.surface_map(values.ravel(), 10242, "x", limits=(0.0, 1.0))))
    shown = {(0, True): 0, (0, False): 1, (1, False): 2, (1, True): 3}[side, lateral]
    assert views[shown] > 50
    assert sum(views) == views[shown]


def test_denser_and_sparser_fsaverage_show_the_same_patch() -> None:
    left = brains.cortex()[0]
    middle = np.linalg.norm(left.coordinates - left.coordinates[left.coordinates[:, 1].argmin()], axis=1) < 40
    views = []
    for n in (2562, 10242, 40962):
        one = np.zeros(max(n, 10242))
        one[:10242] = middle
        views.append(red_by_view(pixels(brains.surface_map(np.r_[one[:n], np.zeros(n)], n, "x", limits=(0.0, 1.0)))))
    assert views[1] == views[2]
    assert views[0][0] == pytest.approx(views[1][0], rel=0.35)
    with pytest.raises(ValueError, match="9 values"):
        brains.surface_map(np.zeros(18), 9, "x")


def test_nan_is_grey_and_any_mesh_serves() -> None:
    corners = np.array([[0, 0, 0], [0, 2, 0], [0, 0, 2], [0, 2, 2]], dtype=float)
    mesh = tuple(brains.Hemisphere(corners, np.array(f), np.zeros(4)) for f in ([[0, 2, 1], [1, 2, 3]], [[0, 1, 2], [1, 3, 2]]))
    image = pixels(brains.surface_map(np.full(8, np.nan), 4, "x", mesh=mesh))  # type: ignore[arg-type]
    image = image[:, : int(image.shape[1] * 0.85)]
    spread = np.ptp(image, axis=2)
    assert (image < 0.95).any()
    assert spread.max() < 0.02


def test_parcels_have_borders_and_medial_grey() -> None:
    left, right = brains.cortex()
    labels = np.concatenate([1 + (left.coordinates[:, 1] > 0), 3 + (right.coordinates[:, 1] > 0)])
    labels[np.concatenate([left.coordinates[:, 2] < -40, right.coordinates[:, 2] < -40])] = 0
    parcellation = Parcellation("test", "fsaverage", labels, ("a", "b", "c", "d"), 10242)
    (panel,) = panels.parcels(parcellation)
    assert "4 parcels of test" in panel.alt
    assert len(panel.image) < 400_000
    assert panels.parcels(Parcellation("flat", "none", [1, 2], ("a", "b"), 2)) == ()


@pytest.mark.parametrize("shape", [(9, 8, 20), (9, 8, 1), (1, 8, 9)])
def test_volume_map_shows_the_slices_with_values(shape: tuple[int, int, int]) -> None:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(0, max(1, n - 2)) for n in shape)] = True
    figure = brains.volume_map(np.arange(mask.sum(), dtype=float), mask, "x")
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == (12 if shape[2] == 20 else 1)
    with pytest.raises(ValueError, match="one a voxel"):
        brains.volume_map(np.zeros(3), mask, "x")


@pytest.mark.parametrize("name", ["reliability", "noiseceiling"])
def test_panels_of_a_quality_for_a_surface_a_volume_and_neither(name: str) -> None:
    values, of = np.random.default_rng(0).normal(size=20484), {"reliability": panels.reliability}.get(name, panels.noise_ceiling)
    assert [panel.name for panel in of(values, n_left=10242)] == [name, f"{name}map"]
    assert len(of(values[:24], mask=np.ones((4, 3, 2), dtype=bool))) == 2
    assert len(of(values[:24])) == 1
