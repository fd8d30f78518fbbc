"""How a command ends: the exit codes, and the last line on stderr, which says why.

An *end* is the pair (exit code, reason). What the user can mend ends in one line; a defect of ours leaves its traceback in
a *crash file* and ends in one line that names it. ``-v -v`` shows tracebacks on the terminal too.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import click

from bids_brainlm.config import Outcome
from bids_brainlm.errors import BrainLMError, lines_of

CODES = {
    0: "All that was asked for is done.",
    1: "Processing failed.",
    2: "Usage: an unknown option or setting, or a value that cannot be.",
    65: "Input that cannot be used as it is.",
    66: "Input that was asked for and is not there.",
    69: "A template or language model that is not on this machine and cannot be fetched.",
    70: "A defect of bids_brainlm; the last line names the file with the traceback.",
    73: "An output or work folder that cannot be written: full, read-only, or in use by another run.",
    75: "Some participants, or points of a sweep, failed; the others are done.",
    130: "Interrupted (SIGINT); the same command goes on from where it stopped.",
    143: "Terminated (SIGTERM), as at the end of a job's time; the same command goes on from where it stopped.",
}
"""Exit code -> meaning; docs/reference/exit-codes.md is generated from it."""


def one_line(text: object) -> str:
    """Text without line breaks, which would bury the reason.

    >>> one_line("no such file:\\n   x.tsv")
    'no such file: x.tsv'
    """
    return " ".join(str(text).split())


def temporary() -> Path:
    """The system's temporary folder, or the current one where none can be written."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Path.cwd()


@dataclass
class Ending:
    """What the outermost frame must know of a command when it fails; the command fills it in as it learns it.

    Parameters
    ----------
    crash_dir : Path
        Where the traceback of a defect is written.
    tracebacks : bool
        Whether tracebacks are shown on the terminal too.
    """

    crash_dir: Path = field(default_factory=temporary)
    tracebacks: bool = False


class Terminated(KeyboardInterrupt):
    """SIGTERM, as batch systems send at the end of a job's time; nothing but the outermost frame may catch it."""


PATIENCE = 4.0
"""Seconds in which an interrupted command may stop its workers and write its record before it is ended without that."""

_GOES_ON = "the same command goes on from where it stopped"


