"""A language model as a judge: how much do a text and a reference say the same, 0 to 4?

The *rubric* is fixed (``data/templates/judge.txt``). It is filled with both texts in one *order* and in the other, because such
models favour a place; the score is the mean of both. The answer is the likeliest one, without sampling (temperature 0), and
counts if it is one digit from 0 to 4 and nothing else. With any other answer the pair has no score: it is *unparsable*. Of
several references the best one counts. An empty text gets 0 and is not asked about.

*Agreement* is the share of pairs of different texts with the same score in both orders; below about a half the judge's scores
tell more about the order than about the texts. A judge is no reader: its scores depend on the model, which the outputs name,
and texts may talk it into a score. Off by default; the model must be on this machine.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from string import Template
from typing import Any

import numpy as np

from bids_brainlm.core.types import Prompt
from bids_brainlm.language.render import decode, render, stop_ids
from bids_brainlm.language.stimuli import words

References = Sequence[Sequence[str]]
Ask = Callable[[str], str]

HIGHEST = 4
LONGEST = 8
"""Tokens of an answer: more than a digit needs, so that one that goes on is seen to."""

RUBRIC = (importlib.resources.files("bids_brainlm") / "data" / "templates" / "judge.txt").read_text("utf-8")


@dataclass(frozen=True, eq=False)
class Judge:
    """A model that is asked, and what it has answered.

    Parameters
    ----------
    ask : callable
        Question -> answer.
    name, revision : str
        Of the model.
    """

    ask: Ask
    name: str = ""
    revision: str = ""
    _scores: dict[tuple[str, str], float] = field(default_factory=dict)

    def score(self, text: str, reference: str) -> float:
        """Mean of the scores in both orders, 0 to 4; nan where one answer is unparsable."""
        if not words(text):
            return 0.0
        return (self._in_order(text, reference) + self._in_order(reference, text)) / 2

    def _in_order(self, first: str, second: str) -> float:
        if (first, second) not in self._scores:
            # Substituted once: what stands in a text is not filled in again.
            self._scores[first, second] = parsed(self.ask(Template(RUBRIC).substitute(first=first, second=second)))
        return self._scores[first, second]

    @property
    def report(self) -> dict[str, Any]:
        """What is to be known about the scores so far: model, rubric, counts, agreement (None where nothing could agree)."""
        pairs = [(self._scores[a, b], self._scores[b, a]) for a, b in self._scores if a < b]
        both = [one for one in pairs if np.isfinite(one).all()]
        return {
            "Model": self.name,
            "Revision": self.revision,
            "Rubric": RUBRIC,
            "Temperature": 0,
            "Answers": len(self._scores),
            "Unparsable": int(sum(np.isnan(score) for score in self._scores.values())),
            "Agreement": float(np.mean([a == b for a, b in both])) if both else None,
        }


def parsed(answer: str) -> float:
    """Score in an answer; nan unless it is one digit from 0 to 4, white space aside.

    >>> parsed(" 3\\n"), parsed("3."), parsed("5"), parsed("Score: 3")
    (3.0, nan, nan, nan)
    """
    return float(answer) if re.fullmatch(rf"\s*[0-{HIGHEST}]\s*", answer, re.ASCII) else np.nan


def judged(hypotheses: Sequence[str], references: References, judge: Judge) -> list[float]:
    """Score of each text and the reference it is largest for; nan where all answers are unparsable."""
    found = []
    for text, right in zip(hypotheses, references, strict=True):
        scores = np.array([judge.score(text, one) for one in right])
        known = scores[np.isfinite(scores)]
        found.append(float(known.max()) if known.size else np.nan)
    return found


def load_judge(name: str, device: str = "cpu") -> Judge:
    """The language model of a folder, or of a name on the Hugging Face Hub that was fetched before, as a judge.

    Raises
    ------
    MissingResourceError
        When it is not on this machine, or cannot be read safely.
    """
    from bids_brainlm.models.backbones import load_llm  # imports torch

    llm = load_llm(name, precision="fp32" if device == "cpu" else "bf16", device=device, offline=True)
    return Judge(asking(llm.model, llm.tokenizer), name, llm.revision_hash)


def asking(model: Any, tokenizer: Any) -> Ask:
    """What gives the likeliest answer of a language model to a question in the user's turn of its chat template."""
    import torch

    stop = list(stop_ids(tokenizer, "chat"))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop[0]

    def ask(question: str) -> str:
        rendered = render(Prompt(question, ""), tokenizer, 0, "chat", with_answer=False)
        ids = torch.tensor(rendered.ids, device=model.device)[None]
        greedy = {"do_sample": False, "num_beams": 1, "temperature": None, "top_p": None, "top_k": None}
        with torch.no_grad():
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=LONGEST,
                eos_token_id=stop,
                pad_token_id=pad,
                **greedy,
            )
        return decode(out[0, ids.shape[1] :].tolist(), tokenizer)

    return ask
