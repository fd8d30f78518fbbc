"""Masked brains are scored as a plain loop would; planted regions are found, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from bids_brainlm.core.interventions import partners
from bids_brainlm.core.types import Examples, Parcellation
from bids_brainlm.evaluation.ablation import WHERE_COLUMNS, Masked, Region, flipped, masked_nll, regions_of, where_table
from bids_brainlm.language.render import render
from bids_brainlm.models.fusion import BrainLM, collate

Speaker = Callable[[str], tuple[BrainLM, Any]]
LABELS = np.array([1, 1, 2, 0, 3, 3, 3, 2, 1], np.int32)


def atlas(names: tuple[str, ...] = ("a", "b", "c")) -> Parcellation:
    return Parcellation("test", "none", LABELS, names, 9)


def test_networks_are_those_that_names_tell() -> None:
    assert [(r.name, r.kind) for r in regions_of(atlas())] == [("a", "parcel"), ("b", "parcel"), ("c", "parcel")]
    schaefer = regions_of(atlas(("7Networks_LH_Vis_1", "7Networks_LH_Default_PFC_1", "7Networks_RH_Vis_2")))
    assert [(r.name, r.vertices.sum()) for r in schaefer[3:]] == [("Vis", 6), ("Default", 2)]
    np.testing.assert_array_equal(schaefer[3].vertices, np.isin(LABELS, (1, 3)))
    # One network would be the whole brain again.
    assert len(regions_of(atlas(("LH_Vis_1", "LH_Vis_2", "RH_Vis_1")))) == 3


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_masked_brains_are_scored_as_a_plain_loop_does(speaker: Speaker, examples: Examples, family: str) -> None:
    model, text = speaker(family)
    assert model.features is not None
    mean = np.linspace(-1, 1, 9).astype(np.float32)
    model.features.mean.copy_(torch.from_numpy(mean))  # type: ignore[operator]
    rendered = [render(prompt, text, 3, "chat") for prompt in examples.prompts]
    partner, regions, chosen = partners(examples, 1, 0)[0], regions_of(atlas()), np.array([0, 3, 4, 8, 11])
    found = masked_nll(model, examples, rendered, partner, regions, 2, chosen)
    own, other = examples.gather(chosen), examples.gather(partner[chosen])
    empty = np.broadcast_to(mean, own.shape).copy()
    np.testing.assert_allclose(found.whole, plain(model, rendered, chosen, own), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.nothing, plain(model, rendered, chosen, empty), rtol=1e-5, atol=1e-4)
    pairs = {"alone": (own, empty), "alone_of_partner": (other, empty), "masked": (empty, own), "exchanged": (other, own)}
    for name, (inside, rest) in pairs.items():
        wanted = [plain(model, rendered, chosen, np.where(region.vertices, inside, rest)) for region in regions]
        np.testing.assert_allclose(getattr(found, name), wanted, rtol=1e-5, atol=1e-4)
        assert np.abs(getattr(found, name) - found.whole).max() > 1e-3


def plain(model: BrainLM, rendered: Any, chosen: Any, vertices: Any) -> list[float]:
    return [float(model.nll(collate([rendered[i]], x[None]))[0]) for i, x in zip(chosen, vertices, strict=True)]


def planted(n: int = 60, seed: int = 0) -> tuple[Masked, tuple[Region, ...]]:
    """Six regions: 0 and 1 tell the same two nats (either will do), 2 tells one nat, the others nothing; masks have costs."""
    rng = np.random.default_rng(seed)
    regions = tuple(Region(f"r{i}", "parcel", np.arange(6) == i) for i in range(6))
    text = rng.normal(20, 5, n)

    def nll(kept: set[int], cost: float) -> Any:
        told = 2.0 * bool({0, 1} & kept) + 1.0 * (2 in kept)
        return text - told + cost + rng.normal(0, 0.5, n)

    without = [set(range(6)) - {i} for i in range(6)]
    alone, others = [nll({i}, 3.0) for i in range(6)], [nll(set(), 3.0) for _ in range(6)]
    masked, exchanged = [nll(kept, 0.7) for kept in without], [nll(kept, 0.0) for kept in without]
    parts = (np.stack(part) for part in (alone, others, masked, exchanged))
    return Masked(nll(set(range(6)), 0.0), nll(set(), 5.0), *parts), regions


def test_planted_regions_are_found_and_those_that_cover_for_each_other_only_alone() -> None:
    masked, regions = planted()
    units = np.repeat(np.arange(30), 2)
    table = where_table(masked, regions, np.arange(6) != 5, units)
    assert list(table) == list(WHERE_COLUMNS)
    rows = table.set_index(["way", "region"])
    assert rows.loc["alone", "specificity"].tolist() == pytest.approx([2, 2, 1, 0, 0, 0], abs=0.35)
    assert rows.loc["left_out", "specificity"].tolist() == pytest.approx([0, 0, 1, 0, 0, 0], abs=0.35)
    assert (rows.loc["alone", "p_max"] < 0.01).tolist() == [True, True, True, False, False, False]
    assert (rows.loc["left_out", "p_max"] < 0.01).tolist() == [False, False, True, False, False, False]
    assert (rows["q_value"] >= rows["p_value"] - 1e-12).all()
    assert (rows["p_max"] >= rows["p_value"] - 0.02).all()
    assert rows.loc["alone", "vertices"].tolist() == [1, 1, 1, 1, 1, 0]
    # Masks have costs of their own: 2 nats less of odd input alone, .7 nats more of it left out.
    assert rows.loc["alone", "nll_difference"].tolist() == pytest.approx([4, 4, 3, 2, 2, 2], abs=0.35)
    assert rows.loc["left_out", "nll_difference"].tolist() == pytest.approx([0.7, 0.7, 1.7, 0.7, 0.7, 0.7], abs=0.35)
    assert rows.loc[("alone", "r0"), "ci_low"] < 2 < rows.loc[("alone", "r0"), "ci_high"]


def test_flips_are_of_whole_units_and_keep_their_level() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(12), 3)
    found = []
    for seed in range(150):
        # What texts of a unit have in common would make tests of single texts reject too often.
        values = rng.standard_normal((12, 4)).repeat(3, axis=0) + 0.3 * rng.standard_normal((36, 4))
        found.append(flipped(values, units, 400, seed=seed))
    p, p_max = np.array([item[0] for item in found]), np.array([item[1] for item in found])
    assert (p <= 0.05).mean() <= stats.binom.ppf(0.999, 600, 0.055) / 600
    assert (p_max.min(axis=1) <= 0.05).mean() <= stats.binom.ppf(0.999, 150, 0.055) / 150
    assert (p <= 0.5).mean() == pytest.approx(0.5, abs=0.1)


def test_few_units_have_no_p_and_no_difference_has_p_1() -> None:
    p, p_max = flipped(np.ones((10, 2)), np.arange(10) % 5)
    assert np.isnan([*p, *p_max]).all()
    p, p_max = flipped(np.zeros((10, 2)), np.arange(10))
    assert [*p, *p_max] == [1.0] * 4
