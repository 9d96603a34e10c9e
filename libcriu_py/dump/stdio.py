"""
Standard input, output and error around a checkpoint.

The original's descriptors 0, 1 and 2 may be terminals, pipes or sockets that a later restore cannot reopen. So they are
*parked* during the dump: a keeper process outside the dumped tree holds them open, and placeholder files (the slots)
take their numbers. The original gets them back; a restore opens the streams of the copy in place of the slots.

Python's own objects keep their identity: `sys.stdout` and its buffer are initialised again in place, so that a logging
handler that holds `sys.stderr` writes to the new one.
"""

from __future__ import annotations

import _locale  # of C, without the cost of `locale`
import codecs
import fcntl
import io
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from libcriu_py.linux import sockets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAMES = ("stdin", "stdout", "stderr")

# `sys.flags` does not record -u; streams that are unbuffered without the variable are so by -u.
_DASH_U = isinstance(getattr(sys.__stdout__, "buffer", None), io.FileIO) and not os.environ.get("PYTHONUNBUFFERED")


def flush() -> None:
    """
    Flush stdout and stderr, and the originals where the program has replaced them.

    Errors are ignored: nobody reads a stream that is closed or whose reader is gone.
    """
    for stream in {id(s): s for s in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)}.values():
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            continue


class Parking:
    """
    The original's stdio while slots take its place.

    Thread safety: none; what other threads write to stdout meanwhile goes to the slots.
    """

    def __init__(self, slots: Sequence[str], others: Sequence[int] = ()) -> None:
        """
        Park descriptors 0 to 2, and open the slots instead.

        Args:
            slots: Paths of three existing files.
            others: Further descriptors to park and close.

        Raises:
            OSError: The keeper could not be started; stdio is as before.
        """
        flush()
        self._open = [fd for fd in range(3) if is_open(fd)]
        self._name = sockets.keep_fds([*self._open, *others])
        for fd in others:
            os.close(fd)
        self._count = len(self._open) + len(others)
        try:
            for fd, path in enumerate(slots):
                mode = os.O_RDONLY if fd == 0 else os.O_WRONLY
                _open_as(path, mode, fd)
        except OSError:
            for fd in self.end():
                os.close(fd)
            raise

    def end(self) -> list[int]:
        """
        Put the original's descriptors back.

        Returns:
            The `others`, under new numbers.

        Raises:
            OSError: The keeper was killed.
        """
        flush()
        given = sockets.take_fds(self._name, self._count)
        if len(given) != self._count:
            message = f"got back {len(given)} of {self._count} parked descriptors"
            raise OSError(message)
        # The slots occupy 0 to 2, so none of the received descriptors has one of these numbers.
        for fd, held in zip(self._open, given, strict=False):
            os.dup2(held, fd)
            os.close(held)
        for fd in range(3):
            if fd not in self._open and is_open(fd):
                os.close(fd)
        return given[len(self._open) :]


def is_open(fd: int) -> bool:
    """Return whether a descriptor is open."""
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def _open_as(path: str, mode: int, fd: int) -> None:
    opened = os.open(path, mode | os.O_CLOEXEC)
    if opened == fd:
        os.set_inheritable(fd, True)
        return
    os.dup2(opened, fd)
    os.close(opened)


def encoding(env: Mapping[bytes, bytes]) -> tuple[str, str]:
    """
    Return the encoding and error handler that Python would choose for stdio at its start.

    Args:
        env: The new environment; its locale must be set already.

    Returns:
        The encoding, and the handler for stdin and stdout (that of stderr is "backslashreplace").
    """
    current = _locale.setlocale(_locale.LC_CTYPE, None)
    plain = current in {"C", "POSIX", "C.UTF-8", "C.utf8"} or bool(sys.flags.utf8_mode)
    name = "utf-8" if plain else _locale.nl_langinfo(_locale.CODESET).lower()
    errors = "surrogateescape" if plain else "strict"
    if not sys.flags.ignore_environment:
        given_name, _, given_errors = os.fsdecode(env.get(b"PYTHONIOENCODING", b"")).partition(":")
        name = given_name or name
        errors = given_errors or ("strict" if given_name else errors)
        if given_name:
            io.TextIOWrapper(io.BytesIO(), name)  # an unknown one must be refused while all streams are as they were
            name = codecs.lookup(name).name  # as Python shows it
    return name, errors


def reopen(closed: Sequence[int], env: Mapping[bytes, bytes]) -> None:
    """
    Make Python's streams fit the descriptors of the copy.

    A stream that the program itself has assigned to `sys.stdout` is left alone.

    Args:
        closed: Those of 0, 1 and 2 that are closed on the restoring side.
        env: The new environment.
    """
    name, errors = encoding(env)
    unbuffered = _unbuffered(env)
    for fd, attribute in enumerate(NAMES):
        original = getattr(sys, f"__{attribute}__")
        handler = "backslashreplace" if attribute == "stderr" else errors
        if fd in closed:
            stream = None
            if original is not None:
                original.close()  # the Python object only: it does not own its descriptor (closefd=False)
            os.close(fd)
        else:
            stream = _renew(original, fd, name, handler, unbuffered=unbuffered)
        if getattr(sys, attribute) is original:
            setattr(sys, attribute, stream)
        setattr(sys, f"__{attribute}__", stream)


