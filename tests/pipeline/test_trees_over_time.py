"""Small trees with the names of real datasets: LeBel (ds003020), Narratives (ds002345), Pereira, from transcripts to text.

Words come out at the times of the transcript plus the start of the story, and windows are counted by hand.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

SHAPE, AFFINE = (6, 6, 8), np.diag([3.0, 3.0, 3.0, 1.0])
SETTINGS = """
[window]
rows = 2
context = [1, 2]

[split]
group = "story"
test = 0.25
validation = 0.25

[model]
style = "continuation"
tokenizer = "mlp"
options = {hidden = 16}
components = 5

[[phases]]
name = "tokenizer"
train = ["tokenizer"]
epochs = 1

[decode]
max_new_tokens = 4
permutations = 3

[evaluate]
bootstrap = 20

[estimate]
high_pass = 0.0
"""
NOUNS, VERBS = ("bird", "cow", "dog", "fox"), ("runs", "eats", "sings", "sleeps")
Spoken = list[tuple[float, float, str]]


def story(seed: int, n_windows: int) -> Spoken:
    """Three words in every 2 s, the last of them at 1.5 s."""
    rng = np.random.default_rng(seed)
    words = [word for _ in range(n_windows) for word in ("the", rng.choice(NOUNS), rng.choice(VERBS))]
    return [(2 * (i // 3) + 0.5 * (1 + i % 3), 2 * (i // 3) + 0.5 * (1 + i % 3) + 0.4, word) for i, word in enumerate(words)]


def chronological(words: Spoken) -> str:
    """As the transcripts of ds003020 are written: phones and words in order of time, capitals, marks in braces."""
    end = words[-1][1] + 1
    rows = [(0.0124716553288, words[0][0], "{NS}"), *words, (words[-1][1], end, "sp")]
    lines = ['"Praat chronological TextGrid text file"', f"0.0124716553288 {end}   ! Time domain.", "2   ! Number of tiers."]
    lines += [f'"IntervalTier" "{name}" 0.0124716553288 {end}' for name in ("phone", "word")]
    for begin, end, word in rows:
        lines += [f"1 {begin} {end}", '"AH0"', f"2 {begin} {end}", f'"{word.upper()}"']
    return "\n".join(lines) + "\n"


def gentle(words: Spoken) -> str:
    """As ``align.csv`` of ds002345 is written; every fifth word was not found in the sound."""
    rows = [f"{word},{word},{begin},{end}" if i % 5 else f"{word},,," for i, (begin, end, word) in enumerate(words)]
    return "\n".join(rows) + "\n"


class Tree:
    """A dataset with fMRIPrep's derivatives in T1w, a few voxels large."""

    def __init__(self, root: Path, llm: Path) -> None:
        self.root, self.bids, self.out, self.llm = root, root / "bids", root / "out", llm
        self.json("dataset_description.json", {"Name": "tree", "BIDSVersion": "1.10.0", "License": "CC0"})
        made = {"GeneratedBy": [{"Name": "fMRIPrep", "Version": "25.2.0"}], "DatasetType": "derivative"}
        self.json("derivatives/fmriprep/dataset_description.json", {"Name": "p", "BIDSVersion": "1.10.0"} | made)
        (root / "settings.toml").write_text(SETTINGS)
        labels = np.broadcast_to(np.arange(1, SHAPE[2] + 1), SHAPE).astype(np.int16)
        self.image(root / "atlas" / "space-T1w_atlas-slabs_dseg.nii.gz", labels)

    def text(self, name: str, text: str) -> Path:
        path = self.bids / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def json(self, name: str, tree: dict[str, Any]) -> Path:
        return self.text(name, json.dumps(tree))

    def image(self, path: Path, data: np.ndarray, tr: float = 0.0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(data, AFFINE)
        if tr:
            image.header.set_zooms((3.0, 3.0, 3.0, tr))
        nib.save(image, path)

    def run(self, stem: str, n_volumes: int, tr: float) -> None:
        """Raw sidecar, series, mask and confounds of one run."""
        parts = dict(part.split("-") for part in stem.split("_"))
        folder = "/".join([f"sub-{parts['sub']}", *([f"ses-{parts['ses']}"] if "ses" in parts else []), "func"])
        self.json(f"{folder}/{stem}_bold.json", {"RepetitionTime": tr, "TaskName": parts["task"]})
        derived = self.bids / "derivatives" / "fmriprep" / folder
        rng = np.random.default_rng(len(stem) + n_volumes)
        series = (1000 + rng.standard_normal((*SHAPE, n_volumes))).astype(np.float32)
        self.image(derived / f"{stem}_space-T1w_desc-preproc_bold.nii.gz", series, tr)
        self.image(derived / f"{stem}_space-T1w_desc-brain_mask.nii.gz", np.ones(SHAPE, np.uint8))
        self.json(str((derived / f"{stem}_space-T1w_desc-preproc_bold.json").relative_to(self.bids)), {"StartTime": 0.0})
        motion = pd.DataFrame(rng.standard_normal((n_volumes, 6)), columns=[f"{a}_{b}" for a in ("trans", "rot") for b in "xyz"])
        motion.to_csv(derived / f"{stem}_desc-confounds_timeseries.tsv", sep="\t", index=False)

    def surfaces(self, stem: str, rate: np.ndarray, tr: float) -> None:
        """One run on fsaverage5 whose first hundred vertices of either side follow a rate (T,)."""
        self.run(stem, len(rate), tr)
        parts = dict(part.split("-") for part in stem.split("_"))
        folder = self.bids / "derivatives" / "fmriprep" / f"sub-{parts['sub']}" / f"ses-{parts['ses']}" / "func"
        rng = np.random.default_rng(len(stem))
        for side in "LR":
            series = 1000 + rng.standard_normal((len(rate), 10242)).astype(np.float32)
            series[:, :100] += 5 * rate[:, None]
            arrays = [nib.gifti.GiftiDataArray(row, intent="NIFTI_INTENT_TIME_SERIES") for row in series]
            nib.save(nib.GiftiImage(darrays=arrays), folder / f"{stem}_hemi-{side}_space-fsaverage5_bold.func.gii")
        (folder / f"{stem}_space-fsaverage5_bold.json").write_text(json.dumps({"StartTime": 0.0}))

    def argv(self, who: str, *more: object) -> list[object]:
        volumes = ("--space", "T1w", "--atlas", self.root / "atlas" / "space-T1w_atlas-slabs_dseg.nii.gz")
        rest = (
            "--llm",
            self.llm,
            "--offline",
            "--nprocs",
            "1",
            "-w",
            self.root / "work",
            "--config-file",
            self.root / "settings.toml",
        )
        return [self.bids, self.out, "participant", "--participant-label", who, *rest, *(more or volumes)]

    def words(self, who: str, ending: str) -> pd.DataFrame:
        """The table of words that was written for a run."""
        (path,) = (self.out / f"sub-{who}").rglob(f"*{ending}_desc-words_events.tsv")
        return pd.read_csv(path, sep="\t")

    def decoded(self, who: str) -> pd.DataFrame:
        (path,) = (self.out / f"sub-{who}").rglob("*_desc-decoded_beh.tsv")
        return pd.read_csv(path, sep="\t", na_values="n/a", keep_default_na=False)


@pytest.fixture
def tree(tmp_path: Path, llm: Path) -> Tree:
    return Tree(tmp_path, llm)


def blocks(page: str, language: str) -> list[str]:
    """Fenced blocks of a how-to page."""
    text = (Path(__file__).parents[2] / "docs" / "how-to" / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def assert_heard(table: pd.DataFrame, words: Spoken, start: float) -> None:
    assert table["word"].tolist() == [word for _, _, word in words]
    np.testing.assert_allclose(table["onset"], [start + begin for begin, _, _ in words], atol=1e-6)
    np.testing.assert_allclose(table["duration"], [end - begin for begin, end, _ in words], atol=1e-6)
    np.testing.assert_allclose(table["start"], start)


def assert_windows(decoded: pd.DataFrame, stories: dict[str, Spoken], counted: int) -> None:
    """Every decoded text is what was said in its window, and its prompt what was said in the windows before."""
    true = decoded[decoded["condition"] == "true"]
    assert len(true) == counted
    said: dict[str, str] = {}
    for name, words in stories.items():
        for begin, _, word in words:
            key = f"{name}/{int(begin // 2):04d}"
            said[key] = f"{said[key]} {word}" if key in said else word
    assert [said[key] for key in true["stimulus_id"]] == true["text_true"].tolist()
    for key, prompt, name in zip(true["stimulus_id"], true["prompt"], true["trial_id"], strict=True):
        title, window, n = key.split("/")[0], int(key.split("/")[1]), int(name.rpartition("-")[2])
        assert prompt == " ".join(said[f"{title}/{window - i:04d}"] for i in range(n, 0, -1))


def test_lebel(tree: Tree, command: Callable[..., Any]) -> None:
    """ds003020: no events, the task is the story, 10 s of scanning before the sound, a run in which nobody speaks."""
    stories = {name: story(seed, 10) for seed, name in enumerate(["avatar", "souls", "wheretheressmoke"])}
    for name, words in stories.items():
        tree.text(f"derivative/TextGrids/{name}.TextGrid", chronological(words))
    smoke = ["ses-2_task-wheretheressmoke_run-1", "ses-3_task-wheretheressmoke_run-2"]
    for run in ["ses-1_task-AuditoryLocalizer", "ses-2_task-avatar", "ses-2_task-souls", *smoke]:
        tree.run(f"sub-UTS01_{run}", 16, 2.0)
    done = command(*tree.argv("UTS01"), "--words", "textgrid", "--set", "window.start=10")
    assert done.code == 0, done.err
    assert_heard(tree.words("UTS01", "task-avatar"), stories["avatar"], 10.0)
    for run in smoke:
        assert_heard(tree.words("UTS01", run), stories["wheretheressmoke"], 10.0)
    assert not list(tree.out.rglob("*AuditoryLocalizer*"))
    assert "task-AuditoryLocalizer is left out: no TextGrid" in done.err
    decoded = tree.decoded("UTS01")
    # Window k is decoded from the volumes at 12 + 2 k and 14 + 2 k s; there are volumes up to 30 s, so window 9 has none.
    n_runs = 2 if set(decoded["group"]) == {"wheretheressmoke"} else 1
    assert_windows(decoded, stories, n_runs * (8 + 7))


def test_the_page_of_lebel(
    tree: Tree, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the page says to do, on fsaverage5: the list of the split, the plan, and the check of the clock.

    Some vertices follow the words by 6 s.
    """
    words = [word for word in story(5, 40) if word[0] // 2 % 7 not in (1, 2, 5)]
    for name in ("souls", "avatar", "fromboyhoodtofatherhood", "wheretheressmoke", "neverheard"):
        tree.text(f"derivative/TextGrids/{name}.TextGrid", chronological(words))
    for run in ("ses-2_task-avatar", "ses-2_task-souls", "ses-2_task-wheretheressmoke_run-1"):
        times = 2.0 * np.arange(52)
        rate = np.histogram([10 + 6 + begin for begin, _, _ in words], np.append(times, 104.0))[0]
        tree.surfaces(f"sub-UTS03_{run}", rate, 2.0)
    (tree.root / "ds003020").symlink_to(tree.bids)
    (tree.root / "fmriprep").symlink_to(tree.bids / "derivatives" / "fmriprep")
    monkeypatch.chdir(tree.root)
    (listing,) = [block for block in blocks("lebel.md", "sh") if "split.tsv" in block and "bids_brainlm" not in block]
    subprocess.run(["bash", "-euc", listing], check=True)
    (planned,) = [block for block in blocks("lebel.md", "sh") if "--dry-run" in block]
    here = ["--llm", str(tree.llm), "--offline", "--nprocs", "1", "--atlas", "kmeans100"]
    said = shlex.split(planned.replace("\\\n", " "))[1:]
    plan = command(*said, *here)
    assert plan.code == 0, plan.err
    (clock,) = blocks("lebel.md", "python")
    done = command(
        *[word for word in said if word != "--dry-run"], *here, "--skip", "train", "--skip", "decode", "--skip", "evaluate"
    )
    assert done.code == 0, done.err
    capsys.readouterr()
    exec(clock, {})
    strength = {int(lag): float(r) for lag, r in (line.split() for line in capsys.readouterr().out.splitlines())}
    assert max(strength, key=strength.__getitem__) == 6


def test_narratives(tree: Tree, command: Callable[..., Any]) -> None:
    """ds002345: sounds named by the events, which begin with music or not; several stories in a run, with films between."""
    stories = {name: story(seed, 10) for seed, name in enumerate(["pieman", "tunnel", "friends", "bigbang"])}
    for name, words in stories.items():
        tree.text(f"stimuli/gentle/{name}/align.csv", gentle(words))
    head = "onset\tduration\ttrial_type\tstim_file\n"
    pieman = "0.0\t0.3\tmusic\tpieman_audio.wav\n0.4\t20.0\tstory\tpieman_audio.wav\n"
    films = [(5.0, 5.0, "movie", "n/a"), (12.25, 20.0, "story", "friends_audio.wav"), (36.0, 9.0, "movie", "n/a")]
    films.append((48.5, 20.0, "story", "bigbang_audio.wav"))
    schema = "".join("\t".join(map(str, row)) + "\n" for row in films)
    events = {"pieman_run-1": pieman, "tunnel": "3.0\t20.0\tstory\ttunnel_audio.wav\n", "schema_run-1": schema}
    for run, text in events.items():
        tree.run(f"sub-001_task-{run}", 50, 1.5)
        tree.text(f"sub-001/func/sub-001_task-{run}_events.tsv", head + text)
    skipped = ("--skip", "train", "--skip", "decode", "--skip", "evaluate")
    done = command(*tree.argv("001"), "--words", "auto", *skipped)
    assert done.code == 0, done.err
    found = {name: [row for i, row in enumerate(words) if i % 5] for name, words in stories.items()}
    assert_heard(tree.words("001", "task-pieman_run-1"), found["pieman"], 0.0)
    assert_heard(tree.words("001", "task-tunnel"), found["tunnel"], 3.0)
    both = tree.words("001", "task-schema_run-1")
    assert_heard(both[both["story"] == "friends"], found["friends"], 12.25)
    assert_heard(both[both["story"] == "bigbang"], found["bigbang"], 48.5)
    assert set(both["story"]) == {"friends", "bigbang"}
    assert done.err.count("24 words of pieman; dropped: 6 without a time, 0 marks") == 1
    (sidecar,) = tree.out.rglob("*_task-pieman_run-1_desc-words_events.json")
    about = json.loads(sidecar.read_text())
    assert (about["NumberOfWordsWithoutTime"], about["NumberOfMarksDropped"], about["NumberOfWordsOutsideSeries"]) == (6, 0, 0)
    row = re.search(r">task-pieman_run-1</th>(.*?)</tr>", (tree.out / "sub-001.html").read_text())
    assert row is not None
    # Words, those outside the series, without a time, marks; windows used, silent, outside, without context.
    assert re.findall(r">([^<]+)</td>", row[1]) == ["pieman", "24", "0", "6", "0", "9", "0", "0", "1"]


def published(tree: Tree, who: str, events: dict[str, str], n_volumes: int) -> None:
    """Runs as fMRIPrep 1.5 left them in ds002345, on fsaverage6; for a plan, which reads no values."""
    func = tree.bids / "derivatives" / "fmriprep" / f"sub-{who}" / "func"
    func.mkdir(parents=True)
    array = nib.gifti.GiftiDataArray(np.zeros(40962, np.float32), intent="NIFTI_INTENT_TIME_SERIES")
    image = nib.GiftiImage(darrays=[array] * n_volumes).to_bytes()
    motion = pd.DataFrame({f"{a}_{b}": np.arange(n_volumes) for a in ("trans", "rot") for b in "xyz"})
    for task, rows in events.items():
        stem = f"sub-{who}_task-{task}"
        for side in "LR":
            (func / f"{stem}_space-fsaverage6_hemi-{side}.func.gii").write_bytes(image)
        motion.to_csv(func / f"{stem}_desc-confounds_regressors.tsv", sep="\t", index=False)
        tree.json(f"sub-{who}/func/{stem}_bold.json", {"RepetitionTime": 1.5, "TaskName": task})
        tree.text(f"sub-{who}/func/{stem}_events.tsv", "onset\tduration\ttrial_type\tstim_file\n" + rows)


def test_the_page_of_narratives(tree: Tree, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the page, as plans: every story is found with its windows, and nothing is missing."""
    n, names = 150, ("pieman", "tunnel", "lucy", "milkywayoriginal", "prettymouth")
    for seed, name in enumerate(names):
        tree.text(f"stimuli/gentle/{name}/align.csv", gentle(story(seed, n)))
    told = {name.removesuffix("original"): f"3.0\t300.0\tstory\t{name}_audio.wav\n" for name in names}
    published(tree, "052", told, 210)
    published(tree, "001", {"tunnel": told["tunnel"]}, 210)
    (tree.root / "narratives").symlink_to(tree.bids)
    monkeypatch.chdir(tree.root)
    (got,) = [block for block in blocks("narratives.md", "sh") if "datalad" in block]
    # What the page fetches is all that there is, but for what comes with the clone.
    fetched = {path for name in re.findall(r"\S*\*\S*", got) for path in tree.bids.glob(name)}
    there = {path for path in tree.bids.rglob("sub-052*") if path.is_file()}
    assert there - fetched == set(tree.bids.rglob("sub-052*_bold.json"))
    calls = [block for block in blocks("narratives.md", "sh") if "bids_brainlm" in block]
    assert len(calls) == 2
    for call, n_stories in zip(calls, (5, 1), strict=True):
        said = [word for word in shlex.split(call.replace("\\\n", " "))[1:] if word != "--dry-run"]
        done = command(*said, "--llm", tree.llm, "--offline", "--nprocs", "1", "--atlas", "kmeans100", "--dry-run")
        assert done.code == 0, done.err
        assert "Nothing is missing" in done.err
        rows = [line.split()[1:] for line in done.err.splitlines() if line.startswith("#   task-")]
        # With one, two or three windows before: n - 1, n - 2 and n - 3 texts.
        assert [row[1:] for row in rows] == [["fsaverage", "10k", "210", "1.500", str(n - 1), str(3 * (n - 2))]] * n_stories


def test_the_page_of_pereira(tree: Tree, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Files as they are published become a matrix and its table, whose sentences are cut into chunks."""
    rng = np.random.default_rng(0)
    told = {"384sentences": 12, "243sentences": 9}
    cut: dict[tuple[str, str], str] = {}
    for experiment, n in told.items():
        texts = [" ".join(rng.choice([*NOUNS, *VERBS], 7)) for _ in range(n)]
        data = {"examples_passagesentences": rng.standard_normal((n, 30)), "keySentences": np.array(texts, object)[:, None]}
        (tree.root / "M02").mkdir(exist_ok=True)
        labels = 1 + np.arange(n)[:, None] // 3
        savemat(tree.root / "M02" / f"data_{experiment}.mat", data | {"labelsPassageForEachSentence": labels})
        for label, text in zip(labels[:, 0], texts, strict=True):
            words = text.split()
            cut[" ".join(words[:3]), " ".join(words[3:5])] = f"{experiment}-{label}"
            cut[" ".join(words[:5]), " ".join(words[5:])] = f"{experiment}-{label}"
    monkeypatch.chdir(tree.root)
    (script,) = blocks("pereira.md", "python")
    exec(script, {})
    (call,) = [block for block in blocks("pereira.md", "sh") if "bids_brainlm" in block]
    (tree.root / "quick.toml").write_text(SETTINGS)
    here = ["--config-file", "quick.toml", "--llm", tree.llm, "--offline", "--nprocs", "1"]
    tree.json("../pereira/bids/dataset_description.json", {"Name": "tree", "BIDSVersion": "1.10.0", "License": "CC0"})
    quick = ["--set", "split.folds=2", "--set", "model.markers=false"]
    said = shlex.split(call.replace("\\\n", " ").replace("model.components=300", "model.components=5"))[1:]
    done = command(*said, *here, *quick)
    assert done.code == 0, done.err
    (path,) = (tree.root / "pereira" / "out" / "sub-M02").rglob("*_desc-decoded_beh.tsv")
    decoded = pd.read_csv(path, sep="\t", na_values="n/a", keep_default_na=False)
    true = decoded[decoded["condition"] == "true"]
    assert len(true) == 2 * sum(told.values())
    assert {(a, b): c for a, b, c in zip(true["prompt"], true["text_true"], true["group"], strict=True)} == cut
