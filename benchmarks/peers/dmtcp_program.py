"""
Import a program, make the file READY, wait to be checkpointed, and run it in each restarted copy, when there is a GO.

DMTCP checkpoints from outside, at any time.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path


def main(program: str, ready: str, go: str) -> None:
    """Import, wait, run."""
    sys.path[0] = str(Path(program).parent)
    module = importlib.import_module(Path(program).stem)
    Path(ready).touch()
    while not Path(go).exists():
        time.sleep(0.001)
    module.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
