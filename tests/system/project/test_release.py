"""criu lets go of tasks one by one, and calls the restore a failure where one has ended before its turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import MODES
from tests.system.csrc.test_launcher import Copies
from tests.system.selfdump import take
from tests.system.traced import Traced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.conftest import Mode

DELAY = 25_000
"""Microseconds from one task to the next: longer than a copy takes until its first line."""

PROGRAMS = {
    "child": """
        import subprocess
        from libcriu_py import checkpoint
        nothing = subprocess.DEVNULL
        child = subprocess.Popen(["sleep", "1000"], stdin=nothing, stdout=nothing, stderr=nothing)
        with checkpoint():
            pass
        child.kill()
        print("ended by", -child.wait())
    """,
    "threads": """
        import os, threading
        from libcriu_py import checkpoint
        for _ in range(3):
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        with checkpoint():
            pass
        os.write(1, b"ended by 9\\n")
        os._exit(0)
    """,
}
"""What ends others, and what ends its own threads, as soon as it may."""


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("mode", [MODES[0], "rootless-as-root"], indirect=True)
def test_a_program_goes_on_when_all_of_it_was_let_go(
    mode: Mode, program: str, directory_of: Callable[..., Path], tmp_path: Path
) -> None:
    """However long criu takes from one task to the next."""
    snapshot = take(mode, directory_of(mode.account), PROGRAMS[program]).path
    slow = Traced(tmp_path, delay=DELAY)
    done = Copies(mode._replace(criu=slow.path), snapshot).run()
    assert (done.returncode, done.stdout) == (0, "ended by 9\n"), done.stderr
    assert slow.said().count("PTRACE_DETACH") > 1
