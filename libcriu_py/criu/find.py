"""Finding the criu program."""

from __future__ import annotations

import os
import sys

from libcriu_py.errors import BinaryNotFound
from libcriu_py.settings import variable

_SYSTEM_DIRECTORIES = ("/usr/sbin", "/usr/local/sbin")
"""Where distributions put criu, often not on the PATH of an ordinary user."""
_PACKAGED = os.path.join("libcriu_py_criu", "bin")
"""Where the distribution libcriu-py-criu has criu, in a directory of Python packages."""
INSTALL = "pip install 'libcriu-py[criu]'"
"""The command that installs it; never the system's packages, whose criu may be too old for the kernel."""


def find_criu() -> str:
    """
    Return the absolute path of the criu program.

    The search order is: `LIBCRIU_PY_CRIU`; the prefixes `LIBCRIU_PY_PREFIX`, that of the CRIU that the extension was
    built against, and the default of scripts/install-criu; the distribution libcriu-py-criu; `PATH`; /usr/sbin and
    /usr/local/sbin. Root passes over one that another user owns or can write, unless a variable names it, and then
    warns.

    Raises:
        BinaryNotFound: There is none, or `LIBCRIU_PY_CRIU` is not executable.
    """
    named = variable("LIBCRIU_PY_CRIU")
    if named:
        if not _executable(named):
            message = f"LIBCRIU_PY_CRIU={named} is not an executable file"
            raise BinaryNotFound(message)
        _warn_of(_danger(named))
        return os.path.abspath(named)
    prefix, passed_over = variable("LIBCRIU_PY_PREFIX"), ""
    for directory in _directories():
        candidate = os.path.join(directory, "criu")
        if not _executable(candidate):
            continue
        danger = _danger(candidate)
        if danger is None or (prefix is not None and directory == os.path.join(prefix, "sbin")):
            _warn_of(danger)
            return os.path.abspath(candidate)
        passed_over = passed_over or f": {danger}, and root would run that user's program; name it in LIBCRIU_PY_CRIU"
    message = f"there is no criu program here: install it with {INSTALL}, or name it in LIBCRIU_PY_CRIU"
    raise BinaryNotFound(f"there is no criu program that root could trust{passed_over}" if passed_over else message)


def _danger(path: str) -> str | None:
    """Say which other user root would trust with this program; None for ordinary users, who trust whom they like."""
    from libcriu_py.linux.ownership import danger_of_program

    return danger_of_program(path) if os.geteuid() == 0 else None


def _warn_of(danger: str | None) -> None:
    if danger is not None:
        import warnings

        warnings.warn(f"root runs a criu that others can change: {danger}", RuntimeWarning, stacklevel=3)


def require_executable(path: str) -> str:
    """
    Return the absolute path of a criu program, if it is executable.

    Without this check, libcriu reports a missing program as a broken connection, with errno 0.

    Args:
        path: The path of the program.

    Raises:
        BinaryNotFound: It is not an executable file.
    """
    if not _executable(path):
        message = f"{path} is not an executable file, so it cannot be the criu program"
        raise BinaryNotFound(message)
    return os.path.abspath(path)


def _directories() -> list[str]:
    from libcriu_py.criu.native import built_prefix

    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    prefixes = (variable("LIBCRIU_PY_PREFIX"), built_prefix(), os.path.join(data, "libcriu_py", "criu"))
    directories = [os.path.join(prefix, "sbin") for prefix in prefixes if prefix]
    directories += [os.path.join(entry, _PACKAGED) for entry in sys.path if entry]
    directories += [entry for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if entry]
    return [*directories, *_SYSTEM_DIRECTORIES]


def _executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)
