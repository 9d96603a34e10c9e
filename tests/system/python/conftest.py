"""Snapshots of an interpreter, and what the interpreter itself does with the same command line."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from libcriu_py.snapshot import launcher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TIMEOUT = 60
SHOW = """
import os, sys
with open("/proc/self/cmdline", "rb") as file:
    parents = file.read().split(b"\\0")[1:]
print(sys.flags, sys.argv, sys.orig_argv[1:], sys.executable, sys.prefix, sys.base_prefix, sys.path, parents)
print(sys._xoptions, sys.warnoptions, sys.dont_write_bytecode, sys.pycache_prefix, sys.stdout, sys.stderr, sys.stdin)
print(sys.stdout.line_buffering, sys.stdout.write_through, __name__, sorted(vars(sys.modules["__main__"])))
"""
"""A program that prints what a command line has made of its interpreter."""


class Done(NamedTuple):
    """How a program has ended."""

    status: int
    output: str
    errors: str


class Warm(NamedTuple):
    """A snapshot of an interpreter."""

    snapshot: Path

    def start(
        self, *arguments: str, env: Mapping[str, str] | None = None, options: Sequence[str] = (), **settings: Any
    ) -> Done:
        """Start a copy, or what stands for it, and wait for its end."""
        return run([launcher.path(), *options, str(self.snapshot), "--", *arguments], env, **settings)

    def is_copy(self, *arguments: str, env: Mapping[str, str] | None = None) -> bool:
        """Return whether a copy takes a command line, and no new interpreter, by a module that is preloaded."""
        done = self.start(*arguments, env=env, options=["-q"])
        assert (done.status, done.errors) == (0, "")
        return {"True": True, "False": False}[done.output.strip()]


def run(
    argv: Sequence[str],
    env: Mapping[str, str] | None = None,
    *,
    stdin: int | None = subprocess.DEVNULL,
    **settings: Any,
) -> Done:
    """Run a program to its end, in this environment with other variables."""
    variables = {**os.environ, **(env or {})}
    done = subprocess.run(
        argv, check=False, capture_output=True, text=True, timeout=TIMEOUT, stdin=stdin, env=variables, **settings
    )
    return Done(done.returncode, done.stdout, done.stderr)


def real(*arguments: str, env: Mapping[str, str] | None = None, **settings: Any) -> Done:
    """Start the interpreter itself."""
    return run([sys.executable, *arguments], env, **settings)


def make(directory: Path, *options: str, env: Mapping[str, str] | None = None) -> Warm:
    """Make a snapshot of an interpreter that has `colorsys` imported, which no start of Python imports."""
    command = [
        sys.executable,
        "-m",
        "libcriu_py",
        "snapshot",
        "--python",
        "-o",
        str(directory),
        "--preload",
        "colorsys",
    ]
    done = run([*command, *options], env)
    assert done.status == 0, done.errors
    return Warm(directory)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Warm:
    """Return a snapshot of this interpreter."""
    return make(tmp_path_factory.mktemp("warm") / "snap")
