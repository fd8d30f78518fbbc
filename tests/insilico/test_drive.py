"""A grid of sites, doses and trials is what a plain loop over them gives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bids_brainlm.core.types import Examples, Prompt
from bids_brainlm.insilico import drive
from bids_brainlm.insilico.drive import driven, mean_trial, nll_of_driven, zero_trial
from bids_brainlm.language.render import render
from bids_brainlm.models.fusion import collate
from bids_brainlm.stages.decoder import Decoder

from .conftest import SCALE, V, made

Makers = Callable[[str], Decoder]
PROMPTS = [Prompt("What?", "A red bird"), Prompt("What?", "A red dog in the park"), Prompt("Where?", "Two")]
DOSES = np.array([-2.0, 0.0, 0.5, 4.0])


def patterns() -> np.ndarray:
    sites = np.random.default_rng(2).standard_normal((3, V)).astype(np.float32)
    sites[1, 4:] = 0
    return sites


def looped(decoder: Decoder, examples: Examples) -> np.ndarray:
    """Gather, add in vertex space, render, score: one at a time."""
    mean = decoder.model.features.mean.numpy()  # type: ignore[union-attr, operator]
    out = np.empty((3, len(DOSES), len(examples), len(PROMPTS)))
    for s, pattern in enumerate(patterns()):
        for a, dose in enumerate(DOSES):
            for i in range(len(examples)):
                response = examples.gather([i])
                brain = np.where(np.isfinite(response), response, mean) + np.float32(dose) * pattern * SCALE
                for w, prompt in enumerate(PROMPTS):
                    text = render(prompt, decoder.text, decoder.model.n_tokens, "chat")
                    out[s, a, i, w] = float(decoder.model.nll(collate([text], brain))[0])
    return out


@pytest.mark.parametrize("batch_size", [1, 4, 50])
@pytest.mark.parametrize("kind", ["parcels", "marked", "components"])
def test_a_grid_is_that_of_a_plain_loop(decoders: Makers, kind: str, batch_size: int) -> None:
    decoder, examples = decoders(kind), made(2 if kind == "components" else 1)
    found = driven(decoder, examples, patterns(), DOSES, PROMPTS, "chat", batch_size=batch_size)
    wanted = looped(decoder, examples)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)
    # Sites, doses and bases all matter, so that exchanging two would be seen.
    assert min(np.ptp(wanted[:, 3], axis=0).min(), np.ptp(wanted[0], axis=0).min(), np.ptp(wanted[0, 3], axis=0).min()) > 1e-3


def test_dose_zero_is_computed_once(decoders: Makers, monkeypatch: pytest.MonkeyPatch) -> None:
    brains: list[int] = []
    original = drive.nll_of_tree
    monkeypatch.setattr(
        drive, "nll_of_tree", lambda model, brain, tree: brains.append(len(brain)) or original(model, brain, tree)
    )
    driven(decoders("parcels"), made(), patterns(), DOSES, PROMPTS, "chat", batch_size=7)
    assert sum(brains) == 5 * (1 + 3 * 3)
    assert max(brains) <= 7


def test_bases_may_have_texts_of_their_own(decoders: Makers) -> None:
    decoder, examples = decoders("parcels"), made()
    one, two = ([render(prompt, decoder.text, 3, "chat") for prompt in some] for some in (PROMPTS, PROMPTS[::-1]))
    found = nll_of_driven(decoder.model, examples, patterns(), DOSES, [one, two, one, two, two])
    whole = driven(decoder, examples, patterns(), DOSES, PROMPTS, "chat")
    np.testing.assert_allclose(found[:, :, [0, 2]], whole[:, :, [0, 2]], atol=1e-5)
    np.testing.assert_allclose(found[:, :, [1, 3, 4]], whole[:, :, [1, 3, 4], ::-1], atol=1e-5)


def test_vertices_that_the_model_does_not_use_do_nothing(decoders: Makers) -> None:
    unused = np.zeros((1, V), np.float32)
    unused[0, 6] = 100
    found = driven(decoders("parcels"), made(), unused, DOSES, PROMPTS, "chat")
    np.testing.assert_allclose(found, np.broadcast_to(found[:, 1:2], found.shape), atol=1e-6)


def test_mean_and_zero_are_examples_like_others(decoders: Makers) -> None:
    examples = made(2)
    responses = examples.gather(np.arange(5)).astype(np.float64)
    np.testing.assert_allclose(mean_trial(examples).gather([0])[0], np.nanmean(responses, axis=0), rtol=1e-5)
    assert mean_trial(examples).gather([0]).shape == (1, 2, V)
    assert not zero_trial(examples).gather([0]).any()
    found = driven(decoders("components"), zero_trial(examples), patterns(), DOSES, PROMPTS, "chat")
    assert found.shape == (3, 4, 1, 3)


def test_what_does_not_fit_is_refused(decoders: Makers) -> None:
    with pytest.raises(ValueError, match=r"expected \(S, 12\)"):
        driven(decoders("parcels"), made(), np.ones((2, 5)), DOSES, PROMPTS, "chat")
    with pytest.raises(ValueError, match="of one length"):
        driven(decoders("parcels"), made(), patterns(), DOSES, [], "chat")
