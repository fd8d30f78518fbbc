"""How long --help, --version and a mistyped option take in a fresh process, against importing click alone.

Whoever mistypes an option should not wait for torch. Wall seconds of whole processes, fastest and median of some rounds, taken in
turn so that other work on the machine meets all alike; a start above half a second ends in an error.

    python benchmarks/startup.py [--small]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

LIMIT = 0.5
"""s, for the fastest round."""

OURS = "import sys; from bids_brainlm.cli.{} import main; sys.exit(main(sys.argv[1:]))"
COMMANDS: dict[str, tuple[list[str], int]] = {
    "python -c 'import click'": (["-c", "import click"], 0),
    "python -c 'import numpy'": (["-c", "import numpy"], 0),
    "bids_brainlm --version": (["-c", OURS.format("app"), "--version"], 0),
    "bids_brainlm --help": (["-c", OURS.format("app"), "--help"], 0),
    "bids_brainlm BIDS OUT participant --lmm x": (["-c", OURS.format("app"), "BIDS", "OUT", "participant", "--lmm", "x"], 2),
    "brainlm --help": (["-c", OURS.format("companion"), "--help"], 0),
}
"""Name -> arguments of Python, and the exit code it should end with."""


def seconds(arguments: list[str], code: int) -> float:
    """Wall seconds of one process."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != code:
        sys.exit(f"{arguments} ended with {done.returncode}, not {code}: {done.stderr}")
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="three rounds")
    rounds = 3 if parser.parse_args().small else 20
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, call in COMMANDS.items():
            times[name].append(seconds(*call))
    base = min(next(iter(times.values())))
    print(f"{'command':45} {'fastest s':>9} {'median s':>9} {'ratio of fastest':>17}")
    for name, values in times.items():
        print(f"{name:45} {min(values):9.3f} {statistics.median(values):9.3f} {min(values) / base:17.1f}")
    slow = [name for name, values in times.items() if min(values) > LIMIT]
    if slow:
        sys.exit(f"slower than {LIMIT} s: {', '.join(slow)}")


if __name__ == "__main__":
    main()
