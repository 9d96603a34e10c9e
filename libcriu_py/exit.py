"""
End a process without interpreter teardown.

Finalising an interpreter frees every object one by one, though the kernel frees all memory at once. For a program that
has loaded torch, that takes longer than its restore. All else that an exit must do happens here too, in CPython's order
(Py_FinalizeEx, Python/pylifecycle.c): threads are joined, atexit functions run, files are flushed.

`exit_fast` ends at once. A program that checkpoints itself may end anywhere, with a status that only the interpreter
knows; `end_fast_at_exit` skips the teardown then (`checkpoint(exit="fast")`).

That is not the default, because it also skips weakref callbacks, `__del__` methods of live objects that not only the
main module holds, destructors of C++ statics, and C's atexit functions. (`weakref.finalize` is an atexit function and
does run, and objects of the standard library that write files at their end are closed.) It also keeps objects that
exist at the checkpoint out of garbage collections (`gc.freeze`).
"""

from __future__ import annotations

import _io
import atexit
import gc
import io
import os
import sys
import threading
import types
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

FLUSH_FAILED = 120
"""Exit status of Python if stdout cannot be flushed (Py_RunMain, Modules/main.c)."""


CLOSING_CLASSES = {
    "aifc": ("Aifc_write",),
    "shelve": ("Shelf",),
    "sunau": ("Au_write",),
    "wave": ("Wave_write",),
    "zipfile": ("ZipFile",),
    "dbm.dumb": ("_Database",),
    "dbm.sqlite3": ("_Database",),
    "sqlite3": ("Connection",),
    "tempfile": ("_TemporaryFileCloser",),
}
"""
Classes of the standard library whose finalizers write or remove files, by module; outer ones come first.

The finalizers of all others only warn or close descriptors, or an atexit function does the same.
"""


_frozen: list[weakref.ref[Any]] = []
"""Frozen objects to close at the end, which `gc.get_objects` leaves out."""


