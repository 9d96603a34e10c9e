"""Locks of files: copies take them anew, and start conventionally where another process holds one."""

from __future__ import annotations

import fcntl
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.native.conftest import Run

LOCK = """
import fcntl, struct
f = open(sys.argv[0] + ".lock", "w+b")
{}
"""
SHOWN = """
print(*(line.split()[2:5] for line in open(f"/proc/self/fdinfo/{f.fileno()}") if line.startswith("lock:")))
print(*(line.split()[-2:] for line in open(f"/proc/self/fdinfo/{f.fileno()}") if line.startswith("lock:")))
"""
KINDS = {
    "flock": ("fcntl.flock(f, fcntl.LOCK_EX)", "['FLOCK', 'ADVISORY', 'WRITE']\n['0', 'EOF']\n"),
    "shared flock": ("fcntl.flock(f, fcntl.LOCK_SH)", "['FLOCK', 'ADVISORY', 'READ']\n['0', 'EOF']\n"),
    "of a duplicate": (
        "d = os.dup(f.fileno()); fcntl.flock(d, fcntl.LOCK_EX)",
        "['FLOCK', 'ADVISORY', 'WRITE']\n['0', 'EOF']\n",
    ),
    "of the process": ("fcntl.lockf(f, fcntl.LOCK_EX)", "['POSIX', 'ADVISORY', 'WRITE']\n['0', 'EOF']\n"),
    "of a part": ("fcntl.lockf(f, fcntl.LOCK_SH, 10, 5)", "['POSIX', 'ADVISORY', 'READ']\n['5', '14']\n"),
    "of the process, of a file that is mapped": (
        "f.write(bytes(4096)); f.flush(); m = mmap.mmap(f.fileno(), 0); fcntl.lockf(f, fcntl.LOCK_EX)",
        "['POSIX', 'ADVISORY', 'WRITE']\n['0', 'EOF']\n",
    ),
    "of the open file": (
        "fcntl.fcntl(f, fcntl.F_OFD_SETLK, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 7, 0, 0))",
        "['OFDLCK', 'ADVISORY', 'WRITE']\n['7', 'EOF']\n",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_copy_holds(kind: str, dump: Run, tmp_path: Path) -> None:
    """A copy holds what the process held, and where another process does, the program is started conventionally."""
    taking, shown = KINDS[kind]
    outcome = dump(LOCK.format(taking), SHOWN)
    assert outcome.copy() == shown
    with open(tmp_path / "program.py.lock", "r+b") as file:
        if "FLOCK" in shown:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        done = outcome.start()
    assert done.returncode == 125
    assert f"another process holds the lock of {file.name} that the program held" in done.stderr
    assert outcome.copy() == shown


def test_lock_of_the_caller(dump: Run, tmp_path: Path) -> None:
    """A lock by which flock(1) lets a program run once is its caller's, at the dump and at each start."""
    lock = tmp_path / "once"
    flock = ["flock", "--nonblock", str(lock)]
    outcome = dump("", "print(sum(os.path.realpath(f'/proc/self/fd/{n}').endswith('once') for n in range(99)))")
    assert outcome.copy() == "0\n"
    outcome.snapshot.rename(tmp_path / "other")
    outcome = dump(
        "", "print(sum(os.path.realpath(f'/proc/self/fd/{n}').endswith('once') for n in range(99)))", prefix=flock
    )
    assert outcome.copy() == "0\n"
    assert outcome.start(prefix=flock).stdout == "1\n"
    held = subprocess.Popen([*flock, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert held.stdin is not None
    held.stdin.write(b"x")
    held.stdin.flush()
    assert held.stdout is not None
    assert held.stdout.read(1) == b"x"
    assert outcome.copy() == "0\n"
    held.communicate()


def test_original_goes_on_with_its_lock(dump: Run) -> None:
    """With "continue", the original holds its lock throughout."""
    outcome = dump(LOCK.format("fcntl.flock(f, fcntl.LOCK_EX)"), "print(snap.outcome.value)" + SHOWN, then="continue")
    assert outcome.output == "continued\n['FLOCK', 'ADVISORY', 'WRITE']\n['0', 'EOF']\n"
    assert outcome.copy() == "restored\n['FLOCK', 'ADVISORY', 'WRITE']\n['0', 'EOF']\n"
