"""``brainlm ask``: talk with the response to a trial; every answer with what it is worth.

Without ``--question`` it is a conversation in the terminal: a line is a question, a line that begins with a slash a command.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bids_brainlm.cli.arguments import AppCommand
from bids_brainlm.cli.exits import one_line
from bids_brainlm.cli.opened import of_participant, open_participant
from bids_brainlm.config.values import near
from bids_brainlm.errors import BrainLMError

COMMANDS = {
    "/trial": "/trial TEXT   talk about another trial: its id, its stimulus, or words of its text",
    "/find": "/find TEXT    list trials with that stimulus, or with these words in their text",
    "/new": "/new          forget what was said",
    "/help": "/help         this list",
    "/quit": "/quit         leave (as does Ctrl-D)",
}

LISTED = 20
"""Most trials that ``/find`` lists."""


@click.command("ask", cls=AppCommand)
@of_participant("Participant whose responses are asked.")
@click.option(
    "--trial",
    "trials",
    multiple=True,
    metavar="TEXT",
    help="Trials to ask about: id, stimulus, or words of a text; of several that fit, the first one that is held out.  "
    "[default: the first one that is held out]",
)
@click.option("--question", "questions", multiple=True, help="Ask this and write a line of JSON; several make a conversation.")
@click.option("--alone", is_flag=True, help="Ask every --question by itself, without those before.")
@click.option("--brains", type=click.IntRange(min=1), default=19, help="Most other brains that answers are compared with.")
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), help="Longest answer.  [default: as the decoder was evaluated with]"
)
def command(
    output_dir: Path,
    participant: str,
    bids_dir: Path | None,
    trials: tuple[str, ...],
    questions: tuple[str, ...],
    alone: bool,
    brains: int,
    max_new_tokens: int | None,
    device: str,
) -> None:
    """Ask the trained decoder of a participant about single trials.

    OUTPUT_DIR is what bids_brainlm wrote. Beside each answer stand those without a brain and from another trial's brain, and the
    rank of its brain among others. Trials that the decoder was trained on are marked.
    """
    if not questions and (len(trials) > 1 or alone):
        raise click.UsageError("several trials, and --alone, go with --question")
    opened = open_participant(output_dir, participant, bids_dir, device)
    ask = importlib.import_module("bids_brainlm.insilico.ask")

    def begin(text: str) -> Any:
        return ask.Conversation(opened, text, n_others=brains, max_new_tokens=max_new_tokens or 0)

    if not questions:
        return _chat(begin, lambda text: _listed(opened, text), trials[0] if trials else "")
    for text in trials or ("",):
        conversation = begin(text)
        for question in questions:
            if alone:
                conversation.restart()
            record = {"participant": opened.label, **conversation.ask(question).record()}
            click.echo(json.dumps(record))
    return None


def _chat(begin: Callable[[str], Any], listed: Callable[[str], list[str]], trial: str) -> None:
    with contextlib.suppress(ImportError):
        importlib.import_module("readline")  # lines can then be edited and called back
    conversation = _begun(begin, trial)
    while (line := _line()) is not None:
        name, _, rest = line.partition(" ")
        if name == "/quit":
            return
        try:
            if name == "/trial":
                conversation = _begun(begin, rest.strip())
            elif name == "/find":
                click.echo("\n".join(listed(rest.strip())))
            elif name == "/new":
                conversation.restart()
            elif name.startswith("/"):
                known = "" if name == "/help" else f"no command {name!r}{near(name, COMMANDS)}\n"
                click.echo(known + "\n".join(COMMANDS.values()))
            else:
                answer = conversation.ask(line)
                click.echo(f"{answer.asked}\n{answer}" if not line and answer.question else str(answer))
        except BrainLMError as error:
            click.echo(one_line(error), err=True)


def _begun(begin: Callable[[str], Any], trial: str) -> Any:
    conversation = begin(trial)
    how = "what you write is continued" if conversation.goes_on else "Enter alone asks what the decoder was trained on"
    click.echo(f"{conversation.trial}\n{len(conversation.others)} other brains to compare with; {how}; /help lists commands")
    return conversation


def _line() -> str | None:
    """The next line, or None at the end of what is typed."""
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None


def _listed(participant: Any, text: str) -> list[str]:
    ask, shown = (
        importlib.import_module("bids_brainlm.insilico.ask"),
        importlib.import_module("bids_brainlm.insilico.answers").shown,
    )
    found = ask.fitting(participant, text)
    more = [f"... and {len(found) - LISTED} more"] if len(found) > LISTED else []
    texts = [shown(participant.examples.references[i][0]) for i in found[:LISTED]]
    return [f"{ask.trial_of(participant, i)}: {told}" for i, told in zip(found, texts, strict=False)] + more
