"""
The code of a main program: compiled before the dump, and good for copies for as long as its source is the same.

Python compiles a script at each start, and keeps the result of imported modules only.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

_ZIP_END = b"PK\x05\x06"
_ZIP_TAIL = 22 + 0xFFFF
"""Bytes from the end of a file within which a zip archive's last record begins: its own and those of a comment."""


class _Precompiled:
    """
    What was compiled.

    Attributes:
        source: From which, with the file name that tracebacks show; None for nothing.
        code: The result.
    """

    source: tuple[str, str | bytes] | None = None
    code: CodeType | None = None


def precompile(source: str | bytes, filename: str) -> None:
    """
    Compile a main program for copies.

    Args:
        source: Its source. Compiling it must give no warning, which a user would see once, and not in each copy.
        filename: What tracebacks are to show.
    """
    try:
        code = compile(source, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return  # it was changed just now: a copy will say so, as a conventional start would
    _Precompiled.source, _Precompiled.code = (filename, source), code


def compiled(source: str | bytes, filename: str) -> CodeType:
    """
    Return the code of a main program.

    Args:
        source: Its source.
        filename: What tracebacks are to show.

    Raises:
        SyntaxError: As `compile` does.
        ValueError: The source has null bytes, before Python 3.12.
    """
    if _Precompiled.code is not None and _Precompiled.source == (filename, source):
        return _Precompiled.code
    # A script may carry a source encoding cookie and a null byte is an error: compile() does both on bytes.
    return compile(source, filename, "exec", dont_inherit=True)


def may_be_archive(path: str) -> bool:
    """
    Return whether a file can be a zip archive; what says yes is to be looked at by `zipimport`, which takes longer.

    Args:
        path: Of the file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return False
        return _ZIP_END in os.pread(fd, _ZIP_TAIL, max(0, status.st_size - _ZIP_TAIL))
    finally:
        os.close(fd)
