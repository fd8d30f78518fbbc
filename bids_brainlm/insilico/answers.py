"""An answer to a question about a trial, with what it is to be compared with (`bids_brainlm.insilico.ask` makes it)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

ANSWER_COLUMNS = {
    "trial": "Trial that was asked about.",
    "stimulus": "Stimulus shown or heard.",
    "part": "What the trial was in the fold whose decoder is asked: test, train, validation, or unused.",
    "fold": "That fold, from 0.",
    "leaky": "Whether the split is known to let something of test trials through to training.",
    "turn": "Number of the question in the conversation, from 1.",
    "question": "What was asked.",
    "answer": "Answer from the brain of the trial.",
    "answer_none": "Answer to the same conversation without a brain.",
    "answer_permuted": "Answer to the same conversation from the brain of another trial.",
    "partner": "That other trial.",
    "rank": "Rank of the own brain among itself and those of other trials, by how likely they make the answer; not a p value.",
    "n_brains": "Brains that were ranked, the own one included.",
    "specificity": "By how many nats the answer is likelier under its own brain than, in the mean, under the others.",
    "nll": "Negative log-likelihood of the answer under its own brain, nats.",
    "nll_none": "The same without a brain.",
    "right": "Right answer, where the dataset knows one; null otherwise, as are the figures of it.",
    "right_rank": "Rank of the own brain by how likely the brains make the right answer.",
    "right_specificity": "Specificity of the right answer, nats.",
    "right_nll": "Negative log-likelihood of the right answer under the own brain, nats.",
    "right_nll_none": "The same without a brain.",
    "doubts": "What speaks against the answer having been read from the brain, in words.",
}
"""Names in the record of an answer, in order."""

PART_DOUBTS = {
    "train": "a training trial: the decoder was shown its text, so nothing here is evidence",
    "validation": "a validation trial: the decoder was chosen by such trials",
    "unused": "a trial that was in no part of the split",
}
"""Part of the split -> what that makes of answers."""


@dataclass(frozen=True)
class Trial:
    """What a conversation is about.

    Parameters
    ----------
    id, stimulus : str
    part : {"train", "validation", "test", "unused"}
        What it was in the fold whose decoder is asked.
    fold : int
    leaky : bool
        The split is known to let something of the test trials through to training.
    """

    id: str
    stimulus: str
    part: str
    fold: int
    leaky: bool

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against any evidence from this trial."""
        found = [PART_DOUBTS[self.part]] if self.part in PART_DOUBTS else []
        return (*found, *["the split lets something of test trials through to training"] * self.leaky)

    def __str__(self) -> str:
        state = {"test": "held out", "train": "TRAINED ON", "validation": "used for validation"}.get(self.part, self.part)
        return f"{shown(self.id)}, stimulus {shown(self.stimulus)}: {state} in fold {self.fold}"


@dataclass(frozen=True)
class Evidence:
    """How likely a text is under several brains.

    Parameters
    ----------
    rank : float
        Of the own brain, from 1; each brain that ties adds a half. Not a p value.
    n_brains : int
        Brains that were ranked, the own one included.
    specificity : float
        Mean NLL under the others minus that under the own brain, nats.
    nll, nll_none : float
        Under the own brain, and without a brain, nats.
    """

    rank: float
    n_brains: int
    specificity: float
    nll: float
    nll_none: float

    def __str__(self) -> str:
        than = "likelier" if self.specificity >= 0 else "less likely"
        return f"rank {self.rank:g} of {self.n_brains} brains, {abs(self.specificity):.2f} nats {than} than under the others"


@dataclass(frozen=True)
class Answer:
    """An answer with what it is to be compared with.

    Parameters
    ----------
    trial : Trial
    turn : int
        Of the conversation, from 1.
    question, text : str
    none, permuted : str
        Answers without a brain, and from the brain of the trial ``partner``.
    partner : str
    evidence : Evidence
        Of the answer.
    references : tuple of str
        Right answers, where the dataset knows any.
    right : Evidence or None
        Of the first of these.
    """

    trial: Trial
    turn: int
    question: str
    text: str
    none: str
    permuted: str
    partner: str
    evidence: Evidence
    references: tuple[str, ...] = ()
    right: Evidence | None = None

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against the answer having been read from the brain, in words."""
        found, before = list(self.trial.doubts), self.evidence.rank - 1
        if same_words(self.text, self.none):
            found.append("the same answer comes without a brain")
        if same_words(self.text, self.permuted):
            found.append("the same answer comes from the brain of another trial")
        if before:
            found.append(f"{before:g} of {self.evidence.n_brains - 1} other brains make this answer likelier")
        return tuple(found)

    @property
    def asked(self) -> str:
        """The question, for one who did not type it."""
        return f"({shown(self.question)})"

    def record(self) -> dict[str, Any]:
        """The same as plain data, by the names of `ANSWER_COLUMNS`."""
        about = dataclasses.asdict(self.trial)
        found = {**about, "trial": about["id"], **dataclasses.asdict(self.evidence)}
        found |= {"answer": self.text, "answer_none": self.none, "answer_permuted": self.permuted}
        found |= {name: getattr(self, name) for name in ("turn", "question", "partner", "doubts")}
        found |= {"right": self.references[0] if self.references else None}
        found |= {name: getattr(self.right, name.removeprefix("right_"), None) for name in ANSWER_COLUMNS if "right_" in name}
        return {name: found[name] for name in ANSWER_COLUMNS}

    def __str__(self) -> str:
        lines = [shown(self.text), f"  {self.evidence}", f"  no brain: {shown(self.none)}"]
        lines.append(f"  brain of {shown(self.partner)}: {shown(self.permuted)}")
        if self.right is not None:
            lines.append(f"  right: {shown(self.references[0])} ({self.right})")
        return "\n".join([*lines, *(f"  ! {doubt}" for doubt in self.doubts)])


def shown(text: str) -> str:
    """Text as a terminal may show it: on one line, and no character of it commands the terminal or hides others.

    >>> shown("a dog\\x1b[2J\\n"), shown("ein Hündchen")
    ('a dog\\\\x1b[2J\\\\n', 'ein Hündchen')
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def same_words(first: str, second: str) -> bool:
    """Whether two texts are equal, whatever their case and spacing."""
    return first.casefold().split() == second.casefold().split()
