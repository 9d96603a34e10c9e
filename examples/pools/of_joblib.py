"""Sum numbers with pandas in four processes of joblib that have it imported when they start."""

import sys
import time

from joblib import Parallel, delayed

import libcriu_py


def work(number: int) -> float:
    """Return something that pandas has computed."""
    import pandas as pd  # noqa: PLC0415 - in the workers, which have it already

    return float(pd.Series(range(number)).sum())


if __name__ == "__main__":
    sys.executable = libcriu_py.executable(["joblib", "pandas"])
    start = time.monotonic()
    print(Parallel(4)(delayed(work)(number) for number in range(8)))
    print(f"{1000 * (time.monotonic() - start):.0f} ms")
