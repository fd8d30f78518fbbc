"""Confounds against the same tables read by pandas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.errors import InputError
from bids_brainlm.io.confounds import load_confounds


def test_real_table(real_data: Path) -> None:
    path = real_data / "confounds" / "test_desc-confounds_regressors.tsv"
    confounds = load_confounds(path, ("trans_?", "rot_x", "a_comp_cor_0[0-4]", "trans_x", "framewise_displacement"))
    expected = ("trans_x", "trans_y", "trans_z", "rot_x", *(f"a_comp_cor_0{i}" for i in range(5)), "framewise_displacement")
    assert confounds.names == expected
    assert confounds.n_dummy == 1
    table = pd.read_csv(path, sep="\t", na_values="n/a")[list(expected)]
    np.testing.assert_allclose(confounds.values, table.fillna(0.0).to_numpy())
    assert np.isnan(table["framewise_displacement"][0]), "the table must have a gap for this test to mean something"


def test_real_table_without_outliers(real_data: Path) -> None:
    confounds = load_confounds(
        real_data / "confounds" / "nonss_desc-confounds_regressors.tsv", ("rot_z", "non_steady_state_outlier*")
    )
    assert confounds.n_dummy == 0
    assert confounds.names == ("rot_z",)


def test_only_leading_volumes_are_dummies(tmp_path: Path) -> None:
    path = tmp_path / "c.tsv"
    rows = ["non_steady_state_outlier00\tnon_steady_state_outlier01\tx", "1\t0\t1", "0\t1\t2", "0\t0\t3", "0\t0\tn/a", "0\t1\t6"]
    path.write_text("\n".join(rows) + "\n")
    confounds = load_confounds(path, ("x",))
    assert confounds.n_dummy == 2
    np.testing.assert_allclose(confounds.values[:, 0], [1, 2, 3, 3, 6])
    path.write_text("\n".join(row.replace("0\t0\t3", "1\t0\t3").replace("0\t0\tn/a", "1\t0\tn/a") for row in rows) + "\n")
    assert load_confounds(path, ()).n_dummy == 5
    assert load_confounds(path, ()).values.shape == (5, 0)


def test_names_of_fmriprep_1(real_data: Path) -> None:
    func = real_data / "trees" / "synthetic" / "derivatives" / "fmriprep" / "sub-01" / "ses-01" / "func"
    confounds = load_confounds(func / "sub-01_ses-01_task-rest_timeseries.tsv", ("trans_x", "rot_z"))
    assert confounds.names == ("X", "RotZ")


def test_a_pattern_that_matches_nothing_names_the_near_columns(tmp_path: Path) -> None:
    path = tmp_path / "c.tsv"
    path.write_text("trans_x\tcsf\tempty\tword\n1\t2\tn/a\tmuch\n")
    with pytest.raises(InputError, match="no confound matches 'transx'.*near it: trans_x"):
        load_confounds(path, ("transx",))
    with pytest.raises(InputError, match=r"no confound matches 'a_comp_cor_\*'.*there are trans_x, csf"):
        load_confounds(path, ("a_comp_cor_*",))
    with pytest.raises(InputError, match="empty has no value"):
        load_confounds(path, ("empty",))
    with pytest.raises(InputError, match="word is 'much' in row 1"):
        load_confounds(path, ("word",))
