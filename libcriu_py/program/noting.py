"""Note at the end of a copy what it has imported that the snapshot does not have (csrc/launcher/background.c)."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec

_known: set[str] = set()
_is_told = False
"""Whether the program itself notes what it imports, as pytest does."""


def watch(entry: str) -> str:
    """
    Return what the path of a file begins with, and ends with the pid of a copy, by which the launcher watches that.

    Args:
        entry: The program's directory in the cache of automatic snapshots.
    """
    return f"{entry}/watch."


def begin(kind: str) -> None:
    """
    Note what is loaded now as what the snapshot has.

    Args:
        kind: That of the program; one that an interpreter runs notes itself what it imports.
    """
    global _is_told
    _is_told = kind == "interpreter"
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
        if not _is_told:
            note(os.path.dirname(path), new_modules(lambda *_: True))
        os.unlink(path)
    except OSError:
        return


def new_modules(is_wanted: Callable[[str, ModuleSpec], bool]) -> str:
    """
    Return a line for each new module that can be imported again by its name: that, a tab, and its file.

    Args:
        is_wanted: Whether a module, of this file and with this spec, is to be noted.
    """
    found = []
    for name, module in list(sys.modules.items()):
        if name in _known:
            continue
        try:
            known = object.__getattribute__(module, "__dict__")  # lazy modules would load
            file, spec = known.get("__file__") or "", known["__spec__"]
            if spec.name == name and is_wanted(file, spec):
                found.append(f"{name}\t{file}\n")
        except (AttributeError, KeyError):
            continue
    return "".join(found)


def note(entry: str, text: str) -> None:
    """
    Add lines to what programs have noted.

    Args:
        entry: The program's directory in the cache of automatic snapshots.
        text: The lines.

    Raises:
        OSError: They cannot be written.
    """
    if not text:
        return
    fd = os.open(
        os.path.join(entry, "runs"), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        os.write(fd, os.fsencode(text))
    finally:
        os.close(fd)
