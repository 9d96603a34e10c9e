"""
Keep secrets in the environment out of snapshots.

A copy gets the environment of its restoring side and does not need those of the dump. They are wiped from Python's
`os.environ`, from the strings of the C environment, and from the block on the initial stack that /proc/PID/environ
shows; but not from where else the program has copied them.

Until the original gets them back, a process outside the dumped tree holds them, as it does the original's stdio.
"""

from __future__ import annotations

import os
import re
import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from libcriu_py.program.environment import added_variables, initial_block
from libcriu_py.resources.base import Arrival, BuiltIn
from libcriu_py.settings import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SECRET_WORD = re.compile(
    "(?:PASSCODE|PSW|PW|O?AUTH|AUTHORIZATION|PAT|CRED|DSN|BEARER|OTP)S?"
    "|.*(?:PASS|PWD|KEY|JWT|COOKIE)S?"
    "|.*(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|APIKEY).*"
)
"""One word of a variable's name is enough."""
_HARMLESS_WORD = re.compile("BYPASS|COMPASS|OLDPWD|HOTKEY|MONKEY|TURKEY|TOKENI[SZ].*|SECRETARY")
_HARMLESS = frozenset(("PWD", "OLDPWD", "SSH_AUTH_SOCK"))
_SWITCHES = frozenset((b"0", b"1", b"true", b"false", b"yes", b"no", b"on", b"off"))
"""Values that are no secrets, whatever the name."""
_ADDRESSES = ("*DATABASE_URL", "*REDIS_URL", "*BROKER_URL", "*AMQP_URL", "*MONGO*_UR[IL]", "*CONNECTION_STRING")
"""Names whose values may hold a password in any form."""
_VALUE = re.compile(
    rb"://[^/\s:@]*:[^/\s@]+@"  # a URL with user and password
    rb"|https?://[^/\s@]+@"  # or with a token
    rb"|(?i:\b(?:password|passwd|pwd|secret|token|api_?key|account_?key|access_?key|signature|sig)=[^\s;&]+)"
    rb"|-----BEGIN [A-Z ]*PRIVATE KEY"
    rb"|\beyJ[\w-]{8,}\.eyJ"  # a JWT
    rb"|\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|sk-|[sr]k_live_|AKIA|hf_|npm_|pypi-)[\w-]{12,}"
)
"""Values that are secrets, whatever the name; the last are prefixes of well-known services' tokens."""
_WORD = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_KEPT_OF_ALL = ("LIBCRIU_PY_*", "PYTHON*", "PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR")
"""What the dump itself reads, so that "all" keeps it."""


def is_secret(name: str, value: bytes | memoryview = b"") -> bool:
    """Return whether a variable is a secret, by a word of its name or by its value."""
    if _VALUE.search(value):
        return True
    if name.upper() in _HARMLESS or (len(value) <= len(b"false") and bytes(value).lower() in _SWITCHES):
        return False
    found = (word.upper() for word in _WORD.findall(name))
    named = any(_SECRET_WORD.fullmatch(word) and not _HARMLESS_WORD.fullmatch(word) for word in found)
    return named or _fits(name, _ADDRESSES)


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name.upper(), pattern.upper()) for pattern in patterns)


class Secrets(BuiltIn):
    """
    Variables that are secrets by name or value, or match a pattern.

    Args:
        patterns: Of further names, besides those of LIBCRIU_PY_SCRUB; "all" for all that the process was started with.
        keep: Patterns of names to keep, besides those of LIBCRIU_PY_KEEP_ENV.
    """

    def __init__(self, *, patterns: Iterable[str] = (), keep: Iterable[str] = ()) -> None:
        self._patterns = (*patterns, *words("LIBCRIU_PY_SCRUB"))
        self._keep = (*keep, *words("LIBCRIU_PY_KEEP_ENV"))
        self._all = "all" in self._patterns
        self._parked: str | None = None

    def covers(self, name: str, value: bytes | memoryview = b"") -> bool:
        """Return whether to wipe a variable that the program set."""
        return not _fits(name, self._keep) and (_fits(name, self._patterns) or is_secret(name, value))

    def covers_of_start(self, name: str, value: bytes | memoryview = b"") -> bool:
        """Return whether to wipe a variable that the process was started with."""
        if self._all and not _fits(name, _KEPT_OF_ALL):
            return not _fits(name, self._keep)
        return self.covers(name, value)

    def before_dump(self) -> None:
        """Park the variables outside the tree, and wipe them here."""
        data: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]  # noqa: SLF001
        # What the program has added is no part of what it was started with.
        added = added_variables()
        names = [
            name
            for name, value in list(data.items())
            if (self.covers if name in added else self.covers_of_start)(os.fsdecode(name), value)
        ]
        if not names:
            return
        self._park({name: data[name] for name in names})
        wipe(names, data)

    def before_dump_last(self) -> bool:
        """Return False: a copy has nothing to do."""
        return False

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
