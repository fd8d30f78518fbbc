"""Questions about the response to one trial, and what the answers are worth.

    participant = open_participant("out", "01")
    conversation = Conversation(participant, "stim0001")
    print(conversation.ask("Which animal is it?"))

A *conversation* is about one trial; every question goes on from what was said before. A language model answers anything fluently,
so no answer comes alone:

- beside it stand the answers to the same conversation without a brain, and from the brain of another trial, the *partner*;
- its *rank* is that of the own brain among itself and brains of other trials, by how likely they make this answer;
- its *specificity* is by how many nats it is likelier under its own brain than, in the mean, under the others.

The other brains are those that decoding compares with as well (`bids_brainlm.core.interventions`): of the same part of the split,
and of the same run wherever that run has such trials. What was said before is the same for all of them, so an answer that follows
from the conversation alone has no specificity.

Rank and specificity of a *generated* answer tell whether it depends on this response, not whether it is right: a decoder that
reads noise says of each response what it reads there. Where the dataset knows the right answer to a question, both are given for
that, too, and that is evidence: if responses tell nothing of their texts, every rank of the right answer is as likely as another.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from bids_brainlm.config.values import near
from bids_brainlm.core.interventions import allowed, brains_of
from bids_brainlm.core.types import Ints, Prompt, Split
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.evaluation.decoding import N_OTHERS, evenly
from bids_brainlm.evaluation.matrix import LikelihoodMatrix
from bids_brainlm.insilico.answers import Answer, Evidence, Trial, same_words
from bids_brainlm.insilico.participant import PARTS, Participant
from bids_brainlm.language.limits import shortened
from bids_brainlm.language.render import CHAT, Rendered, as_one_text, decode, has_turns, render_conversation, stop_ids
from bids_brainlm.models.thread import Thread
from bids_brainlm.stages.decoder import limits_of


class Conversation:
    """Questions and answers about the response to one trial.

    Parameters
    ----------
    participant : Participant
    trial : str, optional
        As in `choose`.
    n_others : int
        Most brains of other trials that answers are compared with.
    max_new_tokens : int, optional
        Longest answer; as the decoder was evaluated with when 0.

    Raises
    ------
    MissingInputError
        When there is no such trial.
    InputError
        When no other trial may be compared with it.
    """

    def __init__(self, participant: Participant, trial: str = "", *, n_others: int = N_OTHERS, max_new_tokens: int = 0) -> None:
        self._config, self._examples = participant.request.config, participant.examples
        self._index = choose(participant, trial)
        self.trial = trial_of(participant, self._index)
        fold = self.trial.fold
        others = others_of(participant.folds[fold], self.trial.part, self._index)
        if not others.size:
            what = f"no other trial can be compared with {self.trial.id}: all share its stimulus, a text or a volume"
            raise InputError(what, participant.models[fold], remedy="ask about another trial")
        others = evenly(others, n_others)
        self._partner = int(np.random.default_rng((self._config.run.random_seed, self._index)).integers(others.size))
        self.others = tuple(map(str, self._examples.id[others]))
        self._decoder = participant.decoder(fold)
        vertices = torch.from_numpy(self._examples.gather([self._index, *others]))
        self._with, self._without = Thread(self._decoder.model, vertices), Thread(self._decoder.model, None)
        self._max_new_tokens = max_new_tokens or self._config.decode.max_new_tokens
        self._said: list[Prompt] = []

    @property
    def goes_on(self) -> bool:
        """Whether a question is answered by its continuation, not by a turn of its own."""
        return self._config.model.style != CHAT

    def restart(self) -> None:
        """Forget what was said."""
        self._said = []

    def ask(self, question: str = "") -> Answer:
        """Ask, and keep question and answer for what comes after.

        Parameters
        ----------
        question : str
            Where it is empty, what the decoder was trained to answer of this trial; a text that goes on from the conversation
            just goes on.

        Raises
        ------
        InputError
            When the conversation has become longer than the language model can read.
        """
        own = self._examples.prompts[self._index].context
        # What a terminal could not decode stands as half characters, which no tokenizer takes.
        asked = question.strip().encode("utf-8", "replace").decode("utf-8") or ("" if self.goes_on and self._said else own)
        turns = [*self._said, Prompt(asked, "")]
        text, permuted, none = self._generated(turns)
        references = self._references(asked)
        # The answer comes last, so that what is kept of it is there for the next question.
        right = self._evidence(turns, references[0]) if references else None
        evidence = self._evidence(turns, text)
        self._said.append(Prompt(asked, text))
        partner, turn = self.others[self._partner], len(self._said)
        return Answer(self.trial, turn, asked, text, none, permuted, partner, evidence, references, right)

    def _generated(self, turns: list[Prompt]) -> tuple[str, str, str]:
        """Answers from the own brain, from the partner's, and without one."""
        settings, style, tokenizer = self._config.decode, self._config.model.style, self._decoder.text
        out = []
        for thread, brains in ((self._with, [0, 1 + self._partner]), (self._without, [0])):
            item = self._rendered(thread, turns, with_answer=False)
            self._refuse_long(len(item.ids) + self._max_new_tokens)
            thread.read(item)
            out += thread.generate(
                item,
                brains,
                stop=stop_ids(tokenizer, style),
                max_new_tokens=self._max_new_tokens,
                min_new_tokens=settings.min_new_tokens,
                beams=settings.beams,
                repetition_penalty=settings.repetition_penalty,
            )
        text, permuted, none = (decode(ids, tokenizer) for ids in out)
        return text, permuted, none

    def _refuse_long(self, n_tokens: int) -> None:
        most = getattr(self._decoder.model.llm.config, "max_position_embeddings", None)
        if most and n_tokens > most:
            what = f"the conversation takes {n_tokens} tokens with its answer, and the language model reads {most}"
            raise InputError(what, self._config.model.llm, remedy="begin a new one (/new), or ask for shorter answers")

    def _evidence(self, turns: list[Prompt], answer: str) -> Evidence:
        told = [*turns[:-1], dataclasses.replace(turns[-1], answer=answer)]
        item = self._rendered(self._with, told, with_answer=True)
        nll = self._with.nll(item).cpu().double().numpy()[None]
        none = self._without.nll(self._rendered(self._without, told, with_answer=True))
        names, n = (self.trial.id, *self.others), np.array([int(item.train.sum())])
        may = np.arange(nll.size)[None] > 0
        matrix = LikelihoodMatrix(nll, np.zeros(1, dtype=np.int64), may, (self.trial.id,), names, n)
        before = (1 - float(matrix.row_wise()["nll_pairwise"][0])) * len(self.others)
        rank = 1 + round(2 * before) / 2
        return Evidence(rank, nll.size, float(matrix.specificity[0]), float(nll[0, 0]), float(none[0]))

    def _rendered(self, thread: Thread, turns: list[Prompt], with_answer: bool) -> Rendered:
        style, tokenizer, limits = self._config.model.style, self._decoder.text, limits_of(self._config)
        turns = turns if has_turns(style, tokenizer) else [as_one_text(turns, style)]
        short = [shortened(turn, limits, tokenizer) for turn in turns]
        n_slots = 0 if thread is self._without else self._decoder.model.n_tokens
        return render_conversation(short, tokenizer, n_slots, style, with_answer)

    def _references(self, question: str) -> tuple[str, ...]:
        """Right answers to a question about this response, where the dataset has it."""
        if self.goes_on and self._said:
            return ()
        rows, examples = self._examples.rows, self._examples
        same = np.flatnonzero((rows == rows[self._index]).all(axis=(1, 2)))
        asked = [i for i in same if any(same_words(question, wording) for wording in examples.prompts[i].wordings)]
        return examples.references[asked[0]] if asked else ()


