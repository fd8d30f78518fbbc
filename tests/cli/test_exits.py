"""A signal ends a command, also where Python loses the exception that it raises."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

# While an object is being deleted, Python prints what is raised and goes on.
LOST = """
import sys, time
import click
from bids_brainlm.cli import exits

class Slow:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(60)

@click.command()
def command():
    Slow()
    time.sleep(600)

sys.exit(exits.run(command, "app", []))
"""


@pytest.mark.parametrize(("signum", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")])
def test_a_signal_that_python_loses_still_ends_the_command(signum: signal.Signals, code: int, word: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", LOST], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    start = time.monotonic()
    process.send_signal(signum)
    err = process.communicate(timeout=30)[1]
    assert time.monotonic() - start < 10
    assert "Exception ignored" in err
    assert process.returncode == code
    assert err.splitlines()[-1] == f"app: {word}; the same command goes on from where it stopped [exit code {code}]"
