"""Have four workers use pandas, and print the ms from the pool's making to the last of their first results."""

from __future__ import annotations

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

WORKERS = 4


def work(number: int) -> float:
    """Return something that pandas has computed."""
    import pandas as pd

    return float(pd.Series(range(number)).sum())


def context(kind: str) -> Any:
    """Return the context of a name: one of multiprocessing's, or that of copies, whose snapshot is there."""
    if kind == "warm_context":
        import libcriu_py

        return libcriu_py.warm_context(["pandas"])
    found: Any = multiprocessing.get_context(kind)
    if kind == "forkserver":
        found.set_forkserver_preload(["pandas"])
    return found


def main() -> None:
    """Do it with the context that is named on the command line."""
    start = time.monotonic()
    with ProcessPoolExecutor(WORKERS, mp_context=context(sys.argv[1])) as pool:
        results = list(pool.map(work, range(WORKERS)))
        ms = 1000 * (time.monotonic() - start)
    if results != [0.0, 0.0, 1.0, 3.0]:
        sys.exit(f"wrong results: {results}")
    print(ms)


if __name__ == "__main__":
    main()
