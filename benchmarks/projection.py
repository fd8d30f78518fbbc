"""Volumes onto one hemisphere of fsaverage5 against nilearn's ``vol_to_surf``: how much faster, and whether they are equal.

200 volumes of 97 x 115 x 97 voxels of 2 mm (``--small``: 20) in float32 are sampled between the white and the pial surface, at
the six depths of this package and at the ten that nilearn takes by default. Both get the image in memory, so nothing
is read from a disk. Images that come from a file have the volumes one after the other (order F); arrays that NumPy makes have
time as the fastest axis (order C), which suits a matrix and does not suit nilearn. *Build* is all that has to be done once: the
matrix, and what it is made into for the first volume.

The last lines say what *approximate* means for MNI volumes on the surfaces of fsaverage: how much of what vertices of cortex read
in the MNI152 template of nilearn is grey matter.

CPU seconds of one process, fastest of a few rounds where a round is short. With two threads, which take half of the volumes each,
it is wall time against the CPU time of nilearn, which has one.

    OMP_NUM_THREADS=1 python benchmarks/projection.py [--small]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nibabel
import numpy as np
from nilearn.datasets import load_fsaverage, load_mni152_gm_template
from nilearn.surface import vol_to_surf

from bids_brainlm.core.projection import Projection, ribbon_matrix
from bids_brainlm.io.meshes import cortex

SHAPE = (97, 115, 97)
AFFINE = np.array([[2.0, 0, 0, -96], [0, 2, 0, -132], [0, 0, 2, -78], [0, 0, 0, 1]])
FROM_305 = np.array([[0.9975, -0.0073, 0.0176, -0.0429], [0.0146, 1.0009, -0.0024, 1.5496], [-0.0130, -0.0093, 0.9971, 1.1840]])
"""FreeSurfer's affine from MNI305 to MNI152, as its wiki gives it (CoordinateSystems)."""

WANTED, SHARE, EQUAL = 100, 0.03, 1e-6


def cpu_seconds(work: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Fastest of a few rounds, and the result."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return min(seconds), result


def in_two(projection: Projection, rows: Any) -> float:
    """Wall seconds with two threads, fastest of a few rounds."""
    seconds = []
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            start = time.perf_counter()
            list(pool.map(projection.apply, np.array_split(rows, 2)))
            seconds.append(time.perf_counter() - start)
    return min(seconds)


def volumes(n: int, order: Any) -> Any:
    """(X, Y, Z, n) float32 noise around 100."""
    rng = np.random.default_rng(0)
    out = np.empty((*SHAPE, n), dtype=np.float32, order=order)
    for i in range(n):
        out[..., i] = 100 + rng.standard_normal(SHAPE, dtype=np.float32)
    return out


def built(white: Any, pial: Any, depths: Any, order: str) -> Projection:
    """The matrix, ready for use: one volume went through it."""
    matrix = ribbon_matrix(white.coordinates, pial.coordinates, AFFINE, SHAPE, depths, order=order)
    projection = Projection(matrix.astype(np.float32), len(white.coordinates))
    # A row and a column of time: both ways through memory are made ready.
    empty = np.zeros((2, matrix.shape[1]), dtype=np.float32)
    projection.apply(empty if order == "F" else np.asfortranarray(empty))
    return projection


def compare(n: int, order: str, depths: Any, white: Any, pial: Any) -> tuple[float, float, float]:
    """Print one line; return the ratio, the share of the build, and the largest relative difference."""
    image = volumes(n, order)
    theirs, expected = cpu_seconds(
        lambda: vol_to_surf(nibabel.Nifti1Image(image, AFFINE), pial, inner_mesh=white, depth=list(depths))
    )
    build, projection = cpu_seconds(lambda: built(white, pial, depths, order), 3)
    rows = image.reshape(-1, n, order=order).T  # type: ignore[call-overload]
    ours, found = cpu_seconds(lambda: projection.apply(rows), 5)
    difference = float(np.nanmax(np.abs(found / expected.T - 1)))
    same = np.array_equal(np.isnan(found), np.isnan(expected.T))
    threads = f"; two threads {theirs / in_two(projection, rows):.0f}x" if order == "F" else ""
    print(
        f"order {order}, {len(depths):2d} depths: nilearn {theirs:6.2f} s, build {build:.3f} s ({100 * build / theirs:.1f} %), "
        f"apply {ours:.4f} s ({theirs / ours:.0f}x{threads}), with the build {theirs / (build + ours):.0f}x, "
        f"largest relative difference {difference:.0e}{'' if same else ', NaN ELSEWHERE'}"
    )
    return theirs / ours, build / theirs, difference if same else np.inf


def grey_matter(fsaverage: Any, name: str, affine: Any) -> None:
    """Print the mean probability of grey matter in the ribbon, and the share of vertices where it is above one half."""
    image = load_mni152_gm_template(resolution=2)
    read = []
    for side, word in (("L", "left"), ("R", "right")):
        white, pial = (fsaverage[kind].parts[word].coordinates for kind in ("white_matter", "pial"))
        moved = [points @ affine[:, :3].T + affine[:, 3] for points in (white, pial)]
        projection = Projection(ribbon_matrix(*moved, image.affine, image.shape).astype(np.float32), len(white))
        read.append(projection.apply(image.get_fdata().reshape(1, -1, order="F"))[0][cortex(side, white)])
    found = np.concatenate(read)
    share = 100 * (found > 0.5).mean()
    print(
        f"grey matter of MNI152 on fsaverage5, {name}: mean probability {found.mean():.3f}, above .5 at {share:.0f} % of cortex"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="20 volumes, without limits")
    n = 20 if parser.parse_args().small else 200
    fsaverage = load_fsaverage("fsaverage5")
    white, pial = (fsaverage[name].parts["left"] for name in ("white_matter", "pial"))
    found = {(order, k): compare(n, order, np.linspace(0, 1, k), white, pial) for order in ("F", "C") for k in (6, 10)}
    grey_matter(fsaverage, "as it is", np.eye(4)[:3])
    grey_matter(fsaverage, "moved from MNI305", FROM_305)
    if max(difference for *_, difference in found.values()) > EQUAL:
        raise SystemExit(f"not equal to {EQUAL:.0e}")
    print(f"equal to {EQUAL:.0e}; wanted: {WANTED}x, build at most {100 * SHARE:.0f} %")


if __name__ == "__main__":
    main()
