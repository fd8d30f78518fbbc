"""Which rung of the ladder to fsaverage serves a run, by the names of its files alone."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import pytest

from bids_brainlm.config import Input
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.io.layout import RunFiles, find_runs

STEM = "sub-01_task-a_run-1"
RUNG_FILES = {
    "given": ("hemi-L_space-fsaverage5_bold.func.gii", "hemi-R_space-fsaverage5_bold.func.gii"),
    "cifti": ("space-fsLR_den-91k_bold.dtseries.nii",),
    "native": ("space-T1w_desc-preproc_bold.nii.gz",),
    "template": ("space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz",),
}
SURFACES = {
    "white-L": "hemi-L_white.surf.gii", "white-R": "hemi-R_white.surf.gii",
    "pial-L": "hemi-L_pial.surf.gii", "pial-R": "hemi-R_pial.surf.gii",
    "sphere-L": "hemi-L_space-fsaverage_desc-reg_sphere.surf.gii", "sphere-R": "hemi-R_space-fsaverage_desc-reg_sphere.surf.gii",
    "cortex-L": "hemi-L_desc-cortex_mask.label.gii", "cortex-R": "hemi-R_desc-cortex_mask.label.gii",
}  # fmt: skip
DECOYS = (
    "hemi-L_midthickness.surf.gii", "hemi-L_inflated.surf.gii", "hemi-L_sphere.surf.gii", "hemi-L_curv.shape.gii",
    "hemi-L_space-fsLR_desc-reg_sphere.surf.gii", "hemi-L_space-fsLR_desc-msmsulc_sphere.surf.gii",
    "hemi-L_space-fsLR_den-32k_white.surf.gii", "desc-ribbon_mask.nii.gz", "desc-brain_mask.nii.gz",
)  # fmt: skip


def find(tree: Any, others: dict[str, Any] | None = None, **settings: Any) -> list[RunFiles]:
    derivatives = {"fmriprep": tree.derivatives, **others} if others else {}
    return find_runs(tree.raw, derivatives, "01", Input(**settings))


def run_of(tree: Any, *rungs: str, stem: str = STEM) -> Any:
    tree.events(stem)
    tree.confounds(stem)
    tree.empty(*(f"{stem}_{name}" for rung in rungs for name in RUNG_FILES[rung]))
    return tree


def anatomy(tree: Any, names: Any = SURFACES, folder: str = "sub-01", root: Any = None) -> None:
    stem = folder.replace("/", "_")
    for name in [*(names.values() if isinstance(names, dict) else names), *DECOYS]:
        tree.text((root or tree.derivatives) / folder / "anat" / f"{stem}_{name}", "")


@pytest.mark.parametrize("there", [c for n in range(1, 5) for c in itertools.combinations(RUNG_FILES, n)], ids="-".join)
def test_the_best_rung_there_is(tree: Any, there: tuple[str, ...]) -> None:
    run_of(tree, *there)
    anatomy(tree)
    (run,) = find(tree)
    assert run.rung == next(rung for rung in RUNG_FILES if rung in there)
    assert [path.name for path in run.bold] == [f"{STEM}_{name}" for name in RUNG_FILES[run.rung]]
    assert (run.space, run.resolution, run.mask) == ("fsaverage", "", None)
    assert len(run.files) == len(run.sources)
    assert all(uri.endswith(path.name) for uri, path in zip(run.sources, run.files, strict=True))
    named = {kind: path.name for kind, path in run.anatomy.items()}
    assert named == ({kind: f"sub-01_{name}" for kind, name in SURFACES.items()} if run.rung == "native" else {})


def test_given_surfaces_must_be_fine_enough(tree: Any) -> None:
    run_of(tree, "given", "cifti")
    assert [find(tree, density=density)[0].rung for density in ("3k", "10k", "41k")] == ["given", "given", "cifti"]
    assert find(tree, density="41k", projection="none")[0].rung == "given", "and then found too coarse when it is read"
    # A name without a density may be of any.
    tree.empty(*(f"{STEM}_hemi-{side}_space-fsaverage_bold.func.gii" for side in "LR"))
    assert find(tree, density="164k")[0].rung == "given"


def test_half_a_pair_is_not_passed_over(tree: Any) -> None:
    run_of(tree, "given", "cifti")
    tree.func(f"{STEM}_{RUNG_FILES['given'][1]}").unlink()
    with pytest.raises(MissingInputError, match="one hemisphere is missing"):
        find(tree)


def test_old_names_of_surfaces(tree: Any) -> None:
    run_of(tree, "native")
    old = {kind: name.replace("white", "smoothwm").replace("space-fsaverage_", "") for kind, name in SURFACES.items()}
    anatomy(tree, {kind: name for kind, name in old.items() if not kind.startswith("cortex")})
    (run,) = find(tree)
    assert [run.anatomy[kind].name for kind in ("white-L", "sphere-R")] == [
        "sub-01_hemi-L_smoothwm.surf.gii",
        "sub-01_hemi-R_desc-reg_sphere.surf.gii",
    ]
    assert not {"cortex-L", "cortex-R"} & run.anatomy.keys()
    anatomy(tree)
    assert "white" in find(tree)[0].anatomy["white-L"].name
    assert "space-fsaverage" in find(tree)[0].anatomy["sphere-R"].name


def test_surfaces_of_the_session_then_of_none_then_the_only_ones(tree: Any) -> None:
    for session in "12":
        run_of(tree, "native", stem=f"sub-01_ses-{session}_task-a")
    anatomy(tree, folder="sub-01/ses-1")
    assert {run.anatomy["pial-L"].parent.parent.name for run in find(tree)} == {"ses-1"}
    anatomy(tree, folder="sub-01/ses-2")
    assert [run.anatomy["pial-L"].parent.parent.name for run in find(tree)] == ["ses-1", "ses-2"]
    run_of(tree, "native", stem="sub-01_ses-3_task-a")
    with pytest.raises(MissingInputError, match="those of sessions 1, 2 are not of session 3"):
        find(tree)
    anatomy(tree)
    assert [run.anatomy["pial-L"].parent.parent.name for run in find(tree)] == ["ses-1", "ses-2", "sub-01"]


def test_surfaces_may_be_in_derivatives_of_their_own(tree: Any) -> None:
    run_of(tree, "native")
    other = tree.raw / "derivatives" / "smriprep"
    anatomy(tree, root=other)
    (run,) = find(tree, {"smriprep": other})
    assert run.anatomy["white-L"].is_relative_to(other)
    assert f"bids:smriprep:sub-01/anat/sub-01_{SURFACES['white-L']}" in run.sources


def test_what_the_volume_lacks_is_said_with_the_option(tree: Any, caplog: pytest.LogCaptureFixture) -> None:
    run_of(tree, "native")
    with pytest.raises(MissingInputError, match="found T1w; remedy:.*fsaverage5.*there are none in anat.*--fs-no-reconall"):
        find(tree)
    anatomy(tree, {kind: name for kind, name in SURFACES.items() if not kind.startswith("sphere")})
    with pytest.raises(MissingInputError, match="sphere-L, sphere-R are not in anat.*23.1"):
        find(tree)
    run_of(tree, "template")
    with caplog.at_level(logging.WARNING):
        assert [find(tree)[0].rung for _ in range(2)] == ["template"] * 2
    assert caplog.text.count("only approximate") == 1
    assert "sphere-L, sphere-R are not in anat" in caplog.text


def test_of_several_volumes_the_default_template_at_the_finest_grid(tree: Any) -> None:
    run_of(tree, "template")
    tree.empty(f"{STEM}_space-MNI152NLin6Asym_desc-preproc_bold.nii.gz")
    assert "NLin2009cAsym_res-2" in find(tree)[0].bold[0].name
    tree.empty(f"{STEM}_space-MNI152NLin2009cAsym_res-1_desc-preproc_bold.nii.gz")
    assert "res-1" in find(tree)[0].bold[0].name
    assert "NLin6" in find(tree, filters={"bold": {"space": "MNI152NLin6Asym"}})[0].bold[0].name
    tree.empty(f"{STEM}_space-MNIPediatricAsym_cohort-1_desc-preproc_bold.nii.gz")
    with pytest.raises(MissingInputError, match="no BOLD series of sub-01_task-a_run-1 in space fsaverage that passes"):
        find(tree, filters={"bold": {"space": "MNIPediatricAsym"}})


def test_raw_and_denoised_are_not_chosen_from(tree: Any) -> None:
    run_of(tree, "cifti")
    tree.empty(f"{STEM}_space-fsLR_den-91k_desc-denoised_bold.dtseries.nii")
    with pytest.raises(InputError, match="several BOLD series"):
        find(tree)


def test_runs_on_different_rungs_are_told(tree: Any, caplog: pytest.LogCaptureFixture) -> None:
    run_of(tree, "given")
    run_of(tree, "cifti", stem="sub-01_task-a_run-2")
    with caplog.at_level(logging.WARNING):
        assert [run.rung for run in find(tree)] == ["given", "cifti"]
    assert "1 of rung given, 1 of rung cifti" in caplog.text


@pytest.mark.parametrize(
    "name",
    ["tpl-fsLR_space-fsaverage_hemi-{}_den-32k_sphere.surf.gii", "fs_LR-deformed_to-fsaverage.{}.sphere.32k_fs_LR.surf.gii"],
)
def test_spheres_of_the_user(tree: Any, name: str) -> None:
    run_of(tree, "cifti")
    folder = tree.raw.parent / "mine"
    tree.text(folder / name.format("L"), "")
    with pytest.raises(MissingInputError, match=r"no sphere of fsLR \(32k\).*hemi-R_den-32k.*-d spheres=FOLDER"):
        find(tree, {"spheres": folder})
    tree.text(folder / name.format("R"), "")
    (run,) = find(tree, {"spheres": folder})
    assert run.anatomy == {f"sphere-{side}": folder / name.format(side) for side in "LR"}
    assert run.sources[-2] == f"bids:spheres:{name.format('R')}"


@pytest.mark.data
def test_real_names_of_fmriprep_25(tree: Any, real_data: Any) -> None:
    for line in (real_data / "trees" / "fmriprep-25-ds005-outputs.txt").read_text().split():
        if "." in line.rpartition("/")[2] and "space-fsaverage5" not in line:
            tree.text(tree.derivatives / line, "{}" if line.endswith(".json") else "")
    for run in ("01", "02"):
        stem = f"sub-01_task-mixedgamblestask_run-{run}"
        tree.events(stem)
        tree.empty(f"{stem}_space-T1w_desc-preproc_bold.nii.gz")
    tree.json(tree.raw / "task-mixedgamblestask_bold.json", {"RepetitionTime": 2.0})
    wanted = {kind: f"sub-01_{name}" for kind, name in SURFACES.items()}
    runs = find(tree, filters={"bold": {"space": "T1w"}})
    assert [(run.rung, {kind: path.name for kind, path in run.anatomy.items()}) for run in runs] == [("native", wanted)] * 2
