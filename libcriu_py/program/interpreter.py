"""
Start Python on code of this package without the working directory on sys.path.

`python -m` and `python -c` search the working directory before the standard library. A user's types.py, or a source
tree of this package without the C extension, would be found first. Python 3.11 has -P against that; 3.10 does not.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""The directory of this package."""


def command(code: str, *args: str, python: str = sys.executable, options: Sequence[str] = ()) -> list[str]:
    """
    Return a command line that runs code with the directory of this package first on sys.path.

    Args:
        code: What to run; it can import this package.
        args: sys.argv[1:].
        python: The interpreter. One other than ours has a package of its own, and does not get our directory.
        options: Options of Python.
    """
    first = HERE if python == sys.executable else os.devnull
    source = f"import sys; sys.path[: sys.path[0] == ''] = [{first!r}]\n{code}"
    return [python, *options, "-c", source, *args]
