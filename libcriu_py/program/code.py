"""
The code of a main program, compiled before the dump; copies use it while its source is unchanged.

Python caches the bytecode of imported modules only, and compiles a script at each start.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

_ZIP_END = b"PK\x05\x06"
_ZIP_TAIL = 22 + 0xFFFF
"""Bytes at the end of a file in which a zip archive's last record begins: 22 of its own and those of a comment."""


class _Precompiled:
    """
    The precompiled main program.

    Attributes:
        source: File name and source that it was compiled from; None if nothing was.
        code: The result.
    """

    source: tuple[str, str | bytes] | None = None
    code: CodeType | None = None


def precompile(source: str | bytes, filename: str) -> None:
    """
    Compile a main program for copies.

    Args:
        source: Its source. It must compile without a warning, which the user would see once instead of in each copy.
        filename: The name that tracebacks show.
    """
    try:
        code = compile(source, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return  # it has just been changed; copies report the error, as a conventional start would
    _Precompiled.source, _Precompiled.code = (filename, source), code


def compiled(source: str | bytes, filename: str) -> CodeType:
    """
    Return the code of a main program.

    Args:
        source: Its source.
        filename: The name that tracebacks show.

    Raises:
        SyntaxError: The source does not compile.
        ValueError: The source has null bytes, before Python 3.12.
    """
    if _Precompiled.code is not None and _Precompiled.source == (filename, source):
        return _Precompiled.code
    # Compile bytes, so that compile() handles an encoding declaration and rejects null bytes.
    return compile(source, filename, "exec", dont_inherit=True)


def source_of(filename: str) -> bytes | None:
    """Return the source of a main program that was precompiled from this file; None if it was not."""
    if _Precompiled.source is None or _Precompiled.source[0] != filename:
        return None
    source = _Precompiled.source[1]
    return source if isinstance(source, bytes) else None


def may_be_archive(path: str) -> bool:
    """Return whether a file can be a zip archive: a quick check before the slower one by `zipimport`."""
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
