"""Sum numbers with pandas in four processes that have it imported when they start."""

import time
from concurrent.futures import ProcessPoolExecutor

import libcriu_py


def work(number: int) -> float:
    """Return something that pandas has computed."""
    import pandas as pd  # noqa: PLC0415 - in the workers, which have it already

    return float(pd.Series(range(number)).sum())


if __name__ == "__main__":
    warm = libcriu_py.warm_context(["pandas"])
    start = time.monotonic()
    with ProcessPoolExecutor(4, mp_context=warm) as pool:
        print(list(pool.map(work, range(8))))
        print(f"{1000 * (time.monotonic() - start):.0f} ms")
