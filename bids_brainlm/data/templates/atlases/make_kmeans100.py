"""Make the bundled parcellation ``kmeans100``: 50 parcels a hemisphere by k-means on the fsaverage5 sphere.

It needs nothing but the fsaverage5 meshes that nilearn ships, so it is free of any atlas's licence. The medial wall is not
marked in those meshes, but cortex there has no thickness: the wall is taken as the largest patch of vertices thinner than
1 mm, grown by one ring. Of these vertices 94 % lie in the wall of Schaefer's annotation, and 75 % of that wall is found (the
rest, next to the hippocampus, has a thickness). Parcels are numbered from the back of the head to the front.

Run ``python make_kmeans100.py`` to write the two files again; the result depends on the seed only.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

N_PARCELS = 50
THINNEST = 1.0  # mm
SEED = 0
ATLAS = "tpl-fsaverage_hemi-{}_atlas-kmeans100_den-10k_dseg.label.gii"


def adjacency(faces: NDArray[np.int64], n_vertices: int) -> sparse.csr_matrix:
    """(n, n) 1 where two vertices share an edge, or are one."""
    i, j = faces.ravel(), np.roll(faces, 1, axis=1).ravel()
    edges = sparse.coo_matrix((np.ones(i.size), (i, j)), shape=(n_vertices, n_vertices)).tocsr()
    return ((edges + edges.T + sparse.eye(n_vertices)) > 0).astype(np.int64)


def medial_wall(thickness: NDArray[np.float64], near: sparse.csr_matrix) -> NDArray[np.bool_]:
    """(n,) largest patch of vertices thinner than `THINNEST`, grown by one ring."""
    thin = np.flatnonzero(thickness < THINNEST)
    _, patch = connected_components(near[thin][:, thin], directed=False)
    wall = np.zeros(thickness.size, dtype=np.int64)
    wall[thin[patch == np.bincount(patch).argmax()]] = 1
    return np.asarray(near @ wall > 0)


def parcellate(sphere: NDArray[np.float64], wall: NDArray[np.bool_], n_parcels: int, seed: int) -> NDArray[np.int32]:
    """(n,) labels 1..n_parcels, 0 in the wall, numbered from posterior to anterior."""
    from sklearn.cluster import KMeans

    cortex = np.flatnonzero(~wall)
    fit = KMeans(n_parcels, n_init=10, random_state=seed).fit(sphere[cortex])
    rank = np.argsort(np.argsort(fit.cluster_centers_[:, 1]))
    labels = np.zeros(wall.size, dtype=np.int32)
    labels[cortex] = rank[fit.labels_] + 1
    return labels


def label_image(labels: NDArray[np.int32], side: str) -> nib.GiftiImage:
    """GIFTI label image with names ``kmeans_LH_01`` ... and a colour for each."""
    from nibabel.gifti import GiftiDataArray, GiftiLabel, GiftiLabelTable, GiftiMetaData

    table = GiftiLabelTable()
    colours = np.random.default_rng(SEED).uniform(0.2, 1.0, (labels.max() + 1, 3)).round(3)
    for key in range(labels.max() + 1):
        label = GiftiLabel(key, *(map(float, colours[key]) if key else (0.0, 0.0, 0.0)), float(key > 0))
        label.label = f"kmeans_{side}H_{key:02d}" if key else "???"
        table.labels.append(label)
    array = GiftiDataArray(labels, intent="NIFTI_INTENT_LABEL", encoding="GIFTI_ENCODING_B64GZ", datatype="NIFTI_TYPE_INT32")
    meta = GiftiMetaData({"AnatomicalStructurePrimary": {"L": "CortexLeft", "R": "CortexRight"}[side]})
    return nib.GiftiImage(darrays=[array], labeltable=table, meta=meta)


def main(folder: Path) -> None:
    """Write both hemispheres to a folder."""
    from nilearn.datasets import fetch_surf_fsaverage
    from nilearn.surface import load_surf_data, load_surf_mesh

    meshes = fetch_surf_fsaverage("fsaverage5")
    for side, word in (("L", "left"), ("R", "right")):
        sphere = load_surf_mesh(meshes[f"sphere_{word}"])
        near = adjacency(np.asarray(sphere.faces, dtype=np.int64), len(sphere.coordinates))
        wall = medial_wall(load_surf_data(meshes[f"thick_{word}"]), near)
        labels = parcellate(np.asarray(sphere.coordinates, dtype=np.float64), wall, N_PARCELS, SEED)
        nib.save(label_image(labels, side), folder / ATLAS.format(side))


if __name__ == "__main__":
    main(Path(__file__).parent)
