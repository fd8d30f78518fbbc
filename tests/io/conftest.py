"""Small BIDS trees with fMRIPrep's names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

EVENTS = "onset\tduration\ttrial_type\n2\t1\tcat\n6\t1\tdog\n"
CONFOUNDS = "trans_x\ttrans_y\ttrans_z\trot_x\trot_y\trot_z\n" + "0\t0\t0\t0\t0\t0\n" * 5


class Tree:
    """A raw data set and its derivatives, file by file."""

    def __init__(self, root: Path) -> None:
        self.raw = root
        self.derivatives = root / "derivatives" / "fmriprep"
        self.derivatives.mkdir(parents=True)
        self.json(root / "dataset_description.json", {"Name": "tree", "BIDSVersion": "1.10.0", "License": "CC0"})
        self.json(
            self.derivatives / "dataset_description.json", {"Name": "p", "GeneratedBy": [{"Name": "fMRIPrep", "Version": "25"}]}
        )
        self.json(root / "task-a_bold.json", {"TaskName": "a", "RepetitionTime": 2.0})

    @staticmethod
    def text(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def json(self, path: Path, tree: dict[str, Any]) -> Path:
        return self.text(path, json.dumps(tree))

    def func(self, stem: str, base: Path | None = None) -> Path:
        """Path of ``func/<stem>``, below the derivatives by default."""
        parts = dict(part.split("-", 1) for part in stem.split("_") if "-" in part)
        session = [f"ses-{parts['ses']}"] if "ses" in parts else []
        return (base or self.derivatives).joinpath(f"sub-{parts['sub']}", *session, "func", stem)

    def events(self, stem: str, text: str = EVENTS) -> Path:
        return self.text(self.func(f"{stem}_events.tsv", self.raw), text)

    def confounds(self, stem: str, ending: str = "desc-confounds_timeseries") -> Path:
        return self.text(self.func(f"{stem}_{ending}.tsv"), CONFOUNDS)

    def gifti(self, name: str, data: np.ndarray) -> Path:
        path = self.func(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = [nib.gifti.GiftiDataArray(row.astype(np.float32), intent="NIFTI_INTENT_TIME_SERIES") for row in data]
        nib.save(nib.GiftiImage(darrays=arrays), path)
        return path

    def nifti(self, name: str, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
        path = self.func(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
        return path

    def empty(self, *names: str) -> None:
        """Derivatives without content, for what looks at names only."""
        for name in names:
            self.text(self.func(name), "")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "raw")


@pytest.fixture
def surface_run(tree: Tree) -> Callable[..., Tree]:
    """Write one run as surfaces of random data; ``spelling`` is how hemisphere and space stand in the names."""

    def write(
        stem: str = "sub-01_task-a_run-1", spelling: str = "hemi-{}_space-fsaverage5", n: int = 2562, rows: int = 5
    ) -> Tree:
        rng = np.random.default_rng(0)
        for side in "LR":
            tree.gifti(f"{stem}_{spelling.format(side)}_bold.func.gii", rng.normal(size=(rows, n)))
        tree.events(stem)
        tree.confounds(stem)
        return tree

    return write
