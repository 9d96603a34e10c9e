"""The program that faults are caused in: what it prints depends on all of its memory."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.faults.verdict import Judgement, Verdict, of_command, of_start, told

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.place import Place, Ran

DATA = """
import random
numbers = random.Random(1)
block = numbers.randbytes(4_000_000)
table = {f"key {number}": numbers.random() for number in range(20_000)}
"""
MAIN = """
import hashlib, sys
import data
text = repr(data.table).encode() + " ".join(sys.argv[1:]).encode()
print("sum", hashlib.sha256(data.block + text).hexdigest())
"""
CONTINUING = """
import hashlib, sys, threading
import data
from libcriu_py import CriuError, checkpoint
threading.Thread(target=threading.Event().wait, daemon=True).start()
try:
    with checkpoint(then="continue") as snap:
        pass
except CriuError as error:
    print(error, file=sys.stderr)
text = repr(data.table).encode() + " ".join(sys.argv[1:]).encode()
print("sum", hashlib.sha256(data.block + text).hexdigest())
"""
OURS = (sys.executable, "-m", "libcriu_py")
ARGUMENTS = ("7", "eight")


def write(base: Path) -> None:
    """Write the programs into a directory."""
    for name, text in (("data.py", DATA), ("main.py", MAIN), ("continuing.py", CONTINUING)):
        (base / name).write_text(text, encoding="utf-8")


def launcher() -> str:
    """Return the path of the launcher."""
    from libcriu_py.snapshot import launcher as found

    return found.path()


def expected(base: Path) -> str:
    """Return what a conventional start prints with `ARGUMENTS`."""
    return (base / "expected").read_text(encoding="utf-8")


def snapshot_command(place: Place, directory: Path, *options: str, program: str = "main.py") -> list[object]:
    """Return the command that makes a snapshot."""
    own = [] if program == "main.py" else ["--self"]
    arguments = [] if program == "main.py" else ARGUMENTS
    return [*OURS, "snapshot", *own, *options, "-o", directory, place.base / program, *arguments]


def start_command(directory: Path, *options: str) -> list[object]:
    """Return the command that starts a copy."""
    return [launcher(), *options, directory, "--", *ARGUMENTS]


def of_snapshot(place: Place, ran: Ran, directory: Path, *, goes_on: bool = False) -> Judgement:
    """
    Judge the making of a snapshot: one that is said to be there works, and where none is, the next command makes one.

    Args:
        place: Where it was made.
        ran: What came of it.
        directory: The snapshot's.
        goes_on: Whether the program had to go on after its dump, whatever became of that.
    """
    bad = of_command(ran)
    if bad is not None:
        return bad
    if goes_on and expected(place.base) not in ran.out:
        return Judgement(Verdict.CRASH, f"the program did not go on: {told(ran)}")
    if ran.status != 0:
        again = place.run(snapshot_command(place, directory, "--replace"))
        if again.status != 0:
            return of_command(again) or Judgement(Verdict.WRONG, f"{told(ran)}; the next command fails: {told(again)}")
    started = of_start(place.run(start_command(directory)), expected(place.base))
    if started.verdict is Verdict.FELL_BACK:
        second = of_start(place.run(start_command(directory)), expected(place.base))
        if second.verdict is Verdict.RIGHT:
            return started
    if started.verdict is not Verdict.RIGHT:
        return Judgement(Verdict.WRONG, f"{told(ran)}; the snapshot does not work: {started}")
    return Judgement(Verdict.RIGHT if ran.status == 0 else Verdict.ERROR, told(ran))
