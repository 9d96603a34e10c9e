"""Programs that `libcriu-py snapshot` starts again where criu may dump them."""

from __future__ import annotations

from libcriu_py.settings import variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ELSEWHERE = 118
"""Exit status of a program that is to be started again."""


def start_again(why: str | None, leave: Callable[[], None]) -> None:
    """
    End this process and its children, if `libcriu-py snapshot` has started it right here; else return.

    Args:
        why: What the native engine says of it; None if the program asks for criu.
        leave: Called before the end, to leave the snapshot's directory to the next start.
    """
    if variable("LIBCRIU_PY_COMMAND") != "here":
        return
    from libcriu_py.dump import stdio
    from libcriu_py.linux import processes
    from libcriu_py.snapshot import notices

    leave()
    notices.starts_again(why)
    stdio.flush()
    processes.end_with_descendants(ELSEWHERE)
