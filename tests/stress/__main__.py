"""
Restore by the thousand and count what comes out.

    python -m tests.stress [--engine native|criu] [--rounds N] [--programs empty,threads] [--parts plain,signals]

A program whose packages are missing is left out, and said so. The status is 1 if anything but right was counted.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from libcriu_py.snapshot import launcher
from tests.stress.programs import PROGRAMS, expected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LIMIT = 60.0
"""Seconds after which a copy hangs."""
MANY = 100
"""Rounds from which 500 copies at once are tried, too."""
SIGNALS = ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "ALRM", "WINCH", "CHLD", "CONT", "URG", "IO", "TSTP")
"""Signals for a copy at a random moment of its start."""
HARMLESS = {"WINCH", "CHLD", "CONT", "URG"}
"""Those that a Python program does not notice."""
LAYOUTS: dict[str, Sequence[str]] = {
    "randomised": (),
    "not randomised": ("setarch", "-R"),
    "legacy": ("setarch", "--addr-compat-layout"),
    "unlimited stack": ("prlimit", "--stack=unlimited"),
}
"""Address spaces of the launcher, with other mappings in other places."""

Outcomes = collections.Counter[str]


class Subject:
    """One program and its snapshot."""

    def __init__(self, name: str, directory: Path, engine: str) -> None:
        """Take the snapshot."""
        self.name = name
        self.path = directory / name
        command = [sys.executable, "-m", "tests.stress.programs", name, str(self.path), engine]
        made = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        self.missing = made.stderr.strip().rpartition("\n")[2] if made.returncode or not self.path.exists() else ""

    def start(self, argument: str, before: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start a copy, which says why rather than starting conventionally."""
        command = [*before, launcher.path(), "--no-fallback", str(self.path), argument]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def judge(self, copy: subprocess.Popen[str], argument: str, allowed: Sequence[int] = ()) -> str:
        """Wait for a copy, and return what became of it; also right are deaths by allowed signals."""
        try:
            output, errors = copy.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            copy.kill()
            copy.communicate()
            return "hang"
        if (copy.returncode, output, errors) == (0, f"{expected(argument)}\n", ""):
            return "right"
        if -copy.returncode in allowed or "KeyboardInterrupt" in errors:
            return "ended by its signal"
        print(f"{self.name}: status {copy.returncode}, output {output!r}, errors {errors!r}", file=sys.stderr)
        return f"signal {-copy.returncode}" if copy.returncode < 0 else "wrong"


def plain(subject: Subject, rounds: int) -> Outcomes:
    """Restore one after the other, two at a time."""
    return _many(subject, rounds, 2)


def at_once(subject: Subject, rounds: int) -> Outcomes:
    """Restore 64 and 500 copies at once."""
    counted = _many(subject, 64, 64)
    return counted + _many(subject, 500, 500) if rounds >= MANY else counted


def signals(subject: Subject, rounds: int) -> Outcomes:
    """Send each copy a signal while it is being loaded, or shortly after."""
    counted = Outcomes()
    for number in range(rounds):
        name = random.choice(SIGNALS)
        argument = f"{subject.name}-{name}-{number}"
        copy = subject.start(argument)
        time.sleep(random.random() * 0.01)
        copy.send_signal(getattr(signal, f"SIG{name}"))
        if name == "TSTP":
            time.sleep(0.005)
            copy.send_signal(signal.SIGCONT)
        allowed = () if name in HARMLESS else (getattr(signal, f"SIG{name}"),)
        counted[subject.judge(copy, argument, allowed)] += 1
    return counted


def layouts(subject: Subject, rounds: int) -> Outcomes:
    """Start the launcher in address spaces of every layout."""
    counted = Outcomes()
    for name, before in LAYOUTS.items():
        for number in range(max(1, rounds // len(LAYOUTS))):
            argument = f"{name}-{number}"
            counted[subject.judge(subject.start(argument, before), argument)] += 1
    return counted


PARTS: dict[str, Callable[[Subject, int], Outcomes]] = {
    "plain": plain,
    "at once": at_once,
    "signals": signals,
    "layouts": layouts,
}


def _many(subject: Subject, count: int, at_a_time: int) -> Outcomes:
    def one(number: int) -> str:
        argument = f"{subject.name}-{number}"
        return subject.judge(subject.start(argument), argument)

    with ThreadPoolExecutor(at_a_time) as pool:
        return Outcomes(pool.map(one, range(count)))


def main() -> int:
    """Run the parts, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__.splitlines()[1])
    parser.add_argument("--engine", default="native", choices=("native", "criu"))
    parser.add_argument("--rounds", type=int, default=500, help="restores of each program and part")
    parser.add_argument("--programs", default=",".join(PROGRAMS))
    parser.add_argument("--parts", default=",".join(PARTS))
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="stress-", dir=os.environ.get("TMPDIR", "/tmp")))
    table = Table("program", "part", "tried", "right", "other")
    faults = 0
    try:
        for name in options.programs.split(","):
            subject = Subject(name, directory, options.engine)
            if subject.missing:
                table.add_row(name, "", "0", "", subject.missing)
                faults += "No module named" not in subject.missing
                continue
            for part in options.parts.split(","):
                counted = PARTS[part](subject, options.rounds)
                good = counted["right"] + counted["ended by its signal"]
                other = ", ".join(f"{number} {what}" for what, number in counted.items() if what != "right")
                table.add_row(name, part, str(counted.total()), str(counted["right"]), other)
                faults += counted.total() - good
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    Console().print(table)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
