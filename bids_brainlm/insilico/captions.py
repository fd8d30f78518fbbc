"""What the model says of a driven response."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from bids_brainlm.core.types import Examples, Floats
from bids_brainlm.evaluation.decoding import Generation
from bids_brainlm.language.render import decode, render, stop_ids
from bids_brainlm.models.fusion import collate
from bids_brainlm.stages.decoder import Decoder


def say(
    decoder: Decoder, bases: Examples, patterns: ArrayLike, doses: Sequence[float], settings: Generation
) -> list[list[list[str]]]:
    """A text for every site, dose and base: free generation, nothing is teacher-forced.

    Parameters
    ----------
    decoder : Decoder
    bases : Examples
        n responses with their contexts.
    patterns : (S, V) float, standard deviations
    doses : sequence (A) of float
    settings : Generation

    Returns
    -------
    list (S) of list (A) of list (n) of str
        Dose 0 is generated once.
    """
    sites = np.atleast_2d(np.asarray(patterns, dtype=np.float32))
    own = [(0, 0.0, base) for base in range(len(bases))]
    jobs = [*own, *((s, float(dose), base) for s, dose, base in product(range(len(sites)), doses, range(len(bases))) if dose)]
    model, text = decoder.model, decoder.text
    prompts = [render(prompt, text, model.n_tokens, settings.style, with_answer=False) for prompt in bases.prompts]
    stop = stop_ids(text, settings.style)
    texts: dict[tuple[int, float, int], str] = {}
    for start in range(0, len(jobs), settings.batch_size):
        part = jobs[start : start + settings.batch_size]
        vertices = driven_responses(decoder, bases.gather([base for *_, base in part]), sites, part)
        ids = model.generate(
            collate([prompts[base] for *_, base in part], vertices, pad_left=True).to(model.device),
            stop=stop,
            max_new_tokens=settings.max_new_tokens,
            min_new_tokens=settings.min_new_tokens,
            beams=settings.beams,
            repetition_penalty=settings.repetition_penalty,
        )
        texts.update(zip(part, (decode(row, text) for row in ids), strict=True))
    return [
        [[texts[(s, float(dose), base) if dose else own[base]] for base in range(len(bases))] for dose in doses]
        for s in range(len(sites))
    ]


def driven_responses(decoder: Decoder, responses: Floats, sites: Floats, jobs: Sequence[tuple[int, float, int]]) -> Floats:
    """(b, T, V) responses with dose x pattern x standard deviation added; places without a value start from the training mean."""
    features = decoder.model.of_vertices
    mean, scale = (tensor.cpu().numpy() for tensor in (features.mean, features.scale))
    added = np.stack([np.float32(dose) * sites[site] * scale for site, dose, _ in jobs])
    return np.asarray(np.where(np.isfinite(responses), responses, mean) + added[:, None], dtype=np.float32)
