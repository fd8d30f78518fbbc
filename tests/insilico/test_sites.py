"""Sites come from trials that training has not seen, and are where the planted response is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bids_brainlm.errors import ConfigError, InputError, LeakageError
from bids_brainlm.insilico.participant import Participant
from bids_brainlm.insilico.requested import sites_from, vocabulary_from
from bids_brainlm.insilico.sites import Cut, contrast_maps, contrasts, from_maps, halves, in_runs, independent
from bids_brainlm.io.maps import save_volume, write_hemispheres
from bids_brainlm.io.surfaces import Geometry, Volume
from bids_brainlm.stages.decoder import Decoder

from .conftest import LABELS, SCALE, V
from .small import DRIVEN, FACTS, N, participant


@pytest.fixture
def someone(decoders: Callable[[str], Decoder], tmp_path: Path) -> Participant:
    return participant(decoders("parcels"), tmp_path)


def test_t_is_welch_s(someone: Participant) -> None:
    split, index = someone.folds[0], np.arange(3, 20)
    labels = FACTS.labels(split.examples.stimulus[index])[:, 0]
    labels[2] = ""
    found = contrast_maps(split.examples, index, labels, SCALE)
    data = split.examples.gather(index)[:, 0]
    wanted = stats.ttest_ind(data[labels == "dog"], data[labels == "bird"], equal_var=False).statistic
    used = SCALE > 0
    np.testing.assert_allclose(found["dog"][used], wanted[used], rtol=1e-4)
    np.testing.assert_allclose(found["bird"], -found["dog"], rtol=1e-4)
    assert (found["dog"][~used] == 0).all()


def test_a_contrast_finds_what_was_planted(someone: Participant) -> None:
    localizer, held = halves(someone)
    sites = {site.name: site for site in contrasts(someone, FACTS, "animal", localizer, Cut(top=1))}
    assert sites["dog"].vertices.tolist() == [DRIVEN]
    assert sites["dog"].pattern[DRIVEN] == 1
    assert sites["dog"].statistic is not None
    groups = someone.folds[0].examples.group
    assert not set(groups[localizer]) & set(groups[held])
    assert set(localizer) | set(held) == set(someone.folds[0].test)


def test_training_trials_are_refused(someone: Participant) -> None:
    with pytest.raises(LeakageError, match="was trained with"):
        contrasts(someone, FACTS, "animal", np.array([0, N - 1]), Cut())
    with pytest.raises(LeakageError, match="localizer uses"):
        in_runs(someone, ["1"])
    assert in_runs(someone, ["2"]).tolist() == list(range(N // 2, N))
    with pytest.raises(InputError, match="no trial of run '7'"):
        in_runs(someone, ["7"])
    with pytest.raises(InputError, match="all held-out trials"):
        independent(someone, ["run-2"])


def test_sites_are_what_is_asked_for(someone: Participant, tmp_path: Path) -> None:
    localizer, _ = halves(someone)
    (tmp_path / "v.txt").write_text("0\n11\n")
    values = np.linspace(-1, 1, V)
    (tmp_path / "m.tsv").write_text("one\ttwo\n" + "".join(f"{x:g}\t{-x:g}\n" for x in values))
    asked = ["contrast:animal=dog", "net=parcels:Vis*", "Mot=parcels:mot_1", f"vertices:{tmp_path / 'v.txt'}"]
    found = {site.name: site.vertices.tolist() for site in sites_from(asked, someone, FACTS, localizer, Cut(top=1))}
    vis, mot = (np.flatnonzero(np.isin(LABELS, some)).tolist() for some in ((1, 2), (3,)))
    assert found == {"dog": [DRIVEN], "net": vis, "Mot": mot, "v": [0, 11]}
    maps = sites_from([f"m=map:{tmp_path / 'm.tsv'}"], someone, None, localizer, Cut(threshold=0.5, within=("Vis*",)))
    allowed = np.isin(LABELS, [1, 2]) & (SCALE > 0)
    one, two = (np.flatnonzero((sign * values > 0.5) & allowed).tolist() for sign in (1, -1))
    assert [(site.name, site.vertices.tolist()) for site in maps] == [("m/one", one), ("m/two", two)]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["parcels"], "KIND:WHAT"),
        (["x=areas:V1"], "KIND among"),
        (["parcels:Vis*", "parcels:Vis*"], "two sites are called"),
        (["parcels:Aud*"], "no parcel of three"),
        (["contrast:colour"], "no factor 'colour'"),
        (["contrast:animal=cat"], "no value 'cat'"),
    ],
)
def test_requests_that_make_no_sense_are_told(someone: Participant, asked: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sites_from(asked, someone, FACTS, halves(someone)[0], Cut(top=1))


def test_files_that_do_not_fit_are_told(someone: Participant, tmp_path: Path) -> None:
    localizer, _ = halves(someone)
    (tmp_path / "v.txt").write_text("12\n")
    with pytest.raises(InputError, match="numbers from 0 to 11"):
        sites_from([f"vertices:{tmp_path / 'v.txt'}"], someone, None, localizer, Cut())
    (tmp_path / "m.tsv").write_text("one\n1\n2\n")
    with pytest.raises(InputError, match="12, one a vertex"):
        from_maps(tmp_path / "m.tsv", someone)
    with pytest.raises(InputError, match="no vertex of 'bird' passes"):
        contrasts(someone, FACTS, "animal", localizer, Cut(threshold=99))
    with pytest.raises(ConfigError, match="needs a table of facts"):
        sites_from(["contrast:animal"], someone, None, localizer, Cut())


def test_words_are_what_is_asked_for() -> None:
    assert vocabulary_from([], FACTS) == FACTS.vocabulary
    assert vocabulary_from(["a=x|y,z"], FACTS) == {"a": {"x": ("x", "y"), "z": ("z",)}}
    for wrong in ("dog", "=dog", "a=", "a=x,,y"):
        with pytest.raises(ConfigError, match="expected FACTOR"):
            vocabulary_from([wrong], FACTS)
    with pytest.raises(ConfigError, match="no words"):
        vocabulary_from([], None)


def test_maps_of_two_hemispheres_are_read_from_either(someone: Participant, tmp_path: Path) -> None:
    someone.__dict__["trials"] = dataclasses.replace(someone.trials, geometry=Geometry("fsaverage", "", V // 2, V))
    rows = np.arange(2 * V, dtype=np.float32).reshape(2, V)
    paths = write_hemispheres(tmp_path, {"sub": "01", "desc": "x"}, rows, V // 2, ["one", "two"], "NIFTI_INTENT_ESTIMATE")
    for path in paths:
        found = from_maps(path, someone)
        assert list(found) == ["one", "two"]
        np.testing.assert_array_equal(np.stack(list(found.values())), rows)
    other = tmp_path / "lone.func.gii"
    other.write_bytes(paths[0].read_bytes())
    with pytest.raises(InputError, match="which hemisphere"):
        from_maps(other, someone)
    write_hemispheres(tmp_path, {"sub": "02", "desc": "x"}, rows[:, :6], 3, ["one", "two"], "NIFTI_INTENT_ESTIMATE")
    with pytest.raises(InputError, match="another surface"):
        from_maps(tmp_path / "sub-02_hemi-L_desc-x_statmap.func.gii", someone)


def test_maps_of_a_volume_lie_on_its_grid(someone: Participant, tmp_path: Path) -> None:
    volume = Volume(np.eye(4), (3, 3, 2), np.arange(3, 15))
    someone.__dict__["trials"] = dataclasses.replace(someone.trials, geometry=Geometry("T1w", "", V, V, volume))
    rows = np.random.default_rng(0).standard_normal((2, V)).astype(np.float32)
    found = from_maps(save_volume(tmp_path / "m.nii.gz", rows, volume), someone)
    np.testing.assert_array_equal(np.stack(list(found.values())), rows)
    shifted = Volume(np.diag([2.0, 1, 1, 1]), volume.shape, volume.index)
    with pytest.raises(InputError, match="grid of the responses"):
        from_maps(save_volume(tmp_path / "s.nii.gz", rows, shifted), someone)
