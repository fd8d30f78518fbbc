"""Faults of derivatives: BOLD series, masks, sidecars, surfaces, atlases, betas that are there already."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from faults_case import (
    BOLD,
    CALL,
    MASK,
    ONE,
    RUNS,
    SIDECAR,
    FaultCase,
    cut,
    folder_in_place,
    link_to_itself,
    not_fetched,
    rewrite_gifti,
    rewrite_image,
)
from nibabel.freesurfer import write_annot

LEFT, RIGHT = (f"hemi-{side}_space-fsaverage_den-3k_bold.func.gii" for side in "LR")


def _file(ending: str, run: int, change: Callable[[Path], object]) -> Callable[[Any], None]:
    """Do something to one of the derivatives of a run."""

    def damage(study: Any) -> None:
        change(study.func(ending, run))

    return damage


def _no_derivatives(study: Any) -> None:
    shutil.rmtree(study.func("x").parents[1])


def _no_derivatives_of_anyone(study: Any) -> None:
    shutil.rmtree(study.bids / "derivatives")


def _no_bold_of_any_run(study: Any) -> None:
    for run in RUNS:
        study.func(BOLD, run).unlink()


def _twice(study: Any) -> None:
    shutil.copytree(study.bids / "derivatives" / "fmriprep" / "sub-01", study.bids / "derivatives" / "fmriprep-old" / "sub-01")


def _no_description(study: Any) -> None:
    (study.bids / "derivatives" / "fmriprep" / "dataset_description.json").unlink()


def _loop_of_folders(study: Any) -> None:
    for folder in (study.bids, study.bids / "sub-01" / "func", study.func(BOLD).parent, study.bids / "stimuli"):
        (folder / "here").symlink_to(folder)
        link_to_itself(folder / "sub-loop")


def _same_tr_in_other_units(study: Any) -> None:
    for run, (step, unit) in zip(RUNS, ((2000.0, "msec"), (2000.0, "unknown"), (0.0, "sec")), strict=True):
        rewrite_image(study.func(BOLD, run), lambda data: data, step=step, unit=unit)


def _infinite(data: np.ndarray) -> np.ndarray:
    out = data.astype(np.float32)
    out[3, 3, 5, 7] = np.inf
    return out


def _tr(value: object) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps({"RepetitionTime": value}))


def _no_tr(study: Any) -> None:
    study.func(SIDECAR, 3).write_text("{}")


DERIVATIVES = [
    ("no derivatives of one participant", _no_derivatives, 66, ("sub-01", "run fMRIPrep")),
    ("the same run in two derivatives", _twice, 65, ("in fmriprep and fmriprep-old", "-d ")),
    ("no BOLD series of one run", _file(BOLD, 2, Path.unlink), 66, ("sub-01_task-look_run-2", "--output-spaces")),
    ("no BOLD series of any run", _no_bold_of_any_run, 66, ("sub-01_task-look_run-1", "--output-spaces")),
    ("BOLD series cut short", _file(BOLD, 2, cut), 65, ("damaged", f"run-2_{BOLD}", "copy or make it again")),
    ("BOLD series of 0 bytes", _file(BOLD, 2, lambda path: path.write_bytes(b"")), 65, ("the file is empty", f"run-2_{BOLD}")),
    ("BOLD series is a folder", _file(BOLD, 2, folder_in_place), 65, ("cannot be read (Is a directory)", f"run-2_{BOLD}")),
    ("BOLD series not fetched (datalad)", _file(BOLD, 2, not_fetched), 66, ("no such file", f"run-2_{BOLD}", "datalad get")),
    ("BOLD series is a link to itself", _file(BOLD, 2, link_to_itself), 65, ("levels of symbolic links", f"run-2_{BOLD}")),
    ("BOLD series of one volume", _file(BOLD, 2, lambda path: rewrite_image(path, lambda x: x[..., 0])), 65, ("4 dimensions",)),
    ("constant run", _file(BOLD, 1, lambda path: rewrite_image(path, lambda x: 0 * x + 7)), 65, ("no vertex varies", "run-1")),
    ("value that is not finite", _file(BOLD, 1, lambda path: rewrite_image(path, _infinite)), 65, ("volume 7 of unit", "run-1")),
    ("no brain mask", _file(MASK, 1, Path.unlink), 66, ("no brain mask", "sub-01_task-look_run-1", "desc-brain_mask.nii.gz")),
    ("empty brain mask", _file(MASK, 1, lambda path: rewrite_image(path, lambda x: 0 * x)), 65, ("the mask is empty", MASK)),
    ("brain mask on another grid", _file(MASK, 1, lambda path: rewrite_image(path, lambda x: x[..., :7])), 65, ("(6, 6, 7)",)),
    ("no RepetitionTime", _no_tr, 66, ("RepetitionTime", "run-3", "add RepetitionTime (s)")),
    ("RepetitionTime in ms", _file(SIDECAR, 3, _tr(2000)), 65, ("RepetitionTime is 2000", "run-3", "a number of seconds")),
    ("RepetitionTime is text", _file(SIDECAR, 3, _tr("2.0")), 65, ("RepetitionTime is '2.0'", "run-3", "a number of seconds")),
    (
        "sidecar that is not JSON",
        _file(SIDECAR, 3, lambda path: path.write_text('{"RepetitionTime": 2.0,')),
        65,
        ("not valid JSON", f"run-3_{SIDECAR}"),
    ),
    ("sidecar is a folder", _file(SIDECAR, 3, folder_in_place), 65, ("cannot be read (Is a directory)", f"run-3_{SIDECAR}")),
]

SURFACES = [
    ("hemisphere missing", _file(RIGHT, 1, Path.unlink), 66, ("hemisphere", "run-1_hemi-R")),
    (
        "hemispheres of two densities",
        _file(RIGHT, 2, lambda path: rewrite_gifti(path, lambda rows: rows[:, :642])),
        65,
        ("642 vertices", "run-2_hemi-R", "2562, as in"),
    ),
    (
        "hemispheres of two lengths",
        _file(RIGHT, 2, lambda path: rewrite_gifti(path, lambda rows: rows[:-1])),
        65,
        ("43 time points", "run-2_hemi-R", "44, as in"),
    ),
    ("surface file cut short", _file(LEFT, 2, cut), 65, ("damaged", f"run-2_{LEFT}")),
    ("surface file is a folder", _file(LEFT, 2, folder_in_place), 65, ("cannot be read (Is a directory)", f"run-2_{LEFT}")),
]


def _no_density(study: Any) -> None:
    for ending in (LEFT, RIGHT):
        rewrite_gifti(study.func(ending, 2), lambda rows: rows[:, :2000])


def _step(study: Any) -> None:
    for ending in (LEFT, RIGHT):
        rewrite_gifti(study.func(ending, 2), lambda rows: rows, {"TimeStep": "2500.0"})


def _annot(study: Any, n_vertices: int = 2562, sides: str = "lr") -> Path:
    folder: Path = study.root / "annot"
    folder.mkdir()
    colours = np.array([[10, 20, 30, 0, 0], [40, 50, 60, 0, 0]])
    for side in sides:
        labels = np.arange(n_vertices) % 2
        write_annot(folder / f"{side}h.small.annot", labels, colours, [f"{side}a", f"{side}b"], fill_ctab=True)
    return folder / f"{sides[0]}h.small.annot"


def _atlas(path: object) -> list[str]:
    return ["--set", f"parcels.atlas={path}"]


def _coarse_atlas(study: Any) -> list[str]:
    return _atlas(_annot(study, 642))


def _half_an_atlas(study: Any) -> list[str]:
    return _atlas(_annot(study, sides="l"))


def _broken_atlas(study: Any) -> list[str]:
    path = _annot(study)
    path.write_bytes(path.read_bytes()[:600])
    return _atlas(path)


def _voxels_for_surfaces(study: Any) -> list[str]:
    path = study.root / "space-T1w_atlas-slabs_dseg.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((6, 6, 8), np.int16), np.eye(4)), path)
    return _atlas(path)


def _two_atlases(study: Any) -> list[str]:
    folder = _annot(study).parent
    for side in "lr":
        shutil.copy(folder / f"{side}h.small.annot", folder / f"{side}h.other.annot")
    return _atlas(folder)


def _skeleton(study: Any) -> None:
    """TemplateFlow's cache as it is before anything was fetched: names, and no content."""
    folder = study.root / "templateflow" / "tpl-fsaverage"
    folder.mkdir(parents=True)
    (folder / "template_description.json").write_text(json.dumps({"Identifier": "fsaverage"}))
    for side in "LR":
        (folder / f"tpl-fsaverage_hemi-{side}_den-164k_atlas-Schaefer2018_seg-7n_scale-100_dseg.label.gii").touch()


