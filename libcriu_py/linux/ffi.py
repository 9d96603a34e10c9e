"""The only module that imports the compiled extension."""

import os

try:
    from libcriu_py._libcriu import ffi, lib
except ImportError as error:
    message = f"the C extension of libcriu_py cannot be loaded ({error}): install libcriu-py again, or make build"
    raise ImportError(message, name=error.name, path=error.path) from error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcriu_py._libcriu import CData

__all__ = ["checked", "ffi", "lib", "text"]


def checked(result: int) -> int:
    """
    Return what a function of C returned.

    Raises:
        OSError: It is negative: an errno.
    """
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def text(string: "CData") -> str:
    """Return a C string as text."""
    return bytes(ffi.string(string)).decode()  # type: ignore[arg-type]
