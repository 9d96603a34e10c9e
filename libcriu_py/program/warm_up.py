"""
Run a program in the process that will be dumped, so that copies start as warm as a second run would.

What a first run sets up becomes part of the snapshot: specialised bytecode, caches, lazily imported modules, thread
pools. What belongs to a single run is undone: its ``__main__``, what that registered with `atexit`, arguments, working
directory, environment, ``sys.path``, signal handlers, standard streams, and the handlers of the root logger. All other
state in modules stays; whether it may stay, only the program's author can judge. So the program runs twice: one that
cannot run again in the same process fails here, and not in its copies.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import Any

from libcriu_py.program.main import Program, forget_mains, fresh_main, run_main
from libcriu_py.program.preload import report
from libcriu_py.program.seeding import keep_marks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

ROUNDS = 2
"""Runs with the same arguments; the second proves that the program can run again, as it does in copies."""
PATIENCE = 10.0
"""Seconds that threads have to end after their program."""


class CannotWarmUpError(Exception):
    """A program cannot be warmed up; the message says why, and what to do."""


def warm_up(program: Program, args: Sequence[str]) -> None:
    """
    Run a program to its end, twice, in this process.

    Args:
        program: The program.
        args: Its arguments.

    Raises:
        CannotWarmUpError: The program raised an exception, ended with another status the second time, or left threads
            running.
    """
    said = " ".join(args) or "no arguments"
    report(f"warm-up with {said}")
    statuses = []
    for number in range(ROUNDS):
        statuses.append(_run(program, args, again=number > 0))
        if statuses[-1] != statuses[0]:
            problem = f"with {said} it ended with status {statuses[0]} at first and with {statuses[-1]} the second time"
            raise CannotWarmUpError(_unfit(problem))
    if statuses[0] != 0:
        report(f"the warm-up with {said} ended with status {statuses[0]}")


def _unfit(problem: str) -> str:
    """Return the message that a program cannot be warmed up, and what to do instead."""
    return (
        f"the program cannot be run again in the same process: {problem}; leave out --warm-up (--learn only imports "
        "what a run imports), or have the program call libcriu_py.checkpoint() itself once it is warm"
    )


def _run(program: Program, args: Sequence[str], *, again: bool) -> int:
    """Run the program once; return its exit status."""
    threads = set(threading.enumerate())
    with ExitStack() as stack:
        for keep in (_arguments, _surroundings, _environment, _signals, _streams, _logging, keep_marks):
            stack.enter_context(keep())
        at_exit = stack.enter_context(_at_exit())
        sys.orig_argv[:] = [sys.executable, *program.arguments(), *args]
        status = _status_of(program, args, again=again)
        at_exit()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    # Free what the program left, as the end of its process would.
    fresh_main()
    forget_mains()
    gc.collect()
    _wait_for_threads(threads)
    return status


def _status_of(program: Program, args: Sequence[str], *, again: bool) -> int:
    """Run the main module; return the exit status that its process would have had."""
    try:
        run_main(program, args)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        problem = f"{type(error).__name__}, see above"
        message = _unfit(problem) if again else f"the warm-up ended with {problem}"
        raise CannotWarmUpError(message) from error
    return 0


def _wait_for_threads(before: set[threading.Thread]) -> None:
    """
    Wait for threads of the program, as the interpreter does at its end.

    Raises:
        CannotWarmUpError: A thread does not end. Every copy would have it, and could not end either.
    """
    deadline = time.monotonic() + PATIENCE
    # Idle executor threads of modules end with the interpreter.
    pools: Any = getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", ())
    known = before | set(pools)
    left = [thread for thread in threading.enumerate() if thread not in known and not thread.daemon]
    for thread in left:
        thread.join(max(0.0, deadline - time.monotonic()))
    names = ", ".join(thread.name for thread in left if thread.is_alive())
    if names:
        message = f"{PATIENCE:.0f} seconds after its end these threads were still running: {names}"
        raise CannotWarmUpError(_unfit(message))


@contextmanager
def _at_exit() -> Iterator[Callable[[], None]]:
    """
    Yield a function that calls and forgets what the main module registered with `atexit`, last first.

    Functions of other modules stay registered: like the modules, they stay loaded, and nobody registers them again.
    """
    register, unregister = atexit.register, atexit.unregister
    registered: list[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]] = []

    def register_and_note(func: Callable[..., object], *args: Any, **kwargs: Any) -> Callable[..., object]:
        if sys._getframe(1).f_globals.get("__name__") == "__main__":  # noqa: SLF001  # what warnings.warn does
            registered.append((func, args, kwargs))
            return func
        return register(func, *args, **kwargs)

    def unregister_and_forget(func: Callable[..., object]) -> None:
        registered[:] = [entry for entry in registered if entry[0] != func]
        unregister(func)

    def call_all() -> None:
        while registered:
            func, args, kwargs = registered.pop()
            try:
                func(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - the interpreter, too, shows it and goes on
                sys.excepthook(type(error), error, error.__traceback__)

    atexit.register, atexit.unregister = register_and_note, unregister_and_forget  # type: ignore[assignment]
    try:
        yield call_all
    finally:
        atexit.register, atexit.unregister = register, unregister


@contextmanager
def _arguments() -> Iterator[None]:
    """
    Restore the arguments and sys.path after the block.

    The list objects themselves are put back: modules may hold on to them, and must see the next run's arguments.
    """
    argv, orig_argv = sys.argv, sys.orig_argv
    kept = list(argv), list(orig_argv), list(sys.path)
    try:
        yield
    finally:
        sys.argv, sys.orig_argv = argv, orig_argv
        argv[:], orig_argv[:], sys.path[:] = kept


@contextmanager
def _surroundings() -> Iterator[None]:
    """Restore the working directory and the umask after the block."""
    cwd = os.getcwd()
    umask = os.umask(0)
    os.umask(umask)
    try:
        yield
    finally:
        os.chdir(cwd)
        os.umask(umask)


@contextmanager
def _environment() -> Iterator[None]:
    """Restore the environment after the block, except for changes by imported modules, which are not made again."""
    kind: Any = type(os.environ)
    set_item, delete_item = kind.__setitem__, kind.__delitem__
    kept: dict[bytes, bytes | None] = dict(os.environb)

    def set_and_note(self: Any, name: Any, value: Any) -> None:
        set_item(self, name, value)
        if _is_importing(sys._getframe(1)):  # noqa: SLF001
            kept[self.encodekey(name)] = self.encodevalue(value)

    def delete_and_note(self: Any, name: Any) -> None:
        delete_item(self, name)
        if _is_importing(sys._getframe(1)):  # noqa: SLF001
            kept[self.encodekey(name)] = None

    kind.__setitem__, kind.__delitem__ = set_and_note, delete_and_note
    try:
        yield
    finally:
        kind.__setitem__, kind.__delitem__ = set_item, delete_item
        wanted = {name: value for name, value in kept.items() if value is not None}
        for name in set(os.environb) - set(wanted):
            del os.environb[name]
        os.environb.update(wanted)


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether a frame runs during the import of a module other than the main one."""
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            name: Any = frame.f_globals.get("__name__")
            if name != "__main__" and frame.f_globals is getattr(sys.modules.get(name), "__dict__", None):
                return True
        frame = frame.f_back
    return False


@contextmanager
def _signals() -> Iterator[None]:
    """Restore the signal handlers after the block."""
    kept = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in kept.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextmanager
def _streams() -> Iterator[None]:
    """Restore the standard streams and the hooks of sys after the block."""
    names = ("stdin", "stdout", "stderr", "excepthook", "displayhook", "unraisablehook")
    kept = {name: getattr(sys, name) for name in names}
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(sys, name, value)


@contextmanager
def _logging() -> Iterator[None]:
    """Restore the root logger after the block: `logging.basicConfig` does nothing if it has handlers."""
    loaded: Any = sys.modules.get("logging")
    handlers, level = (list(loaded.root.handlers), loaded.root.level) if loaded else ([], None)
    try:
        yield
    finally:
        _restore_logging(handlers, level)


def _restore_logging(handlers: list[Any], level: int | None) -> None:
    """Set the root logger's handlers and level; None for its initial level."""
    logging: Any = sys.modules.get("logging")
    if logging is not None:
        root = logging.root
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(logging.WARNING if level is None else level)
