"""
Starts of other people's software, conventional and warm: each module has CASES.

`python -m benchmarks.integrations` measures them in turns and writes the table of docs/integrations/README.md. Modules
import other people's packages only where they use them: a test of the tree reads the names of all cases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Case(NamedTuple):
    """
    One start that is measured in both ways.

    Attributes:
        name: What the table says, such as "pytest, one test of a pandas project".
        bar: How many times faster the warm start is to be.
        prepare: Make what both ways need in an empty directory, once: projects, snapshots, servers.
        conventional: Start it in that directory, wait for its first result, end it; return the seconds to the result.
        warm: The same, warm.
        clean: End what `prepare` has started.
    """

    name: str
    bar: float
    prepare: Callable[[Path], None]
    conventional: Callable[[Path], float]
    warm: Callable[[Path], float]
    clean: Callable[[Path], None] = lambda _: None
