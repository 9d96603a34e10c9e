"""
Starting Python on code of this package, or for it, without the working directory in the way.

`python -m` and `python -c` put the working directory in front of the standard library, where a file of the user, a
types.py say, or in a source tree of this package the package without its C extension, would be found first. Python 3.11
has -P against that, 3.10 has not.
"""

from __future__ import annotations

import os
import sys


def command(code: str, *args: str, python: str = sys.executable) -> list[str]:
    """
    Return a command line that runs code with our own place on sys.path where the working directory would stand.

    Args:
        code: What to run; this very package is there to be imported.
        args: sys.argv[1:].
        python: The interpreter. Another than ours has a package of its own, and gets no place of ours.
    """
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    first = here if python == sys.executable else os.devnull
    return [python, "-c", f"import sys; sys.path[: sys.path[0] == ''] = [{first!r}]\n{code}", *args]
