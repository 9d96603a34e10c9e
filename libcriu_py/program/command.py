"""
Find the Python program behind the name of a command.

A command that ``pip`` installs is a small script with the interpreter in its first line. Without such a script (wheels
installed without scripts, zipped environments) the entry point itself is called.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from libcriu_py.errors import SnapshotError
from libcriu_py.program.main import Program

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_LINES = 512
"""Bytes of a script to read for its interpreter; the kernel reads 256 (BINPRM_BUF_SIZE)."""


def find_command(name: str, *, python: str = sys.executable, path: str | None = None) -> Program:
    """
    Resolve the name of a command as a shell would, if it is a Python program.

    Args:
        name: The name, without a slash.
        python: The interpreter that will run the command; its directory is searched first.
        path: Directories to search after that, separated by colons; None means PATH.

    Returns:
        The script, or if there is none a call of the entry point with this name.

    Raises:
        SnapshotError: There is no such command, it is not a Python program, or it belongs to another interpreter.
    """
    refused = ""
    for candidate in _candidates(name, python, path):
        interpreter = script_interpreter(candidate)
        if interpreter is None:
            refused = refused or f"{candidate} is not a Python program"
        elif _same_environment(interpreter, python):
            return Program("script", candidate)
        else:
            refused = refused or f"{candidate} belongs to another Python: {interpreter}"
    program = _from_entry_point(name)
    if program is not None:
        return program
    if "belongs to" in refused:
        advice = f"install libcriu_py there too, and pass that Python's path with --python ({refused.split(': ')[-1]})"
        message = f"{refused}; {advice}"
    else:
        what = refused or f"no script {name!r} in this directory and no command of this name on PATH"
        message = f"{what}; give the path of a script, `-m MODULE`, or the name of a command written in Python"
    raise SnapshotError(message)


def script_interpreter(path: str) -> str | None:
    """
    Read from a script's first line which Python runs it.

    Args:
        path: The script.

    Returns:
        The interpreter's path (its name, for ``#!/usr/bin/env python3``), or None if the script is not run by Python.

    Raises:
        OSError: The script cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(FIRST_LINES)
    lines = head.split(b"\n")
    if not lines[0].startswith(b"#!"):
        return None
    words = lines[0][2:].split()
    if words and os.path.basename(words[0]) == b"env":
        words = [word for word in words[1:] if not word.startswith(b"-")]
    elif words[:1] == [b"/bin/sh"] and len(lines) > 1 and lines[1].startswith(b"'''exec'"):
        # what pip and uv write if the path is too long for the kernel, or contains a space
        words = [lines[1].removeprefix(b"'''exec'").strip().split(b' "$0"')[0].strip(b'"')]
    if not words or not os.path.basename(words[0]).startswith((b"python", b"pypy")):
        return None
    return os.fsdecode(words[0])


def _candidates(name: str, python: str, path: str | None) -> Iterator[str]:
    """Yield the executable files of this name, in search order."""
    search = os.environ.get("PATH", os.defpath) if path is None else path
    for directory in [os.path.dirname(os.path.abspath(python)), *search.split(os.pathsep)]:
        candidate = os.path.join(os.path.abspath(directory), name)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            yield candidate


def _same_environment(interpreter: str, python: str) -> bool:
    """Return whether two interpreters are the same binary in the same environment."""
    if not os.path.isabs(interpreter):
        return True  # by way of env: any Python will do
    same_place = os.path.realpath(os.path.dirname(interpreter)) == os.path.realpath(os.path.dirname(python))
    return same_place and os.path.realpath(interpreter) == os.path.realpath(python)


def _from_entry_point(name: str) -> Program | None:
    """Return a program that calls the console-script entry point of this name."""
    from importlib.metadata import entry_points

    for point in entry_points(group="console_scripts", name=name):
        module, _, function = point.value.partition("[")[0].strip().partition(":")
        first = function.partition(".")[0]
        source = f"import sys\nfrom {module} import {first}\nsys.argv[0] = {name!r}\nsys.exit({function}())\n"
        return Program("command", source)
    return None
