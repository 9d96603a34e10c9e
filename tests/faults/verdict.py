"""What came of a fault, by what can be seen from outside: output, status, messages."""

from __future__ import annotations

import enum
import re
import signal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.faults.place import Ran


class Verdict(enum.Enum):
    """The columns of the report; a broken case is a fault of this tool."""

    RIGHT = "right"
    FELL_BACK = "fell back"
    ERROR = "error"
    WRONG = "wrong with status 0"
    HANG = "hang"
    LEAK = "leak"
    CRASH = "crash"
    BROKEN = "broken"


class Judgement(NamedTuple):
    """A verdict, and what was seen."""

    verdict: Verdict
    detail: str = ""


BAD = (Verdict.WRONG, Verdict.HANG, Verdict.LEAK, Verdict.CRASH, Verdict.BROKEN)
"""What must not be."""
FELL_BACK = "starting conventionally"
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}
_TOLD_CRASH = re.compile(rf"died of signal ({'|'.join(str(int(number)) for number in sorted(_CRASHES))})\b")


def told(ran: Ran) -> str:
    """Return what a command has said, for people."""
    return f"status {ran.status}, {ran.out.strip()[-300:]!r}, {ran.err.strip()[-600:]!r}"


def of_command(ran: Ran) -> Judgement | None:
    """Judge what no command may do, whatever is wrong: hang, crash, or show a traceback; None where it has not."""
    if ran.hung:
        return Judgement(Verdict.HANG, ran.hung)
    if -ran.status in _CRASHES or ran.status - 128 in _CRASHES or _TOLD_CRASH.search(ran.err):
        return Judgement(Verdict.CRASH, told(ran))
    if "Traceback (most recent call last)" in ran.err:
        return Judgement(Verdict.CRASH, told(ran))
    return None


def of_start(ran: Ran, expected: str) -> Judgement:
    """
    Judge the start of a program.

    Args:
        ran: What came of it.
        expected: What the program prints.
    """
    bad = of_command(ran)
    if bad is not None:
        return bad
    if ran.status == 0 and ran.out == expected:
        return Judgement(Verdict.FELL_BACK if FELL_BACK in ran.err else Verdict.RIGHT, ran.err.strip()[-300:])
    return Judgement(Verdict.WRONG if ran.status == 0 else Verdict.ERROR, told(ran))
