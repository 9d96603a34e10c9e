"""
Shims: small files in a directory of PATH that start commands as `libcriu-py auto` does.

    #!/.../libcriu-py-run --auto
    # libcriu-py shim, format 1
    program: /srv/venv/bin/black

csrc/launcher/automatic.c reads them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from libcriu_py.copies.launch_script import interpreter_lines, replace_script
from libcriu_py.errors import CriuError
from libcriu_py.program.command import script_interpreter
from libcriu_py.snapshot import launcher

if TYPE_CHECKING:
    from collections.abc import Sequence

TITLE = "# libcriu-py shim, format 1"
_PROGRAM = "program: "


def program_of(path: str) -> str | None:
    """Return the command that a shim starts; None if the file is no shim."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read(65536).splitlines()
    except (OSError, ValueError):
        return None
    if TITLE not in lines:
        return None
    after = lines[lines.index(TITLE) + 1 :]
    return after[0].removeprefix(_PROGRAM) if after and after[0].startswith(_PROGRAM) else None


def find(directory: str) -> dict[str, str]:
    """Return the shims in a directory: the commands by their names."""
    found = ((name, program_of(os.path.join(directory, name))) for name in sorted(os.listdir(directory)))
    return {name: program for name, program in found if program is not None}


def install(names: Sequence[str], directory: str) -> dict[str, str]:
    """
    Make shims for commands.

    Args:
        names: Commands on PATH, or their paths.
        directory: Where to put them; it is made if it is missing.

    Returns:
        The commands by the names of their shims.

    Raises:
        CriuError: There is no such command, it is no Python program, or another file has its name in the directory.
        OSError: The directory cannot be written to.
    """
    wanted = {os.path.basename(name): _command(name, directory) for name in names}
    for name in wanted:
        path = os.path.join(directory, name)
        if os.path.lexists(path) and program_of(path) is None:
            message = f"{path} exists and is no shim; choose another directory with --into, or remove it"
            raise CriuError(message)
    os.makedirs(directory, exist_ok=True)
    for name, program in wanted.items():
        head = interpreter_lines(launcher.path(), "--auto")
        replace_script(os.path.abspath(os.path.join(directory, name)), f"{head}\n{TITLE}\n{_PROGRAM}{program}\n")
    return wanted


def remove(names: Sequence[str], directory: str) -> list[str]:
    """Remove shims, all of them if none is named; return the names of what was removed."""
    found = find(directory)
    gone = [name for name in (names or found) if name in found]
    for name in gone:
        os.unlink(os.path.join(directory, name))
    return gone


def _command(name: str, directory: str) -> str:
    """Return the path of a command that is no shim, without a symbolic link's place being lost."""
    places = [""] if os.sep in name else os.environ.get("PATH", os.defpath).split(os.pathsep)
    here = os.path.realpath(directory)
    for place in places:
        path = os.path.abspath(os.path.join(place, name))
        if not os.path.isfile(path) or not os.access(path, os.X_OK):
            continue
        if program_of(path) is not None or (os.sep not in name and os.path.realpath(place) == here):
            continue
        if script_interpreter(path) is None:
            message = f"{path} is no Python program, and would not start any sooner"
            raise CriuError(message)
        if "\n" in path:
            message = f"{path!r} has a line break in its path, which a shim cannot name"
            raise CriuError(message)
        return path
    message = f"there is no command {name} on PATH; install it, or give its path"
    raise CriuError(message)
