"""Note at the end of a copy what it has imported that the snapshot does not have (csrc/launcher/background.c)."""

from __future__ import annotations

import os
import sys

_known: set[str] = set()


def watch(entry: str) -> str:
    """
    Return what the path of a file begins with, and ends with the pid of a copy, by which the launcher watches that.

    Args:
        entry: The program's directory in the cache of automatic snapshots.
    """
    return f"{entry}/watch."


def begin() -> None:
    """Note what is loaded now as what the snapshot has."""
    _known.update(sys.modules)


def end(prefix: str | None) -> None:
    """
    Say that this copy has ended in order, and what it has imported, if the launcher watches it.

    Args:
        prefix: What `watch` has returned; None where copies are not watched.
    """
    if prefix is None:
        return
    path = f"{prefix}{os.getpid()}"
    if not os.path.exists(path):
        return
    try:
        _append(os.path.join(os.path.dirname(path), "runs"), _lines())
        os.unlink(path)
    except OSError:
        return


def _lines() -> str:
    """Return a line for each new module that can be imported again by its name: that, a tab, and its file."""
    found = []
    for name, module in list(sys.modules.items()):
        if name in _known:
            continue
        try:
            known = object.__getattribute__(module, "__dict__")  # lazy modules would load
            if known["__spec__"].name == name:
                found.append(f"{name}\t{known.get('__file__') or ''}\n")
        except (AttributeError, KeyError):
            continue
    return "".join(found)


def _append(path: str, text: str) -> None:
    if not text:
        return
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, os.fsencode(text))
    finally:
        os.close(fd)