def exit_fast(status: int = 0) -> NoReturn:
    """
    End this process as usual, but without interpreter teardown.

    Non-daemon threads are joined, atexit functions run, open files are closed, stdout and stderr flushed.

    Args:
        status: The exit status, of which the kernel keeps 8 bits.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - what Py_FinalizeEx calls
    _run_exit_functions()
    if not _flush_standard_streams() and status == 0:
        status = FLUSH_FAILED
    from libcriu_py.linux import this_process

    this_process.exit_now(status & 0xFF)


def _run_exit_functions() -> None:
    _skip_finalizers_of_memory()
    atexit._run_exitfuncs()  # noqa: SLF001
    _free_main()
    _destroy_subinterpreters()
    _close_all()


def _free_main() -> None:
    """
    Free the main module, and what only that holds, whose finalizers may do something.

    The interpreter frees all modules (finalize_modules, Python/pylifecycle.c). Those that are frozen are not looked at.
    """
    if gc.get_freeze_count():
        gc.collect()
        sys.modules.pop("__main__", None)
        gc.collect()


def _skip_finalizers_of_memory() -> None:
    """
    Skip exit functions that only free memory.

    torch removes each of its operators from its tables (torch/library.py, _del_library), which writes to 5,000 pages:
    more than a copy may have written in its whole run.
    """
    library: Any = sys.modules.get("torch.library")
    function = getattr(library, "_del_library", None)
    if function is None:
        return
    finalizers: dict[object, Any] = weakref.finalize._registry  # type: ignore[attr-defined]  # noqa: SLF001
    for finalizer in list(finalizers.values()):
        if finalizer.func is function:
            finalizer.atexit = False


def run_and_exit_fast(program: Callable[[], None]) -> None:
    """
    Run a program and end as it does, without teardown if it ends normally.

    An uncaught exception, or a SystemExit with a message, is raised for the interpreter to show.

    Args:
        program: The function to run.
    """
    status = 0
    try:
        program()
    except SystemExit as ending:
        code: object = ending.code  # of any type, whatever the stubs say
        if isinstance(code, int):
            status = code
        elif code is not None:
            raise
    exit_fast(status)


def end_fast_at_exit() -> None:
    """
    Skip teardown when the interpreter of this process ends, but not in child processes.

    The interpreter calls `threading._shutdown` first (Py_FinalizeEx, Python/pylifecycle.c), so a wrapper of that does
    the rest of the exit. The interpreter then flushes stdout and sets the status, which only it knows, and has almost
    nothing left to tear down.
    """
    pid = os.getpid()
    threads: Any = threading
    join = threads._shutdown  # noqa: SLF001

    def shutdown() -> None:
        join()
        if os.getpid() != pid:
            return  # a multiprocessing child calls it too, and must not run its parent's exit functions
        _run_exit_functions()
        from libcriu_py.linux import this_process

        this_process.end_at_exit()
        _keep_modules()

    threads._shutdown = shutdown  # noqa: SLF001


def _keep_modules() -> None:
    """
    Leave the interpreter no modules to clear: a frozen cycle, which is never collected, holds them.

    Do nothing if daemon threads run, which may import modules until the interpreter stops them.
    """
    if threading.active_count() > 1:
        return
    kept: dict[str, Any] = {"modules": dict(sys.modules)}
    kept["itself"] = kept
    gc.disable()
    gc.freeze()
    sys.modules.clear()


def freeze() -> None:
    """
    Leave all present objects out of garbage collections and of the search for open files.

    Both would write to every object, and so read or copy all memory that copies share. For a program that uses pandas,
    that is more than half of its run time.
    """
    gc.collect()
    _frozen.clear()
    freeze_more()


def freeze_more() -> None:
    """Leave out also what has come since `freeze`, as the last step before a dump."""
    for thing in _closable():
        with suppress(TypeError):  # sqlite3 connections have no weak references; uncommitted changes are rolled back
            _frozen.append(weakref.ref(thing))
    gc.freeze()


def for_ending(watch: str | None) -> tuple[object, ...] | None:
    """
    Return what C needs to end a copy where nothing is to be called or closed (csrc/copy/ending.c).

    Args:
        watch: What a file's path begins with, and ends with the copy's pid, where that must not be done; or None.

    Returns:
        None if there is something to do at the end already.
    """
    standard = {id(layer) for stream in (sys.__stdout__, sys.__stderr__, sys.__stdin__) for layer in _layers(stream)}
    known = (reference() for reference in _frozen)
    if any(thing is not None and id(thing) not in standard for thing in known):
        return None
    threads: Any = threading
    exits: Any = atexit
    try:
        if exits._ncallbacks() or threads._threading_atexits:  # noqa: SLF001
            return None
        names = (*CLOSING_CLASSES, "_interpreters", "_xxsubinterpreters")
        return (
            threads._active,  # noqa: SLF001
            threads._limbo,  # noqa: SLF001
            threads._threading_atexits,  # noqa: SLF001
            exits._ncallbacks,  # noqa: SLF001
            gc.get_objects,
            (_io._IOBase, *_closing_classes()),  # noqa: SLF001
            tuple(name for name in names if name not in sys.modules),
            sys.intern("flush"),
            watch,
        )
    except AttributeError:  # of another version of Python
        return None


def unfreeze() -> None:
    """Undo `freeze`, in the original."""
    _frozen.clear()
    gc.unfreeze()


def _destroy_subinterpreters() -> None:
    """End sub-interpreters as their finalizers do: atexit functions run, files are flushed."""
    for name in ("_interpreters", "_xxsubinterpreters"):
        module: Any = sys.modules.get(name)
        if module is None:
            continue
        own = module.get_current()
        for interpreter in module.list_all():
            if interpreter != own:
                # One that is running code stays, and ends as it would have.
                with suppress(RuntimeError):
                    module.destroy(interpreter[0] if isinstance(interpreter, tuple) else interpreter)


def _closable() -> list[Any]:
    # The C class: io.IOBase, an ABC, runs Python code for each type. And type(), not `isinstance`, which reads
    # `__class__`: a lazy proxy (Django's settings) then loads its target, or fails to.
    classes = (_io._IOBase, *_closing_classes())  # noqa: SLF001
    known: dict[type, bool] = {}
    found = []
    for thing in gc.get_objects():
        kind = type(thing)
        if kind not in known:
            known[kind] = issubclass(kind, classes)
        if known[kind]:
            found.append(thing)
    return found


def _closing_classes() -> list[type]:
    """Return the classes of CLOSING_CLASSES whose modules are loaded."""
    modules = ((sys.modules.get(module), names) for module, names in CLOSING_CLASSES.items())
    found = (getattr(module, name, None) for module, names in modules for name in names if module is not None)
    return [one for one in found if isinstance(one, type)]


def _close_all() -> None:
    """
    Close all objects that may still write, as their finalizers would.

    Files open for writing come last (iobase_finalize, Modules/_io/iobase.c), outer layers first: closing a text file or
    a compressed one writes to the file below.
    """
    known = (reference() for reference in _frozen)
    found = {id(thing): thing for thing in (*known, *_closable()) if thing is not None}
    for kind in _closing_classes():
        for thing in [thing for thing in found.values() if issubclass(type(thing), kind)]:
            _close(thing)
    files = [thing for thing in found.values() if issubclass(type(thing), _io._IOBase)]  # noqa: SLF001
    standard = {id(layer) for stream in (sys.__stdout__, sys.__stderr__, sys.__stdin__) for layer in _layers(stream)}
    files = [file for file in files if id(file) not in standard]
    files.sort(key=_depth)
    for file in files:
        with suppress(OSError, ValueError, BufferError):  # the last of an io.BytesIO that has a view
            if not file.closed and file.writable():
                file.close()


def _close(thing: Any) -> None:
    """Do what an object's finalizer does, which reports errors but cannot raise them."""
    finalizer = getattr(type(thing), "__del__", None)
    try:
        if isinstance(finalizer, types.FunctionType):
            finalizer(thing)
        else:
            thing.close()
    except (OSError, ValueError):
        return
    except Exception as error:  # noqa: BLE001 - the others must be closed after any error
        text = f"Exception ignored while closing {type(thing).__name__}: {type(error).__name__}: {error}\n"
        os.write(2, text.encode(errors="replace"))


def _depth(file: io.IOBase) -> int:
    if isinstance(file, io.RawIOBase):
        return 2
    return 1 if type(file).__module__ == "_io" and isinstance(file, io.BufferedIOBase) else 0


def _layers(stream: object) -> list[object]:
    buffer = getattr(stream, "buffer", None)
    return [stream, buffer, getattr(buffer, "raw", None)]


def _flush_standard_streams() -> bool:
    """Flush stdout and stderr; return False if output to stdout was lost."""
    kept = True
    for stream in (sys.stdout, sys.stderr):
        if stream is None or getattr(stream, "closed", False):
            continue
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            if stream is sys.stdout:
                kept = False
                os.write(2, f"Exception ignored while flushing sys.stdout:\n{type(error).__name__}: {error}\n".encode())
    return kept