@contextmanager
def _stoppable(name: str) -> Iterator[None]:
    """Let SIGTERM and SIGINT end what runs inside, by an exception and, should that be lost, without one.

    Python only prints an exception that is raised while an object is being deleted; the run would go on for ever.
    """
    timers: list[threading.Timer] = []

    def stop(signum: int, frame: object) -> None:
        # One is enough: batch systems repeat it, and the second must not cut short what the first one has begun.
        signal.signal(signum, signal.SIG_IGN)
        timers.append(threading.Timer(PATIENCE, _end_at_once, (name, signum)))
        timers[-1].daemon = True
        timers[-1].start()
        raise Terminated if signum == signal.SIGTERM else KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {signum: signal.signal(signum, stop) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        for signum, handler in former.items():
            signal.signal(signum, handler)


def _end_at_once(name: str, signum: int) -> None:
    code = _say_stopped(name, signum)
    sys.stderr.flush()
    # Workers see that this process is gone; whatever was not finished has no final name.
    os._exit(code)


def _say_stopped(name: str, signum: int) -> int:
    what, code = ("terminated", 143) if signum == signal.SIGTERM else ("interrupted", 130)
    return _say(name, code, f"{what}; {_GOES_ON}")


def _leave_the_garbage() -> None:
    """At the end of a process that has loaded torch, a last collection takes seconds and gives back what goes anyway."""
    gc.freeze()
    gc.disable()


def run(command: click.Command, name: str, argv: Sequence[str] | None) -> int:
    """Run a click command, whose context object is an `Ending`, and say on stderr how it ended.

    Parameters
    ----------
    command : click.Command
        Returns an exit code, or None for 0.
    name : str
        Program name.
    argv : sequence of str or None
        None takes those of the process.

    Returns
    -------
    int
        Exit code.
    """
    ending = Ending()
    args = None if argv is None else list(argv)
    atexit.register(_leave_the_garbage)
    try:
        with _stoppable(name):
            return command.main(args=args, prog_name=name, standalone_mode=False, obj=ending) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        # click turns any KeyboardInterrupt into an Abort.
        terminated = isinstance(error, Terminated) or isinstance(error.__cause__, Terminated)
        return _say_stopped(name, signal.SIGTERM if terminated else signal.SIGINT)
    except BrainLMError as error:
        _show(ending)
        lines = lines_of(error)
        for line in lines if len(lines) > 1 else ():
            click.echo(f"{name}: {one_line(line)}", err=True)
        return _say(name, error.exit_code, one_line(lines[0]) if len(lines) == 1 else f"{len(lines)} faults")
    except Exception as error:  # The outermost frame: whatever arrives here is a defect and must still end as documented.
        _show(ending)
        where = _write_crash(error, ending.crash_dir)
        return _say(name, 70, f"internal error, {type(error).__name__}: {one_line(error)}; traceback: {where}")


def report(name: str, outcomes: Sequence[Outcome]) -> int:
    """Say which participants failed and why, and return the exit code of the whole.

    One line a fault: what several participants have in common is said once. One code for all failures stands for itself when
    nobody succeeded; different ones give 1; success beside failure 75. An outcome without participant concerns everybody.

    >>> report("app", [Outcome("01"), Outcome("02")])
    0
    """
    failed = [outcome for outcome in outcomes if outcome.exit_code]
    if not failed:
        return 0
    for error in dict.fromkeys(error for outcome in failed for error in outcome.errors):
        who = [outcome.participant for outcome in failed if error in outcome.errors]
        click.echo(f"{_labels(who)}{one_line(error)}", err=True)
    everybody = next((outcome for outcome in failed if not outcome.participant), None)
    if everybody:
        return _say(name, everybody.exit_code, _reason("nothing can be done", [everybody]))
    codes = {outcome.exit_code for outcome in failed}
    code = 75 if len(failed) < len(outcomes) else codes.pop() if len(codes) == 1 else 1
    labels = ", ".join(outcome.participant for outcome in failed)
    return _say(name, code, _reason(f"{len(failed)} of {len(outcomes)} participants failed ({labels})", failed))


def _labels(participants: Sequence[str]) -> str:
    """``sub-01: ``; those of many participants are counted.

    >>> _labels(["01"]), _labels([str(i) for i in range(12)]), _labels([""])
    ('sub-01: ', 'sub-0 and 11 others: ', '')
    """
    if not participants[0]:
        return ""
    few = len(participants) <= 10
    others = "" if few else f" and {len(participants) - 1} others"
    return ", ".join(f"sub-{who}" for who in (participants if few else participants[:1])) + f"{others}: "


def _reason(what: str, failed: Sequence[Outcome]) -> str:
    """With the fault itself where there is only one."""
    errors = {error for outcome in failed for error in outcome.errors}
    return f"{what}: {one_line(errors.pop())}" if len(errors) == 1 else what


def _say(name: str, code: int, reason: str) -> int:
    click.echo(f"{name}: {reason} [exit code {code}]", err=True)
    return code


def _show(ending: Ending) -> None:
    if ending.tracebacks:
        traceback.print_exc()


def _write_crash(error: BaseException, crash_dir: Path) -> Path:
    """Traceback -> a file in that folder, or in the temporary one when it cannot be written, or else the terminal."""
    text = "".join(traceback.format_exception(error))
    name = f"crash-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    for folder in (crash_dir, temporary()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, "utf-8")
        except OSError:
            continue
        return folder / name
    click.echo(text, err=True)
    return Path("above")
