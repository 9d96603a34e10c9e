"""
Find out which modules a program needs from its source, and import them.

A forked child parses the source, so that this leaves nothing in the process that will be dumped.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from libcriu_py.program.child_result import ChildResult
from libcriu_py.program.main import Program, path0

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Literal

_INSTALLED = frozenset({"site-packages", "dist-packages"})
Wanted = tuple[str, tuple[str, ...]]
"""A module to import, and the names that a ``from`` statement imports from it."""


class Reading(NamedTuple):
    """
    What was read from the source of a main module.

    Attributes:
        wanted: What it imports at top level.
        checkpoints_itself: Whether it asks this package for a checkpoint.
        found_here: Whether a module for ``-m`` was found in the working directory.
        late: What it imports only as it runs.
        is_source: Whether it is a source file or a command that compiles without a warning.
        error: Why it cannot be read; empty if it can.
    """

    wanted: list[Wanted]
    checkpoints_itself: bool = False
    found_here: bool = False
    late: tuple[str, ...] = ()
    is_source: bool = False
    error: str = ""


def report(text: str) -> None:
    """Write one line about the progress to stderr."""
    sys.stderr.write(f"libcriu-py: {text}\n")
    sys.stderr.flush()


def read(program: Program) -> Reading:
    """
    Read the main module of a program, in a child.

    Args:
        program: The program. sys.path must be as it will be when it runs.
    """
    answer = ChildResult()
    pid = os.fork()
    if pid == 0:
        answer.write(_read(program))
        os._exit(0)
    os.waitpid(pid, 0)
    lines = answer.lines()
    if not lines or lines[0][0] == "error":
        return Reading([], error=lines[0][1] if lines else f"reading {program.value} ended without a result")
    flags, late = lines[:2]
    return Reading(as_wanted(lines[2:]), "self" in flags, "here" in flags, tuple(late[1:]), "source" in flags)


def _read(program: Program) -> list[Sequence[str]]:
    """Read a main module; return a line of flags, one of late imports, then one for each other import."""
    from libcriu_py.program import imports as main_imports

    try:
        main = main_imports.read_main(program)
        found = main_imports.imports(main)
        own = main_imports.checkpoints_itself(main)
        late = main_imports.late_imports(main)
    except (ImportError, OSError, SyntaxError) as error:
        return [("error", f"cannot read the main module of {program.value}: {error}")]
    # `python -m package.module` imports the package first, and so does everything relative to it.
    parents: list[Sequence[str]] = [(main.package,)] if main.package else []
    here = program.kind == "module" and os.path.abspath(main.filename).startswith(os.path.join(path0(program), ""))
    source = program.kind != "module" and main.is_file and main_imports.compiles_silently(main)
    flags = ("read", "self" if own else "", "here" if here else "", "source" if source else "")
    return [flags, ("late", *late), *parents, *((wanted.module, *wanted.names) for wanted in found)]


def startup_reads(files: Iterable[str]) -> list[str]:
    """
    Return the names of variables that code reads which an interpreter runs at its start, before this package is there.

    A child runs it again: lines of .pth files, such as coverage's, and the modules that site imports.

    Args:
        files: The .pth files.
    """
    answer = ChildResult()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        from libcriu_py.program import reads

        null = os.open(os.devnull, os.O_WRONLY)
        for fd in (1, 2):
            os.dup2(null, fd)
        reads.begin(main=False)
        before = {*reads.names()}
        for path in files:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                for line in file:
                    if line.startswith(("import ", "import\t")):
                        _attempt(lambda line=line: exec(line, {"__name__": "pth"}))  # type: ignore[misc]  # noqa: S102
        import importlib

        for module in filter(None, map(sys.modules.get, ("sitecustomize", "usercustomize"))):
            _attempt(lambda module=module: importlib.reload(module))  # type: ignore[misc]
        answer.write([(name,) for name in reads.names() if name not in before])
        os._exit(0)
    os.waitpid(pid, 0)
    return [name for (name,) in answer.lines()]


def _attempt(call: Callable[[], object]) -> None:
    """Call a function that may do anything."""
    try:
        call()
    except BaseException:  # noqa: BLE001 - the interpreter shows it and goes on, and has done so
        return


def origin(directory: str) -> Literal["library", "installed", "own"]:
    """
    Return whether modules of a directory are of the standard library, of an installed package, or the program's own.

    A package that is only linked into site-packages is not installed but under development.
    """
    try:
        real = os.path.realpath(directory)
    except ValueError:
        return "library"  # not a valid file name: nobody can change it
    if not _INSTALLED.isdisjoint(real.split(os.sep)):
        return "installed"
    library = getattr(os, "__file__", None)
    above = os.path.join(os.path.realpath(os.path.dirname(library)), "") if library else None
    return "library" if above and os.path.join(real, "").startswith(above) else "own"


def extend_path(path: str | None) -> list[str]:
    """Add directories to sys.path, from a text as PYTHONPATH is; return those that were not there."""
    added = [entry for entry in (path.split(os.pathsep) if path else []) if entry not in sys.path]
    sys.path += added
    return added


def import_modules(wanted: Iterable[Wanted], *, strict: bool = False) -> list[str]:
    """
    Import modules.

    Args:
        wanted: The modules, in this order.
        strict: Whether a module that cannot be imported is an error. Otherwise it is only reported on stderr, because
            the program may not need it or may expect the failure.

    Returns:
        The names of those that were not loaded yet.

    Raises:
        ImportError: With `strict`, a module cannot be imported.
    """
    imported: list[str] = []
    for module, names in wanted:
        new = module not in sys.modules
        before = len(sys.modules)
        try:
            __import__(module, fromlist=names)
        except (Exception, SystemExit) as error:  # code of a module may raise anything
            problem = f"{module}: {type(error).__name__}: {error}"
            if strict:
                raise ImportError(problem, name=module) from error
            report(f"not preloaded: {problem}")
            continue
        if new or len(sys.modules) != before:
            imported.append(module)
    return imported


def as_wanted(lines: Iterable[Sequence[str]]) -> list[Wanted]:
    """Turn lines into imports."""
    return [(words[0], tuple(words[1:])) for words in lines]
