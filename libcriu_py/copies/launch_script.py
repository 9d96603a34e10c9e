"""
Launch scripts: executable text files that start a program from its snapshot.

The interpreter line names the launcher (`libcriu-py-run --script`). The rest of the file names the snapshot, the
privilege mode, and the command to start if the restore is impossible, one word per line:

    # libcriu-py launch script, format 2
    snapshot: snap
    python: given
    mode: root
    fallback: /usr/bin/python3
    fallback: /srv/program.py

A line `python` makes it the python of a directory: it says nothing where a copy cannot be what it was asked for, the
fallback is the interpreter, and `given` has Python name itself by the script's path, as a virtual environment's does.

In a value, backslash and n stand for a line break, and two backslashes for one. csrc/launcher/script.c reads it.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Literal

from libcriu_py.errors import CriuError
from libcriu_py.privilege.mode import Privilege
from libcriu_py.snapshot import launcher as native_launcher

if TYPE_CHECKING:
    from collections.abc import Sequence

SCRIPT_FORMAT = 2
TITLE = f"# libcriu-py launch script, format {SCRIPT_FORMAT}"
_LONGEST_LINE = 127
"""Bytes of an interpreter line that Linux before 5.1 reads (BINPRM_BUF_SIZE, include/uapi/linux/binfmts.h)."""


def write_launch_script(
    path: str | os.PathLike[str],
    snapshot: str | os.PathLike[str],
    mode: Privilege | str | None = None,
    fallback: Sequence[str] | None = None,
    python: Literal["given", "own"] | None = None,
) -> None:
    """
    Write an executable file that starts the program of a snapshot as `libcriu-py run` does.

    An existing file is replaced in one step, so that a concurrent start finds the old or the new one.

    Args:
        path: The file.
        snapshot: The snapshot's directory. One beside or below the script is recorded by its relative path, so that
            both can be moved together.
        mode: Privilege mode; None lets each start pick the first that works.
        fallback: The conventional command, without the program's arguments; None means the one in the snapshot.
        python: For a script that is an interpreter, the fallback: whether Python is to name itself by the script's
            path, or by its own.

    Raises:
        CriuError: The launcher was not built, or the script cannot be put there.
        OSError: The script cannot be written.
        ValueError: There is no such mode, or the fallback is empty.
    """
    if fallback is not None and not fallback:
        message = "the fallback is empty; give a command, or None for the one recorded in the snapshot"
        raise ValueError(message)
    launcher = refuse_place(path, snapshot)
    target = os.path.abspath(path)
    lines = [interpreter_lines(launcher, "--script"), TITLE]
    lines.append(_line("snapshot", _recorded(os.path.abspath(snapshot), os.path.dirname(target))))
    if python is not None:
        lines.append(_line("python", python))
    if mode is not None:
        lines.append(_line("mode", Privilege.of(mode).value))
    lines += [_line("fallback", word) for word in fallback or ()]
    replace_script(target, "".join(f"{line}\n" for line in lines))


def _line(name: str, value: str) -> str:
    if "\0" in value:
        message = f"the {name} of a launch script cannot contain a NUL byte: {value!r}"
        raise ValueError(message)
    return f"{name}: " + value.replace("\\", "\\\\").replace("\n", "\\n")


def refuse_place(path: str | os.PathLike[str], snapshot: str | os.PathLike[str]) -> str:
    """
    Check, before the snapshot is made, that its launch script can be written.

    Args:
        path: The script.
        snapshot: The snapshot's directory.

    Returns:
        The path of the launcher, for the interpreter line.

    Raises:
        CriuError: The script cannot be written; the message says why, and what to do.
    """
    launcher = native_launcher.find()
    if launcher is None:
        message = "libcriu-py-run, which reads launch scripts, was not built; install the package again"
        raise CriuError(message)
    target = os.path.abspath(path)
    directory, name = os.path.split(target)
    directory = os.path.realpath(directory)
    inside = os.path.join(os.path.realpath(snapshot), "")
    problem = None
    if os.path.join(directory, name, "").startswith(inside):
        problem = f"would be in the snapshot {os.fspath(snapshot)}; put it beside that"
    elif os.path.isdir(target) and not os.path.islink(target):
        problem = "is a directory; give the path of a file"
    elif not os.path.isdir(directory):
        problem = f"cannot be written: there is no directory {directory}; make it: mkdir -p {shlex.quote(directory)}"
    elif not os.access(directory, os.W_OK | os.X_OK):
        problem = f"cannot be written: you may not write to {directory}; choose another place"
    if problem is not None:
        message = f"the launch script {os.fspath(path)} {problem}"
        raise CriuError(message)
    return launcher


def _recorded(snapshot: str, directory: str) -> str:
    inside = os.path.relpath(snapshot, directory)
    return snapshot if inside == os.pardir or inside.startswith(os.pardir + os.sep) else inside


def interpreter_lines(launcher: str, option: str) -> str:
    """
    Return the interpreter line, or if the kernel would cut it, lines that make a shell start the launcher.

    Args:
        launcher: Its path.
        option: What tells it how to read the file.
    """
    line = f"#!{launcher} {option}"
    if len(os.fsencode(line)) <= _LONGEST_LINE and not any(map(str.isspace, launcher)):
        return line
    return f'#!/bin/sh\nexec {shlex.quote(launcher)} {option} "$0" "$@"'


def replace_script(path: str, text: str) -> None:
    """Write an executable file in one step; raise OSError with a sentence if that cannot be."""
    temporary = f"{path}.{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o777)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(os.fsencode(text))
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        message = f"the launch script {path} cannot be written ({error.strerror}); choose another place"
        raise OSError(error.errno, message) from None
