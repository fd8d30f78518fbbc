"""Time of an answer of ``brainlm ask``, against the plain way: every prompt whole, one pass a brain.

Both generate the answer from the own brain, from another one and without, and score it under all brains and without. All texts
must be equal, and all likelihoods to 1e-4 nats. Wall seconds of one process, once everything is loaded, of the first answer about
a trial, which reads the brains, and of later ones; median over trials.

    OMP_NUM_THREADS=1 python benchmarks/ask.py OUT --participant-label 01 [--trials 5]
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np

from bids_brainlm.core.types import Prompt
from bids_brainlm.insilico.answers import Answer
from bids_brainlm.insilico.ask import Conversation, fitting
from bids_brainlm.insilico.participant import Participant, open_participant
from bids_brainlm.language.render import decode, render_conversation, stop_ids
from bids_brainlm.models.fusion import collate

QUESTIONS = ("", "Which animal is it?", "What colour is it?", "Where is it?")


def plain(
    participant: Participant, conversation: Conversation, said: list[Prompt], answer: Answer
) -> tuple[list[str], list[float]]:
    """Texts from the own brain, the partner's and none, and NLL of the answer under every brain and none; nothing is kept."""
    fitted, config = participant.decoder(conversation.trial.fold), participant.request.config
    index = {str(name): i for i, name in enumerate(participant.examples.id)}
    names = [conversation.trial.id, *conversation.others]
    brains = [participant.examples.gather([index[name]]) for name in names]
    style, stop = config.model.style, stop_ids(fitted.text, config.model.style)

    def rendered(text: str, brain: object, with_answer: bool) -> object:
        turns, n_slots = [*said, Prompt(answer.question, text)], 0 if brain is None else fitted.model.n_tokens
        return render_conversation(turns, fitted.text, n_slots, style, with_answer)

    texts = []
    for brain in (brains[0], brains[names.index(answer.partner)], None):
        batch = collate([rendered("", brain, False)], brain, pad_left=True)
        ids = fitted.model.generate(batch, stop=stop, max_new_tokens=config.decode.max_new_tokens)
        texts.append(decode(ids[0], fitted.text))
    scored = [float(fitted.model.nll(collate([rendered(texts[0], brain, True)], brain))[0]) for brain in (*brains, None)]
    return texts, scored


def compare(participant: Participant, trial: str) -> list[tuple[float, float, float]]:
    """Seconds of ours and of the plain way for each question, and the largest difference in nats."""
    start, out = time.perf_counter(), []
    conversation, said = Conversation(participant, trial), []
    for question in QUESTIONS:
        answer = conversation.ask(question)
        ours = time.perf_counter() - start
        start = time.perf_counter()
        texts, nll = plain(participant, conversation, said, answer)
        theirs = time.perf_counter() - start
        if texts != [answer.text, answer.permuted, answer.none]:
            raise SystemExit(f"{trial}: the texts differ: {texts}")
        wanted = (nll[0], nll[-1], float(np.mean(nll[1:-1]) - nll[0]))
        found = (answer.evidence.nll, answer.evidence.nll_none, answer.evidence.specificity)
        out.append((ours, theirs, float(np.abs(np.subtract(wanted, found)).max())))
        said.append(Prompt(answer.question, answer.text))
        start = time.perf_counter()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="output folder of bids_brainlm; of a recipe that asks, without limits on tokens and beams")
    parser.add_argument("--participant-label", default="01")
    parser.add_argument("--trials", type=int, default=5)
    given = parser.parse_args()
    start = time.perf_counter()
    participant = open_participant(given.out, given.participant_label)
    names = [str(participant.examples.id[i]) for i in fitting(participant)[: given.trials + 1]]
    compare(participant, names[0])  # loads the decoder
    print(f"opened in {time.perf_counter() - start:.1f} s; OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'all')}")
    found = np.array([compare(participant, name) for name in names[1:]])
    for label, part in (("first", found[:, :1]), ("later", found[:, 1:])):
        ours, theirs, difference = part.reshape(-1, 3).T
        took, plainly = np.median(ours), np.median(theirs)
        print(
            f"{label} answers {took:.3f} s (longest {ours.max():.3f}); plain {plainly:.3f} s, {plainly / took:.1f} times as long"
        )
        if difference.max() > 1e-4:
            raise SystemExit(f"likelihoods differ by {difference.max():.1e} nats")
    print(f"largest difference {found[..., 2].max():.1e} nats")


if __name__ == "__main__":
    main()
