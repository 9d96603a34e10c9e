"""
Import a program, wait to be checkpointed, and run it in each restarted copy.

``dmtcp_program.py MODULE READY GO``: the file READY is made when the imports are done; when there is a file GO, the
program runs. DMTCP checkpoints from outside, at any time.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

PROGRAMS = str(Path(__file__).resolve().parents[1] / "programs")


def main(module: str, ready: str, go: str) -> None:
    """
    Import, wait, run.

    Args:
        module: The program.
        ready: The file that tells that the imports are done.
        go: The file that is waited for.
    """
    sys.path[0] = PROGRAMS
    program = importlib.import_module(module)
    Path(ready).touch()
    while not Path(go).exists():
        time.sleep(0.001)
    program.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
