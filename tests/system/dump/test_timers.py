"""Timers that send signals, and a dump by criu: none expires where neither its signal nor its rest is saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from libcriu_py.images import framing
from libcriu_py.images.codec import Message
from tests.system.cli_command import Command, write
from tests.system.conftest import by_criu
from tests.system.native.test_timers import TIMERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

PROGRAM = f"""
import ctypes, os, signal, sys
from libcriu_py import checkpoint
{TIMERS}
signal.setitimer(signal.ITIMER_REAL, 3000, 7)
signal.setitimer(signal.ITIMER_PROF, 2000)
timer, other = create(notify=0, number=10), create()
arm(timer, 5, 0, 1000, 0)
with checkpoint(sys.argv[1], then="continue", engine="criu"):
    pass
print([left - 10 < signal.getitimer(which)[0] <= left for which, left in ((0, 3000), (2, 2000))], end=" ")
print(signal.getitimer(0)[1], 990 < when(timer)[2] <= 1000, when(timer)[:2], when(other))
"""
EXPECTED = "[True, True] 7.0 True (5, 0) (0, 0, 0)\n"
TASK, TIMERS_OF_TASK, VALUE = 3, 7, (3, 4)
"""Fields of CRIU's images/core.proto and images/timer.proto; the last are what is left of a timer."""


def timers_in(images: Path) -> list[tuple[int | bytes, ...]]:
    """Return what the images say is left of the timers of setitimer(2)."""
    (core,) = images.glob("core-*.img")
    (entry,) = framing.read(core, "core")

    def field(message: Message, wanted: int) -> Message:
        (found,) = (value for number, _, value in message.fields if number == wanted)
        return Message.parse(cast("bytes", found))

    timers = field(field(entry, TASK), TIMERS_OF_TASK)
    each = [field(timers, number) for number in (1, 2, 3)]
    return [tuple(value for number, _, value in timer.fields if number in VALUE) for timer in each]


@by_criu
def test_timers_are_disarmed_while_criu_reads_them(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """Copies have the time that was left of them, and so has the program; the images have none."""
    command = Command(mode, directory_of(mode.account))
    program = write(command.place / "program.py", PROGRAM)
    done = command("snapshot", "-o", command.place / "snap", program, command.place / "snap")
    assert (done.returncode, done.stdout.splitlines(keepends=True)[0]) == (0, EXPECTED), done.stderr
    assert timers_in(command.place / "snap" / "images") == [(0, 0)] * 3
    assert command.restored(command.place / "snap") == EXPECTED
