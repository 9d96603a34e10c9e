"""
Run a command, and print what it and all that it has started took together: page faults and bytes read.

``count_family.py COMMAND...``: the output of the command comes first; the last line is the two numbers.

Who leaves its children to others has them reaped here: this process is the subreaper of all below it. What a process
took is added to that of the one that reaps it (wait_task_zombie, kernel/exit.c).
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def bytes_read() -> int:
    """Return what this process, and those that it has reaped, have read, from files, pipes and sockets."""
    values = dict(line.split(": ") for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines())
    return int(values["rchar"])


def main(argv: list[str]) -> int:
    """
    Run the command.

    Args:
        argv: The command.

    Returns:
        Its exit status.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    before = bytes_read()
    status = subprocess.call(argv)
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(usage.ru_minflt + usage.ru_majflt, bytes_read() - before)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
