"""What is left out is found by label and by word; hits and false alarms are those counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bids_brainlm.core.types import Examples, Prompt, Recording
from bids_brainlm.evaluation.metrics import Facts
from bids_brainlm.evaluation.table import METRICS_COLUMNS, Predictions, Sampling
from bids_brainlm.evaluation.zero_shot import D_PRIME, FALSE_ALARMS, HITS, Category, d_prime, zero_shot_rows

FACTS = Facts(
    {
        "animal": {"s0": ("dog", "puppy", "puppies"), "s1": ("cat",), "s2": ("bird",), "s3": ("bird", "owl")},
        "place": {"s0": ("park",), "s1": ("house",)},
    }
)


def examples(texts: list[str], prompt: str = "") -> Examples:
    n = len(texts)
    names = np.array([f"s{i}" for i in range(n)])
    recording = Recording(np.zeros((n, 1), np.float32), "a", "beta", np.arange(n), np.zeros(n, int))
    prompts = tuple(Prompt(prompt if i == n - 1 else "", text) for i, text in enumerate(texts))
    return Examples(recording, np.arange(n), prompts, tuple((text,) for text in texts), names, names, names)


def test_examples_that_teach_a_category_are_found_by_label_by_synonym_and_in_prompts() -> None:
    some = examples(["an animal runs", "a cat and two PUPPIES", "a bird", "an owl"], prompt="Is there a puppy?")
    assert Category.parsed("animal=dog", FACTS).taught_by(some).tolist() == [True, True, False, True]
    assert Category.parsed("animal = bird, cat", FACTS).taught_by(some).tolist() == [False, True, True, True]
    assert Category.parsed("place=house", FACTS).taught_by(some).tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("colour=red", "no factor 'colour'; factors: animal, place"),
        ("animal=puppy", "no value puppy; values: bird, cat, dog"),
        ("animal", "no value named"),
        ("animal=", "no value named"),
    ],
)
def test_what_is_not_in_the_facts_is_refused(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Category.parsed(setting, FACTS)


def predictions(said: dict[str, list[str]], n: int) -> Predictions:
    frames = []
    for condition, texts in said.items():
        part = {"trial_id": [f"t{i}" for i in range(n)], "stimulus_id": [f"s{i % 4}" for i in range(n)], "fold": 0}
        part |= {"group": [f"g{i // 2}" for i in range(n)], "condition": condition, "prompt": "", "text_true": "an animal"}
        frames.append(pd.DataFrame(part | {"text_pred": texts, "nll": 1.0, "n_tokens": 3}))
    return Predictions(pd.concat(frames, ignore_index=True))


def test_hits_and_false_alarms_by_hand() -> None:
    """Every fourth of 24 trials is of a dog. True: 5 of 6 hits, 3 of 18 false alarms; permuted: always the dog."""
    n = 24
    right = ["a puppy" if i % 4 == 0 and i else "a dog" if i in (1, 2, 3) else "a cat" for i in range(n)]
    made = predictions({"true": right, "permuted": ["a dog"] * n, "none": ["a cat"] * n}, n)
    found = zero_shot_rows(made, Category.parsed("animal=dog", FACTS), np.zeros(n), Sampling(200, 500))
    assert list(found.columns) == list(METRICS_COLUMNS)
    rows = found.set_index(["metric", "condition"])
    assert rows.loc[(HITS, "true"), ["value", "n"]].tolist() == pytest.approx([5 / 6, 6])
    assert rows.loc[(FALSE_ALARMS, "true"), ["value", "n"]].tolist() == pytest.approx([3 / 18, 18])
    assert rows.loc[(D_PRIME, "true"), "value"] == pytest.approx(stats.norm.ppf(5.5 / 7) - stats.norm.ppf(3.5 / 19))
    # 8 texts name it: hypergeometric over the 6 that should.
    assert rows.loc[(HITS, "true"), "p_value"] == pytest.approx(stats.hypergeom(24, 8, 6).sf(4), abs=0.01)
    assert rows.loc[(HITS, "true"), "null_mean"] == pytest.approx(8 / 24, abs=0.03)
    for condition, rate in (("permuted", 1.0), ("none", 0.0)):
        assert rows.loc[(HITS, condition), "value"] == rows.loc[(FALSE_ALARMS, condition), "value"] == rate
        assert rows.loc[(HITS, condition), "p_value"] == 1.0
    assert rows.loc[(D_PRIME, "permuted"), "value"] == pytest.approx(stats.norm.ppf(6.5 / 7) - stats.norm.ppf(18.5 / 19))


def test_a_test_set_without_the_category_has_no_rows() -> None:
    made = predictions({"true": ["a dog"] * 4}, 4)
    everything = Category.parsed("animal=dog,cat,bird", FACTS)
    assert zero_shot_rows(made, everything, np.zeros(4), Sampling(20, 20)).empty


def test_the_interval_covers_the_true_sensitivity() -> None:
    """Two normal distributions 1.5 apart and a criterion between them; groups of two examples."""
    rng, covered = np.random.default_rng(0), 0
    for seed in range(200):
        there = np.arange(240) % 2 == 0
        says = rng.normal(size=240) + 1.5 * there > 0.5
        _, (low, high) = d_prime(says, there, np.arange(240) // 2, Sampling(300, 10, seed))
        covered += low <= 1.5 <= high
    assert covered / 200 == pytest.approx(0.95, abs=0.05)
    assert np.isnan(d_prime(says[:8], there[:8], np.arange(8) // 2, Sampling(20, 10))[1]).all()
