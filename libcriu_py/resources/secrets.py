"""
Keep secrets in the environment out of snapshots.

A copy gets the environment of its restoring side and does not need those of the dump. They are wiped from Python's
`os.environ`, from the strings of the C environment, and from the block on the initial stack that /proc/PID/environ
shows; but not from where else the program has copied them.

Until the original gets them back, a process outside the dumped tree holds them, as it does the original's stdio.
"""

from __future__ import annotations

import os
import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from libcriu_py.program.environment import initial_block
from libcriu_py.resources.base import Arrival, BuiltIn
from libcriu_py.settings import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PATTERNS = (
    "*TOKEN*",
    "*SECRET*",
    "*PASSWORD*",
    "*PASSWD*",
    "*PASSPHRASE*",
    "*CREDENTIAL*",
    "*APIKEY*",
    "*API_KEY*",
    "*ACCESS_KEY*",
    "*PRIVATE_KEY*",
    "*ENCRYPTION_KEY*",
    "*_AUTH",
    "*_DSN",
    "DATABASE_URL",
    "*_DATABASE_URL",
    "REDIS_URL",
    "PGPASS*",
)
"""Patterns for the names of variables to wipe, in any case."""


def is_secret(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a variable's name matches a pattern, ignoring case."""
    return any(fnmatchcase(name.upper(), pattern.upper()) for pattern in patterns)


class Secrets(BuiltIn):
    """
    Variables whose names match a pattern.

    Args:
        patterns: Further patterns, besides `PATTERNS` and those of LIBCRIU_PY_SCRUB.
    """

    def __init__(self, *, patterns: Iterable[str] = ()) -> None:
        self._patterns = (*PATTERNS, *patterns, *words("LIBCRIU_PY_SCRUB"))
        self._parked: str | None = None

    def covers(self, name: str) -> bool:
        """Return whether a variable is a secret."""
        return is_secret(name, self._patterns)

    def before_dump(self) -> None:
        """Park the variables outside the tree, and wipe them here."""
        data: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]  # noqa: SLF001
        names = [name for name in list(data) if self.covers(os.fsdecode(name))]
        if not names:
            return
        self._park({name: data[name] for name in names})
        wipe(names, data)

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Do nothing: the hand-over has set the new environment."""
        self._parked = None

    def in_original(self) -> None:
        """Get the parked variables back."""
        if self._parked is None:
            return
        from libcriu_py.linux import sockets

        (memory,) = sockets.take_fds(self._parked, 1)
        self._parked = None
        with os.fdopen(memory, "rb") as file:
            file.seek(0)
            entries = file.read().split(b"\0")
        for entry in filter(None, entries):
            name, _, value = entry.partition(b"=")
            os.environ[os.fsdecode(name)] = os.fsdecode(value)

    def _park(self, variables: Mapping[bytes, bytes]) -> None:
        from libcriu_py.linux import sockets

        memory = os.memfd_create("libcriu_py-parked", os.MFD_CLOEXEC)
        try:
            for name, value in variables.items():
                # In pieces: joining them would make another copy of the secret.
                os.writev(memory, [name, b"=", value, b"\0"])
            self._parked = sockets.keep_fds([memory])
        finally:
            os.close(memory)


def wipe(names: Iterable[bytes], data: dict[bytes, bytes]) -> None:
    """
    Remove variables from this process, and overwrite their values in memory.

    Args:
        names: The variables.
        data: The dictionary behind `os.environ`.
    """
    import ctypes

    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    wiped = set(names)
    for name in wiped:
        place = libc.getenv(name)
        if place:
            ctypes.memset(place, 0, len(ctypes.string_at(place)))
        value = data.pop(name)
        # Only this variable and the call refer to it: the program does not.
        if sys.getrefcount(value) <= 2 and len(value) > 1:
            ctypes.memset(id(value) + bytes.__basicsize__ - 1, 0, len(value))
        del value
        os.unsetenv(name)
    _wipe_stack(wiped, ctypes)


def _wipe_stack(names: set[bytes], ctypes: Any) -> None:
    """Overwrite the values in the block that the kernel set up at exec."""
    place, end = initial_block()
    while place < end:
        entry = ctypes.string_at(place)
        name = entry.partition(b"=")[0]
        if name in names:
            value = len(entry) - len(name) - 1
            ctypes.memset(place + len(name) + 1, 0, value)
            ctypes.memset(id(entry) + bytes.__basicsize__ - 1, 0, len(entry))
            place += len(name) + 1 + value + 1
            continue
        place += len(entry) + 1
