"""The encoding model against textbook solutions, and what is told from a brain with it."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import linear_model

from bids_brainlm.core.types import Recording
from bids_brainlm.evaluation.story.decoders import Material, encoding
from bids_brainlm.evaluation.story.encoding import BrainEvidence, Encoding, fit
from bids_brainlm.evaluation.story.regression import ALPHAS, Ridge, signals, trust
from bids_brainlm.evaluation.story.search import Search, sample, search
from bids_brainlm.evaluation.story.tellings import Stretch, stretches

_spec = importlib.util.spec_from_file_location("plain", Path(__file__).with_name("test_search.py"))
plain: Any = importlib.util.module_from_spec(_spec)  # type: ignore[arg-type]
_spec.loader.exec_module(plain)  # type: ignore[union-attr]

World = Any


def fitted(world: World) -> Encoding:
    return fit(world.reader, world.recording, world.tellings, world.tokens, world.held(), context=5, seconds=2.0)


def held_out(world: World) -> tuple[Stretch, list[int]]:
    (stretch,) = stretches(world.tellings[-1])
    return stretch, [len(own) for own in world.tokens[-1][: stretch.last]]


def right(found: list[int], world: World) -> float:
    """Share of tokens that are the true ones, in their place."""
    true = [token for own in world.tokens[-1] for token in own][: len(found)]
    return float(np.mean([a == b for a, b in zip(found, true, strict=True)]))


def test_every_unit_has_the_ridge_regression_of_its_own_penalty() -> None:
    rng = np.random.default_rng(0)
    for n, p in ((50, 8), (20, 40)):
        x, y = rng.standard_normal((n, p)) + 1, rng.standard_normal((n, 3)) - 2
        alphas = np.array([0.01, 1.0, 30.0])
        groups = np.arange(n) % 5
        ridge = Ridge(x, groups)
        unit = (np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2).mean()
        weights, rest = ridge.fitted(y, alphas)
        for i, alpha in enumerate(alphas):
            oracle = linear_model.Ridge(alpha * unit).fit(x, y[:, i])
            np.testing.assert_allclose(weights[:, i], oracle.coef_, atol=1e-8)
            np.testing.assert_allclose(rest[i], oracle.intercept_, atol=1e-8)
        left = ridge.left(y, alphas)
        for group in range(5):
            out = groups == group
            own = (np.linalg.svd(x[~out] - x[~out].mean(0), compute_uv=False) ** 2).mean()
            oracle = linear_model.Ridge(alphas[1] * own).fit(x[~out], y[~out, 1])
            np.testing.assert_allclose(left[out, 1], y[out, 1] - oracle.predict(x[out]), atol=1e-8)
        one = int(np.flatnonzero(ALPHAS == 1.0)[0])
        np.testing.assert_allclose(ridge.errors(y)[one], (ridge.left(y, np.ones(3)) ** 2).sum(axis=0), rtol=1e-8)


def plain_likelihood(world: World, model: Encoding, stretch: Stretch, counts: list[int], hidden: list[list[Any]]) -> float:
    """Log-likelihood of the volumes that the windows said so far bear on, volume by volume, by scipy."""
    telling = stretch.telling
    covariance = np.linalg.inv(model.white.T @ model.white)
    unwhite = np.linalg.inv(model.white)
    rows = signals(world.recording, telling.volumes, model.units)
    total = 0.0
    for volume, window in enumerate(telling.window):
        if not 1 <= window < len(hidden) + model.n_delays:
            continue
        expected = model.rest.copy()
        blank = model.rest.copy()
        for delay in range(1, model.n_delays + 1):
            k = int(window) - delay
            if not 0 <= k < len(telling.texts):
                continue
            number = counts[k] if k < len(counts) else model.usual
            expected += number * model.number[delay - 1]
            blank += number * model.number[delay - 1]
            for state in hidden[k] if k < len(hidden) else []:
                expected += (state.detach().numpy() - model.centre) @ model.meaning[delay - 1]
        normal = [stats.multivariate_normal(unwhite @ mean, covariance) for mean in (expected, blank)]
        total += normal[0].logpdf(rows[volume]) - normal[1].logpdf(rows[volume])
    return total


def test_a_search_with_evidence_is_the_plain_one(make_world: Callable[..., World]) -> None:
    world = make_world(noise=1.0, n_windows=30, n_vertices=6)
    model, (stretch, counts) = fitted(world), held_out(world)
    assert model.units.size > 0
    counts = counts[:6]
    evidence = BrainEvidence(model, world.reader, world.recording, stretch, counts + [model.usual] * (stretch.last - 6))
    found = search(world.reader, counts, plain.SETTINGS, evidence=evidence)
    expected, _ = plain.plain_search(
        world.reader, counts, None, lambda hidden: plain_likelihood(world, model, stretch, counts, hidden)
    )
    assert found == expected
    assert found != search(world.reader, counts, plain.SETTINGS)


def test_words_are_told_from_a_brain_that_they_drive(make_world: Callable[..., World]) -> None:
    world = make_world(noise=0.5)
    stretch, counts = held_out(world)
    settings = Search(context=5)
    material = Material(world.reader, world.recording, world.tellings, world.held(), settings, 2.0)
    found = right(encoding(material)(stretch, counts), world)
    null = [right(tokens, world) for tokens in sample(world.reader, counts, settings, 20, seed=0)]
    assert found > 0.5  # the order of words within a window is the language model's guess
    assert max(null) < 0.2


def test_noise_has_no_word_in_it(make_world: Callable[..., World]) -> None:
    """What is found to be predicted by chance says nothing true."""
    world = make_world()
    noise = np.random.default_rng(9).standard_normal(world.recording.data.shape).astype(np.float32)
    world = dataclasses.replace(world, recording=_with(world.recording, noise))
    model, (stretch, counts) = fitted(world), held_out(world)
    evidence = BrainEvidence(model, world.reader, world.recording, stretch, counts)
    found = search(world.reader, counts, Search(context=5), evidence=evidence)
    assert right(found, world) < 0.2


def _with(recording: Recording, data: np.ndarray[Any, Any]) -> Recording:
    return dataclasses.replace(recording, data=data)


def test_nothing_is_learned_from_the_test_story(make_world: Callable[..., World]) -> None:
    """Other words and other responses of the test story leave the model as it was."""
    world = make_world(n_windows=30)
    first = fitted(world)
    data = np.array(world.recording.data)
    data[world.tellings[-1].volumes] = 1e3
    tokens = [*world.tokens[:-1], [[7] * 5 for _ in world.tokens[-1]]]
    second = fitted(dataclasses.replace(world, recording=_with(world.recording, data), tokens=tokens))
    for field in dataclasses.fields(Encoding):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name), err_msg=field.name)


def test_blocks_of_one_story_are_kept_apart(make_world: Callable[..., World]) -> None:
    """Volumes that held-out windows bear on are not fitted, nor do held-out words stand before a training word."""
    world = make_world(n_stories=1, n_windows=80)
    (telling,) = world.tellings
    part = np.where((np.arange(80) >= 30) & (np.arange(80) < 50), "test", "train")
    world = dataclasses.replace(world, tellings=(dataclasses.replace(telling, part=part),))
    first = fitted(world)
    data = np.array(world.recording.data)
    touched = (telling.window > 30) & (telling.window <= 49 + 4)
    data[telling.volumes[touched]] = 1e3
    tokens = [[own if part[k] == "train" else [7] * 5 for k, own in enumerate(world.tokens[0])]]
    second = fitted(dataclasses.replace(world, recording=_with(world.recording, data), tokens=tokens))
    np.testing.assert_array_equal(first.meaning, second.meaning)
    assert first.units.size


def test_trust_is_what_held_out_groups_bear_out() -> None:
    """One where there is next to no noise, and next to none where there is nothing else."""
    rng = np.random.default_rng(0)
    design, groups, rows = rng.standard_normal((240, 6)), np.arange(240) // 24, np.arange(240)
    signal = design @ rng.standard_normal((6, 30))
    everything = np.ones(6, dtype=np.bool_)

    def of(data: np.ndarray[Any, Any]) -> float:
        recording = Recording(data.astype(np.float32), "", "bold", np.arange(240.0), np.zeros(240, np.int64))
        return trust(design, groups, recording, rows, everything)

    assert of(signal + 0.01 * rng.standard_normal(signal.shape)) > 0.98
    assert np.mean([of(rng.standard_normal((240, 300))) for _ in range(5)]) < 0.15
    assert trust(design, np.zeros(240, np.int64), Recording(signal, "", "bold", rows, 0 * rows), rows, everything) == 0


@pytest.mark.parametrize("noise", [2.0, 4.0])
def test_the_noise_is_that_of_the_recording(make_world: Callable[..., World], noise: float) -> None:
    """White noise much larger than what words explain, and than what they fail to, is found to be of its size."""
    model = fitted(make_world(noise=noise, n_stories=6, n_vertices=12))
    size = np.sqrt(np.diag(np.linalg.inv(model.white.T @ model.white)))
    assert np.abs(size / noise - 1).max() < 0.25
