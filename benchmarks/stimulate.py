"""A grid of sites, doses and trials at once, against a plain loop over it, on a trained participant.

10 sites, 9 doses and 24 words; every word is the answer "a photo of a WORD" to the question of the run. The plain loop gathers
the responses of the trials, adds dose x pattern x standard deviation to the vertices, renders the prompt and scores it, for every
site, dose and word, as many trials together as ``--loop-batch`` says. Both do the whole grid with the same trials and have to
agree; wall seconds of one process.

    OMP_NUM_THREADS=1 python benchmarks/stimulate.py BIDS OUT [--participant 01] [--trials 100]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core.types import Examples, Floats, Prompt
from bids_brainlm.insilico.drive import BATCH, driven
from bids_brainlm.insilico.participant import Participant, open_participant
from bids_brainlm.language.render import render
from bids_brainlm.models.fusion import collate
from bids_brainlm.simulation.world import FACTORS

DOSES = (-4.0, -2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
N_SITES, SIZE = 10, 300
ALLOWED = 1e-4


def looped(participant: Participant, bases: Examples, sites: Floats, prompts: list[Prompt], batch: int) -> NDArray[np.float64]:
    """(S, A, n, W) NLL in nats."""
    decoder, style = participant.decoder(), participant.request.config.model.style
    out, scale = np.empty((len(sites), len(DOSES), len(bases), len(prompts))), participant.scale()
    for s, pattern in enumerate(sites):
        for a, dose in enumerate(DOSES):
            for start in range(0, len(bases), batch):
                part = np.arange(start, min(start + batch, len(bases)))
                brain = bases.gather(part) + np.float32(dose) * pattern * scale
                for w, prompt in enumerate(prompts):
                    text = render(prompt, decoder.text, decoder.model.n_tokens, style)
                    found = decoder.model.nll(collate([text] * len(part), brain).to(decoder.model.device))
                    out[s, a, part, w] = found.cpu().double().numpy()
    return out


def seconds(work: Callable[[], NDArray[np.float64]]) -> tuple[float, NDArray[np.float64]]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bids", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--participant", default="01")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=BATCH)
    parser.add_argument("--loop-batch", type=int, default=16)
    given = parser.parse_args()
    participant = open_participant(given.out, given.participant, bids_dir=given.bids, device="cpu")
    test = participant.test()
    bases = test.take(np.arange(min(given.trials, len(test))))
    used = np.flatnonzero(participant.scale() > 0)
    rng = np.random.default_rng(0)
    sites = np.zeros((N_SITES, participant.scale().size), dtype=np.float32)
    for site in sites:
        start = rng.integers(used.size - SIZE)
        site[used[start : start + SIZE]] = 1
    words = [word for values in FACTORS.values() for word in values]
    prompts = [Prompt(bases.prompts[0].context, f"a photo of a {word}") for word in words]
    style = participant.request.config.model.style
    brief = f"{N_SITES} sites x {len(DOSES)} doses x {len(bases)} trials x {len(words)} words"
    print(f"{brief}; OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'all')}", flush=True)
    ours, found = seconds(lambda: driven(participant.decoder(), bases, sites, DOSES, prompts, style, batch_size=given.batch_size))
    print(f"at once     {ours:8.1f} s   {1e3 * ours / (N_SITES * len(DOSES) * len(bases)):.2f} ms a driven brain", flush=True)
    theirs, wanted = seconds(lambda: looped(participant, bases, sites, prompts, given.loop_batch))
    difference = float(np.abs(found - wanted).max())
    print(f"plain loop  {theirs:8.1f} s   {theirs / ours:.1f} times slower   largest difference {difference:.1e} nats")
    if difference > ALLOWED:
        raise SystemExit(f"likelihoods differ by {difference:.1e} nats")


if __name__ == "__main__":
    main()
