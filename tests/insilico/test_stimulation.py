"""A whole stimulation, small: tables agree with plain loops, nothing leaks, files and page hold what was found."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bids_brainlm.cli import companion
from bids_brainlm.errors import LeakageError
from bids_brainlm.evaluation.decoding import generate
from bids_brainlm.insilico import participant as opening
from bids_brainlm.insilico.captions import say
from bids_brainlm.insilico.effects import CAPTION_COLUMNS, DOSE_COLUMNS, EFFECT_COLUMNS
from bids_brainlm.insilico.participant import Participant
from bids_brainlm.insilico.reverse import likeness, reverse, subspace_of
from bids_brainlm.insilico.sites import Site, halves
from bids_brainlm.insilico.stimulated import write
from bids_brainlm.insilico.stimulation import (
    Experiment,
    Stimulation,
    backwards,
    bases_of,
    category_rate,
    stimulate,
    training_texts,
    words_in,
)
from bids_brainlm.insilico.training_range import training_range
from bids_brainlm.io.files import read_tsv
from bids_brainlm.io.surfaces import Geometry, Volume
from bids_brainlm.reports.insilico import map_panel, page
from bids_brainlm.stages.decode import generation_of
from bids_brainlm.stages.decoder import Decoder

from .conftest import SCALE, V
from .small import ANIMAL, FACTS, participant

HOW = Experiment(doses=(-1.0, 0.0, 2.0), trials=5, nulls=8, captions=2, batch_size=7)


def sites() -> list[Site]:
    one, two = np.zeros((2, V), np.float32)
    one[[0, 1]], two[[4, 5]] = 1, 2
    return [Site("one", one, "a pair"), Site("two", two)]


@pytest.fixture
def someone(decoders: Callable[[str], Decoder], tmp_path: Path) -> Participant:
    return participant(decoders("parcels"), tmp_path)


@pytest.fixture
def found(someone: Participant) -> Stimulation:
    return stimulate(someone, sites(), words_in(someone, FACTS.vocabulary), None, HOW)


def test_tables_have_their_columns_and_agree(found: Stimulation) -> None:
    tables = ((found.effects, EFFECT_COLUMNS), (found.doses, DOSE_COLUMNS), (found.captions, CAPTION_COLUMNS))
    assert [list(table) for table, _ in tables] == [list(columns) for _, columns in tables]
    assert [len(table) for table, _ in tables] == [2 * 4, 2 * 3 * 3 * 4, 2 * 3 * 2]
    # The slope of a mean over trials is the mean of slopes.
    own = found.doses[(found.doses["base"] == "trials") & (found.doses["site"] == "two") & (found.doses["word"] == "dog")]
    slope = np.polyfit(own["dose"], own["log_probability"], 1)[0]
    row = found.effects[(found.effects["site"] == "two") & (found.effects["word"] == "dog")].iloc[0]
    assert row["slope"] == pytest.approx(slope, abs=1e-6)
    assert row["n_null"] >= 1
    assert row["p_raised"] >= 1 / (1 + row["n_null"])
    # What is not driven is the same for all sites.
    zero = found.doses[found.doses["dose"] == 0].drop(columns=["beyond_vertices", "beyond_norm"])
    halves = [zero[zero["site"] == name].drop(columns="site").reset_index(drop=True) for name in ("one", "two")]
    pd.testing.assert_frame_equal(*halves)


def test_probabilities_of_one_factor_do_not_exceed_one(found: Stimulation) -> None:
    total = np.exp(found.doses["log_probability"]) + np.exp(found.doses["rivals"])
    assert (total <= 1 + 1e-6).all()


def test_trials_that_were_trained_with_are_not_driven(someone: Participant) -> None:
    with pytest.raises(LeakageError):
        bases_of(someone, np.array([0]), HOW)
    held = someone.folds[0].test[:9]
    chosen = bases_of(someone, held, HOW)
    assert len(chosen) == 5
    assert set(chosen.id) <= set(someone.folds[0].examples.id[held])
    assert bases_of(someone, held, Experiment(trials=0)).id.tolist() == someone.folds[0].examples.id[held].tolist()


def test_captions_of_dose_zero_are_those_of_decoding(someone: Participant) -> None:
    bases, settings = bases_of(someone, None, HOW), generation_of(someone.request.config)
    said = say(someone.decoder(), bases, np.stack([site.pattern for site in sites()]), HOW.doses, settings)
    plain = generate(someone.decoder().model, someone.decoder().text, bases, np.arange(len(bases)), settings)
    assert said[0][1] == said[1][1] == plain


def test_words_of_captions_are_counted() -> None:
    captions = pd.DataFrame({"site": ["a"] * 3, "dose": [0.0, 0.0, 1.0], "words": ["dog, red", "red", ""]})
    rates = category_rate(captions)
    assert rates.loc[("a", 0.0)].to_dict() == {"dog": 0.5, "red": 1.0}
    assert rates.loc[("a", 1.0)].to_dict() == {"dog": 0.0, "red": 0.0}


def test_what_training_never_had_is_flagged(someone: Participant) -> None:
    split = someone.folds[0]
    span = training_range(someone.decoder().model, split.examples, split.train)
    mean = someone.decoder().model.features.mean.numpy()  # type: ignore[union-attr, operator]
    z = (split.examples.gather(split.train)[:, 0] - mean) * np.divide(1, SCALE, out=np.zeros_like(SCALE), where=SCALE > 0)
    np.testing.assert_allclose(span.largest, np.abs(z).max(axis=0), rtol=1e-5)
    assert span.longest == pytest.approx(np.linalg.norm(z, axis=1).max(), rel=1e-5)
    bases = split.examples.take(split.train)
    vertices, norms = span.beyond(bases, sites()[1].pattern, [0.0, 1000.0])
    assert (vertices[0], norms[0]) == (0.0, 0.0)
    assert (vertices[1], norms[1]) == (1.0, 1.0)


def test_the_way_back_raises_the_word_and_stays_near_training(someone: Participant) -> None:
    bases, space = bases_of(someone, None, HOW), subspace_of(someone, n_components=4)
    assert space.axes.shape == (V, 4)
    word = next(word for word in words_in(someone, FACTS.vocabulary) if word.label == "dog")
    back = reverse(someone, word, bases, training_texts(someone), space, steps=8)
    assert back.after > back.before
    assert back.length <= space.length * (1 + 1e-5)
    place = (space.axes.T @ back.pattern) / space.deviation
    np.testing.assert_allclose(space.axes @ (space.deviation * place), back.pattern, atol=1e-4)
    assert np.linalg.norm(place) == pytest.approx(back.length, rel=1e-4)
    # The trials are driven to what it says: added to them, the pattern gives that log-probability.
    rng = np.random.default_rng(0)
    others = rng.standard_normal((20, 4))
    others *= back.length / np.linalg.norm(others, axis=1, keepdims=True)
    random = np.stack([space.axes @ (space.deviation * u) for u in others]).astype(np.float32)
    probe = stimulate(
        someone,
        [Site("back", back.pattern), *(Site(str(i), p) for i, p in enumerate(random))],
        [word],
        None,
        Experiment(doses=(0.0, 1.0), trials=5, nulls=0, captions=0),
    )
    ends = probe.doses[(probe.doses["dose"] == 1) & (probe.doses["base"] == "trials")].set_index("site")["log_probability"]
    assert ends["back"] == pytest.approx(back.after, abs=1e-3)
    assert ends.idxmax() == "back"
    assert all(parameter.grad is None for parameter in someone.decoder().model.parameters())
    assert torch.is_grad_enabled()


def test_likeness_is_a_correlation() -> None:
    one, other = np.random.default_rng(0).standard_normal((2, 50))
    used = np.arange(50) < 40
    assert likeness(one, other, used) == pytest.approx(np.corrcoef(one[:40], other[:40])[0, 1])
    assert np.isnan(likeness(one, np.ones(50), used))


def test_files_and_page_hold_what_was_found(someone: Participant, found: Stimulation) -> None:
    word = [word for word in found.words if word.label == "dog"]
    back = backwards(someone, word, None, HOW)
    paths = write(found, someone, back)
    assert all(path.is_file() for path in paths)
    table = read_tsv(paths[0])
    assert paths[0].name == "sub-01_task-look_desc-stimulation_beh.tsv"
    assert table["slope"].astype(float).tolist() == pytest.approx(found.effects["slope"].tolist())
    sidecar = json.loads(paths[1].read_text())
    assert sidecar["ModelDigest"] == someone.digest()
    assert sidecar["Description"].endswith("Effects on the model, not on the brain.")
    assert set(EFFECT_COLUMNS) <= set(sidecar)
    html = page(found, someone, back)
    assert found.verdict()[0] in html.replace("&lt;", "<")
    assert "Effects on the model" in html
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", html)


def test_sites_are_drawn_where_they_are() -> None:
    values = np.zeros(1284, np.float32)
    values[[3, 700]] = 1
    surface = map_panel("x", values, Geometry("fsaverage", "", 642, 1284), "left", "t of left.")
    inside = Volume(np.eye(4), (8, 8, 30), np.arange(1284))
    volume = map_panel("x", values, Geometry("T1w", "", 1284, 1284, inside), "left", "t of left.")
    for panel, what in ((surface, "vertices"), (volume, "voxels")):
        assert panel is not None
        assert panel.image.startswith(b"\x89PNG")
        assert panel.caption == f"left: 2 {what}. t of left."
    assert map_panel("x", values, Geometry("none", "", 1284, 1284), "left", "") is None


def test_verdicts_say_when_nothing_could_be_found(found: Stimulation) -> None:
    few = found.verdict()
    assert "no effect on the model" in few[0]
    assert f"Only {found.effects['n_null'].min()} null patches" in few[0]


def test_without_null_patches_nothing_is_said_to_be_null(someone: Participant, found: Stimulation) -> None:
    how = Experiment(doses=(0.0, 1.0), trials=2, nulls=0, captions=0)
    untested = stimulate(someone, sites(), found.words, None, how)
    assert untested.verdict() == ("There are no null patches, so nothing is tested.",)
    assert untested.effects[["p_raised", "q_raised", "null_mean"]].isna().all(axis=None)
    assert untested.captions.empty
    assert "nothing is tested" in page(untested, someone)


def test_sites_of_one_name_are_refused(someone: Participant, found: Stimulation) -> None:
    with pytest.raises(ValueError, match="different names"):
        stimulate(someone, [*sites(), sites()[0]], found.words, None, HOW)


@pytest.fixture
def opens(someone: Participant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Participant:
    """The participant is what any output folder holds; its facts are in ``facts.tsv`` here."""
    rows = [f"s{i}\t{ANIMAL[i % 4]}\t{('park', 'park', 'fence', 'fence')[i % 4]}" for i in range(8)]
    (tmp_path / "facts.tsv").write_text("\n".join(["stimulus\tanimal\tplace", *rows, ""]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(opening, "open_participant", lambda *_, **__: someone)
    return someone


@pytest.mark.usefixtures("opens")
def test_python_of_the_page_is_executed(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "stimulate.md").read_text("utf-8")
    exec(re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)[0], {})
    printed = capsys.readouterr().out
    assert "slope" in printed
    assert "no effect on the model" in printed


def test_the_command_writes_what_it_names(opens: Participant, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["stimulate", str(tmp_path), "--participant-label", "01", "--facts", "facts.tsv", "--top", "1"]
    short = ["--trials", "3", "--nulls", "4", "--captions", "1", "--doses", "-1,0,1"]
    assert companion.main([*call, *short, "--site", "contrast:animal=dog", "--site", "net=parcels:Vis*", "--reverse", "dog"]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [Path(line) for line in lines if line.startswith(str(tmp_path))]
    assert len(named) == 11
    assert all(path.is_file() for path in named)
    assert named[-1] == opens.request.out_dir / "sub-01_stimulation.html"
    reverse_sidecar = json.loads(next(path for path in named if path.name.endswith("desc-reverse_statmap.json")).read_text())
    assert -1 <= reverse_sidecar["Words"][0]["LikenessToSite"] <= 1
    # Trials of the localizer are not driven.
    trials = set(json.loads(named[1].read_text())["Trials"])
    assert not trials & set(opens.folds[0].examples.id[halves(opens)[0]])


@pytest.mark.usefixtures("opens")
@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--site", "contrast:colour"], 2),
        (["--site", "parcels:Vis*", "--doses", "1,1"], 2),
        (["--site", "parcels:Vis*", "--reverse", "cow"], 2),
        (["--site", "contrast:animal", "--localizer-runs", "1"], 65),
    ],
)
def test_commands_that_make_no_sense_end(more: list[str], code: int, tmp_path: Path) -> None:
    assert companion.main(["stimulate", str(tmp_path), "--participant-label", "01", "--facts", "facts.tsv", *more]) == code