def choose(participant: Participant, text: str = "") -> int:
    """Index of the first of the examples that `fitting` names.

    Raises
    ------
    MissingInputError
        When there is none.
    """
    return int(fitting(participant, text)[0])


def fitting(participant: Participant, text: str = "") -> Ints:
    """Indices of examples with that id or stimulus, or with the words of it in a right text, one a brain; first those held out.

    Raises
    ------
    MissingInputError
        When there is none; names what comes near.
    """
    examples = participant.examples
    found = participant.find(text) if text else np.arange(len(examples))
    if not found.size:
        known = near(text, dict.fromkeys([*map(str, examples.stimulus), *map(str, examples.id)]))
        expected = "the id of a trial, a stimulus, or words of a text"
        raise MissingInputError(f"no trial {text!r}{known}", participant.request.out_dir, expected=expected)
    found = found[brains_of(examples.take(found))[0]]
    kept = np.isin(examples.id[found], list(participant.held_out()))
    return np.concatenate([found[kept], found[~kept]])


def trial_of(participant: Participant, index: int) -> Trial:
    """An example, as the fold has it that holds it out; as the first one has it where none does."""
    examples = participant.examples
    name, stimulus = str(examples.id[index]), str(examples.stimulus[index])
    fold = participant.held_out().get(name, 0)
    return Trial(name, stimulus, participant.part_of(name, fold), fold, participant.folds[fold].leaky)


def others_of(split: Split, part: str, index: int) -> Ints:
    """Examples whose brains the text of one may be compared with, one each; of the same part of the split."""
    members = getattr(split, part if part in PARTS else "test")
    pool = members if index in members else np.append(members, index)
    runs = split.examples.run
    # Who is of the same run is looked at first: a participant may have thousands of trials.
    for some in (pool[runs[pool] == runs[index]], pool):
        examples = split.examples.take(some)
        first, own = brains_of(examples)
        may = allowed(examples, own)[int(np.flatnonzero(some == index)[0])]
        if may.any():
            return np.asarray(some[first[may]])
    return np.zeros(0, dtype=np.int64)
