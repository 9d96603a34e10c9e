"""Count what a start costs, in numbers that do not depend on how busy the machine is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COUNTER = Path(__file__).with_name("count_family.py")
OUTPUT = b"ready\n"
ROW = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s.*\b(\w+)$", re.MULTILINE)
SUMMARY = re.compile(r"^summary: (\d+)$", re.MULTILINE)


class Family(NamedTuple):
    """What a launcher and everything that it has started, criu and the copy, took together."""

    page_faults: int
    bytes_read: int


def count_family(argv: Sequence[str], env: Mapping[str, str]) -> Family:
    """
    Run a launcher.

    Args:
        argv: Its command.
        env: Its environment.
    """
    command = [sys.executable, "-I", str(COUNTER), *argv]
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    output, _, numbers = done.stdout.strip().rpartition(b"\n")
    assert (done.returncode, output + b"\n") == (0, OUTPUT), done.stderr.decode(errors="replace")
    return Family(*map(int, numbers.split()))


def count_system_calls(argv: Sequence[str], env: Mapping[str, str], directory: Path) -> int:
    """
    Count the system calls of a launcher alone: criu cannot work in what is traced already.

    Args:
        argv: Its command.
        env: Its environment.
        directory: For strace's table.
    """
    table = directory / "strace"
    run(["strace", "-c", "-o", str(table), *argv], env)
    rows = ROW.findall(table.read_text(encoding="utf-8"))
    return sum(int(calls) for calls, name in rows if name != "total")


def count_instructions(argv: Sequence[str], env: Mapping[str, str], directory: Path) -> int:
    """
    Count the instructions of a launcher alone, in user space.

    Args:
        argv: Its command.
        env: Its environment.
        directory: For callgrind's files, one for each process.
    """
    files = directory / "callgrind.%p"
    pid = run(["valgrind", "--tool=callgrind", "--quiet", f"--callgrind-out-file={files}", *argv], env)
    text = (directory / f"callgrind.{pid}").read_text(encoding="utf-8")
    found = SUMMARY.search(text)
    assert found, text[-500:]
    return int(found[1])


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """
    Run a program that must print what copies here print.

    Args:
        argv: The command.
        env: Its environment.

    Returns:
        Its pid.
    """
    process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = process.communicate()
    assert (process.returncode, output) == (0, OUTPUT), errors.decode(errors="replace")
    return process.pid