def unbuffer() -> None:
    """Make Python's streams unbuffered, as -u does; nothing has been written to them yet."""
    name, errors = encoding(os.environ._data)  # type: ignore[attr-defined]  # noqa: SLF001 - without its encoding
    for fd, attribute in enumerate(NAMES):
        original = getattr(sys, f"__{attribute}__")
        if original is not None and getattr(sys, attribute) is original:
            _renew(original, fd, name, "backslashreplace" if fd == 2 else errors, unbuffered=True)


class Renewal(NamedTuple):
    """What `_renew` does to a stream, for C (csrc/copy/streams.c): no function of Python runs, which copies pages."""

    file: type[io.FileIO]
    file_arguments: tuple[object, ...]
    name: str
    buffer: object
    """None for an unbuffered stream."""
    buffer_init: object
    text_init: object
    plain: tuple[object, ...]
    """Arguments of the text's initialisation, after the first."""
    terminal: tuple[object, ...]
    """The same for a terminal."""


def renewals(env: Mapping[bytes, bytes]) -> tuple[Renewal | None, ...]:
    """
    Return how each of the standard streams is renewed; None where its objects are not the usual ones.

    Args:
        env: The environment for which they were set up.
    """
    name, errors = encoding(env)
    streams = (getattr(sys, f"__{name}__") for name in NAMES)
    return tuple(_renewal(fd, one, name, errors, unbuffered=_unbuffered(env)) for fd, one in enumerate(streams))


def _renewal(fd: int, text: Any, name: str, errors: str, *, unbuffered: bool) -> Renewal | None:
    buffer = text.buffer
    direct = fd > 0 and unbuffered
    kind = io.FileIO if direct else io.BufferedWriter if fd else io.BufferedReader
    if type(text) is not io.TextIOWrapper or type(buffer) is not kind:
        return None
    common = (name, "backslashreplace" if fd == 2 else errors, "\n")
    return Renewal(
        file=io.FileIO,
        file_arguments=(fd, "wb" if fd else "rb", False),
        name=f"<{NAMES[fd]}>",
        buffer=None if direct else buffer,
        # Of the very type above. The file of before is not kept: the end of a copy would find it open.
        buffer_init=None if direct else getattr(buffer, "__init__"),  # noqa: B009
        text_init=getattr(text, "__init__"),  # noqa: B009
        plain=(*common, not unbuffered and fd == 2, unbuffered),
        terminal=(*common, not unbuffered, unbuffered),
    )


def _unbuffered(env: Mapping[bytes, bytes]) -> bool:
    """Return whether stdio is unbuffered, by the new environment or by the original's -u."""
    return _DASH_U or (bool(env.get(b"PYTHONUNBUFFERED")) and not sys.flags.ignore_environment)


def _renew(stream: TextIO | None, fd: int, name: str, errors: str, *, unbuffered: bool) -> TextIO:
    """Initialise a standard stream again, as `create_stdio` in Python/pylifecycle.c does, but in place."""
    writing = fd != 0
    direct = writing and unbuffered
    # Make a new raw file: FileIO caches whether its descriptor can seek.
    raw = io.FileIO(fd, "wb" if writing else "rb", closefd=False)
    raw.name = f"<{NAMES[fd]}>"
    text, buffer = None, None
    if type(stream) is io.TextIOWrapper and not stream.closed:
        text, buffer = stream, stream.buffer
    if text is None:
        text = io.TextIOWrapper.__new__(io.TextIOWrapper)
    kind = io.BufferedWriter if writing else io.BufferedReader
    # The size that open() chooses: 4096 for a pipe, which bounds what is lost when the reader closes it.
    size = max(2, raw._blksize)  # type: ignore[attr-defined]  # noqa: SLF001
    if direct:
        if isinstance(buffer, io.BufferedWriter):
            buffer.detach()  # or its finalizer would flush to the old file, and complain
        buffer = raw
    elif type(buffer) is kind:
        buffer.__init__(raw, size)  # type: ignore[misc]
    else:
        buffer = kind(raw, size)
    text.__init__(  # type: ignore[misc]
        buffer,
        encoding=name,
        errors=errors,
        newline="\n",  # of stdin too: Python translates newlines on Windows only (Python/pylifecycle.c)
        line_buffering=not unbuffered and (fd == 2 or raw.isatty()),
        write_through=unbuffered,
    )
    text.mode = "w" if writing else "r"  # type: ignore[misc]
    return text
