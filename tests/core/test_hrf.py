"""The responses equal nilearn's, and have the shape the literature gives them."""

from __future__ import annotations

import numpy as np
import pytest
from nilearn.glm.first_level import glover_hrf, spm_hrf

from bids_brainlm.core.hrf import HRFS, kernel


@pytest.mark.parametrize("tr", [0.72, 1.0, 2.0, 2.2])
@pytest.mark.parametrize(("name", "reference"), [("glover", glover_hrf), ("spm", spm_hrf)])
def test_kernel_equals_nilearn(name, reference, tr):
    np.testing.assert_allclose(kernel(name, tr / 50), reference(tr, oversampling=50), atol=1e-13)


@pytest.mark.parametrize("name", HRFS)
def test_a_response_sums_to_one_and_is_silent_before_its_event(name):
    response = HRFS[name](np.linspace(-2, 32, 341))
    assert response.sum() == pytest.approx(1)
    assert (response[:21] == 0).all()
    assert response.min() < 0 < response.max()


def test_an_unknown_name_gets_the_near_one():
    with pytest.raises(ValueError, match="glovr.*did you mean 'glover'"):
        kernel("glovr", 0.04)
