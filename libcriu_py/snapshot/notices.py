"""What a checkpoint says on stderr: one line, written at once, whatever the program has put into `sys.stderr`."""

from __future__ import annotations

import os
import shlex

from libcriu_py.errors import in_words
from libcriu_py.settings import variable


def taken(snapshot: str) -> None:
    """
    Say what was taken, and how to start it, unless `libcriu-py snapshot` does.

    Args:
        snapshot: The snapshot's directory.
    """
    if variable("LIBCRIU_PY_COMMAND"):
        return
    total = sum(os.path.getsize(os.path.join(base, name)) for base, _, names in os.walk(snapshot) for name in names)
    path = shlex.quote(snapshot)
    say(f"took a snapshot of this program, {path} ({total / 1e6:.1f} MB); start it: libcriu-py run {path} -- ARGUMENTS")


def skipped(error: BaseException) -> None:
    """Say why there is no snapshot."""
    say(f"no snapshot was made, and the program goes on without: {in_words(error)}")


def starts_again(why: str | None) -> None:
    """Say why the program is started once more."""
    reason = "this program asks for criu" if why is None else f"the native engine cannot dump this program, which {why}"
    say(f"{reason}; starting it again where criu may dump it")


def say(text: str) -> None:
    """Say one line, unless nobody reads it."""
    line = " ".join(text.split())
    try:
        os.write(2, f"libcriu-py: {line}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return  # nobody reads it
