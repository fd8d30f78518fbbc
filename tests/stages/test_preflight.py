"""A survey of a small tree whose every count is planted, and of every fault that is planted in it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bids_brainlm.config import Request, load
from bids_brainlm.errors import BrainLMError, ConfigError, Faults, MissingInputError, MissingResourceError, OutputError
from bids_brainlm.stages import costs, preflight
from bids_brainlm.stages.cache import FileHashes
from bids_brainlm.stages.checks import survey_request
from bids_brainlm.stages.plan import plan
from bids_brainlm.stages.preflight import measured_pace, memory_of, survey, survey_all

gifti: Any = nib.gifti
TRIALS = {"01": (6, 5, 4), "02": (7, 4, 5)}
VOLUMES = (40, 41, 42)
OTHERS = {"information", "where", "tune", "clean", "story"}
"""Kinds of stages that this data set has none of."""
N_PARAMETERS = 12 * 8 + 10
SETTINGS = {
    "text.table": "stimuli/texts.tsv", "text.key": "stim_id", "parcels.atlas": "kmeans100", "run.offline": "true",
    "run.nprocs": "1", "evaluate.facts": "stimuli/facts.tsv",
}  # fmt: skip


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


class Tree:
    """A data set on fsaverage 3k whose series are cut off after the header."""

    def __init__(self, root: Path) -> None:
        self.root, self.bids = root, root / "bids"
        for folder in ("out", "work"):
            (root / folder).mkdir()
        for folder in (self.bids, self.bids / "derivatives" / "fmriprep"):
            write(folder / "dataset_description.json", json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
        # Two questions about the first picture, and two captions for the second.
        rows = ["p0\twhat?\ta dog", "p0\twhere?\ta park", "p1\twhat?\ta cat", "p1\twhat?\tone cat"]
        rows += [f"p{i}\twhat?\tthing {i}" for i in range(2, 8)]
        write(self.bids / "stimuli" / "texts.tsv", "\n".join(["stim_id\tquestion\tcaption", *rows]) + "\n")
        write(self.bids / "stimuli" / "facts.tsv", "stim_id\tkind\n" + "".join(f"p{i}\tk{i % 2}\n" for i in range(8)))
        for who, counts in TRIALS.items():
            for run, n in enumerate(counts, start=1):
                self.write_run(who, run, n)
        llm = root / "llm"
        llm.mkdir()
        save_file({"a": torch.zeros(12, 8), "b": torch.zeros(10)}, llm / "model.safetensors")
        shape = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 2, "vocab_size": 12}
        write(llm / "config.json", json.dumps(shape))
        write(llm / "tokenizer.json", "{}")
        write(llm / "tokenizer_config.json", "{}")

    def func(self, ending: str, run: int = 1, who: str = "01", raw: bool = False) -> Path:
        base = self.bids if raw else self.bids / "derivatives" / "fmriprep"
        return base / f"sub-{who}" / "func" / f"sub-{who}_task-x_run-{run}_{ending}"

    def events(self, run: int = 1, who: str = "01") -> Path:
        return self.func("events.tsv", run, who, raw=True)

    def bold(self, run: int = 1, who: str = "01", side: str = "L") -> Path:
        return self.func(f"hemi-{side}_space-fsaverage_den-3k_bold.func.gii", run, who)

    def write_run(self, who: str, run: int, n: int) -> None:
        rows = [f"{4 + 6 * i}\t1\tp{i % 8}" for i in range(n)] + [f"{8 + 6 * n}\t1\tn/a"]
        write(self.events(run, who), "\n".join(["onset\tduration\tstim_id", *rows]) + "\n")
        for side in "LR":
            write_gifti(self.bold(run, who, side), VOLUMES[run - 1], 2562)
        write(self.func("space-fsaverage_den-3k_bold.json", run, who), json.dumps({"RepetitionTime": 1.5, "StartTime": 0.0}))
        names = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
        write(self.func("desc-confounds_timeseries.tsv", run, who), "\t".join(names) + "\n" + "\t".join(["0"] * 6) + "\n")

    def request(self, **settings: str) -> Request:
        own = {"model.llm": str(self.root / "llm")} | SETTINGS | {name.replace("__", "."): v for name, v in settings.items()}
        config = load("cortext-small", overrides=own)
        return Request(self.bids, self.root / "out", "participant", (), {}, self.root / "work", config)

    def snapshot(self) -> dict[str, tuple[int, int]]:
        return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in self.root.rglob("*")}


def write_gifti(path: Path, n_volumes: int, n_vertices: int) -> None:
    arrays = [gifti.GiftiDataArray(np.zeros(n_vertices, np.float32), intent="NIFTI_INTENT_TIME_SERIES")] * n_volumes
    text = gifti.GiftiImage(darrays=arrays).to_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text[: text.index(b"</Data>")])


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def _lines(faults: Any) -> list[str]:
    return [str(fault) for fault in faults]


def test_planted_counts_come_back(tree: Tree) -> None:
    found = survey(tree.request(), "02")
    assert found.faults == ()
    assert [run.name for run in found.runs] == [f"sub-02_task-x_run-{i}" for i in (1, 2, 3)]
    assert [(run.n_volumes, run.n_trials, run.n_texts) for run in found.runs] == [(40, 7, 8), (41, 4, 5), (42, 5, 6)]
    assert {(run.space, run.density, run.n_units, run.tr, run.volume) for run in found.runs} == {
        ("fsaverage", "3k", 5124, 1.5, False)
    }
    assert (found.n_trials, found.n_stimuli, found.n_texts) == (16, 7, 19)
    (fold,) = found.folds
    assert sum(fold) == 19
    # Whole pictures: p0 is shown three times with two questions each, p1 to p3 three times, p4 twice, p5 and p6 once.
    assert all(size > 0 for size in fold)


def test_every_fold_is_listed(tree: Tree) -> None:
    found = survey(tree.request(split__scheme="kfold", split__folds="3"), "01")
    assert len(found.folds) == 3
    assert sum(test for _, _, test in found.folds) == found.n_texts
    assert {sum(fold) for fold in found.folds} == {found.n_texts}


def test_a_density_to_come_down_to_is_counted(tree: Tree) -> None:
    for run in (1, 2, 3):
        for side in "LR":
            write_gifti(tree.bold(run, side=side), 40, 10242)
    plain, truncated = (survey(tree.request(**more), "01") for more in ({}, {"input__density": "3k"}))
    assert {(run.density, run.n_units) for run in plain.runs} == {("10k", 20484)}
    assert {(run.density, run.n_units) for run in truncated.runs} == {("3k", 5124)}
    assert plain.memory_gb["train"] > truncated.memory_gb["train"]


def test_volumes_are_sized_by_their_header(tree: Tree) -> None:
    image: Any = nib.Nifti1Image
    for run in (1, 2, 3):
        path = tree.func("space-T1w_desc-preproc_bold.nii", run)
        nib.save(image(np.zeros((4, 5, 6, 40 + run), np.float32), np.eye(4)), path)
        path.write_bytes(path.read_bytes()[:360])
        nib.save(image(np.ones((4, 5, 6), np.uint8), np.eye(4)), tree.func("space-T1w_desc-brain_mask.nii.gz", run))
        write(tree.func("space-T1w_desc-preproc_bold.json", run), json.dumps({"RepetitionTime": 1.5, "StartTime": 0.0}))
    found = survey(tree.request(input__space="T1w"), "01")
    assert found.faults == ()
    assert [(run.n_volumes, run.n_units, run.density, run.volume) for run in found.runs] == [
        (41, 120, "", True), (42, 120, "", True), (43, 120, "", True)
    ]  # fmt: skip
    nib.save(image(np.ones((4, 5, 7), np.uint8), np.eye(4)), tree.func("space-T1w_desc-brain_mask.nii.gz", 2))
    (fault,) = survey(tree.request(input__space="T1w"), "01").faults
    assert "(4, 5, 6)" in str(fault)
    assert "(4, 5, 7)" in str(fault)


def test_a_matrix_of_betas_is_planned_too(tree: Tree) -> None:
    folder = tree.root / "betas"
    folder.mkdir()
    np.save(folder / "sub-01_betas.npy", np.zeros((8, 33), np.float32))
    write(folder / "sub-01_trials.tsv", "stim_id\trun\n" + "".join(f"p{i}\tr{i % 2}\n" for i in range(8)))
    request = dataclasses.replace(tree.request(parcels__atlas="blocks:4"), derivatives={"betas": folder})
    found = survey(request, "01")
    assert found.faults == ()
    assert [(run.name, run.n_units, run.n_trials, run.n_texts) for run in found.runs] == [("sub-01_betas", 33, 8, 9)]
    assert set(found.memory_gb) == {"train", "decode", "evaluate"}
    assert survey_request(request) == ()
    assert "no betas of sub-02" in str(survey(request, "02").faults[0])


def test_a_run_without_texts_is_noted_and_is_a_fault_only_when_asked_for(tree: Tree) -> None:
    write(tree.events(2), "onset\tduration\tstim_id\n4\t1\tn/a\n")
    found = survey(tree.request(), "01")
    assert found.faults == ()
    assert [run.note for run in found.runs] == ["", "no texts", ""]
    assert found.n_trials == 10
    (fault,) = survey(tree.request(input__tasks="['x']"), "01").faults
    assert isinstance(fault, MissingInputError)


def test_no_response_is_read_and_nothing_is_written(tree: Tree) -> None:
    before, request = tree.snapshot(), tree.request()
    whole = survey_all(request, ["01", "02"])
    assert survey_request(request) == ()
    assert tree.snapshot() == before
    for who in TRIALS:
        for run in (1, 2, 3):
            for side in "LR":
                path = tree.bold(run, who, side)
                text = path.read_bytes()
                path.write_bytes(text[: text.index(b"<Data>")])
    assert survey_all(request, ["01", "02"]) == whole


def _right_hemisphere_is_missing(tree: Tree) -> None:
    tree.bold(1, "01", "R").unlink()


def _onset_is_no_number(tree: Tree) -> None:
    tree.events(2, "01").write_text(tree.events(2, "01").read_text().replace("\n10\t", "\nsoon\t"))


def _confound_is_missing(tree: Tree) -> None:
    path = tree.func("desc-confounds_timeseries.tsv", 3, "01")
    path.write_text(path.read_text().replace("rot_z", "rot_q"))


def _trial_is_late(tree: Tree) -> None:
    tree.events(1, "02").write_text(tree.events(1, "02").read_text().replace("\n10\t", "\n900\t"))


def _series_is_no_gifti(tree: Tree) -> None:
    tree.bold(2, "02", "L").write_bytes(b"<html>not found</html>")


def _hemispheres_differ(tree: Tree) -> None:
    write_gifti(tree.bold(3, "02", "R"), 17, 2562)


def _sidecar_is_broken(tree: Tree) -> None:
    tree.func("space-fsaverage_den-3k_bold.json", 1, "02").write_text('{"RepetitionTime": ')


def _two_at_once(tree: Tree) -> None:
    tree.events(3, "02").write_text(tree.events(3, "02").read_text().replace("\n10\t", "\n4\t"))


def _no_confounds(tree: Tree) -> None:
    tree.func("desc-confounds_timeseries.tsv", 2, "02").unlink()


def _events_are_empty(tree: Tree) -> None:
    tree.events(3, "01").write_text("onset\tduration\tstim_id\n")


PLANTED: list[tuple[Callable[[Tree], None], str, tuple[str, ...]]] = [
    (_right_hemisphere_is_missing, "01", ("hemisphere", "sub-01_task-x_run-1")),
    (_onset_is_no_number, "01", ("the onset of row 2 is soon", "sub-01_task-x_run-2_events.tsv")),
    (_confound_is_missing, "01", ("rot_z", "run-3_desc-confounds_timeseries.tsv")),
    (_trial_is_late, "02", ("outside the run", "sub-02_task-x_run-1_events.tsv")),
    (_series_is_no_gifti, "02", ("no data array at the start", "run-2_hemi-L")),
    (_hemispheres_differ, "02", ("17 time points", "run-3_hemi-R")),
]
ALONE = [_sidecar_is_broken, _two_at_once, _no_confounds, _events_are_empty]


def test_every_fault_of_every_run_appears_at_once(tree: Tree) -> None:
    for damage, _, _ in PLANTED:
        damage(tree)
    plans = {plan.participant: plan for plan in survey_all(tree.request(), ["01", "02"])}
    for _, who, words in PLANTED:
        assert [line for line in _lines(plans[who].faults) if all(word in line for word in words)], (words, plans[who].faults)
    assert [len(plans[who].faults) for who in ("01", "02")] == [3, 3]


@pytest.mark.parametrize("damage", [*(item[0] for item in PLANTED), *ALONE], ids=lambda item: item.__name__.strip("_"))
def test_what_plan_refuses_the_survey_finds(tree: Tree, damage: Callable[[Tree], None]) -> None:
    damage(tree)
    _assert_superset(tree.request())


@pytest.mark.parametrize(
    "settings",
    [
        {"text__table": "stimuli/none.tsv"},
        {"text__table": "../texts.tsv"},
        {"text__key": "nobody"},
        {"text__answer": "nobody"},
        {"evaluate__facts": "stimuli/none.tsv"},
        {"split__scheme": "list", "split__source": "none.tsv"},
        {"split__scheme": "column", "split__source": "nobody"},
        {"split__scheme": "kfold", "split__folds": "90"},
        {"split__group": "nobody"},
        {"input__tasks": "['y']"},
        {"input__space": "T1w"},
        {"input__density": "10k"},
        {"text__table": "stimuli/none.tsv", "evaluate__facts": "stimuli/none.tsv", "input__tasks": "['y']"},
    ],
    ids=lambda item: "-".join(item.values()).replace("/", "_"),
)
def test_what_plan_refuses_of_settings_the_survey_finds(tree: Tree, settings: dict[str, str]) -> None:
    request = tree.request(**settings)
    assert _assert_superset(request)


def _assert_superset(request: Request) -> set[str]:
    """Lines that plan() raises, all of which must be among those of the surveys; those of the surveys."""
    common = set(_lines(survey_request(request)))
    every = set(common)
    for found in survey_all(request, ["01", "02"]):
        own = set(_lines(found.faults))
        assert not own & common, "told twice"
        every |= own
        try:
            plan(request, found.participant, FileHashes(request.work_dir))
        except BrainLMError as error:
            refused = set(_lines(error.faults if isinstance(error, Faults) else [error]))
            assert refused <= own | common
    return every


def test_plan_refuses_all_at_once(tree: Tree) -> None:
    _onset_is_no_number(tree)
    _events_are_empty(tree)
    with pytest.raises(Faults) as caught:
        plan(tree.request(evaluate__facts="stimuli/none.tsv"), "01", FileHashes(tree.root / "work"))
    text = "\n".join(caught.value.lines)
    assert len(caught.value.faults) == 3
    for words in ("the onset of row 2 is soon", "no trial", "the table of facts"):
        assert words in text


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"estimate__estimator": "lsss"}, ConfigError, "did you mean 'lss'"),
        ({"model__tokenizer": "parcelwize"}, ConfigError, "did you mean 'parcelwise'"),
        ({"model__style": "chatt"}, ConfigError, "did you mean 'chat'"),
        ({"phases.0.objective": "cross"}, ConfigError, "'cross'"),
        ({"evaluate__metrics": "['bleu9']"}, ConfigError, "'bleu9'"),
        ({"model__llm": "/nowhere/llm"}, MissingResourceError, "/nowhere/llm"),
        ({"model__llm": "nobody/has-this-model"}, MissingResourceError, "nobody/has-this-model"),
        ({"parcels__atlas": "/nowhere/atlas.annot"}, MissingInputError, "/nowhere/atlas.annot"),
        ({"parcels__atlas": "nothing"}, ConfigError, "'nothing'"),
        ({"text__table": "stimuli/none.tsv"}, MissingInputError, "none.tsv"),
        ({"evaluate__facts": "stimuli/none.tsv"}, MissingInputError, "none.tsv"),
    ],
    ids=lambda item: next(iter(item.values())) if isinstance(item, dict) else "",
)
def test_what_is_wrong_with_the_request_is_told_once(tree: Tree, settings: Any, kind: type[BrainLMError], words: str) -> None:
    request = tree.request(**settings)
    (fault,) = survey_request(request)
    assert isinstance(fault, kind)
    assert words in str(fault)
    assert [plan.faults for plan in survey_all(request, ["01", "02"])] == [(), ()]


def test_a_folder_that_cannot_be_is_told(tree: Tree) -> None:
    (tree.root / "file").write_text("")
    request = dataclasses.replace(tree.request(), out_dir=tree.root / "file" / "out")
    (fault,) = survey_request(request)
    assert isinstance(fault, OutputError)
    assert str(tree.root / "file") in str(fault)


def test_an_absent_model_is_no_fault_where_it_can_be_fetched(tree: Tree) -> None:
    request = tree.request(model__llm="nobody/has-this-model", run__offline="false")
    assert survey_request(request) == ()
    found = survey(request, "01")
    assert set(found.seconds) == {"estimate", "parcellate", "evaluate"}
    assert set(found.memory_gb) == set(costs.KINDS) - OTHERS


def test_events_are_looked_at_although_the_table_of_texts_is_not_there(tree: Tree) -> None:
    _onset_is_no_number(tree)
    (fault,) = survey(tree.request(text__table="stimuli/none.tsv"), "01").faults
    assert "the onset of row 2 is soon" in str(fault)


def test_processes_find_the_same(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    _onset_is_no_number(tree)
    alone = survey_all(tree.request(), ["02", "01"])
    monkeypatch.setattr(preflight, "WORTH_PROCESSES", 1)
    several = survey_all(tree.request(run__nprocs="2"), ["02", "01"])
    assert [_lines(plan.faults) for plan in several] == [_lines(plan.faults) for plan in alone]
    assert several[0] == alone[0]


def test_the_language_model_is_measured_by_its_files(tree: Tree) -> None:
    assert costs.model_size(tree.request()) == costs.ModelSize(N_PARAMETERS, 8, 2, 12)


def test_memory_follows_the_arrays(tree: Tree) -> None:
    config = tree.request(model__tokenizer="other").config
    model = costs.ModelSize(10**9, 8, 2, 12)

    def gb(kind: str, runs: Any, size: costs.ModelSize = model) -> float:
        return costs.memory(kind, costs.Sizes(runs, ((1, 1, 1),)), config, size) * 2**30

    # Two hemispheres and both joined; twice all responses; four bytes a parameter.
    v = 327684
    assert gb("estimate", ((400, v, v, 1),)) - gb("estimate", ((300, v, v, 1),)) == pytest.approx(2 * 4 * 100 * v)
    assert gb("train", ((1, v, v, 200),)) - gb("train", ((1, v, v, 100),)) == pytest.approx(2 * 4 * 100 * v)
    bigger = dataclasses.replace(model, parameters=2 * 10**9)
    assert gb("decode", ((1, v, v, 1),), bigger) - gb("decode", ((1, v, v, 1),)) == pytest.approx(4e9)
    found = survey(tree.request(), "01")
    assert {kind: memory_of(tree.request(), found, kind) for kind in costs.KINDS if kind not in OTHERS} == found.memory_gb


def test_time_of_stories_follows_words_beams_and_shifts() -> None:
    """A fifth of 10,000 words is test; a position costs 1 s by the size of the model."""
    config = load("brainllm-small", overrides={"window.words": "table", "run.device": "cpu", "run.omp_nthreads": "1"})
    model = costs.ModelSize(int(costs.FORWARD_FLOPS / 2), 8, 0, 12)
    sizes = costs.Sizes(((1, 1, 1, 0),), ((3000, 1000, 1000),), heard=(1000,) * 10)
    windows, tokens = 1000 / len(set(config.window.context)), 2000 * costs.TOKENS_PER_WORD

    def seconds(**story: Any) -> float:
        own = dataclasses.replace(config, story=dataclasses.replace(config.story, **story))
        found = costs.seconds("story", sizes, own, model)
        assert found is not None
        return found

    def told(n: int, brain: int) -> float:
        """Contexts that are read again in every window, and one position a token, for n texts at once."""
        return n * (windows * (config.story.lm_context + brain) + tokens)

    alone = {"decoders": (), "null_texts": 2, "permutations": 1}
    assert seconds(**alone | {"null_texts": 6}) - seconds(**alone) == pytest.approx(told(4, 0), rel=1e-3)
    five, nine = (seconds(**alone | {"decoders": ("generate",), "beams": beams}) for beams in (5, 9))
    assert nine - five == pytest.approx(told(4, costs.n_brain_tokens(config)), rel=1e-3)
    # Of five texts the best has five proposals, the last has one: fifteen positions a token, and nothing of the brain.
    weighed = seconds(**alone | {"decoders": ("encoding",), "beams": 5, "extensions": 5}) - seconds(**alone)
    assert weighed == pytest.approx(told(5, 0) + 10 * tokens + 5 * windows * config.story.lm_context + 5 * tokens, rel=0.01)
    shifts = [seconds(**alone | {"permutations": n}) for n in (0, 1000, 3000)]
    assert shifts[2] - shifts[1] == pytest.approx(2 * (shifts[1] - shifts[0]), rel=1e-3)
    plugin = dataclasses.replace(config, story=dataclasses.replace(config.story, decoders=("generate", "mine")))
    assert costs.seconds("story", sizes, plugin, model) is None


def test_time_comes_from_earlier_runs_where_there_are_any(tree: Tree) -> None:
    request = tree.request()
    first = survey(request, "01")
    assert first.measured == ()
    stages = request.out_dir / "logs" / "stages"
    for kind, seconds in first.seconds.items():
        names = [run.name for run in first.runs] if kind in ("estimate", "parcellate") else ["sub-01"]
        for name in names:
            key = "" if kind == "decode" else "k"  # void: it did not finish
            write(stages / f"{name}_{kind}.json", json.dumps({"key": key, "outputs": {}, "seconds": 3 * seconds / len(names)}))
    pace = measured_pace(request)
    assert set(pace) == set(costs.KINDS) - OTHERS - {"decode"}
    assert list(pace.values()) == pytest.approx([3.0] * 4)
    before, after = (survey(request, "02", pace=given).seconds for given in ({}, None))
    assert {kind: after[kind] / before[kind] for kind in after} == pytest.approx(dict.fromkeys(after, 3.0) | {"decode": 1.0})
    assert survey(request, "02").measured == ("estimate", "parcellate", "train", "evaluate")


def test_stages_that_are_skipped_cost_nothing(tree: Tree) -> None:
    found = survey(tree.request(run__skip="['evaluate', 'decode']"), "01")
    assert set(found.memory_gb) == {"estimate", "parcellate", "train"}


def test_what_auto_can_do_is_told_from_names_and_tables(tree: Tree) -> None:
    """p0 to p3 are shown in all runs, p4 in two of them, p5 in one."""
    lss, auto = (survey(tree.request(estimate__estimator=name), "01") for name in ("lss", "auto"))
    assert lss.estimation == ""
    assert auto.estimation.startswith("auto chooses on 3 runs; 5 stimuli are shown in several of them")
    assert set(auto.memory_gb) - set(lss.memory_gb) == {"tune"}
    assert set(auto.seconds) - set(lss.seconds) == {"tune"}
    alone = survey(tree.request(estimate__estimator="auto", input__runs="['1']"), "01")
    assert "no stimulus is shown in two of them" in alone.estimation


def test_choices_that_would_see_every_test_run_are_a_fault(tree: Tree) -> None:
    (fault,) = survey(tree.request(estimate__estimator="auto", estimate__tune_on="train"), "01").faults
    assert "every run holds a test trial" in str(fault)
    apart = survey(tree.request(estimate__estimator="auto", estimate__tune_on="train", split__group="run"), "01")
    assert apart.faults == ()
    assert "auto chooses on 2 of 3 runs" in apart.estimation


def test_memory_of_choices_is_that_of_all_series_unless_they_lie_on_disk(tree: Tree) -> None:
    model, v = costs.ModelSize(), 327684
    runs = ((400, v, v, 1), (200, v, v, 1))

    def gb(*pairs: tuple[int, int, int, int], **settings: str) -> float:
        config = tree.request(estimate__estimator="auto", run__memory="64G", **settings).config
        return costs.memory("tune", costs.Sizes(pairs, ()), config, model) * 2**30

    assert gb(*runs) - gb(runs[0]) == pytest.approx(4 * 200 * v)
    assert gb(*runs, run__low_mem="true") == gb(runs[0], run__low_mem="true")