def _matrix(study: Any, change: Callable[[Path, Path], object]) -> list[str]:
    """Betas of participant 01 as a matrix with a table of trials."""
    rng, events = np.random.default_rng(0), [pd.read_csv(study.events(run), sep="\t").assign(run=run) for run in RUNS]
    table = pd.concat(events, ignore_index=True)
    npy, trials = (study.root / "betas" / f"sub-01_{name}" for name in ("betas.npy", "trials.tsv"))
    npy.parent.mkdir()
    np.save(npy, rng.standard_normal((len(table), 12)).astype(np.float32))
    table.to_csv(trials, sep="\t", index=False)
    change(npy, trials)
    return ["-d", f"betas={npy.parent}", *_atlas("blocks:4")]


def _betas(change: Callable[[Path, Path], object]) -> Callable[[Any], list[str]]:
    return lambda study: _matrix(study, change)


def _pickled(npy: Path, trials: Path) -> None:
    np.save(npy, np.array([{"a": 1}] * 36, dtype=object).reshape(36, 1), allow_pickle=True)


def _pickle(npy: Path, trials: Path) -> None:
    npy.write_bytes(pickle.dumps(np.zeros((36, 12))))


CASES = [
    *(FaultCase("Derivatives", name, damage, code, words) for name, damage, code, words in DERIVATIVES),
    FaultCase(
        "Derivatives", "no derivatives at all", _no_derivatives_of_anyone, 66, ("no derivatives", "-d fmriprep=PATH"), whose=ONE
    ),
    FaultCase(
        "Derivatives",
        "folder of derivatives that is not there",
        code=66,
        words=("'fmriprep'", "{root}/nowhere", "bind-mount"),
        options=("-d", "fmriprep={root}/nowhere"),
        whose=CALL,
    ),
    FaultCase(
        "Derivatives",
        "space that is not there",
        code=66,
        words=("no BOLD series", "found T1w", "--output-spaces"),
        options=("--set", "input.space=MNI152NLin2009cAsym"),
        whose=ONE,
    ),
    FaultCase("Derivatives", "no dataset_description.json", _no_description, 0, ("dataset_description.json",), same=True),
    FaultCase("Derivatives", "links that lead in a circle", _loop_of_folders, 0, same=True),
    FaultCase(
        "Derivatives",
        "TR of the header at odds with the sidecar",
        _file(BOLD, 2, lambda path: rewrite_image(path, lambda data: data, step=2.5)),
        0,
        ("the header says a TR of 2.5 s, the sidecar 2 s, which is taken", f"run-2_{BOLD}"),
        same=True,
    ),
    FaultCase("Derivatives", "TR of the header in ms, without unit, or absent", _same_tr_in_other_units, 0, same=True),
    *(FaultCase("Surfaces", name, damage, code, words, study="surface") for name, damage, code, words in SURFACES),
    FaultCase(
        "Surfaces",
        "number of vertices that fsaverage has not",
        _no_density,
        65,
        ("2000 vertices", "run-2_hemi-L", "2562, 10242"),
        study="surface",
    ),
    FaultCase(
        "Surfaces",
        "density that is finer than the surfaces",
        words=("2562 vertices a hemisphere (3k)", "40962", "--density 3k"),
        options=("--density", "41k"),
        whose=ONE,
        study="surface",
    ),
    FaultCase(
        "Surfaces",
        "TimeStep at odds with the sidecar",
        _step,
        0,
        ("the header says a TR of 2.5 s, the sidecar 2 s", "run-2"),
        study="surface",
        same=True,
    ),
    FaultCase(
        "Atlases", "coarser than the surfaces", _coarse_atlas, 65, ("642", "2562", "lh.small.annot"), whose=ONE, study="surface"
    ),
    FaultCase(
        "Atlases", "one hemisphere missing", _half_an_atlas, 66, ("no such file", "rh.small.annot"), whose=ONE, study="surface"
    ),
    FaultCase("Atlases", "file cut short", _broken_atlas, 65, ("damaged", "lh.small.annot"), whose=ONE, study="surface"),
    FaultCase("Atlases", "several in one folder", _two_atlases, 65, ("2 atlases", "--atlas"), whose=ONE, study="surface"),
    FaultCase(
        "Atlases",
        "voxels for surfaces",
        _voxels_for_surfaces,
        65,
        ("an atlas of voxels for surfaces", "_dseg.nii.gz"),
        whose=ONE,
        study="surface",
    ),
    FaultCase(
        "Atlases",
        "surfaces for voxels",
        words=("kmeans100 is a parcellation of fsaverage",),
        options=("--set", "parcels.atlas=kmeans100"),
        whose=ONE,
    ),
    FaultCase(
        "Atlases",
        "file that is not there",
        code=66,
        words=("no such atlas", "no/such/atlas.nii.gz"),
        options=("--set", "parcels.atlas=no/such/atlas.nii.gz"),
        whose=ONE,
    ),
    FaultCase(
        "Atlases",
        "name that nobody knows",
        code=2,
        words=("kmeans", "Schaefer2018:100:7n"),
        options=("--set", "parcels.atlas=kmeans"),
        whose=ONE,
    ),
    FaultCase(
        "Atlases",
        "TemplateFlow's file not fetched (0 bytes)",
        _skeleton,
        69,
        (
            "_atlas-Schaefer2018_seg-7n_scale-100_dseg.label.gii",
            "from templateflow import api; api.get('fsaverage', atlas='Schaefer2018', suffix='dseg', extension='.label.gii', "
            "segmentation='7n', scale=100)",
        ),
        ("--set", "parcels.atlas=Schaefer2018:100:7n"),
        whose=ONE,
        study="surface",
        fresh=(("TEMPLATEFLOW_HOME", "{root}/templateflow"),),
    ),
    FaultCase(
        "Ready betas",
        "array of pickled objects",
        _betas(_pickled),
        65,
        ("pickled objects", "sub-01_betas.npy", "allow_pickle=False"),
        whose=ONE,
    ),
    FaultCase("Ready betas", "pickle in a .npy file", _betas(_pickle), 65, ("pickled objects", "sub-01_betas.npy"), whose=ONE),
    FaultCase("Ready betas", "matrix cut short", _betas(lambda npy, _: cut(npy)), 65, ("damaged", "sub-01_betas.npy"), whose=ONE),
    FaultCase(
        "Ready betas",
        "matrix of three dimensions",
        _betas(lambda npy, _: np.save(npy, np.zeros((36, 2, 6)))),
        65,
        ("shape (36, 2, 6)", "(trials, vertices)"),
        whose=ONE,
    ),
    FaultCase(
        "Ready betas",
        "fewer rows in the table",
        _betas(lambda _, trials: trials.write_text("onset\tduration\tstim_id\n1\t1\tred-dog\n")),
        65,
        ("1 row(s)", "36, one for each row"),
        whose=ONE,
    ),
    FaultCase(
        "Ready betas",
        "no table of trials",
        _betas(lambda _, trials: trials.unlink()),
        66,
        ("no table of trials", "sub-01_trials.tsv"),
        whose=ONE,
    ),
    FaultCase(
        "Ready betas",
        "none of this participant",
        _betas(lambda npy, _: npy.rename(npy.with_name("sub-03_betas.npy"))),
        66,
        ("no betas of sub-01", "{root}/betas"),
        whose=ONE,
    ),
]
